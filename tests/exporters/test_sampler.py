"""Who decides about a trace, and what the decision is called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context
from opentelemetry.trace.span import TraceState as W3CTraceState

from spanbridge.exporters.datadog import DatadogPropagator, DatadogSampler, Settings, datadog_sampler
from spanbridge.exporters.datadog.trace import TraceState, traces
from tests.exporters.samples import TRACE_ID, remote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.context import Context


@pytest.fixture(autouse=True)
def _no_records() -> Iterator[None]:
    traces.forget()
    yield
    traces.forget()


def decide(context: Context | None = None, attributes: dict[str, Any] | None = None) -> Decision:
    return datadog_sampler().should_sample(context, TRACE_ID, "work", attributes=attributes).decision


def record() -> TraceState:
    found = traces.get(TRACE_ID)
    assert found is not None
    return found


def from_headers(priority: str) -> Context:
    headers = {
        "x-datadog-trace-id": str(TRACE_ID & (1 << 64) - 1),
        "x-datadog-parent-id": "7",
        "x-datadog-sampling-priority": priority,
        "x-datadog-tags": f"_dd.p.tid={TRACE_ID >> 64:016x},_dd.p.dm=-3",
    }
    return DatadogPropagator(Settings()).extract(headers)


def test_new_traces_are_kept_by_default() -> None:
    assert decide() is Decision.RECORD_AND_SAMPLE
    assert (record().priority, record().decision_maker) == (1, "-0")
    assert record().tags == {"_dd.p.tid": f"{TRACE_ID >> 64:016x}"}


@pytest.mark.parametrize(
    ("priority", "decision"),
    [
        ("2", Decision.RECORD_AND_SAMPLE),
        ("1", Decision.RECORD_AND_SAMPLE),
        ("0", Decision.RECORD_ONLY),
        ("-1", Decision.RECORD_ONLY),
    ],
)
def test_decisions_made_upstream_are_followed(priority: str, decision: Decision) -> None:
    assert decide(from_headers(priority)) is decision
    assert (record().priority, record().decision_maker) == (int(priority), "-3")


def test_what_upstream_left_open_is_decided_here() -> None:
    assert decide(from_headers("")) is Decision.RECORD_AND_SAMPLE
    assert record().priority == 1


def test_the_sampled_flag_decides_where_nothing_else_is_known() -> None:
    assert decide(remote(flags=1)) is Decision.RECORD_AND_SAMPLE
    traces.forget()
    assert decide(remote(flags=0)) is Decision.RECORD_ONLY
    assert record().priority == 0


def test_the_datadog_member_is_read_where_opentelemetry_has_extracted() -> None:
    members = W3CTraceState([("dd", "s:2;t.dm:-4;o:rum")])
    parent = NonRecordingSpan(SpanContext(TRACE_ID, 7, True, TraceFlags(1), members))
    assert decide(set_span_in_context(parent)) is Decision.RECORD_AND_SAMPLE
    assert (record().priority, record().decision_maker, record().origin) == (2, "-4", "rum")


@pytest.mark.parametrize("value", [True, 1, "1", "true", "yes", ""])
def test_the_application_may_keep(value: object) -> None:
    assert decide(from_headers("-1"), {"manual.keep": value}) is Decision.RECORD_AND_SAMPLE
    assert (record().priority, record().decision_maker) == (2, "-4")


@pytest.mark.parametrize("value", [True, 1, "true"])
def test_the_application_may_drop(value: object) -> None:
    assert decide(None, {"manual.drop": value}) is Decision.RECORD_ONLY
    assert (record().priority, record().decision_maker) == (-1, "-4")


@pytest.mark.parametrize("value", [False, 0, "0", "false", "False"])
def test_false_asks_for_nothing(value: object) -> None:
    assert decide(None, {"manual.drop": value, "manual.keep": value}) is Decision.RECORD_AND_SAMPLE
    assert (record().priority, record().decision_maker) == (1, "-0")


def test_keep_is_stronger_than_drop() -> None:
    assert decide(None, {"manual.drop": True, "manual.keep": True}) is Decision.RECORD_AND_SAMPLE


def test_rejected_spans_are_recorded_and_their_children_follow() -> None:
    tracer = TracerProvider(sampler=DatadogSampler(), shutdown_on_exit=False).get_tracer("app")
    with tracer.start_as_current_span("root", attributes={"manual.drop": True, "kept": 1}) as root:
        child = tracer.start_span("child")
        for span in (root, child):
            assert span.is_recording()
            assert not span.get_span_context().trace_flags.sampled
    assert isinstance(root, ReadableSpan)
    assert root.attributes == {"manual.drop": True, "kept": 1}


def test_the_members_of_other_vendors_stay() -> None:
    members = W3CTraceState([("foo", "1")])
    parent = NonRecordingSpan(SpanContext(TRACE_ID, 7, True, TraceFlags(1), members))
    tracer = TracerProvider(sampler=DatadogSampler(), shutdown_on_exit=False).get_tracer("app")
    assert tracer.start_span("work", set_span_in_context(parent)).get_span_context().trace_state == members


def test_records_of_spans_that_nobody_processes_are_bounded() -> None:
    sampler = DatadogSampler()
    for trace_id in range(1, 5000):
        sampler.should_sample(None, trace_id, "work")
    assert len(traces) == 1024


def test_the_factory_takes_what_the_sdk_gives() -> None:
    for argument in (None, "", "0.5"):
        assert datadog_sampler(argument).get_description() == "DatadogSampler"
