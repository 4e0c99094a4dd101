"""Servers with several processes: each ships its own spans, none twice, none lost, under an id of its own."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sysconfig
import textwrap
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from tests.launcher.conftest import LAUNCHER
from tests.servers import HOST, free_port, wait_for

pytestmark = pytest.mark.slow

SCRIPTS = Path(sysconfig.get_path("scripts"))
REQUESTS = 60
WSGI = """
    import os, sqlite3, time

    def application(environ, start_response):
        if environ["PATH_INFO"] == "/ready":
            time.sleep(0.05)  # so that the other process gets requests too
        else:
            sqlite3.connect(":memory:").execute("SELECT 1").fetchone()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [str(os.getpid()).encode()]
"""
ASGI = """
    import asyncio, os, sqlite3

    async def application(scope, receive, send):
        if scope["type"] != "http":
            raise NotImplementedError
        if scope["path"] == "/ready":
            await asyncio.sleep(0.05)
        else:
            sqlite3.connect(":memory:").execute("SELECT 1").fetchone()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(os.getpid()).encode()})
"""
GUNICORN = ("gunicorn", "--bind", "{address}", "--workers", "2", "--log-level", "error")
# Threads are for uWSGI to let Python have any; it forks without Python's hooks and knows no launcher's parent.
UWSGI = ("uwsgi", "--http", "{address}", "--master", "--processes", "2", "--enable-threads", "--die-on-term")
UWSGI = (*UWSGI, "--need-app", "--disable-logging")
SERVERS = {
    "gunicorn, sync": (WSGI, (*GUNICORN, "service:application")),
    "gunicorn, preloaded": (WSGI, (*GUNICORN, "--preload", "service:application")),
    "gunicorn, threads": (WSGI, (*GUNICORN, "--threads", "4", "service:application")),
    "gunicorn, gevent": (WSGI, (*GUNICORN, "--worker-class", "gevent", "service:application")),
    "gunicorn, recycled workers": (WSGI, (*GUNICORN, "--max-requests", "7", "service:application")),
    "uvicorn": (
        ASGI,
        (
            "uvicorn",
            "--host",
            HOST,
            "--port",
            "{port}",
            "--workers",
            "2",
            "--log-level",
            "error",
            "service:application",
        ),
    ),
    "uWSGI, lazy": (WSGI, (*UWSGI, "--lazy-apps", "--module", "service")),
    "uWSGI": (WSGI, (*UWSGI, "--module", "service")),
}


def ask(port, path="/work"):
    """Ask once more where a worker is just being recycled."""
    for _ in range(20):
        connection = http.client.HTTPConnection(HOST, port, timeout=30)
        with suppress(OSError, http.client.HTTPException):
            connection.request("GET", path, headers={"Connection": "close"})
            response = connection.getresponse()
            body = response.read()
            if response.status == 200:
                return int(body)
        connection.close()
    raise AssertionError("no answer")


def are_ready(port):
    """Say whether both processes answer: gunicorn's forget a SIGTERM that comes before they have started."""
    with suppress(AssertionError), ThreadPoolExecutor(8) as pool:
        return len(set(pool.map(lambda _: ask(port, "/ready"), range(8)))) == 2
    return False


@pytest.mark.parametrize("server", SERVERS)
def test_every_process_sends_its_spans(agent, tmp_path, server):
    source, command = SERVERS[server]
    if not (SCRIPTS / command[0]).exists():
        message = f"{command[0]} is not installed"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    port = free_port()
    module = "import spanbridge.auto\n" if command[0] == "uwsgi" else ""
    (tmp_path / "service.py").write_text(module + textwrap.dedent(source))
    words = [word.format(address=f"{HOST}:{port}", port=port) for word in command]
    launcher = [] if command[0] == "uwsgi" else [LAUNCHER]
    variables = {"DD_TRACE_AGENT_URL": agent.url, "DD_SERVICE": "shop", "PYTHONPATH": str(tmp_path)}
    log = tmp_path / "log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [*launcher, str(SCRIPTS / words[0]), *words[1:]],
            env={**os.environ, **variables},
            cwd=tmp_path,
            stdout=output,
            stderr=output,
            start_new_session=True,
        ) as process,
    ):
        try:
            wait_for(lambda: process.poll() is not None or are_ready(port), server, 60)
            with ThreadPoolExecutor(8) as pool:
                workers = Counter(pool.map(lambda _: ask(port), range(REQUESTS)))
            process.send_signal(signal.SIGTERM)
            process.wait(30)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    queries = [span for span in agent.spans if span["name"] == "sqlite.query"]
    assert len(queries) == REQUESTS, log.read_text()
    assert set(Counter(span["span_id"] for span in agent.spans).values()) == {1}
    runtimes = {(span["metrics"]["process_id"], span["meta"]["runtime-id"]) for span in queries}
    assert Counter(dict(runtimes).keys()) == Counter(process_id for process_id, _ in runtimes), "one id a process"
    assert len({runtime for _, runtime in runtimes}) == len(runtimes), "and another in every process"
    assert {process_id for process_id, _ in runtimes} == set(workers)
