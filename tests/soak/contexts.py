"""10,000 greenlets and 10,000 tasks at once, in every way to start them: `python -m tests.soak.contexts`.

Each works for a request of its own, and looks after every switch whether the current span and the baggage are still
its own. Then every span must have the right parent. Several rounds under `tracemalloc`: prints how much memory was in
use after each, and exits with 1 if it grows once the first two are over.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import subprocess
import sys
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from opentelemetry import baggage, trace
from opentelemetry.context import attach, detach
from opentelemetry.sdk.trace import SpanProcessor

import spanbridge
from spanbridge.recorder import chosen_provider

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from opentelemetry.sdk.trace import ReadableSpan

    Start = Callable[[int, int], Any]

ROUNDS = 5
SWITCHES = 3
AT_ONCE = 200  # pieces of work in a pool
MOST_GROWTH = 64 << 10  # bytes from the second round to the last; two per piece of work in a full run
ABOVE = {"request": None, "work": "request", "inner": "work"}


provider = chosen_provider()()
tracer = provider.get_tracer("soak")


class Memory(SpanProcessor):
    """Keeps what has ended; without a lock, for gevent's are none between the threads of its hub."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.spans.append(span)


def here() -> int:
    """The id of the current span."""
    return trace.get_current_span().get_span_context().span_id


@contextmanager
def own(name: str, number: int, parent: int) -> Iterator[Callable[[], None]]:
    """Open a span below `parent`, which has to be current; answers what looks whether the new one still is."""
    assert here() == parent, f"{name} {number} is in a stranger's context"
    with tracer.start_as_current_span(name, attributes={"number": number}) as span:

        def check() -> None:
            assert trace.get_current_span() is span, f"{name} {number} has lost its span"
            assert baggage.get_baggage("number") == number, f"{name} {number} has lost its baggage"

        check()
        yield check
        check()


def requested(number: int, start: Start) -> Any:
    """Start a piece of work within a request, which ends before the work does; answers what to wait for."""
    token = attach(baggage.set_baggage("number", number))
    try:
        with tracer.start_as_current_span("request", attributes={"number": number}):
            return start(number, here())
    finally:
        detach(token)


def in_thread(number: int, parent: int) -> None:
    with own("work", number, parent) as check:
        for _ in range(SWITCHES):
            time.sleep(0)
            check()
        inner(number, here())


def inner(number: int, parent: int) -> None:
    with own("inner", number, parent) as check:
        time.sleep(0)
        check()


def with_gevent(count: int) -> Callable[[], None]:
    """Answer a round of greenlets."""
    import gevent
    import gevent.pool

    class Worker(gevent.Greenlet):
        def __init__(self, number: int, parent: int) -> None:
            super().__init__()
            self.given = number, parent

        def _run(self) -> None:
            work(*self.given)

    def work(number: int, parent: int) -> None:
        with own("work", number, parent) as check:
            for _ in range(SWITCHES):
                gevent.sleep(0)
                check()
            nested[number % len(nested)](number, here())

    def started(number: int, parent: int) -> Any:
        worker = Worker(number, parent)
        worker.start()
        return worker

    pool, group, threads = gevent.pool.Pool(AT_ONCE), gevent.pool.Group(), gevent.get_hub().threadpool
    nested: tuple[Callable[[int, int], Any], ...] = (
        inner,
        lambda number, parent: gevent.spawn(inner, number, parent).get(),
        lambda number, parent: threads.apply(inner, (number, parent)),
    )
    ways: tuple[Start, ...] = (
        lambda number, parent: gevent.spawn(work, number, parent),
        lambda number, parent: gevent.spawn_later(0, work, number, parent),
        lambda number, parent: pool.spawn(work, number, parent),
        lambda number, parent: pool.map_async(lambda number: work(number, parent), [number]),
        lambda number, parent: group.spawn(work, number, parent),
        lambda number, parent: threads.spawn(in_thread, number, parent),
        started,
    )

    def one_round() -> None:
        for waited in [requested(number, ways[number % len(ways)]) for number in range(count)]:
            waited.get()

    return one_round


def with_asyncio(count: int) -> Callable[[], None]:
    """Answer a round of tasks and of the threads that they send work to."""
    executor = ThreadPoolExecutor(4)

    async def work(number: int, parent: int) -> None:
        with own("work", number, parent) as check:
            for _ in range(SWITCHES):
                await asyncio.sleep(0)
                check()
            await nested[number % len(nested)](number, here())

    async def inside(number: int, parent: int) -> None:
        with own("inner", number, parent) as check:
            await asyncio.sleep(0)
            check()

    def to(executor: Any, function: Callable[..., None]) -> Start:
        return lambda *given: asyncio.get_running_loop().run_in_executor(executor, function, *given)

    nested: tuple[Start, ...] = (
        inside,
        lambda *given: asyncio.create_task(inside(*given)),
        lambda *given: asyncio.to_thread(inner, *given),
        to(None, inner),
        to(executor, inner),
    )
    ways: tuple[Start, ...] = (
        lambda *given: asyncio.create_task(work(*given)),
        lambda *given: asyncio.ensure_future(work(*given)),
        lambda *given: asyncio.gather(work(*given)),
        lambda *given: asyncio.create_task(asyncio.to_thread(in_thread, *given)),
        to(None, in_thread),
        to(executor, in_thread),
    )

    async def all_at_once() -> None:
        await asyncio.gather(*[requested(number, ways[number % len(ways)]) for number in range(count)])

    return lambda: asyncio.run(all_at_once())


def judge(spans: list[ReadableSpan], count: int) -> None:
    """Look whether every span is there, below the one that it belongs to."""
    assert len(spans) == len(ABOVE) * count, f"{len(spans)} spans of {count} requests"
    known = {span.context.span_id: (span.name, span.attributes["number"], span.context.trace_id) for span in spans}
    for span in spans:
        above = ABOVE[span.name]
        expected = None if above is None else (above, span.attributes["number"], span.context.trace_id)
        assert (None if span.parent is None else known[span.parent.span_id]) == expected, (span.name, span.attributes)


def soak(kind: str, count: int) -> dict[str, Any]:
    """Do the rounds, and answer the figures."""
    if kind == "gevent":
        from gevent import monkey

        monkey.patch_all()
    spanbridge.instrument()
    memory = Memory()
    provider.add_span_processor(memory)
    trace.set_tracer_provider(provider)
    one_round = (with_gevent if kind == "gevent" else with_asyncio)(count)
    began, samples = time.perf_counter(), []
    tracemalloc.start()
    for _ in range(ROUNDS):
        one_round()
        judge(memory.spans, count)
        memory.spans.clear()
        gc.collect()
        samples.append(tracemalloc.get_traced_memory()[0])
    return {
        "kind": kind,
        "at_once": count,
        "spans": ROUNDS * len(ABOVE) * count,
        "seconds": round(time.perf_counter() - began, 1),
        "memory": samples,
        "growth": samples[-1] - samples[1],
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak.contexts", description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="greenlets or tasks at once")
    parser.add_argument("--kind", choices=("gevent", "asyncio"), help="one of them, in this process")
    arguments = parser.parse_args()
    if arguments.kind is None:
        return max(_run_alone(arguments.count, kind) for kind in ("gevent", "asyncio"))
    figures = soak(arguments.kind, arguments.count)
    print(json.dumps(figures))
    return int(figures["growth"] > MOST_GROWTH)


def _run_alone(count: int, kind: str) -> int:
    command = [sys.executable, "-m", "tests.soak.contexts", "--count", str(count), "--kind", kind]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main())
