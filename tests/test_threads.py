"""Threads that interrupt each other everywhere, or, on a free-threaded Python, run at once: nothing is lost or torn."""

from __future__ import annotations

import sqlite3
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import Barrier
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import set_span_in_context

from spanbridge.exporters.datadog import (
    DatadogSampler,
    DatadogSpanExporter,
    DatadogSpanProcessor,
    Settings,
    composite_propagator,
)
from spanbridge.exporters.datadog import worker as worker_module
from spanbridge.exporters.datadog.sampler import agent_rates
from spanbridge.exporters.datadog.trace import traces
from spanbridge.exporters.datadog.transport import Reply
from spanbridge.instrumentors.sqlite3 import SQLite3Instrumentor
from spanbridge.testing import Spans, TracerProvider

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from spanbridge.exporters.datadog.transport import Request

THREADS = 8
INFO = b'{"endpoints": ["/v0.4/traces", "/v0.6/stats"], "client_drop_p0s": true}'


@pytest.fixture(autouse=True)
def _interrupted_everywhere() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.fixture(autouse=True)
def _no_traces() -> Iterator[None]:
    traces.forget()
    agent_rates.clear()
    yield
    traces.forget()
    agent_rates.clear()


def together(work: Callable[[int], Any], threads: int = THREADS) -> list[Any]:
    """Call `work` with 0, 1, 2 ... in as many threads, all at the same moment; answer what they return."""
    start = Barrier(threads)

    def run(number: int) -> Any:
        start.wait(60)
        return work(number)

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(run, range(threads)))


class Receiver:
    """A transport that takes everything, and an Agent that wants counts."""

    url = "http://agent:8126"

    def __init__(self) -> None:
        self.bodies: dict[str, list[bytes]] = {"/v0.4/traces": [], "/v0.6/stats": []}

    def send(self, request: Request, timeout: float) -> Reply:
        if request.path == "/info":
            return Reply(200, INFO)
        self.bodies[request.path].append(request.body)
        return Reply(200, b'{"rate_by_service": {"service:,env:": 1.0}}')

    def close(self) -> None:
        pass

    def decoded(self, path: str) -> list[Any]:
        return [msgspec.msgpack.decode(body) for body in self.bodies[path]]


def test_every_span_arrives_once_and_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "STATS_SECONDS", 0.0)
    rounds, receiver = 50, Receiver()
    settings = Settings(service="shop", flush_interval=0.001, stats=True)
    processor = DatadogSpanProcessor(DatadogSpanExporter(settings, transport=receiver))  # type: ignore[arg-type]
    provider = TracerProvider(
        sampler=DatadogSampler(settings), resource=Resource({"service.name": "shop"}), shutdown_on_exit=False
    )
    provider.add_span_processor(processor)
    tracer = provider.get_tracer("app")

    def work(number: int) -> None:
        for _ in range(rounds):
            with tracer.start_as_current_span(f"root of {number}"):
                with tracer.start_as_current_span("child", attributes={"thread": number}):
                    pass
                with tracer.start_as_current_span("child", attributes={"thread": number}):
                    pass

    together(work)
    assert processor.force_flush(30_000)
    provider.shutdown()
    chunks = [chunk for payload in receiver.decoded("/v0.4/traces") for chunk in payload]
    spans = [span for chunk in chunks for span in chunk]
    assert len(spans) == THREADS * rounds * 3
    assert set(Counter(span["span_id"] for span in spans).values()) == {1}
    assert processor.dropped == 0
    for root, *children in chunks:
        assert [child["parent_id"] for child in children] == [root["span_id"]] * 2
        assert {f"root of {child['metrics']['thread']}" for child in children} == {root["resource"]}
    groups = [
        group for body in receiver.decoded("/v0.6/stats") for bucket in body["Stats"] for group in bucket["Stats"]
    ]
    # Chunks that leave before the Agent has said that it wants counts are counted there.
    assert 0 < sum(group["Hits"] for group in groups) <= THREADS * rounds
    assert all(group["Hits"] == group["TopLevelHits"] for group in groups)


def test_threads_write_to_one_span_while_others_read_it(spans: Spans) -> None:
    rounds = 12  # 128 attributes are the limit
    span: Any = spans.provider.get_tracer("app").start_span("shared", attributes={"first": 0})

    def work(number: int) -> None:
        for index in range(rounds):
            if number % 2:
                span.set_attribute(f"{number}.{index}", index)
                span.set_attributes({f"{number}.{index}.more": str(index)})
                span.add_event("event", {"number": number})
            else:
                dict(span.attributes)
                span.update_name(f"by {number}")

    together(work)
    span.end()
    (done,) = spans.finished
    writers = [number for number in range(THREADS) if number % 2]
    expected = {f"{number}.{index}{more}" for number in writers for index in range(rounds) for more in ("", ".more")}
    assert set(done.attributes or ()) == {"first"} | expected
    assert Counter(event.attributes["number"] for event in done.events if event.attributes) == dict.fromkeys(
        writers, rounds
    )


def test_a_span_ends_once(spans: Spans) -> None:
    tracer = spans.provider.get_tracer("app")
    for _ in range(30):
        span = tracer.start_span("shared")
        together(lambda number, span=span: span.end())
    assert len(spans) == 30


def test_one_decision_for_a_trace_whatever_thread_asks_first() -> None:
    settings = Settings(service="shop", sampling_rules='[{"resource": "GET *", "sample_rate": 0.5}]', rate_limit=10)
    provider = TracerProvider(sampler=DatadogSampler(settings), shutdown_on_exit=False)
    provider.add_span_processor(DatadogSpanProcessor(settings=Settings(agent_url="http://127.0.0.1:1")))
    propagator = composite_propagator(settings)
    for _ in range(20):
        with provider.get_tracer("app").start_as_current_span("GET /") as span:
            context = set_span_in_context(span)

            def ask(number: int, context: Any = context) -> str:
                headers: dict[str, str] = {}
                if number % 4 == 0:
                    agent_rates.update({"service:,env:": 1.0, f"service:{number},env:": 0.5})
                propagator.inject(headers, context)
                return headers["x-datadog-sampling-priority"] + headers["traceparent"][-2:]

            assert len(set(together(ask))) == 1


def test_instrument_and_uninstrument_under_load(spans: Spans) -> None:
    original = sqlite3.connect
    instrumentor = SQLite3Instrumentor()

    def work(number: int) -> bool:
        if number < 3:
            for _ in range(30):
                instrumentor.instrument(tracer_provider=spans.provider)
                instrumentor.uninstrument()
            return True
        for index in range(200):
            connection = sqlite3.connect(":memory:")
            assert connection.execute("SELECT ?", (index,)).fetchone() == (index,)
            with pytest.raises(sqlite3.OperationalError):
                connection.execute("SELECT nothing")
            connection.close()
        return True

    assert all(together(work))
    instrumentor.uninstrument()
    assert sqlite3.connect is original
    assert spans.unfinished == []
    spans.clear()
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("SELECT 1")
    assert len(spans) == 0, "nothing is left behind"
