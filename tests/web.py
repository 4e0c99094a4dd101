"""Requests to WSGI applications, without a server."""

from __future__ import annotations

import io
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes
from wsgiref.util import setup_testing_defaults


class Answer(NamedTuple):
    """What a WSGI application has answered."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


def environ_of(path: str, method: str = "GET", **more: Any) -> dict[str, Any]:
    """Make the environ (PEP 3333) of a request; `path` may have a query."""
    path, _, query = path.partition("?")
    environ = {
        "REQUEST_METHOD": method,
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query,
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "shop.example:8080",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": io.StringIO(),
        **more,
    }
    setup_testing_defaults(environ)
    return environ


def visit(app: Any, path: str, method: str = "GET", **more: Any) -> Answer:
    """Send one request to an application as a server does; answer what it has answered."""
    started: list[tuple[str, list[tuple[str, str]]]] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        started.append((status, headers))
        return chunks.append

    chunks: list[bytes] = []
    body = app(environ_of(path, method, **more), start_response)
    try:
        chunks += body
    finally:
        if hasattr(body, "close"):
            body.close()
    status, headers = started[-1]
    return Answer(int(status[:3]), headers, b"".join(chunks))
