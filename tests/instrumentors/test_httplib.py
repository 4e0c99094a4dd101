"""http.client against a real server: by itself, below urllib and urllib3, silent below other traced clients."""

from __future__ import annotations

import http.client
import socket
import threading
import urllib.error
import urllib.request
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.utils import suppress_http_instrumentation, suppress_instrumentation

from spanbridge.instrumentors.httplib import HttplibInstrumentor
from spanbridge.instrumentors.requests import RequestsInstrumentor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spanbridge.testing import Payload, Spans


class Handler(BaseHTTPRequestHandler):
    """Answers `/status/<code>`, and `/stream` in chunks as the test lets them go."""

    protocol_version = "HTTP/1.1"
    seen: list[list[tuple[str, str]]] = []  # noqa: RUF012
    go_on = threading.Semaphore(0)

    def do_GET(self) -> None:
        self.seen.append(self.headers.items())
        if self.path == "/stream":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            with suppress(ConnectionError):  # the client may go away
                for chunk in (b"5\r\nfirst\r\n", b"4\r\nlast\r\n", b"0\r\n\r\n"):
                    self.wfile.write(chunk)
                    self.go_on.acquire(timeout=30)
            return
        code = int(self.path.partition("?")[0].rpartition("/")[2])
        self.send_response(code)
        if code == 302:
            self.send_header("Location", "/status/200")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    do_POST = do_GET

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "100")
        self.end_headers()

    def log_message(self, *args: Any) -> None: ...


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running.server_address[1]
        Handler.go_on.release(1000)
        running.shutdown()


@pytest.fixture
def connection(port: int, spans: Spans) -> Iterator[http.client.HTTPConnection]:
    Handler.seen.clear()
    HttplibInstrumentor().instrument()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    yield connection
    connection.close()
    HttplibInstrumentor().uninstrument()


def get(connection: http.client.HTTPConnection, path: str, method: str = "GET", **headers: str) -> bytes:
    connection.request(method, path, headers=headers)
    return connection.getresponse().read()


def test_a_request(connection: Any, spans: Spans, port: int, payload: Payload) -> None:
    assert get(connection, "/status/200?page=1&token=abc", **{"User-Agent": "tests/1"}) == b"ok"
    (span,) = spans
    assert (span["name"], span["kind"], span["status"]) == ("GET", "CLIENT", "UNSET")
    assert span["attributes"] == {
        "http.request.method": "GET",
        "url.full": f"http://127.0.0.1:{port}/status/200?page=1&<redacted>",
        "server.address": "127.0.0.1",
        "server.port": port,
        "http.response.status_code": 200,
        "network.protocol.version": "1.1",
        "user_agent.original": "tests/1",
    }
    assert f"-{span['span_id']:016x}-" in dict(Handler.seen[0])["traceparent"]
    ((mapped,),) = payload()
    assert (mapped["name"], mapped["resource"]) == ("http.client.request", "http.client.request")
    assert (mapped["meta"]["out.host"], mapped["meta"]["component"]) == ("127.0.0.1", "httplib")


def test_one_connection_many_requests(connection: Any, spans: Spans) -> None:
    assert [get(connection, "/status/200"), get(connection, "/status/404", "POST"), get(connection, "/", "HEAD")] == [
        b"ok",
        b"ok",
        b"",
    ]
    assert [(span["name"], span["status"]) for span in spans] == [
        ("GET", "UNSET"),
        ("POST", "ERROR"),
        ("HEAD", "UNSET"),
    ]
    assert {span["parent"] for span in spans} == {None}


def test_a_request_put_together_by_hand(connection: Any, spans: Spans) -> None:
    connection.putrequest("GET", "/status/200", skip_host=True)
    connection.putheader("Host", "shop")
    connection.putheader("Traceparent", "00-11111111111111111111111111111111-2222222222222222-01")
    connection.endheaders()
    assert trace.get_current_span() is trace.INVALID_SPAN
    assert connection.getresponse().read() == b"ok"
    assert len(spans) == 1
    names = [name.lower() for name, _ in Handler.seen[0]]
    assert names.count("traceparent") == 1
    assert f"{spans[0]['span_id']:016x}" in dict(Handler.seen[0])["traceparent"]


def test_the_span_ends_with_the_last_byte(connection: Any, spans: Spans) -> None:
    connection.request("GET", "/stream")
    response = connection.getresponse()
    assert response.read(5) == b"first"
    assert (len(spans), spans.unfinished) == (0, ["GET"])
    assert trace.get_current_span() is trace.INVALID_SPAN
    Handler.go_on.release(3)
    assert response.read() == b"last"
    assert [span["attributes"]["http.response.status_code"] for span in spans] == [200]


def test_a_body_that_is_given_up(connection: Any, spans: Spans) -> None:
    connection.request("GET", "/stream")
    with connection.getresponse():
        assert len(spans) == 0
    assert len(spans) == 1
    connection.close()
    connection.request("GET", "/stream")
    connection.getresponse()  # which the connection keeps
    assert len(spans) == 1
    connection.close()
    assert len(spans) == 2
    Handler.go_on.release(6)


def test_an_answer_that_nobody_asks_for(connection: Any, spans: Spans) -> None:
    connection.request("GET", "/status/200")
    connection.close()
    get(connection, "/status/404")
    assert spans.unfinished == []
    assert [span["attributes"].get("http.response.status_code") for span in spans] == [None, 404]


def test_urllib(connection: Any, spans: Spans, port: int) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/status/302") as response:
        assert response.read() == b"ok"
    with pytest.raises(urllib.error.HTTPError) as raised:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/status/500")
    raised.value.close()
    statuses = [(span["attributes"]["http.response.status_code"], span["status"]) for span in spans]
    assert statuses == [(302, "UNSET"), (200, "UNSET"), (500, "ERROR")]


def test_urllib3(connection: Any, spans: Spans, port: int) -> None:
    urllib3 = pytest.importorskip("urllib3")
    with urllib3.PoolManager() as pool:
        assert pool.request("GET", f"http://127.0.0.1:{port}/status/200").data == b"ok"
        Handler.go_on.release(3)
        streamed = pool.request("GET", f"http://127.0.0.1:{port}/stream", preload_content=False)
        assert b"".join(streamed.stream(4)) == b"firstlast"
        streamed.release_conn()
    assert [(span["scope"], span["name"]) for span in spans] == [("spanbridge.instrumentors.httplib", "GET")] * 2
    assert all("traceparent" in dict(headers) for headers in Handler.seen)


def test_silent_below_another_client(connection: Any, spans: Spans, port: int) -> None:
    requests = pytest.importorskip("requests")
    RequestsInstrumentor().instrument()
    try:
        assert requests.get(f"http://127.0.0.1:{port}/status/200").text == "ok"
    finally:
        RequestsInstrumentor().uninstrument()
    (span,) = spans
    assert span["scope"] == "spanbridge.instrumentors.requests"
    assert f"{span['span_id']:016x}" in dict(Handler.seen[0])["traceparent"]


@pytest.mark.parametrize("suppression", [suppress_instrumentation, suppress_http_instrumentation])
def test_silent_below_exporters(connection: Any, spans: Spans, suppression: Any) -> None:
    with suppression():
        assert get(connection, "/status/200") == b"ok"
    assert len(spans) == 0
    assert "traceparent" not in dict(Handler.seen[0])


def test_nobody_there(spans: Spans, connection: Any) -> None:
    nobody = http.client.HTTPConnection("127.0.0.1", 1)
    for _ in range(2):
        with pytest.raises(ConnectionRefusedError):
            nobody.request("GET", "/")
        nobody.close()
    assert [(span["status"], span["attributes"]["error.type"]) for span in spans] == [
        ("ERROR", "ConnectionRefusedError")
    ] * 2


def test_an_answer_that_is_none(connection: Any, spans: Spans) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        other = http.client.HTTPConnection("127.0.0.1", listener.getsockname()[1], timeout=30)
        other.request("GET", "/")
        listener.accept()[0].close()
        with pytest.raises(ConnectionError) as raised:  # closed at once, or reset because of what was not read
            other.getresponse()
        other.close()
    assert [span["attributes"]["error.type"] for span in spans] == [type(raised.value).__name__]


@pytest.mark.parametrize(
    ("make", "target", "url"),
    [
        (lambda: http.client.HTTPConnection("shop"), "/a?b=1", "http://shop/a?b=1"),
        (lambda: http.client.HTTPConnection("shop", 8080), "*", "http://shop:8080*"),
        (lambda: http.client.HTTPConnection("::1", 8080), "/", "http://[::1]:8080/"),
        (lambda: http.client.HTTPConnection("proxy", 3128), "http://u:p@shop/a", "http://REDACTED:REDACTED@shop/a"),
        (lambda: http.client.HTTPSConnection("shop"), "/", "https://shop/"),
        (lambda: tunnelled("shop", 443), "/", "https://shop/"),
        (lambda: tunnelled("shop", 8443), "/", "https://shop:8443/"),
    ],
)
def test_urls(make: Any, target: str, url: str, connection: Any, spans: Spans) -> None:
    client = make()

    class Closed:
        def sendall(self, data: bytes) -> None:
            raise OSError

        def close(self) -> None: ...

    client.sock = Closed()
    with pytest.raises(OSError):
        client.request("GET", target)
    assert [span["attributes"]["url.full"] for span in spans] == [url]


def tunnelled(host: str, port: int) -> http.client.HTTPSConnection:
    connection = http.client.HTTPSConnection("proxy", 3128)
    connection.set_tunnel(host, port)
    return connection


def test_excluded_urls_and_no_propagation(connection: Any, spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    from spanbridge.core.options import load_vendor_settings

    HttplibInstrumentor().uninstrument()
    monkeypatch.setenv("DD_HTTPLIB_DISTRIBUTED_TRACING", "false")
    monkeypatch.setenv("OTEL_PYTHON_HTTPLIB_EXCLUDED_URLS", "/status/500")
    load_vendor_settings()
    try:
        HttplibInstrumentor().instrument()
        get(connection, "/status/500")
        get(connection, "/status/200")
    finally:
        monkeypatch.undo()
        load_vendor_settings()
    assert [span["attributes"]["http.response.status_code"] for span in spans] == [200]
    assert all("traceparent" not in dict(headers) for headers in Handler.seen)
