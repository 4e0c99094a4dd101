"""Bottle over WSGI: rules, mounts, errors, streams, from 0.11 to the newest."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    bottle = pytest.importorskip("bottle")

from spanbridge.core.options import load_vendor_settings
from spanbridge.instrumentors.bottle import BottleInstrumentor
from tests.web import environ_of, visit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spanbridge.testing import Payload, Spans

FIRST = bottle.__version__.startswith("0.11")


def make_app() -> Any:
    app = bottle.Bottle()

    @app.route("/items/<item:int>", method=["GET", "POST"])
    def show(item: int) -> str:
        return f"item {item} in {getattr(trace.get_current_span(), 'name', '')}"

    @app.route("/broken")
    def broken() -> None:
        raise ValueError("broken")

    @app.route("/abort/<code:int>")
    def abort(code: int) -> None:
        bottle.abort(code, "refused")

    @app.route("/moved")
    def moved() -> None:
        bottle.redirect("/items/1")

    @app.route("/accepted")
    def accepted() -> None:
        raise bottle.HTTPResponse("later", status=202)

    @app.route("/stream")
    def stream() -> Iterator[str]:
        for number in range(3):
            with trace.get_tracer("shop").start_as_current_span(f"chunk {number}"):
                yield "x"

    @app.route("/stream/broken")
    def broken_stream() -> Iterator[str]:
        raise ValueError("broken")
        yield "x"

    @app.route("/stream/breaks")
    def breaking_stream() -> Iterator[str]:
        yield "x"
        raise ValueError("broken")

    @app.route("/file")
    def file() -> Any:
        return io.BytesIO(b"contents")

    return app


@pytest.fixture
def app(spans: Spans) -> Any:
    made = make_app()  # before `instrument()`: applications that exist are traced, too
    BottleInstrumentor().instrument()
    return made


def only(spans: Spans) -> dict[str, Any]:
    assert len(spans) == 1, spans
    return spans[0]


def test_a_request(app: Any, spans: Spans, payload: Payload) -> None:
    parent = {"HTTP_TRACEPARENT": f"00-{0xABC:032x}-{0xDEF:016x}-01"}
    answer = visit(app, "/items/3?page=1&password=hunter2", HTTP_USER_AGENT="curl/8", **parent)
    assert answer.body == b"item 3 in GET /items/<item:int>"
    span = only(spans)
    assert (span["name"], span["kind"], span["status"]) == ("GET /items/<item:int>", "SERVER", "UNSET")
    assert (span["trace_id"], span["parent_id"]) == (0xABC, 0xDEF)
    expected = {
        "http.request.method": "GET",
        "url.scheme": "http",
        "server.address": "shop.example",
        "server.port": 8080,
        "url.path": "/items/3",
        "url.query": "page=1&<redacted>",
        "user_agent.original": "curl/8",
        "http.route": "/items/<item:int>",
        "http.response.status_code": 200,
    }
    assert {key: span["attributes"].get(key) for key in expected} == expected
    row = payload()[0][0]
    assert (row["name"], row["resource"], row["type"]) == ("bottle.request", "GET /items/<item:int>", "web")


@pytest.mark.parametrize(
    ("method", "path", "resource", "status", "code"),
    [
        ("GET", "/nowhere/else", "GET 404", "UNSET", 404),
        ("PUT", "/items/3", "PUT 405", "UNSET", 405),
        ("HEAD", "/items/3", "HEAD /items/<item:int>", "UNSET", 200),
        ("OPTIONS", "/items/3", "OPTIONS 405", "UNSET", 405),
        ("GET", "/abort/404", "GET /abort/<code:int>", "UNSET", 404),
        ("GET", "/abort/503", "GET /abort/<code:int>", "ERROR", 503),
        ("GET", "/moved", "GET /moved", "UNSET", 303),
        ("GET", "/accepted", "GET /accepted", "UNSET", 202),
        ("GET", "/broken", "GET /broken", "ERROR", 500),
        ("GET", "/stream/broken", "GET /stream/broken", "ERROR", 500),
        ("GET", "/file", "GET /file", "UNSET", 200),
        ("BREW", "/items/3", "HTTP 405", "UNSET", 405),
    ],
)
def test_answers(
    app: Any, spans: Spans, payload: Payload, method: str, path: str, resource: str, status: str, code: int
) -> None:
    assert visit(app, path, method).status == code
    span = only(spans)
    assert (span["status"], span["attributes"]["http.response.status_code"]) == (status, code)
    row = payload()[0][0]
    assert (row["resource"], row["error"]) == (resource, int(status == "ERROR"))


def test_a_path_is_text_in_utf_8(app: Any, spans: Spans) -> None:
    visit(app, "/caf%C3%A9/%E2%82%AC/%FF", SCRIPT_NAME="/é".encode().decode("latin-1"))
    assert only(spans)["attributes"]["url.path"] == "/é/café/€/\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize("path", ["/broken", "/stream/broken"])
def test_an_unhandled_exception_is_recorded_once(app: Any, spans: Spans, path: str) -> None:
    visit(app, path)
    span = only(spans)
    assert [event["attributes"]["exception.message"] for event in span["events"]] == ["broken"]
    assert span["attributes"]["error.type"] == "ValueError"


def test_an_exception_that_bottle_lets_through(app: Any, spans: Spans) -> None:
    app.catchall = False
    with pytest.raises(ValueError, match="broken"):
        visit(app, "/broken")
    assert (only(spans)["status"], len(only(spans)["events"])) == ("ERROR", 1)


def test_an_error_handler_that_fails(app: Any, spans: Spans) -> None:
    @app.error(404)
    def not_found(error: Any) -> None:
        raise KeyError("handler")

    assert visit(app, "/nowhere").status == 500
    assert only(spans)["status"] == "ERROR"
    # 0.11 tells the server no exception.
    said = [] if FIRST else ["KeyError"]
    assert [event["attributes"]["exception.type"] for event in only(spans)["events"]] == said


def test_an_error_handler_that_succeeds(app: Any, spans: Spans) -> None:
    @app.error(500)
    def sorry(error: Any) -> str:
        bottle.response.status = 200
        return "sorry"

    assert visit(app, "/broken").body == b"sorry"


def test_streams(app: Any, spans: Spans) -> None:
    body = app(environ_of("/stream"), lambda *_: None)
    first = next(iter(body))
    assert [span["name"] for span in spans] == []
    assert b"".join([first, *body]) == b"xxx"
    body.close()
    *parts, server = spans
    assert server["name"] == "GET /stream"
    assert {part["parent"] for part in parts} == {"GET /stream"}


def test_a_client_that_goes_away_ends_the_span(app: Any, spans: Spans) -> None:
    body = app(environ_of("/stream"), lambda *_: None)
    next(iter(body))
    body.close()
    assert spans[-1]["name"] == "GET /stream"
    assert spans.unfinished == []
    assert not trace.get_current_span().get_span_context().is_valid


def test_an_exception_amid_the_body(app: Any, spans: Spans) -> None:
    with pytest.raises(ValueError, match="broken"):
        visit(app, "/stream/breaks")
    assert (only(spans)["status"], len(only(spans)["events"])) == ("ERROR", 1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("prefix", ["/shop", "/shop/"])
def test_mounted_applications(app: Any, spans: Spans, prefix: str) -> None:
    outer = bottle.Bottle()
    outer.mount(prefix, app)
    assert visit(outer, "/shop/items/3").status == 200
    assert visit(outer, "/shop/broken").status == 500
    first, second = spans
    assert first["name"] == "GET /shop/items/<item:int>"
    assert (second["name"], second["status"], len(second["events"])) == ("GET /shop/broken", "ERROR", 1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_applications_mounted_in_mounted_ones(app: Any, spans: Spans) -> None:
    middle, outer = bottle.Bottle(), bottle.Bottle()
    middle.mount("/b", app)
    outer.mount("/a", middle)
    assert visit(outer, "/a/b/items/3").status == 200
    assert only(spans)["name"] == "GET /a/b/items/<item:int>"


def test_the_default_application(spans: Spans) -> None:
    BottleInstrumentor().instrument()
    bottle.app.push()
    bottle.route("/here")(lambda: "here")
    visit(bottle.app.pop(), "/here")
    assert only(spans)["name"] == "GET /here"


def test_names_are_few(app: Any, spans: Spans) -> None:
    for number in range(500):
        visit(app, f"/items/{number}")
        visit(app, f"/nowhere/{number}")
    assert {span["name"] for span in spans} == {"GET /items/<item:int>", "GET"}


def test_hooks_and_excluded_urls(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_PYTHON_BOTTLE_EXCLUDED_URLS", "health")
    BottleInstrumentor().instrument(
        request_hook=lambda span, environ: span.set_attribute("path", environ["PATH_INFO"]),
        response_hook=lambda span, environ, status, headers: span.set_attribute("line", status),
    )
    app = make_app()
    visit(app, "/items/3")
    visit(app, "/health")
    attributes = only(spans)["attributes"]
    assert (attributes["path"], attributes["line"]) == ("/items/3", "200 OK")


def test_callers_need_not_be_believed(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DD_BOTTLE_DISTRIBUTED_TRACING", "false")
    load_vendor_settings()
    BottleInstrumentor().instrument()
    visit(make_app(), "/items/3", HTTP_TRACEPARENT=f"00-{0xABC:032x}-{0xDEF:016x}-01")
    monkeypatch.delenv("DD_BOTTLE_DISTRIBUTED_TRACING")
    load_vendor_settings()
    assert (only(spans)["parent_id"], only(spans)["kind"]) == (None, "SERVER")
