"""A request that crosses threads, processes and brokers: one trace at the Agent, with the right parents."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.launcher.conftest import LAUNCHER
from tests.servers import HOST, free_port

if TYPE_CHECKING:
    from pathlib import Path

    from tests.launcher.conftest import Agent
    from tests.servers import Server
    from tests.servers.moto import Aws

for library in ("botocore", "celery", "flask", "grpc"):
    pytest.importorskip(library)

import botocore.session  # noqa: E402 - not everywhere

pytestmark = pytest.mark.slow

# The web, the RPC server and the consumers are one process, the tasks' worker and its pool's process are others.
SHOP = """
import json, os, signal, subprocess, sys
from concurrent.futures import ThreadPoolExecutor
from threading import Thread
from urllib.request import Request, urlopen
import botocore.session, grpc
from celery import Celery
from kombu import Connection, Consumer, Producer, Queue

BROKER, BACKEND, STOCK = os.environ["BROKER"], os.environ["BACKEND"], os.environ["STOCK"]
app = Celery("shop", broker=BROKER, backend=BACKEND)
mail = Queue("mail")

def sqs():
    return botocore.session.get_session().create_client("sqs", **json.loads(os.environ["AWS"]))

@app.task(name="shop.deliver")
def deliver(order):
    with grpc.insecure_channel(STOCK) as channel:
        return channel.unary_unary("/shop.Stock/Take")(order.encode(), timeout=60).decode()

def announce(order):
    with Connection(BROKER) as connection:
        Producer(connection).publish({"order": order}, routing_key="mail", declare=[mail])

def ship(order):
    sqs().send_message(QueueUrl=os.environ["QUEUE"], MessageBody=order)

def take(request, context):
    with ThreadPoolExecutor(2) as pool:
        for work in [pool.submit(announce, request.decode()), pool.submit(ship, request.decode())]:
            work.result()
    return b"taken"

class Stock(grpc.GenericRpcHandler):
    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(take)

def main():
    from flask import Flask
    from werkzeug.serving import make_server

    rpc = grpc.server(ThreadPoolExecutor(2))
    rpc.add_generic_rpc_handlers((Stock(),))
    rpc.add_insecure_port(STOCK)
    rpc.start()
    web = Flask("web")

    @web.post("/orders/<order>")
    def buy(order):
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(deliver.delay, order).result().id

    server = make_server("127.0.0.1", 0, web, threaded=True)
    Thread(target=server.serve_forever).start()
    command = [os.environ["LAUNCHER"], sys.executable, "-m", "celery", "-A", "shop", "worker", "-c", "1"]
    worker = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        with urlopen(Request(f"http://127.0.0.1:{server.server_port}/orders/7", method="POST")) as response:
            print(app.AsyncResult(response.read().decode()).get(timeout=120))
        with Connection(BROKER) as connection:
            def read(body, message):
                message.ack()
                print(body)
            with Consumer(connection, [mail], callbacks=[read]):
                connection.drain_events(timeout=60)
        received = sqs().receive_message(QueueUrl=os.environ["QUEUE"], WaitTimeSeconds=20)
        print(received["Messages"][0]["Body"])
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.wait(60)
        server.shutdown()
        rpc.stop(None)

if __name__ == "__main__":
    sys.modules["shop"] = sys.modules["__main__"]
    main()
"""


def test_one_trace(
    agent: Agent, rabbitmq_server: Server, redis_server: Server, moto_server: Aws, tmp_path: Path
) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    queue = botocore.session.get_session().create_client("sqs", **moto_server.client).create_queue(QueueName="parcels")
    variables = {
        **os.environ,
        "LAUNCHER": LAUNCHER,
        "BROKER": f"amqp://guest:guest@{rabbitmq_server.host}:{rabbitmq_server.port}//",
        "BACKEND": f"redis://{redis_server.host}:{redis_server.port}/3",
        "STOCK": f"{HOST}:{free_port()}",
        "AWS": json.dumps(moto_server.client),
        "QUEUE": queue["QueueUrl"],
        "DD_TRACE_AGENT_URL": agent.url,
        "DD_SERVICE": "shop",
        "DD_TRACE_REDIS_ENABLED": "false",
    }
    command = [LAUNCHER, sys.executable, "shop.py"]
    done = subprocess.run(command, env=variables, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "taken\n{'order': '7'}\n7\n"
    begun = [
        ("http.client.request", "http.client.request"),
        ("flask.request", "POST /orders/<order>"),
        ("celery.apply", "shop.deliver"),
        ("celery.run", "shop.deliver"),
        ("grpc", "/shop.Stock/Take"),
        ("grpc", "/shop.Stock/Take"),
    ]
    by_kombu = [("kombu.publish", "kombu.publish"), ("kombu.receive", "kombu.receive")]  # as of any default exchange
    assert way_to(agent, "kombu.receive", "kombu.receive") == [*begun, *by_kombu]
    assert way_to(agent, "sqs.command", "sqs.receivemessage") == [
        *begun,
        ("sqs.command", "sqs.sendmessage"),
        ("sqs.command", "sqs.receivemessage"),
    ]
    assert len({span["trace_id"] for span in agent.spans}) == 1


def way_to(agent: Agent, name: str, resource: str) -> list[tuple[str, str]]:
    """Answer the spans from the root to the one that is named, by the ids of their parents."""
    by_id = {span["span_id"]: span for span in agent.spans}
    (last,) = [span for span in agent.spans if (span["name"], span["resource"]) == (name, resource)]
    above: list[Any] = [last]
    while above[-1]["parent_id"]:
        above.append(by_id[above[-1]["parent_id"]])
    assert {span["trace_id"] for span in above} == {last["trace_id"]}
    return [(span["name"], span["resource"]) for span in reversed(above)]
