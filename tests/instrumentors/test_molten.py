"""Molten over WSGI: routes, includes, errors, streams, from 0.7 to the newest. Handlers need types, not their names."""

import io
from importlib.metadata import version
from typing import Any

import pytest
from opentelemetry import trace

molten = pytest.importorskip("molten")

from spanbridge.instrumentors.molten import MoltenInstrumentor  # noqa: E402
from spanbridge.testing import Payload, Spans  # noqa: E402
from tests.web import environ_of, visit  # noqa: E402


def show(item: int) -> str:
    return f"in {getattr(trace.get_current_span(), 'name', '')}"


def broken() -> str:
    raise ValueError("broken")


def refused() -> str:
    raise molten.HTTPError(molten.HTTP_404, {"error": "refused"})


def unavailable() -> molten.Response:
    return molten.Response("503 Service Unavailable", content="later")


def nothing() -> molten.Response:
    return molten.Response(molten.HTTP_204)


def file() -> molten.Response:
    return molten.Response(molten.HTTP_200, stream=io.BytesIO(b"contents"))


def make_app() -> Any:
    return molten.App(
        [
            molten.Route("/items/{item}", show),
            molten.Route("/broken", broken),
            molten.Route("/refused", refused),
            molten.Route("/unavailable", unavailable),
            molten.Route("/nothing", nothing),
            molten.Route("/file", file),
            molten.Include("/v1", [molten.Route("/things/{item}", show, name="thing", method="POST")]),
        ]
    )


@pytest.fixture
def app(spans: Spans) -> Any:
    made = make_app()  # before `instrument()`: applications that exist are traced, too
    MoltenInstrumentor().instrument()
    return made


def only(spans: Spans) -> dict[str, Any]:
    assert len(spans) == 1, spans
    return spans[0]


def test_a_request(app: Any, spans: Spans, payload: Payload) -> None:
    parent = {"HTTP_TRACEPARENT": f"00-{0xABC:032x}-{0xDEF:016x}-01"}
    assert visit(app, "/items/3?page=1&password=hunter2", **parent).body == b'"in GET /items/{item}"'
    span = only(spans)
    assert (span["name"], span["kind"], span["status"]) == ("GET /items/{item}", "SERVER", "UNSET")
    assert (span["trace_id"], span["parent_id"]) == (0xABC, 0xDEF)
    expected = {
        "url.path": "/items/3",
        "url.query": "page=1&<redacted>",
        "server.port": 8080,
        "http.route": "/items/{item}",
        "http.response.status_code": 200,
    }
    assert {key: span["attributes"].get(key) for key in expected} == expected
    row = payload()[0][0]
    assert (row["name"], row["resource"], row["type"]) == ("molten.request", "GET /items/{item}", "web")
    assert row["meta"]["http.url"].startswith("http://shop.example:8080/items/3")
    assert (row["meta"]["http.route"], row["meta"]["molten.route"]) == ("/items/{item}", "show")
    assert row["meta"]["molten.version"] == version("molten")


@pytest.mark.parametrize(
    ("method", "path", "resource", "status", "code"),
    [
        ("GET", "/nowhere/else", "GET 404", "UNSET", 404),
        ("PUT", "/items/3", "PUT 404", "UNSET", 404),
        ("HEAD", "/items/3", "HEAD 404", "UNSET", 404),
        ("GET", "/refused", "GET /refused", "UNSET", 404),
        ("GET", "/unavailable", "GET /unavailable", "ERROR", 503),
        ("GET", "/broken", "GET /broken", "ERROR", 500),
        ("GET", "/nothing", "GET /nothing", "UNSET", 204),
        ("GET", "/file", "GET /file", "UNSET", 200),
        ("POST", "/v1/things/3", "POST /v1/things/{item}", "UNSET", 200),
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


def test_an_unhandled_exception_is_recorded_once(app: Any, spans: Spans) -> None:
    visit(app, "/broken")
    assert [event["attributes"]["exception.message"] for event in only(spans)["events"]] == ["broken"]


def test_a_client_that_goes_away_ends_the_span(app: Any, spans: Spans) -> None:
    body = app(environ_of("/file"), lambda *_: None)
    assert len(spans) == 0
    body.close()
    assert only(spans)["name"] == "GET /file"


def test_files_are_left_to_the_server(app: Any, spans: Spans) -> None:
    class Wrapper:
        def __init__(self, file: Any) -> None:
            self.file, self.close = file, file.close

    body = app(environ_of("/file", **{"wsgi.file_wrapper": Wrapper}), lambda *_: None)
    assert isinstance(body, Wrapper)
    body.close()
    assert only(spans)["name"] == "GET /file"


def test_names_are_few(app: Any, spans: Spans) -> None:
    for number in range(300):
        visit(app, f"/items/{number}")
        visit(app, f"/nowhere/{number}")
    assert {span["name"] for span in spans} == {"GET /items/{item}", "GET"}


def test_hooks_and_excluded_urls(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_PYTHON_MOLTEN_EXCLUDED_URLS", "file")
    MoltenInstrumentor().instrument(
        request_hook=lambda span, environ: span.set_attribute("path", environ["PATH_INFO"]),
        response_hook=lambda span, environ, status, headers: span.set_attribute("line", status),
    )
    app = make_app()
    visit(app, "/items/3")
    visit(app, "/file")
    attributes = only(spans)["attributes"]
    assert (attributes["path"], attributes["line"]) == ("/items/3", "200 OK")
