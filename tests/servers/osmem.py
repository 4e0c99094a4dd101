"""osmem-server, an independent server that speaks OpenSearch's protocol."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.servers import HOST, Server, free_port, in_environment, running

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def osmem(directory: Path) -> Iterator[Server]:
    """Run a private osmem-server, which keeps nothing, with its log in `directory`."""
    python, port = Path(in_environment("python", "osmem-server==0.1.6", name="osmem")), free_port()
    binary = next(python.parent.parent.glob("lib/python*/site-packages/osmem_server/bin/osmem-server"))
    with running([str(binary), "-addr", f"{HOST}:{port}", "-no-stdin-watch"], port, directory / "osmem.log"):
        yield Server(HOST, port)


@pytest.fixture(scope="session")
def opensearch_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A private server that speaks OpenSearch's protocol."""
    with osmem(tmp_path_factory.mktemp("osmem")) as server:
        yield server
