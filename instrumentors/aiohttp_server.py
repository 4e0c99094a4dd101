"""aiohttp's server: one SERVER span per request, named after the resource, from the handler to the last byte sent.

A websocket's span ends with its handshake. Not traced: middleware, sub-applications (they add to the route).
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any
from warnings import catch_warnings, simplefilter

from opentelemetry.propagators.textmap import Getter

from spanbridge.conventions import http, http_server
from spanbridge.core import semconv
from spanbridge.core.failure import record_failure
from spanbridge.core.instrumentor import Instrumentor
from spanbridge.core.patching import Library, Patch
from spanbridge.core.tracing import Setup, TracerSource, observed, traced
from spanbridge.version import __version__ as __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from opentelemetry.trace import Span, TracerProvider

    from spanbridge.core.semconv import Semconv
    from spanbridge.core.tracing import Operation, Scope, Wrapped


class Request(http_server.Request):
    """What a span says of one request to aiohttp. `begun` is the first response whose headers have been written."""

    begun: Any = None


class AiohttpGetter(Getter[Any]):
    """Reads headers from an `aiohttp.web.Request`."""

    def get(self, carrier: Any, key: str) -> list[str] | None:
        """Answer the header's values, or None."""
        try:
            values: list[str] | None = carrier.headers.getall(key, None)
        except AttributeError:  # a test's request may have a dict
            value = carrier.headers.get(key)
            values = None if value is None else [value]
        return values

    def keys(self, carrier: Any) -> list[str]:
        """Name the headers."""
        return list(carrier.headers.keys())


getter = AiohttpGetter()


def _headers(request: Any) -> Iterable[tuple[str, str]]:
    items: Iterable[tuple[str, str]] = request.headers.items()
    return items


def _reader(names: Semconv) -> Callable[[Any], Request]:
    """Compile what makes the neutral record of an `aiohttp.web.Request`."""
    contrib, old = names.contrib, names.http.old
    clean = http.contrib_query if contrib else http.query_cleaner(names, client=False)
    clean_url = http.url_cleaner(names)

    def read(source: Any) -> Request:
        request = Request(source, source, getter, source.method)
        request.name = http.span_name(request.method)
        fields = request.fields
        fields["url.scheme"], path = source.scheme, source.path
        if path:
            fields["url.path"] = path
        query = source.rel_url.raw_query_string
        if query and (shown := clean(query)):
            fields["url.query"] = shown
        host = source.host
        if contrib:
            address, port = source.url.host, source.url.port
        else:
            address, port = http_server.split_host(host, None)
            if port is None:
                port = _address(source, "sockname")[1]
            request.peer, client_port = _address(source, "peername")
            if request.peer:
                fields["client.address"] = request.peer
            if client_port:
                fields["client.port"] = client_port
        if address:
            fields["server.address"] = address
        if port:
            fields["server.port"] = port
        if agent := source.headers.get("User-Agent"):
            request.say_agent(agent)
        version = source.version
        fields["network.protocol.version"] = "1.1" if version == _HTTP_11 else f"{version.major}.{version.minor}"
        if old:
            request.say(
                host=address if contrib else host,
                server_name=host if contrib else None,
                target=f"{path}?{fields['url.query']}" if "url.query" in fields else path,
                url=clean_url(str(source.url)),
                peer_ip=request.peer,
            )
        return request

    return read


_HTTP_11 = (1, 1)


def _address(request: Any, end: str) -> tuple[str | None, int | None]:
    """Answer the address of one end of the connection; nothing for Unix sockets."""
    transport = request.transport
    found = None if transport is None else transport.get_extra_info(end)
    return (found[0], found[1]) if isinstance(found, tuple) else (None, None)


class _Server(http_server.Server):
    """The convention, for what aiohttp answers: the response, with whether the connection broke meanwhile."""

    __slots__ = ()

    def succeeded(self, span: Span, request: http_server.Request, result: Any) -> None:
        response = result[0] if isinstance(result, tuple) else result
        self._begun(span, request, response if request.gone is None else None)
        error, request.error = request.error, None
        if error is not None:
            record_failure(span, error, error_type=self.stable and not (self.contrib and hasattr(error, "status_code")))
        super().succeeded(span, request, result)

    def failed(self, span: Span, request: http_server.Request, error: BaseException) -> None:
        if hasattr(error, "status_code"):  # an exception that is a response
            request.error = error if error.status_code >= 500 else None
            self.succeeded(span, request, error)
            return
        if isinstance(error, ConnectionError):  # also raised instead of an error page for which it is too late
            error = error.__context__ or error
            request.gone = error if _is_gone(request.source, error) else None
        self._begun(span, request, None)
        super().failed(span, request, error)

    def _begun(self, span: Span, request: http_server.Request, otherwise: Any) -> None:
        """Note the response that was begun, for any later one comes too late."""
        begun = getattr(request, "begun", None)
        response = otherwise if begun is None else begun
        if response is not None:
            self.responded(span, response.status, response.headers.items)


def _is_gone(request: Any, error: BaseException) -> bool:
    """Say whether `error` only tells that the client has gone away."""
    return isinstance(error, ConnectionError) and (request.transport is None or request.transport.is_closing())


def _operation(setup: Setup, describe: Callable[..., http_server.Request | None]) -> Operation[http_server.Request]:
    return _Server(
        setup,
        describe,
        name=lambda request: request.name,
        headers=_headers,
        nested=False,
        request_hook=None,
        joined=False,
        prepare=_remember,
    ).operation


def _remember(scope: Scope[http_server.Request]) -> None:
    scope.record.scope = scope
    if scope.record.route is not None:  # in a middleware it is known before the span begins
        http_server.matched(scope, scope.record.route)


def _connection(wrapped: Wrapped, setup: Setup) -> Wrapped:
    """One request of a connection: the application's handler, and the writing of what it has answered."""
    read, is_excluded = _reader(setup.semconv), http.excluded(setup)

    def describe(protocol: Any, request: Any, *args: Any, **kwargs: Any) -> http_server.Request | None:
        return None if is_excluded is not None and is_excluded(request.path) else read(request)

    return traced(wrapped, setup, _operation(setup, describe))


def _resolving(wrapped: Wrapped, setup: Setup) -> Wrapped:
    """A router has found the resource, and an application takes it: name the span."""

    def before(match: Any, app: Any) -> None:
        scope = http_server.current()
        if scope is not None and scope.record.router is not match:  # else an application around that one
            scope.record.router = match
            http_server.matched(scope, _route(match))

    return observed(wrapped, setup, before=before)


def _route(match: Any) -> str | None:
    return getattr(getattr(match.route, "resource", None), "canonical", None)


def _beginning(wrapped: Wrapped, setup: Setup) -> Wrapped:
    """A response's headers are written: they count, even if its handler does not come to its end.

    The exception that is being handled meanwhile is what the response stands for.
    """

    def before(response: Any, request: Any) -> None:
        if (error := sys.exc_info()[1]) is None or (scope := http_server.current()) is None:
            return
        if _is_gone(request, error):
            scope.record.gone = error
        elif response.status >= 500:
            scope.record.error = error

    def after(writer: Any, response: Any, request: Any) -> None:
        scope: Any = http_server.current()
        if scope is None or scope.record.source is not request:
            return
        record = scope.record
        if record.begun is None and record.gone is None:
            record.begun = response

    return observed(wrapped, setup, before=before, after=after)


def _shaking(wrapped: Wrapped, setup: Setup) -> Wrapped:
    """A websocket's handshake is done: its span ends, except in `contrib` mode; the handler goes on within it."""

    def after(writer: Any, response: Any, request: Any) -> None:
        scope = http_server.current()
        if scope is not None and not setup.semconv.contrib:
            scope.complete(response, stay=True)

    return observed(wrapped, setup, after=after)


class AioHttpServerInstrumentor(Instrumentor):
    """Traces aiohttp's server: applications, whenever they were made, and bare `web.Server` handlers."""

    # Older ones have no method for a request and its answer, and run on none of our Pythons.
    library = Library("aiohttp", ("aiohttp >= 3.7",), tested="3.14.5")
    options = (http.EXCLUDED_URLS,)
    patches = (
        Patch("aiohttp.web_protocol", "RequestHandler._handle_request", _connection),
        Patch("aiohttp.web_urldispatcher", "UrlMappingMatchInfo.add_app", _resolving),
        Patch("aiohttp.web_response", "StreamResponse.prepare", _beginning),
        Patch("aiohttp.web_ws", "WebSocketResponse.prepare", _shaking),
    )


# Contrib's helpers: for applications that are to be traced alone, and for those who write middleware of their own.


def create_aiohttp_middleware(tracer_provider: TracerProvider | None = None) -> Any:
    """Make a middleware for `web.Application(middlewares=[...])` that traces this one application.

    Args:
        tracer_provider: instead of the global one.
    """
    from aiohttp import web

    setup = AioHttpServerInstrumentor().setup(tracer_provider=tracer_provider)
    read, is_excluded = _reader(setup.semconv), http.excluded(setup)

    def describe(request: Any, handler: Any) -> http_server.Request | None:
        if http_server.current() is not None or (is_excluded is not None and is_excluded(request.path)):
            return None
        record = read(request)
        record.route = _route(request.match_info)
        return record

    async def middleware(request: Any, handler: Any) -> Any:
        return await handler(request)

    return web.middleware(traced(middleware, setup, _operation(setup, describe)))


def create_instrumented_application(tracer_provider: TracerProvider | None = None) -> Any:
    """Make a subclass of `web.Application` whose objects are traced.

    Args:
        tracer_provider: instead of the global one.
    """
    from aiohttp import web

    middleware = create_aiohttp_middleware(tracer_provider)

    with catch_warnings():
        simplefilter("ignore", DeprecationWarning)  # aiohttp discourages what contrib's users ask for

        class InstrumentedApplication(web.Application):
            def __init__(self, *args: Any, middlewares: Iterable[Any] = (), **kwargs: Any) -> None:
                super().__init__(*args, middlewares=[middleware, *middlewares], **kwargs)

    return InstrumentedApplication


def __getattr__(name: str) -> Any:
    """Make `middleware`, the one for the global provider, when it is asked for: it needs aiohttp."""
    if name != "middleware":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return create_aiohttp_middleware()


def get_default_span_name(request: Any) -> str:
    """Answer `{method} {resource}`, or the method alone."""
    return http.span_name(http.normal_method(request.method), _route(request.match_info))


def collect_request_attributes(request: Any, sem_conv_opt_in_mode: Any = None) -> dict[str, Any]:
    """Answer the start attributes of a request.

    Args:
        request: the `aiohttp.web.Request`.
        sem_conv_opt_in_mode: contrib's mode; None reads the environment.
    """
    names = semconv.of_mode(sem_conv_opt_in_mode)
    return {
        **http_server.server_renderer(names)(_reader(names)(request)),
        "http.route": _route(request.match_info) or "",
    }


def collect_request_headers_attributes(request: Any) -> dict[str, Any]:
    """Answer the request headers that the environment asks for, as attributes."""
    return _captured("request", request)


def collect_response_headers_attributes(response: Any) -> dict[str, Any]:
    """Answer the response headers that the environment asks for, as attributes."""
    return _captured("response", response)


def _captured(direction: str, carrier: Any) -> dict[str, Any]:
    setup = Setup("aiohttp_server", TracerSource(__name__, ""), semconv.from_env(), {})
    capture = http.captured(setup, "server", direction, joined=False)
    return capture(_headers(carrier)) if capture else {}


def set_status_code(
    span: Span, status_code: int | str, duration_attrs: Any = None, sem_conv_opt_in_mode: Any = None
) -> None:
    """Note a response's status on its span.

    Args:
        span: the server span.
        status_code: the code, or what took its place.
        duration_attrs: accepted, unused.
        sem_conv_opt_in_mode: contrib's mode; None reads the environment.
    """
    http_server.mark_status_line(span, str(status_code), semconv.of_mode(sem_conv_opt_in_mode))
