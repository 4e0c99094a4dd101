from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route

from tests.load.programs import CHUNK, CHUNKS, serve, work

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def ok(request: Any) -> Any:
    with work(request.path_params["number"]) as text:
        await asyncio.sleep(0.01)
        return PlainTextResponse(text)


async def fails(request: Any) -> Any:
    with work(request.path_params["number"]) as text:
        await asyncio.sleep(0.01)
        raise ValueError(text.strip())


async def stream(request: Any) -> Any:
    with work(request.path_params["number"]):

        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(CHUNKS):
                yield CHUNK
                await asyncio.sleep(0)

        return StreamingResponse(chunks())


app = Starlette(
    routes=[
        Route("/ok/{number:int}", ok),
        Mount("/", routes=[Route("/fails/{number:int}", fails), Route("/stream/{number:int}", stream)]),
    ]
)

if __name__ == "__main__":
    serve(app)
