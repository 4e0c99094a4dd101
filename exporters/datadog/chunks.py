"""Puts spans together into chunks: all spans of one trace in this process, in the order in which they started.

Pure bookkeeping for the worker, which alone calls it; spans come in as they start and end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.sdk.trace import ReadableSpan
    from spanbridge.exporters.datadog.trace import TraceState

MOST_OPEN_TRACES = 20_000
IDLE_SECONDS = 600.0


@dataclass(slots=True, eq=False)
class Member:
    """One span of a chunk.

    Args:
        span: the live span, later its finished copy.
        parent: its parent, if that is known in this process.
        local_root: whether its parent is in another process.
        finished: whether it has ended.
    """

    span: ReadableSpan
    parent: Member | None
    local_root: bool
    finished: bool = False


class Chunk(NamedTuple):
    """Finished spans of one trace, ready to be mapped.

    Args:
        trace: what is known about the trace.
        members: the spans, in the order in which they started.
        partial: whether the trace goes on.
    """

    trace: TraceState
    members: list[Member]
    partial: bool


@dataclass(slots=True, eq=False)
class _OpenTrace:
    state: TraceState
    members: dict[int, Member] = field(default_factory=dict)
    unfinished: int = 0
    touched: float = 0.0

    def take(self, *, partial: bool) -> Chunk:
        """Take the finished spans out, in the order in which they started: the local root first, if it is done."""
        finished = [member for member in self.members.values() if member.finished]
        for member in finished:
            del self.members[member.span.context.span_id]  # type: ignore[union-attr]
        return Chunk(self.state, finished, partial)


class Assembler:
    """The traces with open spans.

    Args:
        partial_flush: how many finished spans of an open trace are let go early; 0 for never.
    """

    def __init__(self, partial_flush: int) -> None:
        self._partial_flush = partial_flush
        self._open: dict[int, _OpenTrace] = {}
        self.abandoned = 0

    def started(self, span: ReadableSpan, state: TraceState, now: float) -> None:
        """Note a span that has started.

        Args:
            span: the live span.
            state: the record of its trace.
            now: a monotonic clock, in seconds.
        """
        context, parent = span.context, span.parent
        trace = self._open.get(context.trace_id)
        if trace is None:
            trace = self._open[context.trace_id] = _OpenTrace(state)
        above = None if parent is None or parent.is_remote else trace.members.get(parent.span_id)
        trace.members[context.span_id] = Member(span, above, above is None)
        trace.unfinished += 1
        trace.touched = now

    def ended(self, span: ReadableSpan, now: float) -> Chunk | None:
        """Note a span that has ended; answer the chunk that it completes.

        A span that did not start here (it was open when this process was forked) is its first process's.
        """
        context = span.context
        trace = self._open.get(context.trace_id)
        member = trace.members.get(context.span_id) if trace is not None else None
        if trace is None or member is None or member.finished:
            return None
        member.span, member.finished = span, True
        trace.unfinished -= 1
        trace.touched = now
        if trace.unfinished == 0:
            del self._open[context.trace_id]
            return trace.take(partial=False)
        if self._partial_flush and len(trace.members) - trace.unfinished >= self._partial_flush:
            return trace.take(partial=True)
        return None

    def finished(self) -> Iterator[Chunk]:
        """Take every finished span out, also of traces that go on."""
        for trace in self._open.values():
            if len(trace.members) > trace.unfinished:
                yield trace.take(partial=True)

    def evict(self, now: float) -> Iterator[Chunk]:
        """Give up traces that nothing happens in, and the oldest where there are too many."""
        excess = len(self._open) - MOST_OPEN_TRACES
        for trace_id, trace in list(self._open.items()):
            if excess <= 0 and now - trace.touched < IDLE_SECONDS:
                continue
            excess -= 1
            del self._open[trace_id]
            self.abandoned += trace.unfinished
            if len(trace.members) > trace.unfinished:
                yield trace.take(partial=True)

    def __len__(self) -> int:
        return len(self._open)
