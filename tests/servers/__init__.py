"""Private servers: found on PATH, else installed from Debian's packages, else the test says what is missing.

A module per server holds its context manager and the fixture that runs it for a session; conftest.py finds them all.
"""

from __future__ import annotations

import os
import pkgutil
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import pytest

from tests.environments import TREE, environment

if TYPE_CHECKING:
    from collections.abc import Iterator

HOST = "127.0.0.1"
MODULES = [f"{__name__}.{module.name}" for module in pkgutil.iter_modules(__path__)]


class Server(NamedTuple):
    """A running server of ours."""

    host: str
    port: int


def find(binary: str, package: str) -> str:
    """Answer the path of `binary`, installing Debian's `package` if that is what it takes and we may.

    A server that cannot be had skips the test; in CI it fails.
    """
    path = _which(binary)
    if path is None and shutil.which("apt-get") and os.geteuid() == 0:
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}  # 1: do not start its service
        for arguments in (["update"], ["install", "-y", "--no-install-recommends", package]):
            # Two runs of the tests may want something at once, and apt-get would not wait.
            command = ["flock", str(Path(tempfile.gettempdir(), "spanbridge-apt.lock")), "apt-get", "-qq", *arguments]
            subprocess.run(command, env=quiet, check=False, capture_output=True, timeout=600)
        path = _which(binary)
    if path is None:
        _missing(f"{binary} is missing; install Debian's package {package}")
    return path


def in_environment(program: str, *requirements: str, name: str = "") -> str:
    """Answer the path of a program from the index, which has an environment of its own, made when first asked for.

    Args:
        program: what the environment's `bin` has.
        requirements: what is installed.
        name: the environment's, if it is not the program's.
    """
    try:
        # Runs on several Pythons may go on at once, and each would build the same environment anew.
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        python = environment(TREE / ".nox" / "servers" / f"{name or program}-{version}", *requirements)
    except (subprocess.CalledProcessError, OSError) as error:
        _missing(f"{', '.join(requirements)} cannot be installed: {error}")
    return str(python.parent / program)


def _missing(message: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


def _which(binary: str) -> str | None:
    return shutil.which(
        binary, path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
    )


def free_port() -> int:
    """Answer a TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(
    command: list[str], port: int, log: Path, env: dict[str, str] | None = None, seconds: float = 30
) -> Iterator[None]:
    """Run `command` until the block ends; enters once its port answers, which may take `seconds`."""
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output, env=env) as process:
        try:
            wait_for(lambda: answers(port) or process.poll() is not None, command[0], seconds)
            assert process.poll() is None, f"{command[0]} ended: {log.read_text()}"
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def answers(port: int) -> bool:
    """Say whether something listens on `port`."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0


def wait_for(condition, what: str, seconds: float = 20) -> None:
    """Wait until `condition` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come up in {seconds} s"
        time.sleep(0.02)
