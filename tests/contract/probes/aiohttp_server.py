from __future__ import annotations

import asyncio
import logging
from typing import Any

from tests.contract.probes import Probe
from tests.sockets import ask


class AiohttpServer(Probe):
    nested = False

    def open(self, server: Any) -> Any:
        from aiohttp import web

        seen: dict[str, Exception] = {}

        async def show(request: Any) -> Any:
            return web.Response(text="ok")

        async def broken(request: Any) -> Any:
            raise seen["error"]

        @web.middleware
        async def remember(request: Any, handler: Any) -> Any:
            try:
                return await handler(request)
            except ValueError as error:
                seen["raised"] = error
                raise

        async def start() -> Any:
            app = web.Application(middlewares=[remember])
            app.router.add_get("/items/{item}", show)
            app.router.add_get("/broken", broken)
            quiet = logging.getLogger("tests.aiohttp")
            quiet.disabled = True
            runner = web.AppRunner(app, access_log=None, logger=quiet)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            return runner

        loop = asyncio.new_event_loop()
        return loop, loop.run_until_complete(start()), seen

    def close(self, target: Any) -> None:
        loop, runner, _ = target
        loop.run_until_complete(runner.cleanup())
        loop.close()

    def operate(self, target: Any) -> Any:
        loop, runner, _ = target
        port = runner.addresses[0][1]
        return loop.run_until_complete(asyncio.to_thread(ask, port, "GET", "/items/7"))

    def fail(self, target: Any, error: Exception) -> None:
        loop, runner, seen = target
        seen["error"] = error
        port = runner.addresses[0][1]
        loop.run_until_complete(asyncio.to_thread(ask, port, "GET", "/broken"))
        raise seen["raised"]
