"""Threads, timers, executors and pools: which context the work has."""

from __future__ import annotations

import multiprocessing
import os
import threading
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing.pool import ThreadPool
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import baggage, trace
from opentelemetry.context import attach, detach, get_current
from opentelemetry.instrumentation.utils import is_instrumentation_enabled, suppress_instrumentation

from spanbridge.instrumentors.futures import FuturesInstrumentor, ThreadingInstrumentor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spanbridge.testing import Spans

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")

METHODS = [method for method in ("fork", "spawn", "forkserver") if method in multiprocessing.get_all_start_methods()]


@pytest.fixture(autouse=True)
def _on(spans: Spans) -> None:
    FuturesInstrumentor().instrument()
    ThreadingInstrumentor().instrument()


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as made:
        yield made


def here(_: Any = None, __: Any = None) -> int:
    """The span that is current where this is called; 0 without one."""
    return trace.get_current_span().get_span_context().span_id


def span(name: str) -> Any:
    return trace.get_tracer("application").start_as_current_span(name)


# Threads.


def test_a_thread(spans: Spans) -> None:
    found = []
    with span("request"):
        thread = threading.Thread(target=lambda: found.append(here()))
        thread.start()
        thread.join()
        assert found == [here()]


def test_a_thread_with_its_own_run_made_outside(spans: Spans) -> None:
    class Worker(threading.Thread):
        def run(self) -> None:
            self.found = here()

    worker = Worker()
    with span("request"):
        worker.start()
        worker.join()
        assert worker.found == here()
    assert "run" not in vars(worker)


def test_a_thread_whose_run_somebody_has_replaced(spans: Spans) -> None:
    found = []

    def replacement() -> None:
        found.append(here())

    thread = threading.Thread(target=pytest.fail)
    thread.run = replacement  # type: ignore[method-assign]
    with span("request"):
        thread.start()
        thread.join()
        assert found == [here()]
    assert vars(thread)["run"] is replacement


def test_a_timer(spans: Spans) -> None:
    found = []
    with span("request"):
        timer = threading.Timer(0.001, lambda: found.append(here()))
        timer.start()
        timer.join()
        assert found == [here()]


def test_a_thread_that_cannot_be_started_again(spans: Spans) -> None:
    thread = threading.Thread(target=here)
    thread.start()
    thread.join()
    with span("request"), pytest.raises(RuntimeError):
        thread.start()
    assert "run" not in vars(thread)


def test_work_goes_on_after_the_span_has_ended(spans: Spans) -> None:
    go = threading.Event()

    def work() -> None:
        go.wait(60)
        with span("late"):
            pass

    with span("request"):
        thread = threading.Thread(target=work)
        thread.start()
    go.set()
    thread.join()
    assert [(row["name"], row["parent"]) for row in spans] == [("request", None), ("late", "request")]


# Thread pools.


def test_submit_and_map(spans: Spans, executor: ThreadPoolExecutor) -> None:
    with span("request"):
        assert executor.submit(here).result() == here()
        assert list(executor.map(here, [1, 2])) == [here(), here()]


@pytest.mark.parametrize("instrumentor", [FuturesInstrumentor, ThreadingInstrumentor])
def test_either_is_enough_for_thread_pools(instrumentor: Any, spans: Spans, executor: ThreadPoolExecutor) -> None:
    instrumentor().uninstrument()
    with span("request"):
        assert executor.submit(here).result() == here()


def test_workers_keep_no_context(spans: Spans, executor: ThreadPoolExecutor) -> None:
    """Not even that of whoever submitted first, and so started them."""
    with span("first"):
        assert executor.submit(here).result() == here()
    assert executor.submit(here).result() == 0
    with span("second"):
        assert executor.submit(here).result() == here()


def test_functions_look_like_themselves(spans: Spans, executor: ThreadPoolExecutor) -> None:
    class Looking(ThreadPoolExecutor):
        def submit(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
            return super().submit(fn, *args, **kwargs), fn.__name__

    with Looking(1) as looking:
        future, name = looking.submit(here)
    assert (future.result(), name) == (0, "here")


def test_done_callbacks(spans: Spans, executor: ThreadPoolExecutor) -> None:
    go, done = threading.Event(), threading.Event()
    found = []

    def callback(future: Future[Any]) -> None:
        found.append(here())
        done.set()

    with span("first"):
        future = executor.submit(go.wait, 60)
    with span("second"):
        future.add_done_callback(callback)
        go.set()
        assert done.wait(60)
        assert found == [here()]


def test_pools_of_threads(spans: Spans) -> None:
    with span("elsewhere"):
        pool = ThreadPool(1)
    with pool:
        assert pool.apply(here) == 0
        with span("request"):
            expected = here()
            assert pool.apply(here) == pool.apply_async(func=here).get() == expected
            assert pool.map(here, [1, 2]) == pool.map_async(here, [1, 2]).get() == [expected] * 2
            assert pool.starmap(here, [(1, 2)]) == pool.starmap_async(here, [(1, 2)]).get() == [expected]
            assert list(pool.imap(here, [1, 2])) == list(pool.imap_unordered(here, [1, 2])) == [expected] * 2


def test_suppression_goes_along(spans: Spans, executor: ThreadPoolExecutor) -> None:
    with suppress_instrumentation():
        assert executor.submit(is_instrumentation_enabled).result() is False
    assert executor.submit(is_instrumentation_enabled).result() is True


def test_only_opentelemetrys_context_goes_along(spans: Spans, executor: ThreadPoolExecutor) -> None:
    from contextvars import ContextVar

    own: ContextVar[str] = ContextVar("own", default="unset")
    own.set("here")
    assert executor.submit(own.get).result() == "unset"


def test_ten_thousand_pieces_of_work(spans: Spans) -> None:
    """None sees another's context."""
    with ThreadPoolExecutor(8) as pool:
        futures = []
        for number in range(10_000):
            token = attach(baggage.set_baggage("number", number))
            futures.append(pool.submit(baggage.get_baggage, "number"))
            detach(token)
        assert [future.result() for future in futures] == list(range(10_000))


# Processes.


def there(_: Any = None) -> tuple[int, int, bool, object, bool]:
    """What another process knows: the span, its trace, whether that is remote, baggage, whether it may trace."""
    current = trace.get_current_span().get_span_context()
    enabled = is_instrumentation_enabled()
    return current.span_id, current.trace_id, current.is_remote, baggage.get_baggage("user"), enabled


@pytest.mark.parametrize("method", METHODS)
def test_process_pools(method: str, spans: Spans) -> None:
    workers = multiprocessing.get_context(method)
    with span("elsewhere"):
        executor = ProcessPoolExecutor(1, workers)
        assert executor.submit(os.getpid).result() != os.getpid()
    with executor:
        assert executor.submit(there).result() == (0, 0, False, None, True)
        with span("request"):
            token = attach(baggage.set_baggage("user", "7"))
            current = trace.get_current_span().get_span_context()
            expected = (current.span_id, current.trace_id, True, "7", True)
            assert executor.submit(there).result() == expected
            assert list(executor.map(there, [1, 2], chunksize=2)) == [expected] * 2
            detach(token)
        with suppress_instrumentation():
            assert executor.submit(there).result()[-1] is False


@pytest.mark.parametrize("method", METHODS)
def test_multiprocessing_pools(method: str, spans: Spans) -> None:
    with span("elsewhere"):
        pool = multiprocessing.get_context(method).Pool(1)
    with pool:
        assert pool.apply(there) == (0, 0, False, None, True)
        with span("request"):
            current = trace.get_current_span().get_span_context()
            expected = (current.span_id, current.trace_id, True, None, True)
            assert pool.map(there, [1, 2]) == list(pool.imap(there, [1, 2])) == [expected] * 2
    pool.join()


def test_what_cannot_be_pickled_fails_as_before(spans: Spans) -> None:
    def failure() -> tuple[type, str]:
        with ProcessPoolExecutor(1) as executor, pytest.raises(Exception) as raised:
            executor.submit(lambda: None).result()
        return raised.type, str(raised.value).partition(" at ")[0]

    ours = failure()
    FuturesInstrumentor().uninstrument()
    assert ours == failure()


def test_without_a_provider_nothing_is_wrapped(monkeypatch: pytest.MonkeyPatch, executor: ThreadPoolExecutor) -> None:
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    FuturesInstrumentor().uninstrument()
    FuturesInstrumentor().instrument()
    assert executor.submit(get_current).result() == {}
