"""One program under ddtrace and under spanbridge, compared by the operations that reach a Datadog receiver.

`python -m tests.parity [--cache DIR] [--tags] [--self]`; exit 1 on a difference that
differences.py does not declare.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.environments import clean_variables, environment
from tests.parity.differences import OF_DDTRACE, OF_SPANBRIDGE, adjust
from tests.parity.operations import difference, trees

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.parity.operations import Operation

Span = dict[str, Any]
_PROGRAM = Path(__file__).parent.resolve() / "program.py"
_LIBRARIES = ("flask", "requests", "redis")
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


class Launcher(NamedTuple):
    """How the program is started: its environment's interpreter and the wrapper before it."""

    python: Path
    wrapper: str


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.parity", description="the same program, two tracers, one diff"
    )
    parser.add_argument("--cache", type=Path, default=Path(".nox", "parity"), help="where the environments live")
    parser.add_argument("--tags", action="store_true", help="also list, per operation name, the tags that differ")
    parser.add_argument(
        "--self", action="store_true", dest="itself", help="ddtrace against ddtrace: proves the harness"
    )
    parser.add_argument("--show", action="store_true", help="print ddtrace's trees")
    arguments = parser.parse_args()
    agent = environment(arguments.cache / "agent", "ddapm-test-agent>=1.69")
    ddtrace = Launcher(environment(arguments.cache / "ddtrace", "ddtrace==4.16.0", *_LIBRARIES), "ddtrace-run")
    ours = ddtrace
    if not arguments.itself:
        requirements = ("opentelemetry-sdk", "opentelemetry-instrumentation", "msgspec", *_LIBRARIES)
        python = environment(arguments.cache / "spanbridge", *requirements, with_spanbridge=True)
        ours = Launcher(python, "opentelemetry-instrument")
    theirs, expected = _run(ddtrace, agent)
    mine, got = _run(ours, agent)
    if arguments.show:
        print("\n".join(line for root in trees(theirs, every_span=False) for line in root.lines()))
    if arguments.tags:
        _compare_tags(theirs, mine)
    return _compare(
        adjust(trees(theirs, every_span=False), OF_DDTRACE),
        adjust(trees(mine, every_span=not arguments.itself), OF_DDTRACE if arguments.itself else OF_SPANBRIDGE),
        answers=difference(expected, got),
    )


def _compare(expected: list[Operation], got: list[Operation], *, answers: list[str]) -> int:
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


def _compare_tags(theirs: list[Span], mine: list[Span]) -> None:
    """Print per operation name which meta and metrics keys only one side ever has (information, not judged)."""
    keys: list[dict[str, set[str]]] = [{}, {}]
    for side, spans in enumerate((theirs, mine)):
        for span in spans:
            keys[side].setdefault(span["name"], set()).update(span.get("meta") or (), span.get("metrics") or ())
    for name in sorted(keys[0].keys() & keys[1].keys()):
        theirs_alone, ours_alone = sorted(keys[0][name] - keys[1][name]), sorted(keys[1][name] - keys[0][name])
        print(f"{name}: only ddtrace {theirs_alone}, only spanbridge {ours_alone}")


def _run(launcher: Launcher, agent_python: Path) -> tuple[list[Span], list[str]]:
    """Drive two copies of the program under one tracer; return all spans received and what the requests answered."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ports = _free_ports(6)
        agent, redis_port, shop, prices = ports[0], ports[3], ports[4], ports[5]
        stack.enter_context(_agent(agent_python, ports[:3], folder))
        stack.enter_context(_redis(redis_port, folder))
        with contextlib.ExitStack() as services:
            for service, port, peer in (("shop", shop, prices), ("prices", prices, shop)):
                variables = clean_variables(
                    DD_SERVICE=service,
                    DD_ENV="ci",
                    DD_VERSION="1",
                    DD_TRACE_AGENT_URL=f"http://127.0.0.1:{agent}",
                    DD_INSTRUMENTATION_TELEMETRY_ENABLED="false",
                    DD_REMOTE_CONFIGURATION_ENABLED="false",
                    DD_TRACE_JINJA2_ENABLED="false",
                    PORT=str(port),
                    PEER_PORT=str(peer),
                    REDIS_PORT=str(redis_port),
                    DATABASE=str(folder / f"{service}.db"),
                )
                wrapper = launcher.python.parent / launcher.wrapper
                command = [str(wrapper), str(launcher.python), str(_PROGRAM)]
                services.enter_context(_process(command, folder / f"{service}.log", variables))
            for port in (prices, shop):
                _wait_for(port, folder)
            answers = [_ask(shop, method, path) for method, path in _REQUESTS]
        return _received(agent), answers


def _ask(port: int, method: str, path: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, path)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return f"{method} {path} -> {response.status}, {len(body)} bytes"


def _received(agent: int) -> list[Span]:
    """Return what the receiver has, once it has had nothing new for a second."""
    spans: list[Span] = []
    for _ in range(20):
        with urllib.request.urlopen(f"http://127.0.0.1:{agent}/test/session/traces") as response:
            now = [span for trace in json.load(response) for span in trace]
        if now and len(now) == len(spans):
            break
        spans = now
        time.sleep(1)
    return spans


@contextlib.contextmanager
def _agent(python: Path, ports: list[int], folder: Path) -> Iterator[None]:
    port, otlp_http, otlp_grpc = map(str, ports)
    options = ["--port", port, "--otlp-http-port", otlp_http, "--otlp-grpc-port", otlp_grpc]
    command = [str(python.parent / "ddapm-test-agent"), *options, "--snapshot-dir", str(folder)]
    with _process(command, folder / "agent.log", clean_variables()):
        _wait_for(ports[0], folder)
        yield


@contextlib.contextmanager
def _redis(port: int, folder: Path) -> Iterator[None]:
    server = shutil.which("redis-server")
    if server is None:
        sys.exit("redis-server is not on PATH: install the package redis-server")
    command = [server, "--port", str(port), "--save", "", "--appendonly", "no", "--dir", str(folder)]
    with _process(command, folder / "redis.log", clean_variables()):
        _wait_for(port, folder)
        yield


@contextlib.contextmanager
def _process(command: list[str], log: Path, variables: dict[str, str]) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=variables, cwd=log.parent)
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                print(f"{command[0]} did not end within 15 s of SIGTERM")


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]


def _wait_for(port: int, folder: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    logs = "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-3000:]}" for log in folder.glob("*.log"))
    sys.exit(f"nothing listens on port {port} after 30 s\n{logs}")


if __name__ == "__main__":
    sys.exit(main())
