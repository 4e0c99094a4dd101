"""From the end of a span to the payload: traces stay together, the application never waits, a fork sends its own."""

from __future__ import annotations

import gc
import json
import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, TraceIdRatioBased
from opentelemetry.trace import Status, StatusCode, set_span_in_context
from spanbridge.exporters.datadog import DatadogSampler, DatadogSpanExporter, DatadogSpanProcessor, Settings
from spanbridge.exporters.datadog import processor as module
from spanbridge.exporters.datadog.propagator import composite_propagator
from spanbridge.exporters.datadog.trace import traces

from tests.exporters.samples import HIGH, LOW, OK, PARENT_ID, Transport, assert_sendable, remote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from opentelemetry.sdk.trace.sampling import Sampler
    from opentelemetry.trace import Tracer

NEVER = 3600.0


class House:
    """A provider whose processor sends to a scripted transport."""

    def __init__(self, sampler: Sampler | None = None, **options: Any) -> None:
        self.transport = Transport()
        self.settings = Settings(**{"service": "shop", "flush_interval": NEVER} | options)
        exporter = DatadogSpanExporter(self.settings, transport=self.transport)  # type: ignore[arg-type]
        self.processor = DatadogSpanProcessor(exporter)
        self.provider = TracerProvider(sampler or DatadogSampler(), Resource({}), shutdown_on_exit=False)
        self.provider.add_span_processor(self.processor)
        self.tracer: Tracer = self.provider.get_tracer("app")

    def flush(self, milliseconds: int = 5_000) -> bool:
        return self.processor.force_flush(milliseconds)


@pytest.fixture
def house() -> Iterator[Callable[..., House]]:
    """Makes houses, and closes them at the end."""
    made: list[House] = []

    def make(sampler: Sampler | None = None, **options: Any) -> House:
        made.append(House(sampler, **options))
        return made[-1]

    traces.forget()
    yield make
    for each in made:
        each.transport.say(OK)
        each.processor.shutdown()
    traces.forget()


def until(done: Callable[[], object], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "spanbridge-datadog" and thread.is_alive()]


# --- what leaves together ---


def test_a_trace_leaves_as_one_chunk_when_it_ends(house: Callable[..., House]) -> None:
    h = house(flush_interval=0.02)
    with h.tracer.start_as_current_span("root"):
        with h.tracer.start_as_current_span("child"), h.tracer.start_as_current_span("grandchild"):
            pass
        time.sleep(0.1)
        assert h.transport.payloads == []
    until(lambda: h.transport.payloads)
    assert h.transport.resources == [["root", "child", "grandchild"]]
    (chunk,) = h.transport.chunks
    assert_sendable(chunk)
    assert len({span["trace_id"] for span in chunk}) == 1
    assert h.transport.counts == [1]


def test_every_trace_is_a_chunk(house: Callable[..., House]) -> None:
    h = house()
    for number in range(40):
        with h.tracer.start_as_current_span(f"root {number}"), h.tracer.start_as_current_span("child"):
            pass
    assert h.flush()
    assert h.transport.resources == [[f"root {number}", "child"] for number in range(40)]
    assert sum(h.transport.counts) == 40


def test_what_the_trace_says_stands_on_its_first_span(house: Callable[..., House]) -> None:
    h = house(version="1", env="prod")
    with h.tracer.start_as_current_span("root"), h.tracer.start_as_current_span("child"):
        pass
    h.flush()
    ((root, child),) = h.transport.chunks
    assert root["metrics"]["_sampling_priority_v1"] == 1
    assert root["meta"]["_dd.p.dm"] == "-0"
    assert root["meta"]["_dd.p.tid"]
    assert root["meta"]["runtime-id"]
    assert root["metrics"]["process_id"] == os.getpid()
    assert root["metrics"]["_dd.top_level"] == 1
    first_only = {
        "_sampling_priority_v1",
        "_dd.p.dm",
        "_dd.p.tid",
        "runtime-id",
        "process_id",
        "_dd.top_level",
        "language",
    }
    assert not first_only & {*child["meta"], *child["metrics"]}
    assert (child["meta"]["env"], child["meta"]["version"]) == ("prod", "1")


def test_a_service_entry_is_top_level(house: Callable[..., House]) -> None:
    h = house()
    redis = h.provider.get_tracer("spanbridge.instrumentors.redis")
    with h.tracer.start_as_current_span("root"), h.tracer.start_as_current_span("inner"):
        redis.start_span("GET").end()
    h.flush()
    ((*_, inner, call),) = h.transport.chunks
    assert "_dd.top_level" not in inner["metrics"]
    assert (call["service"], call["metrics"]["_dd.top_level"]) == ("redis", 1)


def test_a_distributed_trace_takes_over_what_came_in(house: Callable[..., House]) -> None:
    h = house()
    carrier = {
        "x-datadog-trace-id": str(LOW), "x-datadog-parent-id": str(PARENT_ID), "x-datadog-sampling-priority": "2",
        "x-datadog-origin": "rum", "x-datadog-tags": f"_dd.p.tid={HIGH:016x},_dd.p.dm=-4,_dd.p.usr.id=u",
        "tracestate": "dd=p:00000000000000aa", "traceparent": f"00-{HIGH:016x}{LOW:016x}-00000000000000bb-01",
        "baggage": "user.id=7,other=8",
    }  # fmt: skip
    context = composite_propagator(h.settings).extract(carrier, Context())
    root = h.tracer.start_span("root", context)
    h.tracer.start_span("child", set_span_in_context(root)).end()
    root.end()
    h.flush()
    (((first, child)),) = h.transport.chunks
    assert (first["trace_id"], first["parent_id"], child["parent_id"]) == (LOW, 0xBB, first["span_id"])
    assert first["metrics"]["_sampling_priority_v1"] == 2
    expected = {
        "_dd.p.dm": "-4", "_dd.origin": "rum", "_dd.p.tid": f"{HIGH:016x}", "_dd.p.usr.id": "u",
        "_dd.parent_id": "00000000000000aa", "baggage.user.id": "7",
    }  # fmt: skip
    assert {key: first["meta"].get(key) for key in expected} == expected
    assert "baggage.other" not in first["meta"]
    assert not {"_dd.parent_id", "baggage.user.id"} & set(child["meta"])


def test_a_synthetic_test_has_no_parent(house: Callable[..., House]) -> None:
    h = house()
    carrier = {"x-datadog-trace-id": "77", "x-datadog-parent-id": "0", "x-datadog-origin": "synthetics"}
    h.tracer.start_span("root", composite_propagator(h.settings).extract(carrier, Context())).end()
    h.flush()
    (((root,)),) = h.transport.chunks
    assert (root["trace_id"], root["parent_id"], root["meta"]["_dd.origin"]) == (77, 0, "synthetics")


@pytest.mark.parametrize(
    ("sampler", "priorities"),
    [(ALWAYS_ON, [1]), (DatadogSampler(), [1]), (ALWAYS_OFF, []), (TraceIdRatioBased(0), [])],
)
def test_other_samplers(house: Callable[..., House], sampler: Sampler, priorities: list[int]) -> None:
    h = house(sampler)
    h.tracer.start_span("root").end()
    assert h.flush()
    assert [chunk[0]["metrics"]["_sampling_priority_v1"] for chunk in h.transport.chunks] == priorities


def test_a_rejected_trace_is_sent_with_its_priority(house: Callable[..., House]) -> None:
    h = house()
    h.tracer.start_span("dropped", attributes={"manual.drop": True}).end()
    h.tracer.start_span("upstream", remote(flags=0)).end()
    late = h.tracer.start_span("late")
    late.set_attribute("manual.keep", True)
    late.end()
    h.flush()
    found = {chunk[0]["resource"]: chunk[0]["metrics"]["_sampling_priority_v1"] for chunk in h.transport.chunks}
    assert found == {"dropped": -1, "upstream": 0, "late": 2}


# --- early, late, never ---


def test_a_long_trace_leaves_in_parts(house: Callable[..., House]) -> None:
    h = house(partial_flush_min_spans=3, flush_interval=0.02)
    with h.tracer.start_as_current_span("root"):
        for number in range(4):
            h.tracer.start_span(f"child {number}").end()
        until(lambda: h.transport.payloads)
        assert h.transport.resources == [["child 0", "child 1", "child 2"]]
        ((first, *others),) = h.transport.chunks
        assert first["metrics"]["_dd.py.partial_flush"] == 3
        assert first["metrics"]["_sampling_priority_v1"] == 1
        assert first["meta"]["_dd.p.tid"]
        assert not [span for span in (first, *others) if "_dd.top_level" in span["metrics"]]
    h.flush()
    assert h.transport.resources[1] == ["root", "child 3"]
    assert "_dd.py.partial_flush" not in h.transport.chunks[1][0]["metrics"]


def test_partial_flush_can_be_switched_off(house: Callable[..., House]) -> None:
    h = house(partial_flush=False, partial_flush_min_spans=1, flush_interval=0.01)
    with h.tracer.start_as_current_span("root"):
        h.tracer.start_span("child").end()
        time.sleep(0.1)
        assert h.transport.payloads == []


def test_force_flush_sends_finished_spans_of_open_traces(house: Callable[..., House]) -> None:
    h = house()
    with h.tracer.start_as_current_span("root"):
        h.tracer.start_span("child").end()
        assert h.flush()
        assert h.transport.resources == [["child"]]
        assert h.flush()
    assert h.flush()
    assert h.transport.resources == [["child"], ["root"]]


def test_force_flush_says_when_it_failed(house: Callable[..., House]) -> None:
    h = house()
    assert h.flush()  # nothing to send
    h.transport.say(ConnectionRefusedError())
    h.tracer.start_span("root").end()
    begun = time.monotonic()
    assert not h.flush(200)
    assert time.monotonic() - begun < 2
    h.transport.say(OK)
    assert h.flush()
    assert h.transport.resources == [["root"]]


def test_a_receiver_that_comes_back_gets_what_was_kept(house: Callable[..., House]) -> None:
    h = house(flush_interval=0.02)
    h.transport.say(ConnectionRefusedError())
    for number in range(3):
        h.tracer.start_span(f"{number}").end()
        time.sleep(0.03)
    h.transport.say(OK)
    until(lambda: len(h.transport.chunks) == 3)
    assert h.transport.resources == [["0"], ["1"], ["2"]]
    assert h.processor.dropped == 0


def test_what_waits_for_a_receiver_has_a_size(house: Callable[..., House]) -> None:
    h = house(buffer_bytes=5_000)
    h.transport.say(ConnectionRefusedError())
    for number in range(30):
        h.tracer.start_span(f"{number}", attributes={"fill": "x" * 1_000}).end()
    assert not h.flush(100)
    h.transport.say(OK)
    h.flush()
    kept = [name for (name,) in h.transport.resources]
    assert 0 < len(kept) < 6
    assert kept == [str(number) for number in range(30 - len(kept), 30)]
    assert h.processor.dropped == 30 - len(kept)


def test_a_full_queue_drops_and_counts(monkeypatch: pytest.MonkeyPatch, house: Callable[..., House]) -> None:
    monkeypatch.setattr(module, "MOST_QUEUED", 10)
    h = house()
    spans = [h.tracer.start_span(f"{number}", Context()) for number in range(25)]
    assert h.processor.dropped == 15
    for span in spans:
        span.end()
    assert h.flush()
    assert h.transport.resources == [[f"{number}"] for number in range(10)]
    assert h.processor.dropped == 15


def test_a_span_that_cannot_be_mapped_costs_itself(
    house: Callable[..., House], caplog: pytest.LogCaptureFixture
) -> None:
    h = house()
    plain = h.processor.exporter.mapper.map

    def faulty(span: Any, **options: Any) -> dict[str, Any]:
        if span.name == "bad":
            raise RuntimeError("fault")
        return plain(span, **options)

    h.processor.exporter.mapper.map = faulty  # type: ignore[method-assign]
    for _ in range(3):
        with h.tracer.start_as_current_span("root"):
            h.tracer.start_span("bad").end()
    h.flush()
    assert h.transport.resources == [["root"]] * 3
    assert h.processor.dropped == 3
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


# --- the worker, the end ---


def test_no_thread_before_the_first_span_ends(house: Callable[..., House]) -> None:
    until(lambda: not workers())  # those of earlier tests
    h = house()
    h.flush()
    span = h.tracer.start_span("root")
    assert workers() == []
    span.end()
    assert len(workers()) == 1
    h.processor.shutdown()
    until(lambda: not workers())


def test_nothing_is_recorded_when_disabled(house: Callable[..., House]) -> None:
    until(lambda: not workers())
    h = house(trace_enabled=False)
    h.tracer.start_span("root").end()
    assert h.flush()
    assert (workers(), h.transport.payloads) == ([], [])


def test_shutdown_sends_what_is_left_and_may_come_twice(house: Callable[..., House]) -> None:
    h = house()
    open_one = h.tracer.start_span("open")
    h.tracer.start_span("done", Context()).end()
    h.processor.shutdown()
    h.processor.shutdown()
    assert h.transport.resources == [["done"]]
    open_one.end()
    h.tracer.start_span("too late").end()
    assert h.flush()
    assert h.transport.resources == [["done"]]


def test_shutdown_does_not_wait_for_a_receiver_that_is_not_there(
    house: Callable[..., House], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "spanbridge")
    h = house()
    h.transport.say(ConnectionRefusedError())
    for _ in range(3):
        h.tracer.start_span("root").end()
    begun = time.monotonic()
    h.processor.shutdown()
    assert time.monotonic() - begun < 1.5
    assert [record.levelno for record in caplog.records].count(logging.WARNING) == 1
    assert any("3 spans" in record.getMessage() for record in caplog.records)


def test_threads_may_end_spans_at_once(house: Callable[..., House]) -> None:
    until(lambda: not workers())
    h = house(flush_interval=0.005)
    start = threading.Barrier(8)

    def work(number: int) -> None:
        start.wait()
        for count in range(50):
            with h.tracer.start_as_current_span(f"{number} {count}"), h.tracer.start_as_current_span("child"):
                pass

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert h.flush()
    assert len(workers()) == 1
    assert sorted(h.transport.resources) == sorted([f"{n} {c}", "child"] for n in range(8) for c in range(50))
    assert h.processor.dropped == 0


def test_nothing_is_kept_of_traces_that_have_ended(house: Callable[..., House]) -> None:
    h = house()
    for _ in range(records := 3_000):
        h.tracer.start_span("root").end()
    h.flush()
    assert sum(map(len, h.transport.payloads)) == records
    assert len(traces) <= 2_000
    span = h.tracer.start_span("last")
    seen = weakref.ref(span)
    span.end()
    h.flush()
    del span
    gc.collect()
    assert seen() is None


def test_a_processor_that_nobody_holds_goes_away() -> None:
    processor = DatadogSpanProcessor(settings=Settings())
    seen = weakref.ref(processor)
    del processor
    gc.collect()
    assert seen() is None


def test_errors_arrive(house: Callable[..., House]) -> None:
    h = house()
    with pytest.raises(ValueError, match="broken"), h.tracer.start_as_current_span("root"):
        raise ValueError("broken")
    with h.tracer.start_as_current_span("set") as span:
        span.set_status(Status(StatusCode.ERROR, "said"))
    h.flush()
    assert [chunk[0]["meta"]["error.message"] for chunk in h.transport.chunks] == ["broken", "said"]


# --- forks ---

FORK = """
import json, os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads
from opentelemetry.context import Context
from opentelemetry.trace import set_span_in_context
from tests.exporters.test_processor import House

house = House()
tracer = house.tracer
tracer.start_span("sent before").end()
house.flush()
before = tracer.start_span("open in the parent", Context())
tracer.start_span("finished, not sent", Context()).end()
if {hidden}:  # as uWSGI forks: without Python's hooks
    import ctypes
    fork = ctypes.PyDLL(None).fork
else:
    fork = os.fork
reading, writing = os.pipe()
pid = fork()
who = "child" if pid == 0 else "parent"
tracer.start_span(f"own of the {{who}}", Context()).end()
tracer.start_span(f"below in the {{who}}", set_span_in_context(before)).end()
if pid == 0:
    before.end()
house.flush()
if pid != 0:
    before.end()
    house.processor.shutdown()
said = {{
    "resources": sorted(name for chunk in house.transport.resources for name in chunk),
    "processes": sorted({{span["metrics"]["process_id"] == os.getpid() for chunk in house.transport.chunks[-1:]
                          for span in chunk if "process_id" in span["metrics"]}}),
    "runtimes": sorted({{span["meta"]["runtime-id"] for chunk in house.transport.chunks for span in chunk
                         if "runtime-id" in span["meta"]}}),
    "dropped": house.processor.dropped,
}}
if pid == 0:
    os.write(writing, json.dumps(said).encode())
    os._exit(0)
os.close(writing)
with os.fdopen(reading) as pipe:
    print(json.dumps({{"parent": said, "child": json.loads(pipe.read())}}))
os.waitpid(pid, 0)
"""


@pytest.mark.parametrize("hidden", [False, True], ids=["os.fork", "fork without hooks"])
def test_a_forked_child_sends_its_own_spans_and_the_parent_its_own(hidden: bool) -> None:
    program = textwrap.dedent(FORK.format(hidden=hidden))
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert run.stderr == ""
    said = json.loads(run.stdout)
    assert said["parent"]["resources"] == [
        "below in the parent", "finished, not sent", "open in the parent", "own of the parent", "sent before",
    ]  # fmt: skip
    inherited = ["sent before"]  # what the copied transport had noted
    assert [name for name in said["child"]["resources"] if name not in inherited] == [
        "below in the child",
        "own of the child",
    ]
    assert said["child"]["processes"] == said["parent"]["processes"] == [True]
    assert said["parent"]["dropped"] == said["child"]["dropped"] == 0
    assert len(said["parent"]["runtimes"]) == 1
    assert len(said["child"]["runtimes"]) == 2  # the inherited one and its own
