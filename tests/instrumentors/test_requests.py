"""requests against a real server, from 2.8 to the newest."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.instrumentation.utils import suppress_http_instrumentation

requests = pytest.importorskip("requests")

from spanbridge.instrumentors.requests import RequestsInstrumentor  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spanbridge.testing import Payload, Spans


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen: list[dict[str, str]] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.seen.append({name.lower(): value for name, value in self.headers.items()})
        code = int(self.path.split("?")[0].rsplit("/", 1)[-1])
        self.send_response(code)
        if code == 302:
            self.send_header("Location", "/status/200")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_GET

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


@pytest.fixture
def client(spans: Spans) -> Iterator[Any]:
    Handler.seen.clear()
    session = requests.Session()
    RequestsInstrumentor().instrument()
    yield session
    RequestsInstrumentor().uninstrument()
    session.close()


def test_a_request(client: Any, spans: Spans, server: str, payload: Payload) -> None:
    assert client.get(f"{server}/status/200?page=1&token=abc").status_code == 200
    (span,) = spans
    port = int(server.rpartition(":")[2])
    assert (span["name"], span["kind"], span["status"]) == ("GET", "CLIENT", "UNSET")
    attributes = span["attributes"]
    assert attributes.pop("user_agent.original").startswith("python-requests/")
    assert attributes == {
        "http.request.method": "GET",
        "url.full": f"{server}/status/200?page=1&<redacted>",
        "server.address": "127.0.0.1",
        "server.port": port,
        "http.response.status_code": 200,
        "network.protocol.version": "1.1",
    }
    assert f"-{span['span_id']:016x}-" in Handler.seen[0]["traceparent"]
    ((mapped,),) = payload()
    assert (mapped["service"], mapped["name"], mapped["resource"]) == (
        "requests",
        "requests.request",
        "GET /status/200",
    )


@pytest.mark.parametrize("code", [404, 500])
def test_a_failure_of_the_server(client: Any, spans: Spans, server: str, code: int) -> None:
    client.get(f"{server}/status/{code}")
    assert (spans[0]["status"], spans[0]["attributes"]["error.type"]) == ("ERROR", str(code))


def test_nobody_there(client: Any, spans: Spans) -> None:
    with pytest.raises(requests.exceptions.ConnectionError) as raised:
        client.get("http://127.0.0.1:1/")
    (span,) = spans
    assert (span["status"], span["attributes"]["error.type"]) == ("ERROR", raised.type.__name__)
    assert [event["name"] for event in span["events"]] == ["exception"]


def test_a_redirect_belongs_to_the_call_that_follows_it(client: Any, spans: Spans, server: str) -> None:
    response = client.get(f"{server}/status/302")
    assert len(response.history) == 1
    assert [span["attributes"]["url.full"] for span in spans] == [f"{server}/status/302"]


def test_credentials_do_not_leave(client: Any, spans: Spans, server: str) -> None:
    client.get(server.replace("//", "//user:hunter2@") + "/status/200")
    assert spans[0]["attributes"]["url.full"] == server.replace("//", "//REDACTED:REDACTED@") + "/status/200"
    assert "hunter2" not in repr(spans[0])


def test_ways_of_sending(spans: Spans, server: str) -> None:
    RequestsInstrumentor().instrument()
    requests.get(f"{server}/status/200")
    requests.request("POST", f"{server}/status/200")
    with requests.Session() as session:
        session.send(session.prepare_request(requests.Request("GET", f"{server}/status/200")))
        session.send(requests.Request("GET", f"{server}/status/200").prepare(), stream=True).close()
    assert [span["name"] for span in spans] == ["GET", "POST", "GET", "GET"]


def test_an_invalid_url_makes_no_span(client: Any, spans: Spans) -> None:
    with pytest.raises(requests.exceptions.MissingSchema):
        client.get("nonsense")
    assert len(spans) == 0


def test_hooks_and_excluded_urls(spans: Spans, server: str) -> None:
    RequestsInstrumentor().instrument(
        request_hook=lambda span, request: span.set_attribute("method", request.method),
        response_hook=lambda span, request, response: span.set_attribute("length", len(response.content)),
        excluded_urls="status/500",
    )
    requests.get(f"{server}/status/500")
    requests.get(f"{server}/status/200")
    (span,) = spans
    assert (span["attributes"]["method"], span["attributes"]["length"]) == ("GET", 0)


def test_captured_headers(spans: Spans, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_CLIENT_REQUEST", "x-tenant")
    monkeypatch.setenv("OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_CLIENT_RESPONSE", "content-length")
    RequestsInstrumentor().instrument()
    requests.get(f"{server}/status/200", headers={"X-Tenant": "acme"})
    assert spans[0]["attributes"]["http.request.header.x-tenant"] == ("acme",)
    assert spans[0]["attributes"]["http.response.header.content-length"] == ("0",)


def test_suppressed_and_taken_out(client: Any, spans: Spans, server: str) -> None:
    with suppress_http_instrumentation():
        client.get(f"{server}/status/200")
    RequestsInstrumentor.uninstrument_session(client)
    client.get(f"{server}/status/200")
    assert len(spans) == 0
