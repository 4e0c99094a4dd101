# /// script
# dependencies = ["pyramid==2.1", "setuptools<81"]
# [[tool.parity.differences]]
# reason = "what traversal has found is no 404"
# side = "ddtrace"
# pattern = "\\| 404 \\| web \\| server \\| 200 "
# replacement = "| 200 | web | server | 200 "
# [[tool.parity.differences]]
# reason = "methods that no RFC knows are HTTP, or clients could make any number of resources"
# side = "ddtrace"
# pattern = "BREW "
# replacement = "HTTP "
# ///
"""Pyramid over WSGI: routes, traversal, exception views, streams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from _wsgi import send
from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPForbidden, HTTPFound, HTTPServiceUnavailable
from pyramid.response import Response

if TYPE_CHECKING:
    from collections.abc import Callable


class Handled(Exception):
    pass


class Root(dict):  # type: ignore[type-arg]
    def __init__(self, request: Any) -> None:
        self["tree"] = self


def raiser(error: Exception) -> Callable[[Any], None]:
    def view(request: Any) -> None:
        raise error

    return view


def ok(request: Any) -> Response:
    return Response(f"ok {sorted(request.matchdict.items())}")


config = Configurator(root_factory=Root)


def add(name: str, pattern: str, view: Any, **predicates: Any) -> None:
    config.add_route(name, pattern)
    config.add_view(view, route_name=name, **predicates)


def api(config: Any) -> None:
    config.add_route("thing", "things/{name}")
    config.add_view(ok, route_name="thing", request_method="GET")


add("home", "/", ok)
add("item", "/items/{item:\\d+}", ok)
add("files", "/files/*path", ok)
add("broken", "/raises", raiser(ValueError("fault")))
add("handled", "/handled", raiser(Handled()))
add("moved", "/moved", raiser(HTTPFound("/")))
add("forbidden", "/forbidden", raiser(HTTPForbidden()))
add("unavailable", "/unavailable", raiser(HTTPServiceUnavailable()))
add("returns", "/returns", lambda request: HTTPServiceUnavailable())
add("stream", "/stream", lambda request: Response(app_iter=iter([b"a", b"b"])))
config.include(api, route_prefix="/api")
config.add_view(lambda error, request: Response("sorry", status=int(request.params["status"])), context=Handled)
config.add_view(lambda context, request: Response("found"), context=Root)

send(
    config.make_wsgi_app(),
    """
GET /
GET /items/3
HEAD /items/3
BREW /items/3
GET /files/a/b%20c.txt
GET /nowhere/123
POST /nowhere
POST /api/things/lamp
GET /api/things/lamp
GET /raises
GET /handled?status=422
GET /handled?status=500
GET /moved
GET /forbidden
GET /unavailable
GET /returns
GET /stream
GET /tree/tree
""",
)
