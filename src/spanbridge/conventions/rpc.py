"""gRPC calls, both sides: names, attributes, status codes; the context in the metadata.

https://opentelemetry.io/docs/specs/semconv/rpc/grpc/
"""

from __future__ import annotations

from functools import lru_cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

from opentelemetry.trace import SpanKind, Status, StatusCode

from spanbridge.conventions import http, rpc_filters
from spanbridge.core.failure import record_failure
from spanbridge.core.options import Option, setting, words
from spanbridge.core.propagation import extract, inject
from spanbridge.core.tracing import RPC, Operation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from opentelemetry.context import Context
    from opentelemetry.trace import Span

    from spanbridge.core.tracing import Scope, Setup

    Stream = Callable[[Scope["Rpc"], Any], Any]

FILTER: Option[Any] = Option("filter_", None, "Answers for the details of a call whether it is traced.")
EXCLUDED_SERVICES: Option[str | None] = Option(
    "excluded_services",
    None,
    "Comma list of services whose calls make no spans.",
    str,
    ("OTEL_PYTHON_GRPC_EXCLUDED_SERVICES",),
)
HOOKS = http.optional_hooks(("request_hook", "(span, request)"), ("response_hook", "(span, response)"))

KINDS = {
    (False, False): "unary",
    (True, False): "client_streaming",
    (False, True): "server_streaming",
    (True, True): "bidi_streaming",
}
# By number: https://grpc.io/docs/guides/status-codes/
_CODES = words(
    "OK, CANCELLED, UNKNOWN, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND, ALREADY_EXISTS, PERMISSION_DENIED,"
    "RESOURCE_EXHAUSTED, FAILED_PRECONDITION, ABORTED, OUT_OF_RANGE, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS,"
    "UNAUTHENTICATED"
)
_UNKNOWN = _CODES.index("UNKNOWN")
# What a server is to blame for; for clients every code but OK is a failure.
_OF_THE_SERVER = {
    _CODES.index(name)
    for name in ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")
}


class Rpc:
    """One call.

    Args:
        method: as it is on the wire: `/package.Service/Method`.
        metadata: what travels with the request, pairs of key and value.
        kind: one of `KINDS`.
        target: of a client, what its channel leads to.
        request: the message, or the iterator of messages, handed to hooks.
        context: of a server, what the handler is given.
    """

    __slots__ = ("context", "kind", "metadata", "method", "name", "request", "service", "target")

    def __init__(
        self,
        method: str | bytes,
        metadata: Iterable[tuple[str, Any]] | None,
        kind: str = "",
        *,
        target: str | bytes = "",
        request: Any = None,
        context: Any = None,
    ) -> None:
        self.method = _text(method)
        self.service, _, self.name = self.method.lstrip("/").partition("/")
        self.metadata: tuple[tuple[str, Any], ...] = tuple(metadata or ())
        self.kind = kind
        self.target = _text(target)
        self.request = request
        self.context = context


class Answered(NamedTuple):
    """An asyncio call's response, and its details, which contrib hands to hooks instead."""

    response: Any
    details: Any


class Refused(Exception):  # noqa: N818 - tells a status, and is never raised
    """How a call ended that nobody has waited for yet."""

    def __init__(self, code: Any, details: Any) -> None:
        super().__init__(details)
        self.code, self.details = (lambda: code), (lambda: details)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def wanted(setup: Setup) -> Callable[[Rpc], bool] | None:
    """Compile the filters; None when every call is traced."""
    given = setup.options["filter_"]
    services = words(setup.options["excluded_services"] or "")
    excluded = rpc_filters.negate(rpc_filters.any_of(*map(rpc_filters.service_name, services))) if services else None
    filters = [condition for condition in (given, excluded) if condition is not None]
    if not filters:
        return None
    # contrib lets a call through that either lets through.
    passes = (rpc_filters.any_of if setup.semconv.contrib else rpc_filters.all_of)(*filters)
    return lambda rpc: bool(
        passes(SimpleNamespace(method=rpc.method, full_method=rpc.method, invocation_metadata=rpc.metadata))
    )


def client(setup: Setup, describe: Callable[..., Rpc], prepare: Callable[[Scope[Rpc]], None], stream: Stream) -> Any:
    """Compile what a client's call is.

    Args:
        setup: what the `instrument()` call decided.
        describe: takes the call's arguments.
        prepare: puts the record's metadata into the arguments.
        stream: follows what the call answers until it is done.
    """
    contrib = setup.semconv.contrib
    request_hook, response_hook = http.hooked(setup, "request_hook"), http.hooked(setup, "response_hook")
    attributes = _attributes(setup)
    propagates = setting(f"integrations.{setup.integration}.distributed_tracing", default=True)

    def client_attributes(rpc: Rpc) -> dict[str, Any]:
        found = attributes(rpc)
        if not contrib and rpc.target:
            found.update(_target(rpc.target))
        return found

    def opened(span: Span, rpc: Rpc) -> None:
        assert request_hook is not None
        request_hook(span, rpc.request)

    def succeeded(span: Span, rpc: Rpc, result: Any) -> None:
        span.set_attribute("rpc.grpc.status_code", 0)
        if response_hook is not None:
            if isinstance(result, Answered):
                response_hook(span, result.details if contrib else result.response)
            else:  # `with_call` answers a pair
                response_hook(span, result[0] if isinstance(result, tuple) else result)

    def failed(span: Span, rpc: Rpc, error: BaseException) -> None:
        code = number(_called(error, "code"))
        if code is None or (contrib and not isinstance(error, Refused)):
            record_failure(span, error, error_type=not contrib)
        else:
            span.set_status(Status(StatusCode.ERROR, str(_called(error, "details") or "")))
        if code is not None:
            span.set_attribute("rpc.grpc.status_code", code)
            if not contrib:
                span.set_attribute("error.type", _CODES[code])

    return Operation(
        SpanKind.CLIENT,
        _only(wanted(setup), describe),
        _name(setup),
        client_attributes,
        layer=RPC,
        inject=_inject if propagates else None,
        opened=opened if request_hook else None,
        prepare=prepare if propagates else None,
        succeeded=succeeded,
        failed=failed,
        stream=stream,
        fresh=True,
    )


def server(setup: Setup, describe: Callable[..., Rpc]) -> Operation[Rpc]:
    """Compile what a server's call is; `describe` takes the call's arguments."""
    contrib = setup.semconv.contrib
    attributes = _attributes(setup)
    propagates = setting(f"integrations.{setup.integration}.distributed_tracing", default=True)

    def server_attributes(rpc: Rpc) -> dict[str, Any]:
        found = attributes(rpc)
        agent = next((value for key, value in rpc.metadata if key == "user-agent"), None)
        if agent is not None:
            found["rpc.user_agent" if contrib else "user_agent.original"] = agent
        peer = rpc.context.peer()
        found.update((_contrib_peer if contrib else _peer)(peer) if peer else {})
        return found

    def parent(rpc: Rpc, context: Context) -> tuple[Context, SpanKind]:
        if not propagates:
            return context, SpanKind.SERVER
        headers = {key: value for key, value in rpc.metadata if isinstance(value, str)}
        return extract(headers, context), SpanKind.SERVER

    def answered(span: Span, rpc: Rpc, code: int) -> None:
        span.set_attribute("rpc.grpc.status_code", code)
        if code == 0 or (contrib and code not in _OF_THE_SERVER):
            return
        details = _called(rpc.context, "details")
        if contrib:
            span.set_status(Status(StatusCode.ERROR, f"StatusCode.{_CODES[code]}:{_text(details or '')}"))
        elif code in _OF_THE_SERVER:
            span.set_attribute("error.type", _CODES[code])
            span.set_status(Status(StatusCode.ERROR, _text(details or _CODES[code])))
        elif details:  # no failure of the server, whose status could hold them
            span.set_attribute("error.message", _text(details))

    def succeeded(span: Span, rpc: Rpc, result: Any) -> None:
        answered(span, rpc, number(_called(rpc.context, "code")) or 0)

    def failed(span: Span, rpc: Rpc, error: BaseException) -> None:
        code = number(_called(rpc.context, "code")) or 0
        # How `context.abort()` leaves the handler, whose author meant it.
        aborted = code != 0 and (type(error) is Exception or type(error).__name__ == "AbortError")
        if aborted or not isinstance(error, Exception):
            answered(span, rpc, code or _CODES.index("CANCELLED"))
        elif contrib:
            span.record_exception(error)
        else:
            answered(span, rpc, code or _UNKNOWN)
            record_failure(span, error)

    return Operation(
        SpanKind.SERVER,
        _only(wanted(setup), describe),
        _name(setup),
        server_attributes,
        parent=parent,
        succeeded=succeeded,
        failed=failed,
        fresh=True,
    )


def _only(passes: Callable[[Rpc], bool] | None, describe: Callable[..., Rpc]) -> Callable[..., Rpc | None]:
    def described(*args: Any, **kwargs: Any) -> Rpc | None:
        rpc = describe(*args, **kwargs)
        return rpc if passes is None or passes(rpc) else None

    return describe if passes is None else described


def _name(setup: Setup) -> Callable[[Rpc], str]:
    """`package.Service/Method`; contrib keeps the leading slash."""
    if setup.semconv.contrib:
        return lambda rpc: rpc.method
    return lambda rpc: rpc.method.lstrip("/")


def _attributes(setup: Setup) -> Callable[[Rpc], dict[str, Any]]:
    contrib = setup.semconv.contrib

    def attributes(rpc: Rpc) -> dict[str, Any]:
        found: dict[str, Any] = {"rpc.system": "grpc", "rpc.service": rpc.service, "rpc.method": rpc.name}
        if contrib:
            found["rpc.grpc.status_code"] = 0
        elif rpc.kind:
            found["grpc.method.kind"] = rpc.kind
        return found

    return attributes


def _inject(rpc: Rpc, context: Context) -> None:
    headers: dict[str, str] = {}
    inject(headers, context)
    lower = {key.lower(): value for key, value in headers.items()}  # all that HTTP/2 allows
    others = [pair for pair in rpc.metadata if pair[0] not in lower] if rpc.metadata else ()
    rpc.metadata = (*others, *lower.items())


def number(code: Any) -> int | None:
    """Answer a status code's number: of grpc's enumeration, of what Cython hands out, of a number."""
    value = getattr(code, "value", code)
    if isinstance(value, tuple):
        value = value[0]
    return value if isinstance(value, int) and 0 <= value < len(_CODES) else None


def _called(asked: Any, name: str) -> Any:
    """Ask a handler's context, which in some versions cannot answer, or an exception, which may be any."""
    method = getattr(asked, name, None)
    return method() if callable(method) else None


@lru_cache(maxsize=256)
def _target(target: str) -> dict[str, Any]:
    """Where a channel leads: `host:port`, `dns:///host:port`, `ipv6:[::1]:port`, `unix:/path`.

    https://github.com/grpc/grpc/blob/master/doc/naming.md
    """
    scheme, _, rest = target.partition(":")
    if scheme in {"unix", "unix-abstract"}:
        return {"server.address": rest}
    address = target.rpartition("/")[2] if "/" in target else rest if scheme in {"dns", "ipv4", "ipv6"} else target
    return _host_and_port(address.partition(",")[0], "server")


def _peer(peer: str) -> dict[str, Any]:
    """Read `ipv4:127.0.0.1:57284`, `ipv6:[::1]:57284` or `unix:`."""
    kind, _, address = peer.partition(":")
    return {} if kind == "unix" else _host_and_port(unquote(address.partition(",")[0]), "network.peer")


def _host_and_port(address: str, prefix: str) -> dict[str, Any]:
    host, _, port = address.rpartition(":")
    if not port.isdecimal():
        return {f"{prefix}.address": address.strip("[]")} if address else {}
    return {f"{prefix}.address": host.strip("[]"), f"{prefix}.port": int(port)}


def _contrib_peer(peer: str) -> dict[str, Any]:
    kind, _, address = peer.partition(",")[0].partition(":")
    host, _, port = address.rpartition(":")
    if kind == "unix" or not host:
        return {}
    host = unquote(host)
    found = {"net.peer.ip": host, "net.peer.port": port}
    return {**found, "net.peer.name": "localhost"} if host in {"[::1]", "127.0.0.1"} else found
