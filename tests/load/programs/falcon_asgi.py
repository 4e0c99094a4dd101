from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import falcon.asgi

from tests.load.programs import CHUNK, CHUNKS, serve, work

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Ok:
    async def on_get(self, request: Any, response: Any, number: int) -> None:
        with work(number) as text:
            await asyncio.sleep(0.01)
            response.text = text


class Fails:
    async def on_get(self, request: Any, response: Any, number: int) -> None:
        with work(number) as text:
            await asyncio.sleep(0.01)
            raise ValueError(text.strip())


class Stream:
    async def on_get(self, request: Any, response: Any, number: int) -> None:
        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(CHUNKS):
                yield CHUNK
                await asyncio.sleep(0)

        with work(number):
            response.stream = chunks()


app = falcon.asgi.App()
for name, resource in {"ok": Ok(), "fails": Fails(), "stream": Stream()}.items():
    app.add_route(f"/{name}/{{number:int}}", resource)

if __name__ == "__main__":
    serve(app)
