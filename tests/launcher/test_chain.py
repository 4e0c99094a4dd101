"""A request that crosses threads, processes and brokers: one trace at the Agent, with the right parents."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.launcher.conftest import LAUNCHER

if TYPE_CHECKING:
    from pathlib import Path

    from tests.launcher.conftest import Agent
    from tests.servers import Server

pytest.importorskip("celery")
pytest.importorskip("flask")

pytestmark = pytest.mark.slow

SHOP = """
import os, signal, subprocess, sys
from concurrent.futures import ThreadPoolExecutor
from celery import Celery
from kombu import Connection, Queue, Consumer, Producer

BROKER, BACKEND = os.environ["BROKER"], os.environ["BACKEND"]
app = Celery("shop", broker=BROKER, backend=BACKEND)
mail = Queue("mail")

def announce(order):
    with Connection(BROKER) as connection:
        Producer(connection).publish({"order": order}, routing_key="mail", declare=[mail])

@app.task(name="shop.deliver")
def deliver(order):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(announce, order).result()

def main():
    from flask import Flask
    web = Flask("web")

    @web.post("/orders/<int:order>")
    def buy(order):
        with ThreadPoolExecutor(1) as pool:
            result = pool.submit(deliver.delay, order).result()
        return result.id

    command = [os.environ["LAUNCHER"], sys.executable, "-m", "celery", "-A", "shop", "worker", "-c", "1"]
    worker = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        result = app.AsyncResult(web.test_client().post("/orders/7").text)
        result.get(timeout=120)
        with Connection(BROKER) as connection:
            def read(body, message):
                message.ack()
                print(body)
            with Consumer(connection, [mail], callbacks=[read]):
                connection.drain_events(timeout=60)
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.wait(60)

if __name__ == "__main__":
    sys.modules["shop"] = sys.modules["__main__"]
    main()
"""


def test_one_trace(agent: Agent, rabbitmq_server: Server, redis_server: Server, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    variables = {
        **os.environ,
        "LAUNCHER": LAUNCHER,
        "BROKER": f"amqp://guest:guest@{rabbitmq_server.host}:{rabbitmq_server.port}//",
        "BACKEND": f"redis://{redis_server.host}:{redis_server.port}/3",
        "DD_TRACE_AGENT_URL": agent.url,
        "DD_SERVICE": "shop",
        "DD_TRACE_REDIS_ENABLED": "false",
    }
    command = [LAUNCHER, sys.executable, "shop.py"]
    done = subprocess.run(command, env=variables, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "{'order': 7}\n"
    by_id = {span["span_id"]: span for span in agent.spans}
    last = next(span for span in agent.spans if span["name"] == "kombu.receive")
    above: list[Any] = [last]
    while above[-1]["parent_id"]:
        above.append(by_id[above[-1]["parent_id"]])
    assert [(span["name"], span["resource"]) for span in reversed(above)] == [
        ("flask.request", "POST /orders/<int:order>"),
        ("celery.apply", "shop.deliver"),
        ("celery.run", "shop.deliver"),
        ("kombu.publish", "mail"),
        ("kombu.receive", "mail"),
    ]
    assert {span["trace_id"] for span in above} == {last["trace_id"]}
