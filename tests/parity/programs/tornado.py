# /// script
# dependencies = ["tornado==6.6.1"]
# [tool.parity]
# variables = { DD_TRACE_TORNADO_ENABLED = "1" }
# ///
"""Tornado's server; ddtrace traces it only where it is asked to."""

from __future__ import annotations

import asyncio

from _http import HOST, ask, free_port, shake
from tornado import web, websocket


class Show(web.RequestHandler):
    async def get(self, item: str) -> None:
        self.write("ok")

    def post(self, item: str) -> None:
        self.write("ok")


class Broken(web.RequestHandler):
    async def get(self) -> None:
        raise ValueError("a fault of the handler")


class Refused(web.RequestHandler):
    def get(self, code: str) -> None:
        raise web.HTTPError(int(code))


class Returned(web.RequestHandler):
    def get(self, code: str) -> None:
        self.set_status(int(code))


class Moved(web.RequestHandler):
    def get(self) -> None:
        self.redirect("/items/1")


class Stream(web.RequestHandler):
    async def get(self) -> None:
        for _ in range(3):
            self.write("123")
            await self.flush()


class Chat(websocket.WebSocketHandler):
    def open(self, room: str) -> None:
        self.close()


REQUESTS = (
    "GET /items/3",
    "GET /items/3?token=abc&q=1",
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
    "GET /nowhere/3",
)


async def main() -> None:
    app = web.Application(
        [
            (r"/items/(\d+)", Show),
            ("/broken", Broken),
            (r"/refused/(\d+)", Refused),
            (r"/returned/(\d+)", Returned),
            ("/moved", Moved),
            ("/stream", Stream),
            (r"/rooms/(\d+)", Chat),
        ]
    )
    port = free_port()
    server = app.listen(port, HOST)
    for request in REQUESTS:
        print(request, await asyncio.to_thread(ask, port, *request.split(" ")))
    print("websocket", await asyncio.to_thread(shake, port, "/rooms/3"))
    server.stop()
    await server.close_all_connections()


asyncio.run(main())
