"""A receiver of Datadog's formats and of OTLP that counts spans, and fails in one of many ways."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

_LARGEST = 8 << 10  # bytes that a receiver takes that answers 413


class Receiver(ThreadingHTTPServer):
    """Counts what it takes."""

    daemon_threads = True

    def __init__(self, kind: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.kind = kind
        self.received = self.requests = 0
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Leave clients that hang up unmentioned."""

    def process_request(self, request: Any, client_address: Any) -> None:
        """Hang up on every connection, or keep it and say nothing, if that is how this one fails."""
        if self.kind == "resets":
            request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            request.close()
        elif self.kind == "black hole":
            self.kept = [*getattr(self, "kept", ()), request]
        else:
            super().process_request(request, client_address)

    def answer(self, body: bytes) -> int:
        """Answer the status for one payload, and count its spans if that is 200."""
        self.requests += 1
        status = int(self.kind) if self.kind.isdigit() else 200
        if self.kind == "413":
            status = 413 if len(body) > _LARGEST else 200
        if self.kind == "every second 503":
            status = 503 if self.requests % 2 else 200
        return status


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Receiver

    def do_POST(self) -> None:
        body = self._body()
        if "traces" not in self.path:
            self._answer(200, b"{}")
            return
        status = self.server.answer(body)
        if status == 200:
            self.server.received += _spans(self.path, body)
        self._answer(status, b"\xff{junk" if "junk" in self.server.kind else b"{}")

    do_PUT = do_POST

    def do_GET(self) -> None:
        self._answer(404, b"")

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def _spans(path: str, body: bytes) -> int:
    """Count the spans of a payload: v0.4, v0.5, or OTLP/protobuf."""
    if path.startswith("/v1/traces"):
        return sum(
            1
            for resource in _fields(body, 1)
            for scope in _fields(resource, 2)
            for _ in _fields(scope, 2)
        )  # fmt: skip
    payload = msgspec.msgpack.decode(body)
    return sum(map(len, payload[1] if path.startswith("/v0.5") else payload))


def _fields(message: bytes, wanted: int) -> Iterator[bytes]:
    """Yield the length-delimited fields `wanted` of a protobuf message."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        if tag & 7 == 2:
            length, at = _varint(message, at)
            if tag >> 3 == wanted:
                yield message[at : at + length]
            at += length
        elif tag & 7 == 0:
            _, at = _varint(message, at)
        else:
            at += 8 if tag & 7 == 1 else 4


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


@contextmanager
def started(kind: str) -> Iterator[Receiver]:
    """Run a receiver of one kind."""
    server = Receiver(kind)
    if kind == "refuses":
        server.server_close()
        yield server
        return
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
