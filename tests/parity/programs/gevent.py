# /// script
# dependencies = ["gevent==26.9.0", "flask==3.1.3", "requests==2.34.2"]
# ///
"""A Flask application on gevent's server that calls itself from greenlets, groups and pools: who is whose parent.

Not from the hub's threads, where ddtrace loses the parent.
"""

from __future__ import annotations

# ruff: noqa: E402 - patched before all else
from gevent import monkey

monkey.patch_all()

import threading
from concurrent.futures import ThreadPoolExecutor

import gevent
import gevent.pool
import requests
from flask import Flask, request
from gevent import Greenlet
from gevent.pywsgi import WSGIServer

app = Flask("shop")


class Worker(Greenlet):
    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url

    def _run(self) -> int:
        return requests.get(self.url, timeout=60).status_code


@app.route("/levels/<name>")
def level(name: str) -> str:
    gevent.sleep(0)
    return name


@app.route("/ways/<way>")
def ways(way: str) -> str:
    def get(name: str) -> str:
        gevent.sleep(0)
        return requests.get(f"{request_root}levels/{name}", timeout=60).text

    def nested(name: str) -> str:
        return gevent.spawn(get, name).get()

    request_root = request.host_url
    if way == "spawn":
        return gevent.spawn(get, "a").get() + gevent.spawn_later(0.001, get, "b").get() + Greenlet.spawn(get, "c").get()
    if way == "subclass":
        worker = Worker(f"{request_root}levels/a")
        worker.start()
        return str(worker.get())
    if way == "group":
        group = gevent.pool.Group()
        first = group.spawn(get, "a").get()
        return first + group.apply(get, ("b",)) + "".join(group.map(get, ["c"]))
    if way == "pool":
        pool = gevent.pool.Pool(2)
        return "".join([*pool.map(get, ["a"]), *pool.imap(get, ["b"]), *pool.imap_unordered(get, ["c"])])
    if way == "nested":
        return gevent.spawn(nested, "a").get()
    if way == "thread":
        found: list[str] = []
        thread = threading.Thread(target=lambda: found.append(nested("a")))
        thread.start()
        thread.join()
        return found[0]
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(get, "a").result()


def main() -> None:
    server = WSGIServer(("127.0.0.1", 0), app, log=None)
    server.start()
    root = f"http://127.0.0.1:{server.server_port}"
    for way in ("spawn", "subclass", "group", "pool", "nested", "thread", "executor"):
        print(way, gevent.spawn(requests.get, f"{root}/ways/{way}", timeout=60).get().text)
    server.stop()


main()
