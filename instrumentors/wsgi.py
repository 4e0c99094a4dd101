"""Any WSGI application: `OpenTelemetryMiddleware(app)`, one SERVER span per request.

Framework instrumentors know the route and are better where they exist; beneath this one they only add it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spanbridge.conventions import http, http_server
from spanbridge.conventions.http_server import WSGIGetter, wsgi_getter
from spanbridge.core import semconv
from spanbridge.core.instrumentor import PROVIDERS
from spanbridge.core.options import resolve_all
from spanbridge.core.tracing import Setup, TracerSource
from spanbridge.version import __version__ as __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.trace import Span, TracerProvider

__all__ = [
    "OpenTelemetryMiddleware",
    "WSGIGetter",
    "add_response_attributes",
    "collect_custom_request_headers_attributes",
    "collect_custom_response_headers_attributes",
    "collect_request_attributes",
    "get_default_span_name",
    "wsgi_getter",
]

OPTIONS = (
    *PROVIDERS,
    http.EXCLUDED_URLS,
    *http.optional_hooks(("request_hook", "(span, environ)"), ("response_hook", "(span, environ, status, headers)")),
)


class OpenTelemetryMiddleware:
    """A WSGI application around another, traced.

    Args:
        wsgi: the application.
        request_hook: called as `(span, environ)` when a request comes in.
        response_hook: called as `(span, environ, status, headers)` when the response starts.
        tracer_provider: instead of the global one.
        meter_provider: accepted, unused.
        excluded_urls: comma list of regular expressions; a request whose URL one is found in makes no span.
    """

    def __init__(
        self,
        wsgi: Callable[..., Any],
        request_hook: Callable[..., Any] | None = None,
        response_hook: Callable[..., Any] | None = None,
        tracer_provider: TracerProvider | None = None,
        meter_provider: Any = None,
        excluded_urls: str | None = None,
    ) -> None:
        given = {
            "request_hook": request_hook,
            "response_hook": response_hook,
            "tracer_provider": tracer_provider,
            "meter_provider": meter_provider,
            "excluded_urls": excluded_urls,
        }
        self.wsgi = wsgi
        setup = _setup(given)
        self._call = http_server.wsgi(iterates=True)(self._forward, setup)
        self._iterates = setup.semconv.contrib

    def _forward(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        return self.wsgi(environ, start_response)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        """Answer one request (PEP 3333)."""
        body = self._call(environ, start_response)
        return iter(body) if self._iterates else body


def _setup(given: dict[str, Any]) -> Setup:
    options = resolve_all(OPTIONS, "wsgi", given)
    names = semconv.from_env()
    return Setup("wsgi", TracerSource(__name__, names.schema_url, options["tracer_provider"]), names, options)


# Contrib's building blocks, for those who write middleware of their own with them.


def collect_request_attributes(environ: dict[str, Any], sem_conv_opt_in_mode: Any = None) -> dict[str, Any]:
    """Answer the start attributes of a request.

    Args:
        environ: the WSGI environ.
        sem_conv_opt_in_mode: contrib's mode (its values are `default`, `http`, `http/dup`); None reads the environment.
    """
    names = semconv.of_mode(sem_conv_opt_in_mode)
    return http_server.server_renderer(names)(http_server.wsgi_reader(names)(environ))


def add_response_attributes(
    span: Span,
    start_response_status: str,
    response_headers: list[tuple[str, str]],
    duration_attrs: dict[str, Any] | None = None,
    sem_conv_opt_in_mode: Any = None,
) -> None:
    """Note a response on its span.

    Args:
        span: the server span.
        start_response_status: such as `200 OK`.
        response_headers: the response's headers.
        duration_attrs: accepted, unused.
        sem_conv_opt_in_mode: contrib's mode; None reads the environment.
    """
    http_server.mark_status_line(span, start_response_status, semconv.of_mode(sem_conv_opt_in_mode))


def collect_custom_request_headers_attributes(environ: dict[str, Any]) -> dict[str, Any]:
    """Answer the request headers that the environment asks for, as attributes."""
    capture = http.captured(_setup({}), "server", "request")
    return capture(http_server.wsgi_headers(environ)) if capture else {}


def collect_custom_response_headers_attributes(response_headers: list[tuple[str, str]]) -> dict[str, Any]:
    """Answer the response headers that the environment asks for, as attributes."""
    capture = http.captured(_setup({}), "server", "response")
    return capture(response_headers) if capture else {}


def get_default_span_name(environ: dict[str, Any]) -> str:
    """Answer `{method} {path}`, contrib's default name (ours leave the path out)."""
    return http_server.contrib_name(environ)
