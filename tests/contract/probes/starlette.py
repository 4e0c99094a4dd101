from __future__ import annotations

from typing import Any

from tests.asgi import connection, serve
from tests.contract.probes import Probe


class Starlette(Probe):
    def open(self, server: Any) -> Any:
        from starlette.applications import Starlette
        from starlette.responses import PlainTextResponse
        from starlette.routing import Route

        async def show(request: Any) -> Any:
            await request.body()
            return PlainTextResponse("ok")

        async def broken(request: Any) -> Any:
            raise request.app.state.error

        return Starlette(routes=[Route("/items/{item}", show), Route("/broken", broken)])

    def operate(self, app: Any) -> Any:
        return serve(app, connection("/items/7"))

    def fail(self, app: Any, error: Exception) -> None:
        app.state.error = error
        serve(app, connection("/broken"))
