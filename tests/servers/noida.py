"""noida-db, an independent server that speaks Elasticsearch's protocol."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.servers import HOST, Server, free_port, in_environment, running

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def noida(directory: Path) -> Iterator[Server]:
    """Run a private noida-db with its files in `directory`."""
    script, port = Path(in_environment("noida-db", "noida-db==0.2.3")), free_port()
    # The script would fork the binary, and leave it behind.
    binary = next(script.parent.parent.glob("lib/python*/site-packages/noida_db/noida-db"))
    options = ["start", "--only", "elasticsearch", "--host", HOST, "--elasticsearch-port", str(port)]
    with running([str(binary), *options, "--data-dir", str(directory)], port, directory / "noida.log"):
        yield Server(HOST, port)


@pytest.fixture(scope="session")
def elasticsearch_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A private server that speaks Elasticsearch's protocol."""
    with noida(tmp_path_factory.mktemp("noida")) as server:
        yield server
