"""Falcon, WSGI and ASGI: one SERVER span per request, named after the matched URI template.

Not traced: middleware, hooks and the phases of a responder.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from inspect import signature
from typing import TYPE_CHECKING, Any

from spanbridge.conventions import asgi, http, http_server
from spanbridge.core.instrumentor import MARK, Instrumentor
from spanbridge.core.patching import Library, Patch
from spanbridge.core.tracing import observed
from spanbridge.version import __version__ as __version__

if TYPE_CHECKING:
    from spanbridge.core.tracing import Scope, Setup, Wrapped


def _taken_out(app: Any, *connection: Any) -> bool:
    return getattr(app, MARK, None) is False


def _wsgi(wrapped: Wrapped, setup: Setup) -> Wrapped:
    # The response hook gets Falcon's objects, later.
    without_hook = replace(setup, options={**setup.options, "response_hook": None})
    # Before 3.0, exceptions that nobody handles leave the application.
    entrance = http_server.wsgi(hook_at_start=False, untraced=_taken_out, adapt=http_server.failing_with_500)
    call = entrance(wrapped, without_hook)
    # falcon.testing tells the flavours apart by the number of arguments.
    call.__signature__ = signature(wrapped)  # type: ignore[attr-defined]
    return call


_asgi = asgi.entrance(untraced=_taken_out)


def _scope(request: Any) -> Scope[http_server.Request] | None:
    """Find the scope by Falcon's request; its ASGI flavour has a scope of another kind."""
    connection = request.scope if hasattr(request, "scope") and isinstance(request.scope, dict) else request.env
    found: Scope[http_server.Request] | None = connection.get(http_server.SCOPE_KEY)
    return found


def _routing(wrapped: Wrapped, setup: Setup) -> Wrapped:
    """Falcon has looked for the resource: name the span, hand it to the user's hook."""
    request_hook, copied = http.hooked(setup, "request_hook"), http.copied(setup)
    contrib, looks_closer = setup.semconv.contrib, copied is not None or request_hook is not None

    def after(found: Any, app: Any, request: Any, *args: Any, **kwargs: Any) -> None:
        scope = _scope(request)
        if scope is None:
            return
        scope.record.router, scope.record.scope = request, scope
        resource, *rest = found[2:]
        if resource is not None:
            template = rest[0] if rest else _template(app, request.path, resource)
            cls: Any = type(resource)
            scope.span.set_attribute("falcon.resource", cls.__name__ if contrib else _full_name(cls))
            http_server.matched(scope, template)
        elif contrib:
            scope.span.update_name(http.span_name(scope.record.method))
        if looks_closer and scope.span.is_recording():
            if copied is not None:
                scope.span.set_attributes(copied(request))
            if request_hook is not None:
                request_hook(scope.span, request)

    return observed(wrapped, setup, after=after)


def _template(app: Any, path: str, resource: Any) -> str | None:
    """Find the template that has led to `resource`, which 1.0 keeps to itself."""
    return _way(getattr(app._router, "_roots", ()), path.lstrip("/").split("/"), resource)  # noqa: SLF001


def _way(nodes: Any, segments: list[str], resource: Any) -> str | None:
    first, *rest = segments
    for node in nodes:
        if node.is_var or node.raw_segment == first:
            further = _way(node.children, rest, resource) if rest else "" if node.resource is resource else None
            if further is not None:
                return f"/{node.raw_segment}{further}"
    return None


@lru_cache(maxsize=1024)
def _full_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _failing(wrapped: Wrapped, setup: Setup) -> Wrapped:
    """An exception has been handled: keep it, if it has become an error page."""
    contrib = setup.semconv.contrib

    def after(handled: Any, app: Any, request: Any, response: Any, error: Any, *args: Any, **kwargs: Any) -> None:
        if isinstance(request, BaseException):  # before 2.0
            request, response, error = response, error, request
        scope = _scope(request)
        if scope is not None and handled and response is not None and str(response.status) >= "500":
            if contrib:  # the status line alone is the span's status there
                scope.span.record_exception(error)
            else:
                scope.record.error = error

    return observed(wrapped, setup, after=after)


def _composing(wrapped: Wrapped, setup: Setup) -> Wrapped:
    """Falcon answers an exception of its own; before 1.1 this is the one place that sees it."""
    if setup.semconv.contrib:
        return wrapped

    def after(nothing: Any, app: Any, request: Any, response: Any, error: Any) -> None:
        scope = _scope(request)
        if scope is not None and str(response.status) >= "500":
            scope.record.error = error

    return observed(wrapped, setup, after=after)


def _answering(wrapped: Wrapped, setup: Setup) -> Wrapped:
    """The response's headers are being written: its last chance to tell the user's hook."""
    response_hook = http.hooked(setup, "response_hook")
    if response_hook is None:
        return wrapped

    def before(response: Any, *args: Any, **kwargs: Any) -> None:
        scope = http_server.current()
        if scope is not None and scope.span.is_recording():
            response_hook(scope.span, scope.record.router, response)

    return observed(wrapped, setup, before=before)


class FalconInstrumentor(Instrumentor):
    """Traces Falcon applications of both kinds, whenever they were made.

    Hooks: `request_hook(span, request)`, called when the resource is looked for, and
    `response_hook(span, request, response)`.
    """

    library = Library("falcon", ("falcon >= 1.0",), tested="4.4.0")
    options = (
        http.EXCLUDED_URLS,
        http.TRACED_REQUEST_ATTRS,
        *http.optional_hooks(("request_hook", "(span, request)"), ("response_hook", "(span, request, response)")),
    )
    patches = (
        # Before 3.0 the application was called API.
        *(
            row
            for module, cls in (("falcon.api", "API"), ("falcon.app", "App"))
            for row in (
                Patch(module, f"{cls}.__call__", _wsgi),
                Patch(module, f"{cls}._get_responder", _routing),
                Patch(module, f"{cls}._handle_exception", _failing),
            )
        ),
        Patch("falcon.api", "API._compose_error_response", _composing),
        Patch("falcon.response", "Response._wsgi_headers", _answering),
        Patch("falcon.asgi.app", "App.__call__", _asgi),
        Patch("falcon.asgi.app", "App._handle_exception", _failing),
        Patch("falcon.asgi.response", "Response._asgi_headers", _answering),
    )
