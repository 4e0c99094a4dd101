"""asyncio: which context tasks, callbacks and executors have; spans on request."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace

from spanbridge.instrumentors.asyncio import AsyncioInstrumentor

if TYPE_CHECKING:
    from spanbridge.testing import Payload, Spans

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


def here() -> int:
    """The span that is current where this is called; 0 without one."""
    return trace.get_current_span().get_span_context().span_id


def there() -> tuple[int, bool]:
    current = trace.get_current_span().get_span_context()
    return current.span_id, current.is_remote


async def waited() -> int:
    await asyncio.sleep(0)
    return here()


def span(name: str) -> Any:
    return trace.get_tracer("application").start_as_current_span(name)


def names(spans: Spans) -> list[tuple[str, str | None, str]]:
    return [(row["name"], row["parent"], row["status"]) for row in spans]


# Context.


@pytest.fixture
def _on(spans: Spans) -> None:
    AsyncioInstrumentor().instrument()


@pytest.mark.usefixtures("_on")
def test_executors(spans: Spans) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1) as threads, ProcessPoolExecutor(1) as processes, span("request"):
            assert await loop.run_in_executor(None, here) == here()
            assert await loop.run_in_executor(threads, here) == here()
            assert await loop.run_in_executor(processes, there) == (here(), True)
            assert await asyncio.to_thread(here) == here()
        assert await loop.run_in_executor(None, here) == 0

    asyncio.run(main())


@pytest.mark.usefixtures("_on")
def test_executors_of_others_get_what_the_application_gave(spans: Spans) -> None:
    class Remote:
        def submit(self, function: Any, *args: Any) -> Any:
            self.function = function
            executor = ThreadPoolExecutor(1)
            return executor.submit(function, *args)

    remote = Remote()

    async def main() -> None:
        with span("request"):
            await asyncio.get_running_loop().run_in_executor(remote, here)  # type: ignore[arg-type]

    asyncio.run(main())
    assert remote.function is here


@pytest.mark.usefixtures("_on")
def test_tasks_callbacks_and_other_threads(spans: Spans) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        called = loop.create_future()
        with span("request"):
            expected = here()
            task = asyncio.create_task(waited())
            loop.call_soon(lambda: called.set_result(here()))
            gathered = asyncio.gather(waited(), waited())
            other = asyncio.to_thread(lambda: asyncio.run_coroutine_threadsafe(waited(), loop).result(60))
            assert await other == expected
        assert [await task, await called, *await gathered] == [expected] * 4

    asyncio.run(main())


def test_a_thousand_at_once() -> None:
    """None sees another's context, and nothing of them stays; `nox -s soak` has ten thousand."""
    command = [sys.executable, "-m", "tests.soak.contexts", "--kind", "asyncio", "--count", "1000"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.usefixtures("_on")
def test_no_spans_by_default(spans: Spans) -> None:
    async def main() -> None:
        future = asyncio.get_running_loop().create_future()
        future.set_result(None)
        await asyncio.gather(waited(), asyncio.create_task(waited()), asyncio.to_thread(here), future)

    asyncio.run(main())
    assert len(spans) == 0


# Spans on request.


def test_coroutines_by_name(spans: Spans, payload: Payload, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_PYTHON_ASYNCIO_COROUTINE_NAMES_TO_TRACE", "waited, other")
    AsyncioInstrumentor().instrument()

    async def main() -> None:
        with span("request"):
            task = asyncio.create_task(waited(), name="mine")
            assert task.get_name() == "mine"
            assert task.get_coro().__name__ == "waited"  # type: ignore[union-attr]
            inside = await task, await asyncio.wait_for(waited(), 60), *await asyncio.gather(waited())
            assert here() not in inside
            await asyncio.wait([asyncio.ensure_future(waited())])
            for done in asyncio.as_completed([waited()]):
                await done

    asyncio.run(main())
    assert names(spans) == [("asyncio coro-waited", "request", "UNSET")] * 5 + [("request", None, "UNSET")]
    assert {row["kind"] for row in spans} == {"INTERNAL"}


def test_coroutines_that_fail_or_are_cancelled(spans: Spans, payload: Payload) -> None:
    AsyncioInstrumentor().instrument(coroutine_names_to_trace=["fails", "waits"])
    error = ValueError("of the application")

    async def fails() -> None:
        raise error

    async def waits() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        with pytest.raises(ValueError) as raised:
            await asyncio.create_task(fails())
        assert raised.value is error
        task = asyncio.create_task(waits())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert names(spans) == [("asyncio coro-fails", None, "ERROR"), ("asyncio coro-waits", None, "UNSET")]


def test_awaitables_without_a_name(spans: Spans) -> None:
    AsyncioInstrumentor().instrument(coroutine_names_to_trace=["numbers"])

    async def numbers() -> Any:
        yield 7

    async def main() -> int:
        return await asyncio.create_task(anext(numbers()))

    assert asyncio.run(main()) == 7
    assert len(spans) == 0


def test_functions_in_threads_by_name(spans: Spans, payload: Payload, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_PYTHON_ASYNCIO_TO_THREAD_FUNCTION_NAMES_TO_TRACE", "here,int")
    AsyncioInstrumentor().instrument()

    async def main() -> None:
        with span("request"):
            assert await asyncio.to_thread(here) != here()
            assert await asyncio.to_thread(partial(int, base=16), "ff") == 255
            with pytest.raises(ValueError):
                await asyncio.to_thread(int, "x")

    asyncio.run(main())
    assert names(spans)[:3] == [
        ("asyncio to_thread-here", "request", "UNSET"),
        ("asyncio to_thread-int", "request", "UNSET"),
        ("asyncio to_thread-int", "request", "ERROR"),
    ]


def test_futures(spans: Spans, payload: Payload, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_PYTHON_ASYNCIO_FUTURE_TRACE_ENABLED", "true")
    AsyncioInstrumentor().instrument()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        done, broken, cancelled = loop.create_future(), loop.create_future(), loop.create_future()
        with span("request"):
            for future in (done, done, broken, cancelled):
                assert asyncio.ensure_future(future) is future
            task = asyncio.create_task(waited())
            assert asyncio.ensure_future(task) is task
            done.set_result(7)
            broken.set_exception(ValueError("of the application"))
            cancelled.cancel()
            await asyncio.wait([done, broken, cancelled, task])
            assert isinstance(broken.exception(), ValueError)

    asyncio.run(main())
    assert names(spans)[:3] == [
        ("asyncio future", "request", "UNSET"),
        ("asyncio future", "request", "ERROR"),
        ("asyncio future", "request", "UNSET"),
    ]
    assert len(spans) == 4
