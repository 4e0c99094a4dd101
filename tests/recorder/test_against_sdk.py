"""Our spans and the SDK's get the same calls; what processors see, what is answered and logged is the same."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, rule
from opentelemetry.context import Context
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, SpanProcessor
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
    StaticSampler,
    TraceIdRatioBased,
)
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    get_current_span,
    set_span_in_context,
)

from spanbridge.recorder import TracerProvider
from spanbridge.testing import CountingIds

if TYPE_CHECKING:
    from collections.abc import Callable

texts = st.text("abcé", max_size=6)
scalars = st.one_of(texts, st.integers(-5, 5), st.booleans(), st.floats(allow_nan=False, width=16))
values = st.one_of(
    scalars,
    st.none(),
    st.binary(max_size=3),
    st.lists(texts, max_size=3),
    st.lists(scalars, max_size=3),
    st.tuples(st.integers(0, 3)),
    st.dictionaries(texts, scalars, max_size=2),
    st.builds(object),
)
keys = st.one_of(st.sampled_from(["a", "b", "c", "d", "e"]), st.just(""), st.just(1))
attributes = st.one_of(
    st.none(),
    st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), scalars, max_size=4),
    st.dictionaries(keys, values, max_size=6),
)
times = st.integers(1, 10**18)
contexts = st.builds(
    SpanContext,
    st.integers(0, 3),
    st.integers(0, 3),
    st.booleans(),
    st.sampled_from([TraceFlags(bits) for bits in range(4)]),
    st.sampled_from([TraceState(), TraceState([("dd", "s:1")])]),
)
links = st.lists(st.builds(Link, contexts, st.dictionaries(st.sampled_from("ab"), values, max_size=3)), max_size=4)
most = st.one_of(st.none(), st.integers(0, 4), st.just(200))
limits = st.builds(
    SpanLimits,
    max_attributes=most,
    max_events=most,
    max_links=most,
    max_span_attributes=most,
    max_event_attributes=most,
    max_link_attributes=most,
    max_attribute_length=st.one_of(st.none(), st.integers(0, 3)),
    max_span_attribute_length=st.one_of(st.none(), st.just(SpanLimits.UNSET), st.integers(0, 3)),
)


class Opinionated(Sampler):
    """Adds attributes and a trace state of its own, and decides by the name."""

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: Any = None,
        attributes: Any = None,
        links: Any = None,
        trace_state: Any = None,
    ) -> SamplingResult:
        decision = list(Decision)[len(name) % 3]
        return SamplingResult(decision, {**(attributes or {}), "by": name}, TraceState([("own", "1")]))

    def get_description(self) -> str:
        return "Opinionated"


samplers = st.sampled_from(
    [
        ALWAYS_ON,
        ALWAYS_OFF,
        StaticSampler(Decision.RECORD_ONLY),
        ParentBased(ALWAYS_ON),
        ParentBased(ALWAYS_OFF, remote_parent_not_sampled=ALWAYS_ON, local_parent_sampled=Opinionated()),
        ParentBased(TraceIdRatioBased(0.5)),
        Opinionated(),
    ]
)


class _Seen(SpanProcessor):
    def __init__(self, *, reads: bool) -> None:
        self.reads = reads
        self.rows: list[Any] = []
        self.views: list[Any] = []

    def on_start(self, span: Any, parent_context: Context | None = None) -> None:
        parent = get_current_span(parent_context).get_span_context()
        if self.reads:
            self.rows.append(("start", readable(span), parent))
            self.views.append(span.attributes)  # it goes on showing what the span has
        else:
            self.rows.append(("start", span.name, parent))

    def _on_ending(self, span: Any) -> None:
        span.set_attribute("late", 1)
        self.rows.append(("ending", readable(span)))

    def on_end(self, span: Any) -> None:
        self.rows.append(("end", readable(span), span.to_json()))


def readable(span: Any) -> Any:
    """Answer all that ReadableSpan shows, in the order in which it shows it."""
    return (
        *(span.name, span.kind, span.context, span.get_span_context(), span.parent, span.start_time, span.end_time),
        *(span.status.status_code, span.status.description, list(map(repr, span.attributes.items()))),
        *(span.dropped_attributes, span.dropped_events, span.dropped_links),
        *(span.resource, span.instrumentation_scope),
        [(event.name, event.timestamp, repr(event.attributes), event.dropped_attributes) for event in span.events],
        [(link.context, repr(link.attributes), link.dropped_attributes) for link in span.links],
    )


class _Log(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.name}: {record.getMessage()}")


class Side:
    """One provider with what it made."""

    def __init__(
        self, provider: type[sdk.TracerProvider], span_limits: SpanLimits, sampler: Sampler, reads: bool
    ) -> None:
        self.seen = _Seen(reads=reads)
        provider_ = provider(
            sampler, Resource({"service.name": "x"}), False, id_generator=CountingIds(), span_limits=span_limits
        )
        provider_.add_span_processor(self.seen)
        self.tracer = provider_.get_tracer("scope", "1", "https://example.org", {"key": "value"})
        self.spans: list[Any] = []


class Recorders(RuleBasedStateMachine):
    """Every rule does one thing to a span of each side."""

    made = Bundle("made")

    @initialize(span_limits=limits, sampler=samplers, reads=st.booleans())
    def begin(self, span_limits: SpanLimits, sampler: Sampler, reads: bool) -> None:
        self.sides = [Side(kind, span_limits, sampler, reads=reads) for kind in (sdk.TracerProvider, TracerProvider)]
        self.log = _Log()
        logging.getLogger("opentelemetry").addHandler(self.log)
        logging.getLogger("opentelemetry").propagate = False

    def teardown(self) -> None:
        logging.getLogger("opentelemetry").removeHandler(self.log)
        logging.getLogger("opentelemetry").propagate = True

    def both(self, do: Callable[[Side], Any]) -> Any:
        """Do the same to both, and compare everything."""
        outcomes = []
        for side in self.sides:
            self.log.lines.clear()
            try:
                answer = do(side)
            except Exception as error:
                answer = (type(error), str(error))
            outcomes.append((answer, side.seen.rows, list(map(repr, side.seen.views)), self.log.lines[:]))
        theirs, ours = outcomes
        assert ours == theirs
        for side in self.sides:
            side.seen.rows = []
        return ours[0]

    @rule(
        target=made,
        name=texts,
        parent=st.one_of(st.none(), contexts, made),
        kind=st.sampled_from(SpanKind),
        attributes=attributes,
        links=st.one_of(st.none(), links),
        start_time=times,
        flags=st.tuples(st.booleans(), st.booleans()),
    )
    def start(
        self, name: str, parent: Any, kind: SpanKind, attributes: Any, links: Any, start_time: int, flags: Any
    ) -> int:
        def do(side: Side) -> Any:
            context = Context()
            if isinstance(parent, int):
                context = set_span_in_context(side.spans[parent], context)
            elif parent is not None:
                context = set_span_in_context(NonRecordingSpan(parent), context)
            own = dict(attributes) if attributes is not None else None
            own_links = links and [Link(link.context, dict(link.attributes or {})) for link in links]
            span = side.tracer.start_span(name, context, kind, own, own_links, start_time, *flags)
            if own:
                own["a"] = "changed by the caller"
            side.spans.append(span)
            return span.get_span_context(), span.is_recording()

        self.both(do)
        return len(self.sides[0].spans) - 1

    @rule(index=made, key=keys, value=values)
    def set_attribute(self, index: int, key: Any, value: Any) -> None:
        self.both(lambda side: side.spans[index].set_attribute(key, value))

    @rule(index=made, attributes=attributes.filter(lambda each: each is not None))
    def set_attributes(self, index: int, attributes: Any) -> None:
        self.both(lambda side: side.spans[index].set_attributes(attributes))

    @rule(index=made, name=texts, attributes=attributes, time=times)
    def add_event(self, index: int, name: str, attributes: Any, time: int) -> None:
        self.both(lambda side: side.spans[index].add_event(name, attributes, time))

    @rule(index=made, context=contexts, attributes=attributes)
    def add_link(self, index: int, context: SpanContext, attributes: Any) -> None:
        self.both(lambda side: side.spans[index].add_link(context, attributes))

    @rule(index=made, name=texts)
    def update_name(self, index: int, name: str) -> None:
        self.both(lambda side: side.spans[index].update_name(name))

    @rule(
        index=made,
        status=st.one_of(st.sampled_from(StatusCode), st.builds(Status, st.sampled_from(StatusCode))),
        description=st.one_of(st.none(), texts),
    )
    def set_status(self, index: int, status: Any, description: str | None) -> None:
        self.both(lambda side: side.spans[index].set_status(status, description))

    @rule(index=made, attributes=attributes, escaped=st.booleans())
    def record_exception(self, index: int, attributes: Any, escaped: bool) -> None:
        error = ValueError("wrong")
        self.both(lambda side: side.spans[index].record_exception(error, attributes, 5, escaped))

    @rule(index=made, end_time=times)
    def end(self, index: int, end_time: int) -> None:
        self.both(lambda side: side.spans[index].end(end_time))

    @rule(index=made)
    def read(self, index: int) -> None:
        def do(side: Side) -> Any:
            span = side.spans[index]
            return readable(span) if isinstance(span, sdk.Span) else type(span)

        self.both(do)

    @rule(index=made)
    def write_where_one_may_not(self, index: int) -> None:
        def do(side: Side) -> None:
            span = side.spans[index]
            if isinstance(span, sdk.Span):
                span.attributes["a"] = 1

        self.both(do)


Recorders.TestCase.settings = settings(max_examples=60, stateful_step_count=25)
TestRecorders = Recorders.TestCase
