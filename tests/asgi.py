"""An ASGI server of one connection, message by message; needs no framework's test client, whose versions differ."""

from __future__ import annotations

import asyncio
from typing import Any

START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}
LAST = {"type": "http.response.body", "body": b"ok"}
CONNECT, DISCONNECT = {"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1000}
ACCEPT, CLOSE = {"type": "websocket.accept"}, {"type": "websocket.close"}


def connection(path: str = "/", **changes: Any) -> dict[str, Any]:
    """Make the scope of an HTTP request."""
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "query_string": b"",
        "headers": [(b"host", b"shop.example:8080")],
        "client": ("10.0.0.7", 4711),
        "server": ("127.0.0.1", 8000),
        **changes,
    }


def websocket(path: str = "/") -> dict[str, Any]:
    """Make the scope of a websocket."""
    scope = connection(path, type="websocket", scheme="ws")
    del scope["method"]
    return scope


def serve(app: Any, scope: dict[str, Any] | None = None, *incoming: dict[str, Any]) -> list[Any]:
    """Let `app` answer one connection; answer the messages that it sent."""
    messages = list(incoming or ({"type": "http.request", "body": b"", "more_body": False},))
    sent = []

    async def receive() -> dict[str, Any]:
        if not messages:
            await asyncio.Event().wait()  # the client stays, and says no more
        return messages.pop(0)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(app(scope or connection(), receive, send))
    return sent
