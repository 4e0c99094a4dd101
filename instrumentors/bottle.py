"""Bottle: one SERVER span per request, named after the rule, mounts included, until the last byte of the body."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spanbridge.conventions import http, http_server
from spanbridge.core.instrumentor import Instrumentor
from spanbridge.core.patching import Library, Patch
from spanbridge.core.tracing import observed
from spanbridge.version import __version__ as __version__

if TYPE_CHECKING:
    from spanbridge.core.tracing import Setup, Wrapped

_ANYTHING = "<:re:.*>"
"""How the rule of a mounted application ends."""


def _routing(wrapped: Wrapped, setup: Setup) -> Wrapped:
    """A router has matched: name the span. The second router is that of an application mounted in the first's."""

    def after(match: Any, router: Any, environ: dict[str, Any]) -> None:
        scope = http_server.scope_of(environ)
        if scope is not None:
            mount = (scope.record.route or "").removesuffix(_ANYTHING).rstrip("/")
            http_server.matched(scope, mount + match[0].rule)

    return observed(wrapped, setup, after=after)


def _failing(wrapped: Wrapped, setup: Setup) -> Wrapped:
    """Keep the exception that Bottle is about to answer with a page: it stands in the page's HTTPError."""
    from bottle import request

    def before(app: Any, out: Any, *args: Any, **kwargs: Any) -> None:
        error = getattr(out, "exception", None)
        if error is not None and out.status_code >= 500 and (scope := http_server.scope_of(request.environ)):
            scope.record.error = error

    return observed(wrapped, setup, before=before)


class BottleInstrumentor(Instrumentor):
    """Traces Bottle applications, whenever they were made.

    Hooks: `request_hook(span, environ)`, `response_hook(span, environ, status, headers)`.
    """

    library = Library("bottle", ("bottle >= 0.11",), tested="0.13.4")
    options = (
        http.EXCLUDED_URLS,
        *http.optional_hooks(
            ("request_hook", "(span, environ)"), ("response_hook", "(span, environ, status, headers)")
        ),
    )
    patches = (
        Patch("bottle", "Bottle.wsgi", http_server.wsgi()),
        Patch("bottle", "Router.match", _routing),
        Patch("bottle", "Bottle._cast", _failing),
    )
