"""Templates: one INTERNAL span per rendering, with the template's name and never its content."""

from __future__ import annotations

from functools import wraps
from inspect import isasyncgenfunction, isgeneratorfunction
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import SpanKind

from spanbridge.core.options import Option, boolean
from spanbridge.core.tracing import Operation, traced

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.trace import Span

    from spanbridge.core.tracing import Setup, Wrapped

MEMORY = "<memory>"
"""The name of a template that was made from a string."""

TRACE_LOADING: Option[bool | None] = Option(
    "trace_loading",
    None,
    "Trace loading and compiling templates as well; unless said otherwise only in `contrib` mode.",
    boolean,
)


def call(
    name: str,
    template_of: Callable[..., str | None],
    *,
    path_of: Callable[[Any], str | None] | None = None,
    detail: bool = False,
) -> Callable[[Wrapped, Setup], Wrapped]:
    """Make the advice for a function that renders, loads or compiles.

    Args:
        name: the span's name.
        template_of: takes the call's arguments, answers the template's name; None for a call that is not traced.
        path_of: takes the result, answers the file that it came from, if any.
        detail: whether the spans are made only on demand (`TRACE_LOADING`).
    """

    def advice(wrapped: Wrapped, setup: Setup) -> Wrapped:
        if detail:
            wanted = setup.options[TRACE_LOADING.name]
            if not (setup.semconv.contrib if wanted is None else wanted):
                return wrapped
        name_key, path_key = (f"{setup.integration}.template_{field}" for field in ("name", "path"))

        def succeeded(span: Span, template: str, result: Any) -> None:
            if path_of is not None and (path := path_of(result)):
                span.set_attribute(path_key, path)

        operation: Operation[str] = Operation(
            SpanKind.INTERNAL,
            template_of,
            lambda template: name,
            lambda template: {name_key: template},
            succeeded=succeeded if path_of else None,
            fresh=True,
        )
        return traced(_begun_by_the_call(wrapped), setup, operation)

    return advice


def _begun_by_the_call(wrapped: Wrapped) -> Wrapped:
    """Hide that `wrapped` is a generator function: a web server takes the first step outside of the request."""
    if not isgeneratorfunction(wrapped) and not isasyncgenfunction(wrapped):
        return wrapped

    @wraps(wrapped)
    def call(*args: Any, **kwargs: Any) -> Any:
        return wrapped(*args, **kwargs)

    return call
