"""Redis, single and as a cluster."""

from __future__ import annotations

import subprocess
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.servers import HOST, Server, find, free_port, running, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def redis(directory: Path, *options: str) -> Iterator[Server]:
    """Run a private redis-server with its files in `directory`."""
    binary = find("redis-server", "redis-server")
    port = free_port()
    command = [binary, "--bind", HOST, "--port", str(port), "--save", "", "--appendonly", "no", "--dir", str(directory)]
    with running([*command, *options], port, directory / "redis.log"):
        yield Server(HOST, port)


@contextmanager
def redis_cluster(directory: Path) -> Iterator[Server]:
    """Run a private Redis cluster of three masters; answers the first node."""
    client = find("redis-cli", "redis-tools")
    with ExitStack() as stack:
        nodes = []
        for number in range(3):
            home = directory / str(number)
            home.mkdir()
            bus = [
                "--cluster-enabled",
                "yes",
                "--cluster-config-file",
                "nodes.conf",
                "--cluster-port",
                str(free_port()),
            ]
            nodes.append(stack.enter_context(redis(home, *bus)))
        addresses = [f"{HOST}:{node.port}" for node in nodes]
        create = [client, "--cluster", "create", *addresses, "--cluster-yes"]
        subprocess.run(create, check=True, capture_output=True, timeout=60)
        for node in nodes:
            info = [client, "-p", str(node.port), "cluster", "info"]
            wait_for(lambda info=info: b"cluster_state:ok" in subprocess.check_output(info), "the Redis cluster")
        yield nodes[0]


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A private redis-server."""
    with redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def redis_cluster_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The first node of a private Redis cluster."""
    with redis_cluster(tmp_path_factory.mktemp("cluster")) as server:
        yield server
