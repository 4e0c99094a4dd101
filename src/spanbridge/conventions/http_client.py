"""HTTP clients: one CLIENT span per request, headers injected; transports below stay silent.

https://opentelemetry.io/docs/specs/semconv/http/http-spans/#http-client-span
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry.trace import SpanKind

from spanbridge.conventions import http
from spanbridge.core.failure import record_failure
from spanbridge.core.options import setting
from spanbridge.core.propagation import inject
from spanbridge.core.semconv import Names
from spanbridge.core.tracing import HTTP, Operation, traced

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    from opentelemetry.context import Context
    from opentelemetry.trace import Span

    from spanbridge.core.tracing import Scope, Setup, Wrapped

_BOTH = (("user_agent.synthetic.type", "synthetic"), ("user_agent.original", "user_agent"))
_OLD = (("http.method", "method"), ("http.url", "url"), *_BOTH)
_STABLE = (
    ("http.request.method", "method"),
    ("http.request.method_original", "method_original"),
    ("url.full", "url"),
    ("server.address", "host"),
    ("server.port", "port"),
    *_BOTH,
)
# contrib says where it connects, by the URL's host name; under the old names only beside the stable ones.
_CONTRIB_STABLE = (*_STABLE, ("network.peer.address", "host"), ("network.peer.port", "port"))
_CONTRIB_BOTH = (*_OLD, ("http.host", "host"), ("net.peer.port", "port"))
_DEFAULT_PORTS = {"http:/": 80, "https:": 443}


class Request:
    """What a client span says of one request.

    Args:
        method: as the application gave it.
        url: the whole URL.
        headers: the outgoing headers, a mutable mapping, into which the context is injected.
        source: the library's own request object, handed to hooks.
    """

    __slots__ = (
        "clean",
        "headers",
        "host",
        "method",
        "method_original",
        "port",
        "source",
        "synthetic",
        "url",
        "user_agent",
    )

    def __init__(self, method: str, url: str, headers: MutableMapping[str, str], source: Any) -> None:
        self.method = http.normal_method(method.strip())
        self.method_original = method if method != self.method else None
        self.url = url
        self.headers = headers
        self.source = source
        agent = headers.get("User-Agent")
        self.user_agent = agent = http.text(agent) if agent else None
        self.synthetic = http.synthetic_type(agent) if agent else None
        self.clean: Callable[[str], str] | None = None
        self.host: str | None = None
        self.port: int | None = None


class Response:
    """What a client span says of the answer.

    Args:
        status: the status code.
        headers: the response's headers, a mapping.
        protocol_version: such as `1.1`; empty when unknown.
    """

    __slots__ = ("headers", "protocol_version", "status")

    def __init__(self, status: int, headers: Any = None, protocol_version: str = "") -> None:
        self.status = status
        self.headers = headers
        self.protocol_version = protocol_version


def call(
    describe: Callable[..., Request | None],
    answer: Callable[[Any], Response | None],
    *,
    answer_of_error: Callable[[BaseException], Any] = lambda error: getattr(error, "response", None),
) -> Callable[[Wrapped, Setup], Wrapped]:
    """Make the advice for a call that sends one request; the arguments are those of `operation`."""
    return lambda wrapped, setup: traced(wrapped, setup, operation(setup, describe, answer, answer_of_error))


def operation(
    setup: Setup,
    describe: Callable[..., Request | None],
    answer: Callable[[Any], Response | None],
    answer_of_error: Callable[[BaseException], Any],
    stream: Callable[[Scope[Request], Any], Any] | None = None,
    *,
    joined: bool = True,
) -> Operation[Request]:
    """Compile what sending a request is.

    Args:
        setup: what the `instrument()` call decided.
        describe: takes the call's arguments, answers the request.
        answer: takes the call's result, answers the response; None when it is none.
        answer_of_error: finds the library's response on an exception it raised.
        stream: given (scope, result), answers a stand-in that ends the scope later, or None to end it now.
        joined: whether contrib joins the values of a header that is repeated.
    """
    semconv = setup.semconv
    clean, is_excluded = http.url_cleaner(semconv), http.excluded(setup)
    mark = http.status_marker(semconv, server=False)
    request_hook, response_hook = http.hooked(setup, "request_hook"), http.hooked(setup, "response_hook")
    capture_request = http.captured(setup, "client", "request", joined=joined)
    capture_response = http.captured(setup, "client", "response", joined=joined)
    stable, contrib = semconv.http.stable, semconv.contrib
    render = http.renderer(
        semconv, _CONTRIB_BOTH if contrib and stable else _OLD, _CONTRIB_STABLE if contrib else _STABLE
    )
    propagates = setting(f"integrations.{setup.integration}.distributed_tracing", default=True)
    doubled = contrib and semconv.http is Names.BOTH
    version_keys = (("network.protocol.version",) if stable else ()) + (("http.flavor",) if doubled else ())

    def wanted(*args: Any, **kwargs: Any) -> Request | None:
        request = describe(*args, **kwargs)
        if request is None or (is_excluded is not None and is_excluded(request.url)):
            return None
        url, request.url = request.url, clean(request.url)
        if request.url != url:
            request.clean = http.secrets_remover(url, request.url)
        request.host, request.port = http.host_and_port(request.url)
        if request.port is None and not contrib:
            request.port = _DEFAULT_PORTS.get(request.url[:6])
        return request

    def opened(span: Span, request: Request) -> None:
        if request_hook is not None:
            request_hook(span, request.source)
        if capture_request is not None:
            span.set_attributes(capture_request(request.headers.items()))

    def succeeded(span: Span, request: Request, result: Any) -> None:
        response = answer(result)
        if response is None:
            return
        mark(span, response.status)
        if response.protocol_version:
            for key in version_keys:
                span.set_attribute(key, response.protocol_version)
        if capture_response is not None and response.headers is not None:
            span.set_attributes(capture_response(response.headers.items()))
        if response_hook is not None:
            response_hook(span, request.source, result)

    def failed(span: Span, request: Request, error: BaseException) -> None:
        result = answer_of_error(error)
        if result is not None:
            succeeded(span, request, result)
        record_failure(span, error, error_type=stable, clean=request.clean)

    return Operation(
        SpanKind.CLIENT,
        wanted,
        lambda request: http.span_name(request.method),
        render,
        layer=HTTP,
        inject=_inject if propagates else None,
        opened=opened if request_hook or capture_request else None,
        succeeded=succeeded,
        failed=failed,
        stream=stream,
        fresh=True,
    )


def _inject(request: Request, context: Context) -> None:
    inject(request.headers, context)
