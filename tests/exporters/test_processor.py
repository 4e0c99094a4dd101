"""From the first span to the last byte: what the processor sends, when, and what it never does to the application."""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401  # before any provider is made, as the launcher does
import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import baggage, trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, TraceIdRatioBased
from opentelemetry.trace import Link

from spanbridge.exporters.datadog import (
    DatadogSampler,
    DatadogSpanExporter,
    DatadogSpanProcessor,
    Settings,
    composite_propagator,
)
from spanbridge.exporters.datadog import processor as module
from spanbridge.exporters.datadog import sender as sender_module
from spanbridge.exporters.datadog import worker as worker_module
from spanbridge.exporters.datadog.trace import traces
from spanbridge.exporters.datadog.transport import Reply
from spanbridge.testing import TracerProvider
from tests.exporters.samples import OK, Transport, remote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from opentelemetry.trace import Tracer

REFUSED = ConnectionRefusedError()


class Setup:
    """A provider with our processor, and the transport by script behind it."""

    def __init__(self, transport: Transport, sampler: Any, **settings: Any) -> None:
        self.transport = transport
        exporter = DatadogSpanExporter(Settings(service="shop", **settings), transport=transport)  # type: ignore[arg-type]
        self.processor = DatadogSpanProcessor(exporter)
        self.provider = TracerProvider(
            sampler=sampler, resource=Resource({"service.name": "shop"}), shutdown_on_exit=False
        )
        self.provider.add_span_processor(self.processor)

    @property
    def tracer(self) -> Tracer:
        return self.provider.get_tracer("app")

    def flush(self, milliseconds: int = 5000) -> bool:
        return self.processor.force_flush(milliseconds)

    @property
    def spans(self) -> dict[str, dict[str, Any]]:
        return {span["resource"]: span for chunk in self.transport.chunks for span in chunk}


@pytest.fixture
def setup() -> Iterator[Callable[..., Setup]]:
    traces.forget()
    made: list[Setup] = []

    def make(*script: Any, sampler: Any = None, **settings: Any) -> Setup:
        settings = {"flush_interval": 60.0} | settings  # so that tests say when
        made.append(Setup(Transport(*script), sampler or DatadogSampler(), **settings))
        return made[-1]

    yield make
    for each in made:
        each.transport.say(OK)
        each.provider.shutdown()
    traces.forget()


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "spanbridge-datadog"]


# --- what is sent


def test_a_trace_is_one_chunk_in_start_order_with_the_traces_tags_on_its_root(setup: Any) -> None:
    here = setup()
    with here.tracer.start_as_current_span("root"):
        with here.tracer.start_as_current_span("a"), here.tracer.start_as_current_span("b"):
            pass
        with here.tracer.start_as_current_span("c"):
            pass
    assert here.flush()
    assert here.transport.resources == [["root", "a", "b", "c"]]
    ((root, *others),) = here.transport.chunks
    assert (root["metrics"]["_sampling_priority_v1"], root["meta"]["_dd.p.dm"]) == (1, "-0")
    assert len(root["meta"]["_dd.p.tid"]) == 16
    assert [span["metrics"].get("_dd.top_level") for span in (root, *others)] == [1, None, None, None]
    assert not any("_sampling_priority_v1" in span["metrics"] for span in others)
    assert here.transport.counts == [1]
    assert here.processor.exporter.sent == 4


def test_traces_share_a_payload(setup: Any) -> None:
    here = setup()
    for _ in range(3):
        with here.tracer.start_as_current_span("root"):
            pass
    assert here.flush()
    assert here.transport.counts == [3]


def test_a_service_of_its_own_is_top_level(setup: Any) -> None:
    here = setup()
    with (
        here.tracer.start_as_current_span("root"),
        here.tracer.start_as_current_span("other", attributes={"service.name": "billing"}),
        here.tracer.start_as_current_span("same", attributes={"service.name": "billing"}),
    ):
        pass
    assert here.flush()
    tops = {name: "_dd.top_level" in span["metrics"] for name, span in here.spans.items()}
    assert tops == {"root": True, "other": True, "same": False}
    assert here.spans["other"]["meta"]["_dd.base_service"] == "shop"


def test_partial_flush(setup: Any) -> None:
    here = setup(partial_flush_min_spans=2)
    with here.tracer.start_as_current_span("root"):
        for name in "abc":
            with here.tracer.start_as_current_span(name):
                pass
        here.processor._worker.wake()
        _until(lambda: here.transport.resources == [["a", "b"]])
        assert here.transport.chunks[0][0]["metrics"]["_dd.py.partial_flush"] == 2
    assert here.flush()
    assert here.transport.resources == [["a", "b"], ["root", "c"]]
    for chunk in here.transport.chunks:
        assert (chunk[0]["metrics"]["_sampling_priority_v1"], chunk[0]["meta"]["_dd.p.dm"]) == (1, "-0")
    assert [span["resource"] for span in here.spans.values() if "_dd.top_level" in span["metrics"]] == ["root"]


def test_partial_flush_can_be_switched_off(setup: Any) -> None:
    here = setup(partial_flush=False)
    with here.tracer.start_as_current_span("root"):
        for _ in range(400):
            here.tracer.start_span("child").end()
    assert here.flush()
    assert [len(chunk) for chunk in here.transport.chunks] == [401]


def test_a_flush_sends_the_finished_spans_of_traces_that_go_on(setup: Any) -> None:
    here = setup()
    with here.tracer.start_as_current_span("root"):
        here.tracer.start_span("done").end()
        assert here.flush()
        assert here.transport.resources == [["done"]]
    assert here.flush()
    assert here.transport.resources == [["done"], ["root"]]


def test_rejected_traces_are_sent_too(setup: Any) -> None:
    here = setup()
    context = composite_propagator(Settings()).extract(
        {"x-datadog-trace-id": "5", "x-datadog-parent-id": "6", "x-datadog-sampling-priority": "-1"}
    )
    with here.tracer.start_as_current_span("root", context):
        pass
    assert here.flush()
    root = here.spans["root"]
    assert (root["trace_id"], root["parent_id"], root["metrics"]["_sampling_priority_v1"]) == (5, 6, -1)


def test_what_came_with_the_request_is_on_the_local_root(setup: Any) -> None:
    here = setup()
    headers = {
        "x-datadog-trace-id": "5",
        "x-datadog-parent-id": "6",
        "x-datadog-sampling-priority": "2",
        "x-datadog-origin": "synthetics",
        "x-datadog-tags": "_dd.p.dm=-4,_dd.p.usr.id=YmI=",
        "traceparent": f"00-{5:032x}-{7:016x}-01",
        "tracestate": "dd=p:00000000000000ab",
        "baggage": "user.id=u1,other=x",
    }
    context = composite_propagator(Settings()).extract(headers)
    with here.tracer.start_as_current_span("root", context), here.tracer.start_as_current_span("child"):
        sent: dict[str, str] = {}
        composite_propagator(Settings()).inject(sent)
    assert here.flush()
    root, child = here.spans["root"], here.spans["child"]
    assert (root["parent_id"], root["metrics"]["_sampling_priority_v1"]) == (7, 2)
    expected = {
        "_dd.origin": "synthetics",
        "_dd.p.dm": "-4",
        "_dd.p.usr.id": "YmI=",
        "_dd.parent_id": "00000000000000ab",
        "baggage.user.id": "u1",
    }
    assert root["meta"].items() >= expected.items()
    assert "baggage.other" not in root["meta"]
    assert not expected.keys() & child["meta"].keys()
    assert sent["x-datadog-parent-id"] == str(child["span_id"])
    assert (sent["x-datadog-origin"], sent["x-datadog-tags"]) == ("synthetics", "_dd.p.dm=-4,_dd.p.usr.id=YmI=")


def test_all_baggage_on_request(setup: Any) -> None:
    here = setup(baggage_tag_keys=("*",))
    context = baggage.set_baggage("any", 1, remote())
    here.tracer.start_span("root", context).end()
    assert here.flush()
    assert here.spans["root"]["meta"]["baggage.any"] == "1"


def test_a_trace_whose_caller_names_no_parent_has_a_root(setup: Any) -> None:
    here = setup()
    context = composite_propagator(Settings()).extract({"x-datadog-trace-id": "5", "x-datadog-parent-id": "0"})
    with here.tracer.start_as_current_span("root", context):
        pass
    assert here.flush()
    assert (here.spans["root"]["trace_id"], here.spans["root"]["parent_id"]) == (5, 0)


def test_conflicting_headers_become_links_of_the_local_root_only(setup: Any) -> None:
    here = setup()
    headers = {"x-datadog-trace-id": "5", "x-datadog-parent-id": "6", "traceparent": f"00-{8:032x}-{9:016x}-01"}
    context = composite_propagator(Settings()).extract(headers)
    with trace.use_span(here.tracer.start_span("root", context), end_on_exit=True) as root:
        here.tracer.start_span("child", trace.set_span_in_context(root, context)).end()
        here.tracer.start_span("elsewhere", trace.set_span_in_context(trace.INVALID_SPAN, context)).end()
    assert here.flush()
    (link,) = here.spans["root"]["span_links"]
    assert (link["trace_id"], link["attributes"]["context_headers"]) == (8, "tracecontext")
    assert "span_links" not in here.spans["child"]
    assert "span_links" not in here.spans["elsewhere"]


def test_a_restarted_trace_links_to_the_old_one(setup: Any) -> None:
    here = setup()
    propagator = composite_propagator(Settings(behavior_extract="restart"))
    context = propagator.extract({"x-datadog-trace-id": "5", "x-datadog-parent-id": "6"})
    here.tracer.start_span("root", context, links=[Link(trace.INVALID_SPAN_CONTEXT)]).end()
    assert here.flush()
    root = here.spans["root"]
    assert root["trace_id"] != 5
    assert root["parent_id"] == 0
    assert [link["trace_id"] for link in root["span_links"] if link["trace_id"]] == [5]


def test_the_application_may_keep_and_drop_at_any_time(setup: Any) -> None:
    here = setup()
    with here.tracer.start_as_current_span("root"), here.tracer.start_as_current_span("child") as child:
        child.set_attribute("manual.drop", True)
    assert here.flush()
    root = here.spans["root"]
    assert (root["metrics"]["_sampling_priority_v1"], root["meta"]["_dd.p.dm"]) == (-1, "-4")


@pytest.mark.parametrize("told", ["root", "middle", "ended"])
@pytest.mark.parametrize(("attribute", "priority"), [("manual.keep", "2"), ("manual.drop", "-1")])
def test_whichever_span_is_told_the_next_request_carries_it(
    setup: Any, told: str, attribute: str, priority: str
) -> None:
    one = setup()
    with one.tracer.start_as_current_span("root") as root:
        one.tracer.start_span("ended", attributes={attribute: True} if told == "ended" else {}).end()
        with one.tracer.start_as_current_span("middle") as middle:
            {"root": root, "middle": middle}.get(told, trace.INVALID_SPAN).set_attribute(attribute, True)
            with one.tracer.start_as_current_span("request"):
                carrier: dict[str, str] = {}
                composite_propagator(Settings()).inject(carrier)
    assert carrier["x-datadog-sampling-priority"] == priority
    assert "_dd.p.dm=-4" in carrier["x-datadog-tags"]
    assert one.flush()
    assert one.spans["root"]["metrics"]["_sampling_priority_v1"] == int(priority)


def test_of_a_long_trace_only_open_spans_are_watched_on(setup: Any) -> None:
    one = setup()
    with one.tracer.start_as_current_span("root") as root:
        for number in range(1000):
            one.tracer.start_span("query", attributes={"manual.keep": True} if number == 7 else {}).end()
        record = traces.get(root.get_span_context().trace_id)
        assert record is not None
        assert len(record.watched) < 100
        assert record.priority == 2
    assert one.flush()
    assert not record.watched


def test_of_many_open_spans_the_first_and_the_latest_are_watched(setup: Any) -> None:
    one = setup()
    with one.tracer.start_as_current_span("root") as root:
        spans = [one.tracer.start_span("task") for _ in range(1000)]
        record = traces.get(root.get_span_context().trace_id)
        assert record is not None
        assert len(record.watched) <= 64
        assert (record.watched[0], record.watched[-1]) == (root, spans[-1])
        root.set_attribute("manual.drop", True)
        carrier: dict[str, str] = {}
        composite_propagator(Settings()).inject(carrier)
        for span in spans:
            span.end()
    assert carrier["x-datadog-sampling-priority"] == "-1"


def test_foreign_samplers_decide(setup: Any) -> None:
    here = setup(sampler=ALWAYS_ON)
    here.tracer.start_span("root").end()
    assert here.flush()
    root = here.spans["root"]
    assert (root["metrics"]["_sampling_priority_v1"], root["meta"]["_dd.p.dm"]) == (1, "-0")
    none = setup(sampler=TraceIdRatioBased(0))
    none.tracer.start_span("root").end()
    assert none.flush()
    assert none.transport.payloads == []


def test_a_late_child_keeps_the_decision_of_its_trace(setup: Any) -> None:
    here = setup()
    context = composite_propagator(Settings()).extract(
        {"x-datadog-trace-id": "5", "x-datadog-parent-id": "6", "x-datadog-sampling-priority": "2"}
    )
    root = here.tracer.start_span("root", context)
    root.end()
    assert here.flush()
    here.tracer.start_span("late", trace.set_span_in_context(root, Context())).end()
    assert here.flush()
    assert here.spans["late"]["metrics"]["_sampling_priority_v1"] == 2


def test_nothing_is_recorded_when_switched_off(setup: Any) -> None:
    here = setup(trace_enabled=False)
    here.tracer.start_span("root").end()
    assert here.flush()
    assert here.transport.counts == []


def test_concurrent_threads_lose_nothing(setup: Any) -> None:
    here = setup(flush_interval=0.01)

    def work() -> None:
        for _ in range(200):
            with here.tracer.start_as_current_span("root"), here.tracer.start_as_current_span("child"):
                pass

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert here.flush()
    assert here.transport.resources == [["root", "child"]] * 1600
    assert len(traces._open) == 0


# --- the worker


def test_no_thread_before_a_span_has_ended(setup: Any) -> None:
    _until(lambda: not workers())  # those of earlier tests
    here = setup()
    span = here.tracer.start_span("root")
    assert not workers()
    span.end()
    assert [thread.daemon for thread in workers()] == [True]
    here.provider.shutdown()
    _until(lambda: not workers())


def test_spans_are_sent_by_themselves(setup: Any) -> None:
    here = setup(flush_interval=0.02)
    for _ in range(2):
        here.tracer.start_span("root").end()
        _until(lambda: here.transport.payloads)
        here.transport.payloads.clear()


def test_many_spans_are_sent_early(setup: Any) -> None:
    here = setup()
    for _ in range(1100):
        here.tracer.start_span("root").end()
    _until(lambda: here.transport.payloads)


def test_an_outage_loses_nothing_while_there_is_room(setup: Any, caplog: pytest.LogCaptureFixture) -> None:
    here = setup(REFUSED, flush_interval=0.01)
    with caplog.at_level("INFO", "spanbridge"):
        for number in range(5):
            here.tracer.start_span(f"span {number}").end()
            time.sleep(0.03)
        _until(lambda: caplog.records)
        here.transport.say(OK)
        assert here.flush()
    assert sorted(here.spans) == [f"span {number}" for number in range(5)]
    warning, information = caplog.records
    assert "http://agent:8126" in warning.getMessage()
    assert "connection refused" in warning.getMessage()
    assert "DD_TRACE_AGENT_URL" in warning.getMessage()
    assert "0 spans were lost" in information.getMessage()


def test_what_waits_is_bounded_in_bytes(setup: Any) -> None:
    here = setup(REFUSED, buffer_bytes=10_000)
    for _ in range(100):
        here.tracer.start_span("root", attributes={"text": "x" * 1000}).end()
    assert not here.flush(200)
    worker = here.processor._worker
    assert worker is not None
    assert 5_000 < worker._pending.size <= 10_000
    assert here.processor.dropped == 100 - len(worker._pending)
    here.transport.say(OK)
    assert here.flush()
    assert here.processor.dropped + here.processor.exporter.sent == 100


def test_what_is_queued_is_bounded_in_spans(setup: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_QUEUED", 10)
    monkeypatch.setattr(module, "MOST_QUEUED_ENDS", 20)
    here = setup()
    monkeypatch.setattr(here.processor, "_start_worker", lambda: None)
    for _ in range(100):
        here.tracer.start_span("root").end()
    assert len(here.processor._queue) <= 20
    assert here.processor.dropped >= 90


def test_payloads_are_as_large_as_the_receiver_takes(setup: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender_module, "PAYLOAD_BYTES", 3_000)
    here = setup()
    for _ in range(20):
        here.tracer.start_span("root", attributes={"text": "x" * 800}).end()
    assert here.flush()
    assert max(here.transport.counts) == 2
    assert sum(here.transport.counts) == 20


def test_the_receivers_own_limit_is_learned_and_nothing_is_lost(setup: Any) -> None:
    here = setup(Reply(413, b""), Reply(413, b""), OK)
    for number in range(64):
        here.tracer.start_span(f"span {number}").end()
    assert here.flush()
    assert len(here.spans) == 64
    assert here.processor.dropped == 0
    assert here.transport.counts[0] == 64
    assert max(here.transport.counts[2:]) <= 17


def test_a_chunk_too_large_for_the_receiver_is_given_up(setup: Any) -> None:
    here = setup(Reply(413, b"too large"), OK)
    here.tracer.start_span("large").end()
    assert not here.flush()
    assert here.processor.dropped == 1


def test_a_receiver_that_refuses_for_long_does_not_block_later_spans(
    setup: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender_module, "REFUSED_SECONDS", 0.0)
    here = setup(Reply(500, b""))
    here.tracer.start_span("poison").end()
    assert not here.flush()
    here.transport.say(OK)
    here.tracer.start_span("good").end()
    assert here.flush()
    assert list(here.spans) == ["good"]


def test_a_fault_of_the_worker_does_not_end_it(setup: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    here = setup(flush_interval=0.01)
    with monkeypatch.context() as broken:
        broken.setattr(worker_module.Worker, "_collect", lambda *a, **k: 1 / 0)
        here.tracer.start_span("root").end()
        time.sleep(0.05)
    assert here.flush()
    assert list(here.spans) == ["root"]


def test_own_requests_are_not_traced(setup: Any) -> None:
    here = setup()
    seen: list[bool] = []
    send = here.transport.send

    def spying(*arguments: Any) -> Any:
        from opentelemetry.instrumentation.utils import is_instrumentation_enabled

        seen.append(is_instrumentation_enabled())
        return send(*arguments)

    here.transport.send = spying
    here.tracer.start_span("root").end()
    assert here.flush()
    assert seen == [False]


# --- waiting and ending


def test_flush_without_spans_is_at_once(setup: Any) -> None:
    assert setup(REFUSED).flush(0)


def test_flush_waits_no_longer_than_it_may(setup: Any) -> None:
    here = setup(REFUSED)
    here.tracer.start_span("root").end()
    begun = time.monotonic()
    assert not here.flush(100)
    assert time.monotonic() - begun < 2
    here.transport.say(OK)
    assert here.flush()


def test_flush_waits_for_a_receiver_that_recovers(setup: Any) -> None:
    here = setup(Reply(503, b""), Reply(429, b""), REFUSED, OK)
    here.tracer.start_span("root").end()
    assert here.flush()
    assert here.processor.exporter.sent == 1


def test_several_threads_may_flush_at_once(setup: Any) -> None:
    here = setup()
    results: list[bool] = []

    def work() -> None:
        for _ in range(20):
            here.tracer.start_span("root").end()
            results.append(here.flush())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert results == [True] * 80
    assert here.processor.exporter.sent == 80


def test_shutdown_sends_what_is_left_and_comes_once(setup: Any) -> None:
    here = setup()
    open_root = here.tracer.start_span("root")
    here.tracer.start_span("done", trace.set_span_in_context(open_root)).end()
    here.provider.shutdown()
    assert here.transport.resources == [["done"]]
    open_root.end()
    here.tracer.start_span("too late").end()
    here.processor.shutdown()
    assert here.flush()
    assert here.transport.resources == [["done"]]


def test_shutdown_gives_up_soon_and_counts(setup: Any, caplog: pytest.LogCaptureFixture) -> None:
    here = setup(REFUSED)
    for _ in range(3):
        here.tracer.start_span("root").end()
    begun = time.monotonic()
    with caplog.at_level("INFO", "spanbridge"):
        here.processor.shutdown()
    assert time.monotonic() - begun < 3
    assert here.processor.dropped == 3
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "3 spans were not sent" in caplog.messages[-1]


def test_a_flush_inside_a_signal_handler_returns_and_loses_nothing(setup: Any) -> None:
    here = setup()
    tracer = here.tracer  # the SDK makes tracers under a lock that a signal handler must not meet
    made: list[str] = []
    answers: list[bool] = []

    def make(name: str) -> None:
        tracer.start_span(name).end()
        made.append(name)

    def handler(*_: object) -> None:
        make(f"in handler {len(answers)}")
        # The interrupted code may hold a lock of the SDK's that mapping needs: then time runs out, and that is all.
        answers.append(here.processor.force_flush(300))
        signal.setitimer(signal.ITIMER_REAL, 0.005)  # again, but never while this one still runs

    make("first")
    assert here.flush()
    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.005)
    try:
        deadline = time.monotonic() + 20
        while len(answers) < 10 and time.monotonic() < deadline:
            make(f"outside {len(answers)}")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(answers) >= 10
    assert here.flush()
    assert here.processor.exporter.sender.sent == len(made)


def test_a_dropped_processor_is_not_kept_alive_by_its_fork_hook() -> None:
    exporter = DatadogSpanExporter(Settings(), transport=Transport())  # type: ignore[arg-type]
    processor = weakref.ref(DatadogSpanProcessor(exporter))
    gc.collect()
    assert processor() is None


# --- memory


def test_nothing_is_kept_of_traces_that_are_done(setup: Any) -> None:
    here = setup()
    spans = []
    for _ in range(100):
        with here.tracer.start_as_current_span("root") as root, here.tracer.start_as_current_span("child"):
            spans.append(weakref.ref(root))
    del root
    assert here.flush()
    gc.collect()
    assert not any(span() for span in spans)
    worker = here.processor._worker
    assert worker is not None
    assert (len(worker._assembler), len(traces._open)) == (0, 0)


def test_a_chain_of_descendants_does_not_keep_its_ancestors(setup: Any) -> None:
    here = setup(partial_flush_min_spans=1)
    first = span = here.tracer.start_span("0")
    gone = weakref.ref(first)
    for number in range(1, 50):
        following = here.tracer.start_span(str(number), trace.set_span_in_context(span, Context()))
        span.end()
        span = following
        if number % 10 == 0:
            assert here.flush()
    del first, following
    gc.collect()
    assert gone() is None
    span.end()


def test_forgotten_spans_are_evicted(setup: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spanbridge.exporters.datadog.chunks.Assembler.evict.__defaults__", (5,))
    monkeypatch.setattr(worker_module, "_TIDY_SECONDS", 0.0)
    here = setup()
    kept = [here.tracer.start_span("forgotten") for _ in range(20)]
    here.tracer.start_span("root").end()
    assert here.flush()
    worker = here.processor._worker
    assert worker is not None
    worker._tidy_at = 0.0
    here.tracer.start_span("root").end()
    assert here.flush()
    assert len(worker._assembler) <= 5
    assert len(traces._open) <= 5
    kept[0].end()
    here.flush()
    assert here.processor.dropped == 1


# --- processes


fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
no_warning = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


def _in_child(function: Callable[[], object]) -> None:
    if (child := os.fork()) == 0:
        code = 1
        try:
            code = 0 if function() else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0


@fork
@no_warning
def test_a_child_decides_whatever_its_parents_threads_were_doing(setup: Any) -> None:
    here = setup(sampler=DatadogSampler(Settings(sample_rate=1.0)))
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with traces.lock:
            held.set()
            done.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()

    def child() -> bool:
        signal.alarm(20)
        with here.tracer.start_as_current_span("root"):
            composite_propagator(Settings()).inject({})
        return here.flush()

    try:
        _in_child(child)
    finally:
        done.set()
        thread.join()


@fork
@no_warning
@pytest.mark.parametrize("hooks", [True, False], ids=["with hooks", "without hooks, as uWSGI forks"])
def test_a_forked_child_sends_its_own_spans_only(setup: Any, monkeypatch: pytest.MonkeyPatch, hooks: bool) -> None:
    here = setup()
    if not hooks:
        monkeypatch.setattr(here.processor, "_begin_process", lambda **_: None)
        here.processor._begin_process = type(here.processor)._begin_process.__get__(here.processor)
    here.tracer.start_span("parent's").end()
    inherited = here.tracer.start_span("open in both")

    def child() -> bool:
        with trace.use_span(inherited, end_on_exit=True):
            here.tracer.start_span("child's").end()
        flushed = here.flush()
        (span,) = [span for chunk in here.transport.chunks for span in chunk]
        return (
            flushed
            and span["resource"] == "child's"
            and span["metrics"]["_dd.top_level"] == 1
            and span["metrics"]["process_id"] == os.getpid()
            and span["metrics"]["_sampling_priority_v1"] == 1
            and span["meta"]["_dd.p.dm"] == "-0"
            and here.processor.exporter.sent == 1
        )

    _in_child(child)
    inherited.end()
    assert here.flush()
    assert sorted(here.spans) == ["open in both", "parent's"]


@fork
@no_warning
def test_a_child_of_a_child(setup: Any) -> None:
    here = setup()
    here.tracer.start_span("one").end()

    def grandchild() -> bool:
        here.tracer.start_span("three").end()
        return here.flush() and list(here.spans) == ["three"]

    def child() -> bool:
        here.tracer.start_span("two").end()
        _in_child(grandchild)
        return here.flush() and list(here.spans) == ["two"]

    _in_child(child)
    assert here.flush()
    assert list(here.spans) == ["one"]


@fork
def test_a_child_of_a_program_that_imports_concurrent_futures_late_does_not_hang() -> None:
    program = """
import spanbridge.auto
import os
import concurrent.futures.thread
if (child := os.fork()) == 0:
    os._exit(0)
os.waitpid(child, 0)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)


@fork
def test_children_of_multiprocessing_flush_at_their_end(tmp_path: Any) -> None:
    (tmp_path / "program.py").write_text(
        textwrap.dedent("""
        import multiprocessing, os, sys
        from opentelemetry.sdk.trace import TracerProvider
        from spanbridge.exporters.datadog import DatadogSpanExporter, DatadogSpanProcessor, Settings
        from tests.exporters.samples import OK

        class Told:
            url = "x"
            def send(self, request, timeout):
                os.write(1, b"%d\\n" % request.headers["X-Datadog-Trace-Count"])
                return OK
            def close(self): pass

        provider = TracerProvider()
        exporter = DatadogSpanExporter(Settings(flush_interval=60), transport=Told())
        provider.add_span_processor(DatadogSpanProcessor(exporter))

        def work(number):
            provider.get_tracer("app").start_span("work").end()

        if __name__ == "__main__":
            context = multiprocessing.get_context("fork")
            processes = [context.Process(target=work, args=(n,)) for n in range(3)]
            for process in processes: process.start()
            for process in processes: process.join()
        """)
    )
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", str(tmp_path / "program.py")],
        env=os.environ | {"PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert (done.stdout.split(), done.stderr) == (["1", "1", "1"], "")


def _until(condition: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)
