"""Tornado's handlers and HTTP clients over its own server, from 4.0 to the newest."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.propagators import TraceResponsePropagator, set_global_response_propagator

pytest.importorskip("tornado")

from tornado import gen, httpclient, httputil, iostream, version_info, web, websocket, wsgi
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.netutil import bind_sockets

from spanbridge.instrumentors.tornado import TornadoInstrumentor
from tests.sockets import ask, leave, shake

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from spanbridge.testing import Payload, Spans

HOST = "127.0.0.1"

pytestmark = pytest.mark.filterwarnings("ignore:activeCount:DeprecationWarning")  # 4.0's curl client, within itself


def working(name: str) -> Any:
    return trace.get_tracer("shop").start_as_current_span(name)


class Show(web.RequestHandler):
    def get(self, item: str) -> None:
        with working("handler"):
            self.write("ok")


class Named(web.RequestHandler):
    def get(self, kind: str) -> None:
        self.write(kind)


class Slow(web.RequestHandler):
    @gen.coroutine
    def prepare(self) -> Any:
        yield gen.moment

    @gen.coroutine
    def get(self, item: str) -> Any:
        for _ in range(3):
            yield gen.moment
        with working("late " + item):
            self.write("ok")


class Broken(web.RequestHandler):
    @gen.coroutine
    def get(self) -> Any:
        yield gen.moment
        raise ValueError("broken")

    def log_exception(self, *error: Any) -> None:
        """Say nothing, and tell nobody."""

    def on_finish(self) -> None:
        """Tell nobody."""


class Forgiving(Broken):
    def write_error(self, status_code: int, **kwargs: Any) -> None:
        self.set_status(422)
        self.finish("no")


class Refused(web.RequestHandler):
    def get(self, code: str) -> None:
        if code == "302":
            self.redirect("/items/1")
        else:
            raise web.HTTPError(int(code))

    def log_exception(self, *error: Any) -> None:
        """Say nothing."""


class Returned(web.RequestHandler):
    def get(self, code: str) -> None:
        self.set_status(int(code))
        self.finish()


class Finished(web.RequestHandler):
    def get(self) -> None:
        self.set_status(202)
        self.finish()
        raise web.Finish


class Later(web.RequestHandler):
    """Finishes, if the client waits for it, after the method has returned."""

    def get(self) -> None:
        self._auto_finish = False
        if self.get_argument("wait", ""):
            self.flush()
        else:
            IOLoop.current().add_callback(self.finish, "ok")

    def on_connection_close(self) -> None:
        left.append(self)


left: list[Any] = []


class Stream(web.RequestHandler):
    @gen.coroutine
    def get(self, chunks: str) -> Any:
        for _ in range(int(chunks)):
            self.write("x" * 65536)
            yield self.flush()

    def log_exception(self, *error: Any) -> None:
        """Say nothing."""


class Torn(Stream):
    @gen.coroutine
    def get(self) -> Any:
        self.write("x")
        yield self.flush()
        raise ValueError("torn")


@web.stream_request_body
class Upload(web.RequestHandler):
    def data_received(self, chunk: bytes) -> Any:
        with working("received"):
            pass

    def put(self) -> None:
        self.write("ok")


@web.stream_request_body
class NativeUpload(Upload):
    async def data_received(self, chunk: bytes) -> None:
        await asyncio.sleep(0)
        with working("received"):
            pass


class Chat(websocket.WebSocketHandler):
    def open(self, room: str) -> None:
        with working("opened"):
            pass


class Calling(web.RequestHandler):
    @gen.coroutine
    def get(self) -> Any:
        url = f"http://{self.request.host}/items/3"
        answer = yield httpclient.AsyncHTTPClient().fetch(url)
        self.write(answer.body)


class Echo(web.RequestHandler):
    def get(self) -> None:
        self.write(self.request.headers.get("traceparent", ""))


def make_app() -> Any:
    return web.Application(
        [
            (r"/items/(\d+)", Show),
            (r"/named/(?P<kind>\w+)", Named),
            (r"/regex/(?:a|b)(\d)?", Show),
            (r"/slow/(\d+)", Slow),
            ("/broken", Broken),
            ("/forgiving", Forgiving),
            (r"/refused/(\d+)", Refused),
            (r"/returned/(\d+)", Returned),
            ("/finished", Finished),
            ("/later", Later),
            (r"/stream/(\d+)", Stream),
            ("/torn", Torn),
            (r"/rooms/(\d+)", Chat),
            ("/upload", Upload),
            ("/upload/native", NativeUpload),
            ("/calling", Calling),
            ("/echo", Echo),
        ],
        log_function=lambda handler: None,
    )


def serving(app: Any, talk: Callable[..., Any], *arguments: Any) -> Any:
    """Serve `app` while `talk(port, *arguments)` runs in a thread; answer what it answers."""
    with ThreadPoolExecutor(1) as executor:
        return running(app, lambda port: executor.submit(talk, port, *arguments))


def running(app: Any, work: Callable[[int], Any], until: Callable[[], object] = lambda: True) -> Any:
    """Serve `app` until the future of `work(port)` is done, and `until` answers true; answer the result."""
    loop = IOLoop()
    sockets = bind_sockets(0, HOST)

    @gen.coroutine
    def main() -> Any:
        HTTPServer(app).add_sockets(sockets)
        result = yield work(sockets[0].getsockname()[1])
        while not until():
            yield gen.moment
        raise gen.Return(result)

    try:
        return loop.run_sync(main, timeout=60)
    finally:
        loop.close(all_fds=True)


@pytest.fixture
def app(spans: Spans) -> Iterator[Any]:
    made = make_app()  # before `instrument()`: applications that exist are traced, too
    TornadoInstrumentor().instrument()
    yield made
    TornadoInstrumentor().uninstrument()
    left.clear()


def servers(spans: Spans) -> list[dict[str, Any]]:
    return [span for span in spans if span["kind"] == "SERVER"]


def only(spans: Spans, kind: str = "SERVER") -> dict[str, Any]:
    found = [span for span in spans if span["kind"] == kind]
    assert len(found) == 1, spans
    return found[0]


def test_a_request(app: Any, spans: Spans, payload: Payload) -> None:
    answer = serving(app, ask, "GET", "/items/3?page=1&password=hunter2", "User-Agent: curl/8")
    assert answer == (200, b"ok")
    span = only(spans)
    assert (span["name"], span["status"], span["parent_id"]) == ("GET /items/{item}", "UNSET", None)
    expected = {
        "http.request.method": "GET",
        "url.scheme": "http",
        "server.address": HOST,
        "url.path": "/items/3",
        "url.query": "page=1&<redacted>",
        "client.address": HOST,
        "user_agent.original": "curl/8",
        "network.protocol.version": "1.1",
        "http.route": "/items/{item}",
        "http.response.status_code": 200,
        "tornado.handler": f"{__name__}.Show",
    }
    assert {key: span["attributes"].get(key) for key in expected} == expected
    assert {"server.port", "client.port"} <= span["attributes"].keys()
    assert [child["parent"] for child in spans if child["name"] == "handler"] == [span["name"]]
    (chunk,) = payload()
    assert [chunk[0][key] for key in ("name", "resource", "type")] == ["tornado.request", f"{__name__}.Show", "web"]


@pytest.mark.parametrize(
    ("method", "path", "name", "status", "code"),
    [
        ("GET", "/named/a", "GET /named/{kind}", "UNSET", 200),
        ("GET", "/regex/a", "GET /regex/(?:a|b)(\\d)?", "UNSET", 200),
        ("HEAD", "/items/3", "HEAD /items/{item}", "UNSET", 405),
        ("OPTIONS", "/finished", "OPTIONS /finished", "UNSET", 405),
        ("BREW", "/finished", "HTTP /finished", "UNSET", 405),
        ("GET", "/absent/3", "GET", "UNSET", 404),
        ("GET", "/refused/302", "GET /refused/{code}", "UNSET", 302),
        ("GET", "/refused/403", "GET /refused/{code}", "UNSET", 403),
        ("GET", "/refused/503", "GET /refused/{code}", "ERROR", 503),
        ("GET", "/returned/500", "GET /returned/{code}", "ERROR", 500),
        ("GET", "/finished", "GET /finished", "UNSET", 202),
        ("GET", "/forgiving", "GET /forgiving", "UNSET", 422),
        ("GET", "/later", "GET /later", "UNSET", 200),
        ("GET", "/stream/3", "GET /stream/{chunks}", "UNSET", 200),
    ],
)
def test_answers(app: Any, spans: Spans, method: str, path: str, name: str, status: str, code: int) -> None:
    assert serving(app, ask, method, path)[0] == code
    span = only(spans)
    assert (span["name"], span["status"]) == (name, status)
    assert span["attributes"]["http.response.status_code"] == code


def test_a_crash(app: Any, spans: Spans) -> None:
    assert serving(app, ask, "GET", "/broken")[0] == 500
    span = only(spans)
    assert (span["status"], span["attributes"]["error.type"]) == ("ERROR", "ValueError")
    assert span["attributes"]["http.response.status_code"] == 500
    assert [event["name"] for event in span["events"]] == ["exception"]


def test_a_crash_in_the_midst_of_an_answer(app: Any, spans: Spans) -> None:
    assert serving(app, ask, "GET", "/torn")[0] == 200
    span = only(spans)
    assert (span["status"], span["attributes"]["error.type"]) == ("ERROR", "ValueError")
    assert span["attributes"]["http.response.status_code"] == 200


def test_handlers_that_take_turns(app: Any, spans: Spans) -> None:
    def talk(port: int) -> None:
        with ThreadPoolExecutor(4) as executor:
            assert all(executor.map(lambda item: ask(port, "GET", f"/slow/{item}")[0] == 200, range(8)))

    serving(app, talk)
    by_path = {span["attributes"]["url.path"]: span["span_id"] for span in servers(spans)}
    late = {span["name"]: span["parent_id"] for span in spans if span["name"].startswith("late")}
    assert late == {f"late {item}": by_path[f"/slow/{item}"] for item in range(8)}


@pytest.mark.parametrize("path", ["/upload", "/upload/native"])
def test_a_body_that_is_taken_in_parts(app: Any, spans: Spans, path: str) -> None:
    if "native" in path and version_info < (4, 3):
        pytest.skip("native coroutines came with 4.3")
    assert serving(app, lambda port: ask(port, "PUT", path, body=b"x" * 100)) == (200, b"ok")
    server = only(spans)
    assert [span["parent_id"] for span in spans if span["name"] == "received"] == [server["span_id"]]


def test_routers_within_routers(spans: Spans) -> None:
    routing = pytest.importorskip("tornado.routing")
    inner = web.Application([(r"/a/items/(\d+)", Show)], log_function=lambda handler: None)
    hosts = web.Application([(routing.HostMatches(HOST), [(r"/b/(\w+)", Named)])], log_function=lambda handler: None)
    rules = [(routing.PathMatches("/a/.*"), inner), (routing.PathMatches("/b/.*"), hosts)]
    TornadoInstrumentor().instrument()
    try:
        router = routing.RuleRouter([routing.Rule(*rule) for rule in rules])
        serving(router, lambda port: [ask(port, "GET", path) for path in ("/a/items/3", "/a/none", "/b/c")])
    finally:
        TornadoInstrumentor().uninstrument()
    assert [span["name"] for span in servers(spans)] == ["GET /a/items/{item}", "GET", "GET /b/{kind}"]


def test_an_application_that_answers_by_itself(app: Any, spans: Spans) -> None:
    def answer(environ: Any, start_response: Any) -> Any:
        start_response("418 I'm a teapot", [("Content-Length", "2")])
        return [b"no"]

    fallback = {"fallback": wsgi.WSGIContainer(answer)}
    outer = web.Application([(r"/.*", web.FallbackHandler, fallback)], log_function=lambda handler: None)
    assert serving(outer, ask, "GET", "/pot")[0] == 418
    assert "http.response.status_code" not in only(spans)["attributes"]


def test_the_callers_trace(app: Any, spans: Spans) -> None:
    serving(app, ask, "GET", "/items/3", f"traceparent: 00-{0xABC:032x}-{0xDEF:016x}-01")
    span = only(spans)
    assert (span["trace_id"], span["parent_id"]) == (0xABC, 0xDEF)


def test_a_client_that_leaves(app: Any, spans: Spans) -> None:
    def talk(port: int) -> None:
        leave(port, "/stream/100000")

    with ThreadPoolExecutor(1) as executor:
        running(app, lambda port: executor.submit(talk, port), lambda: len(servers(spans)))
    span = only(spans)
    assert (span["status"], span["events"]) == ("UNSET", [])
    assert span["attributes"]["http.response.status_code"] == 200  # what was sent before


def test_a_client_that_does_not_wait(app: Any, spans: Spans) -> None:
    with ThreadPoolExecutor(1) as executor:
        running(app, lambda port: executor.submit(leave, port, "/later?wait=1"), lambda: len(servers(spans)))
    assert only(spans)["status"] == "UNSET"
    assert only(spans)["attributes"]["http.response.status_code"] == 200
    assert len(left) == 1


def test_a_websocket(app: Any, spans: Spans) -> None:
    assert serving(app, shake, "/rooms/3") == 101
    span = only(spans)
    assert span["attributes"]["http.response.status_code"] == 101
    assert span["attributes"]["http.route"] == "/rooms/{room}"
    assert [child["parent_id"] for child in spans if child["name"] == "opened"] == [span["span_id"]]


def test_excluded_urls(spans: Spans) -> None:
    TornadoInstrumentor().instrument(excluded_urls="items")
    try:
        serving(make_app(), ask, "GET", "/items/3")
    finally:
        TornadoInstrumentor().uninstrument()
    assert servers(spans) == []


def test_traced_request_attrs_and_the_hook(spans: Spans) -> None:
    seen = []
    TornadoInstrumentor().instrument(
        traced_request_attrs="uri,full_url,absent", server_request_hook=lambda span, handler: seen.append(handler)
    )
    try:
        serving(make_app(), ask, "GET", "/returned/204")
    finally:
        TornadoInstrumentor().uninstrument()
    assert only(spans)["attributes"]["uri"] == "/returned/204"
    assert [type(handler) for handler in seen] == [Returned]


def test_the_response_propagator(app: Any, spans: Spans) -> None:
    set_global_response_propagator(TraceResponsePropagator())
    seen: list[Any] = []

    def fetch(port: int) -> Any:
        return httpclient.AsyncHTTPClient().fetch(f"http://{HOST}:{port}/items/3")

    try:
        seen.append(running(app, fetch))
    finally:
        set_global_response_propagator(None)
    assert f"{only(spans)['span_id']:016x}" in seen[0].headers["traceresponse"]


CLIENTS = ["tornado.simple_httpclient.SimpleAsyncHTTPClient", "tornado.curl_httpclient.CurlAsyncHTTPClient"]


@pytest.fixture(params=CLIENTS)
def fetch(request: Any) -> Iterator[Callable[..., Any]]:
    if "curl" in request.param:
        pytest.importorskip("pycurl")
    httpclient.AsyncHTTPClient.configure(request.param)

    def fetch(app: Any, path: str, **options: Any) -> Any:
        @gen.coroutine
        def work(port: int) -> Any:
            try:
                response = yield httpclient.AsyncHTTPClient().fetch(f"http://u:p@{HOST}:{port}{path}", **options)
            except Exception as error:
                response = error
            raise gen.Return(response)

        return running(app, work)

    yield fetch
    httpclient.AsyncHTTPClient.configure(None)


def test_a_fetch(app: Any, spans: Spans, payload: Payload, fetch: Any) -> None:
    response = fetch(app, "/echo?token=abc")
    client = only(spans, "CLIENT")
    assert response.body.decode() == f"00-{client['trace_id']:032x}-{client['span_id']:016x}-01"
    assert (client["name"], client["status"]) == ("GET", "UNSET")
    attributes = client["attributes"]
    assert attributes["http.response.status_code"] == 200
    assert "REDACTED:REDACTED@" in attributes["url.full"]
    assert attributes["url.full"].endswith("/echo?<redacted>")
    assert attributes["server.address"] == HOST
    assert only(spans)["parent_id"] == client["span_id"]
    (row,) = (row for chunk in payload() for row in chunk if row["meta"]["span.kind"] == "client")
    assert [row[key] for key in ("name", "resource", "type")] == ["http.client.request", "GET /echo", "http"]


def test_a_redirect(app: Any, spans: Spans, fetch: Any) -> None:
    assert fetch(app, "/refused/302").code == 200
    client = only(spans, "CLIENT")
    assert [span["parent_id"] for span in servers(spans)] == [client["span_id"]] * 2
    assert client["attributes"]["http.response.status_code"] == 200


@pytest.mark.parametrize("code", [404, 503])
def test_a_refusal(app: Any, spans: Spans, fetch: Any, code: int) -> None:
    error = fetch(app, f"/refused/{code}")
    assert isinstance(error, httpclient.HTTPError)
    client = only(spans, "CLIENT")
    assert (client["status"], client["attributes"]["error.type"]) == ("ERROR", str(code))
    assert client["attributes"]["http.response.status_code"] == code


def test_nobody_listens(app: Any, spans: Spans, fetch: Any) -> None:
    (unused,) = bind_sockets(0, HOST)
    port = unused.getsockname()[1]
    unused.close()
    error = fetch(app, f"@{HOST}:{port}/items/3")
    assert isinstance(error, Exception)
    client = only(spans, "CLIENT")
    assert (client["status"], client["attributes"]["error.type"]) == ("ERROR", type(error).__qualname__)
    assert "http.response.status_code" not in client["attributes"]


def test_a_request_object_and_the_hooks(spans: Spans) -> None:
    seen: list[Any] = []
    TornadoInstrumentor().instrument(
        client_request_hook=lambda span, request: seen.append(request),
        client_response_hook=lambda span, future: seen.append((span.is_recording(), future.result().code)),
    )
    made: list[Any] = []
    headers = {"X-Tenant": "acme"}

    def work(port: int) -> Any:
        made.append(httpclient.HTTPRequest(f"http://{HOST}:{port}/echo", headers=headers))
        return httpclient.AsyncHTTPClient().fetch(made[0])

    try:
        response = running(make_app(), work)
    finally:
        TornadoInstrumentor().uninstrument()
    assert seen == [made[0], (True, 200)]
    assert response.request is made[0]
    assert headers == {"X-Tenant": "acme"}


@pytest.mark.parametrize("own_class", [False, True])
@pytest.mark.parametrize("value", ["\rbad", "bad\n", " padded "])
def test_headers_that_tornado_may_not_send_are_told_in_its_own_words(
    app: Any, spans: Spans, value: str, own_class: bool
) -> None:
    def told() -> str:
        headers: Any = httputil.HTTPHeaders({"X-Tenant": value}) if own_class else {"X-Tenant": value}
        try:
            return str(running(app, lambda port: client().fetch(f"http://{HOST}:{port}/echo", headers=headers)).code)
        except (ValueError, httputil.HTTPInputError, httpclient.HTTPError) as error:
            return repr(error)

    def client() -> Any:
        return httpclient.AsyncHTTPClient(force_instance=True)

    with_us = told()
    TornadoInstrumentor().uninstrument()
    assert with_us == told()


def test_a_fetch_of_a_handler(app: Any, spans: Spans) -> None:
    assert serving(app, ask, "GET", "/calling") == (200, b"ok")
    client = only(spans, "CLIENT")
    outer, inner = sorted(servers(spans), key=lambda span: span["name"])
    assert (client["parent_id"], inner["parent_id"]) == (outer["span_id"], client["span_id"])


def test_the_blocking_client(app: Any, spans: Spans) -> None:
    (unused,) = bind_sockets(0, HOST)
    url = "http://{}:{}/".format(*unused.getsockname())
    unused.close()
    client = httpclient.HTTPClient()
    with pytest.raises((OSError, httpclient.HTTPError, iostream.StreamClosedError)):
        client.fetch(url)
    client.close()
    assert only(spans, "CLIENT")["attributes"]["url.full"] == url
