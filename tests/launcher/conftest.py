"""A fake Agent, the launcher as a subprocess, and distributions that exist for one test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import textwrap
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from tests.servers import HOST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LAUNCHER = str(Path(sysconfig.get_path("scripts"), "opentelemetry-instrument"))

# A program with one query, which does not know that it is traced.
PROGRAM = """
    import sqlite3
    connection = sqlite3.connect(":memory:")
    print(connection.execute("SELECT 41 + 1").fetchone()[0])
"""


class Agent(ThreadingHTTPServer):
    """Accepts traces as an Agent does and keeps their spans."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__((HOST, 0), _Handler)
        self.spans: list[dict[str, Any]] = []
        self.info: dict[str, Any] | None = None
        self.url = f"http://{HOST}:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Agent

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/v0.4/traces":
            self.server.spans += [span for chunk in msgspec.msgpack.decode(body) for span in chunk]
        self._answer(200, b'{"rate_by_service":{}}')

    do_POST = do_PUT

    def do_GET(self) -> None:
        info = self.server.info
        if info is None or self.path != "/info":
            self._answer(404, b"")
        else:
            self._answer(200, json.dumps(info).encode())

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def agent() -> Iterator[Agent]:
    """A fake Agent on a port of its own."""
    server = Agent()
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def run(agent: Agent, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a program to its end: `run(program, launcher=False, **variables)`, or with `doctor` the doctor's words."""

    def start(
        program: str, *, launcher: bool = True, doctor: tuple[str, ...] = (), **variables: str
    ) -> subprocess.CompletedProcess[str]:
        path = tmp_path / "program.py"
        path.write_text(textwrap.dedent(program))
        python_path = os.pathsep.join(filter(None, [*_packages(tmp_path), os.environ.get("PYTHONPATH", "")]))
        settings = {"DD_TRACE_AGENT_URL": agent.url, "PYTHONPATH": python_path, **variables}
        command = [*([LAUNCHER] if launcher else []), sys.executable, str(path)]
        if doctor:
            command = [sys.executable, "-m", "spanbridge", *doctor, "--", sys.executable, str(path)]
        environment = {**os.environ, **settings}
        return subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )

    return start


def _packages(directory: Path) -> list[str]:
    return [str(path) for path in sorted(directory.glob("site-*"))]


@pytest.fixture
def distribution(tmp_path: Path) -> Callable[..., None]:
    """Make a distribution that the next `run` finds: `distribution(name, source, {group: {entry: target}})`."""

    def make(name: str, source: str, entry_points: dict[str, dict[str, str]], version: str = "1.0") -> None:
        site = tmp_path / f"site-{name}"
        metadata = site / f"{name}-{version}.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        lines = [
            line
            for group, entries in entry_points.items()
            for line in (f"[{group}]", *(f"{entry} = {target}" for entry, target in entries.items()))
        ]
        (metadata / "entry_points.txt").write_text("\n".join(lines))
        (site / f"{name.replace('-', '_')}.py").write_text(textwrap.dedent(source))

    return make
