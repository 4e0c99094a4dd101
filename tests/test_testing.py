"""`spanbridge.testing`, which our users have, too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from opentelemetry import trace
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from spanbridge.testing import encode, validate

if TYPE_CHECKING:
    from spanbridge.testing import Payload, Spans


def test_spans_are_plain_dicts(spans: Spans) -> None:
    tracer = trace.get_tracer("shop")
    other = SpanContext(77, 99, is_remote=True)
    with tracer.start_as_current_span("outer", kind=SpanKind.SERVER):
        inner = tracer.start_span("inner", attributes={"key": (1, 2)}, links=[Link(other, {"why": "so"})])
        inner.add_event("something", {"at": "last"})
        inner.set_status(StatusCode.ERROR, "no")
        assert spans.unfinished == ["outer", "inner"]
        inner.end()
    assert spans[0] == {
        "name": "inner",
        "kind": "INTERNAL",
        "trace_id": 1,
        "span_id": 2,
        "parent_id": 1,
        "parent": "outer",
        "scope": "shop",
        "attributes": {"key": (1, 2)},
        "status": "ERROR",
        "description": "no",
        "events": [{"name": "something", "attributes": {"at": "last"}}],
        "links": [{"trace_id": 77, "span_id": 99, "attributes": {"why": "so"}}],
        "start": 2,
        "end": 3,
    }
    assert [(span["name"], span["start"], span["end"]) for span in spans[1:]] == [("outer", 1, 4)]
    spans.clear()
    assert (len(spans), spans.unfinished) == (0, [])


def test_payload(spans: Spans, payload: Payload) -> None:
    tracer = trace.get_tracer("shop")
    remote = set_span_in_context(NonRecordingSpan(SpanContext(5, 6, is_remote=True, trace_flags=TraceFlags(1))))
    with tracer.start_as_current_span("root"), tracer.start_as_current_span("child"):
        pass
    tracer.start_span("continued", remote).end()
    tracer.start_span("continued, too", remote).end()
    chunks = payload()
    assert [[span["span_id"] for span in chunk] for chunk in chunks] == [[1, 2], [3], [4]]
    assert [chunk[0]["metrics"]["_sampling_priority_v1"] for chunk in chunks] == [1, 1, 1]
    assert {span["trace_id"] for span in chunks[1]} == {5}


@pytest.mark.parametrize(
    "change",
    [
        {"meta": {"key": 1}},
        {"metrics": {"_sampling_priority_v1": 1, "_dd.top_level": 1, "key": "text"}},
        {"metrics": {"_dd.top_level": 1}},
        {"metrics": {"_sampling_priority_v1": 1}},
        {"metrics": {"_sampling_priority_v1": 1, "_dd.top_level": 1, "key": float("nan")}},
        {"span_id": 0},
        {"trace_id": 0},
        {"duration": -1},
        {"start": 12},
        {"error": 2},
        {"service": ""},
        {"unknown": 1},
        {"resource": None},
    ],
    ids=str,
)
def test_what_no_receiver_takes(spans: Spans, change: dict[str, Any]) -> None:
    trace.get_tracer("shop").start_span("root").end()
    body = encode(spans.finished)
    validate(body)
    [[span]] = msgspec.msgpack.decode(body)
    with pytest.raises((AssertionError, msgspec.ValidationError)):
        validate(msgspec.msgpack.encode([[{**span, **change}]]))


@pytest.mark.parametrize("change", [{"trace_id": 8}, {"parent_id": 9}, {"span_id": 1}, {"start": 10**18}], ids=str)
def test_spans_that_do_not_belong_together(spans: Spans, change: dict[str, Any]) -> None:
    tracer = trace.get_tracer("shop")
    with tracer.start_as_current_span("root"), tracer.start_as_current_span("child"):
        pass
    body = encode(spans.finished)
    validate(body)
    [[root, child]] = msgspec.msgpack.decode(body)
    with pytest.raises(AssertionError):
        validate(msgspec.msgpack.encode([[root, {**child, **change}]]))


pytest_plugins = ["pytester"]


def test_nothing_outlives_a_test(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]")  # or a project above the temporary directory lends its own
    pytester.makeconftest("pytest_plugins = ['spanbridge.testing']")
    pytester.makepyfile("""
        import sqlite3
        from opentelemetry import trace
        from spanbridge.core.guard import first_time
        from spanbridge.instrumentors.sqlite3 import SQLite3Instrumentor

        original = sqlite3.connect

        def test_first(spans, payload):
            SQLite3Instrumentor().instrument()
            sqlite3.connect(":memory:").execute("SELECT 1").connection.close()
            assert [span["name"] for span in spans] == ["SELECT"]
            assert first_time("a warning")

        def test_second():
            assert sqlite3.connect is original
            assert not SQLite3Instrumentor().is_instrumented_by_opentelemetry
            assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
            assert first_time("a warning")
    """)
    pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:asyncio", "-W", "error").assert_outcomes(passed=2)
