"""The recorder as an application meets it: a provider of the SDK's in all respects, and what is peculiar to ours."""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import context as context_api
from opentelemetry import trace
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ConcurrentMultiSpanProcessor, ReadableSpan, SpanLimits, SpanProcessor
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NonRecordingSpan, SpanContext, StatusCode, get_current_span, set_span_in_context

from spanbridge.core import guard
from spanbridge.recorder import TracerProvider, adopt, chosen_provider, trial
from spanbridge.recorder import tracer as recorder_tracer
from spanbridge.recorder.span import Span

if TYPE_CHECKING:
    from opentelemetry.context import Context


class Kept(SpanProcessor):
    """Keeps the spans that ended."""

    def __init__(self) -> None:
        self.spans: list[Any] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.spans.append(span)


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def provider(kept: Kept) -> TracerProvider:
    made = TracerProvider(resource=Resource({"service.name": "shop"}), shutdown_on_exit=False)
    made.add_span_processor(kept)
    return made


@pytest.fixture
def tracer(provider: TracerProvider) -> Any:
    return provider.get_tracer("shop")


# What it is.


def test_everything_is_the_sdks_and_the_apis(provider: TracerProvider, tracer: Any) -> None:
    span = tracer.start_span("x")
    assert isinstance(provider, sdk.TracerProvider)
    assert isinstance(tracer, sdk.Tracer)
    assert isinstance(span, Span)
    assert isinstance(span, (trace.Span, sdk.Span, ReadableSpan))
    assert provider.get_tracer("shop").start_span("y").resource is provider.resource


def test_a_span_comes_from_a_tracer_only() -> None:
    with pytest.raises(TypeError, match="via a tracer"):
        Span("x", None)


def test_stock_exporters_take_our_spans(tracer: Any, provider: TracerProvider) -> None:
    lines: list[str] = []
    memory = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    console = ConsoleSpanExporter(formatter=lambda span: lines.append(span.to_json()) or "")
    provider.add_span_processor(SimpleSpanProcessor(console))
    with tracer.start_as_current_span("x", attributes={"a": 1}):
        pass
    (span,) = memory.get_finished_spans()
    assert dict(span.attributes or {}) == {"a": 1}
    assert json.loads(lines[0])["name"] == "x"


@pytest.mark.parametrize("multi", [sdk.SynchronousMultiSpanProcessor, ConcurrentMultiSpanProcessor])
def test_processors_hear_of_start_ending_and_end(multi: Any) -> None:
    heard: list[tuple[str, str, bool]] = []

    class Listener(SpanProcessor):
        def on_start(self, span: Any, parent_context: Context | None = None) -> None:
            heard.append(("start", span.name, span.is_recording()))

        def _on_ending(self, span: Any) -> None:
            heard.append(("ending", span.name, span.is_recording()))

        def on_end(self, span: ReadableSpan) -> None:
            heard.append(("end", span.name, span.end_time is None))

    provider = TracerProvider(shutdown_on_exit=False, active_span_processor=multi())
    provider.add_span_processor(Listener())
    provider.get_tracer("x").start_span("one").end()
    ending = [("ending", "one", False)] if hasattr(SpanProcessor, "_on_ending") else []
    assert heard == [("start", "one", True), *ending, ("end", "one", False)]
    provider.shutdown()


def test_what_a_processor_raises_reaches_the_caller_as_with_the_sdk(tracer: Any, provider: TracerProvider) -> None:
    class Broken(SpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            raise OSError("no disk")

    provider.add_span_processor(Broken())
    with pytest.raises(OSError, match="no disk"):
        tracer.start_span("x").end()


# Attributes.


def test_the_callers_dict_stays_the_callers(tracer: Any, kept: Kept) -> None:
    given = {"a": 1, "list": ["x"]}
    span = tracer.start_span("x", attributes=given)
    given["a"] = 2
    given["list"].append("y")  # type: ignore[attr-defined]
    span.set_attribute("b", numbers := [1])
    numbers.append(2)
    span.end()
    assert dict(kept.spans[0].attributes) == {"a": 1, "list": ("x",), "b": (1,)}


def test_a_dict_taken_over_is_not_copied(tracer: Any) -> None:
    given = {"a": 1}
    assert tracer.start_span("x", attributes=given, take_over=True)._attributes is given


def test_a_view_follows_the_span_and_refuses_changes(tracer: Any) -> None:
    span = tracer.start_span("x", attributes={"a": 1})
    view = span.attributes
    span.set_attribute("b", 2)
    assert dict(view) == {"a": 1, "b": 2}
    with pytest.raises(TypeError):
        view["c"] = 3
    span.end()
    with pytest.raises(TypeError):
        span.attributes["c"] = 3


def test_nothing_changes_after_the_end(tracer: Any, kept: Kept, caplog: pytest.LogCaptureFixture) -> None:
    span = tracer.start_span("x", attributes={"a": 1})
    span.end(end_time=7)
    span.end(end_time=8)
    span.set_attribute("a", 2)
    span.set_attributes({"a": 3, "b": 4})
    span.update_name("y")
    span.set_status(StatusCode.ERROR)
    span.add_event("late")
    span.add_link(SpanContext(1, 2, is_remote=False))
    span.record_exception(ValueError())
    assert len(kept.spans) == 1
    assert (span.name, dict(span.attributes), span.end_time) == ("x", {"a": 1}, 7)
    assert (span.status.status_code, span.events, span.links) == (StatusCode.UNSET, (), ())
    assert len(caplog.records) == 8
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_limits_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "2")
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "3")
    attributes = {"a": 1, "b": 2, "c": "long"}
    span: Any = TracerProvider(shutdown_on_exit=False).get_tracer("x").start_span("x", attributes=attributes)
    span.end()
    assert (dict(span.attributes), span.dropped_attributes) == ({"b": 2, "c": "lon"}, 1)


def test_more_attributes_than_the_limit(tracer: Any) -> None:
    span = tracer.start_span("x", attributes={f"start{number}": number for number in range(100)})
    for number in range(100):
        span.set_attribute(f"later{number}", number)
    span.end()
    assert len(span.attributes) == 128
    assert span.dropped_attributes == 72
    assert "start0" not in span.attributes
    assert "later99" in span.attributes


# Current.


def test_current_within_the_block_only(tracer: Any) -> None:
    with tracer.start_as_current_span("outer") as outer:
        with tracer.start_as_current_span("inner") as inner:
            assert get_current_span() is inner
            assert inner.parent is outer.get_span_context()
        assert get_current_span() is outer
    assert get_current_span() is trace.INVALID_SPAN
    assert not outer.is_recording()


def test_what_leaves_the_block_is_recorded(tracer: Any, kept: Kept) -> None:
    error = ValueError("wrong")
    with pytest.raises(ValueError, match="wrong") as raised, tracer.start_as_current_span("x"):
        raise error
    assert raised.value is error
    (span,) = kept.spans
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "ValueError: wrong")
    assert [event.name for event in span.events] == ["exception"]


def test_cancellation_and_exits_are_no_errors(tracer: Any, kept: Kept) -> None:
    with pytest.raises(SystemExit), tracer.start_as_current_span("x"):
        raise SystemExit
    assert (kept.spans[0].status.status_code, kept.spans[0].events) == (StatusCode.UNSET, ())


def test_neither_event_nor_status_where_not_wanted(tracer: Any, kept: Kept) -> None:
    neither = {"record_exception": False, "set_status_on_exception": False}
    with pytest.raises(ValueError), tracer.start_as_current_span("x", **neither):
        raise ValueError
    with pytest.raises(ValueError), tracer.start_span("y", **neither):
        raise ValueError
    assert [(span.status.status_code, span.events) for span in kept.spans] == [(StatusCode.UNSET, ())] * 2


def test_decorates_functions_of_both_kinds(tracer: Any, kept: Kept) -> None:
    @tracer.start_as_current_span("plain")
    def plain() -> Any:
        return get_current_span()

    @tracer.start_as_current_span("async")
    async def coroutine() -> Any:
        await asyncio.sleep(0)
        return get_current_span()

    assert plain() is not plain()
    assert asyncio.run(coroutine()) is kept.spans[-1]
    assert [span.name for span in kept.spans] == ["plain", "plain", "async"]


def test_works_in_the_api_s_use_span(tracer: Any, kept: Kept) -> None:
    with trace.use_span(tracer.start_span("x"), end_on_exit=True) as span:
        assert get_current_span() is span
    assert kept.spans == [span]


def test_a_parent_of_another_make(tracer: Any) -> None:
    remote = SpanContext(5, 6, is_remote=True, trace_flags=trace.TraceFlags(1))
    span = tracer.start_span("x", set_span_in_context(NonRecordingSpan(remote)))
    assert (span.parent, span.context.trace_id) == (remote, 5)
    other = sdk.TracerProvider(shutdown_on_exit=False).get_tracer("other").start_span("other")
    assert tracer.start_span("x", set_span_in_context(other)).parent is other.get_span_context()


def test_an_application_that_seeds_random_gets_its_own_numbers_and_no_trace_id_twice() -> None:
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("x")

    def draw() -> tuple[float, float, Any]:
        random.seed(1)
        first, span = random.random(), tracer.start_span("x")
        return first, random.random(), span.get_span_context()

    state = random.getstate()
    try:
        one, two = draw(), draw()
        random.seed(1)
        assert one[:2] == two[:2] == (random.random(), random.random())
    finally:
        random.setstate(state)
    assert one[2].trace_id != two[2].trace_id
    assert one[2].span_id != two[2].span_id


def test_processes_that_were_forked_without_pythons_hooks_share_no_id() -> None:
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("x")
    inherited = recorder_tracer._random.getstate()

    def ids() -> set[int]:
        recorder_tracer._random.setstate(inherited)
        contexts = [tracer.start_span("x").get_span_context() for _ in range(100)]
        return {context.trace_id for context in contexts} | {context.span_id for context in contexts}

    parent, child = ids(), ids()
    assert len(parent) == len(child) == 200
    assert parent.isdisjoint(child)


# Several threads, forks, signals, garbage collections.


def test_threads_write_to_one_span(tracer: Any, kept: Kept) -> None:
    span = tracer.start_span("x")
    names = [[f"{thread}.{number}" for number in range(15)] for thread in range(8)]

    def write(mine: list[str]) -> None:
        for name in mine:
            span.set_attribute(name, name)
            span.add_event(name)
            dict(span.attributes)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, names))
    span.end()
    assert set(kept.spans[0].attributes) == {name for mine in names for name in mine}
    assert len(kept.spans[0].events) == 120


def test_threads_do_not_get_beyond_a_limit() -> None:
    span: Any = TracerProvider(shutdown_on_exit=False).get_tracer("x").start_span("x")

    def write(thread: int) -> None:
        for number in range(100):
            span.set_attribute(f"{thread}.{number}", number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    assert (len(span.attributes), span.dropped_attributes) == (128, 800 - 128)


def test_one_of_many_threads_ends_a_span(tracer: Any, kept: Kept) -> None:
    for _ in range(50):
        span = tracer.start_span("x")
        barrier = threading.Barrier(4)

        def end(span: Any = span, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            span.end()

        threads = [threading.Thread(target=end) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(kept.spans) == len(set(map(id, kept.spans))) == 50


def test_an_attribute_that_is_set_again_moves_to_the_end(tracer: Any) -> None:
    for again in (lambda span: span.set_attribute("a", 3), lambda span: span.set_attributes({"a": 3})):
        span = tracer.start_span("x", attributes={"a": 1, "b": 2})
        again(span)
        assert list(span.attributes.items()) == [("b", 2), ("a", 3)]


def test_a_signal_handler_may_use_the_span_that_it_interrupts(tracer: Any) -> None:
    span = tracer.start_span("x")

    def handler(*_: Any) -> None:
        span.set_attribute("signal", 1)
        span.add_event("signal")

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with span._lock:  # as in the midst of adding an event
            os.kill(os.getpid(), signal.SIGUSR1)
            span.set_attribute("main", 1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert set(span.attributes) == {"signal", "main"}
    assert len(span.events) == 1


_FORK = """
import os
from opentelemetry.sdk.resources import Resource
from spanbridge.recorder import TracerProvider
provider = TracerProvider(resource=Resource({"process.pid": os.getpid()}), shutdown_on_exit=False)
tracer = provider.get_tracer("x")
parent = tracer.start_span("parent")
ids = {parent.context.span_id}
child = os.fork()
span = tracer.start_span("of " + ("child" if not child else "parent"))
span.set_attribute("a", 1)
span.end()
parent.end()
os.write(1, f"{span.context.span_id} {span.resource is provider.resource}\\n".encode())  # in one piece
if child:
    os.waitpid(child, 0)
else:
    os._exit(0)
"""


def test_after_a_fork_both_processes_record_with_ids_of_their_own() -> None:
    command = [sys.executable, "-W", "ignore", "-c", _FORK]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    rows = [line.split() for line in done.stdout.splitlines()]
    assert len({span_id for span_id, _ in rows}) == 2
    assert [same for _, same in rows] == ["True", "True"]


def test_a_live_span_takes_at_most_half_of_the_sdk_s_memory() -> None:
    def size(kind: type[sdk.TracerProvider]) -> float:
        tracer = kind(shutdown_on_exit=False).get_tracer("x")
        attributes: Any = {f"attribute.{number}": number for number in range(9)}
        tracer.start_span("x", attributes=attributes).end()
        gc.collect()
        tracemalloc.start()
        spans = [tracer.start_span("x", attributes=attributes) for _ in range(500)]
        taken, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return taken / len(spans)

    assert size(TracerProvider) <= size(sdk.TracerProvider) / 2


def test_memory_stays_flat() -> None:
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("x")

    def some() -> None:
        for number in range(300):
            with tracer.start_as_current_span("x", attributes={"a": number}) as span:
                span.set_attribute("b", [number])
                span.add_event("e")

    some()
    gc.collect()
    tracemalloc.start()
    some()
    gc.collect()
    left, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert left < 20_000


# Copies.


def test_a_copy_is_what_exporters_get(tracer: Any) -> None:
    span = tracer.start_span("x", attributes={"a": [1]})
    span.add_event("e", {"b": 2})
    span.end()
    copies = [copy.copy(span)]
    if hasattr(BoundedAttributes, "__deepcopy__"):  # older SDKs cannot copy their own
        copies.append(copy.deepcopy(span))
    for copied in copies:
        assert type(copied) is ReadableSpan
        assert copied.to_json() == span.to_json()


# What the SDK offers besides.


def test_a_switched_off_sdk_answers_the_no_op_tracer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert isinstance(TracerProvider(shutdown_on_exit=False).get_tracer("x"), trace.NoOpTracer)


@pytest.mark.skipif(not hasattr(sdk.TracerProvider, "_set_tracer_configurator"), reason="opentelemetry-sdk before 1.41")
def test_a_tracer_configurator_switches_tracers_off_and_on(provider: TracerProvider) -> None:
    from opentelemetry.sdk.trace import _default_tracer_configurator, _disable_tracer_configurator

    tracer = provider.get_tracer("x")
    provider._set_tracer_configurator(tracer_configurator=_disable_tracer_configurator)
    assert not tracer.start_span("x").is_recording()
    assert not provider.get_tracer("new").start_span("x").is_recording()
    provider._set_tracer_configurator(tracer_configurator=_default_tracer_configurator)
    assert tracer.start_span("x").is_recording()


def test_a_new_sampler_of_a_tracer_decides(tracer: Any) -> None:
    assert tracer.start_span("x").is_recording()
    tracer.sampler = sdk.sampling.ALWAYS_OFF
    assert not tracer.start_span("x").is_recording()


def test_a_sampler_may_decide_quickly_unless_a_subclass_decides_otherwise(tracer: Any) -> None:
    class Quick(sdk.sampling.Sampler):
        def should_sample(self, parent_context: Any, trace_id: int, name: str, *_: Any, **__: Any) -> Any:
            raise AssertionError

        def quick_decision(self, context: Any, trace_id: int, name: str, *_: Any) -> Any:
            return sdk.sampling.Decision.RECORD_ONLY

        def get_description(self) -> str:
            return "Quick"

    class Other(Quick):
        def should_sample(self, parent_context: Any, trace_id: int, name: str, *_: Any, **__: Any) -> Any:
            return sdk.sampling.SamplingResult(sdk.sampling.Decision.DROP)

    tracer.sampler = Quick()
    span = tracer.start_span("x", attributes={"a": 1})
    assert (span.is_recording(), span.context.trace_flags.sampled, dict(span.attributes)) == (True, False, {"a": 1})
    tracer.sampler = Other()
    assert not tracer.start_span("x").is_recording()


def test_a_known_sampler_that_was_patched_is_asked(tracer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = sdk.sampling.StaticSampler(sdk.sampling.Decision.RECORD_AND_SAMPLE)
    dropped = sdk.sampling.SamplingResult(sdk.sampling.Decision.DROP)
    monkeypatch.setattr(sampler, "should_sample", lambda *_, **__: dropped)
    tracer.sampler = sampler
    assert not tracer.start_span("x").is_recording()


def test_other_ids(kept: Kept) -> None:
    class Zero(sdk.IdGenerator):
        def generate_trace_id(self) -> int:
            return 7

        def generate_span_id(self) -> int:
            return 0

    span = TracerProvider(id_generator=Zero(), shutdown_on_exit=False).get_tracer("x").start_span("x")
    assert (span.get_span_context().trace_id, span.get_span_context().is_valid) == (7, False)


# Which recorder.


@pytest.mark.parametrize(
    ("value", "expected"),
    [("", TracerProvider), ("spanbridge", TracerProvider), (" SDK ", sdk.TracerProvider), ("other", TracerProvider)],
)
def test_the_variable_chooses(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, value: str, expected: type
) -> None:
    monkeypatch.setenv("SPANBRIDGE_RECORDER", value)
    assert chosen_provider() is expected
    assert [record.levelname for record in caplog.records] == ["WARNING"] * (value == "other")


def test_a_provider_of_the_sdk_s_becomes_ours(kept: Kept) -> None:
    provider = sdk.TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(kept)
    early = provider.get_tracer("early")
    adopt(provider)
    assert type(provider) is TracerProvider
    provider.get_tracer("late").start_span("x").end()
    assert type(kept.spans[0]) is Span
    if hasattr(provider, "_tracers"):
        assert type(early.start_span("x")) is Span


def test_providers_of_others_are_not_adopted() -> None:
    class Vendors(sdk.TracerProvider):
        pass

    provider = Vendors(shutdown_on_exit=False)
    adopt(provider)
    adopt(trace.NoOpTracerProvider())
    assert type(provider) is Vendors


@pytest.mark.parametrize(
    ("owner", "name", "replacement"),
    [
        (sdk.ReadableSpan, "name", property(lambda span: span._title)),
        (sdk.ReadableSpan, "to_json", lambda span: str(span._vendor_field)),
        (sdk.Span, "set_attribute", lambda span, key, value: None),
        (sdk.sampling.StaticSampler, "__init__", None),
    ],
    ids=["another field", "a new field", "a method that does nothing", "no trouble"],
)
def test_an_sdk_that_has_moved_gets_its_own_spans(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, owner: type, name: str, replacement: Any
) -> None:
    guard.forget()
    trial.recording.cache_clear()
    try:
        if replacement is not None:
            monkeypatch.setattr(owner, name, replacement)
        provider = TracerProvider(shutdown_on_exit=False)
        tracers = [provider.get_tracer(name) for name in "ab"]
        moved = replacement is not None
        assert {type(tracer) is sdk.Tracer for tracer in tracers} == {moved}
        assert len(caplog.records) == moved
        assert all("does not fit" in record.message for record in caplog.records)
    finally:
        trial.recording.cache_clear()


def test_a_tracer_that_cannot_be_ours_is_the_sdks(provider: TracerProvider, caplog: pytest.LogCaptureFixture) -> None:
    class Limits(SpanLimits):
        max_span_attributes = property(lambda limits: 1 / 0)

        def __init__(self) -> None:
            pass

    guard.forget()
    provider._span_limits = Limits()
    assert type(provider.get_tracer("shop")) is sdk.Tracer
    assert len(caplog.records) == 1


def test_context_functions_of_another_runtime_context(monkeypatch: pytest.MonkeyPatch) -> None:
    from spanbridge.core import context as ours

    class Another(type(context_api._RUNTIME_CONTEXT)):  # type: ignore[misc]
        pass

    monkeypatch.setattr(context_api, "_RUNTIME_CONTEXT", Another())
    assert ours._variable() is None


def test_limits_given(kept: Kept) -> None:
    provider = TracerProvider(span_limits=SpanLimits(max_events=1, max_links=0), shutdown_on_exit=False)
    span: Any = provider.get_tracer("x").start_span("x", links=[trace.Link(SpanContext(1, 2, is_remote=False))])
    span.add_event("a")
    span.add_event("b")
    span.end()
    assert ([event.name for event in span.events], span.dropped_events) == (["b"], 1)
    assert (span.links, span.dropped_links) == ((), 1)
