from __future__ import annotations

from typing import Any

from tests.asgi import connection, serve
from tests.contract.probes import Probe


class Falcon(Probe):
    def open(self, server: Any) -> Any:
        import falcon
        import falcon.asgi

        state: dict[str, Exception] = {}

        class Item:
            async def on_get(self, request: Any, response: Any, item: str) -> None:
                response.status = falcon.HTTP_200

        class Broken:
            async def on_get(self, request: Any, response: Any) -> None:
                raise state["error"]

        async def passing(request: Any, response: Any, error: Exception, parameters: Any) -> None:
            raise error

        app = falcon.asgi.App()
        app.add_error_handler(ValueError, passing)
        app.add_route("/items/{item}", Item())
        app.add_route("/broken", Broken())
        return app, state

    def operate(self, target: Any) -> Any:
        return serve(target[0], connection("/items/7"))

    def fail(self, target: Any, error: Exception) -> None:
        target[1]["error"] = error
        serve(target[0], connection("/broken"))
