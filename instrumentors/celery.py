"""celery: a PRODUCER span per task sent, from whatever place; a CONSUMER span per run, also of retries and eager tasks.

The run continues the trace of whoever sent the task, by the message's headers. Pool processes send their spans before
they end; a run whose process is terminated (a task is revoked) is an error. Not traced: beat's ticks, remote control,
events, a task's function called directly.
"""

from __future__ import annotations

import signal
import sys
from contextlib import contextmanager, nullcontext
from functools import partial
from threading import get_ident, main_thread
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from opentelemetry import trace
from opentelemetry.propagators.textmap import Getter

from spanbridge.conventions import messaging
from spanbridge.conventions.messaging import Broker, Message
from spanbridge.core.attributes import has_attribute
from spanbridge.core.failure import record_failure
from spanbridge.core.guard import guarded
from spanbridge.core.instrumentor import Instrumentor
from spanbridge.core.options import Option, boolean
from spanbridge.core.patching import Library, Patch
from spanbridge.core.tracing import EventScope, ending, opener, traced
from spanbridge.version import __version__ as __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from opentelemetry.trace import Span

    from spanbridge.core.tracing import Scope, Setup, Wrapped

# The longest that a process of a pool waits at its end, in milliseconds.
_FLUSH_MILLIS = 1_000
_FIELDS = ("eta", "expires", "hostname", "reply_to", "retries", "timelimit")
_RUN = "celery: a run"
_guarded = partial(guarded, site="celery: a signal's receiver")


class CeleryGetter(Getter[Any]):
    """Reads propagation headers of a task's request, where Celery keeps them as attributes."""

    def get(self, carrier: Any, key: str) -> list[str] | None:
        """Answer the values of the header `key`, as texts; None without it."""
        value = getattr(carrier, key, None)
        if value is None:  # ddtrace, and protocol 1, have them a level deeper
            headers = getattr(carrier, "headers", None)
            value = headers.get(key) if isinstance(headers, dict) else None
        return messaging.texts(value)

    def keys(self, carrier: Any) -> list[str]:
        """Answer no keys: not every attribute is a header."""
        return []


_brokers: WeakKeyDictionary[Any, Broker] = WeakKeyDictionary()


def _broker(app: Any) -> Broker:
    """Where an application's messages go; looked up once, without connecting."""
    broker = _brokers.get(app)
    if broker is None:
        try:
            broker = messaging.broker_of(app.connection_for_write())
        except Exception:  # a transport that is not installed: Celery will say so itself
            broker = Broker("")
        _brokers[app] = broker
    return broker


def _details(setup: Setup) -> Callable[[Callable[[str], Any]], dict[str, Any]]:
    """Compile what reads the attributes that a message's headers and a run's request have in common."""
    contrib = setup.semconv.contrib
    names = messaging.keys(setup.semconv)
    rows = (
        ("id", names.message),
        ("correlation_id", names.conversation),
        *((name, f"celery.{name}") for name in _FIELDS),
    )

    def details(get: Callable[[str], Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for field, key in rows:
            value = get(field)
            if isinstance(value, (list, tuple)):
                value = tuple("" if item is None else item for item in value) if any(value) else None
            if value:
                found[key] = value if isinstance(value, (int, tuple)) else str(value)
        if info := get("delivery_info"):
            if contrib:
                found["celery.delivery_info"] = str(info)
            else:
                found.update((f"celery.delivery_info.{k}", v) for k, v in info.items() if v is not None and v != "")
        return found

    return details


def _sending(wrapped: Wrapped, setup: Setup) -> Wrapped:
    """Whoever sends a task comes by here: `delay`, `apply_async`, signatures, canvases, retries, beat."""
    kind = {"messaging.destination_kind": "queue"} if setup.semconv.contrib else {}
    message_key = messaging.keys(setup.semconv).message

    def describe(app: Any, name: str, *args: Any, **options: Any) -> Message:
        extra = {"celery.action": "apply_async", "celery.task_name": name, **kind}
        headers = messaging.own_headers(options.get("headers"))
        return Message(f"apply_async/{name}", headers, broker=_broker(app), extra=extra)

    def prepare(scope: Scope[Message]) -> None:
        if scope.record.headers:
            scope.kwargs = {**scope.kwargs, "headers": scope.record.headers}

    def succeeded(span: Span, message: Message, result: Any) -> None:
        if not has_attribute(span, message_key):  # `before_task_publish` has told it, unless nothing was published
            span.set_attribute(message_key, str(result.id))

    return traced(wrapped, setup, messaging.send(setup, "apply_async", describe, prepare=prepare, succeeded=succeeded))


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Let SIGTERM wait, of which a pool's process makes an exception, wherever it is."""
    handler = signal.getsignal(signal.SIGTERM)
    if not callable(handler):
        yield
        return
    late: list[tuple[Any, ...]] = []
    waits = [True]

    def wait(*arrived: Any) -> None:
        if waits:
            late.append(arrived)
        else:
            handler(*arrived)

    signal.signal(signal.SIGTERM, wait)
    try:
        try:
            yield
        finally:
            waits.clear()
    finally:
        signal.signal(signal.SIGTERM, handler)
    if late:
        handler(*late[0])


class _Receivers:
    """What listens to Celery's signals for one `instrument()` call."""

    def __init__(self, setup: Setup) -> None:
        linked = bool(setup.options["use_span_links"])
        running = messaging.process(setup, "run", self._describe, getter=CeleryGetter(), linked=linked)
        self._begin = opener(setup, running, _RUN, scope_class=EventScope)
        self._details = _details(setup)
        self._destination = messaging.keys(setup.semconv).destination
        self._error_type = not setup.semconv.contrib
        self._provider = setup.options["tracer_provider"]
        self._runs: WeakKeyDictionary[Any, Scope[Message]] = WeakKeyDictionary()
        self._disturbed: int | None = None  # a thread's ident

    def _describe(self, task: Any, request: Any) -> Message:
        local = bool(request.is_eager)
        extra = {"celery.action": "run", "celery.task_name": task.name, **self._details(request.get)}
        return Message(
            f"run/{task.name}",
            request,
            broker=Broker("") if local else _broker(task.app),
            destination=(request.delivery_info or {}).get("routing_key") or "",
            extra=extra,
            local=local,
        )

    @_guarded
    def before_task_publish(self, headers: Any = None, properties: Any = None, **sent: Any) -> None:
        """Tell the span of `send_task` what routing has made of the message."""
        if (span := messaging.span_of_sending()) is None:
            return
        known = {**(headers or {}), **(properties or {})}
        known.setdefault("hostname", known.get("origin"))
        span.set_attributes(self._details(known.get))
        if destination := sent.get("routing_key") or sent.get("exchange"):
            span.set_attribute(self._destination, str(destination))

    @_guarded
    def task_prerun(self, task: Any = None, **_: Any) -> None:
        request = task.request
        scope = self._begin((task, request), {})
        if scope is not None:
            self._runs[request] = scope

    @_guarded
    def task_retry(self, request: Any = None, reason: Any = None, **_: Any) -> None:
        if (scope := self._runs.get(request)) is not None:
            scope.span.set_attribute("celery.retry.reason", str(reason))

    @_guarded
    def task_failure(self, sender: Any = None, exception: Any = None, **_: Any) -> None:
        scope = self._runs.get(sender.request)
        error = getattr(exception, "exc", exception)  # as billiard wraps it
        if scope is not None and not isinstance(error, tuple(sender.throws or ())):
            record_failure(scope.span, error, error_type=self._error_type)

    @_guarded
    def worker_process_init(self, **_: Any) -> None:
        """Know the thread that SIGTERM makes raise, wherever it is."""
        self._disturbed = main_thread().ident

    @partial(ending, site=_RUN)
    def task_postrun(self, task: Any = None, state: Any = None, **_: Any) -> None:
        with _undisturbed() if get_ident() == self._disturbed else nullcontext():
            self._end(task, state)

    def _end(self, task: Any, state: Any) -> None:
        scope = self._runs.pop(task.request, None)
        if scope is None:
            return
        raising = sys.exc_info()[1]
        if state:
            scope.span.set_attribute("celery.state", str(state))
        elif isinstance(raising, Exception):  # an eager task that propagates
            scope.fail(raising)
        elif raising is not None:
            self._cut(scope)
        scope.end()

    @_guarded
    def worker_process_shutdown(self, **_: Any) -> None:
        """Send what there is: the process is about to end without running Python's exit handlers."""
        for scope in list(self._runs.values()):
            self._cut(scope)
        flush = getattr(self._provider or trace.get_tracer_provider(), "force_flush", None)
        if flush is not None:
            flush(_FLUSH_MILLIS)

    @_guarded
    def _cut(self, scope: Scope[Message]) -> None:
        """End the span of a run that its process will not end, with the error that Celery's own result names."""
        record_failure(scope.span, sys.modules["billiard.exceptions"].Terminated(), error_type=self._error_type)
        scope.end()


_SIGNALS = (
    *("before_task_publish", "task_prerun", "task_retry", "task_failure", "task_postrun"),
    *("worker_process_init", "worker_process_shutdown"),
)


def _connecting(signal_: Any, setup: Setup) -> Any:
    """Connect all receivers once Celery's signals are there; the signals themselves stay what they are."""
    module = sys.modules.get("celery.signals")
    if module is not None and hasattr(signal_, "connect"):
        receivers = CeleryInstrumentor().receivers = _Receivers(setup)
        for name in _SIGNALS:
            getattr(module, name).connect(getattr(receivers, name), weak=False)
    return signal_


class CeleryInstrumentor(Instrumentor):
    """Traces Celery from 4.0.2: senders and workers of every pool, beat, eager tasks.

    With `use_span_links` a run begins a trace of its own, with a link to the sender's.
    """

    library = Library("celery", ("celery >= 4.0.2",), tested="5.7.0")
    options = (Option("use_span_links", False, "Runs begin traces of their own, linked to the senders'.", boolean),)
    patches = (
        Patch("celery.app.base", "Celery.send_task", _sending),
        Patch("celery.signals", "task_prerun", _connecting),
    )
    receivers: _Receivers | None = None

    def _uninstrument(self, **kwargs: Any) -> None:
        super()._uninstrument(**kwargs)
        receivers, self.receivers = self.receivers, None
        if receivers is not None:
            for name in _SIGNALS:
                getattr(sys.modules["celery.signals"], name).disconnect(getattr(receivers, name))
