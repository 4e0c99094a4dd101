"""Django REST framework: requests are Django's spans; a span per handler on request.

What an exception handler of the application answers with 500 or more is recorded on Django's span.
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any

from spanbridge.conventions import detail
from spanbridge.core.guard import guarded
from spanbridge.core.instrumentor import Instrumentor
from spanbridge.core.patching import Library, Patch
from spanbridge.instrumentors.django import scope_of
from spanbridge.version import __version__ as __version__

if TYPE_CHECKING:
    from spanbridge.core.tracing import Setup, Wrapped


def _answering(wrapped: Wrapped, setup: Setup) -> Wrapped:
    """Keep the exception behind a page of 500 or more: Django never sees it."""

    def keep(response: Any, view: Any, exc: BaseException) -> None:
        if response.status_code >= 500 and (scope := scope_of(view.request)) is not None:
            scope.record.error = exc

    guarded_keep = guarded(keep, "djangorestframework: describing a response")

    @wraps(wrapped)
    def handle_exception(*args: Any, **kwargs: Any) -> Any:
        response = wrapped(*args, **kwargs)
        guarded_keep(response, *args, **kwargs)
        return response

    return handle_exception


def _handler(view: Any, request: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Name the handler: of a ViewSet its action, of other views the method."""
    method, cls = request.method.lower(), type(view)
    action = getattr(view, "action_map", {}).get(method, method)
    return {"code.function.name": f"{cls.__module__}.{cls.__name__}.{action}"}


class DjangoRestFrameworkInstrumentor(Instrumentor):
    """Adds to Django's spans what only the framework knows."""

    library = Library("rest_framework", ("djangorestframework >= 3.4",), tested="3.18.3")
    options = (detail.option("view_spans", "each handler of an API view"),)
    patches = (
        Patch("rest_framework.views", "APIView.handle_exception", _answering),
        Patch("rest_framework.views", "APIView.dispatch", detail.detail("django.view", "view_spans", _handler)),
    )
