"""The exporter alone, behind OpenTelemetry's own processors."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExportResult

from spanbridge.exporters.datadog import DatadogSampler, DatadogSpanExporter, Settings
from spanbridge.exporters.datadog import exporter as module
from spanbridge.exporters.datadog.trace import traces
from spanbridge.exporters.datadog.transport import Reply
from spanbridge.testing import TracerProvider
from tests.exporters.samples import OK, Transport, assert_sendable, finished, remote

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SUCCESS, FAILURE = SpanExportResult.SUCCESS, SpanExportResult.FAILURE
REFUSED = ConnectionRefusedError()


@pytest.fixture(autouse=True)
def _no_records() -> Iterator[None]:
    traces.forget()
    yield
    traces.forget()


def make(*script: Reply | OSError, **options: Any) -> tuple[DatadogSpanExporter, Transport]:
    transport = Transport(*script)
    return DatadogSpanExporter(Settings(service="shop"), transport=transport, **options), transport  # type: ignore[arg-type]


def test_spans_are_grouped_by_trace_the_local_root_first() -> None:
    exporter, transport = make()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    tracer = provider.get_tracer("app")
    for _ in range(2):
        with tracer.start_as_current_span("root"), tracer.start_as_current_span("child"):
            tracer.start_span("grandchild").end()
    provider.shutdown()
    assert transport.resources == [["root", "child", "grandchild"]] * 2
    assert transport.counts == [2]
    for root, *others in transport.chunks:
        assert_sendable([root, *others])
        assert root["metrics"].items() >= {"_sampling_priority_v1": 1, "_dd.top_level": 1}.items()
        assert len(root["meta"]["_dd.p.tid"]) == 16
        assert not any("_dd.top_level" in span["metrics"] for span in others)


def test_a_parent_of_an_earlier_batch_is_still_in_this_process() -> None:
    exporter, transport = make()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("app")
    with tracer.start_as_current_span("root", remote()), tracer.start_as_current_span("child"):
        pass
    ((child,), (root,)) = transport.chunks
    assert "_dd.top_level" not in child["metrics"]
    assert root["metrics"]["_dd.top_level"] == 1
    assert child["metrics"]["_sampling_priority_v1"] == root["metrics"]["_sampling_priority_v1"] == 1


def test_our_samplers_decision_is_sent() -> None:
    exporter, transport = make()
    provider = TracerProvider(sampler=DatadogSampler(), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    provider.get_tracer("app").start_span("root", attributes={"manual.keep": True}).end()
    ((root,),) = transport.chunks
    assert (root["metrics"]["_sampling_priority_v1"], root["meta"]["_dd.p.dm"]) == (2, "-4")


def test_nothing_to_send() -> None:
    exporter, transport = make()
    assert exporter.export([]) is SUCCESS
    assert transport.counts == []


def test_a_busy_receiver_is_asked_again() -> None:
    exporter, _ = make(Reply(503, b""), Reply(429, b""), OK)
    assert exporter.export([finished()]) is SUCCESS
    assert (exporter.sent, exporter.lost) == (1, 0)


def test_nobody_there_costs_little_and_the_next_batches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.3)
    exporter, transport = make(REFUSED)
    begun = time.monotonic()
    assert exporter.export([finished()]) is FAILURE
    assert time.monotonic() - begun < 2
    tries = len(transport.counts)
    assert exporter.export([finished(), finished()]) is FAILURE
    assert len(transport.counts) == tries
    assert (exporter.sent, exporter.lost) == (0, 3)


def test_it_is_asked_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    exporter, transport = make(REFUSED)
    assert exporter.export([finished()]) is FAILURE
    transport.say(OK)
    deadline = time.monotonic() + 10
    while exporter.export([finished()]) is FAILURE:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert exporter.sent == 1


def test_a_span_that_cannot_be_mapped_does_not_take_the_others_along(monkeypatch: pytest.MonkeyPatch) -> None:
    exporter, transport = make()
    mapping = exporter.mapper.map

    def fragile(span: Any, **options: Any) -> Any:
        return mapping(span, **options) if span.name != "broken" else 1 / 0

    monkeypatch.setattr(exporter.mapper, "map", fragile)
    assert exporter.export([finished("good"), finished("broken")]) is FAILURE
    assert transport.resources == [["good"]]
    assert exporter.lost == 1


def test_the_agents_rates_are_handed_on() -> None:
    rates: list[Mapping[str, float]] = []
    body = b'{"rate_by_service":{"service:shop,env:":0.5,"service:,env:":1}}'
    exporter, _ = make(Reply(200, body), on_rates=rates.append)
    assert exporter.export([finished()]) is SUCCESS
    assert rates == [{"service:shop,env:": 0.5, "service:,env:": 1.0}]


def test_threads_may_export_at_once() -> None:
    exporter, _ = make()
    threads = [threading.Thread(target=lambda: exporter.export([finished()])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert exporter.sent == 8


def test_after_shutdown() -> None:
    exporter, transport = make()
    exporter.shutdown()
    assert exporter.export([finished()]) is FAILURE
    assert exporter.force_flush()
    assert transport.counts == []


def test_shutdown_that_fails(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    exporter, transport = make()
    monkeypatch.delattr(type(transport), "close")
    exporter.shutdown()
    assert exporter.export([finished()]) is FAILURE
    assert len(caplog.messages) == 1
