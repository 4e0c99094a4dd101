"""elasticsearch, elasticsearch1 to elasticsearch9, opensearch-py: one CLIENT span per request, plain and asyncio.

Retries on other nodes belong to the request's span; the spans that clients from 8.13 on make themselves, and the HTTP
client's below, are folded into it. Bodies stay here unless asked for. Not traced: sniffing.
"""

from __future__ import annotations

from contextlib import contextmanager
from copy import copy
from functools import wraps
from typing import TYPE_CHECKING, Any

from spanbridge.conventions import search
from spanbridge.conventions.search import sanitize_body as sanitize_body
from spanbridge.core.instrumentor import Instrumentor
from spanbridge.core.patching import Library, Patch
from spanbridge.core.tracing import traced
from spanbridge.version import __version__ as __version__

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spanbridge.core.tracing import Setup, Wrapped


def _performing(wrapped: Wrapped, setup: Setup) -> Wrapped:
    return traced(wrapped, setup, search.operation(setup))


def _silent(wrapped: Wrapped, setup: Setup) -> Wrapped:
    """Switch the client's own spans off, but for the operation's name, which the transport gets with them."""
    if setup.semconv.contrib:
        return wrapped  # contrib stands aside
    source = setup.source

    @wraps(wrapped)
    def span(*args: Any, **kwargs: Any) -> Any:
        if source.tracer is None or not hasattr(args[:1] and args[0], "enabled"):
            return wrapped(*args, **kwargs)
        quiet = copy(args[0])
        quiet.enabled = False
        return _named(wrapped(quiet, *args[1:], **kwargs), kwargs.get("endpoint_id"))

    return span


@contextmanager
def _named(entered: Any, endpoint_id: str | None) -> Iterator[Any]:
    with entered as span:
        span.endpoint_id = endpoint_id
        yield span


_CLIENTS = ("elasticsearch", *(f"elasticsearch{major}" for major in (1, 2, 5, 6, 7)), "opensearchpy")
_LATER_CLIENTS = ("elasticsearch", "elasticsearch8", "elasticsearch9")
_MAJORS = (1, 2, 5, 6, 7, 8, 9)


class ElasticsearchInstrumentor(Instrumentor):
    """Traces the clients of Elasticsearch from 1.6 and of OpenSearch, whenever they were made.

    Hooks: `request_hook(span, method, url, kwargs)`, `response_hook(span, body)`.

    Args:
        span_name_prefix: how span names begin where they are contrib's.
    """

    library = Library(
        "elasticsearch",
        (
            "elasticsearch >= 1.6",
            *(f"elasticsearch{major} >= {major}" for major in _MAJORS),
            "opensearch-py >= 1.0",
        ),
        tested="9.5.1",
        others=(*(f"elasticsearch{major}" for major in _MAJORS), "opensearchpy"),
    )
    options = search.OPTIONS
    patches = (
        *(Patch(f"{client}.transport", "Transport.perform_request", _performing) for client in _CLIENTS),
        *(Patch(f"{client}._async.transport", "AsyncTransport.perform_request", _performing) for client in _CLIENTS),
        Patch("elastic_transport", "Transport.perform_request", _performing),
        Patch("elastic_transport", "AsyncTransport.perform_request", _performing),
        *(Patch(f"{client}._otel", "OpenTelemetry.span", _silent) for client in _LATER_CLIENTS),
        *(Patch(f"{client}._otel", "OpenTelemetry.helpers_span", _silent) for client in _LATER_CLIENTS),
    )

    def __init__(self, span_name_prefix: str | None = None) -> None:
        self._span_name_prefix = span_name_prefix
        super().__init__()

    def setup(self, **kwargs: Any) -> Setup:
        """Decide as always; the prefix may have been given to the constructor."""
        return super().setup(**{"span_name_prefix": self._span_name_prefix, **kwargs})
