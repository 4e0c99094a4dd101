from __future__ import annotations

import asyncio
import logging

from tornado import web
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from tests.load.programs import CHUNK, CHUNKS, PORT, work
from tests.servers import HOST


class Ok(web.RequestHandler):
    async def get(self, number: str) -> None:
        with work(int(number)) as text:
            await asyncio.sleep(0.01)
            self.write(text)


class Fails(web.RequestHandler):
    async def get(self, number: str) -> None:
        with work(int(number)) as text:
            await asyncio.sleep(0.01)
            raise ValueError(text.strip())


class Stream(web.RequestHandler):
    async def get(self, number: str) -> None:
        with work(int(number)):
            for _ in range(CHUNKS):
                self.write(CHUNK)
                await self.flush()


async def main() -> None:
    for name in ("access", "application", "general"):
        logging.getLogger(f"tornado.{name}").disabled = True
    app = web.Application([(r"/ok/(\d+)", Ok), (r"/fails/(\d+)", Fails), (r"/stream/(\d+)", Stream)])
    HTTPServer(app).add_sockets(bind_sockets(PORT, HOST, backlog=512))
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
