"""aiohttp's client against a server on a bare socket, from 3.7 to the newest."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.utils import suppress_http_instrumentation

pytest.importorskip("aiohttp")

import aiohttp

from spanbridge.instrumentors.aiohttp_client import AioHttpClientInstrumentor, create_trace_config

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from spanbridge.testing import Payload, Spans

STATUS = {"/items": b"200 OK", "/absent": b"404 Not Found", "/broken": b"503 Service Unavailable"}


class Peer:
    """A server that answers by the path, and remembers what it was asked."""

    def __init__(self) -> None:
        self.heads: list[str] = []
        self.url = ""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        path = head.split(" ")[1].partition("?")[0]
        if path == "/moved":
            writer.write(b"HTTP/1.1 302 Found\r\nLocation: /items\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        elif path in STATUS:
            writer.write(
                b"HTTP/1.1 " + STATUS[path] + b"\r\nContent-Length: 2\r\nX-Kind: toy\r\nConnection: close\r\n\r\nok"
            )
        await writer.drain()
        writer.close()


def calling(work: Callable[[Peer], Awaitable[Any]]) -> tuple[Any, Peer]:
    """Run `work` with a running server; answer what it answers, and the server."""

    async def main() -> Any:
        peer = Peer()
        server = await asyncio.start_server(peer.answer, "127.0.0.1", 0)
        peer.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            return await work(peer), peer
        finally:
            server.close()
            await server.wait_closed()

    result: tuple[Any, Peer] = asyncio.run(main())
    return result


def get(path: str, **options: Any) -> Callable[[Peer], Awaitable[Any]]:
    async def work(peer: Peer) -> int:
        async with aiohttp.ClientSession() as session, session.get(f"{peer.url}{path}", **options) as response:
            await response.read()
            return response.status

    return work


@pytest.fixture
def client() -> Iterator[None]:
    AioHttpClientInstrumentor().instrument()
    yield
    AioHttpClientInstrumentor().uninstrument()


def only(spans: Spans) -> dict[str, Any]:
    assert len(spans) == 1, spans
    return spans[0]


def test_a_request(client: None, spans: Spans, payload: Payload) -> None:
    status, peer = calling(get("/items?page=1&token=hunter2", headers={"User-Agent": "shop/1"}))
    assert status == 200
    span = only(spans)
    assert (span["name"], span["kind"], span["status"]) == ("GET", "CLIENT", "UNSET")
    assert span["attributes"] == {
        "http.request.method": "GET",
        "url.full": f"{peer.url}/items?page=1&<redacted>",
        "server.address": "127.0.0.1",
        "server.port": int(peer.url.rpartition(":")[2]),
        "user_agent.original": "shop/1",
        "network.protocol.version": "1.1",
        "http.response.status_code": 200,
    }
    assert f"traceparent: 00-{span['trace_id']:032x}-{span['span_id']:016x}-01" in peer.heads[0].lower()
    ((row,),) = payload()
    assert (row["name"], row["resource"], row["type"]) == ("aiohttp.request", "aiohttp.request", "http")


@pytest.mark.parametrize(("path", "status"), [("/absent", 404), ("/broken", 503)])
def test_refusals_are_errors_of_a_client(client: None, spans: Spans, path: str, status: int) -> None:
    assert calling(get(path))[0] == status
    assert (only(spans)["status"], only(spans)["attributes"]["http.response.status_code"]) == ("ERROR", status)


def test_a_followed_redirect_is_one_span(client: None, spans: Spans) -> None:
    status, peer = calling(get("/moved"))
    assert (status, len(peer.heads), only(spans)["attributes"]["url.full"]) == (200, 2, f"{peer.url}/moved")
    assert all("traceparent" in head.lower() for head in peer.heads)


def test_too_many_redirects_have_no_status(client: None, spans: Spans) -> None:
    with pytest.raises(aiohttp.TooManyRedirects):
        calling(get("/moved", max_redirects=1))
    assert (only(spans)["status"], only(spans)["attributes"]["error.type"]) == ("ERROR", "TooManyRedirects")
    assert "http.response.status_code" not in only(spans)["attributes"]


def test_an_exception_is_recorded_once(client: None, spans: Spans) -> None:
    with pytest.raises(aiohttp.ServerDisconnectedError):
        calling(get("/nothing"))
    assert (only(spans)["status"], len(only(spans)["events"])) == ("ERROR", 1)
    assert only(spans)["attributes"]["error.type"] == "ServerDisconnectedError"


def test_raise_for_status_tells_the_status(client: None, spans: Spans) -> None:
    async def work(peer: Peer) -> None:
        async with aiohttp.ClientSession(raise_for_status=True) as session:
            await session.get(f"{peer.url}/absent")

    with pytest.raises(aiohttp.ClientResponseError):
        calling(work)
    assert (only(spans)["status"], only(spans)["attributes"]["http.response.status_code"]) == ("ERROR", 404)


def test_a_session_that_exists_already(spans: Spans) -> None:
    async def work(peer: Peer) -> None:
        async with aiohttp.ClientSession() as session:
            AioHttpClientInstrumentor().instrument()
            await (await session.get(f"{peer.url}/items")).read()
            await (await session.get(f"{peer.url}/items")).read()
            AioHttpClientInstrumentor().uninstrument()
            await (await session.get(f"{peer.url}/items")).read()
            AioHttpClientInstrumentor().instrument()
            await (await session.get(f"{peer.url}/items")).read()

    calling(work)
    assert [span["name"] for span in spans] == ["GET"] * 3


def test_it_is_a_child_and_leaves_no_context_behind(client: None, spans: Spans) -> None:
    async def work(peer: Peer) -> None:
        with trace.get_tracer("shop").start_as_current_span("outer") as outer:
            await get("/items")(peer)
            assert trace.get_current_span() is outer
            await asyncio.gather(*(get("/items")(peer) for _ in range(20)))
            assert trace.get_current_span() is outer

    calling(work)
    assert {span["parent"] for span in spans if span["name"] == "GET"} == {"outer"}
    assert len(spans) == 22


def test_suppressed_and_excluded(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_PYTHON_AIOHTTP_CLIENT_EXCLUDED_URLS", "absent")
    AioHttpClientInstrumentor().instrument()
    calling(get("/absent"))
    with suppress_http_instrumentation():
        calling(get("/items"))
    assert len(spans) == 0


def test_hooks_and_filter(spans: Spans) -> None:
    AioHttpClientInstrumentor().instrument(
        url_filter=lambda url: url.with_query(None),
        request_hook=lambda span, params: span.update_name(f"{params.method} {params.url.path}"),
        response_hook=lambda span, params: span.set_attribute("params", type(params).__name__),
    )
    _, peer = calling(get("/items?page=1"))
    with pytest.raises(aiohttp.ServerDisconnectedError):
        calling(get("/nothing"))
    assert [(span["name"], span["attributes"]["params"]) for span in spans] == [
        ("GET /items", "TraceRequestEndParams"),
        ("GET /nothing", "TraceRequestExceptionParams"),
    ]
    assert spans[0]["attributes"]["url.full"] == f"{peer.url}/items"


def test_connections_on_request(spans: Spans) -> None:
    AioHttpClientInstrumentor().instrument(trace_connect=True)
    calling(get("/items"))
    assert [(span["name"], span["parent"]) for span in spans] == [("TCPConnector.connect", "GET"), ("GET", None)]


def test_one_session_only(spans: Spans) -> None:
    async def work(peer: Peer) -> None:
        config = create_trace_config(captured_response_headers=["x-.*"])
        async with aiohttp.ClientSession(trace_configs=[config]) as session:
            await (await session.get(f"{peer.url}/items")).read()
        await get("/items")(peer)

    calling(work)
    assert only(spans)["attributes"]["http.response.header.x-kind"] == ("toy",)


def test_one_session_taken_out_and_further_trace_configs(spans: Spans) -> None:
    further = aiohttp.TraceConfig()
    AioHttpClientInstrumentor().instrument(trace_configs=[further])

    async def work(peer: Peer) -> None:
        async with aiohttp.ClientSession() as session:
            assert further in session._trace_configs
            AioHttpClientInstrumentor.uninstrument_session(session)
            await (await session.get(f"{peer.url}/items")).read()

    calling(work)
    assert len(spans) == 0


def test_old_names(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPANBRIDGE_SEMCONV", "contrib")
    AioHttpClientInstrumentor().instrument()
    _, peer = calling(get("/items"))
    expected = {"http.method": "GET", "http.url": f"{peer.url}/items", "http.status_code": 200}
    assert only(spans)["attributes"] == expected
