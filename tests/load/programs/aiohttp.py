from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from tests.load.programs import CHUNK, CHUNKS, PORT, work
from tests.servers import HOST


async def ok(request: Any) -> Any:
    with work(int(request.match_info["number"])) as text:
        await asyncio.sleep(0.01)
        return web.Response(text=text)


async def fails(request: Any) -> Any:
    with work(int(request.match_info["number"])) as text:
        await asyncio.sleep(0.01)
        raise ValueError(text.strip())


async def stream(request: Any) -> Any:
    with work(int(request.match_info["number"])):
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(CHUNKS):
            await response.write(CHUNK)
        return response


app = web.Application()
app.router.add_get("/ok/{number}", ok)
app.router.add_get("/fails/{number}", fails)
inner = web.Application()
inner.router.add_get("/{number}", stream)
app.add_subapp("/stream", inner)

if __name__ == "__main__":
    web.run_app(app, host=HOST, port=PORT, print=lambda *_: None, access_log=None, backlog=512)
