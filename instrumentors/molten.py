"""Molten: one SERVER span per request, named after the route's template, until the last byte of the body.

Not traced: the injection of dependencies, middleware, renderers.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from spanbridge.conventions import http, http_server
from spanbridge.core.instrumentor import Instrumentor
from spanbridge.core.patching import Library, Patch
from spanbridge.core.tracing import observed
from spanbridge.version import __version__ as __version__

if TYPE_CHECKING:
    from spanbridge.core.tracing import Setup, Wrapped


def _routing(wrapped: Wrapped, setup: Setup) -> Wrapped:
    """The route that has matched becomes a component of the request's dependencies: name the span after it."""

    def before(resolver: Any, component: Any) -> None:
        route = getattr(component, "route", None)
        if route is not None and (scope := http_server.scope_of(resolver.instances[_environ_type()])) is not None:
            http_server.matched(scope, route.template, {"molten.route": route.name})

    return observed(wrapped, setup, before=before)


@lru_cache
def _environ_type() -> Any:
    from molten.typing import Environ

    return Environ


class MoltenInstrumentor(Instrumentor):
    """Traces Molten applications, whenever they were made.

    Hooks: `request_hook(span, environ)`, `response_hook(span, environ, status, headers)`.
    """

    library = Library("molten", ("molten >= 0.7",), tested="1.0.2")
    options = (
        http.EXCLUDED_URLS,
        *http.optional_hooks(
            ("request_hook", "(span, environ)"), ("response_hook", "(span, environ, status, headers)")
        ),
    )
    patches = (
        Patch("molten.app", "App.__call__", http_server.wsgi()),
        Patch("molten.dependency_injection", "DependencyResolver.add_component", _routing),
    )
