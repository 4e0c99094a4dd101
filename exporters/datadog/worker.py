"""The thread of one process that sends its spans: queue -> chunks -> bytes -> receiver.

Spans may start and end inside a signal handler or a garbage collection, so nothing that the application's threads
call here takes a lock.
"""

from __future__ import annotations

import queue
import time
from dataclasses import dataclass, field
from importlib import import_module
from threading import Event, Thread
from time import monotonic
from typing import TYPE_CHECKING, Any

from spanbridge.core.guard import guarded, report
from spanbridge.exporters.datadog.chunks import IDLE_SECONDS, Assembler
from spanbridge.exporters.datadog.sender import Pending
from spanbridge.exporters.datadog.trace import traces

if TYPE_CHECKING:
    from collections import deque

    from spanbridge.exporters.datadog.chunks import Chunk
    from spanbridge.exporters.datadog.exporter import DatadogSpanExporter
    from spanbridge.exporters.datadog.trace import TraceState

# At the end: how many seconds a receiver may go without taking anything.
PATIENCE = 0.8
_TIDY_SECONDS = 30.0
STATS_SECONDS = 10.0
# While somebody waits, a failing receiver is tried again after at most this many seconds.
_HURRIED_PAUSE = 0.1


@dataclass(slots=True, eq=False)
class _Waiter:
    deadline: float
    done: Event = field(default_factory=Event)


class Worker:
    """Starts its thread at once; the thread is a daemon, so that it never holds a program up.

    Args:
        exporter: maps, encodes and sends.
        inbox: spans as they start (with the record of their trace) and end (with None).
        forked: whether this process was forked from one that had a processor.
    """

    def __init__(
        self, exporter: DatadogSpanExporter, inbox: deque[tuple[Any, TraceState | None]], *, forked: bool = False
    ) -> None:
        settings = exporter.settings
        self._exporter = exporter
        self._sender = exporter.sender
        self._inbox = inbox
        self._interval = settings.flush_interval
        self._room = settings.buffer_bytes
        self._timeout = settings.timeout
        self._assembler = Assembler(settings.partial_flush_min_spans if settings.partial_flush else 0, forked=forked)
        self._pending = Pending()
        # Made here and not earlier: gevent may have replaced the class since this module was imported.
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._rung = False
        self._waiters: list[_Waiter] = []
        self._stopped = False
        self._not_before = 0.0
        self._collecting = False  # mapping and encoding, which no receiver delays
        self._collected_at = 0.0
        self._tidy_at = monotonic() + _TIDY_SECONDS
        self._stats_at = monotonic() + STATS_SECONDS
        exporter.sees_every_span = True
        self._counts = bool(settings.stats)
        if self._counts:  # what is sent before the Agent has agreed is not counted here
            self._sender.learning_is_due = True
        # Not left to the thread: a child forked during the import would never get its lock, and an import after an
        # unhandled KeyboardInterrupt makes Python forget to end by SIGINT.
        import_module("msgspec.msgpack")
        run = guarded(self._run, "the thread that sends spans")
        Thread(target=run, name="spanbridge-datadog", daemon=True).start()

    def wake(self) -> None:
        """Have what is queued looked at before the interval is over."""
        if not self._rung:
            self._rung = True
            self._bell.put(None)

    def drain(self, deadline: float) -> bool:
        """Have everything sent, and wait for it until `deadline` (monotonic clock)."""
        return self._wait(_Waiter(deadline), float("inf"))

    def stop(self, deadline: float) -> bool:
        """Have everything sent, wait until `deadline` as long as the receiver takes something, and end the thread."""
        if self._stopped:
            return True
        done = self._wait(_Waiter(deadline), PATIENCE)
        self._stopped = True
        self.wake()
        # Spans that were refused have been reported as such.
        if not done and (left := self._pending.spans + sum(state is None for _, state in tuple(self._inbox))):
            self._sender.give_up(left)
        return done

    def _wait(self, waiter: _Waiter, patience: float) -> bool:
        begun, lost = monotonic(), self._sender.lost
        self._waiters.append(waiter)
        self.wake()
        while not waiter.done.wait(0.02):
            now = monotonic()
            progress = max(begun, self._sender.last_success, self._collected_at)
            if now > waiter.deadline or (not self._collecting and now > progress + patience):
                waiter.deadline = 0.0
                return False
        return self._sender.lost == lost

    def _run(self) -> None:
        while not self._stopped:
            try:
                self._work()
            except Exception as error:
                report("the worker that sends spans", error)
                time.sleep(self._interval)
        self._sender.close()  # a request that was under way at the end has kept its connection

    def _work(self) -> None:
        self._sleep()
        waiters = self._waiters[:]
        if self._sender.learning_is_due and (self._counts or not waiters):
            self._exporter.learn()
        self._collect(everything=bool(waiters))
        self._deliver(waiters)
        self._send_stats(waiters)
        for waiter in waiters:
            if not self._pending:
                waiter.done.set()
            if not self._pending or waiter.deadline < monotonic():
                self._waiters.remove(waiter)

    def _sleep(self) -> None:
        if not self._waiters:
            try:
                self._bell.get(timeout=self._interval)
            except queue.Empty:
                return
        self._rung = False

    def _collect(self, *, everything: bool) -> None:
        """Turn what is queued into encoded chunks."""
        self._collecting = True
        try:
            now = monotonic()
            inbox, assembler = self._inbox, self._assembler
            for _ in range(len(inbox)):
                span, state = inbox.popleft()
                if state is not None:
                    assembler.started(span, state, now)
                elif (chunk := assembler.ended(span, now)) is not None:
                    self._add(chunk)
            if assembler.late:
                self._sender.lose(assembler.late)
                assembler.late = 0
            if now > self._tidy_at:
                self._tidy_at = now + _TIDY_SECONDS
                for trace_id, chunk in assembler.evict():
                    traces.release(trace_id)
                    self._add(chunk)
                for chunk in assembler.finished(now - IDLE_SECONDS):
                    self._add(chunk)
            if everything:
                for chunk in assembler.finished():
                    self._add(chunk)
        finally:
            self._collected_at = monotonic()
            self._collecting = False

    def _add(self, chunk: Chunk) -> None:
        if not chunk.members:
            return
        if chunk.partial:
            chunk.trace.look_around()  # or what has been sent would be kept by what goes on
        else:
            traces.release(chunk.members[0].span.context.trace_id)
        if (encoded := self._exporter.encode(chunk)) is not None:
            self._pending.append(encoded)
        for member in chunk.members:
            member.parent = None  # or a chain of ancestors would live as long as its last descendant
        while self._pending.size > self._room:
            self._sender.lose(self._pending.pop().spans)

    def _send_stats(self, waiters: list[_Waiter]) -> None:
        """Send the counts of the last buckets, for those who wait those of this moment, too."""
        concentrator, now = self._exporter.concentrator, monotonic()
        if concentrator is None or self._pending or (now < self._stats_at and not waiters):
            return
        self._stats_at = now + STATS_SECONDS
        payload = concentrator.flush(time.time_ns(), everything=bool(waiters))
        if payload is not None:
            until = max((waiter.deadline for waiter in waiters), default=now + self._timeout)
            self._sender.send_stats(payload, max(until - now, 0.01))

    def _deliver(self, waiters: list[_Waiter]) -> None:
        """Send what is pending, until nothing is left or the receiver fails and nobody waits."""
        if not waiters and monotonic() < self._not_before:
            return
        while self._pending and not self._stopped:
            # A waiter that gives up sets its deadline back.
            until = max((waiter.deadline for waiter in waiters), default=0.0)
            now = monotonic()
            if waiters and now >= until:
                return
            pause = self._sender.send(self._pending, until if waiters else now + self._timeout)
            self._not_before = monotonic() + pause
            if pause and not waiters:
                return
            if pause:
                time.sleep(min(pause, _HURRIED_PAUSE, max(0.0, until - monotonic())))
