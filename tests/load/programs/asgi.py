"""The generic middleware around an application without a framework."""

from __future__ import annotations

import asyncio
from typing import Any

from spanbridge.instrumentors.asgi import OpenTelemetryMiddleware
from tests.load.programs import CHUNK, CHUNKS, serve, work


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    _, kind, number = scope["path"].split("/")
    with work(int(number)) as text:
        await asyncio.sleep(0.01)
        if kind == "fails":
            raise ValueError(text.strip())
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        for _ in range(CHUNKS if kind == "stream" else 0):
            await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
        await send({"type": "http.response.body", "body": text.encode()})


if __name__ == "__main__":
    serve(OpenTelemetryMiddleware(app))
