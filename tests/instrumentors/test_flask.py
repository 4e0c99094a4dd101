"""Flask through its test client and over WSGI, by class and by app, from 0.10 to the newest."""

from __future__ import annotations

import threading
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

flask = pytest.importorskip("flask")

from werkzeug.routing import BaseConverter  # noqa: E402

from spanbridge.instrumentors.flask import FlaskInstrumentor  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spanbridge.testing import Payload, Spans


def make_app() -> Any:
    app = flask.Flask("shop")

    @app.route("/items/<int:item>", methods=["GET", "POST"])
    def show(item: int) -> str:
        return f"item {item} in {getattr(trace.get_current_span(), 'name', '')}"

    @app.route("/broken")
    def broken() -> str:
        raise ValueError("broken")

    @app.route("/refused")
    def refused() -> None:
        flask.abort(404)

    @app.route("/moved")
    def moved() -> Any:
        return flask.redirect("/items/1")

    @app.route("/stream")
    def stream() -> Any:
        def chunks() -> Iterator[str]:
            for number in range(3):
                with trace.get_tracer("shop").start_as_current_span(f"chunk {number}"):
                    yield f"{trace.get_current_span().get_span_context().is_valid} "

        return flask.Response(chunks())

    return app


@pytest.fixture
def app(spans: Spans) -> Iterator[Any]:
    made = make_app()  # before `instrument()`: applications that exist are traced, too
    FlaskInstrumentor().instrument()
    yield made
    FlaskInstrumentor().uninstrument()


class Opaque:
    def __init__(self, word: str) -> None:
        self.word = word

    def __str__(self) -> str:
        if self.word == "mute":
            raise ValueError(self.word)
        return f"opaque {self.word}"


class OpaqueConverter(BaseConverter):
    def to_python(self, value: str) -> Any:
        return Opaque(value)

    def to_url(self, value: Any) -> str:  # which some versions call when they match
        word: str = value.word
        return word


@pytest.mark.parametrize(("word", "shown"), [("lamp", "opaque lamp"), ("mute", None)])
def test_values_in_the_path_of_any_class(spans: Spans, word: str, shown: str | None) -> None:
    app = flask.Flask("shop")
    app.url_map.converters["opaque"] = OpaqueConverter
    app.route("/things/<opaque:thing>/<size>")(lambda thing, size: size)
    FlaskInstrumentor().instrument()
    assert app.test_client().get(f"/things/{word}/4").data == b"4"
    FlaskInstrumentor().uninstrument()
    found = only(spans)["attributes"]
    assert (found.get("flask.view_args.thing"), found["flask.view_args.size"]) == (shown, "4")
    assert only(spans)["name"] == "GET /things/<opaque:thing>/<size>"


def only(spans: Spans) -> dict[str, Any]:
    assert len(spans) == 1, spans
    return spans[0]


def test_the_client_behind_a_proxy(spans: Spans, settings: dict[str, Any], payload: Payload) -> None:
    settings["http.client_headers"] = ("x-forwarded-for", "forwarded")
    app = make_app()
    FlaskInstrumentor().instrument()
    try:
        environ = {"REMOTE_ADDR": "127.0.0.1"}  # old versions' client has no address
        app.test_client().get("/items/3", headers={"Forwarded": "for=8.8.8.8"}, environ_base=environ)
    finally:
        FlaskInstrumentor().uninstrument()
    attributes = only(spans)["attributes"]
    assert (attributes["client.address"], attributes["network.peer.address"]) == ("8.8.8.8", "127.0.0.1")
    assert "http.client_ip" not in payload()[0][0]["meta"]  # which the exporter writes if it is asked to


def test_a_request(app: Any, spans: Spans, payload: Payload) -> None:
    response = app.test_client().get("/items/3?page=1&password=hunter2", headers={"User-Agent": "curl/8"})
    assert response.data == b"item 3 in GET /items/<int:item>"
    span = only(spans)
    assert (span["name"], span["kind"], span["status"], span["parent_id"]) == (
        "GET /items/<int:item>",
        "SERVER",
        "UNSET",
        None,
    )
    expected = {
        "http.request.method": "GET",
        "url.scheme": "http",
        "server.address": "localhost",
        "server.port": 80,
        "url.path": "/items/3",
        "url.query": "page=1&<redacted>",
        "user_agent.original": "curl/8",
        "network.protocol.version": "1.1",
        "http.route": "/items/<int:item>",
        "flask.endpoint": "show",
        "flask.view_args.item": 3,
        "http.response.status_code": 200,
    }
    assert {key: span["attributes"].get(key) for key in expected} == expected
    assert "hunter2" not in repr(span)
    (chunk,) = payload()
    assert (chunk[0]["name"], chunk[0]["resource"], chunk[0]["type"]) == (
        "flask.request",
        "GET /items/<int:item>",
        "web",
    )
    assert chunk[0]["meta"]["flask.version"] == version("flask")


@pytest.mark.parametrize(
    ("method", "path", "name", "status", "code"),
    [
        ("GET", "/nowhere/else", "GET", "UNSET", 404),
        ("PUT", "/items/3", "PUT", "UNSET", 405),
        ("HEAD", "/items/3", "HEAD /items/<int:item>", "UNSET", 200),
        ("OPTIONS", "/items/3", "OPTIONS /items/<int:item>", "UNSET", 200),
        ("GET", "/refused", "GET /refused", "UNSET", 404),
        ("GET", "/moved", "GET /moved", "UNSET", 302),
        ("GET", "/broken", "GET /broken", "ERROR", 500),
        ("BREW", "/items/3", "HTTP", "UNSET", 405),
    ],
)
def test_answers(app: Any, spans: Spans, method: str, path: str, name: str, status: str, code: int) -> None:
    response = app.test_client().open(path, method=method)
    assert response.status_code == code
    span = only(spans)
    assert (span["name"], span["status"], span["attributes"]["http.response.status_code"]) == (name, status, code)


def test_an_unhandled_exception_is_recorded_once(app: Any, spans: Spans) -> None:
    app.test_client().get("/broken")
    span = only(spans)
    assert span["attributes"]["error.type"] == "ValueError"
    assert [event["attributes"]["exception.message"] for event in span["events"]] == ["broken"]


def test_a_propagated_exception_is_the_same_object(app: Any, spans: Spans) -> None:
    app.config["PROPAGATE_EXCEPTIONS"] = True
    with pytest.raises(ValueError, match="broken"):
        app.test_client().get("/broken")
    span = only(spans)
    assert (span["status"], len(span["events"])) == ("ERROR", 1)


def test_a_handled_exception_is_no_error(app: Any, spans: Spans) -> None:
    app.errorhandler(ValueError)(lambda error: ("sorry", 200))
    assert app.test_client().get("/broken").data == b"sorry"
    assert (only(spans)["status"], only(spans)["events"]) == ("UNSET", [])


def test_names_are_few(app: Any, spans: Spans) -> None:
    client = app.test_client()
    for number in range(500):
        client.get(f"/items/{number}")
        client.get(f"/nowhere/{number}")
    assert {span["name"] for span in spans} == {"GET /items/<int:item>", "GET"}


def test_a_streamed_response_is_one_span_until_its_last_byte(app: Any, spans: Spans) -> None:
    environ = wsgi_environ("/stream")
    body = app(environ, lambda status, headers, exc_info=None: None)
    assert len(spans) == 0
    assert list(body) == [b"True "] * 3
    body.close()
    *chunks, server = spans
    assert server["name"] == "GET /stream"
    assert {chunk["parent"] for chunk in chunks} == {"GET /stream"}
    assert not trace.get_current_span().get_span_context().is_valid


def test_a_client_that_goes_away_ends_the_span(app: Any, spans: Spans) -> None:
    body = iter(app(wsgi_environ("/stream"), lambda status, headers, exc_info=None: None))
    next(body)
    body.close()
    assert [span["name"] for span in spans if span["kind"] == "SERVER"] == ["GET /stream"]


def test_the_callers_trace_goes_on(app: Any, spans: Spans) -> None:
    parent = f"00-{0xABC:032x}-{0xDEF:016x}-01"
    app.test_client().get("/items/1", headers={"traceparent": parent})
    span = only(spans)
    assert (span["trace_id"], span["parent_id"]) == (0xABC, 0xDEF)


def test_hooks_run_within_the_request_context(spans: Spans) -> None:
    def request_hook(span: Any, environ: dict[str, Any]) -> None:
        span.set_attribute("endpoint", flask.request.endpoint)
        span.set_attribute("path", environ["PATH_INFO"])

    def response_hook(span: Any, status: str, headers: list[tuple[str, str]]) -> None:
        span.set_attribute("line", status)
        assert dict(headers)["Content-Type"]

    FlaskInstrumentor().instrument(request_hook=request_hook, response_hook=response_hook)
    make_app().test_client().get("/items/1")
    attributes = only(spans)["attributes"]
    assert (attributes["endpoint"], attributes["path"], attributes["line"]) == ("show", "/items/1", "200 OK")


def test_excluded_urls(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_PYTHON_FLASK_EXCLUDED_URLS", "items/[0-4],health")
    FlaskInstrumentor().instrument()
    client = make_app().test_client()
    client.get("/items/3")
    client.get("/items/7")
    assert only(spans)["attributes"]["url.path"] == "/items/7"


def test_captured_headers(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST", "x-.*,authorization")
    monkeypatch.setenv("OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_RESPONSE", "content-type")
    FlaskInstrumentor().instrument()
    make_app().test_client().get("/items/3", headers={"X-Tenant": "acme", "Authorization": "Basic c2VjcmV0"})
    attributes = only(spans)["attributes"]
    assert attributes["http.request.header.x-tenant"] == ("acme",)
    assert attributes["http.request.header.authorization"] == ("[REDACTED]",)
    assert attributes["http.response.header.content-type"] == ("text/html; charset=utf-8",)


def test_one_app_only(spans: Spans) -> None:
    traced, other = make_app(), make_app()
    FlaskInstrumentor.instrument_app(traced)
    FlaskInstrumentor.instrument_app(traced)  # warns
    traced.test_client().get("/items/1")
    other.test_client().get("/items/1")
    assert only(spans)["name"] == "GET /items/<int:item>"
    FlaskInstrumentor.uninstrument_app(traced)
    traced.test_client().get("/items/1")
    assert len(spans) == 1


def test_one_app_taken_out(app: Any, spans: Spans) -> None:
    FlaskInstrumentor.uninstrument_app(app)
    app.test_client().get("/items/1")
    assert len(spans) == 0


def test_middleware_around_wsgi_app_and_mounted_apps(app: Any, spans: Spans) -> None:
    inner, mounted = app.wsgi_app, make_app()

    def dispatch(environ: dict[str, Any], start_response: Any) -> Any:
        if environ["PATH_INFO"].startswith("/sub/"):
            environ["SCRIPT_NAME"], environ["PATH_INFO"] = "/sub", environ["PATH_INFO"][4:]
            return mounted(environ, start_response)
        return inner(environ, start_response)

    app.wsgi_app = dispatch
    app.test_client().get("/items/1")
    app.test_client().get("/sub/items/2")
    assert [span["name"] for span in spans] == ["GET /items/<int:item>"] * 2


def test_within_a_local_span_it_is_a_part_of_it(app: Any, spans: Spans) -> None:
    with spans.provider.get_tracer("test").start_as_current_span("outer"):
        app.test_client().get("/items/1")
    assert (spans[0]["kind"], spans[0]["parent"]) == ("INTERNAL", "outer")


def test_suppressed(app: Any, spans: Spans) -> None:
    with suppress_instrumentation():
        assert app.test_client().get("/items/1").status_code == 200
    assert len(spans) == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of old Flask's templates
def test_details_are_options(spans: Spans, payload: Payload) -> None:
    FlaskInstrumentor().instrument(lifecycle_spans=True, view_spans=True, template_spans=True)
    app = make_app()
    app.route("/page")(lambda: flask.render_template_string("Hello {{ name }}", name="you"))
    app.test_client().get("/page")
    app.test_client().get("/refused")
    page, refused = payload()
    assert sorted((row["name"], row["resource"], row["type"]) for row in page) == [
        ("flask.dispatch_request", f"{__name__}.test_details_are_options.<locals>.<lambda>", ""),
        ("flask.do_teardown_request", "flask.do_teardown_request", ""),
        ("flask.preprocess_request", "flask.preprocess_request", ""),
        ("flask.process_response", "flask.process_response", ""),
        ("flask.render_template", "<memory>", "template"),
        ("flask.request", "GET /page", "web"),
    ]
    assert [row["error"] for row in refused] == [0] * 5


def test_old_names(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPANBRIDGE_SEMCONV", "contrib")
    FlaskInstrumentor().instrument()
    make_app().test_client().get("/items/1")
    attributes = only(spans)["attributes"]
    assert (attributes["http.method"], attributes["http.route"], attributes["http.status_code"]) == (
        "GET",
        "/items/<int:item>",
        200,
    )
    assert "http.request.method" not in attributes


def test_threads_do_not_mix_requests_up(app: Any, spans: Spans) -> None:
    def work(number: int) -> None:
        header = {"traceparent": f"00-{number:032x}-{number:016x}-01"}
        for _ in range(20):
            app.test_client().get(f"/items/{number}", headers=header)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(spans) == 160
    assert {(span["trace_id"], span["attributes"]["url.path"]) for span in spans} == {
        (number, f"/items/{number}") for number in range(1, 9)
    }


def test_propagation_headers_reach_the_view(app: Any, spans: Spans) -> None:
    carrier: dict[str, str] = {}

    @app.before_request
    def remember() -> None:
        TraceContextTextMapPropagator().inject(carrier)

    app.test_client().get("/items/1")
    assert f"{only(spans)['span_id']:016x}" in carrier["traceparent"]


def wsgi_environ(path: str) -> dict[str, Any]:
    from werkzeug.test import EnvironBuilder

    environ: dict[str, Any] = EnvironBuilder(path).get_environ()
    return environ
