"""Headers by the global propagator: what OpenTelemetry's own functions write and read, for any propagator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import baggage, propagate
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context, attach, detach
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import DefaultGetter, TextMapPropagator
from opentelemetry.trace import (
    INVALID_SPAN,
    NonRecordingSpan,
    SpanContext,
    TraceFlags,
    TraceState,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from spanbridge.core import propagation

if TYPE_CHECKING:
    from collections.abc import Iterator


class Own(TextMapPropagator):
    """A propagator that nobody knows."""

    def extract(self, carrier: Any, context: Any = None, getter: Any = None) -> Context:
        found = getter.get(carrier, "own")
        return baggage.set_baggage("own", found[0], context) if found else context

    def inject(self, carrier: Any, context: Any = None, setter: Any = None) -> None:
        setter.set(carrier, "own", str(get_current_span(context).get_span_context().span_id))

    @property
    def fields(self) -> set[str]:
        return {"own"}


class Louder(TraceContextTextMapPropagator):
    """A subclass of one that is known."""

    def inject(self, carrier: Any, *args: Any, **kwargs: Any) -> None:
        super().inject(carrier, *args, **kwargs)
        carrier["loud"] = "yes"


TEXTMAPS = {
    "the default": CompositePropagator([TraceContextTextMapPropagator(), W3CBaggagePropagator()]),
    "another order": CompositePropagator([W3CBaggagePropagator(), TraceContextTextMapPropagator()]),
    "one of them alone": TraceContextTextMapPropagator(),
    "with one that nobody knows": CompositePropagator([TraceContextTextMapPropagator(), Own()]),
    "a subclass": CompositePropagator([Louder(), W3CBaggagePropagator()]),
    "none": CompositePropagator([]),
}


@pytest.fixture(params=TEXTMAPS)
def textmap(request: pytest.FixtureRequest) -> Iterator[TextMapPropagator]:
    before = propagate.get_global_textmap()
    chosen = TEXTMAPS[request.param]
    propagate.set_global_textmap(chosen)
    yield chosen
    propagate.set_global_textmap(before)


def with_span(*, sampled: int = 1, members: tuple[tuple[str, str], ...] = ()) -> Context:
    flags, state = TraceFlags(sampled), TraceState(members)
    return set_span_in_context(NonRecordingSpan(SpanContext(0xABC << 64, 0xDEF, False, flags, state)), Context())


CONTEXTS = [
    Context(),
    set_span_in_context(INVALID_SPAN, Context()),
    with_span(),
    with_span(sampled=3, members=(("dd", "s:1"), ("foo", "1"))),
    with_span(sampled=0),
    baggage.set_baggage("user", "a b,c", with_span()),
    baggage.set_baggage("user", "7", Context()),
    baggage.clear(with_span()),
]


@pytest.mark.parametrize("context", CONTEXTS)
def test_the_same_is_written(textmap: TextMapPropagator, context: Context) -> None:
    theirs: dict[str, str] = {}
    ours: dict[str, str] = {}
    propagate.inject(theirs, context)
    propagation.inject(ours, context)
    assert list(ours.items()) == list(theirs.items())


def test_the_current_context_is_the_default(textmap: TextMapPropagator) -> None:
    theirs: dict[str, str] = {}
    ours: dict[str, str] = {}
    token = attach(CONTEXTS[5])
    propagate.inject(theirs)
    propagation.inject(ours)
    detach(token)
    assert ours == theirs


PARENT = f"00-{0xABC:032x}-{0xDEF:016x}-01"


@pytest.mark.parametrize("before", [None, Context(), with_span()])
@pytest.mark.parametrize(
    "carrier",
    [
        {},
        {"traceparent": PARENT},
        {"traceparent": PARENT, "tracestate": "a=b", "baggage": "c=d"},
        {"traceparent": "nonsense", "baggage": ""},
        {"traceparent": ""},
        {"baggage": "a=1,b=2"},
        {"own": "mine"},
    ],
)
def test_the_same_is_read(textmap: TextMapPropagator, carrier: dict[str, str], before: Context | None) -> None:
    assert told(propagation.extract(carrier, before)) == told(propagate.extract(carrier, before))


def told(context: Context | None) -> Any:
    span = get_current_span(context).get_span_context()
    return span, dict(span.trace_state), dict(baggage.get_all(context or Context()))


def test_a_getter_knows_its_carrier(textmap: TextMapPropagator) -> None:
    class Getter(DefaultGetter):
        def get(self, carrier: Any, key: str) -> Any:
            return [value] if (value := carrier.get(f"X-{key}")) else None

    carrier = {"X-traceparent": PARENT, "X-baggage": "a=1"}
    ours = propagation.extract(carrier, Context(), Getter())
    assert told(ours) == told(propagate.extract(carrier, Context(), Getter()))
