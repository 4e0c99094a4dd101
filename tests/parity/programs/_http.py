"""An HTTP client on a bare socket, which no tracer knows, and a free port."""

from __future__ import annotations

import socket
import time
from contextlib import suppress

HOST = "127.0.0.1"


def free_port() -> int:
    """Answer a TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def wait_for(port: int) -> None:
    """Wait until something listens on `port`."""
    for _ in range(600):
        with suppress(OSError), socket.create_connection((HOST, port)):
            return
        time.sleep(0.05)
    raise SystemExit(f"nobody listens on {port}")


def ask(port: int, method: str, path: str, *headers: str) -> str:
    """Send one request and read the whole answer; return its status line's code."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {HOST}:{port}", "User-Agent: parity", "Connection: close", *headers]
    with socket.create_connection((HOST, port), timeout=60) as connection:
        connection.sendall("\r\n".join([*lines, "\r\n"]).encode())
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    return answer.split(b" ", 2)[1].decode() if answer else "no answer"


def shake(port: int, path: str) -> str:
    """Ask for a websocket, leave at once; return the status line's code."""
    lines = [f"GET {path} HTTP/1.1", f"Host: {HOST}:{port}", "Connection: Upgrade", "Upgrade: websocket"]
    lines += ["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "\r\n"]
    with socket.create_connection((HOST, port), timeout=60) as connection:
        connection.sendall("\r\n".join(lines).encode())
        return connection.recv(65536).split(b" ", 2)[1].decode()
