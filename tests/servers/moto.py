"""moto's server, which stands in for AWS; in an environment of its own, for it brings botocore and Flask."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.environments import clean_variables
from tests.servers import HOST, free_port, in_environment, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REQUIREMENT = "moto[server]==5.2.5"


class Aws(NamedTuple):
    """Where the stand-in listens, and credentials that it takes for good."""

    host: str
    port: int

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def client(self) -> dict[str, str]:
        """What `create_client` needs to reach it."""
        return {
            "region_name": "eu-west-1",
            "endpoint_url": self.url,
            "aws_access_key_id": "AKIAEXAMPLE",
            "aws_secret_access_key": "hunter2",
        }


@contextmanager
def moto(directory: Path) -> Iterator[Aws]:
    """Run a private moto server with its log in `directory`."""
    program, port = in_environment("moto_server", REQUIREMENT), free_port()
    command = [program, "-H", HOST, "-p", str(port)]
    with running(command, port, directory / "moto.log", env=clean_variables(), seconds=120):
        yield Aws(HOST, port)


@pytest.fixture(scope="session")
def moto_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    """A private AWS."""
    with moto(tmp_path_factory.mktemp("moto")) as server:
        yield server
