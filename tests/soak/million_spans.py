"""A million spans through to a local receiver, as fast as they can be made: `python -m tests.soak.million_spans`.

On our recorder, or with SPANBRIDGE_RECORDER=sdk on the SDK's. Prints the rates, what was lost and how much memory it
took; exit 1 if a span was lost or memory grew.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import socket
import time
from concurrent.futures import thread as _thread  # noqa: F401  # before any provider is made, as the launcher does
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from multiprocessing.synchronize import Event as Started

ATTRIBUTES = {
    "db.system.name": "sqlite",
    "db.query.text": "SELECT name FROM users WHERE id = ?",
    "db.operation.name": "SELECT",
    "db.namespace": "main",
}
MOST_GROWTH = 96 << 20  # bytes above the first tenth of the run


class _Counting(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        spans = sum(len(chunk) for chunk in msgspec.msgpack.decode(body))
        self.server.seen.value += spans  # type: ignore[attr-defined]
        self._answer(b'{"rate_by_service":{}}')

    def do_GET(self) -> None:
        self._answer(b'{"endpoints":["/v0.4/traces"]}')

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


def receive(port: int, seen: Any, started: Started) -> None:
    """Count the spans that arrive (in a process of its own)."""
    server = ThreadingHTTPServer(("127.0.0.1", port), _Counting)
    server.seen = seen  # type: ignore[attr-defined]
    started.set()
    server.serve_forever()


def resident() -> int:
    """How many bytes of memory this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def watch(samples: list[int], done: Event) -> None:
    while not done.wait(0.1):
        samples.append(resident())


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak.million_spans", description=__doc__)
    parser.add_argument("--spans", type=int, default=1_000_000)
    parser.add_argument("--per-trace", type=int, default=10)
    parser.add_argument("--version", default="v0.4", help="of the payloads")
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    seen, started = context.Value("q", 0), context.Event()
    receiver = context.Process(target=receive, args=(port, seen, started), daemon=True)
    receiver.start()
    started.wait(30)
    figures = run(arguments, port)
    figures["received"] = seen.value
    receiver.terminate()
    print(json.dumps(figures, indent=2))
    grown = figures["peak_bytes"] - figures["early_bytes"]
    return int(figures["received"] != figures["made"] or figures["lost"] > 0 or grown > MOST_GROWTH)


def run(arguments: argparse.Namespace, port: int) -> dict[str, Any]:
    """Make the spans and send them; answer the figures."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.trace import SpanKind

    from spanbridge.exporters.datadog import DatadogSampler, DatadogSpanProcessor, Settings
    from spanbridge.recorder import chosen_provider

    settings = Settings(service="soak", agent_url=f"http://127.0.0.1:{port}", api_version=arguments.version)
    processor = DatadogSpanProcessor(settings=settings)
    provider = chosen_provider()(sampler=DatadogSampler(settings), resource=Resource({"service.name": "soak"}))
    provider.add_span_processor(processor)
    tracer = provider.get_tracer("spanbridge.instrumentors.sqlite3")
    samples: list[int] = []
    done = Event()
    Thread(target=watch, args=(samples, done), daemon=True).start()
    began, cpu = time.perf_counter(), time.process_time()
    traces = arguments.spans // arguments.per_trace
    for _ in range(traces):
        with tracer.start_as_current_span("GET", kind=SpanKind.SERVER):
            for _ in range(arguments.per_trace - 1):
                with tracer.start_as_current_span("SELECT", kind=SpanKind.CLIENT, attributes=ATTRIBUTES):
                    pass
    made = time.perf_counter() - began
    flushed = processor.force_flush(60_000)
    delivered = time.perf_counter() - began
    cpu = time.process_time() - cpu
    done.set()
    spans = traces * arguments.per_trace
    provider.shutdown()
    return {
        "made": spans,
        "flushed": flushed,
        "sent": processor.exporter.sent,
        "lost": processor.dropped,
        "made_per_second": round(spans / made),
        "delivered_per_second": round(spans / delivered),
        "cpu_microseconds_per_span": round(cpu / spans * 1e6, 1),
        "early_bytes": max(samples[: max(1, len(samples) // 10)]),
        "peak_bytes": max(samples),
    }


if __name__ == "__main__":
    raise SystemExit(main())
