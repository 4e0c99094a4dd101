"""The demo, as `spanbridge demo --once`, and what it says about traces that are not as they should be."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest

from spanbridge.demo.terminal import Terminal
from spanbridge.demo.tree import Expected, draw, missing, roots
from tests import servers

COMMAND = [str(Path(sysconfig.get_path("scripts"), "spanbridge")), "demo"]


def span(span_id, parent_id, name, service="shop", **more):
    times = {"start": span_id, "duration": 1_500_000}
    return {"trace_id": 1, "span_id": span_id, "parent_id": parent_id, "name": name, "service": service,
            "resource": name, "error": 0, "meta": {}, **times, **more}  # fmt: skip


TRACE = [
    span(3, 2, "flask.request", "stock", error=1, meta={"error.type": "ValueError", "error.message": "no\nmore"}),
    span(1, 0, "flask.request"),
    span(2, 1, "requests.request", "requests"),
    span(4, 1, "sqlite.query", "sqlite"),
]


@pytest.fixture
def private_redis():
    servers.find("redis-server", "redis-server")


def test_the_demo_finds_every_span(private_redis, tmp_path):
    environment = {**os.environ, "DD_TRACE_AGENT_URL": "http://127.0.0.1:1", "TMPDIR": str(tmp_path)}
    result = subprocess.run(
        [*COMMAND, "--once"], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "every expected span arrived, below its parent" in result.stdout
    assert result.stderr == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_demo_takes_its_processes_along(number, tmp_path):
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen([*COMMAND, "--once"], env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            if "stock:" in line:
                break
        process.send_signal(number)
        process.stdout.read()
        assert process.wait(30) in {130, 143}
    assert list(tmp_path.iterdir()) == []
    time.sleep(0.1)
    listing = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(tmp_path) not in listing


class Stream(io.StringIO):
    def __init__(self, encoding):
        super().__init__()
        self._encoding = encoding

    @property
    def encoding(self):
        return self._encoding


def test_a_trace_is_drawn_as_a_tree():
    (root,) = roots(TRACE)
    terminal = Terminal(Stream("utf-8"))
    assert [" ".join(row.split()) for row in draw(root, terminal)] == [
        "flask.request shop flask.request 1.50 ms",
        "├─requests.request requests requests.request 1.50 ms",
        "│ └─flask.request stock flask.request 1.50 ms ✗",
        "│ ValueError: no",
        "└─sqlite.query sqlite sqlite.query 1.50 ms",
    ]
    assert max(map(len, draw(root, terminal))) <= terminal.width


def test_what_is_missing_is_named():
    (root,) = roots(TRACE)
    stock = Expected("flask.request", "stock", children=(Expected("redis.command"),))
    wanted = Expected("flask.request", "shop", error=True, children=(Expected("requests.request", children=(stock,)),))
    assert list(missing(root, wanted)) == [
        "shop's flask.request is not marked as an error",
        "stock's flask.request is marked as an error",
        "no redis.command directly below stock's flask.request",
    ]
    nested = Expected("flask.request", children=(Expected("flask.request", "stock"),))
    assert list(missing(root, nested)) == ["no stock's flask.request directly below flask.request"]


def test_a_plain_stream_gets_no_colours_and_an_ascii_one_no_lines():
    (root,) = roots(TRACE)
    rows = "\n".join(draw(root, Terminal(Stream("ascii"))))
    assert rows.isascii()
    assert "\x1b" not in rows
