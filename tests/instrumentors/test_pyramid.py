"""Pyramid over WSGI: routes, traversal, exception views, tweens, from 1.7 to the newest."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace

with warnings.catch_warnings():  # it imports pkg_resources
    warnings.simplefilter("ignore")
    pyramid = pytest.importorskip("pyramid")
    from pyramid.config import Configurator
    from pyramid.httpexceptions import HTTPForbidden, HTTPFound, HTTPServiceUnavailable
    from pyramid.interfaces import IResponse
    from pyramid.renderers import render
    from pyramid.request import Request
    from pyramid.response import FileIter, Response
    from zope.interface import implementer

from spanbridge.instrumentors.pyramid import PyramidInstrumentor
from tests.web import environ_of, visit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from spanbridge.testing import Payload, Spans

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Handled(Exception):
    pass


class Root(dict):  # type: ignore[type-arg]
    """A tree to traverse: anything below `tree` is found."""

    def __init__(self, request: Any) -> None:
        self["tree"] = self


def chunks(fails_after: int = 3) -> Iterator[bytes]:
    for number in range(3):
        if number == fails_after:
            raise OSError("cut")
        with trace.get_tracer("shop").start_as_current_span(f"chunk {number}"):
            yield b"x"


def raiser(error: Exception) -> Callable[[Any], None]:
    def view(request: Any) -> None:
        raise error

    return view


def configure(**settings: Any) -> Any:
    config = Configurator(settings=settings, root_factory=Root)

    def add(pattern: str, view: Any) -> None:
        config.add_route(pattern, pattern)
        config.add_view(view, route_name=pattern)

    def api(config: Any) -> None:
        config.add_route("api.thing", "things/{name}")
        config.add_view(lambda request: Response("thing"), route_name="api.thing", request_method="GET")

    add("/items/{item:\\d+}", lambda request: Response(f"in {getattr(trace.get_current_span(), 'name', '')}"))
    add("/broken", raiser(ValueError("broken")))
    add("/handled", raiser(Handled("handled")))
    add("/moved", raiser(HTTPFound("/items/1")))
    add("/forbidden", raiser(HTTPForbidden()))
    add("/unavailable", raiser(HTTPServiceUnavailable()))
    add("/returns", lambda request: HTTPServiceUnavailable())
    add("/stream", lambda request: Response(app_iter=chunks()))
    add("/cut", lambda request: Response(app_iter=chunks(fails_after=1)))
    add("/never", lambda request: Response(app_iter=chunks(fails_after=0)))
    add("/json", lambda request: Response(render("json", {"a": 1})))
    add("/inner", lambda request: request.invoke_subrequest(Request.blank("/items/1")))
    config.include(api, route_prefix="/api")
    config.add_view(lambda error, request: Response("sorry", status=int(request.params["status"])), context=Handled)
    config.add_view(lambda context, request: Response("found"), context=Root)
    return config


@pytest.fixture
def app(spans: Spans) -> Any:
    made = configure().make_wsgi_app()  # before `instrument()`: applications that exist are traced, too
    PyramidInstrumentor().instrument()
    return made


def only(spans: Spans) -> dict[str, Any]:
    assert len(spans) == 1, spans
    return spans[0]


def test_a_request(app: Any, spans: Spans, payload: Payload) -> None:
    parent = {"HTTP_TRACEPARENT": f"00-{0xABC:032x}-{0xDEF:016x}-01"}
    assert visit(app, "/items/3?page=1&password=hunter2", **parent).body == b"in GET /items/{item:\\d+}"
    span = only(spans)
    assert (span["name"], span["kind"], span["status"]) == ("GET /items/{item:\\d+}", "SERVER", "UNSET")
    assert (span["trace_id"], span["parent_id"]) == (0xABC, 0xDEF)
    expected = {
        "http.request.method": "GET",
        "url.path": "/items/3",
        "url.query": "page=1&<redacted>",
        "http.route": "/items/{item:\\d+}",
        "pyramid.route.name": "/items/{item:\\d+}",
        "http.response.status_code": 200,
    }
    assert {key: span["attributes"].get(key) for key in expected} == expected
    row = payload()[0][0]
    assert (row["name"], row["resource"], row["type"]) == ("pyramid.request", "GET /items/{item:\\d+}", "web")


@pytest.mark.parametrize(
    ("method", "path", "name", "resource", "status", "code"),
    [
        ("GET", "/nowhere/else", "GET", "404", "UNSET", 404),
        ("POST", "/api/things/lamp", "POST api/things/{name}", "POST api.thing", "UNSET", 404),
        ("HEAD", "/api/things/lamp", "HEAD api/things/{name}", "HEAD api.thing", "UNSET", 200),
        ("OPTIONS", "/moved", "OPTIONS /moved", "OPTIONS /moved", "UNSET", 302),
        ("GET", "/api/things/lamp", "GET api/things/{name}", "GET api.thing", "UNSET", 200),
        ("GET", "/forbidden", "GET /forbidden", "GET /forbidden", "UNSET", 403),
        ("GET", "/unavailable", "GET /unavailable", "GET /unavailable", "ERROR", 503),
        ("GET", "/returns", "GET /returns", "GET /returns", "ERROR", 503),
        ("GET", "/handled?status=422", "GET /handled", "GET /handled", "UNSET", 422),
        ("GET", "/handled?status=500", "GET /handled", "GET /handled", "ERROR", 500),
        ("GET", "/inner", "GET /inner", "GET /inner", "UNSET", 200),
        ("GET", "/tree/tree/tree", "GET", "200", "UNSET", 200),
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
    attributes = span["attributes"]
    assert (attributes["error.type"], attributes["http.response.status_code"]) == ("ValueError", 500)


def test_an_exception_behind_a_page_is_recorded(app: Any, spans: Spans) -> None:
    visit(app, "/handled?status=500")
    assert [event["attributes"]["exception.message"] for event in only(spans)["events"]] == ["handled"]


def test_streams(app: Any, spans: Spans) -> None:
    body = app(environ_of("/stream"), lambda *_: None)
    assert len(spans) == 0
    assert b"".join(body) == b"xxx"
    body.close()
    *parts, server = spans
    assert server["name"] == "GET /stream"
    assert {part["parent"] for part in parts} == {"GET /stream"}


@pytest.mark.parametrize(("path", "status"), [("/cut", 200), ("/never", 500)])
def test_a_stream_that_fails_has_the_status_that_was_sent(app: Any, spans: Spans, path: str, status: int) -> None:
    body = app(environ_of(path), lambda *_: None)
    with pytest.raises(OSError, match="cut"):
        list(body)
    body.close()
    span = spans[-1]
    assert (span["name"], span["status"]) == (f"GET {path}", "ERROR")
    assert span["attributes"]["http.response.status_code"] == status


def test_a_client_that_goes_away_ends_the_span(app: Any, spans: Spans) -> None:
    body = app(environ_of("/stream"), lambda *_: None)
    next(iter(body))
    body.close()
    assert spans[-1]["name"] == "GET /stream"
    assert not trace.get_current_span().get_span_context().is_valid


def test_names_are_few(app: Any, spans: Spans) -> None:
    for number in range(300):
        visit(app, f"/items/{number}")
        visit(app, f"/nowhere/{number}")
    assert {span["name"] for span in spans} == {"GET /items/{item:\\d+}", "GET"}


def test_one_configuration_only(spans: Spans) -> None:
    config, other = configure(), configure()
    PyramidInstrumentor.instrument_config(config)
    PyramidInstrumentor.instrument_config(config)  # warns
    app = config.make_wsgi_app()
    visit(app, "/items/1")
    visit(other.make_wsgi_app(), "/items/1")
    with pytest.raises(ValueError, match="broken"):
        visit(app, "/broken")
    visit(app, "/handled?status=500")
    list(app(environ_of("/stream"), lambda *_: None))
    servers = [(span["name"], span["status"], len(span["events"])) for span in spans if span["kind"] == "SERVER"]
    assert servers == [
        ("GET /items/{item:\\d+}", "UNSET", 0),
        ("GET /broken", "ERROR", 1),
        ("GET /handled", "ERROR", 1),
        ("GET /stream", "UNSET", 0),
    ]
    spans.clear()
    PyramidInstrumentor.uninstrument_config(config)
    visit(app, "/items/1")
    visit(config.make_wsgi_app(), "/items/1")
    assert len(spans) == 0


def test_both_ways_in_make_one_span(spans: Spans) -> None:
    config = configure()
    PyramidInstrumentor.instrument_config(config)
    PyramidInstrumentor().instrument()
    visit(config.make_wsgi_app(), "/items/1")
    assert only(spans)["name"] == "GET /items/{item:\\d+}"


def test_a_configuration_taken_out(spans: Spans) -> None:
    PyramidInstrumentor().instrument()
    config = configure()
    PyramidInstrumentor.uninstrument_config(config)
    visit(config.make_wsgi_app(), "/items/1")
    visit(configure(**{"opentelemetry-pyramid.trace_enabled": "false"}).make_wsgi_app(), "/items/1")
    assert len(spans) == 0


@pytest.mark.parametrize("instrumented", [True, False])
def test_tweens_that_are_named(spans: Spans, instrumented: bool, caplog: pytest.LogCaptureFixture) -> None:
    factory = "spanbridge.instrumentors.pyramid.trace_tween_factory"
    config = configure(**{"pyramid.tweens": f"{factory}\npyramid.tweens.excview_tween_factory"})
    if instrumented:
        PyramidInstrumentor.instrument_config(config)
    visit(config.make_wsgi_app(), "/items/1")
    assert len(spans) == (1 if instrumented else 0)
    assert ("instrument_config" in caplog.text) is not instrumented


def test_excluded_urls_and_hooks(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_PYTHON_PYRAMID_EXCLUDED_URLS", "json")
    PyramidInstrumentor().instrument(
        request_hook=lambda span, environ: span.set_attribute("path", environ["PATH_INFO"]),
        response_hook=lambda span, environ, status, headers: span.set_attribute("line", status),
    )
    app = configure().make_wsgi_app()
    visit(app, "/items/3")
    visit(app, "/json")
    attributes = only(spans)["attributes"]
    assert (attributes["path"], attributes["line"]) == ("/items/3", "200 OK")


def test_rendering_is_an_option(app: Any, spans: Spans, payload: Payload) -> None:
    visit(app, "/json")
    assert only(spans)["name"] == "GET /json"
    PyramidInstrumentor().uninstrument()
    PyramidInstrumentor().instrument(template_spans=True)
    visit(app, "/json")
    assert [span["name"] for span in spans] == ["GET /json", "pyramid.render", "GET /json"]
    row = payload()[1][1]
    assert (row["name"], row["resource"], row["type"]) == ("pyramid.render", "json", "template")


def test_a_response_may_be_no_more_than_a_wsgi_application(spans: Spans, caplog: pytest.LogCaptureFixture) -> None:
    @implementer(IResponse)
    class Bare:
        def __call__(self, environ: Any, start_response: Any) -> list[bytes]:
            start_response("202 Accepted", [])
            return [b"bare"]

    config = configure()
    config.add_view(lambda request: Bare(), name="bare", context=Root)
    PyramidInstrumentor().instrument()
    assert visit(config.make_wsgi_app(), "/bare").body == b"bare"
    assert only(spans)["attributes"]["http.response.status_code"] == 202
    assert not caplog.records


def test_old_names(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPANBRIDGE_SEMCONV", "contrib")
    PyramidInstrumentor().instrument()
    visit(configure().make_wsgi_app(), "/items/1")
    span = only(spans)
    assert span["name"] == "/items/{item:\\d+}"
    assert span["attributes"]["http.url"] == "http://shop.example:8080/items/1"


def test_files_are_sent_in_one_span(spans: Spans, tmp_path: Any) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"contents")
    config = configure()
    config.add_route("file", "/file")
    config.add_view(lambda request: Response(app_iter=FileIter(path.open("rb"))), route_name="file")
    PyramidInstrumentor().instrument()
    assert visit(config.make_wsgi_app(), "/file").body == b"contents"
    assert only(spans)["name"] == "GET /file"
