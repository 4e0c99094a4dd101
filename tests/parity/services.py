"""Two copies of shop.py that call each other, under one tracer: what a request becomes across services."""

from __future__ import annotations

import contextlib
import http.client
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from tests.parity import receiver
from tests.parity.operations import difference
from tests.servers.redis import redis

if TYPE_CHECKING:
    from tests.parity.operations import Operation
    from tests.parity.receiver import Launcher, Span

LIBRARIES = ("flask", "requests", "redis")
_PROGRAM = Path(__file__).parent.resolve() / "shop.py"
_REQUESTS = (
    ("GET", "/"),
    ("GET", "/?token=abc&q=1"),
    ("POST", "/"),
    ("GET", "/items/3"),
    ("HEAD", "/items/3"),
    ("OPTIONS", "/items/3"),
    ("POST", "/items/3"),
    ("NONSENSE", "/items/3"),
    ("PUT", "/files/a/b%20c.txt"),
    ("DELETE", "/files/%E2%9C%93"),
    ("GET", "/folder"),
    ("GET", "/nowhere/12345"),
    ("POST", "/nowhere"),
    ("GET", "/abort/404"),
    ("GET", "/abort/500"),
    ("GET", "/returns/404"),
    ("GET", "/returns/500"),
    ("GET", "/returns/599"),
    ("GET", "/raises"),
    ("GET", "/raises/handled"),
    ("GET", "/redirect"),
    ("GET", "/stream"),
    ("GET", "/stream/context"),
    ("GET", "/before/refused"),
    ("GET", "/nowhere/refused"),
    ("GET", "/v1/inner/things/lamp"),
    ("POST", "/v1/inner/things/lamp"),
    ("GET", "/static/absent.css"),
    ("GET", "/sql"),
    ("GET", "/sql/with"),
    ("GET", "/sql/faults"),
    ("GET", "/sql/untraced"),
    ("GET", "/sql/factories"),
    ("GET", "/redis"),
    ("GET", "/redis/pipeline"),
    ("GET", "/redis/watch"),
    ("GET", "/redis/asyncio"),
    ("GET", "/call"),
    ("GET", "/call/faults"),
    ("GET", "/call/redirects"),
    ("GET", "/call/deep"),
)


def compare(expected: list[Operation], got: list[Operation], *, answers: list[str]) -> int:
    """Print every trace that differs and say whether one did."""
    different = len(answers)
    if answers:
        print("the program itself behaves differently:", *answers, sep="\n  ")
    served, mine = ([root for root in roots if root.kind == "server"] for roots in (expected, got))
    titles = [f"{method} {path}" for method, path in _REQUESTS]
    if not len(served) == len(mine) == len(titles):
        print(f"{len(titles)} requests, {len(served)} traces of ddtrace, {len(mine)} of spanbridge: matched in order")
        different += 1
    same = 0
    for title, one, other in zip(titles, served, mine, strict=False):
        lines = difference(one.lines(), other.lines())
        same += not lines
        if lines:
            print(f"\n{title}  (- ddtrace, + spanbridge)", *lines, sep="\n  ")
    outside = [[line for root in roots if root.kind != "server" for line in root.lines()] for roots in (expected, got)]
    lines = difference(*(sorted(side) for side in outside))
    if lines:
        print("\noutside of requests", *lines, sep="\n  ")
    counts = [Counter(line.strip() for root in roots for line in root.lines()) for roots in (expected, got)]
    missing, extra = counts[0] - counts[1], counts[1] - counts[0]
    print(
        f"\n{same} of {len(titles)} traces are equal; {counts[0].total()} operations of ddtrace,"
        f" {missing.total()} of them missing here, {extra.total()} here that ddtrace has not"
    )
    return 1 if different or lines or same < len(titles) else 0


def run(launcher: Launcher, agent_python: Path) -> tuple[list[Span], list[str]]:
    """Drive two copies of the program under one tracer; return all spans received and what the requests answered."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ports = receiver.free_ports(5)
        agent, shop, prices = ports[0], ports[3], ports[4]
        stack.enter_context(receiver.agent(agent_python, ports[:3], folder))
        redis_port = stack.enter_context(redis(folder)).port
        with contextlib.ExitStack() as services:
            for service, port, peer in (("shop", shop, prices), ("prices", prices, shop)):
                variables = receiver.variables(
                    agent,
                    DD_SERVICE=service,
                    DD_TRACE_JINJA2_ENABLED="false",
                    PORT=str(port),
                    PEER_PORT=str(peer),
                    REDIS_PORT=str(redis_port),
                    DATABASE=str(folder / f"{service}.db"),
                )
                services.enter_context(
                    receiver.process(launcher.command(_PROGRAM), folder / f"{service}.log", variables)
                )
            for port in (prices, shop):
                receiver.wait_for(port, folder)
            answers = [_ask(shop, method, path) for method, path in _REQUESTS]
        return receiver.received(agent), answers


def _ask(port: int, method: str, path: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, path)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return f"{method} {path} -> {response.status}, {len(body)} bytes"
