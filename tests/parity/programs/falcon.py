# /// script
# dependencies = ["falcon==4.4.0"]
# [tool.parity]
# variables = { FALCON_ASGI_WRAP_NON_COROUTINES = "1" }  # the same responders for both flavours
# [[tool.parity.differences]]
# reason = "what a sink has answered is no 404"
# side = "ddtrace"
# pattern = "(PATCH|TRACE) 404 \\| web \\| server \\| 404 "
# replacement = "\\1 200 | web | server | 200 "
# ///
"""Falcon, WSGI and ASGI: templates, suffixes, sinks, error handlers, streams, responders that do not exist.

ddtrace breaks `falcon.asgi.App()`: the WSGI flavour stands in, whose operations the ASGI flavour must have as well.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import falcon
import falcon.asgi
from falcon.testing import TestClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


class Handled(Exception):
    pass


class Home:
    def on_get(self, request: Any, response: Any) -> None:
        response.text = "home"


class Item:
    def on_get(self, request: Any, response: Any, item: int) -> None:
        response.text = f"item {item}"

    def on_post(self, request: Any, response: Any, item: int) -> None:
        response.status = falcon.HTTP_201

    def on_get_parts(self, request: Any, response: Any, item: int, part: str) -> None:
        response.text = f"part {part} of {item}"


class Status:
    def on_get(self, request: Any, response: Any, code: int) -> None:
        response.status = falcon.code_to_http_status(code)


class Chunks:
    def __iter__(self) -> Iterator[bytes]:
        return iter((b"a", b"b"))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self:
            yield chunk


class Stream:
    def on_get(self, request: Any, response: Any) -> None:
        response.stream = Chunks()


class Raises:
    def __init__(self, error: Exception) -> None:
        self.error = error

    def on_get(self, request: Any, response: Any) -> None:
        raise self.error


def sorry(request: Any, response: Any, error: Exception, params: Any) -> None:
    response.status = falcon.code_to_http_status(request.get_param_as_int("status"))
    response.text = "sorry"


def sink(request: Any, response: Any, **rest: str) -> None:
    response.text = "sunk"


def send(app: Any) -> None:
    app.add_error_handler(Handled, sorry)
    app.add_route("/", Home())
    app.add_route("/items/{item:int}", Item())
    app.add_route("/items/{item:int}/parts/{part}", Item(), suffix="parts")
    app.add_route("/status/{code:int}", Status())
    app.add_route("/stream", Stream())
    app.add_route("/raises", Raises(ValueError("fault")))
    app.add_route("/handled", Raises(Handled()))
    app.add_route("/moved", Raises(falcon.HTTPMovedPermanently("/")))
    app.add_route("/forbidden", Raises(falcon.HTTPForbidden()))
    app.add_route("/unavailable", Raises(falcon.HTTPServiceUnavailable()))
    app.add_sink(sink, r"/sink/(?P<rest>.*)")
    client = TestClient(app)
    for line in REQUESTS.strip().splitlines():
        method, target = line.split()
        path, _, query = target.partition("?")
        answer = client.simulate_request(method, path, query_string=query)
        print(line, answer.status, answer.text)


REQUESTS = """
GET /
GET /?q=1
GET /items/3
HEAD /items/3
POST /items/3
PUT /items/3
OPTIONS /items/3
GET /items/x
GET /items/3/parts/4
POST /items/3/parts/4
GET /nowhere/123
POST /nowhere
GET /status/404
GET /status/503
GET /stream
GET /raises
GET /handled?status=422
GET /handled?status=503
GET /moved
GET /forbidden
GET /unavailable
PATCH /sink/a/b
TRACE /sink/
"""
send(falcon.App(middleware=[]))
send(falcon.App(middleware=[]) if "ddtrace" in sys.modules else falcon.asgi.App())
