"""HTTP servers: one SERVER span per request, from the entrance of the application to the last byte.

The record is neutral; which attribute names it is written under is decided when `instrument()` runs.
https://opentelemetry.io/docs/specs/semconv/http/http-spans/#http-server-span
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any
from wsgiref.util import request_uri

from opentelemetry.context import Context, create_key
from opentelemetry.instrumentation.propagators import get_global_response_propagator
from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace import SpanKind, Status, StatusCode, get_current_span

from spanbridge.conventions import http
from spanbridge.conventions.client_address import behind_proxies
from spanbridge.core.context import attach, detach, get_current
from spanbridge.core.failure import record_failure
from spanbridge.core.guard import report
from spanbridge.core.options import setting
from spanbridge.core.propagation import extract
from spanbridge.core.semconv import Rows, pick
from spanbridge.core.tracing import Operation, Scope, traced

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from opentelemetry.trace import Span
    from opentelemetry.util.types import AttributeValue

    from spanbridge.core.semconv import Semconv
    from spanbridge.core.tracing import Setup, Wrapped

Environ = dict[str, Any]

# Where the request's scope lives in the WSGI environ: an inner entrance to the same request finds it there.
SCOPE_KEY = "spanbridge.scope"

# Pairs of (attribute, field of `Request.fields`): what each generation of names says.
_OLD = (
    ("http.method", "http.request.method"),
    ("http.server_name", "server_name"),
    ("http.scheme", "url.scheme"),
    ("http.host", "host"),
    ("net.host.name", "server.address"),
    ("net.host.port", "server.port"),
    ("http.target", "target"),
    ("http.url", "url"),
    ("net.peer.ip", "peer_ip"),
    ("net.peer.port", "client.port"),
    ("net.peer.name", "peer_name"),
    ("http.user_agent", "user_agent.original"),
    ("http.flavor", "network.protocol.version"),
    ("user_agent.synthetic.type", "user_agent.synthetic.type"),
)
_STABLE = tuple(
    (name, name)
    for name in (
        *("http.request.method", "http.request.method_original", "url.scheme", "server.address", "server.port"),
        *("url.path", "url.query", "client.address", "client.port", "user_agent.original"),
        *("user_agent.synthetic.type", "network.protocol.version"),
    )
)


class Request:
    """What a server span says of one request, whatever the framework.

    `fields` holds what the server says and no empty value: under the stable names, which the older ones are made of;
    what only those say is under names without a dot, and only there when they are written. `source` is the framework's
    own object (the environ), handed to hooks; `carrier` and `getter` are for propagation. `router` is the last object
    that has matched a part of the path. `error` is the exception that the framework answers with a page, `gone` the one
    that tells that the client has gone away; `answered` tells that the last byte is on its way.
    `peer` is the address of the other end of the connection, whatever a proxy's headers say.
    """

    peer: str | None = None
    route: str | None = None
    router: Any = None
    error: BaseException | None = None
    gone: BaseException | None = None
    answered = False
    scope: Scope[Request] | None = None
    complete = False
    name = ""
    extra: Mapping[str, AttributeValue] = {}

    def __init__(self, source: Any, carrier: Any, getter: Getter[Any], method: str) -> None:
        self.source = source
        self.carrier = carrier
        self.getter = getter
        self.method = normal = http.normal_method(method)
        self.fields: dict[str, Any] = {"http.request.method": normal}
        if method != normal:
            self.fields["http.request.method_original"] = method

    def say_agent(self, agent: Any) -> None:
        """Note the User-Agent header, and whether it gives itself away as a machine's.

        Args:
            agent: the header, as text or bytes.
        """
        self.fields["user_agent.original"] = agent = http.text(agent)
        if (synthetic := http.synthetic_type(agent)) is not None:
            self.fields["user_agent.synthetic.type"] = synthetic

    def say(self, **older: Any) -> None:
        """Note what only the older names say, unless empty."""
        self.fields.update((name, value) for name, value in older.items() if value)


class WSGIGetter(Getter[Environ]):
    """Reads headers from a WSGI environ (PEP 3333)."""

    def get(self, carrier: Environ, key: str) -> list[str] | None:
        """Answer the header's value in a list, or None."""
        value = carrier.get(_environ_key(key))
        return None if value is None else [value]

    def keys(self, carrier: Environ) -> list[str]:
        """Name the headers, in lower case with dashes."""
        return [name.lower() for name, _ in wsgi_headers(carrier)]


_environ_keys: dict[str, str] = {}


def _environ_key(header: str) -> str:
    key = _environ_keys.get(header)
    if key is None:
        key = f"HTTP_{header.upper().replace('-', '_')}"
        if len(_environ_keys) < 64:
            _environ_keys[header] = key
    return key


wsgi_getter = WSGIGetter()


def wsgi_headers(environ: Environ) -> Iterator[tuple[str, str]]:
    """Yield the request's headers from a WSGI environ."""
    for key, value in environ.items():
        if key.startswith("HTTP_"):
            yield key[5:].replace("_", "-"), value


def wsgi_reader(semconv: Semconv) -> Callable[[Environ], Request]:
    """Compile what makes the neutral record of a WSGI environ (PEP 3333)."""
    contrib, old = semconv.contrib, semconv.http.old
    clean, clean_url = http.query_cleaner(semconv, client=False), http.url_cleaner(semconv)

    def read(environ: Environ) -> Request:
        get = environ.get
        request = Request(environ, environ, wsgi_getter, get("REQUEST_METHOD", ""))
        fields = request.fields
        if scheme := get("wsgi.url_scheme"):
            fields["url.scheme"] = scheme
        host, port, path, query = get("HTTP_HOST"), get("SERVER_PORT"), get("PATH_INFO", ""), get("QUERY_STRING")
        shown = clean(query) if query else ""
        if contrib:
            # contrib keeps the port in the address, and leaves path and query out unless the server gives the target.
            address, number_ = host, number(port)
            if not (get("RAW_URI") or get("REQUEST_URI")):
                path = shown = ""
        else:
            address, number_ = split_host(host or get("SERVER_NAME") or "", port)
            path = get("SCRIPT_NAME", "") + path
            if not path.isascii():
                path = path.encode("latin-1", "replace").decode("utf-8", "replace")  # PEP 3333 has bytes in it
        if address:
            fields["server.address"] = address
        if number_:
            fields["server.port"] = number_
        if path:
            fields["url.path"] = path
        if shown:
            fields["url.query"] = shown
        client, name = get("REMOTE_ADDR"), get("REMOTE_HOST")
        request.peer = client
        if name or client:
            fields["client.address"] = name or client
        if (client_port := get("REMOTE_PORT")) and (client_port := number(client_port)):
            fields["client.port"] = client_port
        if agent := get("HTTP_USER_AGENT"):
            request.say_agent(agent)
        if version := get("SERVER_PROTOCOL"):
            fields["network.protocol.version"] = version[5:] if version[:5].upper() == "HTTP/" else version
        if old:
            target = get("RAW_URI") or get("REQUEST_URI")
            request.say(
                host=host,
                server_name=get("SERVER_NAME"),
                target=target if contrib or not target or not query else target.replace(query, clean(query)),
                url=None if target else clean_url(url_of(environ)),
                peer_ip=client,
                peer_name=name if name != client else None,
            )
        return request

    return read


def wsgi_describer(setup: Setup) -> Callable[[Environ], Request | None]:
    """Compile what makes the record of a request, or answers None for an excluded URL."""
    read, is_excluded = wsgi_reader(setup.semconv), http.excluded(setup)
    if is_excluded is None:
        return read
    return lambda environ: None if is_excluded(url_of(environ)) else read(environ)


@lru_cache(maxsize=1024)
def split_host(host: str, port: str | int | None) -> tuple[str, int | None]:
    """Split a Host header into `server.address` and `server.port`; the header's own port wins over `port`."""
    address, colon, own = host.rpartition(":")
    if not colon or own.endswith("]") or not own.isdigit():
        address, own = host, ""
    return address.strip("[]"), int(own) if own else number(port)


def number(value: Any) -> int | None:
    """Read a port; None for what is none."""
    try:
        return int(value) if value else None
    except (TypeError, ValueError):
        return None


class Server:
    """The HTTP server convention, compiled for one `instrument()` call; frameworks differ in how they call it."""

    __slots__ = ("capture_response", "contrib", "mark", "operation", "response_hook", "stable")

    def __init__(
        self,
        setup: Setup,
        describe: Callable[..., Request | None],
        *,
        attributes: http.Render | None = None,
        name: Callable[[Request], str] | None = None,
        headers: Callable[[Any], Iterable[tuple[str, str]]] | None = None,
        nested: bool = True,
        request_hook: str | None = "request_hook",
        joined: bool = True,
        **more: Any,
    ) -> None:
        """Compile it.

        Args:
            setup: what the `instrument()` call decided.
            describe: takes the call's own arguments and answers the request.
            attributes: renders the start attributes, if not as all do.
            name: names the span at its start, if not as WSGI does.
            headers: reads the request's headers from `Request.source`, if it is no WSGI environ.
            nested: whether a request within a local span is a part of it; not so where it comes from a socket.
            request_hook: the option that holds the hook to call at the start; None when the framework calls it later.
            joined: whether contrib joins the values of a header that is repeated.
            **more: further fields of the `Operation`.
        """
        semconv = setup.semconv
        headers_of = headers or wsgi_headers
        self.mark = http.status_marker(semconv, server=True)
        self.stable = semconv.http.stable
        self.response_hook = http.hooked(setup, "response_hook")
        self.capture_response = http.captured(setup, "server", "response", joined=joined)
        hook = http.hooked(setup, request_hook) if request_hook is not None else None
        capture_request = http.captured(setup, "server", "request", joined=joined)
        self.contrib = contrib = semconv.contrib
        locate = _client_locator(semconv, headers_of)

        def opened(span: Span, request: Request) -> None:
            if locate is not None and _is_server(span):
                span.set_attributes(locate(request))
            if capture_request is not None and _is_server(span):
                span.set_attributes(capture_request(headers_of(request.source)))
            if hook is not None:
                hook(span, request.source)

        def wsgi_name(request: Request) -> str:
            # contrib names by the raw path; ours stay low in cardinality until the route is known.
            return contrib_name(request.source) if contrib else http.span_name(request.method)

        self.operation: Operation[Request] = Operation(
            SpanKind.SERVER,
            describe,
            name or wsgi_name,
            attributes or server_renderer(semconv),
            parent=_parent_finder(setup, nested=nested),
            found_at=_REQUEST,
            fresh=True,
            opened=opened if capture_request or hook or locate else None,
            succeeded=self.succeeded,
            failed=self.failed,
            **more,
        )

    def succeeded(self, span: Span, request: Request, result: object) -> None:
        """Mark an exception that the framework has answered with an error page."""
        if request.error is not None:
            record_failure(span, request.error, error_type=self.stable and not self.contrib)
        _forget(request)

    def failed(self, span: Span, request: Request, error: BaseException) -> None:
        """Mark an exception that the application did not handle, unless it only says that the client has gone away."""
        if request.gone is None or not _follows(error, request.gone):
            record_failure(span, error, error_type=self.stable)
        _forget(request)

    def responded(
        self, span: Span, status: int | str | None, headers: Callable[..., Iterable[tuple[str, str]]], *of: Any
    ) -> None:
        """Note the response's status and headers.

        Args:
            span: the server span.
            status: the status code, or PEP 3333's status line; None for an answer without one.
            headers: answers the response's headers, if anybody wants them.
            *of: what it is called with.
        """
        if not span.is_recording():
            return
        code = _status_code(status) if isinstance(status, str) else status
        if code is not None:
            self.mark(span, code)
        elif status is not None:
            _mark_broken(span, status, stable=self.stable)
        if self.capture_response is not None and _is_server(span):
            span.set_attributes(self.capture_response(headers(*of)))


def _client_locator(
    semconv: Semconv, headers_of: Callable[[Any], Iterable[tuple[str, str]]]
) -> Callable[[Request], dict[str, str]] | None:
    """Compile what tells the client from the proxy before it; None unless the user has said which headers tell it."""
    wanted: tuple[str, ...] = setting("http.client_headers", ())
    if not wanted:
        return None
    names = semconv.http
    keys = (("http.client_ip",) if names.old else ()) + (("client.address",) if names.stable else ())

    def locate(request: Request) -> dict[str, str]:
        client = behind_proxies(headers_of(request.source), wanted, request.peer)
        attributes = dict.fromkeys(keys, client) if client else {}
        if names.stable and request.peer:
            attributes["network.peer.address"] = request.peer
        return attributes

    return locate


def _follows(error: BaseException | None, cause: BaseException) -> bool:
    """Say whether `error` is `cause`, or was raised because of it or while it was handled."""
    for _ in range(20):  # an application can close such a chain to a circle
        if error is None or error is cause:
            break
        error = error.__cause__ or error.__context__
    return error is cause


def _forget(request: Request) -> None:
    """Take the scope out of the framework's request: else the two keep each other alive until the collector comes."""
    request.scope = None
    if isinstance(request.source, dict):
        request.source.pop(SCOPE_KEY, None)


@lru_cache(maxsize=256)
def _status_code(line: str) -> int | None:
    """Read the code of a status line (PEP 3333); None for one without."""
    code = line.partition(" ")[0]
    return int(code) if code.isdigit() else None


def _mark_broken(span: Span, line: Any, *, stable: bool) -> None:
    code = str(line).partition(" ")[0]
    if stable:
        span.set_attribute("error.type", code)
    span.set_status(Status(StatusCode.ERROR, f"Non-integer HTTP status: {code}"))


def mark_status_line(span: Span, line: str, semconv: Semconv) -> None:
    """Note a status line (PEP 3333) on a server span, under the names of `semconv`."""
    if not span.is_recording():
        return
    code = _status_code(line)
    if code is None:
        _mark_broken(span, line, stable=semconv.http.stable)
    else:
        http.status_marker(semconv, server=True)(span, code)


def contrib_name(environ: Environ) -> str:
    """Answer the name that contrib gives a WSGI request: `{method} {path}`."""
    method = http.normal_method(environ.get("REQUEST_METHOD", "").strip())
    return http.span_name(method, None if method == "_OTHER" else environ.get("PATH_INFO", "").strip())


def server_renderer(
    semconv: Semconv, old: Rows = _OLD, stable: Rows = _STABLE, *, without: str = ""
) -> Callable[[Request], dict[str, Any]]:
    """Compile what turns a `Request` into a server span's start attributes.

    Args:
        semconv: which names are written.
        old: the rows of the older names.
        stable: the rows of the stable names.
        without: an older name that is not written.
    """
    rows = pick(semconv.http, tuple(row for row in old if row[0] != without), stable)
    if rows == _STABLE and not semconv.contrib:
        return attrgetter("fields")  # as they are

    def render(request: Request) -> dict[str, Any]:
        fields = request.fields
        return {key: fields[field] for key, field in rows if field in fields}

    return render


def _is_server(span: Span) -> bool:
    return getattr(span, "kind", SpanKind.SERVER) is SpanKind.SERVER


# The request in whose context a call runs.
_REQUEST = create_key("spanbridge-request")


def _parent_finder(setup: Setup, *, nested: bool) -> Callable[[Request, Context], tuple[Context, SpanKind]]:
    """Compile what finds the context that a request's span continues: the caller's, or a local span's."""
    heeds_caller = setting(f"integrations.{setup.integration}.distributed_tracing", default=True)

    def find(request: Request, context: Context) -> tuple[Context, SpanKind]:
        if context:
            # A server may begin a connection's next request in the context of the one that it has just answered.
            previous: Any = context.get(_REQUEST)
            if not nested or (previous is not None and previous.answered):
                context = Context()
            elif get_current_span(context).get_span_context().is_valid:
                return context, SpanKind.INTERNAL
        if heeds_caller:
            context = extract(request.carrier, context, request.getter)
        return context, SpanKind.SERVER

    return find


def current() -> Scope[Request] | None:
    """Answer the scope of the request in whose context this runs; of frameworks that set `Request.scope`."""
    request: Any = get_current().get(_REQUEST)
    scope: Scope[Request] | None = None if request is None else request.scope
    return scope


def scope_of(environ: Environ) -> Scope[Request] | None:
    """Answer the scope of the request that `environ` belongs to, if it is traced."""
    scope: Scope[Request] | None = environ.get(SCOPE_KEY)
    return scope


def matched(
    scope: Scope[Request],
    route: str | None,
    more: Mapping[str, AttributeValue] | None = None,
    *,
    name: str | None = None,
) -> None:
    """Name the span after the route, as soon as the framework knows it.

    Args:
        scope: the request's scope.
        route: the route's template, such as `/items/<int:item_id>`; None leaves the span as it is.
        more: further attributes.
        name: another name than `{method} {route}`.
    """
    span = scope.span
    if route is None or not span.is_recording():
        return
    record = scope.record
    record.route = route
    if more:
        span.set_attributes({"http.route": route, **more})
    else:
        span.set_attribute("http.route", route)
    known, record.name = record.name, name or http.span_name(record.method, route)
    if not known or known == getattr(span, "name", known):  # else a hook has named it
        span.update_name(record.name)


def wsgi(
    *,
    hook_at_start: bool = True,
    response_hook_environ: bool = True,
    untraced: Callable[[Any], bool] | None = None,
    iterates: bool = False,
    adapt: Callable[[Server, Setup], Operation[Request]] | None = None,
) -> Callable[[Wrapped, Setup], Wrapped]:
    """Make the advice for a WSGI entrance: a function or method whose last two arguments are PEP 3333's.

    Args:
        hook_at_start: whether `request_hook(span, environ)` is called here, or by the framework once it has a route.
        response_hook_environ: whether `response_hook` gets (span, environ, status, headers), or all but the environ.
        untraced: tells an application that the user has taken out, given the method's object.
        iterates: whether contrib answers an iterator, whatever the application answers.
        adapt: changes what is peculiar to the framework in the compiled operation.
    """

    def advice(wrapped: Wrapped, setup: Setup) -> Wrapped:
        read = wsgi_describer(setup)

        def describe(*args: Any, **kwargs: Any) -> Request | None:
            environ = args[-2]
            # An inner entrance to the same request adds nothing.
            if SCOPE_KEY in environ or (untraced is not None and untraced(args[0])):
                return None
            return read(environ)

        def prepare(scope: Scope[Request]) -> None:
            scope.record.source[SCOPE_KEY] = scope
            *others, start_response = scope.args
            scope.args = (*others, _start_response(server, scope, start_response, hook_environ=response_hook_environ))

        stream = Body if setup.semconv.contrib and iterates else _stream_body
        request_hook = "request_hook" if hook_at_start else None
        server = Server(setup, describe, request_hook=request_hook, prepare=prepare, stream=stream)
        return traced(wrapped, setup, server.operation if adapt is None else adapt(server, setup))

    return advice


def status_sent(request: Request) -> bool:
    """Say whether a part of the answer has been sent, and with it a status that no exception can change."""
    scope = scope_of(request.source)
    return scope is not None and scope.begun


def failing_with_500(server: Server, setup: Setup) -> Operation[Request]:
    """Adapt an entrance: an exception that leaves the application is one that the server answers with 500."""

    def failed(span: Span, request: Request, error: BaseException) -> None:
        if isinstance(error, Exception) and not status_sent(request):
            server.mark(span, 500)
        server.failed(span, request, error)

    return replace(server.operation, failed=failed)


def url_of(environ: Environ) -> str:
    """Answer the request's URL (PEP 3333)."""
    try:
        return request_uri(environ)
    except KeyError:
        return str(environ.get("PATH_INFO", ""))


def _start_response(
    server: Server, scope: Scope[Request], original: Callable[..., Any], *, hook_environ: bool
) -> Callable[..., Any]:
    span, request = scope.span, scope.record
    environ = request.source

    def start_response(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
        try:
            server.responded(span, status, iter, headers)
            if exc_info and exc_info[0] and status[:1] == "5":
                request.error = exc_info[0][1]  # PEP 3333: what this answer is an answer to
            propagator = get_global_response_propagator()  # type: ignore[no-untyped-call]
            if propagator is not None:
                propagator.inject(headers, setter=_response_setter)
            if (hook := server.response_hook) is not None:
                hook(span, *((environ,) if hook_environ else ()), status, headers)
        except Exception as error:
            report("describing a WSGI response", error)
        return original(status, headers, *exc_info)

    return start_response


class _ResponseSetter:
    def set(self, carrier: list[tuple[str, str]], key: str, value: str) -> None:
        carrier.append((key, value))


_response_setter: Any = _ResponseSetter()


def _stream_body(scope: Scope[Request], body: Any) -> Any:
    """Keep the span open while a body is still to be made; answer None for one that is complete."""
    if scope.record.complete or isinstance(body, (list, tuple)):
        return None
    stand_in = Body(scope, body)
    file_wrapper = scope.record.source.get("wsgi.file_wrapper")
    if isinstance(file_wrapper, type) and isinstance(body, file_wrapper) and _holds_file(body):
        # The server sends such a body by sendfile, if it recognises it: keep the object, and watch its closing.
        stand_in.watch()
        return body
    return stand_in


def _holds_file(wrapper: Any) -> bool:
    """Say whether a file wrapper holds what can be closed; what can only be read is made while it is read."""
    # As wsgiref and gunicorn call it, or waitress; of others one sees the wrapper alone.
    held = getattr(wrapper, "filelike", getattr(wrapper, "file", wrapper))
    return hasattr(held, "close") and hasattr(wrapper, "close")


class Body:
    """A response body on its way: the span is current while a chunk is made, and ends with the body."""

    __slots__ = ("_chunks", "_closed", "_original", "_scope")

    def __init__(self, scope: Scope[Request], body: Any) -> None:
        self._scope = scope
        self._original = body
        self._chunks: Any = None
        self._closed = False

    def watch(self) -> None:
        """Follow the body by its `close` alone, which leaves the object itself to the server."""
        body: Any = self._original
        self._original = _Closing(body.close)
        body.close = self.close

    def __iter__(self) -> Body:
        return self

    def __next__(self) -> Any:
        token = attach(self._scope.context)
        try:
            if self._chunks is None:
                self._chunks = iter(self._original)
            chunk = next(self._chunks)
        except StopIteration:
            if not hasattr(self._original, "close"):
                self._end()
            raise
        except BaseException as error:
            self._end(error)
            raise
        else:
            self._scope.begun = True
            return chunk
        finally:
            detach(token)

    def close(self) -> None:
        """Close the application's body (PEP 3333: the server calls this also when the client is gone)."""
        close = getattr(self._original, "close", None)
        token = attach(self._scope.context)
        try:
            if close is not None:
                close()
            else:
                # A generator within it (`map` closes none) ends when it goes: before the span stops being current.
                self._original, self._chunks = (), iter(())
        except BaseException as error:
            self._end(error)
            raise
        finally:
            detach(token)
        self._end()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):  # none where `__init__` has failed
            self._end()

    def _end(self, error: BaseException | None = None) -> None:
        if self._closed:
            return
        self._closed = True
        if error is not None:
            self._scope.fail(error)
        else:
            self._scope.complete(self._original)


class _Closing:
    """An iterator of nothing that remembers how to close a file wrapper."""

    def __init__(self, close: Callable[[], Any]) -> None:
        self.close = close
