"""Starlette, message by message, by class and by app, from 0.13 to the newest; FastAPI upon it."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import baggage, trace

pytest.importorskip("starlette")

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse, RedirectResponse, StreamingResponse
from starlette.routing import Host, Mount, Route, Router, WebSocketRoute

from spanbridge.core.options import load_vendor_settings
from spanbridge.exporters.datadog.propagator import DatadogPropagator
from spanbridge.instrumentors.asgi import OpenTelemetryMiddleware
from spanbridge.instrumentors.starlette import StarletteInstrumentor
from tests.asgi import CONNECT, DISCONNECT, connection, serve, websocket

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from spanbridge.testing import Payload, Spans


def within(name: str) -> None:
    with trace.get_tracer("shop").start_as_current_span(name):
        pass


async def show(request: Any) -> Any:
    within("handler")
    return PlainTextResponse("ok")


def show_in_a_thread(request: Any) -> Any:
    within("handler")
    return PlainTextResponse("ok")


async def broken(request: Any) -> Any:
    raise ValueError("broken")


async def refused(request: Any) -> Any:
    raise HTTPException(request.path_params["code"])


async def moved(request: Any) -> Any:
    return RedirectResponse("/items/1")


async def stream(request: Any) -> Any:
    async def chunks() -> AsyncIterator[str]:
        for number in range(3):
            within(f"chunk {number}")
            yield "x"

    return StreamingResponse(chunks())


async def later(request: Any) -> Any:
    return PlainTextResponse("ok", background=BackgroundTask(within, "background"))


async def chat(socket: Any) -> None:
    await socket.accept()
    within("message")
    await socket.close()


def make_app(**options: Any) -> Any:
    inner = Starlette(routes=[Route("/things/{name}", show)])
    return Starlette(
        routes=[
            Route("/items/{item:int}", show, methods=["GET", "POST"]),
            Route("/thread", show_in_a_thread),
            Route("/broken", broken),
            Route("/refused/{code:int}", refused),
            Route("/moved", moved),
            Route("/stream", stream),
            Route("/later", later),
            Mount("/v1", routes=[Route("/users/{user}", show), Mount("/inner", app=inner)]),
            Host("api.example", app=Router([Route("/hosted/{name}", show)])),
            WebSocketRoute("/rooms/{room}", chat),
        ],
        **options,
    )


@pytest.fixture
def app(spans: Spans) -> Iterator[Any]:
    made = make_app()  # before `instrument()`: applications that exist are traced, too
    StarletteInstrumentor().instrument()
    yield made
    StarletteInstrumentor().uninstrument()


def servers(spans: Spans) -> list[dict[str, Any]]:
    return [span for span in spans if span["kind"] == "SERVER"]


def only(spans: Spans) -> dict[str, Any]:
    assert len(servers(spans)) == 1, spans
    return servers(spans)[0]


def test_a_request(app: Any, spans: Spans, payload: Payload) -> None:
    assert serve(app, connection("/items/3"))[-1]["body"] == b"ok"
    span = only(spans)
    assert (span["name"], span["status"], span["parent_id"]) == ("GET /items/{item:int}", "UNSET", None)
    assert (span["attributes"]["http.route"], span["attributes"]["http.response.status_code"]) == (
        "/items/{item:int}",
        200,
    )
    assert spans[0]["parent"] == "GET /items/{item:int}"
    (chunk,) = payload()
    assert (chunk[0]["name"], chunk[0]["resource"], chunk[0]["type"]) == (
        "starlette.request",
        "GET /items/{item:int}",
        "web",
    )


def test_what_is_spoken_with_the_server(app: Any, spans: Spans, payload: Payload) -> None:
    serve(app, connection("/items/3", asgi={"version": "3.0", "spec_version": "2.4"}, http_version="2"))
    meta = payload()[0][0]["meta"]
    assert [meta[key] for key in ("asgi.version", "asgi.spec_version", "http.version")] == ["3.0", "2.4", "2"]


@pytest.mark.parametrize(
    ("method", "path", "name", "status", "code"),
    [
        ("GET", "/v1/users/3", "GET /v1/users/{user}", "UNSET", 200),
        ("GET", "/v1/inner/things/3", "GET /v1/inner/things/{name}", "UNSET", 200),
        ("GET", "/v1/nowhere", "GET /v1", "UNSET", 404),
        ("GET", "/nowhere/else", "GET", "UNSET", 404),
        ("PUT", "/items/3", "PUT /items/{item:int}", "UNSET", 405),
        ("HEAD", "/items/3", "HEAD /items/{item:int}", "UNSET", 200),
        ("OPTIONS", "/items/3", "OPTIONS /items/{item:int}", "UNSET", 405),
        ("BREW", "/items/3", "HTTP /items/{item:int}", "UNSET", 405),
        ("GET", "/refused/404", "GET /refused/{code:int}", "UNSET", 404),
        ("GET", "/refused/503", "GET /refused/{code:int}", "ERROR", 503),
        ("GET", "/thread", "GET /thread", "UNSET", 200),
        ("GET", "/stream", "GET /stream", "UNSET", 200),
    ],
)
def test_answers(app: Any, spans: Spans, method: str, path: str, name: str, status: str, code: int) -> None:
    start = serve(app, connection(path, method=method))[0]
    assert start["status"] == code
    span = only(spans)
    assert (span["name"], span["status"], span["attributes"]["http.response.status_code"]) == (name, status, code)
    assert {inner["parent"] for inner in spans[:-1]} <= {name}


def test_redirects(app: Any, spans: Spans) -> None:
    assert 300 < serve(app, connection("/moved"))[0]["status"] < 400
    assert (only(spans)["name"], only(spans)["status"]) == ("GET /moved", "UNSET")


def test_routes_by_host(app: Any, spans: Spans) -> None:
    serve(app, connection("/hosted/3", headers=[(b"host", b"api.example")]))
    assert only(spans)["name"] == "GET /hosted/{name}"


def test_an_unhandled_exception_is_recorded_once(app: Any, spans: Spans) -> None:
    with pytest.raises(ValueError, match="broken"):
        serve(app, connection("/broken"))
    span = only(spans)
    assert (span["status"], span["attributes"]["error.type"]) == ("ERROR", "ValueError")
    assert span["attributes"]["http.response.status_code"] == 500
    assert [event["attributes"]["exception.message"] for event in span["events"]] == ["broken"]


def test_a_handled_exception_is_no_error(spans: Spans) -> None:
    async def sorry(request: Any, error: Exception) -> Any:
        return PlainTextResponse("sorry", 200)

    StarletteInstrumentor().instrument()
    app = make_app()
    app.add_exception_handler(ValueError, sorry)
    assert serve(app, connection("/broken"))[0]["status"] == 200
    assert (only(spans)["status"], only(spans)["events"]) == ("UNSET", [])


def test_names_are_few(app: Any, spans: Spans) -> None:
    for number in range(500):
        serve(app, connection(f"/items/{number}"))
        serve(app, connection(f"/nowhere/{number}"))
    assert {span["name"] for span in servers(spans)} == {"GET /items/{item:int}", "GET"}


def test_background_tasks_keep_their_parent_and_do_not_hold_the_span(app: Any, spans: Spans) -> None:
    serve(app, connection("/later"))
    assert [(span["name"], span["parent"]) for span in spans] == [("GET /later", None), ("background", "GET /later")]


def test_middleware_that_runs_the_application_in_another_task(spans: Spans, caplog: pytest.LogCaptureFixture) -> None:
    class Passing(BaseHTTPMiddleware):
        async def dispatch(self, request: Any, call_next: Any) -> Any:
            return await call_next(request)

    StarletteInstrumentor().instrument()
    app = make_app(middleware=[Middleware(Passing)])
    messages = serve(app, connection("/stream"))
    assert messages[-1]["type"] == "http.response.body"
    assert only(spans)["name"] == "GET /stream"
    assert [span["parent"] for span in spans if span["kind"] == "INTERNAL"] == ["GET /stream"] * 3
    assert [record for record in caplog.records if record.name.startswith(("opentelemetry", "spanbridge"))] == []


class Refusing:
    """Middleware that answers before any router, as those for CORS, authentication and rate limits do."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        else:
            await PlainTextResponse("refused", 401)(scope, receive, send)


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("GET", "/items/3", "GET /items/{item:int}"),
        ("OPTIONS", "/items/3", "OPTIONS /items/{item:int}"),
        ("GET", "/v1/users/3", "GET /v1/users/{user}"),
        ("GET", "/v1/inner/things/3", "GET /v1/inner/things/{name}"),
        ("GET", "/v1/nowhere/3", "GET /v1"),
        ("GET", "/nowhere/3", "GET"),
    ],
)
def test_what_middleware_answers_has_its_route(spans: Spans, method: str, path: str, name: str) -> None:
    StarletteInstrumentor().instrument()
    assert serve(make_app(middleware=[Middleware(Refusing)]), connection(path, method=method))[0]["status"] == 401
    assert (only(spans)["name"], only(spans)["attributes"].get("http.route")) == (name, name.partition(" ")[2] or None)


def test_websockets_that_middleware_refuses_and_hosts(spans: Spans) -> None:
    StarletteInstrumentor().instrument()
    app = make_app(middleware=[Middleware(Refusing)])
    serve(app, websocket("/rooms/3"), CONNECT, DISCONNECT)
    serve(app, connection("/hosted/3", headers=[(b"host", b"api.example")]))
    assert [span["name"] for span in servers(spans)] == ["GET /rooms/{room}", "GET /hosted/{name}"]


def test_a_client_that_goes_away_ends_the_span(app: Any, spans: Spans) -> None:
    async def forever(request: Any) -> Any:
        async def chunks() -> AsyncIterator[bytes]:
            while True:
                yield b"x"
                await asyncio.sleep(0)

        return StreamingResponse(chunks())

    endless = Starlette(routes=[Route("/endless", forever)])
    sent = 0

    async def receive() -> dict[str, Any]:
        while sent < 3:
            await asyncio.sleep(0)
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        nonlocal sent
        sent += 1
        if sent > 5:
            raise OSError("the client is gone")  # as servers do from ASGI 2.4 on

    async def main() -> None:
        try:
            await asyncio.wait_for(endless(connection("/endless"), receive, send), 30)
        except Exception as error:
            assert type(error).__name__ in {"ClientDisconnect", "OSError"}  # noqa: PT017

    asyncio.run(main())
    assert (only(spans)["name"], only(spans)["status"]) == ("GET /endless", "UNSET")


def test_websockets_are_one_span(app: Any, spans: Spans, payload: Payload) -> None:
    serve(app, websocket("/rooms/3"), CONNECT, DISCONNECT)
    assert [(span["name"], span["parent"]) for span in spans] == [
        ("GET /rooms/{room}", None),
        ("message", "GET /rooms/{room}"),
    ]
    assert spans[0]["attributes"]["http.response.status_code"] == 101
    resources = [span["resource"] for chunk in payload() for span in chunk]
    assert "websocket /rooms/{room}" in resources


def test_the_callers_trace_goes_on(app: Any, spans: Spans) -> None:
    headers = [(b"traceparent", f"00-{0xABC:032x}-{0xDEF:016x}-01".encode()), (b"baggage", b"tenant=acme")]
    seen: dict[str, Any] = {}

    async def remember(request: Any) -> Any:
        seen.update(baggage.get_all())
        return PlainTextResponse("ok")

    serve(Starlette(routes=[Route("/", remember)]), connection("/", headers=headers))
    assert (only(spans)["trace_id"], only(spans)["parent_id"]) == (0xABC, 0xDEF)
    assert seen == {"tenant": "acme"}


def test_a_trace_from_datadogs_headers(app: Any, spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opentelemetry.propagate._HTTP_TEXT_FORMAT", DatadogPropagator())
    headers = [(b"x-datadog-trace-id", b"123"), (b"x-datadog-parent-id", b"456")]
    serve(app, connection("/items/1", headers=[*headers, (b"x-datadog-sampling-priority", b"1")]))
    assert (only(spans)["trace_id"], only(spans)["parent_id"]) == (123, 456)


def test_hooks_and_exclusions(spans: Spans) -> None:
    StarletteInstrumentor().instrument(
        server_request_hook=lambda span, scope: span.set_attribute("path", scope["path"]),
        client_response_hook=lambda span, scope, message: span.set_attribute("sent", message["type"]),
        excluded_urls="items/[0-4]",
    )
    app = make_app()
    serve(app, connection("/items/3"))
    serve(app, connection("/items/7"))
    attributes = only(spans)["attributes"]
    assert (attributes["path"], attributes["sent"]) == ("/items/7", "http.response.body")


def test_one_app_only(spans: Spans) -> None:
    traced, other = make_app(), make_app()
    cls = type(traced)
    StarletteInstrumentor.instrument_app(traced)
    StarletteInstrumentor.instrument_app(traced)  # warns
    assert isinstance(traced, cls)
    serve(traced, connection("/v1/inner/things/3"))
    serve(other, connection("/items/1"))
    assert only(spans)["name"] == "GET /v1/inner/things/{name}"
    StarletteInstrumentor.uninstrument_app(traced)
    assert type(traced) is cls
    serve(traced, connection("/items/1"))
    assert len(servers(spans)) == 1


def test_one_app_before_and_beside_all(spans: Spans) -> None:
    app = make_app()
    StarletteInstrumentor.instrument_app(app)
    StarletteInstrumentor().instrument()
    serve(app, connection("/v1/users/3"))
    assert only(spans)["name"] == "GET /v1/users/{user}"


def test_one_app_taken_out(app: Any, spans: Spans) -> None:
    StarletteInstrumentor.uninstrument_app(app)
    serve(app, connection("/items/1"))
    assert len(servers(spans)) == 0


def test_a_router_without_an_application(app: Any, spans: Spans) -> None:
    serve(Router([Route("/items/{item}", show)]), connection("/items/3"))
    assert only(spans)["name"] == "GET /items/{item}"


def test_it_still_looks_like_an_application_to_servers(app: Any) -> None:
    assert inspect.iscoroutinefunction(app.__call__)
    with pytest.raises(TypeError):  # at once, not when it is awaited: this is how uvicorn tells it from a factory
        app()


def test_the_generic_middleware_learns_the_route(app: Any, spans: Spans) -> None:
    serve(OpenTelemetryMiddleware(app), connection("/v1/users/3"))
    assert (only(spans)["name"], only(spans)["scope"]) == ("GET /v1/users/{user}", "spanbridge.instrumentors.asgi")


def test_within_a_local_span_it_is_a_part_of_it(app: Any, spans: Spans) -> None:
    with spans.provider.get_tracer("test").start_as_current_span("outer"):
        serve(app, connection("/items/1"))
    assert [(span["name"], span["kind"], span["parent"]) for span in spans[1:2]] == [
        ("GET /items/{item:int}", "INTERNAL", "outer")
    ]


def test_requests_at_once_do_not_mix(app: Any, spans: Spans) -> None:
    async def one(number: int) -> None:
        headers = [(b"traceparent", f"00-{number:032x}-{number:016x}-01".encode())]

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            await asyncio.sleep(0)

        await app(connection(f"/items/{number}", headers=headers), receive, send)

    async def main() -> None:
        await asyncio.gather(*(one(number) for number in range(1, 101)))

    asyncio.run(main())
    found = {(span["trace_id"], span["attributes"]["url.path"]) for span in servers(spans)}
    assert found == {(number, f"/items/{number}") for number in range(1, 101)}
    inner = [span for span in spans if span["kind"] == "INTERNAL"]
    assert sorted(span["trace_id"] for span in inner) == list(range(1, 101))


def test_message_spans_in_contrib_mode(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPANBRIDGE_SEMCONV", "contrib")
    StarletteInstrumentor().instrument()
    serve(make_app(), connection("/items/1"))
    assert [span["name"] for span in spans if span["name"] != "handler"] == [
        "GET /items/{item:int} http send",
        "GET /items/{item:int} http send",
        "GET /items/{item:int}",
    ]
    assert only(spans)["attributes"]["http.status_code"] == 200


def test_starlettes_own_middleware_stands_aside(app: Any, spans: Spans) -> None:
    own = pytest.importorskip("starlette.middleware.opentelemetry", reason="not in this version of Starlette")
    serve(make_app(middleware=[Middleware(own.OpenTelemetryMiddleware)]), connection("/items/1"))
    assert [span["name"] for span in servers(spans)] == ["GET /items/{item:int}"]


# FastAPI.


@pytest.fixture
def api(app: Any) -> Any:
    fastapi = pytest.importorskip("fastapi")
    router = fastapi.APIRouter(prefix="/users")

    @router.get("/{user}")
    async def show_user(user: str) -> str:
        within("handler")
        return user

    @router.get("/broken/{user}")
    async def broken_user(user: str) -> str:
        raise ValueError(user)

    mounted = fastapi.FastAPI()
    mounted.get("/things/{thing}")(show_user)
    mounted.get("/users/{user}")(show_user)
    made = fastapi.FastAPI()
    made.include_router(router, prefix="/v1")
    made.mount("/sub", mounted)

    @made.get("/items/{item}")
    def show_item(item: int) -> int:
        within("handler")
        return item

    @made.websocket("/rooms/{room}")
    async def room(socket: fastapi.WebSocket) -> None:
        await socket.accept()
        await socket.close()

    room.__globals__["fastapi"] = fastapi  # where the annotation is looked up
    return made


@pytest.mark.parametrize(
    ("path", "name", "code"),
    [
        ("/items/3", "GET /items/{item}", 200),
        ("/items/x", "GET /items/{item}", 422),
        ("/v1/users/3", "GET /v1/users/{user}", 200),
        ("/sub/users/3", "GET /sub/users/{user}", 200),
        ("/nowhere", "GET", 404),
        ("/docs", "GET /docs", 200),
    ],
)
def test_fastapi(api: Any, spans: Spans, path: str, name: str, code: int) -> None:
    assert serve(api, connection(path))[0]["status"] == code
    span = only(spans)
    assert (span["name"], span["status"], span["scope"]) == (name, "UNSET", "spanbridge.instrumentors.fastapi")
    # FastAPI's own spans of the same request do not come on top.
    assert {inner["scope"] for inner in spans} <= {"spanbridge.instrumentors.fastapi", "shop"}


def test_what_middleware_answers_has_its_route_in_included_routers(api: Any, spans: Spans) -> None:
    api.add_middleware(Refusing)
    for path in ("/v1/users/3", "/v1/users/broken/3", "/sub/users/3", "/nowhere/3"):
        assert serve(api, connection(path))[0]["status"] == 401
    expected = ["GET /v1/users/{user}", "GET /v1/users/broken/{user}", "GET /sub/users/{user}", "GET"]
    assert [span["name"] for span in servers(spans)] == expected


def test_fastapi_is_told_from_starlette(api: Any, spans: Spans, payload: Payload) -> None:
    serve(api, connection("/sub/users/3"))
    serve(make_app(), connection("/items/1"))
    rows = [row for chunk in payload() for row in chunk if row["meta"].get("span.kind") == "server"]
    assert [(row["name"], row["resource"], row["meta"]["component"]) for row in rows] == [
        ("fastapi.request", "GET /sub/users/{user}", "fastapi"),
        ("starlette.request", "GET /items/{item:int}", "starlette"),
    ]


def ours(spans: Spans) -> set[str]:
    return {span["scope"] for span in spans if span["scope"].startswith("spanbridge.")}


def test_fastapi_is_starlette_to_contrib(api: Any, spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    StarletteInstrumentor().uninstrument()
    serve(api, connection("/items/3"))
    assert ours(spans) == set()
    monkeypatch.setenv("SPANBRIDGE_SEMCONV", "contrib")
    StarletteInstrumentor().instrument()
    serve(api, connection("/items/3"))
    assert ours(spans) == {"spanbridge.instrumentors.starlette"}


def test_fastapi_switched_off_is_starlette(api: Any, spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    StarletteInstrumentor().uninstrument()
    monkeypatch.setenv("DD_TRACE_FASTAPI_ENABLED", "false")
    load_vendor_settings()
    StarletteInstrumentor().instrument()
    monkeypatch.delenv("DD_TRACE_FASTAPI_ENABLED")
    load_vendor_settings()
    serve(api, connection("/items/3"))
    assert ours(spans) == {"spanbridge.instrumentors.starlette"}


def test_fastapi_exceptions(api: Any, spans: Spans) -> None:
    with pytest.raises(ValueError):
        serve(api, connection("/v1/users/broken/3"))
    assert (only(spans)["name"], only(spans)["status"], len(only(spans)["events"])) == (
        "GET /v1/users/broken/{user}",
        "ERROR",
        1,
    )


def test_fastapi_websockets(api: Any, spans: Spans) -> None:
    serve(api, websocket("/rooms/3"), CONNECT, DISCONNECT)
    assert [span["name"] for span in spans] == ["GET /rooms/{room}"]


def test_one_fastapi_app_only(api: Any, spans: Spans) -> None:
    StarletteInstrumentor().uninstrument()
    StarletteInstrumentor.instrument_app(api)
    serve(api, connection("/v1/users/3"))
    assert only(spans)["name"] == "GET /v1/users/{user}"
    assert {inner["scope"] for inner in spans} == {"spanbridge.instrumentors.fastapi", "shop"}
