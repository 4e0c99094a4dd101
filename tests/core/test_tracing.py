"""The engine with toy functions: one span per call, whatever it returns, and nothing changed for the caller."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from opentelemetry.context import attach, detach, get_current, get_value, set_value
from opentelemetry.instrumentation.utils import suppress_http_instrumentation, suppress_instrumentation
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Decision, Sampler, SamplingResult
from opentelemetry.trace import (
    INVALID_SPAN,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    get_current_span,
    set_span_in_context,
)

from spanbridge.core.tracing import (
    DATABASE,
    HTTP,
    RPC,
    EventScope,
    Operation,
    ending,
    observed,
    opener,
    traced,
    traced_failures,
)
from spanbridge.testing import Spans, TracerProvider
from tests.core.toys import describe, operation, setup

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = pytest.mark.usefixtures("payload")


class BoomError(Exception):
    """What the application raises."""


def boom(*args: Any, **kwargs: Any) -> Any:
    raise BoomError("in the application")


def current_name() -> str | None:
    return getattr(get_current_span(), "name", None)


def wrapped(function: Any, **fields: Any) -> Any:
    return traced(function, setup(), operation(**fields))


# Plain functions.


def test_plain_call(spans: Spans) -> None:
    answer = object()
    inside = []

    def function(first: int, *, second: int = 2) -> object:
        """Do it."""
        inside.append(current_name())
        return answer

    assert wrapped(function, kind=SpanKind.CLIENT)(1, second=3) is answer
    assert current_name() is None
    assert inside == ["toy"]
    assert spans[0] == {
        "name": "toy",
        "kind": "CLIENT",
        "trace_id": 1,
        "span_id": 1,
        "parent_id": None,
        "parent": None,
        "scope": "toys",
        "attributes": {"toy.arguments": 2},
        "status": "UNSET",
        "description": None,
        "events": [],
        "links": [],
        "start": 1,
        "end": 2,
    }


def test_replacement_looks_like_the_original(spans: Spans) -> None:
    def function(first: int, *, second: int = 2) -> None:
        """Do it."""

    replacement = wrapped(function)
    assert inspect.signature(replacement) == inspect.signature(function)
    assert (replacement.__name__, replacement.__doc__) == ("function", "Do it.")
    assert replacement.__wrapped__ is function


def test_exception_passes_unchanged(spans: Spans) -> None:
    error = BoomError("no")
    error.__cause__ = KeyError("why")

    def function() -> None:
        raise error

    with pytest.raises(BoomError) as raised:
        wrapped(function)()
    assert raised.value is error
    assert (type(error.__cause__), error.__suppress_context__) == (KeyError, True)
    [span] = spans
    assert (span["status"], span["description"]) == ("ERROR", "BoomError: no")
    assert span["attributes"]["error.type"] == "BoomError"
    [event] = span["events"]
    assert event["name"] == "exception"
    assert event["attributes"]["exception.message"] == "no"
    assert current_name() is None


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), GeneratorExit(), asyncio.CancelledError()])
def test_exits_and_cancellation_are_no_failures(spans: Spans, error: BaseException) -> None:
    def function() -> None:
        raise error

    with pytest.raises(type(error)) as raised:
        wrapped(function)()
    assert raised.value is error
    assert [(span["status"], span["events"]) for span in spans] == [("UNSET", [])]


def test_exception_whose_text_raises(spans: Spans, caplog: pytest.LogCaptureFixture) -> None:
    class Unspeakable(Exception):
        def __str__(self) -> str:
            raise BoomError

    def function() -> None:
        raise Unspeakable

    with pytest.raises(Unspeakable):
        wrapped(function)()
    assert [(span["status"], span["description"]) for span in spans] == [("ERROR", "Unspeakable")]
    (event,) = spans[0]["events"]
    assert event["attributes"] == {"exception.type": f"{Unspeakable.__module__}.{Unspeakable.__qualname__}"}
    assert caplog.messages == []


def test_wrong_arguments_are_the_applications_own_fault(spans: Spans, caplog: pytest.LogCaptureFixture) -> None:
    def function(first: int) -> None: ...

    def strict(first: int) -> dict[str, Any]:
        return {}

    with pytest.raises(TypeError, match=r"function\(\) missing 1 required positional argument: 'first'"):
        wrapped(function, describe=strict)()
    assert caplog.messages == []
    assert len(spans) == 0


def test_arguments_that_only_we_do_not_know(spans: Spans, caplog: pytest.LogCaptureFixture) -> None:
    def function(first: int, added: int = 0) -> int:
        return added

    def strict(first: int) -> dict[str, Any]:
        return {}

    call = wrapped(function, describe=strict)
    assert (call(1, 2), call(1, added=3)) == (2, 3)
    [message] = caplog.messages
    assert "function: starting the span failed (TypeError" in message


def test_describer_that_declines(spans: Spans) -> None:
    assert wrapped(lambda: 7, describe=lambda: None)() == 7
    assert len(spans) == 0


def test_static_and_class_methods(spans: Spans) -> None:
    class Toy:
        @staticmethod
        def static(value: int) -> int:
            return value

        @classmethod
        def of(cls, value: int) -> tuple[type, int]:
            return cls, value

    for name in ("static", "of"):
        descriptor = vars(Toy)[name]
        setattr(Toy, name, type(descriptor)(wrapped(descriptor.__func__)))
    assert Toy.static(1) == Toy().static(1) == 1
    assert Toy.of(2) == Toy().of(2) == (Toy, 2)
    assert [span["attributes"]["toy.arguments"] for span in spans] == [1, 1, 2, 2]


def test_threads_each_have_their_own_current_span(spans: Spans) -> None:
    barrier = threading.Barrier(4, timeout=10)

    def function(number: int) -> bool:
        barrier.wait()
        return get_current_span().attributes["toy.number"] == number  # type: ignore[attr-defined]

    call = wrapped(function, describe=lambda number: {"toy.number": number})
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(call, range(40)))
    assert len(spans) == 40
    assert {span["parent_id"] for span in spans} == {None}


# Coroutines and futures.


def test_async_function(spans: Spans) -> None:
    async def function(value: int) -> int:
        await asyncio.sleep(0)
        assert current_name() == "toy"
        return value

    replacement = wrapped(function)
    assert inspect.iscoroutinefunction(replacement)

    async def main() -> list[int]:
        answers = await asyncio.gather(*map(replacement, range(5)))
        assert current_name() is None
        return answers

    assert asyncio.run(main()) == [0, 1, 2, 3, 4]
    assert [span["parent_id"] for span in spans] == [None] * 5


def test_async_function_that_raises(spans: Spans) -> None:
    error = BoomError()

    async def function() -> None:
        await asyncio.sleep(0)
        raise error

    async def main() -> None:
        with pytest.raises(BoomError) as raised:
            await wrapped(function)()
        assert raised.value is error

    asyncio.run(main())
    assert [span["status"] for span in spans] == ["ERROR"]


@pytest.mark.parametrize("flavour", ["async def", "returns a coroutine", "returns a task"])
def test_cancellation(spans: Spans, flavour: str) -> None:
    async def function() -> None:
        await asyncio.sleep(60)

    function_of = {
        "async def": function,
        "returns a coroutine": partial(function),
        "returns a task": lambda: asyncio.ensure_future(function()),
    }[flavour]

    async def main() -> None:
        async def application() -> None:
            await wrapped(function_of)()

        task = asyncio.ensure_future(application())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0)

    asyncio.run(main())
    assert [(span["status"], span["events"]) for span in spans] == [("UNSET", [])]


def test_coroutine_returned_by_a_plain_function(spans: Spans) -> None:
    async def work() -> str | None:
        return current_name()

    def function() -> Any:
        return work()

    async def main() -> None:
        coroutine = wrapped(function)()
        assert inspect.iscoroutine(coroutine)
        assert current_name() is None
        assert await coroutine == "toy"
        assert current_name() is None

    asyncio.run(main())
    assert len(spans) == 1


def test_coroutine_that_is_never_awaited_ends_its_span(spans: Spans) -> None:
    async def work() -> None: ...

    coroutine = work()
    wrapped(lambda: coroutine)().close()
    gc.collect()
    assert spans.unfinished == []
    coroutine.close()


def test_awaitable_object_keeps_its_identity(spans: Spans) -> None:
    """Clients return objects that one may await, or enter with `async with`, or ask for things."""

    class Pending:
        def __await__(self) -> Iterator[Any]:
            return asyncio.sleep(0, "done").__await__()

        async def __aenter__(self) -> str:
            return "entered"

        async def __aexit__(self, *exc_info: object) -> None: ...

    pending = Pending()

    async def main() -> None:
        call = wrapped(lambda: pending)
        assert call() is pending
        async with call() as entered:
            assert entered == "entered"
        assert await call() == "done"

    asyncio.run(main())
    assert len(spans) == 3


def test_asyncio_future_keeps_its_identity(spans: Spans) -> None:
    async def main() -> None:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        answered = wrapped(lambda: future)()
        assert answered is future
        assert len(spans) == 0
        future.set_result(7)
        assert await answered == 7
        await asyncio.sleep(0)

    asyncio.run(main())
    assert len(spans) == 1


def test_asyncio_future_that_fails(spans: Spans) -> None:
    error = BoomError()

    async def main() -> None:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        answered = wrapped(lambda: future)()
        future.set_exception(error)
        with pytest.raises(BoomError) as raised:
            await answered
        assert raised.value is error
        await asyncio.sleep(0)

    asyncio.run(main())
    assert [span["status"] for span in spans] == ["ERROR"]


def test_asyncio_still_reports_an_exception_that_nobody_retrieved(spans: Spans) -> None:
    reported = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: reported.append(context["exception"]))
        wrapped(loop.create_future)().set_exception(BoomError("nobody looks"))
        await asyncio.sleep(0)
        gc.collect()

    asyncio.run(main())
    assert [type(error) for error in reported] == [BoomError]


def test_concurrent_future_is_a_plain_result(spans: Spans) -> None:
    future: Future[int] = Future()
    assert wrapped(lambda: future)() is future
    assert len(spans) == 1


# Failures alone.


@pytest.mark.parametrize("flavour", ["plain", "coroutine"])
def test_only_failures_make_spans(flavour: str, spans: Spans, caplog: pytest.LogCaptureFixture) -> None:
    error: BaseException | None = None

    def function() -> str:
        assert current_name() is None
        if error is not None:
            raise error
        return "fine"

    async def function_async() -> str:
        return function()

    function_to_call = function if flavour == "plain" else function_async
    call = traced_failures(function_to_call, setup(), operation())
    assert inspect.iscoroutinefunction(call) is inspect.iscoroutinefunction(function_to_call)

    def outcome() -> Any:
        return call() if flavour == "plain" else asyncio.run(call())

    assert outcome() == "fine"
    assert len(spans) == 0
    error = BoomError()
    with pytest.raises(BoomError) as raised:
        outcome()
    assert raised.value is error
    [span] = spans
    assert span["status"] == "ERROR"
    error = SystemExit()
    with pytest.raises(SystemExit):
        outcome()
    with suppress_instrumentation(), pytest.raises(SystemExit):
        outcome()
    assert len(spans) == 1
    assert caplog.messages == []


# Generators.


def test_generator(spans: Spans) -> None:
    log: list[Any] = []

    def function() -> Iterator[Any]:
        log.append(current_name())
        received = yield 1
        log.append((received, current_name()))
        try:
            yield 2
        except KeyError as error:
            log.append(error)
        yield 3
        return "the end"

    thrown = KeyError("thrown in")
    generator = wrapped(function)()
    assert inspect.isgenerator(generator)
    assert next(generator) == 1
    assert current_name() is None
    assert len(spans) == 0
    assert generator.send("sent") == 2
    assert generator.throw(thrown) == 3
    with pytest.raises(StopIteration) as stop:
        next(generator)
    assert stop.value.value == "the end"
    assert log == ["toy", ("sent", "toy"), thrown]
    assert [span["status"] for span in spans] == ["UNSET"]


def test_generator_that_is_left_early(spans: Spans) -> None:
    closed = []

    def function() -> Iterator[int]:
        try:
            yield 1
            yield 2
        finally:
            closed.append(True)

    generator = wrapped(function)()
    next(generator)
    generator.close()
    assert closed == [True]
    assert [span["status"] for span in spans] == ["UNSET"]


def test_a_span_that_is_current_in_a_generator_left_early_leaks_nothing(spans: Spans) -> None:
    def numbers() -> Iterator[int]:
        with spans.provider.get_tracer("test").start_as_current_span("inner"):
            yield 1

    async def numbers_async() -> AsyncIterator[int]:
        with spans.provider.get_tracer("test").start_as_current_span("inner"):
            yield 1

    async def leave_early() -> None:
        steps = traced(numbers_async, setup(), operation())()
        await anext(steps)
        await steps.aclose()
        assert not trace.get_current_span().get_span_context().is_valid

    steps = traced(numbers, setup(), operation())()
    next(steps)
    steps.close()
    assert not trace.get_current_span().get_span_context().is_valid
    asyncio.run(leave_early())
    assert [span["parent"] for span in spans] == ["toy", None, "toy", None]


def test_generator_that_raises(spans: Spans, caplog: pytest.LogCaptureFixture) -> None:
    error = BoomError()

    def function() -> Iterator[int]:
        yield 1
        raise error

    with pytest.raises(BoomError) as raised:
        list(wrapped(function)())
    assert raised.value is error
    assert [span["status"] for span in spans] == ["ERROR"]
    assert caplog.messages == []


def test_generator_that_nobody_starts_ends_its_span(spans: Spans) -> None:
    def function() -> Iterator[int]:
        return (number for number in range(1))

    wrapped(function)()
    gc.collect()
    assert spans.unfinished == []


def test_generators_may_interleave(spans: Spans) -> None:
    def function(name: str) -> Iterator[str]:
        for _ in range(2):
            assert current_name() == name
            yield name

    call = wrapped(function, name=lambda record: record["name"], describe=lambda name: {"name": name})
    first, second = call("first"), call("second")
    with trace.get_tracer("application").start_as_current_span("outer"):
        assert [next(first), next(second), next(first), next(second)] == ["first", "second"] * 2
        assert current_name() == "outer"
    list(first)
    list(second)
    assert {span["parent"] for span in spans} == {"outer", None}  # a generator begins with its first step


def test_generator_of_a_plain_function_begins_with_the_call(spans: Spans) -> None:
    def function() -> Iterator[str | None]:
        return (current_name() for _ in range(2))

    generator = wrapped(function)()
    with trace.get_tracer("application").start_as_current_span("outer"):
        assert list(generator) == ["toy", "toy"]
    assert [(span["name"], span["parent"]) for span in spans] == [("toy", None), ("outer", None)]


def test_generator_functions_stay_generator_functions(spans: Spans) -> None:
    def function() -> Iterator[int]:
        yield 1

    async def function_async() -> AsyncIterator[int]:
        yield 1

    assert inspect.isgeneratorfunction(wrapped(function))
    assert inspect.isasyncgenfunction(wrapped(function_async))
    with suppress_instrumentation():
        assert list(wrapped(function)()) == [1]
        assert asyncio.run(anext(wrapped(function_async)())) == 1
    assert len(spans) == 0


def test_generator_goes_from_one_thread_to_another(spans: Spans, caplog: pytest.LogCaptureFixture) -> None:
    def function() -> Iterator[int]:
        yield 1
        yield 2

    generator = wrapped(function)()
    assert next(generator) == 1
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(list, generator).result() == [2]
    assert len(spans) == 1
    assert caplog.messages == []


def test_async_generator(spans: Spans, caplog: pytest.LogCaptureFixture) -> None:
    log: list[Any] = []

    async def function() -> AsyncIterator[Any]:
        log.append(current_name())
        received = yield 1
        log.append((received, current_name()))
        await asyncio.sleep(0)
        try:
            yield 2
        except KeyError:
            yield 3

    async def main() -> None:
        generator = wrapped(function)()
        assert inspect.isasyncgen(generator)
        assert await generator.asend(None) == 1
        assert current_name() is None
        assert await generator.asend("sent") == 2
        assert await generator.athrow(KeyError()) == 3
        assert len(spans) == 0
        with pytest.raises(StopAsyncIteration):
            await anext(generator)
        assert len(spans) == 1
        left = wrapped(function)()
        await anext(left)
        await left.aclose()

    asyncio.run(main())
    assert log == ["toy", ("sent", "toy"), "toy"]
    assert [span["status"] for span in spans] == ["UNSET", "UNSET"]
    assert caplog.messages == []


def test_async_generator_that_raises(spans: Spans) -> None:
    error = BoomError()

    async def function() -> AsyncIterator[int]:
        yield 1
        raise error

    async def main() -> None:
        with pytest.raises(BoomError) as raised:
            async for _ in wrapped(function)():
                pass
        assert raised.value is error

    asyncio.run(main())
    assert [span["status"] for span in spans] == ["ERROR"]


# Streams: results that go on after the call.


class Stream:
    """A result that the application reads later."""

    def __init__(self, scope: Any, result: Any) -> None:
        self.scope, self.result = scope, result

    def read(self) -> Any:
        self.scope.complete(self.result)
        return self.result


def test_stream_ends_the_span_when_it_is_read(spans: Spans) -> None:
    stream = wrapped(lambda: b"body", stream=Stream)()
    assert current_name() is None
    assert len(spans) == 0
    assert stream.read() == b"body"
    assert len(spans) == 1


def test_stream_that_declines(spans: Spans) -> None:
    assert wrapped(lambda: b"body", stream=lambda scope, result: None)() == b"body"
    assert len(spans) == 1


def test_stream_of_an_async_function(spans: Spans) -> None:
    async def function() -> bytes:
        return b"body"

    async def main() -> None:
        stream = await wrapped(function, stream=Stream)()
        assert len(spans) == 0
        assert stream.read() == b"body"

    asyncio.run(main())
    assert len(spans) == 1


# Layers.


def nested(*layers: dict[str, Any]) -> Any:
    """Stack toy calls, the outermost first."""
    call = current_name
    for number, fields in reversed(list(enumerate(layers))):
        inner = call
        fields.setdefault("name", lambda record, number=number: f"layer {number}")
        call = wrapped(lambda inner=inner: inner(), **fields)
    return call


def test_outermost_of_a_layer_wins(spans: Spans) -> None:
    assert nested({"layer": HTTP}, {"layer": HTTP}, {"layer": HTTP})() == "layer 0"
    assert [span["name"] for span in spans] == ["layer 0"]


def test_other_layers_are_children(spans: Spans) -> None:
    nested({"layer": RPC}, {"layer": HTTP}, {"layer": DATABASE})()
    assert [(span["name"], span["parent"]) for span in spans] == [
        ("layer 2", "layer 1"),
        ("layer 1", "layer 0"),
        ("layer 0", None),
    ]


def test_a_layer_covers_those_below(spans: Spans) -> None:
    nested({"layer": DATABASE, "covers": HTTP | DATABASE}, {"layer": HTTP})()
    assert [span["name"] for span in spans] == ["layer 0"]


def test_inner_layer_enriches_the_outer_span(spans: Spans) -> None:
    nested(
        {"layer": DATABASE},
        {
            "layer": DATABASE,
            "enrich": lambda span: span.set_attribute("server.address", "db"),
        },
    )()
    assert spans[0]["attributes"]["server.address"] == "db"


def test_enrichment_that_fails(spans: Spans, caplog: pytest.LogCaptureFixture) -> None:
    nested({"layer": DATABASE}, {"layer": DATABASE, "enrich": boom})()
    assert len(spans) == 1
    assert len(caplog.messages) == 1


def test_server_reopens_the_layers(spans: Spans) -> None:
    """In-process test clients and local services: a client's call may end in a server of the same process."""
    nested({"layer": HTTP}, {"kind": SpanKind.SERVER}, {"layer": HTTP})()
    assert [span["name"] for span in spans] == ["layer 2", "layer 1", "layer 0"]


def test_a_layer_is_open_only_while_the_call_runs(spans: Spans) -> None:
    call = wrapped(lambda: None, layer=HTTP)
    call()
    call()
    assert len(spans) == 2


def test_layers_of_concurrent_tasks_are_their_own(spans: Spans) -> None:
    async def function() -> None:
        await asyncio.sleep(0.01)

    call = wrapped(function, layer=HTTP)

    async def main() -> None:
        await asyncio.gather(call(), call(), call())

    asyncio.run(main())
    assert len(spans) == 3


def test_parent_and_kind_are_the_conventions_to_choose(spans: Spans) -> None:
    remote = NonRecordingSpan(SpanContext(77, 99, is_remote=True, trace_flags=TraceFlags(1)))

    def parent(record: Any, context: Any) -> Any:
        if get_current_span(context) is not INVALID_SPAN:
            return context, SpanKind.INTERNAL
        return set_span_in_context(remote, context), SpanKind.SERVER

    fields = {"kind": SpanKind.SERVER, "parent": parent}
    nested(fields, dict(fields))()
    inner, outer = spans
    assert (outer["kind"], outer["trace_id"], outer["parent_id"], outer["parent"]) == ("SERVER", 77, 99, None)
    assert (inner["kind"], inner["parent"]) == ("INTERNAL", "layer 0")


# Straight calls: suppressed, no provider, unsampled.


def counting(calls: list[str]) -> dict[str, Any]:
    def watch(name: str, answer: Any) -> Any:
        return lambda *args, **kwargs: calls.append(name) or answer

    fields = {"describe": {}, "name": "toy", "attributes": {}, "opened": None, "succeeded": None, "failed": None}
    return {name: watch(name, answer) for name, answer in fields.items()}


def test_suppressed(spans: Spans) -> None:
    calls: list[str] = []
    call = wrapped(lambda: 7, **counting(calls))
    with suppress_instrumentation():
        assert call() == 7
    assert (calls, len(spans)) == ([], 0)


@pytest.mark.parametrize(
    ("fields", "count"), [({"layer": HTTP}, 0), ({"kind": SpanKind.SERVER}, 0), ({"layer": DATABASE}, 1)]
)
def test_http_suppressed(spans: Spans, fields: dict[str, Any], count: int) -> None:
    with suppress_http_instrumentation():
        assert wrapped(lambda: 7, **fields)() == 7
    assert len(spans) == count


def test_closed_source_makes_plain_calls(spans: Spans) -> None:
    calls: list[str] = []
    decided = setup()
    call = traced(lambda: 7, decided, operation(**counting(calls)))
    decided.source.close()
    assert call() == 7
    assert (calls, len(spans)) == ([], 0)


def test_no_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    calls: list[str] = []
    call = traced(lambda: 7, setup(), operation(**counting(calls)))
    assert call() == 7
    assert calls == []
    late = Spans()
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", late.provider)
    assert call() == 7
    assert len(late) == 1


def test_unsampled_parent_costs_no_attribute_and_is_propagated(spans: Spans) -> None:
    calls: list[str] = []
    carriers: list[SpanContext] = []

    def inject(record: Any, context: Any) -> None:
        carriers.append(get_current_span(context).get_span_context())

    call = wrapped(lambda: get_current_span().get_span_context(), inject=inject, **counting(calls))
    parent = NonRecordingSpan(SpanContext(77, 99, is_remote=False))
    token = attach(set_span_in_context(parent))
    try:
        inside = call()
    finally:
        detach(token)
    assert calls == ["describe", "name"]
    assert len(spans) == 0
    assert carriers == [inside]
    assert inside.trace_id == 77
    assert not inside.trace_flags.sampled


def test_sampler_that_keeps_spans_beneath_an_unsampled_parent() -> None:
    spans = Spans(ALWAYS_ON)
    token = attach(set_span_in_context(NonRecordingSpan(SpanContext(77, 99, is_remote=False))))
    try:
        traced(lambda: 7, setup(spans.provider), operation())()
    finally:
        detach(token)
    assert [span["attributes"] for span in spans] == [{"toy.arguments": 0}]


def test_sampler_sees_the_start_attributes() -> None:
    seen: list[Any] = []

    class Nosy(Sampler):
        def should_sample(self, *args: Any) -> Any:
            *_, attributes, _ = args
            seen.append(attributes)
            return SamplingResult(Decision.DROP, attributes)

        def get_description(self) -> str:
            return "nosy"

    calls: list[str] = []
    fields = {**counting(calls), "attributes": lambda record: {"url.path": "/"}}
    traced(lambda: 7, setup(Spans(Nosy()).provider), operation(**fields))()
    assert seen == [{"url.path": "/"}]
    assert not set(calls) & {"opened", "succeeded"}


def test_unsampled_layers_stay_closed() -> None:
    """What is beneath a call that is not sampled is not sampled, and costs no description."""
    calls: list[str] = []
    provider = Spans(ALWAYS_OFF).provider
    inner = traced(lambda: 7, setup(provider), operation(layer=HTTP, **counting(calls)))
    assert traced(inner, setup(provider), operation(layer=HTTP))() == 7
    assert calls == []


# Faults: ours, the SDK's, the user's.


FUNCTIONS = ("describe", "name", "attributes", "parent", "inject", "opened", "prepare", "succeeded", "stream")


@pytest.mark.parametrize("field", FUNCTIONS)
def test_fault_in_a_convention(spans: Spans, field: str, caplog: pytest.LogCaptureFixture) -> None:
    answer = object()
    call = wrapped(lambda: answer, **{field: boom})
    assert call() is answer
    assert call() is answer
    assert current_name() is None
    [message] = caplog.messages
    assert "BoomError" in message


def test_fault_in_describing_a_failure(spans: Spans, caplog: pytest.LogCaptureFixture) -> None:
    error = KeyError("of the application")

    def function() -> None:
        raise error

    def failed(*args: Any) -> None:
        raise BoomError

    with pytest.raises(KeyError) as raised:
        wrapped(function, failed=failed)()
    assert raised.value is error
    assert error.__context__ is None
    assert len(spans) == 1
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("answer", [None, 7, "text", [("a", "pair")], {"key": object()}, {1: 2}])
def test_attributes_of_any_kind(spans: Spans, answer: Any) -> None:
    assert wrapped(lambda: 7, attributes=lambda record: answer)() == 7


class Processor(SpanProcessor):
    def __init__(self, where: str) -> None:
        self.where = where

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        if self.where == "start":
            boom()

    def on_end(self, span: Any) -> None:
        if self.where == "end":
            boom()


class BrokenSampler(Sampler):
    should_sample = boom

    def get_description(self) -> str:
        return "broken"


class BrokenTracer(trace.NoOpTracer):
    start_span = boom


class BrokenProvider(trace.TracerProvider):
    get_tracer = boom


class Provider(trace.TracerProvider):
    def get_tracer(self, *args: Any, **kwargs: Any) -> Any:
        return BrokenTracer()


def broken_provider(what: str) -> Any:
    if what in {"start", "end"}:
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(Processor(what))
        return provider
    if what == "sampler":
        return TracerProvider(sampler=BrokenSampler(), shutdown_on_exit=False)
    return {"tracer": Provider, "provider": BrokenProvider}[what]()


@pytest.mark.parametrize("what", ["start", "end", "sampler", "tracer", "provider"])
def test_broken_sdk(what: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", broken_provider(what))
    error = KeyError()

    def function(fails: bool) -> int:
        if fails:
            raise error
        return 7

    async def asynchronous(fails: bool) -> int:
        return function(fails)

    before = get_current()
    call, call_async = wrapped(function), wrapped(asynchronous)
    assert call(fails=False) == 7
    assert asyncio.run(call_async(fails=False)) == 7
    with pytest.raises(KeyError) as raised:
        call(fails=True)
    assert raised.value is error
    assert get_current() == before
    assert 1 <= len(caplog.messages) <= 2  # once per site


def test_provider_that_breaks_late(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    call = wrapped(lambda: 7)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", BrokenProvider())
    assert call() == 7
    assert len(caplog.messages) == 1


def test_foreign_provider_and_spans(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever implements the API will do: not only the SDK's spans."""

    class Foreign(trace.TracerProvider):
        def get_tracer(self, *args: Any, **kwargs: Any) -> Any:
            return trace.NoOpTracer()

    monkeypatch.setattr(trace, "_TRACER_PROVIDER", Foreign())
    assert wrapped(lambda: 7, layer=HTTP)() == 7
    assert caplog.messages == []


def test_fork_of_context_by_the_application(spans: Spans, caplog: pytest.LogCaptureFixture) -> None:
    """A generator that runs each of its steps in a context of its own, as frameworks do."""

    def function() -> Iterator[int]:
        yield 1
        yield 2

    generator = wrapped(function)()
    assert contextvars.copy_context().run(next, generator) == 1
    assert contextvars.copy_context().run(next, generator) == 2
    assert contextvars.copy_context().run(list, generator) == []
    assert len(spans) == 1
    assert caplog.messages == []


def test_context_left_attached_by_the_application_is_taken_back(spans: Spans) -> None:
    def function() -> None:
        attach(set_value("left", "behind"))

    wrapped(function)()
    assert get_value("left") is None


# The parts that instrumentors use by themselves.


def test_prepare_may_change_the_arguments(spans: Spans) -> None:
    def prepare(scope: Any) -> None:
        scope.args = (*scope.args, "added")
        scope.kwargs = {**scope.kwargs, "key": scope.span.get_span_context().span_id}

    assert wrapped(lambda *args, **kwargs: (args, kwargs), prepare=prepare)(1) == ((1, "added"), {"key": 1})


def test_opener(spans: Spans) -> None:
    begin = opener(setup(), operation(), "toy: site")
    scope = begin((1, 2), {})
    assert scope is not None
    assert current_name() == "toy"
    scope.complete("result")
    assert current_name() is None
    assert spans[0]["attributes"] == {"toy.arguments": 2}


def test_observed(spans: Spans, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Any] = []
    call = observed(
        lambda *args: "answer",
        setup(),
        before=lambda *args: seen.append(("before", *args)),
        after=lambda result, *args: seen.append(("after", result, *args)),
    )
    assert call(1, 2) == "answer"
    assert seen == [("before", 1, 2), ("after", "answer", 1, 2)]
    assert observed(lambda: 7, setup(), before=boom, after=boom)() == 7
    assert len(caplog.messages) == 1
    with pytest.raises(BoomError):
        observed(boom, setup(), after=lambda *args: seen.clear())()
    assert len(seen) == 2


def test_observed_coroutine_functions(spans: Spans) -> None:
    seen: list[Any] = []

    async def double(value: int) -> int:
        seen.append("call")
        return 2 * value

    call = observed(double, setup(), before=lambda value: seen.append(value), after=lambda *args: seen.append(args))
    assert inspect.iscoroutinefunction(call)
    assert asyncio.run(call(3)) == 6
    assert seen == [3, "call", (6, 3)]
    assert asyncio.run(observed(double, setup(), before=boom, after=boom)(4)) == 8
    assert len(spans) == 0


def test_observed_without_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    assert observed(lambda: 7, setup(), before=boom)() == 7


def test_callables_of_all_kinds(spans: Spans) -> None:
    class Callable:
        def __call__(self, value: int) -> int:
            return value

    for function in (Callable(), partial(int, "7"), "x".join, len):
        argument = ["a"]
        assert wrapped(function)(*([] if isinstance(function, partial) else [argument])) is not None
    assert len(spans) == 4


def test_status_of_the_application_stays(spans: Spans) -> None:
    def function() -> None:
        get_current_span().set_status(StatusCode.OK)

    wrapped(function)()
    assert spans[0]["status"] == "OK"


def test_operations_are_comparable() -> None:
    assert operation() == operation()
    assert isinstance(operation(describe=describe), Operation)


def test_a_scope_that_nobody_keeps_is_current_no_more(spans: Spans) -> None:
    before = get_current()
    scope = opener(setup(), operation(), "toy: site")((1,), {})
    assert scope is not None
    assert get_current() is scope.context
    del scope
    assert get_current() is before
    assert len(spans) == 1


def event_scope(site: str) -> Any:
    return opener(setup(), operation(), site, scope_class=EventScope)((), {})


def test_events(spans: Spans) -> None:
    before, scope = get_current(), event_scope("toy: site")
    heard: list[Any] = []
    ending(lambda *args, **kwargs: heard.append((args, kwargs)), "toy: site")(1, key=2)
    assert heard == [((1,), {"key": 2})]
    assert current_name() == "toy"
    ending(scope.complete, "toy: site")("result")
    assert get_current() is before
    assert len(spans) == 1


def test_end_of_events_that_fails(spans: Spans, caplog: pytest.LogCaptureFixture) -> None:
    before = get_current()
    outer, inner = event_scope("toy: outer"), event_scope("toy: inner")
    for hear in (ending(boom, "toy: inner"), ending(boom, "toy: outer")):
        hear()
    assert (inner.ended, outer.ended) == (True, True)
    assert get_current() is before
    assert len(spans) == 2
    assert len(caplog.messages) == 2


def test_end_of_events_that_fails_where_something_else_is_current(spans: Spans) -> None:
    ending(boom, "toy: site")()
    scope = event_scope("toy: site")
    ending(boom, "toy: another")()
    with trace.get_tracer("toys").start_as_current_span("the application's"):
        ending(boom, "toy: site")()
        assert current_name() == "the application's"
    assert current_name() == "toy"
    assert not scope.ended
    scope.end()


def test_event_scope_that_nobody_keeps_is_current_no_more(spans: Spans) -> None:
    before, scope = get_current(), event_scope("toy: site")
    assert get_current() is scope.context
    del scope
    assert get_current() is before
    assert len(spans) == 1
