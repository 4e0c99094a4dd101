from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from tests.contract.probes import Probe

if TYPE_CHECKING:
    from collections.abc import Mapping


class AiohttpClient(Probe):
    def open(self, server: Any) -> Any:
        import aiohttp

        received: list[str] = []

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            received[:] = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
            await writer.drain()
            writer.close()

        class Connector(aiohttp.TCPConnector):
            error: Exception | None = None

            async def connect(self, *args: Any, **kwargs: Any) -> Any:
                if self.error is not None:
                    raise self.error
                return await super().connect(*args, **kwargs)

        async def start() -> Any:
            listening = await asyncio.start_server(answer, "127.0.0.1", 0)
            return listening, aiohttp.ClientSession(connector=Connector())

        loop = asyncio.new_event_loop()
        return loop, *loop.run_until_complete(start()), received

    def close(self, target: Any) -> None:
        loop, listening, session, _ = target

        async def stop() -> None:
            await session.close()
            listening.close()
            await listening.wait_closed()

        loop.run_until_complete(stop())
        loop.close()

    def operate(self, target: Any) -> Any:
        loop, listening, session, _ = target
        port = listening.sockets[0].getsockname()[1]

        async def fetch() -> Any:
            async with session.get(f"http://127.0.0.1:{port}/items/7") as response:
                return type(response).__name__, response.status, dict(response.headers), await response.text()

        return loop.run_until_complete(fetch())

    def fail(self, target: Any, error: Exception) -> None:
        target[2].connector.error = error
        self.operate(target)

    def sent(self, target: Any) -> Mapping[str, str]:
        lines = (line.partition(": ") for line in target[3][1:])
        return {name.lower(): value for name, _, value in lines if name}
