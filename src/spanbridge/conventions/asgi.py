"""ASGI servers: one SERVER span per HTTP request, until its last byte is sent, and one per websocket handshake.

https://asgi.readthedocs.io/en/latest/specs/www.html
"""

from __future__ import annotations

from functools import wraps
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from opentelemetry.instrumentation.propagators import get_global_response_propagator
from opentelemetry.propagators.textmap import Getter, Setter
from opentelemetry.trace import SpanKind

from spanbridge.conventions import http
from spanbridge.conventions.http_server import (
    SCOPE_KEY,
    Request,
    Server,
    failing_with_500,
    matched,
    server_renderer,
    split_host,
)
from spanbridge.core.guard import report
from spanbridge.core.options import Option, words
from spanbridge.core.tracing import Operation, Scope, opener, site_of, traced

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, MutableMapping, Sequence

    from opentelemetry.trace import Span

    from spanbridge.core.semconv import Semconv
    from spanbridge.core.tracing import Setup, Wrapped

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    Details = Callable[["Connection"], tuple[str, dict[str, Any]]]

Connection = dict[str, Any]
"""What ASGI calls a scope, and we a connection: `Scope` is taken by the engine."""

OPTIONS = (
    http.EXCLUDED_URLS,
    *http.optional_hooks(
        ("server_request_hook", "(span, scope)"),
        ("client_request_hook", "(span, scope, message)"),
        ("client_response_hook", "(span, scope, message)"),
    ),
    Option(
        "exclude_spans",
        None,
        "Which of `receive` and `send` make no spans; both, unless said otherwise (`none`) or in `contrib` mode.",
        words,
    ),
)

# The messages that may be the last of a response, and what they say if they are not.
_LAST = {
    "http.response.body": "more_body",
    "http.response.trailers": "more_trailers",
    "http.response.pathsend": "",
    "http.response.zerocopysend": "more_body",
    "websocket.http.response.body": "more_body",
}
_VERSIONS = (("asgi.version", "version"), ("asgi.spec_version", "spec_version"))
_STARTS = frozenset({"http.response.start", "websocket.http.response.start"})
_EXCHANGED = frozenset({"websocket.receive", "websocket.send"})
_BEFORE_TRAILERS = frozenset({"http.response.body", "http.response.pathsend", "http.response.zerocopysend"})
_KINDS = frozenset({"http", "websocket"})


class ASGIGetter(Getter[Connection]):
    """Reads headers from an ASGI scope."""

    def get(self, carrier: Connection, key: str) -> list[str] | None:
        """Answer the header's values, or None."""
        lower = key.lower()
        return [value for name, value in headers_of(carrier) if name.lower() == lower] or None

    def keys(self, carrier: Connection) -> list[str]:
        """Name the headers."""
        return [name for name, _ in headers_of(carrier)]


class ASGISetter(Setter[Any]):
    """Adds headers to an ASGI message (a response's start)."""

    def set(self, carrier: Any, key: str, value: str) -> None:
        """Add one header."""
        carrier["headers"] = [*(carrier.get("headers") or ()), [key.lower().encode("latin-1"), value.encode("latin-1")]]


asgi_getter = ASGIGetter()
asgi_setter = ASGISetter()


class _HeadersGetter(Getter[Any]):
    """Reads the dictionary that `_headers_by_name` makes; propagators ask for a dozen names per request."""

    def get(self, carrier: dict[bytes, bytes], key: str) -> list[str] | None:
        value = carrier.get(key.lower().encode())
        return None if value is None else [value.decode("latin-1")]

    def keys(self, carrier: dict[bytes, bytes]) -> list[str]:
        return [name.decode("latin-1") for name in carrier]


_headers_getter = _HeadersGetter()


def headers_of(carrier: Message) -> Iterator[tuple[str, str]]:
    """Yield the headers of a scope or a message."""
    for name, value in _headers(carrier):
        yield http.text(name), http.text(value)


# The specification allows any iterable, also such as can be read but once: what is read here is left for the others.


def _headers(carrier: Message) -> Sequence[tuple[bytes, bytes]]:
    headers: Any = carrier.get("headers") or ()
    if not isinstance(headers, (list, tuple)):
        carrier["headers"] = headers = [tuple(header) for header in headers]
    return headers  # type: ignore[no-any-return]


def _address(connection: Connection, key: str) -> Any:
    found = connection.get(key)
    if found is not None and not isinstance(found, (list, tuple)):
        connection[key] = found = tuple(found)
    return found


def _headers_by_name(connection: Connection) -> dict[bytes, bytes]:
    headers = _headers(connection)
    found = dict(headers)
    if len(found) < len(headers):
        found.clear()
        for name, value in headers:  # https://www.rfc-editor.org/rfc/rfc9110#section-5.2
            found[name] = found[name] + b", " + value if name in found else value
    return found


def renderer(semconv: Semconv) -> http.Render:
    """Compile what turns the record into start attributes."""
    return server_renderer(semconv, without="net.host.name" if semconv.contrib else "")


def reader(semconv: Semconv) -> Callable[[Connection], Request]:
    """Compile what makes the neutral record of an ASGI scope."""
    contrib, old = semconv.contrib, semconv.http.old
    clean, clean_url = http.query_cleaner(semconv, client=False), http.url_cleaner(semconv)

    def read(connection: Connection) -> Request:
        get = connection.get
        headers = _headers_by_name(connection)
        # A handshake is a GET, though its scope does not say so; contrib then leaves the method out.
        request = Request(connection, headers, _headers_getter, get("method") or "GET")
        fields = request.fields
        if contrib and not get("method"):
            request.method = ""
            del fields["http.request.method"]
        if scheme := get("scheme"):
            fields["url.scheme"] = scheme
        if version := get("http_version"):
            fields["network.protocol.version"] = version
        path = _path(connection)
        if path:
            fields["url.path"] = path
        query = http.text(get("query_string") or b"")
        if query and (shown := clean(query)):
            fields["url.query"] = shown
        host = named = http.text(headers.get(b"host", b""))
        if contrib:
            address, port = listening(connection)
            host = address
        else:
            own, port = _address(connection, "server") or ("", None)
            host = host or own or ""
            address, port = split_host(host, port)
        if address:
            fields["server.address"] = address
        if port:
            fields["server.port"] = port
        if client := _address(connection, "client"):
            request.peer = client[0]
            if client[0]:
                fields["client.address"] = client[0]
            if client[1]:
                fields["client.port"] = client[1]
        if agent := headers.get(b"user-agent"):
            request.say_agent(agent)
        if not contrib and (asgi := get("asgi")):
            for key, field in _VERSIONS:
                if said := asgi.get(field):
                    fields[key] = said
        if old:
            in_url = unquote(query) if contrib else fields.get("url.query")
            request.say(
                host=host,
                server_name=named if contrib else None,
                target=path,
                url=clean_url(url_of(connection) + (f"?{in_url}" if in_url else "")),
                peer_ip=request.peer,
            )
        return request

    return read


def _path(connection: Connection) -> str:
    """Answer the whole path; servers differ in whether `path` begins with `root_path`, as it should."""
    path: str = connection.get("path") or ""
    root = (connection.get("root_path") or "").rstrip("/")
    return path if path.startswith(root) else root + path


def listening(connection: Connection) -> tuple[str, int | None]:
    """Answer the address and port that the server listens on; as contrib does, with the port in the address, too."""
    address, port = _address(connection, "server") or ("0.0.0.0", 80)  # noqa: S104
    return (address if port in (80, None) else f"{address}:{port}"), port


def url_of(connection: Connection) -> str:
    """Answer the URL that was called, without the query."""
    host = next((value for name, value in headers_of(connection) if name.lower() == "host"), None)
    if host is None:
        host = listening(connection)[0]
    return f"{connection.get('scheme', 'http')}://{host}{_path(connection)}"


def contrib_details(connection: Connection) -> tuple[str, dict[str, Any]]:
    """Answer the name that contrib gives a request, `{method} {path}`, and no attributes."""
    path, method = (connection.get("path") or "").strip(), (connection.get("method") or "").strip()
    return (http.span_name(http.normal_method(method), path) if method else path), {}


def entrance(
    *,
    untraced: Callable[[Any, Connection], bool] | None = None,
    details: Details | None = None,
    resolve: Callable[[Any, Connection], str] | None = None,
) -> Callable[[Wrapped, Setup], Wrapped]:
    """Make the advice for an ASGI entrance: a method `async def (self, scope, receive, send)`.

    The span is current until the call returns, and ends earlier: with the last byte, or with the websocket's handshake.

    Args:
        untraced: tells a call that is not to be traced, given the method's object and the scope.
        details: answers name and further attributes of a scope; by default the method, and the path in `contrib` mode.
        resolve: answers the route of a request that middleware has answered before any router saw it, given the
            method's object and the scope; empty for none.
    """

    def advice(wrapped: Wrapped, setup: Setup) -> Wrapped:
        semconv, contrib = setup.semconv, setup.semconv.contrib
        read, is_excluded = reader(semconv), http.excluded(setup)
        render = renderer(semconv)
        details_of = details or (contrib_details if contrib else None)

        def describe(self: Any, scope: Connection, receive: Receive, send: Send) -> Request | None:
            # An inner entrance to the same request adds nothing.
            if scope.get("type") not in _KINDS or SCOPE_KEY in scope:
                return None
            if untraced is not None and untraced(self, scope):
                return None
            if is_excluded is not None and is_excluded(url_of(scope)):
                return None
            request = read(scope)
            if details_of is None:
                request.name = http.span_name(request.method)
            else:
                request.name, request.extra = details_of(scope)
            return request

        def with_details(request: Request) -> dict[str, Any]:
            attributes = render(request)
            return {**attributes, **request.extra} if request.extra else attributes

        def prepare(scope: Scope[Request]) -> None:
            app, connection, receive, send = scope.args
            connection[SCOPE_KEY] = scope
            scope.args = (app, connection, of_receive(scope, receive), watch(scope, of_send(scope, send)))

        server = Server(
            setup,
            describe,
            attributes=render if details_of is None else with_details,
            name=lambda request: request.name,
            headers=headers_of,
            request_hook="server_request_hook",
            joined=False,
            prepare=prepare,
        )
        watch = _watcher(server, setup, resolve)
        of_receive = _detail(setup, "receive", "client_request_hook", _receive)
        of_send = _detail(setup, "send", "client_response_hook", _send)
        # A server answers 500 for an application that has answered nothing.
        operation = server.operation if contrib else failing_with_500(server, setup)
        if not iscoroutinefunction(wrapped):
            return traced(wrapped, setup, operation)
        begin = opener(setup, operation, site_of(setup, wrapped), wrapped, Scope)

        # What `traced` would answer, but for this: servers tell factories from applications by whether a call without
        # arguments fails at once.
        @wraps(wrapped)
        async def enter(self: Any, scope: Connection, receive: Receive, send: Send) -> Any:
            opened = begin((self, scope, receive, send), _NO_KEYWORDS) if SCOPE_KEY not in scope else None
            if opened is None:
                return await wrapped(self, scope, receive, send)
            try:
                result = await wrapped(*opened.args)
            except BaseException as error:
                opened.fail(error)
                raise
            return opened.finish(result)

        return enter

    return advice


def _watcher(
    server: Server, setup: Setup, resolve: Callable[[Any, Connection], str] | None
) -> Callable[[Scope[Request], Send], Send]:
    """Compile what looks on as the application answers, and ends the span where the answer ends."""
    contrib = setup.semconv.contrib
    # contrib's span of a websocket lasts as long as the connection, and is a success once something is sent.
    statuses: dict[str, int | None] = {"websocket.accept": 101, "websocket.close": 403}
    last = {**_LAST, **dict.fromkeys(statuses, "")}
    if contrib:
        statuses, last = {"websocket.accept": None, "websocket.send": 200}, _LAST

    def note(scope: Scope[Request], message: Message, status: int | None) -> None:
        try:
            if resolve is not None and scope.record.router is None and scope.span.is_recording():
                matched(scope, resolve(scope.args[0], scope.record.source) or None)
            server.responded(scope.span, status, headers_of, message)
            propagator = get_global_response_propagator()  # type: ignore[no-untyped-call]
            if propagator is not None:
                propagator.inject(message, scope.context, asgi_setter)
        except Exception as error:
            report("describing an ASGI response", error)

    def watch(scope: Scope[Request], send: Send) -> Send:
        failing, trailers = False, False

        async def watched_send(message: Message) -> None:
            nonlocal failing, trailers
            if scope.ended:
                return await send(message)
            kind = message["type"]
            if kind in _STARTS:
                # The exception behind an error page comes after the page: the span waits for it.
                failing, trailers = message["status"] >= 500, message.get("trailers", False)
                scope.begun = True
                note(scope, message, message["status"])
            elif kind in statuses:
                scope.begun = True
                note(scope, message, statuses[kind])
            ends = last.get(kind)
            ended = ends is not None and not (message.get(ends) or failing or (trailers and kind in _BEFORE_TRAILERS))
            scope.record.answered = ended
            try:
                await send(message)
            except OSError as error:
                scope.record.gone = error
                raise
            if ended:
                scope.complete(None, stay=True)
            return None

        return watched_send

    return watch


class _Event:
    """One call of `receive` (which answers the message) or `send` (which takes it)."""

    __slots__ = ("call", "message", "scope")

    def __init__(self, scope: Scope[Request], call: Any, message: Message) -> None:
        self.scope = scope
        self.call = call
        self.message = message


async def _receive(event: _Event) -> Message:
    event.message = await event.call()
    return event.message


async def _send(event: _Event) -> None:
    await event.call(event.message)


def _detail(setup: Setup, direction: str, hook_name: str, pass_on: Wrapped) -> Callable[[Scope[Request], Any], Any]:
    """Compile what makes a span of every call in one direction; without such spans, the hook gets the request's."""
    hook = http.hooked(setup, hook_name)
    excluded = setup.options.get("exclude_spans")
    if excluded is None:
        excluded = () if setup.semconv.contrib else ("receive", "send")
    if direction in excluded and hook is None:
        return lambda scope, call: call
    mark = http.status_marker(setup.semconv, server=True)

    def tell(span: Span, event: _Event, result: Any) -> None:
        if hook is not None:
            hook(span, event.scope.record.source, event.message)

    def describe_message(span: Span, event: _Event, result: Any) -> None:
        tell(span, event, result)
        kind = event.message["type"]
        span.set_attribute("asgi.event.type", kind)
        if kind in _STARTS:
            mark(span, event.message["status"])
        elif kind in _EXCHANGED:
            mark(span, 200)

    operation: Operation[_Event] = Operation(
        SpanKind.INTERNAL,
        lambda event: event,
        lambda event: f"{event.scope.record.name} {event.scope.record.source['type']} {direction}",
        lambda event: {},
        succeeded=describe_message,
    )
    if direction not in excluded:
        pass_on = traced(pass_on, setup, operation)
    else:
        plain = pass_on

        async def pass_on(event: _Event) -> Any:
            result = await plain(event)
            tell(event.scope.span, event, result)
            return result

    def around(scope: Scope[Request], call: Any) -> Any:
        async def passed(message: Message = _NOTHING) -> Any:
            return await pass_on(_Event(scope, call, message))

        return passed

    return around


_NOTHING: Message = {}
_NO_KEYWORDS: dict[str, Any] = {}
