"""What receives spans in these tests: Datadog's test agent, Datadog's mini agent with a sink behind it, faulty ones."""

from __future__ import annotations

import gzip
import os
import shutil
import socket
import struct
import sys
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any

import msgpack
import msgspec
import pytest

from spanbridge.demo import processes
from tests import servers
from tests.servers import HOST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Span = dict[str, Any]


# --- Datadog's test agent: checks requests and payloads, and tells what it received ---


class TestAgent(processes.Receiver):
    """Datadog's test agent on a TCP port and on a unix socket."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.socket = directory / "apm.socket"

    def command(self, directory: Path) -> list[str]:
        return [*super().command(directory), "--trace-uds-socket", str(self.socket)]

    def clear(self) -> None:
        for path in ("session", "trace_check"):
            status, body = processes.request("GET", f"{self.url}/test/{path}/clear")
            assert status == 200, body


@contextmanager
def test_agent(directory: Path) -> Iterator[TestAgent]:
    """Run the test agent, all its checks of requests and payloads on."""
    agent = TestAgent(directory)
    try:
        command = agent.command(directory)
    except processes.DemoError:
        missing("ddapm-test-agent")
    with processes.running(
        command,
        agent.port,
        directory / "agent.log",
        lambda: None,
        **processes.CHECKS,
    ):
        yield agent


# --- Datadog's mini agent: its Rust code decodes, normalises and obfuscates; the sink shows what it understood ---


class Sink(ThreadingHTTPServer):
    """Takes what an agent sends to Datadog, and keeps its tracer payloads decoded."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__((HOST, 0), _SinkHandler)
        self.payloads: list[dict[str, Any]] = []
        self.stats: list[dict[str, Any]] = []


class _SinkHandler(BaseHTTPRequestHandler):
    server: Sink

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/v0.2/traces":
            self.server.payloads += read_protobuf(body, AGENT_PAYLOAD)["tracer_payloads"]
        if self.path == "/api/v0.2/stats":
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            self.server.stats.append(msgpack.unpackb(body))
        self.send_response(202)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


class MiniAgent:
    """Datadog's mini agent for serverless environments; hands on every 3 seconds what it accepted."""

    def __init__(self, port: int, sink: Sink) -> None:
        self.url = f"http://{HOST}:{port}"
        self._sink = sink

    def stats(self, service: str, hits: int, seconds: float = 40) -> list[dict[str, Any]]:
        """Wait until it has handed on counts of so many spans of `service`; answer these groups."""

        def found() -> list[dict[str, Any]]:
            return [
                group
                for payload in list(self._sink.stats)
                for client in payload["Stats"]
                for bucket in client["Stats"]
                for group in bucket["Stats"]
                if group["Service"] == service
            ]

        deadline = time.monotonic() + seconds
        while sum(group["Hits"] for group in found()) < hits and time.monotonic() < deadline:
            time.sleep(0.1)
        return found()

    def payloads(self, service: str, spans: int, seconds: float = 10) -> list[dict[str, Any]]:
        """Wait until `spans` spans have come in payloads with a span of `service`; answer these payloads."""

        def found() -> list[dict[str, Any]]:
            return [
                payload
                for payload in list(self._sink.payloads)
                if any(span["service"] == service for span in spans_of(payload))
            ]

        deadline = time.monotonic() + seconds
        while sum(len(spans_of(payload)) for payload in found()) < spans and time.monotonic() < deadline:
            time.sleep(0.05)
        return found()


def spans_of(payload: dict[str, Any]) -> list[Span]:
    return [span for chunk in payload["chunks"] for span in chunk["spans"]]


@contextmanager
def mini_agent(directory: Path, *, counts: bool = False) -> Iterator[MiniAgent]:
    """Run the mini agent, with a sink in place of Datadog; either it counts spans, or it lets its clients do that."""
    spec = find_spec("datadog_serverless_compat")
    if spec is None or spec.origin is None or not sys.platform.startswith("linux"):
        missing("datadog-serverless-compat")
    packed = Path(spec.origin).parent / "bin" / "linux-amd64" / "datadog-serverless-compat"
    binary = shutil.copy(packed, directory / packed.name)
    binary.chmod(0o755)  # the wheel ships it without
    port, sink = servers.free_port(), Sink()
    intake = f"http://{HOST}:{sink.server_address[1]}"
    variables = {  # nothing else may be seen: it looks for the one serverless environment that it runs in
        "PATH": os.environ["PATH"],
        "DD_API_KEY": "none",
        "DD_APM_DD_URL": intake,
        "DD_APM_PROFILING_DD_URL": intake,
        "DD_USE_DOGSTATSD": "false",
        "DD_ENHANCED_METRICS_ENABLED": "false",
        "DD_APM_RECEIVER_PORT": str(port),
        "DD_AGENT_STATS_COMPUTATION_ENABLED": str(counts).lower(),
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_FUNCTION_NAME": "spanbridge",
    }
    with served(sink), servers.running([str(binary)], port, directory / "mini-agent.log", variables):
        yield MiniAgent(port, sink)


@contextmanager
def served(server: ThreadingHTTPServer) -> Iterator[None]:
    """Serve from a thread until the block ends."""
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def missing(package: str) -> None:
    message = f"{package} is missing; pip install {package}"
    pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)


# --- protobuf, as much of it as an AgentPayload needs (protocol I.1; Datadog's agent_payload.proto and below) ---

# A message is a table: field number -> (name, what it holds). A list of one means "repeated", a table is a message,
# a dict with the only key "map" is a map whose values are of that kind.
_ATTRIBUTES = {"map": "text"}
_LINK = {
    1: ("trace_id", "uint"),
    2: ("trace_id_high", "uint"),
    3: ("span_id", "uint"),
    4: ("attributes", _ATTRIBUTES),
    5: ("tracestate", "text"),
    6: ("flags", "uint"),
}
_SPAN = {
    1: ("service", "text"),
    2: ("name", "text"),
    3: ("resource", "text"),
    4: ("trace_id", "uint"),
    5: ("span_id", "uint"),
    6: ("parent_id", "uint"),
    7: ("start", "int"),
    8: ("duration", "int"),
    9: ("error", "int"),
    10: ("meta", {"map": "text"}),
    11: ("metrics", {"map": "double"}),
    12: ("type", "text"),
    14: ("span_links", [_LINK]),
}
_CHUNK = {
    1: ("priority", "int"),
    2: ("origin", "text"),
    3: ("spans", [_SPAN]),
    4: ("tags", {"map": "text"}),
    5: ("dropped_trace", "uint"),
}
_TRACER_PAYLOAD = {
    1: ("container_id", "text"),
    2: ("language_name", "text"),
    3: ("language_version", "text"),
    4: ("tracer_version", "text"),
    5: ("runtime_id", "text"),
    6: ("chunks", [_CHUNK]),
    7: ("tags", {"map": "text"}),
    8: ("env", "text"),
    9: ("hostname", "text"),
    10: ("app_version", "text"),
}
AGENT_PAYLOAD = {1: ("hostname", "text"), 2: ("env", "text"), 5: ("tracer_payloads", [_TRACER_PAYLOAD])}
_EMPTY: dict[Any, Any] = {"text": "", "uint": 0, "int": 0, "double": 0.0}


def read_protobuf(data: bytes, table: dict[int, tuple[str, Any]]) -> dict[str, Any]:
    """Read one message; fields that `table` does not name are passed over."""
    found = {
        name: [] if isinstance(kind, list) else {} if "map" in kind else _EMPTY[kind] for name, kind in table.values()
    }
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        wire = key & 7
        if wire == 0:
            value, at = _varint(data, at)
        else:
            size, at = _varint(data, at) if wire == 2 else ({1: 8, 5: 4}[wire], at)
            value, at = data[at : at + size], at + size
        if key >> 3 not in table:
            continue
        name, kind = table[key >> 3]
        if isinstance(kind, list):
            found[name].append(read_protobuf(value, kind[0]))
        elif isinstance(kind, dict):
            entry = read_protobuf(value, {1: ("key", "text"), 2: ("value", kind["map"])})
            found[name][entry["key"]] = entry["value"]
        else:
            found[name] = _scalar(value, kind)
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def _scalar(value: Any, kind: str) -> Any:
    if kind == "text":
        return value.decode()  # protobuf's text is valid UTF-8, or the agent is broken
    if kind == "double":
        return struct.unpack("<d", value)[0]
    return value - (1 << 64) if kind == "int" and value >> 63 else value


# --- receivers that fail: a script per connection ---


class Faulty:
    """A receiver on a port of its own; `script(receiver, connection)` does with each connection what it likes.

    Given a path, it is on a unix socket there, whose file is gone while it does not run.
    """

    def __init__(self, script: Callable[[Faulty, socket.socket], None], path: Path | None = None) -> None:
        self.port = servers.free_port()
        self.url = f"unix://{path}" if path else f"http://{HOST}:{self.port}"
        self._path = path
        self.accepted: list[Span] = []
        self.requests: list[list[Span]] = []
        self._script = script
        self._lock = Lock()
        self._open: list[socket.socket] = []

    def start(self) -> None:
        if self._path:
            self._listener = socket.create_server(str(self._path), family=socket.AF_UNIX)
        else:
            self._listener = socket.create_server((HOST, self.port))  # with SO_REUSEADDR: may come back at once
        Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def stop(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self._listener.close()
        if self._path:
            self._path.unlink(missing_ok=True)
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self._open.clear()

    def take(self, connection: socket.socket) -> list[Span] | None:
        """Read one request and note its spans; None at the end of the connection. It has no /info."""
        data = b""
        while b"\r\n\r\n" not in data:
            if not (received := connection.recv(65536)):
                return None
            data += received
        head, _, body = data.partition(b"\r\n\r\n")
        if head.startswith(b"GET"):
            connection.sendall(reply(404))
            return self.take(connection)
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        while len(body) < length:
            if not (received := connection.recv(65536)):
                return None
            body += received
        spans = [span for chunk in msgspec.msgpack.decode(body) for span in chunk]
        with self._lock:
            self.requests.append(spans)
        return spans

    def accept(self, spans: list[Span]) -> None:
        with self._lock:
            self.accepted += spans

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with self._lock:
                    self._open.append(connection)
                Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            self._script(self, connection)


def reply(status: int, body: bytes = b'{"rate_by_service":{}}') -> bytes:
    return b"HTTP/1.1 %d whatever\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


def answers(*statuses: int, body: bytes = b'{"rate_by_service":{}}') -> Callable[[Faulty, socket.socket], None]:
    """Answer the first request with the first status and so on, all further ones with the last."""

    def script(receiver: Faulty, connection: socket.socket) -> None:
        while (spans := receiver.take(connection)) is not None:
            status = statuses[min(len(receiver.requests), len(statuses)) - 1]
            if 200 <= status < 300:
                receiver.accept(spans)
            connection.sendall(reply(status, body))

    return script


def takes_at_most(spans: int) -> Callable[[Faulty, socket.socket], None]:
    """Answer 413 to more spans than that in one request."""

    def script(receiver: Faulty, connection: socket.socket) -> None:
        while (received := receiver.take(connection)) is not None:
            fits = len(received) <= spans
            if fits:
                receiver.accept(received)
            connection.sendall(reply(200 if fits else 413))

    return script


def never_answers(receiver: Faulty, connection: socket.socket) -> None:
    while connection.recv(65536):
        pass


def resets(receiver: Faulty, connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def drips(receiver: Faulty, connection: socket.socket) -> None:
    receiver.take(connection)
    for byte in reply(200):
        connection.sendall(bytes([byte]))
        time.sleep(1)


def slow(receiver: Faulty, connection: socket.socket) -> None:
    while (spans := receiver.take(connection)) is not None:
        time.sleep(0.4)
        receiver.accept(spans)
        connection.sendall(reply(200))


def speaks_gibberish(receiver: Faulty, connection: socket.socket) -> None:
    receiver.take(connection)
    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
