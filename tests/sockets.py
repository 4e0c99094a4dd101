"""An HTTP client on a bare socket, which nothing instruments."""

from __future__ import annotations

import socket

HOST = "127.0.0.1"


def ask(port: int, method: str, path: str, *headers: str, body: bytes = b"") -> tuple[int, bytes]:
    """Send one request and read the whole answer; return its status code and body."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {HOST}:{port}", "Connection: close", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    with socket.create_connection((HOST, port), timeout=60) as connection:
        connection.sendall("\r\n".join([*lines, "\r\n"]).encode() + body)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    head, _, content = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1]), content


def shake(port: int, path: str) -> int:
    """Ask for a websocket and leave at once; return the status code."""
    lines = [f"GET {path} HTTP/1.1", f"Host: {HOST}:{port}", "Connection: Upgrade", "Upgrade: websocket"]
    lines += ["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "\r\n"]
    with socket.create_connection((HOST, port), timeout=60) as connection:
        connection.sendall("\r\n".join(lines).encode())
        return int(connection.recv(65536).split(b" ", 2)[1])


def leave(port: int, path: str) -> None:
    """Send a request, read the first bytes of the answer, and go away without a word."""
    with socket.create_connection((HOST, port), timeout=60) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {HOST}:{port}\r\n\r\n".encode())
        connection.recv(1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
