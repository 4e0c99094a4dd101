from __future__ import annotations

import asyncio
from typing import Any

from tests.contract.probes import Probe


class Aiopg(Probe):
    server = "postgres_server"

    def open(self, server: Any) -> Any:
        import aiopg

        loop = asyncio.new_event_loop()

        async def connect() -> Any:
            return await aiopg.connect(host=server.host, port=server.port, user="postgres", dbname="postgres")

        return loop, loop.run_until_complete(connect())

    def close(self, target: Any) -> None:
        loop, connection = target
        loop.run_until_complete(asyncio.wait_for(self._close(connection), 10))
        loop.close()

    async def _close(self, connection: Any) -> None:
        await connection.close()

    def operate(self, target: Any) -> Any:
        loop, connection = target

        async def work() -> Any:
            async with connection.cursor() as cursor:
                returned = await cursor.execute("SELECT 'x', %s", (7,))
                return returned, await cursor.fetchall(), type(cursor), cursor.connection is connection

        return loop.run_until_complete(work())

    def fail(self, target: Any, error: Exception) -> None:
        loop, connection = target

        class Hostile:
            def __conform__(self, protocol: Any) -> None:
                raise error

        async def work() -> None:
            async with connection.cursor() as cursor:
                await cursor.execute("SELECT %s", (Hostile(),))

        loop.run_until_complete(work())
