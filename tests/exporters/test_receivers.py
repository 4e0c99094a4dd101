"""What Datadog's own receivers make of our payloads: the test agent's checks, and the mini agent's understanding."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from spanbridge.exporters.datadog import DatadogSpanExporter, DatadogSpanProcessor, Settings
from spanbridge.testing import TracerProvider
from spanbridge.version import __version__
from tests import servers
from tests.environments import clean_variables
from tests.exporters.receivers import spans_of

# A web application, called by itself, which does not know that it is traced.
APPLICATION = """
import sqlite3, threading
import flask, requests
from werkzeug.serving import make_server

app = flask.Flask("shop")

@app.route("/items/<int:number>")
def item(number):
    database = sqlite3.connect(":memory:")
    found = database.execute("SELECT  'secret', ? WHERE 7 = 7", (number,)).fetchone()
    database.close()
    return str(found[1])

server = make_server("127.0.0.1", 0, app)
threading.Thread(target=server.serve_forever).start()
print(requests.get(f"http://127.0.0.1:{server.port}/items/3?page=2").text)
server.shutdown()
"""
NAMES = {"flask.request", "requests.request", "sqlite.query"}


def launch(program: str, directory: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    path = directory / "program.py"
    path.write_text(program)
    launcher = Path(sysconfig.get_path("scripts"), "opentelemetry-instrument")
    return subprocess.run(
        [launcher, sys.executable, path],
        env=clean_variables(**variables),
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("address", ["tcp", "unix"])
def test_a_real_program_passes_every_check(test_agent, tmp_path, address):
    url = test_agent.url if address == "tcp" else f"unix://{test_agent.socket}"
    result = launch(APPLICATION, tmp_path, DD_SERVICE="shop", DD_TRACE_AGENT_URL=url)
    assert (result.returncode, result.stdout) == (0, "3\n"), result.stderr
    assert "spanbridge" not in result.stderr
    spans = test_agent.spans()
    assert test_agent.failed_checks() == ""
    assert sorted(span["name"] for span in spans) == sorted(NAMES)
    assert len({span["trace_id"] for span in spans}) == 1


def test_what_the_mini_agent_understands(mini_agent, tmp_path):
    result = launch(
        APPLICATION,
        tmp_path,
        DD_SERVICE="understood",
        DD_ENV="Test",
        DD_VERSION="1.2.3",
        DD_TAGS="team:checkout",
        DD_TRACE_AGENT_URL=mini_agent.url,
    )
    assert (result.returncode, result.stdout) == (0, "3\n"), result.stderr
    payloads = mini_agent.payloads("understood", 3)
    spans = {span["name"]: span for payload in payloads for span in spans_of(payload)}
    assert set(spans) == NAMES

    for payload in payloads:
        assert payload["language_name"] == "python"
        assert payload["language_version"] == ".".join(map(str, sys.version_info[:3]))
        assert payload["tracer_version"] == __version__
        assert payload["env"] == "test"  # as the Agent normalises it
        assert payload["app_version"] == "1.2.3"
        assert len(payload["runtime_id"]) == 32
        for chunk in payload["chunks"]:
            assert chunk["priority"] == 1
            assert not chunk["dropped_trace"]

    client, server, query = (spans[name] for name in ("requests.request", "flask.request", "sqlite.query"))
    assert server["parent_id"] == client["span_id"]
    assert query["parent_id"] == server["span_id"]
    assert client["service"] == "requests"
    assert server["service"] == "understood"
    assert query["service"] == "sqlite"
    assert server["resource"] == "GET /items/<int:number>"
    assert [client["type"], server["type"], query["type"]] == ["http", "web", "sql"]
    assert query["resource"] == "SELECT ? WHERE ? = ?"  # its obfuscator also folds our `?, ?`
    assert "secret" not in str(spans)
    assert server["meta"]["http.status_code"] == "200"
    assert server["meta"]["team"] == "checkout"
    assert len(client["meta"]["_dd.p.tid"]) == 16


# One attribute per span, so that a refused payload shows which one it was: what is kept of it, None for nothing.
HOSTILE = {
    "surrogate": ("a\ud800b", "a?b"),
    "unicode": ("πß漢字🦀\u0000\u202e", "πß漢字🦀\u0000\u202e"),
    "nan": (float("nan"), None),
    "infinity": (float("-inf"), None),
    "beyond 64 bit": (1 << 80, str(1 << 80)),
    "below 64 bit": (-(1 << 63) - 1, str(-(1 << 63) - 1)),
    "unsigned": ((1 << 64) - 1, (1 << 64) - 1),
    "bytes": (b"\xff\x00ok", "\ufffd\x00ok"),
    "long": ("x" * 100_000, "x" * 25_000 + "..."),
    "true": (True, "true"),
    "list": (["a\udfff", "b"], '["a?","b"]'),
    "float": (0.1, 0.1),
    "": ("an empty key", "an empty key"),
    "k" * 5_000: ("a long key", "a long key"),
    "key\udc00": ("a surrogate in the key", "a surrogate in the key"),
}
LINK = Link(
    SpanContext((0xABC << 64) | 0xDEF, 0x123, is_remote=True, trace_flags=TraceFlags(1), trace_state=TraceState()),
    {"why": "batch", "n": 3},
)


def make_hostile_spans(provider: TracerProvider) -> None:
    tracer = provider.get_tracer("hostile", "1.0")
    for key, (value, _) in HOSTILE.items():
        with tracer.start_as_current_span("odd", kind=SpanKind.INTERNAL) as span:
            # Not through the SDK's door, which refuses some of them: other SDKs and later versions may not.
            attributes = span._attributes
            getattr(attributes, "_dict", attributes).update({"case": repr(key)[:40], key: value})
    with tracer.start_as_current_span("with links and events", links=[LINK]) as span:
        span.set_attribute("case", "linked")
        span.add_event("caf\udce9", {"nan": float("nan"), "n": 1 << 80, "text": "\ud800", "list": [1, 2]})
        span.record_exception(ValueError("bad \ud800 value"))
        span.set_status(Status(StatusCode.ERROR, "it \udfff failed"))
    for name in ("", "n" * 100_000, "\ud800", "\u0000"):
        with tracer.start_as_current_span(name) as span:
            span.set_attribute("case", f"named {name[:3]!r}")


COUNT = len(HOSTILE) + 5


@pytest.fixture
def provider(monkeypatch):
    made = []

    def make(url, service, *, batch=False):
        monkeypatch.setenv("DD_TRACE_AGENT_URL", url)
        monkeypatch.setenv("DD_TRACE_WRITER_INTERVAL_SECONDS", "0.2")
        settings = Settings.from_environment()
        provider = TracerProvider(resource=Resource({"service.name": service}), shutdown_on_exit=False)
        processor = (
            BatchSpanProcessor(DatadogSpanExporter(settings)) if batch else DatadogSpanProcessor(settings=settings)
        )
        provider.add_span_processor(processor)
        made.append(provider)
        return provider

    yield make
    for provider in made:
        provider.shutdown()


def assert_complete(spans):
    """Check that every span has arrived, with all that can be told of it."""
    cases = {span["meta"].get("case"): span for span in spans}
    assert len(spans) == COUNT
    for key, (_, kept) in HOSTILE.items():
        span = cases[repr(key)[:40]]
        found = span["meta"] | span["metrics"]
        name = key.encode("utf-8", "replace").decode()
        # The mini agent holds every number as a float.
        assert found.get(name) == (kept if type(kept) is str or kept is None else pytest.approx(kept)), key[:40]
    linked = cases["linked"]
    (link,) = linked["span_links"]
    assert (link["trace_id"], link["trace_id_high"], link["span_id"]) == (0xDEF, 0xABC, 0x123)
    assert link["attributes"] == {"why": "batch", "n": "3"}
    assert link["flags"] == 1 | 1 << 31
    assert linked["error"] == 1
    assert linked["meta"]["error.message"] == "bad ? value"
    event, exception = json.loads(linked["meta"]["events"])
    assert event["attributes"] == {"nan": "nan", "n": 1 << 80, "text": "?", "list": [1, 2]}
    assert exception["name"] == "exception"


@pytest.mark.parametrize("batch", [False, True], ids=["our processor", "stock processor"])
@pytest.mark.parametrize("address", ["tcp", "unix"])
def test_hostile_spans_pass_every_check(test_agent, provider, address, batch):
    traced = provider(test_agent.url if address == "tcp" else f"unix://{test_agent.socket}", "shop", batch=batch)
    make_hostile_spans(traced)
    assert traced.force_flush()
    spans = test_agent.spans()
    assert test_agent.failed_checks() == ""
    assert_complete(spans)


def test_hostile_spans_as_v05(test_agent, provider, monkeypatch):
    monkeypatch.setenv("DD_TRACE_API_VERSION", "v0.5")
    traced = provider(test_agent.url, "shop")
    make_hostile_spans(traced)
    assert traced.force_flush()
    spans = test_agent.spans()
    assert test_agent.failed_checks() == ""
    assert len(spans) == COUNT
    (linked,) = (span for span in spans if span["meta"].get("case") == "linked")
    (link,) = json.loads(linked["meta"]["_dd.span_links"])
    assert (link["trace_id"], link["span_id"]) == (f"{0xABC << 64 | 0xDEF:032x}", f"{0x123:016x}")
    assert [event["name"] for event in json.loads(linked["meta"]["events"])] == ["caf?", "exception"]


def test_events_are_native_once_the_agent_has_said_that_it_reads_them(test_agent, provider):
    traced = provider(test_agent.url, "shop")
    traced.get_tracer("app").start_span("first").end()
    assert traced.force_flush()
    exporter = traced._active_span_processor._span_processors[0].exporter
    servers.wait_for(lambda: exporter.mapper.native_events, "what the agent can do")
    test_agent.clear()
    make_hostile_spans(traced)
    assert traced.force_flush()
    spans = test_agent.spans()
    assert test_agent.failed_checks() == ""
    assert len(spans) == COUNT
    (linked,) = (span for span in spans if span["meta"].get("case") == "linked")
    event, exception = linked["span_events"]
    assert event["attributes"]["list"]["array_value"]["values"] == [
        {"type": 2, "int_value": 1}, {"type": 2, "int_value": 2},
    ]  # fmt: skip
    assert exception["attributes"]["exception.type"]["string_value"] == "ValueError"
    assert "events" not in linked["meta"]


@pytest.mark.parametrize("version", ["v0.4", "v0.5"])
def test_the_mini_agent_takes_hostile_spans(mini_agent, provider, monkeypatch, version):
    monkeypatch.setenv("DD_TRACE_API_VERSION", version)  # it knows v0.4 only, and gets that in the end
    traced = provider(mini_agent.url, f"hostile-{version}")
    make_hostile_spans(traced)
    assert traced.force_flush()
    spans = [span for payload in mini_agent.payloads(f"hostile-{version}", COUNT) for span in spans_of(payload)]
    if version == "v0.4":
        assert_complete(spans)
    assert len(spans) == COUNT
