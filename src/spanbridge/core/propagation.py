"""Writing and reading headers by the global propagator, at less than its own cost where it is one of OpenTelemetry's.

https://opentelemetry.io/docs/specs/otel/context/api-propagators/
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from opentelemetry.baggage import set_baggage
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.propagate import get_global_textmap
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import default_getter, default_setter
from opentelemetry.trace import (
    INVALID_SPAN_CONTEXT,
    NonRecordingSpan,
    SpanContext,
    TraceFlags,
    TraceState,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from spanbridge.core.context import get_current

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.propagators.textmap import Getter, Setter, TextMapPropagator

    Writer = Callable[[Any, Context, Setter[Any]], None]

_TRACEPARENT, _TRACESTATE, _BAGGAGE = "traceparent", "tracestate", "baggage"
# Under which a Context holds its baggage.
(_BAGGAGE_KEY,) = set_baggage("a", "b", Context())


class _Plan(NamedTuple):
    """How one propagator is used; `readers` are asked only if the header that stands before them is there."""

    textmap: TextMapPropagator | None
    writers: tuple[Writer, ...] = ()
    readers: tuple[tuple[str, TextMapPropagator], ...] = ()


_plan = _Plan(None)


def inject(carrier: Any, context: Context | None = None, setter: Setter[Any] = default_setter) -> None:
    """Write a context into a carrier, as `opentelemetry.propagate.inject` does.

    Args:
        carrier: what goes out, such as headers.
        context: the current one when not given.
        setter: knows how to write into the carrier.
    """
    if context is None:
        context = get_current()
    for write in _current_plan().writers:
        write(carrier, context, setter)


def extract(carrier: Any, context: Context | None = None, getter: Getter[Any] = default_getter) -> Context:
    """Answer `context` with what a carrier holds, as `opentelemetry.propagate.extract` does.

    Args:
        carrier: what has come in, such as headers.
        context: an empty one when not given.
        getter: knows how to read the carrier.
    """
    if context is None:
        context = Context()
    for header, propagator in _current_plan().readers:
        if not header or getter.get(carrier, header):
            context = propagator.extract(carrier, context, getter)
    return context


def _current_plan() -> _Plan:
    global _plan  # noqa: PLW0603
    plan, textmap = _plan, get_global_textmap()
    if plan.textmap is not textmap:  # the application may set another at any time
        parts = getattr(textmap, "_propagators", (textmap,)) if type(textmap) is CompositePropagator else (textmap,)
        _plan = plan = _Plan(textmap, tuple(map(_writer, parts)), tuple((_header(part), part) for part in parts))
    return plan


def _header(propagator: TextMapPropagator) -> str:
    """Name the header without which a propagator reads nothing; empty for propagators that are not known."""
    return {TraceContextTextMapPropagator: _TRACEPARENT, W3CBaggagePropagator: _BAGGAGE}.get(type(propagator), "")


def _writer(propagator: TextMapPropagator) -> Writer:
    if type(propagator) is TraceContextTextMapPropagator and _writes_the_same(propagator):
        return _write_trace_context
    write = partial(_write, propagator)
    return partial(_write_baggage, write) if type(propagator) is W3CBaggagePropagator else write


def _write(propagator: TextMapPropagator, carrier: Any, context: Context, setter: Setter[Any]) -> None:
    propagator.inject(carrier, context, setter)


def _write_baggage(write: Writer, carrier: Any, context: Context, setter: Setter[Any]) -> None:
    if _BAGGAGE_KEY in context:
        write(carrier, context, setter)


def _write_trace_context(carrier: Any, context: Context, setter: Setter[Any]) -> None:
    """Write https://www.w3.org/TR/trace-context/."""
    own = get_current_span(context).get_span_context()
    if own != INVALID_SPAN_CONTEXT:
        trace_id, span_id, _, flags, members, _ = own
        setter.set(carrier, _TRACEPARENT, f"00-{trace_id:032x}-{span_id:016x}-{flags:02x}")
        if members:
            setter.set(carrier, _TRACESTATE, members.to_header())


def _writes_the_same(propagator: TextMapPropagator) -> bool:
    """Say whether `_write_trace_context` writes what a propagator does, of whatever version."""
    span = NonRecordingSpan(SpanContext(1, 2, False, TraceFlags(1), TraceState([("a", "b")])))
    context, theirs, ours = set_span_in_context(span, Context()), {}, {}  # type: ignore[var-annotated]
    propagator.inject(theirs, context)
    _write_trace_context(ours, context, default_setter)
    return ours == theirs
