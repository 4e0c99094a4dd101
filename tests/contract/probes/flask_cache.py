from __future__ import annotations

from typing import Any
from unittest import mock

from tests.contract.probes import Probe


class FlaskCache(Probe):
    def open(self, server: Any) -> Any:
        import flask
        from flask_caching import Cache

        app = flask.Flask("contract")
        return app, Cache(app, config={"CACHE_TYPE": "SimpleCache"})

    def operate(self, target: Any) -> Any:
        app, cache = target
        with app.app_context():
            return cache.get("missing"), cache.set("k", "v"), cache.get("k")

    def fail(self, target: Any, error: Exception) -> None:
        app, cache = target
        with app.app_context(), mock.patch.object(cache.cache, "get", side_effect=error):
            cache.get("k")
