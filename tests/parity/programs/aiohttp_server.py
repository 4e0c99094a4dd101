# /// script
# dependencies = ["aiohttp==3.14.5"]
# [[tool.parity.differences]]
# reason = "a raised redirect, 404 or 405 is no error"
# side = "ddtrace"
# pattern = "server \\| ([34]\\d\\d) \\| ERROR"
# replacement = "server | \\1 | -"
# [[tool.parity.differences]]
# reason = "the service that trace_app is given"
# side = "ddtrace"
# pattern = "^aiohttp-web"
# replacement = "parity"
# ///
"""aiohttp's server; ddtrace traces it only where it is told to."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from _http import HOST, ask, free_port, shake
from aiohttp import web


async def show(request: Any) -> Any:
    return web.Response(text="ok")


async def broken(request: Any) -> Any:
    raise ValueError("a fault of the handler")


async def refused(request: Any) -> Any:
    raise {"404": web.HTTPNotFound, "401": web.HTTPUnauthorized, "503": web.HTTPServiceUnavailable}[
        request.match_info["code"]
    ]


async def returned(request: Any) -> Any:
    return web.Response(status=int(request.match_info["code"]))


async def moved(request: Any) -> Any:
    raise web.HTTPFound("/items/1")


async def stream(request: Any) -> Any:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"123")
    return response


async def chat(request: Any) -> Any:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    await socket.close()
    return socket


REQUESTS = (
    "GET /",
    "GET /?token=abc&q=1",
    "GET /items/3",
    "POST /items/3",
    "PUT /items/3",
    "HEAD /items/3",
    "OPTIONS /items/3",
    "GET /items/x",
    "GET /broken",
    "GET /refused/404",
    "GET /refused/401",
    "GET /refused/503",
    "GET /returned/404",
    "GET /returned/500",
    "GET /moved",
    "GET /stream",
    "GET /v1/users/3",
    "GET /v1/nowhere",
    "GET /nowhere/3",
)


async def main() -> None:
    app, inner = web.Application(), web.Application()
    app.router.add_get("/", show)
    app.router.add_get(r"/items/{item:\d+}", show)
    app.router.add_post(r"/items/{item:\d+}", show)
    app.router.add_get("/broken", broken)
    app.router.add_get("/refused/{code}", refused)
    app.router.add_get("/returned/{code}", returned)
    app.router.add_get("/moved", moved)
    app.router.add_get("/stream", stream)
    app.router.add_get("/rooms/{room}", chat)
    inner.router.add_get("/users/{user}", show)
    app.add_subapp("/v1", inner)
    if "ddtrace" in sys.modules:
        from ddtrace.contrib.aiohttp import trace_app
        from ddtrace.trace import tracer

        trace_app(app, tracer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, HOST, port).start()
    for request in REQUESTS:
        print(request, await asyncio.to_thread(ask, port, *request.split(" ")))
    print("websocket", await asyncio.to_thread(shake, port, "/rooms/3"))
    await runner.cleanup()


asyncio.run(main())
