"""aiohttp's server over its own sockets, from 3.7 to the newest."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace

pytest.importorskip("aiohttp")

from aiohttp import web

from spanbridge.instrumentors.aiohttp_server import (
    AioHttpServerInstrumentor,
    create_aiohttp_middleware,
    create_instrumented_application,
    getter,
)
from tests.servers import wait_for
from tests.sockets import ask, leave, shake

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from spanbridge.testing import Payload, Spans


ANSWERS = {"404": web.HTTPNotFound, "503": web.HTTPServiceUnavailable}


async def show(request: Any) -> Any:
    with trace.get_tracer("shop").start_as_current_span("handler"):
        return web.Response(text="ok")


async def broken(request: Any) -> Any:
    raise ValueError("broken")


async def refused(request: Any) -> Any:
    code = request.match_info["code"]
    raise web.HTTPFound("/items/1") if code == "302" else ANSWERS[code]


async def returned(request: Any) -> Any:
    return web.Response(status=int(request.match_info["code"]))


async def late(request: Any) -> Any:
    raise asyncio.TimeoutError


async def stream(request: Any) -> Any:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(int(request.match_info["chunks"])):
        await response.write(b"x" * 65536)
        await asyncio.sleep(0)
    return response


async def halted(request: Any) -> Any:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"x")
    raise ValueError("halted")


async def chat(request: Any) -> Any:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    with trace.get_tracer("shop").start_as_current_span("message"):
        await socket.close()
    return socket


def make_app(cls: Any = web.Application, **options: Any) -> Any:
    app = cls(**options)
    app.router.add_get(r"/items/{item:\d+}", show)
    app.router.add_post(r"/items/{item:\d+}", show)
    app.router.add_get("/broken", broken)
    app.router.add_get("/late", late)
    app.router.add_get("/refused/{code}", refused)
    app.router.add_get("/returned/{code}", returned)
    app.router.add_get("/stream/{chunks}", stream)
    app.router.add_get("/halted", halted)
    app.router.add_get("/rooms/{room}", chat)
    inner = web.Application()
    inner.router.add_get("/things/{name}", show)
    outer = web.Application()
    outer.router.add_get("/users/{user}", show)
    outer.add_subapp("/inner", inner)
    app.add_subapp("/v1", outer)
    return app


def serving(app: Any, talk: Callable[..., Any], *arguments: Any) -> Any:
    """Serve `app` while `talk(port, *arguments)` runs in a thread; answer what it answers."""

    async def main() -> Any:
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            return await asyncio.to_thread(talk, runner.addresses[0][1], *arguments)
        finally:
            await runner.cleanup()

    return asyncio.run(main())


@pytest.fixture
def app(spans: Spans) -> Iterator[Any]:
    made = make_app()  # before `instrument()`: applications that exist are traced, too
    AioHttpServerInstrumentor().instrument()
    yield made
    AioHttpServerInstrumentor().uninstrument()


def servers(spans: Spans) -> list[dict[str, Any]]:
    return [span for span in spans if span["kind"] == "SERVER"]


def only(spans: Spans) -> dict[str, Any]:
    assert len(servers(spans)) == 1, spans
    return servers(spans)[0]


def test_a_request(app: Any, spans: Spans, payload: Payload) -> None:
    answer = serving(app, ask, "GET", "/items/3?page=1&password=hunter2", "User-Agent: curl/8", "X-Tenant: acme")
    assert answer == (200, b"ok")
    span = only(spans)
    assert (span["name"], span["status"], span["parent_id"]) == (r"GET /items/{item}", "UNSET", None)
    expected = {
        "http.request.method": "GET",
        "url.scheme": "http",
        "server.address": "127.0.0.1",
        "url.path": "/items/3",
        "url.query": "page=1&<redacted>",
        "client.address": "127.0.0.1",
        "user_agent.original": "curl/8",
        "network.protocol.version": "1.1",
        "http.route": "/items/{item}",
        "http.response.status_code": 200,
    }
    assert {key: span["attributes"].get(key) for key in expected} == expected
    assert {"server.port", "client.port"} <= span["attributes"].keys()
    assert spans[0]["parent"] == "GET /items/{item}"
    (chunk,) = payload()
    assert (chunk[0]["name"], chunk[0]["resource"], chunk[0]["type"]) == ("aiohttp.request", "GET /items/{item}", "web")


@pytest.mark.parametrize(
    ("method", "path", "name", "status", "code"),
    [
        ("GET", "/v1/users/3", "GET /v1/users/{user}", "UNSET", 200),
        ("GET", "/v1/inner/things/3", "GET /v1/inner/things/{name}", "UNSET", 200),
        ("GET", "/v1/nowhere", "GET", "UNSET", 404),
        ("GET", "/nowhere/else", "GET", "UNSET", 404),
        ("PUT", "/items/3", "PUT", "UNSET", 405),
        ("HEAD", "/items/3", "HEAD /items/{item}", "UNSET", 200),
        ("OPTIONS", "/items/3", "OPTIONS", "UNSET", 405),
        ("GET", "/refused/404", "GET /refused/{code}", "UNSET", 404),
        ("GET", "/refused/302", "GET /refused/{code}", "UNSET", 302),
        ("GET", "/refused/503", "GET /refused/{code}", "ERROR", 503),
        ("GET", "/returned/404", "GET /returned/{code}", "UNSET", 404),
        ("GET", "/returned/500", "GET /returned/{code}", "ERROR", 500),
        ("GET", "/broken", "GET /broken", "ERROR", 500),
        ("GET", "/late", "GET /late", "ERROR", 504),
        ("GET", "/stream/3", "GET /stream/{chunks}", "UNSET", 200),
    ],
)
def test_answers(app: Any, spans: Spans, method: str, path: str, name: str, status: str, code: int) -> None:
    assert serving(app, ask, method, path)[0] == code
    span = only(spans)
    assert (span["name"], span["status"], span["attributes"]["http.response.status_code"]) == (name, status, code)


@pytest.mark.parametrize("path", ["/broken", "/refused/503", "/late"])
def test_the_exception_behind_an_error_page_is_recorded_once(app: Any, spans: Spans, path: str) -> None:
    serving(app, ask, "GET", path)
    (event,) = only(spans)["events"]
    assert only(spans)["attributes"]["error.type"] == event["attributes"]["exception.type"].rpartition(".")[2]


@pytest.mark.parametrize("path", ["/refused/404", "/refused/302", "/nowhere", "/returned/404"])
def test_an_answer_below_500_is_no_exception(app: Any, spans: Spans, path: str) -> None:
    serving(app, ask, "GET", path)
    assert (only(spans)["status"], only(spans)["events"]) == ("UNSET", [])


def test_names_are_few(app: Any, spans: Spans) -> None:
    def many(port: int) -> None:
        for number in range(500):
            ask(port, "GET", f"/items/{number}")
            ask(port, "GET", f"/nowhere/{number}")

    serving(app, many)
    assert {span["name"] for span in servers(spans)} == {"GET /items/{item}", "GET"}


def test_a_client_that_goes_away_is_no_error(app: Any, spans: Spans) -> None:
    def go(port: int) -> None:
        leave(port, "/stream/5000")
        wait_for(lambda: len(servers(spans)) == 1, "the span")

    serving(app, go)
    assert (only(spans)["name"], only(spans)["status"], only(spans)["events"]) == ("GET /stream/{chunks}", "UNSET", [])
    assert only(spans)["attributes"]["http.response.status_code"] == 200  # what was sent before


def test_a_stream_that_breaks_off_keeps_the_status_that_was_sent(app: Any, spans: Spans) -> None:
    serving(app, leave, "/halted")
    wait_for(lambda: len(servers(spans)) == 1, "the span")
    span = only(spans)
    assert (span["status"], span["attributes"]["http.response.status_code"]) == ("ERROR", 200)
    assert [event["attributes"]["exception.message"] for event in span["events"]] == ["halted"]


def test_websockets_are_one_span_of_their_handshake(app: Any, spans: Spans) -> None:
    assert serving(app, shake, "/rooms/3") == 101
    wait_for(lambda: len(spans) == 2, "the spans")
    assert [(span["name"], span["parent"]) for span in spans] == [
        ("GET /rooms/{room}", None),
        ("message", "GET /rooms/{room}"),
    ]
    assert spans[0]["attributes"]["http.response.status_code"] == 101


def test_the_callers_trace_goes_on(app: Any, spans: Spans) -> None:
    # The server's loop runs within a span of the application's, which is no parent of requests from outside.
    with trace.get_tracer("shop").start_as_current_span("main"):
        serving(app, ask, "GET", "/items/1", f"traceparent: 00-{0xABC:032x}-{0xDEF:016x}-01")
        serving(make_app(), ask, "GET", "/items/2")
    first, second = servers(spans)
    assert (first["trace_id"], first["parent_id"]) == (0xABC, 0xDEF)
    assert second["parent_id"] is None


def test_a_server_without_an_application(app: Any, spans: Spans) -> None:
    async def main() -> None:
        runner = web.ServerRunner(web.Server(show, access_log=None))
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        assert await asyncio.to_thread(ask, port, "GET", "/items/3") == (200, b"ok")
        await runner.cleanup()

    asyncio.run(main())
    assert (only(spans)["name"], only(spans)["attributes"]["url.path"]) == ("GET", "/items/3")


@pytest.mark.parametrize("way", ["middleware", "class"])
def test_one_application_only(way: str, spans: Spans) -> None:
    if way == "middleware":
        app = make_app(middlewares=[create_aiohttp_middleware()])
    else:
        app = make_app(create_instrumented_application())

    def three(port: int) -> None:
        for path in ("/v1/users/3", "/refused/404", "/broken"):
            ask(port, "GET", path)

    serving(app, three)
    serving(make_app(), ask, "GET", "/items/3")
    assert [(span["name"], span["status"]) for span in servers(spans)] == [
        ("GET /v1/users/{user}", "UNSET"),
        ("GET /refused/{code}", "UNSET"),
        ("GET /broken", "ERROR"),
    ]


def test_the_middleware_adds_nothing_to_a_request_that_is_traced(app: Any, spans: Spans) -> None:
    serving(make_app(middlewares=[create_aiohttp_middleware()]), ask, "GET", "/items/3")
    assert only(spans)["name"] == "GET /items/{item}"


def test_excluded_urls_and_captured_headers(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_PYTHON_AIOHTTP_SERVER_EXCLUDED_URLS", "items/[0-4]")
    monkeypatch.setenv("OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST", "x-tenant")
    monkeypatch.setenv("OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_RESPONSE", "content-type")
    AioHttpServerInstrumentor().instrument()
    serving(make_app(), ask, "GET", "/items/3")
    serving(make_app(), ask, "GET", "/items/7", "X-Tenant: acme")
    attributes = only(spans)["attributes"]
    assert attributes["http.request.header.x-tenant"] == ("acme",)
    assert attributes["http.response.header.content-type"] == ("text/plain; charset=utf-8",)


def test_old_names(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPANBRIDGE_SEMCONV", "contrib")
    AioHttpServerInstrumentor().instrument()
    serving(make_app(), ask, "GET", "/items/1?page=1")
    attributes = only(spans)["attributes"]
    assert (attributes["http.method"], attributes["http.route"], attributes["http.status_code"]) == (
        "GET",
        "/items/{item}",
        200,
    )
    assert attributes["http.target"] == "/items/1?page=1"
    assert "http.request.method" not in attributes


@pytest.mark.parametrize("headers", [{"traceparent": "a"}, [("traceparent", "a")]])
def test_headers_of_tests_requests_are_read_as_well(headers: Any) -> None:
    from aiohttp.test_utils import make_mocked_request
    from multidict import CIMultiDict

    request = make_mocked_request("GET", "/", headers=CIMultiDict(headers))
    carriers = [request, SimpleNamespace(headers=dict(headers))]
    assert [(getter.get(each, "traceparent"), getter.get(each, "tracestate")) for each in carriers] == [
        (["a"], None)
    ] * 2
