"""Tornado: one SERVER span per request, named after the matched rule, and one CLIENT span per `AsyncHTTPClient.fetch`.

A websocket's span ends with its handshake; a followed redirect belongs to the fetch that follows it.
Not traced: templates, `websocket_connect`, the messages of a websocket.
"""

from __future__ import annotations

import sys
from functools import lru_cache, partial, wraps
from inspect import iscoroutine, signature
from typing import TYPE_CHECKING, Any

from opentelemetry.instrumentation.propagators import FuncSetter, get_global_response_propagator
from opentelemetry.propagators.textmap import Getter

from spanbridge.conventions import http, http_server
from spanbridge.core.context import attached, get_current
from spanbridge.core.guard import guarded
from spanbridge.core.instrumentor import Instrumentor
from spanbridge.core.patching import Library, Patch
from spanbridge.core.tracing import observed, traced
from spanbridge.instrumentors import tornado_client
from spanbridge.version import __version__ as __version__

if TYPE_CHECKING:
    import re
    from collections.abc import Callable

    from opentelemetry.context import Context
    from opentelemetry.trace import Span

    from spanbridge.core.semconv import Semconv
    from spanbridge.core.tracing import Scope, Setup, Wrapped

# What contrib says of a request; the target stands for the URL.
_CONTRIB_OLD = (
    ("http.method", "http.request.method"),
    ("http.scheme", "url.scheme"),
    ("http.host", "host"),
    ("http.target", "target"),
    ("http.url", "target"),
    ("http.user_agent", "user_agent.original"),
    ("http.flavor", "network.protocol.version"),
    ("http.client_ip", "client.address"),
    ("net.peer.ip", "socket_ip"),
)
_CONTRIB_STABLE = (
    ("http.request.method", "http.request.method"),
    ("http.request.method_original", "http.request.method_original"),
    ("url.scheme", "url.scheme"),
    ("server.address", "host"),
    ("url.path", "url.path"),
    ("url.query", "url.query"),
    ("url.full", "target"),
    ("user_agent.original", "user_agent.original"),
    ("network.protocol.version", "network.protocol.version"),
    ("client.address", "client.address"),
    ("network.peer.address", "socket_ip"),
)


class Request(http_server.Request):
    """What a span says of one request to Tornado.

    `source` is the handler. `begun` tells that the response's headers were on their way when `error` or `gone` came.
    """

    begun = False


class _Getter(Getter[Any]):
    """Reads `tornado.httputil.HTTPHeaders`, whose mapping's own `get` raises for every header that is not there."""

    def get(self, carrier: Any, key: str) -> list[str] | None:
        return carrier.get_list(key) or None

    def keys(self, carrier: Any) -> list[str]:
        return list(carrier)


_getter = _Getter()


def _reader(names: Semconv) -> Callable[[Any], Request]:
    """Compile what makes the neutral record of a request, from its handler."""
    contrib = names.contrib
    clean = http.contrib_query if contrib else http.query_cleaner(names, client=False)
    clean_url = http.url_cleaner(names)
    whole_version = contrib and not names.http.stable  # `HTTP/1.1`, under the old name

    def read(handler: Any) -> Request:
        source = handler.request
        request = Request(handler, source.headers, _getter, source.method)
        request.route = _route(handler, contrib=contrib)
        request.name = http.span_name(request.method, request.route)
        fields, path, host = request.fields, source.path, source.host
        fields["url.scheme"] = source.protocol
        if path:
            fields["url.path"] = path
        shown = clean(source.query) if source.query else ""
        if shown:
            fields["url.query"] = shown
        address, port = http_server.split_host(host or "", None)
        if address:
            fields["server.address"] = address
        if port:
            fields["server.port"] = port
        connection, client = getattr(source.connection, "context", None), source.remote_ip
        request.peer = client
        if client:
            fields["client.address"] = client
        end = getattr(connection, "address", None)
        if isinstance(end, tuple) and end[0] == client:
            fields["client.port"] = end[1]
        if agent := source.headers.get("User-Agent"):
            request.say_agent(agent)
        version = source.version or ""
        fields["network.protocol.version"] = version if whole_version else version.rpartition("/")[2]
        if contrib:
            request.say(host=host, target=clean_url(source.uri), socket_ip=getattr(connection, "_orig_remote_ip", None))
        elif names.http.old:
            target = f"{path}?{shown}" if shown else path
            request.say(host=host, target=target, url=f"{source.protocol}://{host}{target}", peer_ip=client)
        return request

    return read


def _route(handler: Any, *, contrib: bool) -> str | None:
    """Answer the template of the rule that has led to the handler; None for none, as of a 404."""
    application, request = handler.application, handler.request
    if hasattr(application, "default_router"):
        rule = _matched(application.default_router, request)
        found = None if rule is None else rule.target
    else:  # before 4.5
        specs = application._get_host_handlers(request) or ()  # noqa: SLF001 - as Tornado itself finds them
        rule = next((spec for spec in specs if spec.regex.match(request.path)), None)
        found = None if rule is None else rule.handler_class
    matcher, cls = getattr(rule, "matcher", rule), handler.__class__
    if found is not cls or not hasattr(matcher, "regex"):
        return None
    return _template(matcher, cls, request.method, contrib)


def _matched(router: Any, request: Any) -> Any:
    """Find the rule in which the search ends, through the routers of which one can see the rules."""
    for rule in router.rules:
        if rule.matcher.match(request) is None:
            continue
        if not hasattr(rule.target, "rules"):
            return rule
        if (inner := _matched(rule.target, request)) is not None:
            return inner
    return None


def _plain(regex: re.Pattern[str]) -> str:
    return regex.pattern.removeprefix("^").removesuffix("$")


@lru_cache(maxsize=1024)
def _template(matcher: Any, handler: type[Any], method: str, contrib: bool) -> str | None:
    """Name the groups of a path: by their own names, else by those of the arguments that a method gets them as."""
    path, count, regex = matcher._path, matcher._group_count, matcher.regex  # noqa: SLF001 - for `reverse_url`
    if path is None:  # not a path with groups in it, but a regular expression in earnest
        return None if contrib else _plain(regex)
    if not count:
        return str(path)
    methods = (method,) if contrib else (method, *handler.SUPPORTED_METHODS, "open")  # a websocket's
    functions = filter(None, (getattr(handler, each.lower(), None) for each in methods))
    candidates = (
        sorted(regex.groupindex, key=regex.groupindex.__getitem__),
        *(list(signature(function).parameters)[1:] for function in functions),
    )
    fitting = next((names for names in candidates if len(names) == count), None)
    return str(path) if fitting is None else str(path % tuple(f"{{{name}}}" for name in fitting))


def _handler_name(handler: Any) -> str:
    cls = type(handler)
    return f"{cls.__module__}.{cls.__qualname__}"


def _attributes(setup: Setup) -> http.Render:
    """Compile what renders the start attributes."""
    names, copied = setup.semconv, http.copied(setup)
    contrib = names.contrib
    rows = (_CONTRIB_OLD, _CONTRIB_STABLE) if contrib else ()
    render = http_server.server_renderer(names, *rows)

    def attributes(request: Request) -> dict[str, Any]:
        found = render(request)
        found["tornado.handler"] = _handler_name(request.source)
        if request.route is not None and not contrib:
            found["http.route"] = request.route
        if copied is not None:
            found.update(copied(request.source.request))
        return found

    return attributes


class _Server(http_server.Server):
    """The convention, for a handler that has answered."""

    __slots__ = ()

    def succeeded(self, span: Span, request: http_server.Request, result: object) -> None:
        handler = request.source
        status = _status(handler)
        begun = getattr(request, "begun", False)
        if status is not None and (begun or request.gone is None):
            self.responded(span, status, handler._headers.get_all)  # noqa: SLF001 - it has no public reader
            if status < 500 and not begun:
                request.error = None  # the application has made something else of it
        super().succeeded(span, request, result)


def _begun(handler: Any) -> bool:
    """Say whether the response's headers have been written."""
    return bool(handler._headers_written)  # noqa: SLF001 - there is no other way to know


def _status(handler: Any) -> int | None:
    """Answer the status that was sent; None where another has answered, such as a `FallbackHandler`'s application."""
    if _begun(handler):
        return int(handler.get_status())
    return 101 if getattr(handler, "ws_connection", None) is not None else None


def _executing(wrapped: Wrapped, setup: Setup) -> Wrapped:
    """A request is handled, by a coroutine or by what is finished later."""
    read, is_excluded = _reader(setup.semconv), http.excluded(setup)

    def describe(handler: Any, *args: Any, **kwargs: Any) -> Request | None:
        return None if is_excluded is not None and is_excluded(handler.request.uri) else read(handler)

    def remember(scope: Scope[http_server.Request]) -> None:
        vars(scope.record.source)[http_server.SCOPE_KEY] = scope

    server = _Server(
        setup,
        describe,
        attributes=_attributes(setup),
        name=lambda request: request.name,
        headers=lambda handler: handler.request.headers.get_all(),
        nested=setup.semconv.contrib,  # contrib takes a request for a part of what is current
        request_hook="server_request_hook",
        joined=True,
        prepare=remember,
        stream=_unfinished,
    )
    return traced(_carrying(wrapped), setup, server.operation)


def _unfinished(scope: Scope[http_server.Request], result: Any) -> object:
    """Keep the span of a handler that will call `finish` later, if its client does not leave before."""
    handler = scope.record.source
    if result is not None:  # before 5.0, a future that is no awaitable
        return scope.follow(result)
    if handler._finished or getattr(handler, "ws_connection", None) is not None:  # noqa: SLF001 - likewise
        return None

    def close() -> None:
        try:
            handler.on_connection_close()
        finally:
            scope.complete(handler)

    handler.request.connection.set_close_callback(close)
    return scope  # nobody looks at the result


def _carrying(wrapped: Wrapped) -> Wrapped:
    """Before 5.0, callbacks run with what Tornado's own contexts attach, and not with the context of who left them."""
    if sys.modules["tornado"].version_info >= (5,):
        return wrapped
    from tornado.stack_context import StackContext  # type: ignore[import-not-found]

    @wraps(wrapped)
    def call(*args: Any, **kwargs: Any) -> Any:
        with StackContext(partial(attached, get_current())):
            return wrapped(*args, **kwargs)

    return call


def _finishing(wrapped: Wrapped, setup: Setup) -> Wrapped:
    """The response is complete: the span ends, and what the handler still does stays within it."""

    def after(result: Any, handler: Any, *args: Any, **kwargs: Any) -> None:
        # contrib ends the span of a websocket with the websocket.
        if setup.semconv.contrib and handler.get_status() == 101:
            return
        scope = vars(handler).pop(http_server.SCOPE_KEY, None)
        if scope is not None:
            scope.record.answered = True
            scope.complete(handler, stay=True)

    return observed(wrapped, setup, after=after)


async def _within(coroutine: Any, context: Context) -> Any:
    with attached(context):
        return await coroutine


def _receiving(wrapped: Wrapped, setup: Setup) -> Wrapped:
    """A part of a body has come, for a handler that takes it in parts: it does so within its span."""

    def scope_of(delegate: Any = None, *args: Any, **kwargs: Any) -> Scope[http_server.Request] | None:
        handler = getattr(delegate, "handler", None)
        return None if handler is None else http_server.scope_of(vars(handler))

    find = guarded(scope_of, "tornado: finding the span of a part of a body")

    @wraps(wrapped)
    def data_received(*args: Any, **kwargs: Any) -> Any:
        scope = find(*args, **kwargs)
        if scope is None:
            return wrapped(*args, **kwargs)
        with attached(scope.context):
            result = wrapped(*args, **kwargs)
        return _within(result, scope.context) if iscoroutine(result) else result

    return data_received


def _failing(wrapped: Wrapped, setup: Setup) -> Wrapped:
    """A handler has raised: keep the exception for the case that it becomes an error page."""
    finish = getattr(sys.modules["tornado.web"], "Finish", ())

    def before(handler: Any, error: BaseException) -> None:
        scope = http_server.scope_of(vars(handler))
        if scope is None:
            return
        record: Any = scope.record
        record.begun = _begun(handler)
        if _is_gone(handler, error):
            record.gone = error
        elif getattr(error, "status_code", 500) >= 500 and not isinstance(error, finish):
            record.error = error

    return observed(wrapped, setup, before=before)


def _is_gone(handler: Any, error: BaseException) -> bool:
    """Say whether `error` only tells that the client has gone away."""
    stream = getattr(handler.request.connection, "stream", None)
    closed = sys.modules["tornado.iostream"].StreamClosedError
    return isinstance(error, closed) and (stream is None or stream.closed())


def _flushing(wrapped: Wrapped, setup: Setup) -> Wrapped:
    """The response's headers are about to be written: add those of the response propagator."""

    def before(handler: Any, *args: Any, **kwargs: Any) -> None:
        propagator = get_global_response_propagator()  # type: ignore[no-untyped-call]
        scope = http_server.scope_of(vars(handler))
        if propagator is not None and scope is not None and not _begun(handler):
            propagator.inject(handler, scope.context, setter=_setter)

    return observed(wrapped, setup, before=before)


_setter: Any = FuncSetter(lambda handler, key, value: handler.add_header(key, value))  # type: ignore[no-untyped-call]


class TornadoInstrumentor(Instrumentor):
    """Traces Tornado's handlers, of every application, and its HTTP clients, simple and curl.

    Hooks: `server_request_hook(span, handler)`, `client_request_hook(span, request)`, and
    `client_response_hook(span, future)`.
    """

    library = Library("tornado", ("tornado >= 4.0",), tested="6.6.1")
    options = (
        http.EXCLUDED_URLS,
        http.TRACED_REQUEST_ATTRS,
        *http.optional_hooks(
            ("server_request_hook", "(span, handler)"),
            ("client_request_hook", "(span, request)"),
            ("client_response_hook", "(span, future)"),
        ),
    )
    patches = (
        Patch("tornado.web", "RequestHandler._execute", _executing),
        # Before 4.5 the delegate had another name.
        Patch("tornado.web", "_HandlerDelegate.data_received", _receiving),
        Patch("tornado.web", "_RequestDispatcher.data_received", _receiving),
        Patch("tornado.web", "RequestHandler._handle_request_exception", _failing),
        Patch("tornado.web", "RequestHandler.flush", _flushing),
        Patch("tornado.web", "RequestHandler.finish", _finishing),
        Patch("tornado.httpclient", "AsyncHTTPClient.fetch", tornado_client.fetching),
    )
