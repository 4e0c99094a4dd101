"""What every test may ask for, and what every test gets: variables of ours cleared, private servers per session."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests import servers

if TYPE_CHECKING:
    from collections.abc import Iterator

for name in [name for name in os.environ if name.startswith(("OTEL_", "DD_", "SPANBRIDGE_"))]:
    del os.environ[name]  # before anything of ours is imported: some settings are read once

pytest_plugins = ["spanbridge.testing"]


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Server]:
    """A private redis-server."""
    with servers.redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def redis_cluster_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Server]:
    """The first node of a private Redis cluster."""
    with servers.redis_cluster(tmp_path_factory.mktemp("cluster")) as server:
        yield server
