"""grpc on loopback with generic handlers, from 1.49.1 on: all kinds of calls, both sides, plain and asyncio."""

from __future__ import annotations

import asyncio
import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.utils import suppress_instrumentation

pytest.importorskip("grpc")

import grpc
import grpc.aio

from spanbridge.conventions import rpc
from spanbridge.instrumentors.grpc import (
    GrpcAioInstrumentorClient,
    GrpcAioInstrumentorServer,
    GrpcInstrumentorClient,
    GrpcInstrumentorServer,
    aio_client_interceptors,
    aio_server_interceptor,
    client_interceptor,
    filters,
    server_interceptor,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from spanbridge.testing import Payload, Spans

ALL = (GrpcInstrumentorClient, GrpcInstrumentorServer, GrpcAioInstrumentorClient, GrpcAioInstrumentorServer)
KINDS = {
    "Unary": ("unary_unary", "unary"),
    "Down": ("unary_stream", "server_streaming"),
    "Up": ("stream_unary", "client_streaming"),
    "Both": ("stream_stream", "bidi_streaming"),
}
RELEASED = threading.Event()


def answer(request: bytes, context: Any) -> bytes:
    if request == b"missing":
        context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")
    if request == b"broken":
        context.set_code(grpc.StatusCode.INTERNAL)
        context.set_details("out of order")
    if request == b"crash":
        raise ValueError("of the handler")
    return request


def answers(request: bytes, context: Any) -> Iterator[bytes]:
    yield request
    if request == b"slow":
        RELEASED.wait(30)
    yield answer(request, context)


HANDLERS: dict[str, Callable[..., Any]] = {
    "Unary": answer,
    "Down": answers,
    "Up": lambda requests, context: b"".join(requests),
    "Both": lambda requests, context: (request for request in requests),
}


async def answer_async(request: bytes, context: Any) -> bytes:
    if request == b"missing":
        await context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")
    if request == b"crash":
        raise ValueError("of the handler")
    return request


async def answers_async(request: bytes, context: Any) -> AsyncIterator[bytes]:
    yield request
    yield await answer_async(request, context)


async def joined_async(requests: Any, context: Any) -> bytes:
    return b"".join([request async for request in requests])


async def echoed_async(requests: Any, context: Any) -> None:
    async for request in requests:
        await context.write(request)


ASYNC_HANDLERS: dict[str, Callable[..., Any]] = {
    "Unary": answer_async,
    "Down": answers_async,
    "Up": joined_async,
    "Both": echoed_async,
    "Plain": answer,
}


class Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, behaviors: dict[str, Callable[..., Any]]) -> None:
        self.behaviors = behaviors

    def service(self, details: Any) -> Any:
        name = details.method.rpartition("/")[2]
        if name not in self.behaviors:
            return None
        kind = KINDS.get(name, ("unary_unary",))[0]
        return getattr(grpc, f"{kind}_rpc_method_handler")(self.behaviors[name])


@contextmanager
def serving(**options: Any) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(2), **options)
    server.add_generic_rpc_handlers((Handlers(HANDLERS),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


@asynccontextmanager
async def serving_async(**options: Any) -> AsyncIterator[str]:
    server = grpc.aio.server(**options)
    server.add_generic_rpc_handlers((Handlers(ASYNC_HANDLERS),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


@pytest.fixture
def instrumented(spans: Spans) -> Iterator[None]:
    RELEASED.clear()
    for instrumentor in ALL:
        instrumentor().instrument()
    yield
    RELEASED.set()
    for instrumentor in ALL:
        instrumentor().uninstrument()


@pytest.fixture
def channel(instrumented: None) -> Iterator[Any]:
    with serving() as target, grpc.insecure_channel(target) as channel:
        yield channel


def method(channel: Any, name: str) -> Any:
    return getattr(channel, KINDS[name][0])(f"/shop.Cart/{name}")


def settled(spans: Spans, count: int) -> list[dict[str, Any]]:
    """Wait for spans that end in other threads; the client's first."""
    from tests.servers import wait_for

    wait_for(lambda: len(spans) >= count, f"{count} spans")
    return sorted(spans, key=lambda span: span["kind"])


CALLS: dict[str, Callable[[Any], Any]] = {
    "Unary": lambda call: call(b"one"),
    "Down": lambda call: list(call(b"one")),
    "Up": lambda call: call(iter([b"one", b"two"])),
    "Both": lambda call: list(call(iter([b"one", b"two"]))),
}
ANSWERS = {"Unary": b"one", "Down": [b"one", b"one"], "Up": b"onetwo", "Both": [b"one", b"two"]}


@pytest.mark.parametrize("name", KINDS)
def test_kinds(channel: Any, spans: Spans, name: str, payload: Payload) -> None:
    assert CALLS[name](method(channel, name)) == ANSWERS[name]
    client, server = settled(spans, 2)
    assert (client["name"], client["kind"], client["status"]) == (f"shop.Cart/{name}", "CLIENT", "UNSET")
    assert (server["name"], server["kind"], server["parent_id"]) == (f"shop.Cart/{name}", "SERVER", client["span_id"])
    port = client["attributes"]["server.port"]
    shared = {
        "rpc.system": "grpc",
        "rpc.service": "shop.Cart",
        "rpc.method": name,
        "rpc.grpc.status_code": 0,
        "grpc.method.kind": KINDS[name][1],
    }
    assert client["attributes"] == {**shared, "server.address": "127.0.0.1", "server.port": port}
    assert server["attributes"].pop("user_agent.original").startswith("grpc-python/")
    assert server["attributes"].pop("network.peer.port") > 0
    assert server["attributes"] == {**shared, "network.peer.address": "127.0.0.1"}
    mapped = {row["service"]: row for chunk in payload() for row in chunk}
    row = mapped["grpc-client"]
    assert (row["name"], row["resource"], row["type"]) == ("grpc", f"/shop.Cart/{name}", "grpc")
    expected = {
        "component": "grpc",
        "grpc.method.path": f"/shop.Cart/{name}",
        "grpc.method.package": "shop",
        "grpc.method.service": "Cart",
        "grpc.method.name": name,
        "grpc.method.kind": KINDS[name][1],
        "grpc.status.code": "StatusCode.OK",
        "grpc.host": "127.0.0.1",
        "network.destination.ip": "127.0.0.1",
        "rpc.service": "shop.Cart",
    }
    assert {key: row["meta"].get(key) for key in expected} == expected
    assert mapped.keys() == {"grpc-client", "grpc-server"}


def test_ways_of_a_unary_call(channel: Any, spans: Spans) -> None:
    for name, request in (("Unary", b"one"), ("Up", [b"one"])):
        call = method(channel, name)
        response, done = call.with_call(iter(request) if name == "Up" else request)
        assert (response, done.code()) == (b"one", grpc.StatusCode.OK)
        future = call.future(iter(request) if name == "Up" else request)
        assert future.result(30) == b"one"
    assert len(settled(spans, 8)) == 8
    assert {span["attributes"]["rpc.grpc.status_code"] for span in spans} == {0}


def test_requests_by_keyword(channel: Any, spans: Spans) -> None:
    assert method(channel, "Unary")(request=b"one") == b"one"
    assert method(channel, "Up")(request_iterator=iter([b"one"])) == b"one"
    assert len(settled(spans, 4)) == 4


@pytest.mark.parametrize("name", KINDS)
def test_an_end_that_is_not_understood(
    channel: Any, spans: Spans, name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def boom(code: Any) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(rpc, "number", boom)
    call = method(channel, name)
    assert CALLS[name](call) == ANSWERS[name]
    if hasattr(call, "future"):
        assert call.future(iter([b"one"]) if name == "Up" else b"one").result(30) == b"one"
    assert not [message for message in caplog.messages if "callback" in message]
    settled(spans, 2)


@pytest.mark.parametrize(
    ("request_", "code", "server_status", "events", "error"),
    [
        (b"missing", "NOT_FOUND", "UNSET", [], "StatusCode.NOT_FOUND"),
        (b"broken", "INTERNAL", "ERROR", [], "StatusCode.INTERNAL"),
        (b"crash", "UNKNOWN", "ERROR", ["exception"], "builtins.ValueError"),
    ],
)
@pytest.mark.parametrize("name", ["Unary", "Down"])
def test_failures(
    channel: Any,
    spans: Spans,
    payload: Payload,
    name: str,
    request_: bytes,
    code: str,
    server_status: str,
    events: list[str],
    error: str,
) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        list(method(channel, name)(request_))
    assert raised.value.code() is grpc.StatusCode[code]
    client, server = settled(spans, 2)
    assert (client["status"], client["attributes"]["error.type"]) == ("ERROR", code)
    assert client["description"] == raised.value.details()
    number = grpc.StatusCode[code].value[0]
    assert client["attributes"]["rpc.grpc.status_code"] == server["attributes"]["rpc.grpc.status_code"] == number
    assert (server["status"], [event["name"] for event in server["events"]]) == (server_status, events)
    mapped = {row["service"]: row for chunk in payload() for row in chunk}
    assert {service: (row["error"], row["meta"]["error.type"]) for service, row in mapped.items()} == {
        "grpc-client": (1, f"StatusCode.{code}"),
        "grpc-server": (1, error),
    }
    if not events:  # an exception has a message of its own
        assert {row["meta"]["error.message"] for row in mapped.values()} == {raised.value.details()}


def test_nobody_there_and_no_such_method(channel: Any, spans: Spans) -> None:
    with pytest.raises(grpc.RpcError):
        channel.unary_unary("/shop.Cart/Absent")(b"one")
    with grpc.insecure_channel("127.0.0.1:1") as nobody, pytest.raises(grpc.RpcError):
        method(nobody, "Unary")(b"one", timeout=5)
    assert [span["attributes"]["error.type"] for span in spans] == ["UNIMPLEMENTED", "UNAVAILABLE"]


def test_a_stream_that_is_given_up(channel: Any, spans: Spans) -> None:
    stream = method(channel, "Down")(b"slow")
    assert next(stream) == b"slow"
    assert len(spans) == 0
    assert trace.get_current_span() is trace.INVALID_SPAN
    stream.cancel()
    RELEASED.set()
    client = next(span for span in settled(spans, 2) if span["kind"] == "CLIENT")
    assert client["attributes"]["error.type"] == "CANCELLED"
    RELEASED.clear()
    spans.clear()
    next(method(channel, "Down")(b"slow"))  # and nobody keeps the rest
    gc.collect()
    RELEASED.set()
    settled(spans, 2)


def test_metadata_of_the_application(channel: Any, spans: Spans) -> None:
    given = [
        ("traceparent", "00-" + "1" * 32 + "-" + "2" * 16 + "-01"),
        ("tenant", "a"),
        ("tenant", "b"),
        ("x-bin", b"\x00"),
    ]
    seen: list[tuple[str, Any]] = []

    class See(grpc.ServerInterceptor):  # type: ignore[misc]
        def intercept_service(self, continuation: Any, details: Any) -> Any:
            seen.extend((pair.key, pair.value) for pair in details.invocation_metadata)
            return continuation(details)

    with serving(interceptors=[See()]) as target, grpc.insecure_channel(target) as other:
        method(other, "Unary")(b"one", None, given)
    assert len(given) == 4
    assert [value for key, value in seen if key == "tenant"] == ["a", "b"]
    assert ("x-bin", b"\x00") in seen
    parents = [value for key, value in seen if key == "traceparent"]
    client = settled(spans, 2)[0]
    assert len(parents) == 1
    assert f"{client['span_id']:016x}" in parents[0]


class Order(
    grpc.UnaryUnaryClientInterceptor,  # type: ignore[misc]
    grpc.ServerInterceptor,  # type: ignore[misc]
):
    """Notes who is called when, and whether a span is current."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name = name
        self.log = log

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        self.log.append(self.name)
        return continuation(details, request)

    def intercept_service(self, continuation: Any, details: Any) -> Any:
        self.log.append(self.name)
        handler = continuation(details)

        def behavior(request: Any, context: Any) -> Any:
            self.log.append(f"{self.name} in {getattr(trace.get_current_span(), 'name', None)}")
            return handler.unary_unary(request, context)

        return grpc.unary_unary_rpc_method_handler(behavior)


def test_interceptors_keep_their_order(instrumented: None, spans: Spans) -> None:
    log: list[str] = []
    with (
        serving(interceptors=[Order("third", log), Order("fourth", log)]) as target,
        grpc.insecure_channel(target) as channel,
    ):
        intercepted = grpc.intercept_channel(channel, Order("first", log), Order("second", log))
        assert method(intercepted, "Unary")(b"one") == b"one"
    assert log == ["first", "second", "third", "fourth", "third in shop.Cart/Unary", "fourth in shop.Cart/Unary"]
    assert len(settled(spans, 2)) == 2


def test_channels_and_servers_made_before(spans: Spans) -> None:
    with serving() as target, grpc.insecure_channel(target) as channel:
        call = method(channel, "Unary")
        call(b"one")
        GrpcInstrumentorClient().instrument()
        GrpcInstrumentorServer().instrument()
        try:
            call(b"one")
            assert len(settled(spans, 2)) == 2
        finally:
            GrpcInstrumentorServer().uninstrument()
            GrpcInstrumentorClient().uninstrument()
        call(b"one")
    assert len(spans) == 2


def test_filters_and_hooks(spans: Spans) -> None:
    seen: list[Any] = []
    GrpcInstrumentorClient(filter_=filters.negate(filters.method_prefix("U"))).instrument(
        request_hook=lambda span, request: seen.append(request),
        response_hook=lambda span, response: seen.append(response),
    )
    GrpcInstrumentorServer().instrument(excluded_services="other.Service, shop.Cart")
    try:
        with serving() as target, grpc.insecure_channel(target) as channel:
            for name in ("Unary", "Down"):
                CALLS[name](method(channel, name))
        assert [span["name"] for span in settled(spans, 1)] == ["shop.Cart/Down"]
    finally:
        GrpcInstrumentorServer().uninstrument()
        GrpcInstrumentorClient().uninstrument()
    assert seen == [b"one", None]  # the answers of a stream are the application's to read


def test_suppressed(channel: Any, spans: Spans) -> None:
    with suppress_instrumentation():
        method(channel, "Unary")(b"one")
    (span,) = settled(spans, 1)
    assert (span["kind"], span["parent_id"]) == ("SERVER", None)


def test_interceptors_for_one_channel_and_server(spans: Spans) -> None:
    with serving(interceptors=[server_interceptor()]) as target, grpc.insecure_channel(target) as channel:
        intercepted = grpc.intercept_channel(channel, client_interceptor(filter_=filters.service_name("shop.Cart")))
        for name in KINDS:
            assert CALLS[name](method(intercepted, name)) == ANSWERS[name]
        with pytest.raises(grpc.RpcError):
            method(intercepted, "Unary")(b"missing")
        found = settled(spans, 10)
    assert len(found) == 10
    clients = {span["span_id"]: span for span in found if span["kind"] == "CLIENT"}
    assert all(clients[span["parent_id"]]["name"] == span["name"] for span in found if span["kind"] == "SERVER")
    assert sorted(span["attributes"]["rpc.grpc.status_code"] for span in clients.values()) == [0, 0, 0, 0, 5]


# asyncio


async def requests() -> AsyncIterator[bytes]:
    yield b"one"
    yield b"two"


ASYNC_CALLS: dict[str, Callable[[Any], Any]] = {
    "Unary": lambda call: call(b"one"),
    "Down": lambda call: listed(call(b"one")),
    "Up": lambda call: call(requests()),
    "Both": lambda call: listed(call(requests())),
}


async def listed(stream: Any) -> list[bytes]:
    return [item async for item in stream]


async def settled_async(spans: Spans, count: int) -> list[dict[str, Any]]:
    for _ in range(1000):
        if len(spans) >= count:
            break
        await asyncio.sleep(0.01)
    return sorted(spans, key=lambda span: span["kind"])


def test_kinds_async(instrumented: None, spans: Spans, payload: Payload) -> None:
    async def main() -> None:
        async with serving_async() as target, grpc.aio.insecure_channel(target) as channel:
            for name in KINDS:
                spans.clear()
                assert await ASYNC_CALLS[name](method(channel, name)) == ANSWERS[name]
                client, server = await settled_async(spans, 2)
                assert trace.get_current_span() is trace.INVALID_SPAN
                assert (client["name"], client["kind"], client["status"]) == (f"shop.Cart/{name}", "CLIENT", "UNSET")
                assert (server["name"], server["parent_id"]) == (f"shop.Cart/{name}", client["span_id"])
                told = getattr(channel._channel, "target", None)  # not in old versions
                assert client["attributes"].get("server.address") == (told and "127.0.0.1")
                assert client["attributes"]["rpc.grpc.status_code"] == server["attributes"]["rpc.grpc.status_code"] == 0

    asyncio.run(main())
    services = {row["service"]: row["meta"]["component"] for chunk in payload() for row in chunk}
    assert services == {"grpc-aio-client": "grpc_aio_client", "grpc-aio-server": "grpc_aio_server"}


async def both_written(channel: Any) -> list[bytes]:
    call = method(channel, "Both")()
    for request in (b"one", b"two"):
        await call.write(request)
    await call.done_writing()
    return [await call.read(), await call.read()]


async def up_written(channel: Any) -> bytes:
    call = method(channel, "Up")()
    await call.write(b"onetwo")
    await call.done_writing()
    response: bytes = await call
    return response


@pytest.mark.parametrize(("name", "written"), [("Up", up_written), ("Both", both_written)])
def test_requests_that_are_written_to_the_call(
    instrumented: None, spans: Spans, name: str, written: Callable[[Any], Any]
) -> None:
    async def main() -> None:
        async with serving_async() as target, grpc.aio.insecure_channel(target) as channel:
            assert await written(channel) == ANSWERS[name]
            client, server = await settled_async(spans, 2)
            assert (client["name"], client["status"]) == (f"shop.Cart/{name}", "UNSET")
            assert server["parent_id"] == client["span_id"]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("request_", "code", "server_status"), [(b"missing", "NOT_FOUND", "UNSET"), (b"crash", "UNKNOWN", "ERROR")]
)
def test_failures_async(instrumented: None, spans: Spans, request_: bytes, code: str, server_status: str) -> None:
    async def main() -> None:
        async with serving_async() as target, grpc.aio.insecure_channel(target) as channel:
            for call in (method(channel, "Unary"), lambda request: listed(method(channel, "Down")(request))):
                spans.clear()
                with pytest.raises(grpc.aio.AioRpcError) as raised:
                    await call(request_)
                assert raised.value.code() is grpc.StatusCode[code]
                client, server = await settled_async(spans, 2)
                assert (client["status"], client["attributes"]["error.type"]) == ("ERROR", code)
                number = grpc.StatusCode[code].value[0]
                assert client["attributes"]["rpc.grpc.status_code"] == number
                assert (server["status"], server["attributes"]["rpc.grpc.status_code"]) == (server_status, number)

    asyncio.run(main())


def test_a_handler_that_is_no_coroutine(instrumented: None, spans: Spans) -> None:
    async def main() -> None:
        async with serving_async(migration_thread_pool=ThreadPoolExecutor(1)) as target:
            async with grpc.aio.insecure_channel(target) as channel:
                assert await channel.unary_unary("/shop.Cart/Plain")(b"one") == b"one"
            await settled_async(spans, 2)

    asyncio.run(main())
    assert sorted(span["kind"] for span in spans) == ["CLIENT", "SERVER"]


def test_a_call_that_is_cancelled_async(instrumented: None, spans: Spans) -> None:
    async def main() -> None:
        async with serving_async() as target, grpc.aio.insecure_channel(target) as channel:
            call = method(channel, "Unary")(b"one")
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await settled_async(spans, 1)

    asyncio.run(main())
    client = next(span for span in spans if span["kind"] == "CLIENT")
    assert client["attributes"]["error.type"] == "CANCELLED"


def test_interceptors_of_the_application_async(instrumented: None, spans: Spans) -> None:
    log: list[Any] = []

    class Note(grpc.aio.UnaryUnaryClientInterceptor, grpc.aio.ServerInterceptor):  # type: ignore[misc]
        async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
            log.append(getattr(trace.get_current_span(), "name", None))
            return await continuation(details, request)

        async def intercept_service(self, continuation: Any, details: Any) -> Any:
            log.append("server")
            return await continuation(details)

    async def main() -> None:
        async with serving_async(interceptors=[Note()]) as target:
            async with grpc.aio.insecure_channel(target, interceptors=[Note()]) as channel:
                assert await method(channel, "Unary")(b"one") == b"one"
                with pytest.raises(grpc.aio.AioRpcError):
                    await method(channel, "Unary")(b"missing")
            await settled_async(spans, 4)

    asyncio.run(main())
    assert log == ["shop.Cart/Unary", "server"] * 2
    clients = [span for span in spans if span["kind"] == "CLIENT"]
    assert [span["attributes"]["rpc.grpc.status_code"] for span in clients] == [0, 5]


def test_interceptors_for_one_channel_and_server_async(spans: Spans) -> None:
    async def main() -> None:
        async with serving_async(interceptors=[aio_server_interceptor()]) as target:
            async with grpc.aio.insecure_channel(target, interceptors=aio_client_interceptors()) as channel:
                for name in KINDS:
                    assert await ASYNC_CALLS[name](method(channel, name)) == ANSWERS[name]
            await settled_async(spans, 8)

    asyncio.run(main())
    clients = {span["span_id"]: span for span in spans if span["kind"] == "CLIENT"}
    servers = [span for span in spans if span["kind"] == "SERVER"]
    assert len(clients) == len(servers) == 4
    assert all(clients[span["parent_id"]]["name"] == span["name"] for span in servers)


@pytest.mark.parametrize(
    ("target", "address", "port"),
    [
        ("shop:50051", "shop", 50051),
        ("dns:///shop:50051", "shop", 50051),
        ("dns:shop:443", "shop", 443),
        ("ipv6:[::1]:5,[::2]:5", "::1", 5),
        ("unix:/run/shop.sock", "/run/shop.sock", None),
        ("shop", "shop", None),
    ],
)
def test_targets(target: str, address: str, port: int | None) -> None:
    from spanbridge.conventions.rpc import _target

    found = _target(target)
    assert (found["server.address"], found.get("server.port")) == (address, port)
