"""Requests to a WSGI application, without a server; shared by the programs of its frameworks."""

from __future__ import annotations

import io
from typing import Any
from urllib.parse import unquote_to_bytes
from wsgiref.util import setup_testing_defaults


def send(app: Any, requests: str) -> None:
    """Send requests, one `METHOD /path` a line, and print what comes back."""
    for line in requests.strip().splitlines():
        method, target = line.split()
        path, _, query = target.partition("?")
        environ: dict[str, Any] = {
            "REQUEST_METHOD": method,
            "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
            "QUERY_STRING": query,
            "HTTP_HOST": "shop.example",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "wsgi.errors": io.StringIO(),
        }
        setup_testing_defaults(environ)
        answer: list[str] = []

        def start_response(status: str, headers: Any, exc_info: Any = None, answer: list[str] = answer) -> Any:
            answer[:] = [status]
            return lambda chunk: None

        try:
            body = app(environ, start_response)
            text = b"".join(body)
            if hasattr(body, "close"):
                body.close()
            print(line, *answer, text if answer[0].startswith("200") else "")
        except Exception as error:
            print(line, type(error).__name__, error)
