"""URLs without secrets, header capture, excluded URLs, WSGI records and bodies: pure functions, no framework."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from wsgiref.util import FileWrapper, setup_testing_defaults

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace import get_current_span

from spanbridge.conventions import http, http_server
from spanbridge.core.semconv import Names, Semconv
from spanbridge.core.tracing import Setup, TracerSource

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spanbridge.testing import Spans

STABLE = Semconv(Names.STABLE, Names.STABLE)


def make_setup(spans: Spans | None = None, **given: Any) -> Setup:
    source = TracerSource("test", STABLE.schema_url, spans.provider if spans is not None else None)
    return Setup("test", source, STABLE, given)


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("page=1&q=shoes", "page=1&q=shoes"),
        ("page=1&password=hunter2", "page=1&<redacted>"),
        ("Api-Key=1&x=2", "<redacted>&x=2"),
        ("auth_token=1;x=2&y=3", "<redacted>&y=3"),
        ("q=Bearer%20abc", "<redacted>"),
        ("jwt=eyJhbGciOi.eyJzdWIi.sig", "<redacted>"),
        ("sig=1&design=2", "<redacted>&design=2"),
        ("", ""),
    ],
)
def test_queries(query: str, shown: str) -> None:
    assert http.clean_query(query) == shown


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://a.b/c", "http://a.b/c"),
        ("http://user:hunter2@a.b:8080/c?d=1", "http://REDACTED:REDACTED@a.b:8080/c?d=1"),
        ("https://a.b/c?token=x#top", "https://a.b/c?<redacted>#top"),
        ("http://[::1/c@d", ""),
        ("mailto:a@b", "mailto:a@b"),
    ],
)
def test_urls(url: str, shown: str) -> None:
    assert http.url_cleaner(STABLE)(url) == shown


@given(st.text(max_size=300))
def test_no_url_is_too_odd(url: str) -> None:
    for semconv in (STABLE, Semconv(Names.OLD, Names.OLD, contrib=True)):
        http.url_cleaner(semconv)(url)
    http.host_and_port(url)
    http_server.split_host(url, "80")


@pytest.mark.parametrize(
    ("host", "port", "expected"),
    [
        ("a.b", "443", ("a.b", 443)),
        ("a.b:8080", "80", ("a.b", 8080)),
        ("[::1]:8080", None, ("::1", 8080)),
        ("[::1]", "80", ("::1", 80)),
        ("a.b:x", "y", ("a.b:x", None)),
        ("", None, ("", None)),
    ],
)
def test_hosts(host: str, port: str | None, expected: tuple[str, int | None]) -> None:
    assert http_server.split_host(host, port) == expected


def test_query_strings_by_setting(settings: dict[str, Any]) -> None:
    assert http.query_cleaner(STABLE, client=False)("a=1&token=2") == "a=1&<redacted>"
    settings["http.obfuscation_pattern"] = "a=[0-9]+"
    assert http.query_cleaner(STABLE, client=False)("a=1&token=2") == "<redacted>&token=2"
    settings["http.obfuscation_pattern"] = ""
    assert http.query_cleaner(STABLE, client=True)("a=1&token=2") == "a=1&token=2"
    settings["http.server.query_string"] = False
    assert http.query_cleaner(STABLE, client=False)("a=1") == ""


def test_header_tags(settings: dict[str, Any]) -> None:
    settings["http.header_tags"] = {"x-tenant": "tenant", "x-shard": "", "authorization": "auth"}
    capture = http.captured(make_setup(), "server", "request")
    assert capture is not None
    sent = [("X-Tenant", "acme"), ("X-Shard", "7"), ("X-Other", "1"), ("Authorization", "Basic c2VjcmV0")]
    assert capture(sent) == {"tenant": "acme", "http.request.header.x-shard": ["7"], "auth": "[REDACTED]"}


def test_repeated_headers_stay_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_RESPONSE", "x-a.*, Set-Cookie")
    capture = http.captured(make_setup(), "server", "response")
    assert capture is not None
    assert capture([("X-A", "1"), ("x-a", "2"), ("X-B", "3"), ("Set-Cookie", "id=1")]) == {
        "http.response.header.x-a": ["1", "2"],
        "http.response.header.set-cookie": ["[REDACTED]"],
    }


def test_nothing_to_capture_costs_nothing() -> None:
    assert http.captured(make_setup(), "client", "request") is None
    assert http.excluded(make_setup()) is None


def test_a_broken_pattern_is_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    matches = http.excluded(make_setup(excluded_urls="health,([a-z"))
    assert matches is not None
    assert (matches("http://a/health"), matches("http://a/x")) == (True, False)
    http.excluded(make_setup(excluded_urls="([a-z"))
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def call(app: Any, spans: Spans, **environ: Any) -> Any:
    setup_testing_defaults(environ)
    return http_server.wsgi()(app, make_setup(spans))(environ, lambda status, headers, exc_info=None: None)


def test_a_complete_body_is_handed_on_as_it_is(spans: Spans) -> None:
    body = [b"a", b"b"]

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [])
        return body

    assert call(app, spans) is body
    assert [span["name"] for span in spans] == ["GET"]


def test_a_file_wrapper_stays_one(spans: Spans, tmp_path: Any) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 10)

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [])
        return FileWrapper(path.open("rb"))

    body = call(app, spans, **{"wsgi.file_wrapper": FileWrapper})
    assert isinstance(body, FileWrapper)
    assert len(spans) == 0
    assert b"".join(body) == b"x" * 10
    body.close()
    assert [span["name"] for span in spans] == ["GET"]


def test_a_file_wrapper_that_cannot_be_watched(
    spans: Spans, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 10)

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [])
        return FileWrapper(path.open("rb"))

    monkeypatch.delattr(http_server._Closing, "__init__")
    body = call(app, spans, **{"wsgi.file_wrapper": FileWrapper})
    assert b"".join(body) == b"x" * 10
    body.close()
    assert [span["name"] for span in spans] == ["GET"]
    assert len(caplog.messages) == 1


class FileBuffer:
    """A file wrapper as waitress's: one can always close it."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self.file.read(1), b"")

    def close(self) -> None:
        pass


@pytest.mark.parametrize("wrapper", [FileWrapper, FileBuffer])
def test_what_can_only_be_read_is_made_within_the_span(spans: Spans, wrapper: Any) -> None:
    class Made:
        """No file: it makes what is read from it, as Molten's streams do."""

        chunks = 2

        def read(self, size: int) -> bytes:
            with spans.provider.get_tracer("shop").start_as_current_span("chunk"):
                self.chunks -= 1
                return b"x" * (self.chunks >= 0)

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [])
        return wrapper(Made())

    body = call(app, spans, **{"wsgi.file_wrapper": wrapper})
    assert b"".join(body) == b"xx"
    body.close()
    assert [(span["name"], span["parent"]) for span in spans] == [*[("chunk", "GET")] * 3, ("GET", None)]


def test_a_body_that_fails(spans: Spans) -> None:
    error = ValueError("broken")

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"a"
        raise error

    body = call(app, spans)
    assert next(body) == b"a"
    with pytest.raises(ValueError, match="broken") as caught:
        next(body)
    assert caught.value is error
    body.close()
    assert [(span["status"], len(span["events"])) for span in spans] == [("ERROR", 1)]


def test_a_generator_within_a_body_that_closes_nothing(spans: Spans) -> None:
    def chunks() -> Iterator[str]:
        with spans.provider.get_tracer("shop").start_as_current_span("chunk"):
            yield "a"

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [])
        return map(str.encode, chunks())

    body = call(app, spans)
    assert next(body) == b"a"
    body.close()  # the client has gone away
    assert [(span["name"], span["parent"]) for span in spans] == [("chunk", "GET"), ("GET", None)]
    assert not get_current_span().get_span_context().is_valid
    assert list(body) == []


def test_a_status_that_is_no_number(spans: Spans) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("fine", [])
        return []

    call(app, spans)
    assert (spans[0]["status"], spans[0]["description"]) == ("ERROR", "Non-integer HTTP status: fine")


def test_an_environ_with_next_to_nothing(spans: Spans) -> None:
    app = http_server.wsgi()(lambda environ, start_response: [], make_setup(spans))
    assert app({}, None) == []
    assert [span["name"] for span in spans] == ["HTTP"]
