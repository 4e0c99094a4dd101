"""The span processor: a trace's spans leave together, sent by a worker that the application never waits for.

Starting and ending a span only appends to a queue. The worker starts with the first span that ends, belongs to one
process, and puts chunks together, maps, encodes and sends them.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from importlib import import_module
from time import monotonic
from typing import TYPE_CHECKING, Any
from weakref import WeakMethod

from opentelemetry import baggage, trace
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.trace import INVALID_SPAN_CONTEXT

from spanbridge.core.context import get_current
from spanbridge.core.guard import report
from spanbridge.exporters.datadog.exporter import DatadogSpanExporter
from spanbridge.exporters.datadog.trace import DEFAULT, REMOTE_KEY, Remote, TraceState, state_at_start, traces
from spanbridge.exporters.datadog.worker import Worker

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, Span
    from opentelemetry.trace import SpanContext

    from spanbridge.exporters.datadog.settings import Settings

# For applications that make their own TracerProvider; the launcher's configurator says why. Once there is one, it is
# too late: then the import itself would bring about what it is to prevent.
if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
    import_module("concurrent.futures.thread")

# Starts and ends between the application and the worker; above the first no span is begun, above the second none ended.
MOST_QUEUED, MOST_QUEUED_ENDS = 50_000, 100_000
# The worker is woken early at this many.
_WAKE_AT = 2_000
# The longest that the end of the process waits, in seconds, for a receiver that goes on taking spans.
LONGEST_END = 5.0


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
        self._begin_process(forked=False)
        if hasattr(os, "register_at_fork"):
            after_fork = WeakMethod(self._begin_process)  # a hook cannot be taken back, so it may not keep us alive
            os.register_at_fork(after_in_child=lambda: (method := after_fork()) and method())

    def _begin_process(self, *, forked: bool = True) -> None:
        """Own this process: what a forked child inherits is its parent's to send."""
        self._pid = os.getpid()
        self._forked = forked
        self._queue: deque[tuple[Any, TraceState | None]] = deque()
        self._worker: Worker | None = None
        self._may_start = [True]
        if forked:
            self.exporter.begin_process()

    @property
    def dropped(self) -> int:
        """How many spans were lost in this process."""
        return self.exporter.lost

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Queue a span that has started; a local root takes over what was extracted for it."""
        try:
            if not self._enabled or self._shut_down:
                return
            if self._pid != os.getpid():  # forked without Python's hooks, as uWSGI does
                self._begin_process()
            queue = self._queue
            if len(queue) >= MOST_QUEUED:
                self.exporter.sender.lose(1)
                return
            parent = span.parent
            state = None
            if parent is not None and not parent[2]:  # a tuple, whose properties are slower: not remote
                state = traces.get_open(parent[0])
            if state is None:
                state = self._begin_root(span, parent_context)
            state.watch(span)
            queue.append((span, state))
        except Exception as error:
            report("DatadogSpanProcessor.on_start", error)

    def _begin_root(self, span: Span, parent_context: Context | None) -> TraceState:
        """Open the record of a trace at its first span here, and take over what came with it."""
        own, parent = span.context, span.parent
        trace_id = own.trace_id
        context = get_current() if parent_context is None else parent_context
        state = traces.hold_begun(trace_id) if parent is None else None
        if state is None:
            state = traces.hold(trace_id, state_at_start(trace_id, parent or INVALID_SPAN_CONTEXT, context))
        if state.priority is None:
            if state.sampler is None:  # one that is not ours has decided
                state.decide(int(own.trace_flags.sampled), DEFAULT)
            elif state.root is None:
                state.root = span
        if context and (parent is None or parent.is_remote):
            self._take_over(span, context, parent)
        return state

    def _take_over(self, span: Span, context: Context, parent: SpanContext | None) -> None:
        """Give a local root the links and the baggage that were extracted for it."""
        remote = context.get(REMOTE_KEY)
        if isinstance(remote, Remote) and remote.trace_id == (parent.trace_id if parent is not None else 0):
            for link in remote.links:
                span.add_link(link.context, link.attributes)
        if keys := self._settings.baggage_tag_keys:
            for key, value in baggage.get_all(context).items():
                if key in keys or "*" in keys:
                    span.set_attribute(f"baggage.{key}", str(value))

    def on_end(self, span: ReadableSpan) -> None:
        """Queue a span that has ended."""
        try:
            if not self._enabled or self._shut_down:
                return
            queue = self._queue
            if len(queue) >= MOST_QUEUED_ENDS:
                self.exporter.sender.lose(1)
                return
            queue.append((span, None))
            worker = self._worker or self._start_worker()
            if worker is not None and len(queue) > _WAKE_AT:
                worker.wake()
        except Exception as error:
            report("DatadogSpanProcessor.on_end", error)

    def _start_worker(self) -> Worker | None:
        """Start the worker of this process; None while another thread is just doing so.

        No thread waits for another here: under gevent, starting a thread lets other greenlets run, which would wait
        for a lock made before the patching for ever.
        """
        try:
            self._may_start.pop()
        except IndexError:
            return self._worker
        try:
            self._worker = Worker(self.exporter, self._queue, forked=self._forked)
            _at_end_of_multiprocessing(self)
        except Exception as error:  # no new threads, for instance at interpreter shutdown
            self._may_start.append(True)
            report("starting the worker that sends spans", error)
        return self._worker

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send every finished span now.

        Args:
            timeout_millis: the longest to wait, in milliseconds.

        Returns:
            True if all were delivered in time.
        """
        try:
            if self._shut_down:
                return True
            deadline = monotonic() + timeout_millis / 1000
            worker = self._running_worker(deadline)
            return worker.drain(deadline) if worker is not None else not self._queue
        except Exception as error:
            report("DatadogSpanProcessor.force_flush", error)
            return False

    def shutdown(self) -> None:
        """Send what is left, and stop; waits as long as the receiver takes spans, and at most `LONGEST_END` seconds."""
        try:
            # Not only once: a signal may come in the midst of it, whose handler is to wait for the rest as well.
            self._shut_down = True
            deadline = monotonic() + LONGEST_END
            if (worker := self._running_worker(deadline)) is not None:
                worker.stop(deadline)
            self.exporter.shutdown()
        except Exception as error:
            report("DatadogSpanProcessor.shutdown", error)

    def _running_worker(self, deadline: float) -> Worker | None:
        if self._pid != os.getpid():
            self._begin_process()
        while self._worker is None and self._queue and monotonic() < deadline:
            if self._start_worker() is None:
                if self._may_start:  # it could not be started
                    break
                time.sleep(0.001)
        return self._worker


def _at_end_of_multiprocessing(processor: DatadogSpanProcessor) -> None:
    """Flush at the end of multiprocessing's children, which run its finalizers but not Python's exit handlers."""
    process = sys.modules.get("multiprocessing.process")
    util = sys.modules.get("multiprocessing.util")
    if process is None or util is None or process.parent_process() is None:
        return
    flush = WeakMethod(processor.shutdown)
    util.Finalize(None, lambda: (method := flush()) and method(), exitpriority=-100)
