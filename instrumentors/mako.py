"""Mako: one INTERNAL span per rendering, be it of a whole template or of one of its defs.

What a template includes or inherits belongs to its rendering.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spanbridge.conventions import template
from spanbridge.core.instrumentor import Instrumentor
from spanbridge.core.patching import Library, Patch
from spanbridge.version import __version__ as __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    from spanbridge.core.tracing import Setup, Wrapped


def _rendered(rendered: Any, *args: Any, **kwargs: Any) -> str:
    """The template's file; of a def its function (`index_html.render_header`), for it has no file."""
    if hasattr(rendered, "parent"):
        function = rendered.callable_
        module = function.__module__
        return f"{template.MEMORY if module.startswith('memory:') else module}.{function.__name__}"
    return getattr(rendered, "filename", None) or template.MEMORY


def _call(method: str) -> Callable[[Wrapped, Setup], Wrapped]:
    return template.call(f"mako.template.{method}", _rendered)


class MakoInstrumentor(Instrumentor):
    """Traces Mako templates, whenever they were made."""

    library = Library("mako", ("mako >= 0.1.0",), tested="1.4.3")
    patches = tuple(
        Patch("mako.template", f"Template.{method}", _call(method))
        for method in ("render", "render_unicode", "render_context")
    )
