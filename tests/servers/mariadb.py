"""MariaDB, for the MySQL clients: user `tester`, password `secret`, database `shop`."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.servers import HOST, Server, find, free_port, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SET_UP = (
    b"CREATE DATABASE shop;"
    b"CREATE USER tester@localhost IDENTIFIED BY 'secret'; GRANT ALL ON *.* TO tester@localhost;"
    b"CREATE USER tester@'127.0.0.1' IDENTIFIED BY 'secret'; GRANT ALL ON *.* TO tester@'127.0.0.1';"
)


@contextmanager
def mariadb(directory: Path) -> Iterator[Server]:
    """Run a private MariaDB with its data in `directory`."""
    server, install = (find(binary, "mariadb-server") for binary in ("mariadbd", "mariadb-install-db"))
    data, socket, port = directory / "data", directory / "socket", free_port()
    user = ["--user=root"] if os.geteuid() == 0 else []
    create = [install, "--no-defaults", *user, f"--datadir={data}", "--auth-root-authentication-method=normal"]
    subprocess.run([*create, "--skip-test-db"], check=True, capture_output=True, timeout=120)
    places = [f"--datadir={data}", f"--socket={socket}", f"--pid-file={directory / 'pid'}"]
    command = [server, "--no-defaults", *user, *places, f"--bind-address={HOST}", f"--port={port}"]
    with running(command, port, directory / "mariadb.log"):
        client = [find("mariadb", "mariadb-client"), "--no-defaults", f"--socket={socket}", "-u", "root"]
        subprocess.run(client, input=_SET_UP, check=True, capture_output=True, timeout=60)
        yield Server(HOST, port)


@pytest.fixture(scope="session")
def mariadb_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A private MariaDB: user `tester`, password `secret`, database `shop`."""
    with mariadb(tmp_path_factory.mktemp("mariadb")) as server:
        yield server
