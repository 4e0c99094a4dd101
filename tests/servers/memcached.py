"""memcached."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.servers import HOST, Server, find, free_port, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def memcached(directory: Path) -> Iterator[Server]:
    """Run a private memcached with its log in `directory`."""
    binary, port = find("memcached", "memcached"), free_port()
    user = ["-u", "root"] if os.geteuid() == 0 else []
    with running([binary, *user, "-l", HOST, "-p", str(port), "-U", "0"], port, directory / "memcached.log"):
        yield Server(HOST, port)


@pytest.fixture(scope="session")
def memcached_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A private memcached."""
    with memcached(tmp_path_factory.mktemp("memcached")) as server:
        yield server
