"""A tracer that is the SDK's and makes spans of ours."""

from __future__ import annotations

import os
from dataclasses import dataclass
from random import Random
from time import time_ns
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.trace import SynchronousMultiSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, StaticSampler
from opentelemetry.trace import (
    DEFAULT_TRACE_STATE,
    INVALID_SPAN_CONTEXT,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
)
from opentelemetry.trace import Span as ApiSpan
from opentelemetry.util._decorator import _AgnosticContextManager

from spanbridge.core.attributes import Checked, plain, plain_values
from spanbridge.core.context import SPAN_KEY, attach, detach, get_current, with_span
from spanbridge.recorder.span import Span, bounded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.context import Context
    from opentelemetry.trace import Link
    from opentelemetry.util.types import Attributes

_new = object.__new__
_new_context = tuple.__new__
_SAMPLE, _RECORD = Decision.RECORD_AND_SAMPLE, Decision.RECORD_ONLY
_INTERNAL = SpanKind.INTERNAL
_SAMPLED = TraceFlags.SAMPLED
# OpenTelemetry before 1.43 does not say whether a trace id is random.
_RANDOM = getattr(TraceFlags, "RANDOM_TRACE_ID", 0)
_FLAGS = tuple(TraceFlags(bits) for bits in range(4))
# Of our own: an application that seeds `random` is to get the numbers that it expects, and no trace id twice. uWSGI
# forks without Python's hooks, and reseeds `random` alone; so the clock has a part in every id.
_random = Random()  # noqa: S311 - ids are no secrets
_bits = _random.getrandbits
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_random.seed)
_HAS_TRACER_CONFIG = hasattr(sdk.Tracer, "_set_tracer_config")


@dataclass(frozen=True, slots=True)
class Decisions:
    """What a sampler always answers to a span without a parent, and by what is known of the parent.

    None where that depends on more, and for samplers that are not known.
    """

    root: Decision | None = None
    remote_sampled: Decision | None = None
    remote_dropped: Decision | None = None
    local_sampled: Decision | None = None
    local_dropped: Decision | None = None


def known_decisions(sampler: Any) -> Decisions:
    """Tell which decisions of a sampler can be known beforehand: those of the SDK's own, which pass on attributes."""
    answers = getattr(sampler.should_sample, "__func__", None)
    if answers is StaticSampler.should_sample:
        return Decisions(*[sampler._decision] * 5)
    if answers is ParentBased.should_sample:
        return Decisions(
            known_decisions(sampler._root).root,
            known_decisions(sampler._remote_parent_sampled).remote_sampled,
            known_decisions(sampler._remote_parent_not_sampled).remote_dropped,
            known_decisions(sampler._local_parent_sampled).local_sampled,
            known_decisions(sampler._local_parent_not_sampled).local_dropped,
        )
    return Decisions()


def quick_decision(sampler: Any) -> Callable[..., Decision] | None:
    """Answer a sampler's method of that name, which decides without making a `SamplingResult`, if it has one.

    It takes (context, trace id, name, kind, attributes, the parent's SpanContext), and stands for a `should_sample`
    that passes attributes and trace state on. One that a subclass has overridden is not what it stands for.
    """
    owner = next((cls for cls in type(sampler).__mro__ if "should_sample" in vars(cls)), object)
    return sampler.quick_decision if "quick_decision" in vars(owner) else None


class Tracer(sdk.Tracer):
    """Made of a tracer of the SDK's by `of`; all that the provider tells that one, it tells this one."""

    takes_over = True  # `start_span` has that argument
    room: float
    _known: Any = None
    _quick: Callable[..., Decision] | None = None
    _decisions = Decisions()
    _count: Callable[..., Callable[[], None]] | None

    @classmethod
    def of(cls, tracer: Any) -> Tracer:
        """Make a tracer of the SDK's ours; it stays the same object, which its provider knows."""
        limits = tracer._span_limits
        most = float("inf") if limits.max_span_attributes is None else limits.max_span_attributes
        # Threads that write at the same time may not get beyond the limit: the SDK's mapping takes over far below it.
        tracer.room = most // 2 if limits.max_span_attribute_length is None else 0
        metrics: Any = getattr(tracer, "_tracer_metrics", None)
        tracer._count = None if type(metrics).__name__ in {"NoneType", "NoOpTracerMetrics"} else metrics.start_span
        tracer.__class__ = cls  # once nothing can fail any more
        ours: Tracer = tracer
        return ours

    def _learn(self, sampler: Any) -> Decisions:
        self._decisions, self._known = known_decisions(sampler), sampler
        self._quick = quick_decision(sampler)
        return self._decisions

    def start_span(  # noqa: C901 - one function, for a call within it costs as much as a tenth of it
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = _INTERNAL,
        attributes: Attributes = None,
        links: Sequence[Link] | None = (),
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
        take_over: bool = False,
        plain_already: bool = False,
    ) -> ApiSpan:
        """Start a span, as OpenTelemetry's API says.

        Args:
            name: of the span.
            context: holds the parent; the current one when not given.
            kind: of the span.
            attributes: at the start.
            links: to other spans.
            start_time: nanoseconds since the epoch; now when not given.
            record_exception: whether the span, used in a `with` statement, records what leaves that.
            set_status_on_exception: whether it then gets the status of an error, too.
            take_over: the span keeps `attributes` itself, a dict with texts as keys that nobody else uses.
            plain_already: and whose values need no look.
        """
        above = (get_current() if context is None else context).get(SPAN_KEY)
        parent: Any = above._context if type(above) is Span else _context_of(above)
        if _HAS_TRACER_CONFIG and not self._tracer_config.is_enabled:
            return NonRecordingSpan(parent)
        parent_or_none = parent if parent[5] else None

        ids, sampler, now = self.id_generator, self.sampler, time_ns()
        usual_ids = type(ids) is RandomIdGenerator
        decision: Any
        decisions = self._decisions if sampler is self._known else self._learn(sampler)
        if parent_or_none:
            trace_id, _, remote, flags, trace_state, _ = parent
            random_id = flags & _RANDOM
            if flags & _SAMPLED:
                decision = decisions.remote_sampled if remote else decisions.local_sampled
            else:
                decision = decisions.remote_dropped if remote else decisions.local_dropped
        else:
            trace_state, decision = DEFAULT_TRACE_STATE, decisions.root
            trace_id = (usual_ids and _bits(128) ^ now) or ids.generate_trace_id()
            random_id = _RANDOM if usual_ids or (_RANDOM and ids.is_trace_id_random()) else 0
        if decision is None and self._quick is not None:
            decision = self._quick(context, trace_id, name, kind, attributes, parent)
        elif decision is None:
            result = sampler.should_sample(context, trace_id, name, kind, attributes, links or ())
            decision, trace_state = result.decision, result.trace_state
            if trace_state is None:
                trace_state = DEFAULT_TRACE_STATE
            attributes, take_over = dict(result.attributes or {}), False

        sampled = decision is _SAMPLE or (decision is not _RECORD and decision.is_sampled())
        span_id = (usual_ids and _bits(64) ^ now) or ids.generate_span_id()
        if usual_ids:
            fields = (trace_id, span_id, False, _FLAGS[sampled | random_id], trace_state, True)
            own = _new_context(SpanContext, fields)
        else:
            own = SpanContext(trace_id, span_id, False, _FLAGS[sampled | random_id], trace_state)
        count_end = None if self._count is None else self._count(parent_or_none, decision)
        if not (sampled or decision is _RECORD or decision.is_recording()):
            return NonRecordingSpan(own)

        span = _new(Span)
        span._open = True
        span._tracer = self
        span._name = name
        span._kind = kind
        span._context = own
        span._parent = parent_or_none
        span._resource = self.resource
        span._instrumentation_scope = self._instrumentation_scope
        span._end_time = None
        if not attributes:
            span._attributes = {}
        elif len(attributes) >= self.room:
            span._attributes = bounded(attributes, self._span_limits)
        elif take_over and (plain_already or plain_values(attributes)):
            span._attributes = attributes
        elif type(attributes) is Checked or plain(attributes):
            span._attributes = {**attributes}
        else:
            span._attributes = bounded(attributes, self._span_limits)
        if links:
            span._links = span._new_links(links)
        if not (record_exception and set_status_on_exception):
            span._record_exception, span._set_status_on_exception = record_exception, set_status_on_exception
        if count_end is not None:
            span._record_end_metrics = count_end
        span._start_time = now if start_time is None else start_time
        processor = self.span_processor
        if type(processor) is SynchronousMultiSpanProcessor:
            for each in processor._span_processors:
                each.on_start(span, parent_context=context)
        else:
            processor.on_start(span, parent_context=context)
        return span

    def start_as_current_span(
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = _INTERNAL,
        attributes: Attributes = None,
        links: Sequence[Link] | None = (),
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
        end_on_exit: bool = True,
    ) -> CurrentSpan:
        """Start a span when the answered context manager is entered, or the function that it decorates is called.

        Args:
            name: as for `start_span`, and so are the others up to `start_time`.
            context: holds the parent; the current one when not given.
            kind: of the span.
            attributes: at the start.
            links: to other spans.
            start_time: nanoseconds since the epoch.
            record_exception: whether an exception that leaves the block becomes an event of the span.
            set_status_on_exception: whether it also sets the status.
            end_on_exit: whether the span ends with the block.
        """
        start = (name, context, kind, attributes, links, start_time, record_exception, set_status_on_exception)
        current = _new(CurrentSpan)
        current._tracer = self
        current._start = start
        current._end_on_exit = end_on_exit
        return current


class CurrentSpan(_AgnosticContextManager[ApiSpan]):
    """A span that is current within a `with` block; also a decorator of functions and coroutine functions."""

    _tracer: Tracer
    _start: tuple[Any, ...]
    _end_on_exit: bool

    def _recreate_cm(self) -> CurrentSpan:
        again: CurrentSpan = self._tracer.start_as_current_span(*(*self._start, self._end_on_exit))
        return again

    def __enter__(self) -> ApiSpan:
        self._span = span = self._tracer.start_span(*self._start)
        self._token = attach(with_span(span, get_current()))
        return span

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        detach(self._token)
        try:
            if isinstance(error, Exception):
                record(self._span, error, event=self._start[6], status=self._start[7])
        finally:
            if self._end_on_exit:
                self._span.end()


def record(span: ApiSpan, error: Exception, *, event: bool, status: bool) -> None:
    """Note on a span that `error` has left its block, as the API's `use_span` does."""
    if span.is_recording():
        if event:
            span.record_exception(error)
        if status:
            span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"))


def _context_of(span: object) -> SpanContext:
    """Answer the context of what a Context holds as its span; the invalid one when that is none."""
    if span is None or not isinstance(span, ApiSpan):
        return INVALID_SPAN_CONTEXT
    context: Any = span.get_span_context()
    if context is None:
        return INVALID_SPAN_CONTEXT
    if not isinstance(context, SpanContext):
        raise TypeError("parent_span_context must be a SpanContext or None.")
    return context
