"""Jinja2: one INTERNAL span per rendering: `render`, `generate` and `stream`, plain and async.

Loading and compiling are details (`trace_loading`). What a template includes or extends belongs to its rendering.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spanbridge.conventions import template
from spanbridge.core.instrumentor import Instrumentor
from spanbridge.core.patching import Library, Patch
from spanbridge.version import __version__ as __version__

if TYPE_CHECKING:
    from jinja2 import Environment, Template


def _rendered(rendered: Template, *args: Any, **kwargs: Any) -> str | None:
    """In an async environment the plain methods call the async ones, which make the span."""
    return None if getattr(rendered.environment, "is_async", False) else rendered.name or template.MEMORY


def _rendered_async(rendered: Template, *args: Any, **kwargs: Any) -> str | None:
    return rendered.name or template.MEMORY if rendered.environment.is_async else None


def _compiled(environment: Environment, source: Any, name: str | None = None, *args: Any, **kwargs: Any) -> str:
    return name or template.MEMORY


def _loaded(environment: Environment, name: str, *args: Any, **kwargs: Any) -> str:
    return name


def _path(loaded: Template) -> str | None:
    return loaded.filename


_render = template.call("jinja2.render", _rendered)
_render_async = template.call("jinja2.render", _rendered_async)


class Jinja2Instrumentor(Instrumentor):
    """Traces Jinja2 templates, whenever they were made."""

    library = Library("jinja2", ("jinja2 >= 2.7",), tested="3.1.6")
    options = (template.TRACE_LOADING,)
    # Not in `jinja2.environment`: before 3.0 the package replaces the methods there while it is imported.
    patches = (
        Patch("jinja2", "Template.render", _render),
        Patch("jinja2", "Template.generate", _render),
        Patch("jinja2", "Template.render_async", _render_async),
        Patch("jinja2", "Template.generate_async", _render_async),
        Patch(
            "jinja2", "Environment._load_template", template.call("jinja2.load", _loaded, path_of=_path, detail=True)
        ),
        Patch("jinja2", "Environment.compile", template.call("jinja2.compile", _compiled, detail=True)),
    )
