"""Detail: spans for the parts of a request (middleware, views, templates), each kind an option that is off by default.

They are INTERNAL, named after the kind of part (`django.middleware`); which one it was is an attribute.
"""

from __future__ import annotations

from functools import partial
from inspect import unwrap
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import SpanKind

from spanbridge.core.failure import record_failure
from spanbridge.core.options import Option, boolean
from spanbridge.core.tracing import Operation, traced

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.trace import Span

    from spanbridge.core.tracing import Setup, Wrapped

    Attributes = Callable[..., dict[str, Any]]


def option(name: str, what: str) -> Option[bool]:
    """Declare the option that switches one kind of detail on."""
    return Option(name, False, f"Make a span for {what}.", boolean)


def operation(
    name: str, attributes: Attributes, layer: int = 0, failed: Callable[..., None] | None = None
) -> Operation[Any]:
    """Describe one kind of part.

    Args:
        name: the spans' name.
        attributes: answers the span's attributes from the call's arguments.
        layer: the layer that the part stands for, if it replaces the spans beneath it (a cache's).
        failed: describes the exception, if not as `record_fault` does.
    """

    def describe(*args: Any, **kwargs: Any) -> dict[str, Any]:
        return attributes(*args, **kwargs)

    return Operation(
        SpanKind.INTERNAL,
        describe,
        lambda _: name,
        lambda found: found,
        layer=layer,
        covers=layer,
        failed=failed or record_fault,
    )


# By which attribute frameworks' exceptions that are answers are known, and by which they tell the status.
_ANSWERS = (("get_response", "code"), ("status_int", "status_int"), ("default_detail", "status_code"))


def record_fault(span: Span, record: Any, error: BaseException) -> None:
    """Mark a span as failed, unless the exception is a framework's way to answer with a status below 500."""
    status = next((getattr(error, field, None) for known, field in _ANSWERS if hasattr(error, known)), None)
    if not isinstance(status, int) or status >= 500:
        record_failure(span, error)


def detail(name: str, switch: str, attributes: Attributes) -> Callable[[Wrapped, Setup], Wrapped]:
    """Make the advice for a part that is one call; nothing is patched where its option is off."""

    def advice(wrapped: Wrapped, setup: Setup) -> Wrapped:
        return traced(wrapped, setup, operation(name, attributes)) if setup.options[switch] else wrapped

    return advice


def dotted(function: Any) -> str:
    """Answer `module.qualified.name` of a function, a class, a bound method, or of an object by its class."""
    target = unwrap(function.func if isinstance(function, partial) else function)
    if not hasattr(target, "__qualname__"):
        target = type(target)
    return f"{target.__module__}.{target.__qualname__}"


def code(function: Any, method: str = "") -> dict[str, Any]:
    """Answer the attribute that names a function, or a method of an object.

    https://opentelemetry.io/docs/specs/semconv/registry/attributes/code/ (`code.function.name`)
    """
    name = dotted(function)
    return {"code.function.name": f"{name}.{method}" if method else name}
