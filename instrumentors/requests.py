"""requests: one CLIENT span per `Session.send`, which every way of sending ends in.

A followed redirect belongs to the span of the call that follows it; urllib3 and http.client below stay silent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spanbridge.conventions import http, http_client
from spanbridge.core.instrumentor import Instrumentor
from spanbridge.core.options import Option
from spanbridge.core.patching import Library, Patch
from spanbridge.version import __version__ as __version__

if TYPE_CHECKING:
    from requests import PreparedRequest, Response, Session


def get_default_span_name(method: str) -> str:
    """Answer the span's name for a method: the method itself, `HTTP` for one that no RFC knows."""
    return http.span_name(method)


def _describe(session: Session, request: PreparedRequest, **kwargs: Any) -> http_client.Request:
    if request.headers is None:  # a PreparedRequest made by hand
        from requests.structures import CaseInsensitiveDict  # type: ignore[unreachable]

        request.headers = CaseInsensitiveDict()
    return http_client.Request(request.method or "", request.url or "", request.headers, request)


def _answer(result: Response) -> http_client.Response | None:
    if not hasattr(result, "status_code"):
        return None
    version = _VERSIONS.get(getattr(result.raw, "version", 0), "")
    return http_client.Response(result.status_code, result.headers, version)


# As http.client and urllib3 say it.
_VERSIONS = {10: "1.0", 11: "1.1", 20: "2"}


class RequestsInstrumentor(Instrumentor):
    """Traces requests: every call of `requests.get` and its like, and of a `Session`.

    Hooks: `request_hook(span, prepared_request)`, `response_hook(span, prepared_request, response)`.
    """

    library = Library("requests", ("requests >= 2.8",), tested="2.34.2")
    options = (
        http.EXCLUDED_URLS,
        *http.optional_hooks(
            ("request_hook", "(span, prepared_request)"), ("response_hook", "(span, prepared_request, response)")
        ),
        Option("duration_histogram_boundaries", None, "Accepted for compatibility; no metrics are recorded."),
    )
    patches = (Patch("requests.sessions", "Session.send", http_client.call(_describe, _answer)),)

    @staticmethod
    def uninstrument_session(session: Session) -> None:
        """Let requests of this one session go untraced."""
        from types import MethodType

        original = getattr(type(session).send, "__wrapped__", None)
        if original is not None:
            session.send = MethodType(original, session)  # type: ignore[method-assign]
