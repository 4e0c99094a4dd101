from __future__ import annotations

from typing import Any

from tests.contract.probes import Probe


class Flask(Probe):
    def open(self, server: Any) -> Any:
        import flask

        app = flask.Flask("shop")
        app.config["PROPAGATE_EXCEPTIONS"] = True

        @app.get("/items/<int:item>")
        def show(item: int) -> str:
            return f"item {item}"

        @app.get("/broken")
        def broken() -> str:
            raise app.config["ERROR"]

        return app

    def operate(self, app: Any) -> Any:
        response = app.test_client().get("/items/7")
        return type(response).__name__, response.status_code, response.data, response.headers.to_wsgi_list()

    def fail(self, app: Any, error: Exception) -> None:
        app.config["ERROR"] = error
        app.test_client().get("/broken")
