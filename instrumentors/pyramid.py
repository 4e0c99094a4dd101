"""Pyramid: one SERVER span per request, named after the route's pattern, until the last byte of the body.

What traversal finds has no route, and its path would make any number of names. Rendering is traced on request.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from opentelemetry.instrumentation.propagators import get_global_response_propagator
from opentelemetry.trace import Status, StatusCode

from spanbridge.conventions import detail, http, http_server
from spanbridge.conventions.http_server import SCOPE_KEY, Body, Request, Server
from spanbridge.core.guard import guarded, logger
from spanbridge.core.instrumentor import MARK, Instrumentor
from spanbridge.core.patching import Library, Patch
from spanbridge.core.tracing import observed, traced
from spanbridge.version import __version__ as __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.trace import Span

    from spanbridge.core.tracing import Operation, Scope, Setup, Wrapped

TRACE_ENABLED = "opentelemetry-pyramid.trace_enabled"
"""The setting of an application that is not to be traced: false."""
_SETUP = "_spanbridge_setup"
"""Where a registry keeps what `instrument_config` has decided."""


def _taken_out(router: Any) -> bool:
    registry = router.registry
    return getattr(registry, MARK, None) is False or not _enabled(registry)


def _enabled(registry: Any) -> bool:
    wanted = (registry.settings or {}).get(TRACE_ENABLED, True)
    return str(wanted).strip().lower() in {"true", "t", "yes", "y", "on", "1"}  # what pyramid.settings calls true


def _adapted(server: Server, setup: Setup) -> Operation[Request]:
    """An exception that no view has answered is one that the server answers with 500."""
    contrib, render, clean = setup.semconv.contrib, server.operation.attributes, http.url_cleaner(setup.semconv)
    names = setup.semconv.http
    urls = (("http.url",) if names.old else ()) + (("url.full",) if names.stable else ())

    def attributes(request: Request) -> dict[str, Any]:
        return {**render(request), **dict.fromkeys(urls, clean(http_server.url_of(request.source)))}

    def failed(span: Span, request: Request, error: BaseException) -> None:
        answer = getattr(error, "status_int", 500)  # of pyramid.httpexceptions, which are answers as well
        if isinstance(error, Exception) and not http_server.status_sent(request):
            server.mark(span, answer)
        if answer >= 500:
            server.failed(span, request, error)
            if contrib:
                span.set_status(Status(StatusCode.ERROR, str(error)))

    return replace(server.operation, attributes=attributes if contrib else render, failed=failed)


def _routing(wrapped: Wrapped, setup: Setup) -> Wrapped:
    """Pyramid has matched the request, or not: name the span."""

    def after(info: dict[str, Any], mapper: Any, request: Any) -> None:
        _name_after(info["route"], request, contrib=setup.semconv.contrib)

    return observed(wrapped, setup, after=after)


def _before_traversal(event: Any) -> None:
    """Do the same for the application of an instrumented configuration."""
    setup: Setup | None = getattr(event.request.registry, _SETUP, None)
    if setup is not None and setup.source.tracer is not None:
        route = getattr(event.request, "matched_route", None)
        guarded(_name_after, "pyramid: naming a request")(route, event.request, contrib=setup.semconv.contrib)


def _name_after(route: Any, request: Any, *, contrib: bool) -> None:
    scope = _scope(request)
    if scope is not None and route is not None:
        more = {} if contrib else {"pyramid.route.name": route.name}
        http_server.matched(scope, route.pattern, more, name=route.pattern if contrib else None)


def _answering(wrapped: Wrapped, setup: Setup) -> Wrapped:
    """Keep the exception that a view has answered with a page of 500 or more."""

    def after(response: Any, router: Any, request: Any, *args: Any, **kwargs: Any) -> None:
        if (scope := _scope(request)) is not None:
            scope.record.error = _error_behind(response, request)

    return observed(wrapped, setup, after=after)


def _scope(request: Any) -> Scope[Request] | None:
    """Find the scope by Pyramid's request, or what a test has put in its place."""
    environ = getattr(request, "environ", None)
    return None if environ is None else http_server.scope_of(environ)


def _error_behind(response: Any, request: Any) -> BaseException | None:
    error: BaseException | None = getattr(request, "exception", None)
    # A response need be no more than a WSGI application.
    return error if getattr(response, "status_int", 200) >= 500 else None


def trace_tween_factory(handler: Callable[[Any], Any], registry: Any) -> Callable[[Any], Any]:
    """Make the tween that traces the application of an instrumented configuration.

    It may be named in the setting `pyramid.tweens`; `instrument_config` puts it there by itself otherwise.

    Args:
        handler: the tween, or application, below.
        registry: the application's registry.
    """
    setup: Setup | None = getattr(registry, _SETUP, None)
    if not _enabled(registry):
        return handler
    if setup is None:
        if not PyramidInstrumentor().is_instrumented_by_opentelemetry:
            logger.warning("pyramid: the tween does nothing without instrument_config(config) or instrument()")
        return handler
    read = http_server.wsgi_describer(setup)

    def describe(request: Any) -> Request | None:
        return None if SCOPE_KEY in request.environ else read(request.environ)

    def prepare(scope: Scope[Request]) -> None:
        scope.args[0].environ[SCOPE_KEY] = scope

    def stream(scope: Scope[Request], response: Any) -> Any:
        server.responded(scope.span, response.status_int, iter, response.headerlist)
        if (propagator := get_global_response_propagator()) is not None:  # type: ignore[no-untyped-call]
            propagator.inject(response.headers)
        scope.record.error = _error_behind(response, scope.args[0])
        if isinstance(response.app_iter, (list, tuple)):
            return None
        response.app_iter = Body(scope, response.app_iter)
        return response

    server = Server(setup, describe, prepare=prepare, stream=stream)
    return traced(handler, setup, _adapted(server, setup))


class PyramidInstrumentor(Instrumentor):
    """Traces Pyramid applications, whenever they were made.

    Hooks: `request_hook(span, environ)`.
    """

    library = Library("pyramid", ("pyramid >= 1.7",), tested="2.1")
    options = (
        http.EXCLUDED_URLS,
        *http.optional_hooks(
            ("request_hook", "(span, environ)"), ("response_hook", "(span, environ, status, headers)")
        ),
        detail.option("template_spans", "each rendering, by templates or into JSON and the like"),
    )
    patches = (
        Patch("pyramid.router", "Router.__call__", http_server.wsgi(untraced=_taken_out, adapt=_adapted)),
        Patch("pyramid.urldispatch", "RoutesMapper.__call__", _routing),
        Patch("pyramid.router", "Router.invoke_request", _answering),
        Patch("pyramid.router", "Router.invoke_subrequest", _answering),  # before 1.9 the only one
        Patch(
            "pyramid.renderers",
            "RendererHelper.render",
            detail.detail(
                "pyramid.render", "template_spans", lambda helper, *_, **__: {"template.name": helper.name or "<none>"}
            ),
        ),
    )

    @staticmethod
    def instrument_config(config: Any, **kwargs: Any) -> None:
        """Trace the application that is made of this one configuration.

        Args:
            config: the `pyramid.config.Configurator`.
            **kwargs: as of `instrument()`.
        """
        instrumentor = PyramidInstrumentor()
        if getattr(config.registry, _SETUP, None) is not None:
            logger.warning("pyramid: attempting to instrument a configuration while already instrumented")
            return
        setattr(config.registry, _SETUP, instrumentor.setup(**kwargs))
        setattr(config.registry, MARK, True)
        config.add_settings({TRACE_ENABLED: True})
        if not (config.get_settings().get("pyramid.tweens") or "").strip():  # else these are all that there are
            config.add_tween(f"{__name__}.trace_tween_factory", over="pyramid.tweens.excview_tween_factory")
        config.add_subscriber(_before_traversal, "pyramid.events.BeforeTraversal")

    @staticmethod
    def uninstrument_config(config: Any) -> None:
        """Trace the application of this one configuration no more, whoever began it."""
        setup: Setup | None = getattr(config.registry, _SETUP, None)
        if setup is not None:
            setup.source.close()
        setattr(config.registry, _SETUP, None)
        setattr(config.registry, MARK, False)
        config.add_settings({TRACE_ENABLED: False})
