"""The generic ASGI middleware, message by message."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.propagators import TraceResponsePropagator, set_global_response_propagator
from opentelemetry.instrumentation.utils import suppress_http_instrumentation

from spanbridge.instrumentors.asgi import ASGIGetter, OpenTelemetryMiddleware, asgi_setter
from tests.asgi import ACCEPT, CLOSE, CONNECT, DISCONNECT, LAST, START, connection, serve, websocket

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spanbridge.testing import Payload, Spans


def answering(*messages: dict[str, Any], error: Exception | None = None) -> Any:
    """Make an application that sends `messages`, and then may fail."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(dict(message))
        if error is not None:
            raise error

    return app


def only(spans: Spans) -> dict[str, Any]:
    assert len(spans) == 1, spans
    return spans[0]


def test_the_client_behind_a_proxy(spans: Spans, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    settings["http.client_headers"] = ("x-forwarded-for",)
    scope = connection("/", headers=[(b"x-forwarded-for", b"8.8.8.8, 10.1.1.1")])
    serve(OpenTelemetryMiddleware(answering(START, LAST)), scope)
    attributes = only(spans)["attributes"]
    assert (attributes["client.address"], attributes["network.peer.address"]) == ("8.8.8.8", "10.0.0.7")
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "http/dup")
    monkeypatch.setenv("SPANBRIDGE_SEMCONV", "contrib")
    serve(OpenTelemetryMiddleware(answering(START, LAST)), connection("/", headers=scope["headers"]))
    attributes = spans[-1]["attributes"]
    assert (attributes["http.client_ip"], attributes["client.address"]) == ("8.8.8.8", "8.8.8.8")


def test_a_request(spans: Spans, payload: Payload) -> None:
    headers = [(b"host", b"shop.example:8080"), (b"user-agent", b"curl/8")]
    scope = connection("/items/3", query_string=b"page=1&password=hunter2", headers=headers)
    assert serve(OpenTelemetryMiddleware(answering(START, LAST)), scope) == [START, LAST]
    span = only(spans)
    assert (span["name"], span["kind"], span["status"], span["parent_id"]) == ("GET", "SERVER", "UNSET", None)
    assert span["attributes"] == {
        "http.request.method": "GET",
        "url.scheme": "http",
        "server.address": "shop.example",
        "server.port": 8080,
        "url.path": "/items/3",
        "url.query": "page=1&<redacted>",
        "client.address": "10.0.0.7",
        "client.port": 4711,
        "user_agent.original": "curl/8",
        "network.protocol.version": "1.1",
        "asgi.version": "3.0",
        "http.response.status_code": 200,
    }
    ((root,),) = payload()
    assert (root["name"], root["resource"], root["type"]) == ("asgi.request", "GET /items/3", "web")


@pytest.mark.parametrize(
    ("scope", "path"),
    [
        (connection("/api/items", root_path="/api"), "/api/items"),  # as the specification has it
        (connection("/items", root_path="/api/"), "/api/items"),  # as some servers have it
    ],
)
def test_root_path(scope: dict[str, Any], path: str, spans: Spans) -> None:
    serve(OpenTelemetryMiddleware(answering(START, LAST)), scope)
    assert only(spans)["attributes"]["url.path"] == path


def test_a_unix_socket_has_neither_client_nor_port(spans: Spans) -> None:
    scope = connection(client=None, server=("/run/shop.sock", None), headers=iter([(b"host", b"shop.example")]))
    serve(OpenTelemetryMiddleware(answering(START, LAST)), scope)
    attributes = only(spans)["attributes"]
    assert attributes["server.address"] == "shop.example"
    assert not attributes.keys() & {"client.address", "server.port"}
    assert scope["headers"] == [(b"host", b"shop.example")]  # the application still finds them


def test_repeated_headers_are_one_list(spans: Spans) -> None:
    headers = [
        (b"traceparent", b"00-%032x-%016x-01" % (0xABC, 0xDEF)),
        (b"tracestate", b"a=1"),
        (b"tracestate", b"b=2"),
    ]
    serve(OpenTelemetryMiddleware(answering(START, LAST)), connection(headers=headers))
    assert (only(spans)["trace_id"], only(spans)["parent_id"]) == (0xABC, 0xDEF)
    state = spans.finished[0].context.trace_state
    assert (state["a"], state["b"]) == ("1", "2")


@pytest.mark.parametrize(
    ("messages", "lasts_until"),
    [
        ([START, LAST], 2),
        ([START, {**LAST, "more_body": True}, {**LAST, "more_body": True}, LAST], 4),
        ([START, {"type": "http.response.pathsend", "path": "/etc/hostname"}], 2),
        ([{**START, "trailers": True}, LAST, {"type": "http.response.trailers", "headers": []}], 3),
    ],
    ids=["at once", "streamed", "by path", "trailers"],
)
def test_the_span_ends_with_the_last_byte(messages: list[Any], lasts_until: int, spans: Spans) -> None:
    open_after = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(dict(message))
            open_after.append(bool(spans.unfinished))

    serve(OpenTelemetryMiddleware(app))
    assert open_after == [True] * (lasts_until - 1) + [False]
    assert only(spans)["status"] == "UNSET"


def test_background_work_keeps_its_parent(spans: Spans) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answering(START, LAST)(scope, receive, send)
        with trace.get_tracer("shop").start_as_current_span("afterwards"):
            pass

    serve(OpenTelemetryMiddleware(app))
    assert [(span["name"], span["parent"]) for span in spans] == [("GET", None), ("afterwards", "GET")]


def test_a_response_sent_by_another_task(spans: Spans, caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.create_task(answering(START, LAST)(scope, receive, send))
        with trace.get_tracer("shop").start_as_current_span("afterwards"):
            pass

    serve(OpenTelemetryMiddleware(app))
    assert [(span["name"], span["parent"]) for span in spans] == [("GET", None), ("afterwards", "GET")]
    assert caplog.records == []


def test_the_exception_behind_an_error_page_is_recorded(spans: Spans) -> None:
    app = answering({**START, "status": 500}, LAST, error=ValueError("broken"))
    with pytest.raises(ValueError, match="broken"):
        serve(OpenTelemetryMiddleware(app))
    span = only(spans)
    assert (span["status"], span["attributes"]["error.type"]) == ("ERROR", "ValueError")
    assert span["attributes"]["http.response.status_code"] == 500
    assert [event["attributes"]["exception.message"] for event in span["events"]] == ["broken"]


def test_a_crash_without_a_response(spans: Spans) -> None:
    with pytest.raises(ValueError):
        serve(OpenTelemetryMiddleware(answering(error=ValueError("broken"))))
    assert (only(spans)["status"], len(only(spans)["events"])) == ("ERROR", 1)
    assert only(spans)["attributes"]["http.response.status_code"] == 500  # which the server answers


def test_a_crash_after_the_start_of_the_response(spans: Spans) -> None:
    with pytest.raises(ValueError):
        serve(OpenTelemetryMiddleware(answering(START, error=ValueError("broken"))))
    assert (only(spans)["status"], only(spans)["attributes"]["http.response.status_code"]) == ("ERROR", 200)


def test_a_crash_has_no_status_to_contrib(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPANBRIDGE_SEMCONV", "contrib")
    with pytest.raises(ValueError):
        serve(OpenTelemetryMiddleware(answering(error=ValueError("broken"))))
    assert "http.status_code" not in only(spans)["attributes"]


@pytest.mark.parametrize(("code", "status"), [(302, "UNSET"), (404, "UNSET"), (499, "UNSET"), (503, "ERROR")])
def test_status(code: int, status: str, spans: Spans) -> None:
    serve(OpenTelemetryMiddleware(answering({**START, "status": code}, LAST)))
    assert (only(spans)["status"], only(spans)["attributes"]["http.response.status_code"]) == (status, code)


class Gone(OSError):
    pass


def test_a_client_that_goes_away_is_no_error(spans: Spans) -> None:
    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.body":
            raise Gone

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await answering(START, LAST)(scope, receive, send)
        except OSError:
            raise RuntimeError("as frameworks say it")  # noqa: B904 - as Starlette raises it

    with pytest.raises(RuntimeError):
        asyncio.run(OpenTelemetryMiddleware(app)(connection(), None, send))
    assert (only(spans)["status"], only(spans)["events"]) == ("UNSET", [])


def test_cancelled(spans: Spans) -> None:
    async def forever(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await asyncio.Event().wait()

    async def main() -> None:
        started = asyncio.Event()

        async def send(message: Any) -> None:
            started.set()

        request = asyncio.create_task(OpenTelemetryMiddleware(forever)(connection(), None, send))
        await started.wait()
        request.cancel()
        await asyncio.wait([request])
        assert request.cancelled()

    asyncio.run(main())
    assert (only(spans)["status"], only(spans)["attributes"]["http.response.status_code"]) == ("UNSET", 200)


# Websockets.


def test_a_websocket_is_one_span_of_its_handshake(spans: Spans, payload: Payload) -> None:
    async def chat(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(dict(ACCEPT))
        assert [span["name"] for span in spans] == ["GET"]
        for number in range(3):
            with trace.get_tracer("chat").start_as_current_span(f"message {number}"):
                await send({"type": "websocket.send", "text": "hi"})
        await send(dict(CLOSE))

    serve(OpenTelemetryMiddleware(chat), websocket("/rooms/3"), CONNECT, DISCONNECT)
    handshake, *messages = spans
    assert (handshake["kind"], handshake["status"]) == ("SERVER", "UNSET")
    assert handshake["attributes"]["http.response.status_code"] == 101
    assert {span["parent"] for span in messages} == {"GET"}


def test_a_refused_websocket(spans: Spans) -> None:
    serve(OpenTelemetryMiddleware(answering(CLOSE)), websocket(), CONNECT)
    assert (only(spans)["status"], only(spans)["attributes"]["http.response.status_code"]) == ("UNSET", 403)


def test_a_websocket_refused_with_a_response(spans: Spans) -> None:
    denial = [{"type": "websocket.http.response.start", "status": 503, "headers": []}]
    denial.append({"type": "websocket.http.response.body"})
    serve(OpenTelemetryMiddleware(answering(*denial)), websocket(), CONNECT)
    assert (only(spans)["status"], only(spans)["attributes"]["http.response.status_code"]) == ("ERROR", 503)


def test_a_crash_in_the_handshake(spans: Spans) -> None:
    with pytest.raises(ValueError):
        serve(OpenTelemetryMiddleware(answering(error=ValueError())), websocket(), CONNECT)
    assert (only(spans)["status"], only(spans)["attributes"]["http.response.status_code"]) == ("ERROR", 500)


# What makes no span.


def test_lifespan_is_left_alone(spans: Spans) -> None:
    messages: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        messages.append(await receive())
        await send({"type": "lifespan.startup.complete"})

    startup = {"type": "lifespan.startup"}
    assert serve(OpenTelemetryMiddleware(app), {"type": "lifespan"}, startup) == [{"type": "lifespan.startup.complete"}]
    assert (messages, len(spans)) == ([startup], 0)


def test_excluded_and_suppressed(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_PYTHON_ASGI_EXCLUDED_URLS", "health,metrics$")
    app = OpenTelemetryMiddleware(answering(START, LAST))
    serve(app, connection("/health/live"))
    with suppress_http_instrumentation():
        serve(app, connection("/items"))
    assert len(spans) == 0
    serve(app, connection("/items"))
    assert len(spans) == 1


def test_one_middleware_within_another_adds_nothing(spans: Spans) -> None:
    serve(OpenTelemetryMiddleware(OpenTelemetryMiddleware(answering(START, LAST))))
    assert only(spans)["parent"] is None


# Options.


def test_hooks_get_the_requests_span(spans: Spans) -> None:
    def on_server(span: Any, scope: dict[str, Any]) -> None:
        span.set_attribute("path", scope["path"])

    def on_receive(span: Any, scope: dict[str, Any], message: dict[str, Any]) -> None:
        span.set_attribute("received", message["type"])

    def on_send(span: Any, scope: dict[str, Any], message: dict[str, Any]) -> None:
        span.set_attribute("sent", message["type"])
        raise ValueError("a fault of the hook")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await answering(START, LAST)(scope, receive, send)

    hooks = {
        "server_request_hook": on_server,
        "client_request_hook": on_receive,
        "client_response_hook": on_send,
    }
    assert serve(OpenTelemetryMiddleware(app, **hooks)) == [START, LAST]
    attributes = only(spans)["attributes"]
    assert (attributes["path"], attributes["received"], attributes["sent"]) == (
        "/",
        "http.request",
        "http.response.body",
    )


def test_message_spans(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPANBRIDGE_ASGI_EXCLUDE_SPANS", "receive")
    serve(OpenTelemetryMiddleware(answering(START, LAST)))
    assert [(span["name"], span["attributes"].get("asgi.event.type"), span["parent"]) for span in spans] == [
        ("GET http send", "http.response.start", "GET"),
        ("GET http send", "http.response.body", "GET"),
        ("GET", None, None),
    ]


def test_default_span_details(spans: Spans) -> None:
    details = lambda scope: ("named by the user", {"tenant": "acme"})  # noqa: E731
    serve(OpenTelemetryMiddleware(answering(START, LAST), default_span_details=details))
    assert (only(spans)["name"], only(spans)["attributes"]["tenant"]) == ("named by the user", "acme")


def test_captured_headers(spans: Spans) -> None:
    headers = [(b"x-tenant", b"acme"), (b"x-tenant", b"other"), (b"authorization", b"Basic c2VjcmV0")]
    app = OpenTelemetryMiddleware(
        answering(START, LAST),
        http_capture_headers_server_request=["x-.*", "authorization"],
        http_capture_headers_server_response=["content-type"],
    )
    serve(app, connection(headers=headers))
    attributes = only(spans)["attributes"]
    assert attributes["http.request.header.x-tenant"] == ("acme", "other")
    assert attributes["http.request.header.authorization"] == ("[REDACTED]",)
    assert attributes["http.response.header.content-type"] == ("text/plain",)


def test_what_can_be_read_but_once_is_left_for_the_application(spans: Spans) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.extend((dict(scope["headers"]), list(scope["client"]), list(scope["server"])))
        await send({**START, "headers": iter([iter([b"x-answer", b"42"])])})
        await send(LAST)

    once = connection(
        headers=iter([iter([b"x-tenant", b"acme"])]), client=iter(["10.0.0.7", 4711]), server=iter(["127.0.0.1", 8000])
    )
    traced = OpenTelemetryMiddleware(
        app,
        excluded_urls="health",
        http_capture_headers_server_request=["x-tenant"],
        http_capture_headers_server_response=["x-answer"],
    )
    sent = serve(traced, once)
    assert seen == [{b"x-tenant": b"acme"}, ["10.0.0.7", 4711], ["127.0.0.1", 8000]]
    assert dict(sent[0]["headers"]) == {b"x-answer": b"42"}
    attributes = only(spans)["attributes"]
    assert attributes["http.request.header.x-tenant"] == ("acme",)
    assert attributes["http.response.header.x-answer"] == ("42",)
    assert (attributes["client.address"], attributes["server.address"]) == ("10.0.0.7", "127.0.0.1")


@pytest.fixture
def _response_propagator() -> Iterator[None]:
    set_global_response_propagator(TraceResponsePropagator())
    yield
    set_global_response_propagator(None)


@pytest.mark.usefixtures("_response_propagator")
def test_the_trace_is_told_to_the_client(spans: Spans) -> None:
    start, _ = serve(OpenTelemetryMiddleware(answering(START, LAST)))
    assert dict(start["headers"])[b"traceresponse"].startswith(b"00-%032x" % only(spans)["trace_id"])


def test_old_names(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPANBRIDGE_SEMCONV", "contrib")
    serve(OpenTelemetryMiddleware(answering(START, LAST), exclude_spans=["send", "receive"]), connection("/items/3"))
    span = only(spans)
    assert span["name"] == "GET /items/3"
    assert (span["attributes"]["http.method"], span["attributes"]["http.status_code"]) == ("GET", 200)
    assert "http.request.method" not in span["attributes"]


def test_applications_of_asgi_2(spans: Spans) -> None:
    class Application:
        def __init__(self, scope: dict[str, Any]) -> None:
            self.scope = scope

        async def __call__(self, receive: Any, send: Any) -> None:
            await answering(START, LAST)(self.scope, receive, send)

    assert serve(OpenTelemetryMiddleware(Application)) == [START, LAST]
    assert len(spans) == 1


def test_getter_and_setter() -> None:
    message: dict[str, Any] = {}
    asgi_setter.set(message, "X-Tenant", "acme")
    assert message == {"headers": [[b"x-tenant", b"acme"]]}
    assert ASGIGetter().get(message, "X-TENANT") == ["acme"]
    assert ASGIGetter().get(message, "absent") is None
    assert ASGIGetter().keys(message) == ["x-tenant"]


def test_the_next_request_of_a_connection_is_no_part_of_the_one_before(spans: Spans) -> None:
    """Servers with pipelining begin it from within the `send` that ends the one before."""
    app = OpenTelemetryMiddleware(answering(START, LAST))
    following: list[asyncio.Task[None]] = []

    async def ignore(message: dict[str, Any]) -> None:
        pass

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.body":
            following.append(asyncio.create_task(app(connection("/2"), None, ignore)))

    async def main() -> None:
        await app(connection("/1"), None, send)
        await asyncio.gather(*following)

    asyncio.run(main())
    first, second = spans
    assert (first["kind"], second["kind"]) == ("SERVER", "SERVER")
    assert (second["parent_id"], second["trace_id"] == first["trace_id"]) == (None, False)
