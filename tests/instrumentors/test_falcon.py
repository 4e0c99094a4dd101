"""Falcon over WSGI and ASGI, from 1.0 to the newest."""

from __future__ import annotations

from io import BytesIO, StringIO
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace

falcon = pytest.importorskip("falcon")

from spanbridge.instrumentors.falcon import FalconInstrumentor  # noqa: E402
from tests.asgi import CONNECT, DISCONNECT, connection, serve, websocket  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spanbridge.testing import Payload, Spans

ASGI = hasattr(falcon, "App")
RESOURCE = f"{__name__}.Item"


def within() -> None:
    with trace.get_tracer("shop").start_as_current_span("handler"):
        pass


class Item:
    def on_get(self, request: Any, response: Any, item: str) -> None:
        within()
        response.status = falcon.HTTP_200


class Broken:
    def on_get(self, request: Any, response: Any) -> None:
        raise ValueError("broken")


class Refused:
    def on_get(self, request: Any, response: Any, code: str) -> None:
        raise {
            "404": falcon.HTTPNotFound(),
            "503": falcon.HTTPServiceUnavailable(title="closed", description="for today", retry_after=60),
            "302": falcon.HTTPFound("/items/1"),
        }[code]


class Stream:
    def on_get(self, request: Any, response: Any) -> None:
        response.stream = iter([b"1", b"2"])


def asynchronous(cls: type) -> Any:
    """Make the resource's responder `async def`."""

    async def on_get(self: Any, request: Any, response: Any, **parameters: Any) -> None:
        cls().on_get(request, response, **parameters)

    async def on_websocket(self: Any, request: Any, socket: Any, **parameters: Any) -> None:
        await socket.accept()
        await socket.close()

    return type(cls.__name__, (), {"on_get": on_get, "on_websocket": on_websocket, "__module__": cls.__module__})


class Wsgi:
    def __init__(self) -> None:
        self.app = falcon.App() if ASGI else falcon.API()
        self.add(lambda cls: cls)
        self.app.add_route("/stream", Stream())

    def add(self, made: Any) -> None:
        self.app.add_route("/items/{item}", made(Item)())
        self.app.add_route("/broken", made(Broken)())
        self.app.add_route("/refused/{code}", made(Refused)())

    def ask(self, path: str, method: str = "GET", **headers: str) -> int:
        codes = []
        environ = {
            "REQUEST_METHOD": method,
            "PATH_INFO": path,
            "QUERY_STRING": "",
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "wsgi.url_scheme": "http",
            "wsgi.input": BytesIO(),
            "wsgi.errors": StringIO(),
            **{f"HTTP_{name.upper()}": value for name, value in headers.items()},
        }
        body = self.app(environ, lambda status, headers, exc_info=None: codes.append(int(status[:3])))
        for _ in body:
            pass
        getattr(body, "close", lambda: None)()
        return codes[0]


class Asgi(Wsgi):
    def __init__(self) -> None:
        import falcon.asgi

        self.app = falcon.asgi.App()
        self.add(asynchronous)

    def ask(self, path: str, method: str = "GET", **headers: str) -> int:
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        return serve(self.app, connection(path, method=method, headers=pairs))[0]["status"]


@pytest.fixture(params=[Wsgi, *([Asgi] if ASGI else [])])
def shop(request: pytest.FixtureRequest, spans: Spans) -> Iterator[Any]:
    made = request.param()  # before `instrument()`: applications that exist are traced, too
    FalconInstrumentor().instrument()
    yield made
    FalconInstrumentor().uninstrument()


def only(spans: Spans) -> dict[str, Any]:
    found = [span for span in spans if span["kind"] == "SERVER"]
    assert len(found) == 1, spans
    return found[0]


def test_a_request(shop: Any, spans: Spans, payload: Payload) -> None:
    assert shop.ask("/items/3") == 200
    span = only(spans)
    assert (span["name"], span["status"], span["parent_id"]) == ("GET /items/{item}", "UNSET", None)
    assert span["attributes"]["http.route"] == "/items/{item}"
    assert span["attributes"]["falcon.resource"] == RESOURCE
    assert spans[0]["parent"] == "GET /items/{item}"
    (chunk,) = payload()
    assert (chunk[0]["name"], chunk[0]["resource"], chunk[0]["type"]) == ("falcon.request", f"GET {RESOURCE}", "web")


@pytest.mark.parametrize(
    ("method", "path", "template", "status", "code"),
    [
        ("GET", "/nowhere/else", "", "UNSET", 404),
        ("PUT", "/items/3", "/items/{item}", "UNSET", 405),
        ("HEAD", "/items/3", "/items/{item}", "UNSET", 405),
        ("OPTIONS", "/items/3", "/items/{item}", "UNSET", 204 if falcon.__version__ < "1.2" else 200),
        ("GET", "/refused/404", "/refused/{code}", "UNSET", 404),
        ("GET", "/refused/302", "/refused/{code}", "UNSET", 302),
        ("GET", "/refused/503", "/refused/{code}", "ERROR", 503),
    ],
)
def test_answers(shop: Any, spans: Spans, method: str, path: str, template: str, status: str, code: int) -> None:
    assert shop.ask(path, method) == code
    span = only(spans)
    name = f"{method} {template}" if template else method
    assert (span["name"], span["status"], span["attributes"]["http.response.status_code"]) == (name, status, code)
    assert len(span["events"]) == (1 if status == "ERROR" else 0)


def test_an_unhandled_exception_is_recorded_once(shop: Any, spans: Spans) -> None:
    if ASGI:
        assert shop.ask("/broken") == 500
    else:
        with pytest.raises(ValueError):
            shop.ask("/broken")
    span = only(spans)
    assert (span["name"], span["status"], span["attributes"]["error.type"]) == ("GET /broken", "ERROR", "ValueError")
    assert span["attributes"]["http.response.status_code"] == 500
    assert [event["attributes"]["exception.message"] for event in span["events"]] == ["broken"]


def test_a_handled_exception_is_no_error(shop: Any, spans: Spans) -> None:
    def answer(first: Any, response: Any, second: Any, parameters: Any) -> None:
        # Before 2.0 the exception came first.
        (second if isinstance(first, Exception) else response).status = "418 I am a teapot"

    async def answer_async(request: Any, response: Any, error: Any, parameters: Any) -> None:
        answer(request, response, error, parameters)

    shop.app.add_error_handler(ValueError, answer_async if type(shop) is Asgi else answer)
    assert shop.ask("/broken") == 418
    assert (only(spans)["status"], only(spans)["events"]) == ("UNSET", [])


def test_names_are_few(shop: Any, spans: Spans) -> None:
    for number in range(500):
        shop.ask(f"/items/{number}")
        shop.ask(f"/nowhere/{number}")
    assert {span["name"] for span in spans if span["kind"] == "SERVER"} == {"GET /items/{item}", "GET"}


def test_a_resource_with_several_templates(spans: Spans) -> None:
    class Things:
        def on_get(self, request: Any, response: Any, **parameters: str) -> None:
            pass

    FalconInstrumentor().instrument()
    shop, things = Wsgi(), Things()
    templates = ["/things", "/things/{thing}", "/{shop}/things/{first}-{last}", "/{shop}/{kind}"]
    for template in templates:
        shop.app.add_route(template, things)
    for path in ("/things", "/things/3", "/mine/things/1-9", "/mine/lamps"):
        assert shop.ask(path) == 200
    assert [span["attributes"]["http.route"] for span in spans] == templates


def test_the_callers_trace_goes_on(shop: Any, spans: Spans) -> None:
    shop.ask("/items/1", traceparent=f"00-{0xABC:032x}-{0xDEF:016x}-01")
    assert (only(spans)["trace_id"], only(spans)["parent_id"]) == (0xABC, 0xDEF)


def test_a_stream_is_one_span(spans: Spans) -> None:
    FalconInstrumentor().instrument()
    assert Wsgi().ask("/stream") == 200
    assert only(spans)["name"] == "GET /stream"


@pytest.mark.parametrize(("sent", "status"), [([b"1"], 200), ([], 500)])
def test_a_stream_that_fails_has_the_status_that_was_sent(spans: Spans, sent: list[bytes], status: int) -> None:
    class Failing:
        def on_get(self, request: Any, response: Any) -> None:
            response.stream = self.chunks()

        def chunks(self) -> Iterator[bytes]:
            yield from sent
            raise OSError("cut")

    FalconInstrumentor().instrument()
    shop = Wsgi()
    shop.app.add_route("/cut", Failing())
    with pytest.raises(OSError, match="cut"):
        shop.ask("/cut")
    span = only(spans)
    assert (span["status"], span["attributes"]["http.response.status_code"]) == ("ERROR", status)


def test_websockets_are_one_span(spans: Spans) -> None:
    if not ASGI:
        return  # there were none before 3.0
    FalconInstrumentor().instrument()
    serve(Asgi().app, {**websocket("/items/3"), "subprotocols": []}, CONNECT, DISCONNECT)
    assert (only(spans)["name"], only(spans)["attributes"]["http.response.status_code"]) == ("GET /items/{item}", 101)


@pytest.mark.parametrize("kind", [Wsgi, *([Asgi] if ASGI else [])])
def test_hooks_and_options(kind: Any, spans: Spans) -> None:
    FalconInstrumentor().instrument(
        request_hook=lambda span, request: span.set_attribute("asked", request.path),
        response_hook=lambda span, request, response: span.set_attribute("told", f"{request.path} {response.status}"),
        traced_request_attrs="method,absent",
        excluded_urls="items/[0-4]",
    )
    shop = kind()
    shop.ask("/items/3")
    shop.ask("/items/7")
    attributes = only(spans)["attributes"]
    assert (attributes["asked"], attributes["method"]) == ("/items/7", "GET")
    assert attributes["told"].startswith("/items/7 200")


def test_old_names(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPANBRIDGE_SEMCONV", "contrib")
    FalconInstrumentor().instrument()
    Wsgi().ask("/items/1")
    attributes = only(spans)["attributes"]
    assert (attributes["http.method"], attributes["http.status_code"], attributes["falcon.resource"]) == (
        "GET",
        200,
        "Item",
    )


@pytest.mark.skipif(falcon.__version__ < "1.1", reason="it came with Falcon 1.1")
def test_falcons_own_test_client(shop: Any, spans: Spans) -> None:
    from falcon.testing import TestClient

    assert TestClient(shop.app).simulate_get("/items/1").status_code == 200
    assert only(spans)["name"] == "GET /items/{item}"
