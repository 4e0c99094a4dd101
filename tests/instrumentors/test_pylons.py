"""Pylons, converted to Python 3, behind Routes, sessions and the registry of its objects: 1.0 and 1.0.3."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("pylons")
    from pylons.controllers.util import abort, redirect

    from tests.pylons_project import WSGIController, cached_template, make_app, pylons

from spanbridge.instrumentors.pylons import PylonsInstrumentor
from tests.web import environ_of, visit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spanbridge.testing import Payload, Spans

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Items(WSGIController):  # type: ignore[misc]
    def show(self, item: str) -> str:
        return f"in {getattr(trace.get_current_span(), 'name', '')}"

    def broken(self) -> None:
        raise ValueError("broken")

    def refuse(self, code: str) -> None:
        abort(int(code))

    def move(self) -> None:
        redirect("/items/1")

    def fail(self) -> str:
        pylons.response.status_int = 503
        return "later"

    def stream(self) -> Iterator[bytes]:
        return iter([b"a", b"b"])

    def page(self) -> Any:
        return cached_template("page.html", lambda: "page", ns_options=())


def application() -> Any:
    return make_app(
        {"items": Items},
        ("/items/{item}", "items", "show"),
        ("/refuse/{code}", "items", "refuse"),
        ("/any/{action}", "items", "broken"),
        *((f"/{action}", "items", action) for action in ("broken", "move", "fail", "stream", "page")),
    )


@pytest.fixture
def app(spans: Spans) -> Any:
    made = application()  # before `instrument()`: applications that exist are traced, too
    PylonsInstrumentor().instrument()
    return made


def only(spans: Spans) -> dict[str, Any]:
    assert len(spans) == 1, spans
    return spans[0]


def test_a_request(app: Any, spans: Spans, payload: Payload) -> None:
    parent = {"HTTP_TRACEPARENT": f"00-{0xABC:032x}-{0xDEF:016x}-01"}
    assert visit(app, "/items/3?page=1&password=hunter2", **parent).body == b"in GET /items/{item}"
    span = only(spans)
    assert (span["name"], span["kind"], span["status"]) == ("GET /items/{item}", "SERVER", "UNSET")
    assert (span["trace_id"], span["parent_id"]) == (0xABC, 0xDEF)
    expected = {
        "url.path": "/items/3",
        "url.query": "page=1&<redacted>",
        "http.route": "/items/{item}",
        "pylons.route.controller": "items",
        "pylons.route.action": "show",
        "http.response.status_code": 200,
    }
    assert {key: span["attributes"].get(key) for key in expected} == expected
    row = payload()[0][0]
    assert (row["name"], row["resource"], row["type"]) == ("pylons.request", "items.show", "web")


@pytest.mark.parametrize(
    ("method", "path", "name", "resource", "status", "code"),
    [
        ("GET", "/nowhere/else", "GET", "None.None", "UNSET", 404),
        ("HEAD", "/items/3", "HEAD /items/{item}", "items.show", "UNSET", 200),
        ("POST", "/items/3", "POST /items/{item}", "items.show", "UNSET", 200),
        ("GET", "/refuse/404", "GET /refuse/{code}", "items.refuse", "UNSET", 404),
        ("GET", "/refuse/503", "GET /refuse/{code}", "items.refuse", "ERROR", 503),
        ("GET", "/move", "GET /move", "items.move", "UNSET", 302),
        ("GET", "/fail", "GET /fail", "items.fail", "ERROR", 503),
        ("GET", "/stream", "GET /stream", "items.stream", "UNSET", 200),
    ],
)
def test_answers(
    app: Any, spans: Spans, payload: Payload, method: str, path: str, name: str, resource: str, status: str, code: int
) -> None:
    assert visit(app, path, method).status == code
    span = only(spans)
    assert (span["name"], span["status"], span["attributes"]["http.response.status_code"]) == (name, status, code)
    row = payload()[0][0]
    assert (row["resource"], row["error"]) == (resource, int(status == "ERROR"))


def test_an_unhandled_exception(app: Any, spans: Spans) -> None:
    with pytest.raises(ValueError, match="broken"):
        visit(app, "/broken")
    span = only(spans)
    assert [event["attributes"]["exception.message"] for event in span["events"]] == ["broken"]
    assert span["attributes"]["http.response.status_code"] == 500


def test_a_client_that_goes_away_ends_the_span(app: Any, spans: Spans) -> None:
    body = app(environ_of("/stream"), lambda *_: None)
    next(iter(body))
    getattr(body, "close", lambda: None)()
    del body
    assert only(spans)["name"] == "GET /stream"
    assert not trace.get_current_span().get_span_context().is_valid


def test_names_are_few(app: Any, spans: Spans) -> None:
    for number in range(200):
        visit(app, f"/items/{number}")
        visit(app, f"/nowhere/{number}")
    assert {span["name"] for span in spans} == {"GET /items/{item}", "GET"}


def test_rendering_is_an_option(app: Any, spans: Spans, payload: Payload) -> None:
    visit(app, "/page")
    assert only(spans)["name"] == "GET /page"
    PylonsInstrumentor().uninstrument()
    PylonsInstrumentor().instrument(template_spans=True)
    visit(app, "/page")
    row = payload()[1][1]
    assert (row["name"], row["resource"], row["type"]) == ("pylons.render", "page.html", "template")


def test_hooks_and_excluded_urls(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_PYTHON_PYLONS_EXCLUDED_URLS", "page")
    PylonsInstrumentor().instrument(
        request_hook=lambda span, environ: span.set_attribute("path", environ["PATH_INFO"]),
        response_hook=lambda span, environ, status, headers: span.set_attribute("line", status),
    )
    app = application()
    visit(app, "/items/3")
    visit(app, "/page")
    attributes = only(spans)["attributes"]
    assert (attributes["path"], attributes["line"]) == ("/items/3", "200 OK")
