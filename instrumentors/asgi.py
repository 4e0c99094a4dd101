"""Any ASGI application: `OpenTelemetryMiddleware(app)`, one SERVER span per request or websocket handshake.

Framework instrumentors know the route and are better where they exist; beneath this one they only add it.
"""

from __future__ import annotations

from inspect import signature
from typing import TYPE_CHECKING, Any

from spanbridge.conventions import asgi, http_server
from spanbridge.conventions.asgi import ASGIGetter, ASGISetter, asgi_getter, asgi_setter
from spanbridge.core import semconv
from spanbridge.core.instrumentor import PROVIDERS
from spanbridge.core.options import Option, resolve_all
from spanbridge.core.tracing import Setup, TracerSource
from spanbridge.version import __version__ as __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.trace import Span, Tracer, TracerProvider

__all__ = [
    "ASGIGetter",
    "ASGISetter",
    "OpenTelemetryMiddleware",
    "asgi_getter",
    "asgi_setter",
    "collect_custom_headers_attributes",
    "collect_request_attributes",
    "get_default_span_details",
    "get_host_port_url_tuple",
    "set_status_code",
]

_HEADERS = (
    "http_capture_headers_server_request",
    "http_capture_headers_server_response",
    "http_capture_headers_sanitize_fields",
)
OPTIONS = (
    *PROVIDERS,
    *asgi.OPTIONS,
    *(Option(name, None, "List of names or regular expressions, instead of the variable.") for name in _HEADERS),
)


class OpenTelemetryMiddleware:
    """An ASGI application around another, traced.

    Args:
        app: the application.
        excluded_urls: comma list of regular expressions, or contrib's compiled one; a request whose URL one is found in
            makes no span.
        default_span_details: answers (name, attributes) for a scope, instead of the method and no attributes.
        server_request_hook: called as `(span, scope)` when a request comes in.
        client_request_hook: called as `(span, scope, message)` for each message received, with the message's span if
            there is one, else with the request's.
        client_response_hook: called as `(span, scope, message)` for each message sent.
        tracer_provider: instead of the global one.
        meter_provider: accepted, unused.
        tracer: instead of a tracer of the provider.
        meter: accepted, unused.
        http_capture_headers_server_request: names or regular expressions of headers to capture.
        http_capture_headers_server_response: the same for responses.
        http_capture_headers_sanitize_fields: those whose values are redacted.
        exclude_spans: which of `receive` and `send` make no spans of their own.
    """

    def __init__(
        self,
        app: Callable[..., Any],
        excluded_urls: Any = None,
        default_span_details: asgi.Details | None = None,
        server_request_hook: Callable[..., Any] | None = None,
        client_request_hook: Callable[..., Any] | None = None,
        client_response_hook: Callable[..., Any] | None = None,
        tracer_provider: TracerProvider | None = None,
        meter_provider: Any = None,
        tracer: Tracer | None = None,
        meter: Any = None,
        http_capture_headers_server_request: list[str] | None = None,
        http_capture_headers_server_response: list[str] | None = None,
        http_capture_headers_sanitize_fields: list[str] | None = None,
        exclude_spans: Sequence[str] | None = None,
    ) -> None:
        given = {
            "excluded_urls": excluded_urls,
            "server_request_hook": server_request_hook,
            "client_request_hook": client_request_hook,
            "client_response_hook": client_response_hook,
            "tracer_provider": tracer_provider,
            "meter_provider": meter_provider,
            "http_capture_headers_server_request": http_capture_headers_server_request,
            "http_capture_headers_server_response": http_capture_headers_server_response,
            "http_capture_headers_sanitize_fields": http_capture_headers_sanitize_fields,
            "exclude_spans": exclude_spans,
        }
        self.app = app
        self._single = _takes_all(app)
        setup = _setup(given)
        if tracer is not None:
            setup.source.tracer = tracer
        self._enter = asgi.entrance(details=default_span_details)(OpenTelemetryMiddleware._forward, setup)

    async def _forward(self, scope: dict[str, Any], receive: Any, send: Any) -> Any:
        return await (self.app(scope, receive, send) if self._single else self.app(scope)(receive, send))

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> Any:
        """Answer one connection (https://asgi.readthedocs.io/en/latest/specs/main.html)."""
        return await self._enter(self, scope, receive, send)


def _takes_all(app: Callable[..., Any]) -> bool:
    """Tell an ASGI 3 application from one of ASGI 2, which takes the scope first and is called again with the rest."""
    try:
        signature(app).bind(None, None, None)
    except TypeError:
        return False
    except ValueError:  # a callable in C that does not tell what it takes
        return True
    return True


def _setup(given: dict[str, Any]) -> Setup:
    options = resolve_all(OPTIONS, "asgi", given)
    names = semconv.from_env()
    return Setup("asgi", TracerSource(__name__, names.schema_url, options["tracer_provider"]), names, options)


# Contrib's building blocks, for those who write middleware of their own with them.


def collect_request_attributes(scope: dict[str, Any], sem_conv_opt_in_mode: Any = None) -> dict[str, Any]:
    """Answer the start attributes of a request.

    Args:
        scope: the ASGI scope.
        sem_conv_opt_in_mode: contrib's mode (its values are `default`, `http`, `http/dup`); None reads the environment.
    """
    names = semconv.of_mode(sem_conv_opt_in_mode)
    return asgi.renderer(names)(asgi.reader(names)(scope))


def collect_custom_headers_attributes(
    scope_or_response_message: dict[str, Any],
    sanitize: Any,
    header_regexes: list[str],
    normalize_names: Callable[[str], str],
) -> dict[str, Any]:
    """Answer headers as attributes.

    Args:
        scope_or_response_message: the ASGI scope, or the message that starts the response.
        sanitize: opentelemetry-util-http's `SanitizeValue`.
        header_regexes: names or regular expressions of the headers that are wanted.
        normalize_names: makes an attribute's name from a header's.
    """
    headers: dict[str, list[str]] = {}
    for name, value in asgi.headers_of(scope_or_response_message):
        headers.setdefault(name, []).append(value)
    found: dict[str, Any] = sanitize.sanitize_header_values(headers, header_regexes, normalize_names)
    return found


def get_host_port_url_tuple(scope: dict[str, Any]) -> tuple[str, int | None, str]:
    """Answer the host and port that the server listens on, and the URL that was called, without the query."""
    address, port = asgi.listening(scope)
    return address, port, asgi.url_of(scope)


def set_status_code(
    span: Span, status_code: int | str, metric_attributes: Any = None, sem_conv_opt_in_mode: Any = None
) -> None:
    """Note a response's status on its span.

    Args:
        span: the server span.
        status_code: as the response gives it.
        metric_attributes: accepted, unused.
        sem_conv_opt_in_mode: contrib's mode; None reads the environment.
    """
    http_server.mark_status_line(span, str(status_code), semconv.of_mode(sem_conv_opt_in_mode))


def get_default_span_details(scope: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Answer `{method} {path}`, contrib's default name (ours leave the path out), and no attributes."""
    return asgi.contrib_details(scope)
