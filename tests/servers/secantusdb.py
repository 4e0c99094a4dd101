"""SecantusDB, an independent server that speaks MongoDB's wire protocol."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.servers import HOST, Server, free_port, in_environment, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def secantusdb(directory: Path) -> Iterator[Server]:
    """Run a private SecantusDB that keeps nothing, with its log in `directory`."""
    binary, port = in_environment("secantusd-py", "secantusdb==0.7.0b3"), free_port()
    options = ["--standalone", "--host", HOST, "--port", str(port), "--storage-path", ":memory:"]
    with running([binary, *options], port, directory / "secantusdb.log", seconds=120):
        yield Server(HOST, port)


@pytest.fixture(scope="session")
def mongodb_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A private server that speaks MongoDB's wire protocol."""
    with secantusdb(tmp_path_factory.mktemp("secantusdb")) as server:
        yield server
