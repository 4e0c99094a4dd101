"""The Datadog receiver of both tracers, and the processes around it."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
import urllib.request
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.environments import clean_variables

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Span = dict[str, Any]


class Launcher(NamedTuple):
    """How the program is started: its environment's interpreter and the wrapper before it."""

    python: Path
    wrapper: str

    def command(self, program: Path) -> list[str]:
        """Answer the command line that runs `program` under this tracer."""
        return [str(self.python.parent / self.wrapper), str(self.python), str(program)]


def variables(agent_port: int, **more: str) -> dict[str, str]:
    """Answer the environment of a traced program: only its tracing, none of the vendor's other products."""
    return clean_variables(
        DD_ENV="ci",
        DD_VERSION="1",
        DD_TRACE_AGENT_URL=f"http://127.0.0.1:{agent_port}",
        DD_INSTRUMENTATION_TELEMETRY_ENABLED="false",
        DD_REMOTE_CONFIGURATION_ENABLED="false",
        **more,
    )


def received(agent: int) -> list[Span]:
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
def agent(python: Path, ports: list[int], folder: Path) -> Iterator[None]:
    port, otlp_http, otlp_grpc = map(str, ports)
    options = ["--port", port, "--otlp-http-port", otlp_http, "--otlp-grpc-port", otlp_grpc]
    command = [str(python.parent / "ddapm-test-agent"), *options, "--snapshot-dir", str(folder)]
    with process(command, folder / "agent.log", clean_variables()):
        wait_for(ports[0], folder)
        yield


@contextlib.contextmanager
def process(command: list[str], log: Path, variables: dict[str, str]) -> Iterator[None]:
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


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]


def wait_for(port: int, folder: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    logs = "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-3000:]}" for log in folder.glob("*.log"))
    sys.exit(f"nothing listens on port {port} after 30 s\n{logs}")
