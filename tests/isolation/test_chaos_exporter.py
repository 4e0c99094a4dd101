"""Any line of exporter, sampler, propagators and stats may raise: the application goes on, and so does the sending."""

from __future__ import annotations

import json
import logging
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import pytest
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, SpanKind

from spanbridge.core import guard
from spanbridge.exporters.datadog import DatadogSampler, DatadogSpanExporter, DatadogSpanProcessor, Settings, worker
from spanbridge.exporters.datadog.logs import log_context
from spanbridge.exporters.datadog.propagator import DatadogPropagator, composite_propagator
from spanbridge.exporters.datadog.sampler import agent_rates
from spanbridge.testing import TracerProvider
from tests.chaos import Line, broken, lines_of, sample, shown
from tests.exporters.receivers import served

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from opentelemetry.propagators.textmap import TextMapPropagator
    from opentelemetry.trace import Tracer

# How long the application lets a flush take, and what anything may take longer than that on a busy machine (seconds).
FLUSH, BUSY = 0.25, 5.0
INFO = {
    "endpoints": ["/v0.4/traces", "/v0.5/traces", "/v0.6/stats"],
    "client_drop_p0s": True,
    "span_events": True,
    "peer_tags": ["db.name", "out.host"],
    "filter_tags": {"reject": ["never:so"]},
    "config": {"max_request_bytes": 1 << 20},
}
RATES = {"rate_by_service": {"service:,env:": 1.0, "service:shop,env:prod": 1.0}}
HEADERS = {
    "X-Datadog-Trace-Id": "1311768467463790320",
    "x-datadog-parent-id": "7",
    "x-datadog-sampling-priority": "1",
    "x-datadog-tags": "_dd.p.dm=-4,_dd.p.tid=640cfd8d00000000",
    "traceparent": "00-640cfd8d00000000123456789abcdef0-000000000000000a-01",
    "tracestate": "dd=s:1;p:0000000000000007,other=1",
    "b3": "640cfd8d00000000123456789abcdef0-000000000000000a-1",
    "baggage": "user.id=7,other=x",
}
QUERY = {
    "db.system.name": "postgresql",
    "db.query.text": "SELECT 1",
    "db.namespace": "shop",
    "server.address": "10.0.0.7",
    "number": 1.5,
    "list": ["a", "b"],
}


class Setting(NamedTuple):
    """One way to set the exporter up, and what the receiver answers to the first requests."""

    settings: Mapping[str, Any] = MappingProxyType({})
    statuses: tuple[int, ...] = ()
    alone: bool = False  # the exporter behind OpenTelemetry's own processor


SETTINGS = {
    "as it comes": Setting(),
    "with rules": Setting(
        {
            "api_version": "v0.5",
            "sampling_rules": '[{"resource": "GET *", "sample_rate": 0}]',
            "span_sampling_rules": '[{"name": "*", "max_per_second": 50}]',
            "tags": {"team": "web"},
            "service_mapping": {"postgres": "db"},
            "peer_service": True,
            "styles_extract": ("tracecontext", "datadog", "b3", "b3multi", "baggage"),
            "styles_inject": ("tracecontext", "datadog", "b3", "b3multi", "baggage"),
            "partial_flush_min_spans": 1,
        }
    ),
    "a receiver that refuses": Setting(statuses=(503, 413, 413, 413, 404)),
    "behind another processor": Setting(alone=True),
}


class Receiver(ThreadingHTTPServer):
    """Answers what it is told to, then accepts; counts spans by resource."""

    daemon_threads = True

    def __init__(self, statuses: tuple[int, ...]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.statuses = list(statuses)
        self.names: set[str] = set()


class _Handler(BaseHTTPRequestHandler):
    server: Receiver
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/v0.6/stats":
            return self._answer(200, {})
        if self.server.statuses:
            return self._answer(self.server.statuses.pop(0), {})
        payload = msgspec.msgpack.decode(body)
        if self.path == "/v0.5/traces":
            self.server.names.update(payload[0])
        else:
            self.server.names.update(span["resource"] for chunk in payload for span in chunk)
        return self._answer(200, RATES)

    def do_GET(self) -> None:
        self._answer(200, INFO)

    def _answer(self, status: int, document: Any) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


class Service:
    """An application with the exporter set up; `day` is what it does, by its own words."""

    def __init__(self, setting: Setting, url: str) -> None:
        given = {"service": "shop", "env": "prod", "version": "1", "flush_interval": 0.02, "timeout": 1.0}
        settings = Settings(agent_url=url, **{**given, **setting.settings})
        exporter = DatadogSpanExporter(settings)
        self.processor: Any = BatchSpanProcessor(exporter) if setting.alone else DatadogSpanProcessor(exporter)
        self.provider = TracerProvider(
            sampler=DatadogSampler(settings), resource=Resource({"service.name": "shop"}), shutdown_on_exit=False
        )
        self.provider.add_span_processor(self.processor)
        self.tracer: Tracer = self.provider.get_tracer("spanbridge.instrumentors.psycopg")
        self.propagators: list[TextMapPropagator] = [DatadogPropagator(settings), composite_propagator(settings)]

    def day(self) -> list[object]:
        """Serve a request that asks a database, calls a service and fails; answer what the application sees of that."""
        seen: list[object] = []
        for propagator in self.propagators:
            context = propagator.extract(HEADERS)
            with self.tracer.start_as_current_span("GET /", context, SpanKind.SERVER) as span:
                span.set_attribute("http.route", "/")
                seen.append(self.query())
                propagator.inject({})
                log_context()
        with self.tracer.start_as_current_span("job", attributes={"manual.keep": True}) as span:
            link = Link(span.get_span_context(), {"a": "b"})
            self.tracer.start_span("linked", links=[link], kind=SpanKind.CONSUMER).end()
        self.flush(FLUSH)
        return seen

    def query(self) -> object:
        error = LookupError("the application's")
        try:
            with self.tracer.start_as_current_span("SELECT", kind=SpanKind.CLIENT, attributes=QUERY) as span:
                span.add_event("sent", {"bytes": 7})
                raise error
        except LookupError as caught:
            return caught is error and caught.__context__ is None

    def flush(self, seconds: float) -> None:
        self.provider.force_flush(round(seconds * 1000))

    def end(self) -> None:
        self.provider.shutdown()


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What is logged, ours and what OpenTelemetry's processor says of us."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    monkeypatch.setattr(guard.logger, "propagate", False)
    guard.logger.addHandler(handler)
    yield messages
    guard.logger.removeHandler(handler)


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(worker, "PATIENCE", 0.1)
    monkeypatch.setattr(worker, "STATS_SECONDS", 0.0)
    agent_rates.clear()
    yield
    agent_rates.clear()


# What closes a socket may be what is broken; the garbage collector closes it then, and says so.
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"
)


def is_the_exporters(line: Line) -> bool:
    return "exporters" in line.file


@pytest.mark.parametrize("name", SETTINGS)
def test_the_application_goes_on(name: str, said: list[str]) -> None:
    setting = SETTINGS[name]

    def life() -> None:
        receiver = Receiver(setting.statuses)
        with served(receiver):
            service = Service(setting, f"http://127.0.0.1:{receiver.server_port}")
            began.append(True)
            service.day()
            service.end()

    began: list[bool] = []
    lines = [line for line in lines_of(life) if is_the_exporters(line)]
    assert len(lines) > 300
    assert outcome(setting, Line("", 0, ""), said) == ""
    faults = {shown(line): fault for line in sample(lines) if (fault := outcome(setting, line, said))}
    assert not faults, "\n".join(f"{line}: {fault}" for line, fault in faults.items())


def outcome(setting: Setting, line: Line, said: list[str]) -> str:
    """Say what the application notices of a broken line; nothing is expected."""
    receiver = Receiver(setting.statuses)
    agent_rates.clear()
    with served(receiver):
        service = Service(setting, f"http://127.0.0.1:{receiver.server_port}")
        guard.forget()
        said.clear()
        began = time.monotonic()
        try:
            with broken(line):
                seen = service.day()
            if seen != [True, True]:
                return f"other results: {seen}"
            if time.monotonic() - began > FLUSH + BUSY:
                return "a flush that does not end in time"
            # The fault is over: the next trace arrives.
            receiver.statuses.clear()
            service.tracer.start_span("afterwards", Context(), attributes={"resource.name": "afterwards"}).end()
            service.flush(5.0)
            if "afterwards" not in receiver.names:
                return "nothing is sent any more"
            began = time.monotonic()
            with broken(line):
                service.end()
            if time.monotonic() - began > BUSY:
                return "an end that does not come in time"
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return "said again and again" if len(said) != len(set(said)) else ""
