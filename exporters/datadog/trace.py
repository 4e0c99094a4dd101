"""The record of one trace that processor, sampler and propagators share, and where they find it.

Records live with the trace's open spans in this process; those of ended traces stay for a while, so that late spans
and forked children keep the decision.
"""

from __future__ import annotations

import os
from _thread import RLock  # not threading's, where gevent puts one that the threads of its hub cannot share
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from opentelemetry.context import create_key, get_value

from spanbridge.exporters.datadog.mapping import attributes_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import Link, SpanContext

USER_REJECT, AUTO_REJECT, AUTO_KEEP, USER_KEEP = -1, 0, 1, 2
DEFAULT, MANUAL = "-0", "-4"  # decision makers (protocol D.1)
LOW_64 = (1 << 64) - 1
RECENT = 1024
_WATCHED = 64  # spans of one trace: each request that it makes looks at them


class Decider(Protocol):
    """Decides about a trace as late as possible, when its local root has its name and tags (protocol D.5)."""

    def settle(self, state: TraceState, root: ReadableSpan, mapped: Mapping[str, Any] | None = None) -> None:
        """Decide, unless that has been done.

        Args:
            state: the record of the trace.
            root: its local root, or what comes next to it; it may still be open.
            mapped: the same span, if it has been mapped already.
        """


@dataclass(init=False)
class TraceState:
    """What is known about one trace.

    Args:
        priority: -1 user reject, 0 auto reject, 1 auto keep, 2 user keep; None while undecided.
        decision_maker: the mechanism that decided, such as `-0`; empty when unknown (protocol D.1).
        origin: where the trace comes from, such as `synthetics`.
        tags: the `_dd.p.*` tags that travel with the trace, without the decision maker.
        metrics: what a sampling mechanism wants to be sent, such as `_dd.rule_psr`.
        meta: the same as text, such as `_dd.p.ksr`.
        discard: a rejected trace is neither sent nor counted.
        last_parent_id: the last Datadog span upstream, 16 hexadecimal digits (protocol C.2).
        error: why tags could not be propagated (`_dd.propagation_error`).
        absent_parent: the span id that stands for "continue the trace without a parent"; 0 when there is none.
        sampler: decides while the priority is None, and has every span recorded; None for traces of other samplers.
        root: the local root, as long as a decision needs it.
        watched: the spans begun here that may still be told to keep or drop the trace.
    """

    priority: int | None = None
    decision_maker: str = ""
    origin: str = ""
    tags: dict[str, str] = field(init=False)
    metrics: dict[str, float] = field(init=False)
    meta: dict[str, str] = field(init=False)
    discard: bool = False
    last_parent_id: str = ""
    error: str = ""
    absent_parent: int = 0
    sampler: Decider | None = field(default=None, repr=False, compare=False)
    root: ReadableSpan | None = field(default=None, repr=False, compare=False)
    watched: list[ReadableSpan] = field(init=False, repr=False, compare=False)
    # Rendered once per decision, because every outgoing request carries them.
    headers: tuple[tuple[str, str], ...] | None = field(default=None, repr=False, compare=False)
    member: str | None = field(default=None, repr=False, compare=False)

    def __init__(self, priority: int | None = None, decision_maker: str = "", **known: Any) -> None:
        # One is made for every trace, and few of these differ from what the class has.
        self.priority, self.decision_maker = priority, decision_maker
        self.tags, self.metrics, self.meta, self.watched = {}, {}, {}, []
        if known:
            vars(self).update(known)

    @classmethod
    def new(cls, trace_id: int) -> TraceState:
        """Make the undecided record of a trace that starts here."""
        high = trace_id >> 64
        return cls(tags={"_dd.p.tid": high.to_bytes(8, "big").hex()} if high else {})

    def decide(self, priority: int, decision_maker: str = "") -> None:
        """Set the priority; an empty decision maker leaves the old one."""
        self.decision_maker = decision_maker or self.decision_maker
        self.priority = priority
        self.headers = self.member = self.root = None

    def settle(self, span: ReadableSpan, mapped: Mapping[str, Any] | None = None) -> None:
        """Have the sampler decide, if nobody has.

        Args:
            span: stands in for a local root that is not known.
            mapped: the local root as it is sent, if it is known.
        """
        if self.priority is None and self.sampler is not None:
            self.sampler.settle(self, self.root or span, mapped)

    def watch(self, span: ReadableSpan) -> None:
        """Have a span that has begun looked at before something is sent that depends on the decision."""
        watched = self.watched
        watched.append(span)
        if len(watched) > _WATCHED:
            self.look_around()
            with traces.lock:
                while len(watched) > _WATCHED // 2:  # of so many open ones the first, and the latest
                    del watched[1]

    def look_around(self) -> None:
        """Follow what the spans of the trace have been told so far; those that have ended are let go."""
        with traces.lock:
            seen = self.watched[:]
            for span in seen:
                attributes = attributes_of(span)
                if "manual.keep" in attributes or "manual.drop" in attributes:
                    self.decide_by_attributes(attributes)
            # Others may be appended meanwhile; taken out they are only here and by `watch`, under the lock.
            self.watched[: len(seen)] = [span for span in seen if span.end_time is None]

    def decide_by_attributes(self, attributes: Mapping[str, object]) -> None:
        """Follow the attributes `manual.keep` and `manual.drop` of any span of the trace; keep wins."""
        if _set(attributes.get("manual.keep")):
            priority = USER_KEEP
        elif _set(attributes.get("manual.drop")):
            priority = USER_REJECT
        else:
            return
        if self.priority != priority or self.decision_maker != MANUAL:
            self.metrics, self.meta, self.discard = {}, {}, False
            self.decide(priority, MANUAL)


def _set(value: object) -> bool:
    return value is not None and value is not False and value not in ("false", "False", "0", 0)


class Remote(NamedTuple):
    """What a propagator extracted, carried in the context until the local root starts.

    `trace_id` is 0 when a new trace is to start that only links to the extracted one.
    """

    trace_id: int
    state: TraceState
    links: tuple[Link, ...] = ()


REMOTE_KEY = create_key("spanbridge-datadog-remote")


def remote_in(context: Context | None, trace_id: int) -> Remote | None:
    """Find what was extracted for this trace."""
    value = get_value(REMOTE_KEY, context)
    return value if isinstance(value, Remote) and value.trace_id == trace_id else None


def state_at_start(trace_id: int, parent: SpanContext, context: Context | None) -> TraceState:
    """Find or make the record for a span about to start: known here, extracted, or told by the sampled flag alone.

    Args:
        trace_id: of the span about to start.
        parent: the parent's context, which may be invalid.
        context: the context that the span starts in.
    """
    if (known := traces.get_open(trace_id)) is not None:
        return known
    if (remote := remote_in(context, trace_id)) is not None:
        return remote.state
    if (known := traces.get(trace_id)) is not None:
        return known
    if not parent.is_valid:
        return TraceState.new(trace_id)
    # OpenTelemetry's own propagator has extracted this, or nobody: another sampler has dropped the spans before.
    from spanbridge.exporters.datadog.headers import read_member

    return read_member(parent.trace_state.get("dd", ""), trace_id, parent.trace_flags)


class TraceRegistry:
    """Records by trace id: those with open spans, and a bounded number of others, the latest.

    Attributes:
        lock: guards what decides about traces, too; a forked child has a new one.
    """

    def __init__(self, recent: int = RECENT) -> None:
        self._most_recent = recent
        self.forget()

    def forget(self) -> None:
        """Drop every record."""
        self.lock = RLock()  # a span may end inside a garbage collection or signal handler that interrupts us here
        self._open: dict[int, TraceState] = {}
        self._recent: dict[int, TraceState] = {}

    def __len__(self) -> int:
        return len(self._open) + len(self._recent)

    def get(self, trace_id: int) -> TraceState | None:
        """Find the record of a trace."""
        return self._open.get(trace_id) or self._recent.get(trace_id)

    def get_open(self, trace_id: int) -> TraceState | None:
        """Find the record of a trace that has open spans in this process."""
        return self._open.get(trace_id)

    def begin(self, trace_id: int) -> TraceState:
        """Make the record of a trace whose first span is about to start, as `remember` keeps it."""
        state = self.get(trace_id)
        if state is None:
            state = TraceState.new(trace_id)
            self.remember(trace_id, state)
        return state

    def hold_begun(self, trace_id: int) -> TraceState | None:
        """Open the record of a trace that is remembered, if it is."""
        with self.lock:
            state = self._recent.pop(trace_id, None)
            return state and self._open.setdefault(trace_id, state)

    def remember(self, trace_id: int, state: TraceState) -> None:
        """Keep the record of a trace that has no open span (yet) until newer ones push it out."""
        with self.lock:
            if trace_id not in self._open:
                self._recent.pop(trace_id, None)
                self._recent[trace_id] = state
                if len(self._recent) > self._most_recent:
                    del self._recent[next(iter(self._recent))]

    def hold(self, trace_id: int, offered: TraceState) -> TraceState:
        """Open the record of a trace; `offered` becomes the record unless spans of the trace are open already."""
        with self.lock:
            self._recent.pop(trace_id, None)
            return self._open.setdefault(trace_id, offered)

    def release(self, trace_id: int) -> None:
        """Close the record of a trace whose spans have all ended; it is remembered for a while."""
        with self.lock:
            if (state := self._open.pop(trace_id, None)) is not None:
                state.watched.clear()
                self.remember(trace_id, state)

    def after_fork(self) -> None:
        """Keep the latest records in a forked child, where none of their spans is open."""
        records = [*self._recent.items(), *self._open.items()][-self._most_recent :]
        self.forget()
        for trace_id, state in records:
            self._recent[trace_id] = state


traces = TraceRegistry()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=traces.after_fork)
