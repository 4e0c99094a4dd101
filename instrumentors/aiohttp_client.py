"""aiohttp's client: one CLIENT span per `ClientSession` request, redirects included, until the response's headers.

Not traced by default: connecting. Reading the body belongs to whoever reads it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import SpanKind, Status, StatusCode

from spanbridge.conventions import detail, http, http_client
from spanbridge.core import semconv
from spanbridge.core.context import attached
from spanbridge.core.guard import guarded
from spanbridge.core.instrumentor import MARK, Instrumentor
from spanbridge.core.options import Option
from spanbridge.core.patching import Library, Patch
from spanbridge.core.tracing import Operation, TracerSource, observed, opener
from spanbridge.version import __version__ as __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aiohttp import ClientSession, TraceConfig
    from opentelemetry.trace import Span, TracerProvider

    from spanbridge.core.tracing import Setup, Wrapped

# What contrib says of a request: less than it says for requests.
_CONTRIB_OLD = (("http.method", "method"), ("http.url", "url"))
_CONTRIB_STABLE = (
    ("http.request.method", "method"),
    ("http.request.method_original", "method_original"),
    ("url.full", "url"),
    ("server.address", "host"),
    ("server.port", "port"),
)
_CONTRIB_BOTH = (*_CONTRIB_OLD, ("http.host", "host"), ("net.peer.port", "port"))


def _operation(setup: Setup) -> Operation[http_client.Request]:
    """Compile what a request is, from the parameters of aiohttp's tracing signals."""
    url_filter, response_hook = setup.options["url_filter"], setup.options["response_hook"]
    names, contrib = setup.semconv, setup.semconv.contrib

    def describe(params: Any) -> http_client.Request:
        url = url_filter(params.url) if callable(url_filter) else params.url
        return http_client.Request(params.method, str(url), params.headers, params)

    def answer(params: Any) -> http_client.Response | None:
        response, status = getattr(params, "response", params), getattr(params, "status", None)
        if response is params:  # an exception that tells the status
            return None if contrib or not status else http_client.Response(status)  # 0: too many redirects
        version = response.version
        shown = f"{version.major}.{version.minor}" if version and not contrib else ""
        return http_client.Response(response.status, response.headers, shown)

    def failed(span: Span, request: http_client.Request, error: BaseException) -> None:
        # contrib leaves the exception's text out of the status.
        if names.http.stable:
            span.set_attribute("error.type", type(error).__qualname__)
        span.set_status(Status(StatusCode.ERROR, type(error).__qualname__))
        span.record_exception(error)

    told = (lambda span, source, params: response_hook(span, params)) if callable(response_hook) else None
    operation = http_client.operation(
        replace(setup, options={**setup.options, "response_hook": told}),
        describe,
        answer,
        lambda error: error,
        joined=False,
    )
    if not contrib:
        return operation
    old = _CONTRIB_BOTH if names.http.stable else _CONTRIB_OLD
    return replace(operation, attributes=http.renderer(names, old, _CONTRIB_STABLE), failed=failed)


_CONNECT: Operation[str] = Operation(
    SpanKind.CLIENT,
    lambda session: type(session.connector).__name__,
    lambda connector: f"{connector}.connect",
    lambda connector: {},
)


def _trace_config(setup: Setup) -> TraceConfig:
    """Make what aiohttp tells about the requests of a session; its spans are not current meanwhile."""
    from aiohttp.tracing import TraceConfig

    begin = opener(setup, _operation(setup), "aiohttp_client: a request")
    response_hook = http.hooked(setup, "response_hook")

    def started(context: Any, params: Any) -> None:
        context.connect = None
        context.scope = scope = begin((params,), {})
        if scope is not None:
            scope.leave()
            scope.last()

    def ended(context: Any, params: Any) -> None:
        if context.scope is not None:
            context.scope.finish(params)

    def failed(context: Any, params: Any) -> None:
        if context.connect is not None:
            context.connect.fail(params.exception)
        if context.scope is not None:
            if response_hook is not None and context.scope.span.is_recording():
                response_hook(context.scope.span, params)
            context.scope.fail(params.exception)

    start, end, fail = (
        guarded(tell, f"aiohttp_client: a request {tell.__name__}") for tell in (started, ended, failed)
    )

    async def on_request_start(session: Any, context: Any, params: Any) -> None:
        start(context, params)

    async def on_request_end(session: Any, context: Any, params: Any) -> None:
        end(context, params)

    async def on_request_exception(session: Any, context: Any, params: Any) -> None:
        fail(context, params)

    config = TraceConfig()
    config.on_request_start.append(on_request_start)
    config.on_request_end.append(on_request_end)
    config.on_request_exception.append(on_request_exception)
    if setup.options["trace_connect"]:
        _follow_connections(config, setup)
    config.freeze()
    return config


def _follow_connections(config: TraceConfig, setup: Setup) -> None:
    """Add a span for each connection that a request makes."""
    begin = opener(setup, _CONNECT, "aiohttp_client: connecting")

    def started(session: Any, context: Any) -> None:
        if context.scope is not None:
            with attached(context.scope.context):
                context.connect = connect = begin((session,), {})
                if connect is not None:
                    connect.leave()
                    connect.last()

    def ended(context: Any) -> None:
        if context.connect is not None:
            context.connect.finish(None)

    start = guarded(started, "aiohttp_client: a connection started")
    end = guarded(ended, "aiohttp_client: a connection ended")

    async def on_connect_start(session: Any, context: Any, params: Any) -> None:
        start(session, context)

    async def on_connect_end(session: Any, context: Any, params: Any) -> None:
        end(context)

    config.on_connection_create_start.append(on_connect_start)
    config.on_connection_create_end.append(on_connect_end)


def _listening(wrapped: Wrapped, setup: Setup) -> Wrapped:
    """Make a session tell us about its requests, once it is made, or before its next request."""
    source, given = setup.source, setup.options["trace_configs"] or ()

    def listen(session: Any) -> None:
        configs = session._trace_configs  # noqa: SLF001 - aiohttp offers it to the constructor only
        if vars(session).get(MARK) is False or any(vars(config).get(MARK) is source for config in configs):
            return
        ours = _trace_config(setup)
        vars(ours)[MARK] = source
        for config in given:
            config.freeze()
        session._trace_configs = [*configs, *given, ours]  # noqa: SLF001

    if wrapped.__name__ == "__init__":
        return observed(wrapped, setup, after=lambda result, session, *args, **kwargs: listen(session))
    return observed(wrapped, setup, before=lambda session, *args, **kwargs: listen(session))


class AioHttpClientInstrumentor(Instrumentor):
    """Traces aiohttp's client: all sessions, whenever they were made.

    Hooks: `request_hook(span, TraceRequestStartParams)`, and `response_hook(span, params)` with `TraceRequestEndParams`
    or `TraceRequestExceptionParams`.
    """

    library = Library("aiohttp", ("aiohttp >= 1.2",), tested="3.14.5")
    options = (
        http.EXCLUDED_URLS,
        *http.optional_hooks(("request_hook", "(span, params)"), ("response_hook", "(span, params)")),
        Option("url_filter", None, "Answers the URL to show for a `yarl.URL`."),
        Option("trace_configs", None, "Further `TraceConfig`s that every session gets."),
        detail.option("trace_connect", "each connection that is made"),
    )
    patches = (
        Patch("aiohttp.client", "ClientSession.__init__", _listening),
        Patch("aiohttp.client", "ClientSession._request", _listening),
    )

    @staticmethod
    def uninstrument_session(client_session: ClientSession) -> None:
        """Let requests of this one session go untraced."""
        vars(client_session)[MARK] = False
        configs = client_session._trace_configs  # noqa: SLF001
        client_session._trace_configs = [config for config in configs if MARK not in vars(config)]  # noqa: SLF001


def create_trace_config(
    url_filter: Callable[[Any], Any] | None = None,
    request_hook: Callable[..., Any] | None = None,
    response_hook: Callable[..., Any] | None = None,
    tracer_provider: TracerProvider | None = None,
    meter_provider: Any = None,
    sem_conv_opt_in_mode: Any = None,
    captured_request_headers: Sequence[str] | None = None,
    captured_response_headers: Sequence[str] | None = None,
    sensitive_headers: Sequence[str] | None = None,
) -> TraceConfig:
    """Make a `TraceConfig` for one session: `ClientSession(trace_configs=[create_trace_config()])`.

    Args:
        url_filter: answers the URL to show for a `yarl.URL`.
        request_hook: called as `(span, TraceRequestStartParams)` when a request begins.
        response_hook: called as `(span, params)` with the parameters of its end or of its exception.
        tracer_provider: instead of the global one.
        meter_provider: accepted, unused.
        sem_conv_opt_in_mode: contrib's mode (`default`, `http`, `http/dup`); None reads the environment.
        captured_request_headers: names or regular expressions of request headers to capture.
        captured_response_headers: the same for responses.
        sensitive_headers: those whose values are redacted.
    """
    hooks = {"url_filter": url_filter, "request_hook": request_hook, "response_hook": response_hook}
    setup = AioHttpClientInstrumentor().setup(tracer_provider=tracer_provider, meter_provider=meter_provider, **hooks)
    headers = {
        "http_capture_headers_client_request": captured_request_headers or (),
        "http_capture_headers_client_response": captured_response_headers or (),
        "http_capture_headers_sanitize_fields": sensitive_headers or (),
    }
    names = semconv.of_mode(sem_conv_opt_in_mode)
    source = TracerSource(__name__, names.schema_url, tracer_provider)
    return _trace_config(replace(setup, source=source, semconv=names, options={**setup.options, **headers}))
