# /// script
# dependencies = ["flask-caching==2.5.1", "flask", "redis", "pylibmc"]
# [tool.parity]
# servers = ["redis"]
# [[tool.parity.differences]]
# reason = "the end of an application context is no operation"
# side = "ddtrace"
# pattern = "flask.do_teardown_appcontext"
# [[tool.parity.differences]]
# reason = "spans say that they are no calls of another service"
# side = "spanbridge"
# pattern = "(flask_cache.cmd .*\\| cache \\|) internal"
# replacement = "\\1 -"
# ///
"""Every call of Flask-Caching's cache, over Redis and in memory; ddtrace has to be asked for its own class."""

from __future__ import annotations

import os
from importlib.util import find_spec

import flask
import flask_caching

Cache = flask_caching.Cache
if find_spec("ddtrace"):
    from ddtrace.contrib.flask_cache import get_traced_cache

    Cache = get_traced_cache()

app = flask.Flask(__name__)
for config in (
    {"CACHE_TYPE": "SimpleCache"},
    {"CACHE_TYPE": "RedisCache", "CACHE_REDIS_HOST": "127.0.0.1", "CACHE_REDIS_PORT": int(os.environ["REDIS_PORT"])},
):
    cache = Cache(app, config=config)
    with app.app_context():
        cache.clear()
        print(cache.set("a", 1), cache.get("a"), cache.get("missing"), cache.add("b", 2), cache.delete("b"))
        print(cache.set_many({"c": 3, "d": 4}), cache.get_many("c", "d", "missing"), cache.delete_many("c", "d"))

        @cache.memoize(60)
        def double(number: int) -> int:
            return 2 * number

        @cache.cached(60, key_prefix="items")
        def items() -> list[int]:
            return [1, 2]

        print(double(2), double(2), items(), items())
