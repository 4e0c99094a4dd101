"""Starlette, and FastAPI upon it: one SERVER span per request or websocket handshake, named after the whole route.

FastAPI's have a scope of their own, as ddtrace and contrib tell the two apart.
Not traced: endpoints, middleware, background tasks; `receive` and `send` only on request. FastAPI's and Starlette's own
spans of the same request stand aside; FastAPI's metrics and logs go on.
"""

from __future__ import annotations

import sys
from copy import copy
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from spanbridge.conventions import asgi, http, http_server
from spanbridge.core.instrumentor import MARK, Instrumentor
from spanbridge.core.options import setting
from spanbridge.core.patching import Installation, Library, Patch
from spanbridge.core.tracing import diverted, observed
from spanbridge.version import __version__ as __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from opentelemetry.trace import TracerProvider
    from starlette.applications import Starlette

    from spanbridge.core.tracing import Scope, Setup, Wrapped


def _named(scope: asgi.Connection) -> tuple[str, dict[str, Any]]:
    """Name a request by its method, in `contrib` mode, too, until it is matched."""
    scope["starlette.opentelemetry"] = True  # makes Starlette's own tracing middleware stand aside
    return http.span_name(http.normal_method(scope.get("method") or "GET")), {}


def _resolved(app: Any, scope: asgi.Connection) -> str:
    """Answer the route that the application would have chosen, for a request that middleware has answered."""
    if "router" in scope:  # a router has looked, and found nothing
        return ""
    return _template(app.routes, {**scope, "fastapi": dict(scope.get("fastapi") or ())})  # matching leaves traces there


def _template(routes: Iterable[Any], scope: asgi.Connection) -> str:
    best, chosen, found = 0, None, {}
    for route in _flat(routes):
        match, more = route.matches(scope)
        if match.value > best:  # no match is 0, one for other methods 1, a whole one 2
            best, chosen, found = match.value, route, more
            if best == 2:
                break
    inner = getattr(chosen, "routes", None) or ()
    return getattr(chosen, "path", "") + (_template(inner, {**scope, **found}) if inner else "")


def _flat(routes: Iterable[Any]) -> Iterator[Any]:
    """Yield the routes, and in the place of a router that FastAPI has included those of it, with their prefix."""
    for route in routes:
        if hasattr(route, "effective_route_contexts"):
            yield from (context.starlette_route or context for context in route.effective_route_contexts())
        else:
            yield route


_application = asgi.entrance(
    untraced=lambda app, scope: getattr(app, MARK, None) is False, details=_named, resolve=_resolved
)


def _fastapi(wrapped: Wrapped, setup: Setup) -> Wrapped:
    """FastAPI's application, which is one of Starlette's to contrib, and where the user has switched FastAPI off."""
    if not setup.semconv.contrib and setting("integrations.fastapi.enabled", default=True):
        setup = replace(setup, source=setup.source.beside("spanbridge.instrumentors.fastapi"))
    return _application(wrapped, setup)


# A router alone is an application, too; within one, it is that one's to be traced or not.
_router = asgi.entrance(untraced=lambda router, scope: "app" in scope, details=_named)


def _matching(wrapped: Wrapped, setup: Setup) -> Wrapped:
    """A route has been chosen: add its part to the span's route."""

    def before(route: Any, scope: asgi.Connection, receive: Any, send: Any) -> None:
        found: Scope[http_server.Request] | None = scope.get(http_server.SCOPE_KEY)
        if found is None or found.record.router is route:
            return
        found.record.router = route
        if path := _path(route, scope):
            http_server.matched(found, (found.record.route or "") + path)

    return observed(wrapped, setup, before=before)


def _path(route: Any, scope: asgi.Connection) -> str:
    """Answer a route's own template; FastAPI's included routers have it with their prefix in the scope."""
    included: Any = (scope.get("fastapi") or {}).get("effective_route_context")
    path: str = (route if getattr(included, "original_route", None) is not route else included).path
    return path


def _without_spans(wrapped: Wrapped, setup: Setup) -> Wrapped:
    """Let FastAPI's own telemetry make no spans within a request that has its span."""

    def silent(telemetry: Any, **kwargs: Any) -> Any:
        if http_server.SCOPE_KEY not in kwargs["scope"]:
            return None
        telemetry = copy(telemetry)
        telemetry.config = {**telemetry.config, "tracing": False}
        return partial(wrapped, telemetry, **kwargs)

    return diverted(wrapped, setup, silent)


# What an application does with a request that is traced; does nothing with others.
_WITHIN = (
    *(Patch("starlette.routing", f"{kind}.handle", _matching) for kind in ("Route", "WebSocketRoute", "Mount")),
    Patch("fastapi.routing", "APIRoute.handle", _matching),
    Patch("fastapi.telemetry._asgi", "NativeTelemetry.__call__", _without_spans),
)


class StarletteInstrumentor(Instrumentor):
    """Traces Starlette and FastAPI applications, whenever they were made.

    Hooks: `server_request_hook(span, scope)`; `client_request_hook(span, scope, message)` and
    `client_response_hook(span, scope, message)` for each message received or sent.
    """

    library = Library("starlette", ("starlette >= 0.13",), tested="1.10.0")
    options = asgi.OPTIONS
    patches = (
        Patch("starlette.applications", "Starlette.__call__", _application),
        Patch("starlette.routing", "Router.__call__", _router),
        Patch("fastapi.applications", "FastAPI.__call__", _fastapi),
        *_WITHIN,
    )

    # For applications that are traced alone: routes belong to no application.
    _routes: Installation | None = None

    @staticmethod
    def instrument_app(
        app: Starlette,
        server_request_hook: Any = None,
        client_request_hook: Any = None,
        client_response_hook: Any = None,
        meter_provider: Any = None,
        tracer_provider: TracerProvider | None = None,
        excluded_urls: str | None = None,
    ) -> None:
        """Trace this one application.

        Args:
            app: the application, also FastAPI's.
            server_request_hook: called as `(span, scope)` when a request comes in.
            client_request_hook: called as `(span, scope, message)` for each message received.
            client_response_hook: called as `(span, scope, message)` for each message sent.
            meter_provider: accepted, unused.
            tracer_provider: instead of the global one.
            excluded_urls: comma list of regular expressions.
        """
        StarletteInstrumentor().instrument_object(
            app,
            server_request_hook=server_request_hook,
            client_request_hook=client_request_hook,
            client_response_hook=client_response_hook,
            meter_provider=meter_provider,
            tracer_provider=tracer_provider,
            excluded_urls=excluded_urls,
        )

    @staticmethod
    def uninstrument_app(app: Starlette) -> None:
        """Trace this one application no more, whether `instrument_app` or `instrument` had begun it."""
        StarletteInstrumentor().uninstrument_object(app)

    def _patch_object(self, target: Any, setup: Setup) -> None:
        """Give the application a class of its own: Python looks for `__call__` there."""
        cls = type(target)
        advice = _fastapi if isinstance(target, _fastapi_class()) else _application
        target.__class__ = type(cls.__name__, (cls,), {"__call__": advice(cls.__call__, setup), _OWN: True})
        if self._routes is None:
            self._routes = Installation(_WITHIN, setup, self._refuse)

    def _unpatch_object(self, target: Any) -> None:
        cls = type(target)
        if _OWN in vars(cls):
            target.__class__ = cls.__base__


def _fastapi_class() -> Any:
    """Answer FastAPI's class of applications; nothing while nobody has imported it."""
    return getattr(sys.modules.get("fastapi.applications"), "FastAPI", ())


_OWN = "_class_of_one_application"
