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

# More open spans than this are taken for forgotten ones, those of the oldest traces first.
MOST_OPEN_SPANS = 50_000
# How many seconds finished spans wait for the rest of a trace in which nothing happens.
IDLE_SECONDS = 300.0


@dataclass(slots=True, eq=False)
class Member:
    """One span of a chunk.

    Args:
        span: the live span, later its finished copy.
        parent: its parent, if that is known in this process.
        local_root: whether its parent is in another process.
        finished: whether it has ended.
        service: its service, once it has been mapped.
    """

    span: ReadableSpan
    parent: Member | None
    local_root: bool
    finished: bool = False
    service: str = ""


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

    def take(self) -> Chunk:
        """Take the finished spans out, in the order in which they started: the local root first, if it is done."""
        finished = [member for member in self.members.values() if member.finished]
        for member in finished:
            del self.members[member.span.context.span_id]
        return Chunk(self.state, finished, self.unfinished > 0)

    @property
    def finished(self) -> int:
        return len(self.members) - self.unfinished


class Assembler:
    """The traces with open spans.

    Args:
        partial_flush: how many finished spans of an open trace are let go early; 0 for never.
        forked: whether open spans were inherited, so that a parent that is not known here is another process's.
    """

    def __init__(self, partial_flush: int, *, forked: bool = False) -> None:
        self._partial_flush = partial_flush
        self._forked = forked
        self._open: dict[int, _OpenTrace] = {}
        self.abandoned = 0  # open spans whose traces were given up
        self.late = 0  # those of them that ended after all

    def __len__(self) -> int:
        return len(self._open)

    def started(self, span: ReadableSpan, state: TraceState, now: float) -> None:
        """Note a span that has started.

        Args:
            span: the live span.
            state: the record of its trace.
            now: a monotonic clock, in seconds.
        """
        context, parent = span.context, span.parent
        trace = self._open.get(context.trace_id)
        local_root, above = True, None
        if trace is None:
            trace = self._open[context.trace_id] = _OpenTrace(state)
        elif parent is not None and not parent.is_remote:
            above = trace.members.get(parent.span_id)
            # A parent that started here but is not known any more has been sent already.
            local_root = above is None and self._forked
        trace.members[context.span_id] = Member(span, above, local_root)
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
            if self.abandoned and not self._forked:
                self.late += 1
            return None
        member.span, member.finished = span, True
        trace.unfinished -= 1
        trace.touched = now
        if trace.unfinished == 0:
            del self._open[context.trace_id]
            return trace.take()
        if self._partial_flush and trace.finished >= self._partial_flush:
            return trace.take()
        return None

    def finished(self, idle_since: float = float("inf")) -> Iterator[Chunk]:
        """Take the finished spans out of traces that go on.

        Args:
            idle_since: only of traces in which nothing has happened since then, by the monotonic clock.
        """
        for trace in self._open.values():
            if trace.finished and trace.touched <= idle_since:
                yield trace.take()

    def evict(self, most: int = MOST_OPEN_SPANS) -> Iterator[tuple[int, Chunk]]:
        """Give up the oldest traces until at most so many spans are open; answer their ids and finished spans."""
        excess = sum(trace.unfinished for trace in self._open.values()) - most
        for trace_id, trace in list(self._open.items()):
            if excess <= 0:
                return
            excess -= trace.unfinished
            self.abandoned += trace.unfinished
            del self._open[trace_id]
            yield trace_id, trace.take()
