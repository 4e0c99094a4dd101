"""The program that is run under ddtrace and under spanbridge: every route is one way of using the four libraries.

It knows no tracer. Variables: PORT, PEER_PORT (a second copy of this program), REDIS_PORT, DATABASE (a file's path).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import sys
import time
from typing import TYPE_CHECKING

import redis
import redis.asyncio
import requests
from flask import Blueprint, Flask, Response, abort, jsonify, redirect, request, stream_with_context
from flask.views import MethodView
from werkzeug.serving import make_server

if TYPE_CHECKING:
    from collections.abc import Iterator

PEER = f"http://127.0.0.1:{os.environ['PEER_PORT']}"
app = Flask(__name__)
cache = redis.Redis(port=int(os.environ["REDIS_PORT"]))


def database() -> sqlite3.Connection:
    return sqlite3.connect(os.environ["DATABASE"])


# --- flask: rules, methods, errors, bodies


@app.route("/")
def index() -> str:
    return "ok"


@app.route("/items/<int:item_id>")
def item(item_id: int) -> Response:
    return jsonify(id=item_id, page=request.args.get("page"))


@app.route("/files/<path:name>", methods=["GET", "PUT", "DELETE"])
def file(name: str) -> tuple[str, int]:
    return name, 201 if request.method == "PUT" else 200


@app.route("/folder/")
def folder() -> str:
    return "a rule that ends in a slash"


@app.route("/abort/<int:code>")
def aborting(code: int) -> None:
    abort(code)


@app.route("/returns/<int:code>")
def returning(code: int) -> tuple[str, int]:
    return "body", code


@app.route("/raises")
def raising() -> None:
    raise ValueError("a fault of the view")


class Handled(Exception):
    pass


@app.errorhandler(Handled)
def handle(error: Handled) -> tuple[str, int]:
    return str(error), 422


@app.route("/raises/handled")
def raising_handled() -> None:
    raise Handled("answered by an error handler")


@app.route("/redirect")
def redirecting() -> Response:
    return redirect("/items/9")  # type: ignore[return-value]


@app.route("/redirect/twice")
def redirecting_twice() -> Response:
    return redirect("/redirect")  # type: ignore[return-value]


@app.route("/stream")
def streaming() -> Response:
    return Response(str(number) for number in range(5))


@app.route("/stream/context")
def streaming_with_context() -> Response:
    def rows() -> Iterator[str]:
        connection = database()
        for row in connection.execute("select b from t where a = 1"):
            yield str(row[0]) + request.path
        connection.close()

    return Response(stream_with_context(rows()))


@app.route("/slow")
def slow() -> str:
    time.sleep(0.3)
    return "late"


@app.before_request
def refuse() -> str | None:
    return "answered before the view" if request.path.endswith("/refused") else None


@app.route("/before/refused")
def refused() -> str:
    return "never"


class Thing(MethodView):
    def get(self, name: str) -> str:
        return name

    def post(self, name: str) -> tuple[str, int]:
        return name, 201


inner = Blueprint("inner", __name__)
inner.add_url_rule("/things/<name>", view_func=Thing.as_view("thing"))
outer = Blueprint("outer", __name__, url_prefix="/v1")
outer.register_blueprint(inner, url_prefix="/inner")
app.register_blueprint(outer)


# --- sqlite3


@app.route("/sql")
def statements() -> str:
    connection = database()
    cursor = connection.cursor()
    cursor.execute("insert into t values (1, 'secret')")
    connection.commit()
    cursor.executemany("insert into t values (?, ?)", [(1, "a"), (2, "b")])
    connection.rollback()
    connection.execute("select * from t where a = ? and b = 'x'", (1,)).fetchall()
    cursor.execute("SELECT *\n  FROM t -- a comment\n WHERE a IN (1, 2, 3)").fetchone()
    cursor.execute("with x as (select 1) select * from x")
    cursor.execute("pragma table_info(t)")
    cursor.execute("update t set b = 'y' where a > 0.5")
    cursor.execute("delete from t where a = 77")
    connection.close()
    return "ok"


@app.route("/sql/with")
def statements_in_block() -> str:
    connection = database()
    with connection:
        connection.execute("insert into t values (3, 'x')")
    with contextlib.suppress(ZeroDivisionError), connection:
        connection.execute("insert into t values (4, 'x')")
        raise ZeroDivisionError
    connection.close()
    return "ok"


@app.route("/sql/faults")
def faulty_statements() -> str:
    connection = database()
    for statement in ("select * from nowhere", "this is not SQL", ""):
        with contextlib.suppress(sqlite3.Error):
            connection.execute(statement)
    with contextlib.suppress(sqlite3.Error):
        connection.cursor().execute("select ?", (1, 2))
    connection.close()
    with contextlib.suppress(sqlite3.Error):
        connection.execute("delete from closed")
    return "ok"


@app.route("/sql/untraced")
def statements_ddtrace_misses() -> str:
    connection = database()
    connection.executemany("insert into t(b) values (?)", [("m",), ("n",)])
    connection.cursor().executescript("create view v as select 1; drop view v;")
    connection.executescript("create view v as select 2; drop view v;")
    connection.commit()
    connection.close()
    return "ok"


@app.route("/sql/factories")
def statements_of_factories() -> str:
    class Connection(sqlite3.Connection):
        pass

    connection = sqlite3.connect(os.environ["DATABASE"], factory=Connection)
    connection.row_factory = sqlite3.Row
    connection.execute("select count(*) as n from t").fetchone()["n"]
    target = sqlite3.connect(":memory:")
    connection.backup(target)
    target.execute("select 1")
    connection.close()
    return "ok"


# --- redis


@app.route("/redis")
def commands() -> str:
    cache.set("k", "v")
    cache.get("k")
    cache.get("no such key")
    cache.mget("k", "b")
    cache.lpush("l", b"\xff\x00", "x" * 200)
    cache.delete("l")
    cache.config_get("maxmemory")
    cache.eval("return 1", 0)
    list(cache.scan_iter(match="k*"))
    with cache.lock("lock", timeout=1):
        pass
    with contextlib.suppress(redis.ResponseError):
        cache.execute_command("NOSUCH", 1)
    with contextlib.suppress(redis.RedisError):
        redis.Redis(port=1).ping()
    return "ok"


@app.route("/redis/pipeline")
def pipelines() -> str:
    pipeline = cache.pipeline()
    pipeline.set("a", 1)
    pipeline.get("a")
    pipeline.execute()
    with cache.pipeline(transaction=False) as pipeline:
        pipeline.incr("a").incr("a").execute()
    cache.pipeline().execute()
    with contextlib.suppress(redis.ResponseError):
        cache.pipeline().set("a", "text").incr("a").execute()
    return "ok"


@app.route("/redis/watch")
def watched() -> str:
    with cache.pipeline() as pipeline:
        pipeline.watch("k")
        pipeline.get("k")
        pipeline.multi()
        pipeline.set("k", "w")
        pipeline.execute()
    with cache.pipeline() as pipeline, contextlib.suppress(redis.WatchError):
        pipeline.watch("k")
        cache.set("k", "taken")
        pipeline.multi()
        pipeline.set("k", "lost")
        pipeline.execute()
    return "ok"


@app.route("/redis/asyncio")
def asynchronous_commands() -> str:
    async def work() -> None:
        client = redis.asyncio.Redis(port=int(os.environ["REDIS_PORT"]))
        await client.set("k", "v")
        await client.get("k")
        async with client.pipeline() as pipeline:
            await pipeline.set("a", 1).get("a").execute()
        with contextlib.suppress(redis.ResponseError):
            await client.execute_command("NOSUCH", 1)
        await client.aclose()

    asyncio.run(work())
    return "ok"


# --- requests


@app.route("/call")
def calls() -> str:
    with requests.Session() as session:
        session.get(f"{PEER}/items/3", params={"page": 1, "password": "hunter2"})
        session.post(f"{PEER}/nowhere", json={"a": 1})
        session.head(f"{PEER}/items/3")
        session.put(f"{PEER}/files/a/b.txt", data="x")
        session.options(f"{PEER}/items/3")
    requests.get(f"{PEER}/raises")
    requests.get(f"{PEER}/abort/503")
    requests.get(f"{PEER}/returns/404")
    requests.get(f"{PEER}/sql")
    requests.get(f"{PEER}/redis/pipeline")
    for _ in requests.get(f"{PEER}/stream", stream=True).iter_content(2):
        pass
    with contextlib.suppress(requests.HTTPError):
        requests.get(f"{PEER}/returns/500").raise_for_status()
    return "ok"


@app.route("/call/faults")
def faulty_calls() -> str:
    for url in ("http://127.0.0.1:1/x", "http://", "nonsense://host/"):
        with contextlib.suppress(requests.RequestException):
            requests.get(url)
    with contextlib.suppress(requests.RequestException):
        requests.get(f"{PEER}/slow", timeout=(5, 0.05))
    return "ok"


@app.route("/call/redirects")
def redirected_calls() -> str:
    requests.get(f"{PEER}/redirect")
    requests.get(f"{PEER}/redirect/twice")
    requests.get(f"{PEER}/redirect", allow_redirects=False)
    return "ok"


@app.route("/call/deep")
def deep_call() -> str:
    """The peer's peer is this program: three services' worth of hops in one trace."""
    return requests.get(f"{PEER}/call/back").text


@app.route("/call/back")
def call_back() -> str:
    database().execute("select 'between the hops'")
    return requests.get(f"{PEER}/redis").text


def main() -> None:
    connection = database()
    connection.execute("create table if not exists t(a int, b text)")
    connection.commit()
    connection.close()
    cache.delete("k", "a", "b", "l")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    make_server("127.0.0.1", int(os.environ["PORT"]), app, threaded=True).serve_forever()


if __name__ == "__main__":
    main()
