"""PostgreSQL: user `postgres` without a password, database `postgres`."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.servers import HOST, Server, find, free_port, running, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

_DEBIAN = Path("/usr/lib/postgresql")  # its binaries are not on PATH


def _binary(name: str) -> str:
    def newest() -> str | None:
        found = sorted(_DEBIAN.glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
        return str(found[-1]) if found else shutil.which(name)

    path = newest()
    if path is None:
        find("pg_ctlcluster", "postgresql")  # installs the package
        path = newest()
    assert path is not None
    return path


@contextmanager
def postgres(directory: Path, *settings: str) -> Iterator[Server]:
    """Run a private PostgreSQL; its log is in `directory`, its data elsewhere, for it refuses to be root's."""
    server, initdb = _binary("postgres"), _binary("initdb")
    root, port = os.geteuid() == 0, free_port()
    as_user = ["runuser", "-u", "postgres", "--"] if root else []
    with tempfile.TemporaryDirectory(prefix="postgres-") as home:
        if root:
            shutil.chown(home, "postgres")
        data = Path(home, "data")
        create = [*as_user, initdb, "-D", str(data), "-A", "trust", "-U", "postgres", "--no-sync", "-E", "UTF8"]
        subprocess.run(create, check=True, capture_output=True, timeout=120, cwd="/")
        options = [f"listen_addresses={HOST}", f"port={port}", f"unix_socket_directories={home}", "fsync=off"]
        flags = [flag for option in (*options, *settings) for flag in ("-c", option)]
        with running([*as_user, server, "-D", str(data), *flags], port, directory / "postgres.log"):
            ask = [_binary("pg_isready"), "-h", HOST, "-p", str(port)]  # it listens before it lets anybody in
            wait_for(lambda: subprocess.run(ask, capture_output=True, check=False).returncode == 0, "PostgreSQL")
            yield Server(HOST, port)


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A private PostgreSQL: user `postgres` without a password, two-phase commits allowed."""
    with postgres(tmp_path_factory.mktemp("postgres"), "max_prepared_transactions=10") as server:
        yield server
