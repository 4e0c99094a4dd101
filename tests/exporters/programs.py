"""Programs of these tests: how they are run, and how long they take to end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from tests.environments import clean_variables

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Ended(NamedTuple):
    """What a program left behind.

    Args:
        code: its exit code; negative for a signal.
        out: what it wrote to its standard output.
        err: what it wrote to its standard error output.
        log: its log, `LEVEL message` per line.
        lost: how many spans it counted as lost; None when it did not come to that.
        seconds: from `mark` to its end.
    """

    code: int
    out: str
    err: str
    log: str
    lost: int | None
    seconds: float

    def logged(self, level: str) -> list[str]:
        """The messages of one level."""
        return [line for line in self.log.splitlines() if line.startswith(f"{level} ")]


# What precedes a program: its log goes to a file, and the exit handler registered first is run last.
_COUNTED = """
import atexit, logging, os
logging.basicConfig(filename="log", level=logging.INFO, format="%(levelname)s %(message)s")
def _count(pid=os.getpid()):
    from opentelemetry import trace
    for processor in trace.get_tracer_provider()._active_span_processor._span_processors:
        if os.getpid() == pid:
            open("lost", "w").write(str(processor.dropped))
atexit.register(_count)
import spanbridge.auto
"""
# `work(n)` makes n spans, `wait(name)` waits for a file, `mark()` notes the time of the last statement.
_TOOLS = """
import os, sqlite3, sys, time
def wait(name):
    deadline = time.monotonic() + 15
    while not os.path.exists(name) and time.monotonic() < deadline:
        time.sleep(0.02)
def work(n):
    connection = sqlite3.connect(":memory:")
    for i in range(n):
        connection.execute(f"SELECT {i}").fetchone()
    connection.close()
def mark():
    open("mark", "w").write(str(time.monotonic()))
"""


def run(
    program: str,
    directory: Path,
    *,
    traced: bool = True,
    meanwhile: Callable[[subprocess.Popen[str]], object] | None = None,
    **variables: str,
) -> Ended:
    """Run `program` to its end.

    Args:
        program: may use `work`, `wait` and `mark`; the last call of `mark` starts the clock.
        directory: where it runs.
        traced: whether spanbridge is loaded.
        meanwhile: called while it runs.
        variables: environment variables.
    """
    directory.mkdir(exist_ok=True)
    path = directory / "program.py"
    path.write_text((_COUNTED if traced else "") + _TOOLS + textwrap.dedent(program))
    process = subprocess.Popen(
        # Python 3.12 and newer warn of every fork of a process with threads, and the worker is one.
        [sys.executable, "-W", "ignore:This process:DeprecationWarning", str(path)],
        cwd=directory,
        env=clean_variables(DD_SERVICE="shop", DD_TRACE_WRITER_INTERVAL_SECONDS="0.2", **variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            if meanwhile is not None:
                meanwhile(process)
            out, err = process.communicate(timeout=20)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # its children, too, if they hang
    ended = time.monotonic()
    return Ended(
        process.returncode,
        out,
        err,
        _read(directory / "log"),
        int(_read(directory / "lost") or -1) if (directory / "lost").exists() else None,
        ended - float(_read(directory / "mark") or "inf"),
    )


def interrupt_at(file: Path, number: int = signal.SIGINT) -> Callable[[subprocess.Popen[str]], None]:
    """Send a signal once `file` exists."""

    def meanwhile(process: subprocess.Popen[str]) -> None:
        deadline = time.monotonic() + 20
        while not file.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(process.pid, number)

    return meanwhile


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""
