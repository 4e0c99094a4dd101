"""Pylons: one SERVER span per request, named after the route, until the last byte of the body.

The span begins at the application, within the middleware of its stack; rendering is traced on request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spanbridge.conventions import detail, http, http_server
from spanbridge.core.instrumentor import Instrumentor
from spanbridge.core.patching import Library, Patch
from spanbridge.core.tracing import observed
from spanbridge.version import __version__ as __version__

if TYPE_CHECKING:
    from spanbridge.core.tracing import Setup, Wrapped


def _routing(wrapped: Wrapped, setup: Setup) -> Wrapped:
    """RoutesMiddleware, which stands before the application, has matched the request, or not: name the span."""

    def before(app: Any, environ: dict[str, Any], *args: Any) -> None:
        scope = http_server.scope_of(environ)
        found: dict[str, Any] = environ["wsgiorg.routing_args"][1]
        if scope is not None and found:
            fields = {f"pylons.route.{key}": found.get(key) for key in ("controller", "action")}
            route = getattr(environ.get("routes.route"), "routepath", None) or "/{controller}/{action}"
            http_server.matched(scope, route, {key: str(value) for key, value in fields.items() if value})

    return observed(wrapped, setup, before=before)


def _template_name(name: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
    return {"template.name": name}


class PylonsInstrumentor(Instrumentor):
    """Traces Pylons applications, whenever they were made.

    Hooks: `request_hook(span, environ)`, `response_hook(span, environ, status, headers)`.
    """

    library = Library("pylons", ("Pylons >= 0.9.6",), tested="1.0.3")
    options = (
        http.EXCLUDED_URLS,
        *http.optional_hooks(
            ("request_hook", "(span, environ)"), ("response_hook", "(span, environ, status, headers)")
        ),
        detail.option("template_spans", "each rendering of a template"),
    )
    patches = (
        Patch("pylons.wsgiapp", "PylonsApp.__call__", http_server.wsgi(adapt=http_server.failing_with_500)),
        Patch("pylons.wsgiapp", "PylonsApp.resolve", _routing),
        Patch("pylons.templating", "cached_template", detail.detail("pylons.render", "template_spans", _template_name)),
    )
