"""The span processor: a trace's spans leave the process together, sent by a worker that the application never waits for.

Starting and ending a span only appends to a queue. The worker starts with the first span that ends, belongs to one
process, and puts chunks together, maps, encodes and sends them.
"""

from __future__ import annotations

import os
from collections import deque
from threading import Event, Lock, Thread
from time import monotonic
from typing import TYPE_CHECKING, Any
from weakref import WeakMethod

from opentelemetry import baggage
from opentelemetry.context import get_value
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.trace import INVALID_SPAN_CONTEXT

from spanbridge.core.guard import logger, report
from spanbridge.exporters.datadog.chunks import Assembler
from spanbridge.exporters.datadog.exporter import DatadogSpanExporter
from spanbridge.exporters.datadog.sender import Encoded, Outcome
from spanbridge.exporters.datadog.trace import DEFAULT, REMOTE_KEY, Remote, TraceState, state_at_start, traces

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, Span
    from spanbridge.exporters.datadog.chunks import Chunk
    from spanbridge.exporters.datadog.settings import Settings

# Spans between the application and the worker; more than that are dropped and counted.
MOST_QUEUED = 200_000
# The worker is woken early at this many.
_WAKE_AT = 2_000
# Bytes of one payload that are aimed at; the Agent takes 25 MiB, its smaller relatives 10.
_PAYLOAD_BYTES = 4 << 20
# At the end: how long a receiver may go without accepting anything, and the longest in all (seconds).
PATIENCE, LONGEST_END = 0.8, 5.0
_EVICT_EVERY = 60.0


class DatadogSpanProcessor(SpanProcessor):
    """Sends every recorded span to the Agent, a trace at a time.

    Args:
        exporter: maps and sends; made from `settings` when not given.
        settings: read from the environment when not given.
    """

    def __init__(self, exporter: DatadogSpanExporter | None = None, *, settings: Settings | None = None) -> None:
        self.exporter = exporter or DatadogSpanExporter(settings)
        self._settings = self.exporter.settings
        self._enabled = self._settings.trace_enabled
        self._shut_down = False
        self._begin_process()
        if hasattr(os, "register_at_fork"):
            after_fork = WeakMethod(self._begin_process)  # a hook cannot be taken back, so it may not keep us alive
            os.register_at_fork(after_in_child=lambda: (method := after_fork()) and method())

    def _begin_process(self) -> None:
        """Own this process: what a forked child inherits is its parent's to send."""
        self._pid = os.getpid()
        self._queue: deque[tuple[Any, TraceState | None]] = deque()
        self._worker: _Worker | None = None
        self._starting = Lock()
        self.exporter.sender.close()

    @property
    def dropped(self) -> int:
        """How many spans were lost in this process."""
        return self.exporter.sender.lost

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Queue a span that has started; a local root takes over what was extracted for it."""
        if not self._enabled or self._shut_down:
            return
        if self._pid != os.getpid():  # forked without Python's hooks, as uWSGI does
            self._begin_process()
        queue = self._queue
        if len(queue) >= MOST_QUEUED:
            self.exporter.sender.lost += 1
            return
        try:
            parent = span.parent
            state = None
            if parent is not None and not parent.is_remote:
                state = traces.get_open(parent.trace_id)
            if state is None:
                state = self._begin_root(span, parent_context)
            queue.append((span, state))
        except Exception as error:
            report("DatadogSpanProcessor.on_start", error)

    def _begin_root(self, span: Span, parent_context: Context | None) -> TraceState:
        """Open the record of a trace at its first span here, and take over what came with it."""
        context, parent = span.context, span.parent or INVALID_SPAN_CONTEXT
        state = traces.hold(context.trace_id, state_at_start(context.trace_id, parent, parent_context))
        if state.priority is None:  # a sampler that is not ours has decided
            state.decide(int(context.trace_flags.sampled), DEFAULT)
        remote = get_value(REMOTE_KEY, parent_context)
        if isinstance(remote, Remote):
            for link in remote.links:
                span.add_link(link.context, link.attributes)
        if parent.is_remote:
            keys = self._settings.baggage_tag_keys
            for key, value in baggage.get_all(parent_context).items():
                if key in keys or "*" in keys:
                    span.set_attribute(f"baggage.{key}", str(value))
        return state

    def on_end(self, span: ReadableSpan) -> None:
        """Queue a span that has ended."""
        if not self._enabled or self._shut_down:
            return
        queue = self._queue
        queue.append((span, None))
        worker = self._worker or self._start_worker()
        if worker is not None and len(queue) > _WAKE_AT:
            worker.wake()

    def _start_worker(self) -> _Worker | None:
        with self._starting:
            if self._worker is None:
                try:
                    self._worker = _Worker(self.exporter, self._queue)
                except RuntimeError as error:  # no new threads, for instance at interpreter shutdown
                    report("starting the worker that sends spans", error)
            return self._worker

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send every finished span now.

        Args:
            timeout_millis: the longest to wait, in milliseconds.

        Returns:
            True if all were delivered in time.
        """
        return self._shut_down or self._drain(monotonic() + timeout_millis / 1000)

    def shutdown(self) -> None:
        """Send what is left, and stop; waits as long as the receiver takes spans, and at most `LONGEST_END` seconds."""
        if self._shut_down:
            return
        self._shut_down = True
        if not self._drain(monotonic() + LONGEST_END, last=True):
            logger.info("the process ends before all spans could be sent to %s", self.exporter.sender.url)
        self.exporter.shutdown()

    def _drain(self, deadline: float, *, last: bool = False) -> bool:
        if self._pid != os.getpid():
            self._begin_process()
        if not self._queue and self._worker is None:
            return True
        worker = self._worker or self._start_worker()
        return worker.drain(deadline, last=last) if worker is not None else False


class _Worker:
    """The thread of one process: queue -> chunks -> bytes -> receiver."""

    def __init__(self, exporter: DatadogSpanExporter, queue: deque[tuple[Any, TraceState | None]]) -> None:
        settings = exporter.settings
        self._exporter = exporter
        self._sender = exporter.sender
        self._queue = queue
        self._interval = settings.flush_interval
        self._room = settings.buffer_bytes
        self._assembler = Assembler(settings.partial_flush_min_spans if settings.partial_flush else 0)
        self._pending: deque[Encoded] = deque()
        self._pending_bytes = 0
        self._awake = Event()
        self._drained = Event()
        self._draining: float | None = None
        self._last = False
        self._not_before = 0.0
        self._collecting = False  # mapping and encoding, which no receiver delays
        self._collected_at = 0.0
        self._evict_at = monotonic() + _EVICT_EVERY
        Thread(target=self._run, name="spanbridge-datadog", daemon=True).start()

    def wake(self) -> None:
        self._awake.set()

    def drain(self, deadline: float, *, last: bool) -> bool:
        """Have everything sent, and wait for it until `deadline`; with `last` only as long as the receiver responds."""
        self._drained.clear()
        self._last = last
        self._draining = deadline
        self._awake.set()
        begun = monotonic()
        while not self._drained.wait(0.02):
            now = monotonic()
            progress = max(begun, self._sender.last_success, self._collected_at)
            if now > deadline or (last and not self._collecting and now > progress + PATIENCE):
                break
        self._draining = None
        return not self._pending and not self._queue

    def _run(self) -> None:
        while True:
            try:
                self._awake.wait(self._interval)
                self._awake.clear()
                self._collect()
                self._deliver()
                if self._draining is not None and not self._pending and not self._queue:
                    self._drained.set()
                    if self._last:
                        return
            except Exception as error:
                report("the worker that sends spans", error)

    def _collect(self) -> None:
        """Turn what is queued into encoded chunks."""
        self._collecting = True
        try:
            now = monotonic()
            queue, assembler = self._queue, self._assembler
            while queue:
                span, state = queue.popleft()
                if state is not None:
                    assembler.started(span, state, now)
                elif (chunk := assembler.ended(span, now)) is not None:
                    self._add(chunk)
            if self._draining is not None:
                self._add_all(assembler.finished())
            if now > self._evict_at:
                self._evict_at = now + _EVICT_EVERY
                self._add_all(assembler.evict(now))
        finally:
            self._collected_at = monotonic()
            self._collecting = False

    def _add_all(self, chunks: Iterable[Chunk]) -> None:
        for chunk in chunks:
            self._add(chunk)

    def _add(self, chunk: Chunk) -> None:
        if not chunk.partial:
            traces.release(chunk.members[0].span.context.trace_id)  # type: ignore[union-attr]
        encoded = self._exporter.encode(chunk)
        if encoded is None:
            return
        self._pending.append(encoded)
        self._pending_bytes += len(encoded.body)
        while self._pending_bytes > self._room:
            oldest = self._pending.popleft()
            self._pending_bytes -= len(oldest.body)
            self._sender.lose([oldest])

    def _deliver(self) -> None:
        """Send what is pending, until nothing is left or the receiver fails."""
        while self._pending:
            now = monotonic()
            draining = self._draining
            if now < self._not_before and draining is None:
                return
            batch = self._next_batch()
            if self._sender.send(batch, draining or now + self._exporter.settings.timeout) is Outcome.RETRY:
                self._not_before = monotonic() + self._sender.pause()
                if draining is None:
                    return
                self._awake.wait(min(0.1, self._sender.pause()))
                if self._draining is None or monotonic() > draining:
                    return
                continue
            for chunk in batch:
                if self._pending and self._pending[0] is chunk:
                    self._pending.popleft()
                    self._pending_bytes -= len(chunk.body)

    def _next_batch(self) -> list[Encoded]:
        batch: list[Encoded] = []
        size = 0
        for chunk in self._pending:
            if batch and size + len(chunk.body) > _PAYLOAD_BYTES:
                break
            batch.append(chunk)
            size += len(chunk.body)
        return batch
