"""RabbitMQ: user `guest`, password `guest`."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.servers import HOST, Server, find, free_port, running, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def rabbitmq(directory: Path) -> Iterator[Server]:
    """Run a private RabbitMQ, its name server too, with all files in `directory`."""
    find("rabbitmq-server", "rabbitmq-server")
    # Not the wrapper on PATH, which changes the user.
    binary = "/usr/lib/rabbitmq/bin/rabbitmq-server"
    port, node, names = free_port(), free_port(), free_port()
    variables = {
        **os.environ,
        "HOME": str(directory),
        "RABBITMQ_NODENAME": f"spanbridge{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": HOST,
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(node),
        "ERL_EPMD_PORT": str(names),
        "ERL_EPMD_ADDRESS": HOST,
        "RABBITMQ_MNESIA_BASE": str(directory / "mnesia"),
        "RABBITMQ_LOG_BASE": str(directory / "log"),
        "RABBITMQ_PID_FILE": str(directory / "pid"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "plugins"),
        "RABBITMQ_CONF_ENV_FILE": os.devnull,
        "SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
    }
    log = directory / "rabbitmq.log"
    try:
        with running([binary], port, log, variables, seconds=90):
            wait_for(lambda: "completed with" in log.read_text(errors="replace"), "RabbitMQ", 90)
            yield Server(HOST, port)
    finally:
        _end_name_server(names)


def _end_name_server(port: int) -> None:
    """End the epmd that the node has started; nobody else does."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            program = (process / "cmdline").read_bytes().split(b"\0")[0]
            if program.endswith(b"epmd") and f"ERL_EPMD_PORT={port}".encode() in (process / "environ").read_bytes():
                os.kill(int(process.name), signal.SIGTERM)


@pytest.fixture(scope="session")
def rabbitmq_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A private RabbitMQ: user `guest`, password `guest`."""
    with rabbitmq(tmp_path_factory.mktemp("rabbitmq")) as server:
        yield server
