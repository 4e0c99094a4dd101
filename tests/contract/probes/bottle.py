from __future__ import annotations

from typing import Any

from tests.contract.probes import Probe


class Bottle(Probe):
    def open(self, server: Any) -> Any:
        import bottle

        app = bottle.Bottle()
        app.catchall = False

        @app.route("/items/<item:int>")
        def show(item: int) -> str:
            return f"item {item}"

        @app.route("/broken")
        def broken() -> None:
            raise app.error

        return app

    def operate(self, app: Any) -> Any:
        return self._visit(app, "/items/7")

    def fail(self, app: Any, error: Exception) -> None:
        app.error = error
        self._visit(app, "/broken")

    def _visit(self, app: Any, path: str) -> Any:
        from wsgiref.util import setup_testing_defaults

        environ, answer = {"PATH_INFO": path}, []
        setup_testing_defaults(environ)
        body = app(environ, lambda status, headers, exc_info=None: answer.append((status, headers)))
        return type(body), list(body), answer
