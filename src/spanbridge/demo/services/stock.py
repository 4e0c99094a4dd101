"""The demo's stock: levels in sqlite3, cached in Redis where REDIS_PORT says that there is one."""

import os
import signal
import sqlite3
import sys

from flask import Flask, Response, jsonify, request

DATABASE = os.environ["STOCK_DATABASE"]
LEVELS = [(1, 12), (2, 140), (3, 0)]

app = Flask(__name__)
cache = None
if os.environ.get("REDIS_PORT"):
    import redis

    cache = redis.Redis(port=int(os.environ["REDIS_PORT"]))


@app.get("/levels")
def levels() -> Response:
    connection = sqlite3.connect(DATABASE)
    rows = connection.execute("SELECT item, count FROM levels").fetchall()
    connection.close()
    if cache is not None:
        with cache.pipeline() as pipeline:
            for item, count in rows:
                pipeline.set(f"level:{item}", count, ex=60)
            pipeline.execute()
    return jsonify(dict(rows))


@app.get("/levels/<int:item>")
def level(item: int) -> Response:
    cached = cache.get(f"level:{item}") if cache is not None else None
    return jsonify(left=int(cached) if cached is not None else left(item))


@app.post("/levels/<int:item>/take")
def take(item: int) -> Response:
    wanted = request.get_json()["count"]
    if wanted > left(item):
        raise ValueError(f"{wanted} of item {item} are wanted, which is more than there are")
    return jsonify(taken=wanted)


def left(item: int) -> int:
    connection = sqlite3.connect(DATABASE)
    (count,) = connection.execute("SELECT count FROM levels WHERE item = ?", (item,)).fetchone()
    connection.close()
    return int(count)


def prepare() -> None:
    connection = sqlite3.connect(DATABASE)
    connection.execute("CREATE TABLE IF NOT EXISTS levels (item INTEGER PRIMARY KEY, count INTEGER)")
    connection.executemany("INSERT OR IGNORE INTO levels VALUES (?, ?)", LEVELS)
    connection.commit()
    connection.close()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    prepare()
    app.run(port=int(os.environ["PORT"]), threaded=True)
