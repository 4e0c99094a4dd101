"""A stand-in for Vertica, which cannot be had: it speaks protocol 3 to vertica-python, and knows one row."""

from __future__ import annotations

import struct
import threading
from contextlib import contextmanager, suppress
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import TYPE_CHECKING

import pytest

from tests.servers import HOST, Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SSL, _LOAD_BALANCE = 80877103, 80936960


def _message(kind: bytes, body: bytes = b"") -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


_READY = _message(b"Z", b"I")
_COLUMN = b"a\0" + struct.pack("!QH", 0, 1) + struct.pack("!BIhHHiH", 0, 6, 8, 1, 0, -1, 0)
_DESCRIPTION = _message(b"T", struct.pack("!HI", 1, 0) + _COLUMN)
_ROW = _message(b"D", struct.pack("!H", 1) + struct.pack("!i", 1) + b"7")
_SELECTED = _DESCRIPTION + _ROW + _message(b"C", b"SELECT 1\0") + _READY
_ERROR = _message(b"E", b'SERROR\0C42601\0MSyntax error at or near "bad"\0\0') + _READY
_WELCOME = (
    _message(b"R", struct.pack("!I", 0))
    + _message(b"S", b"server_version\0v12.0\0")
    + _message(b"K", struct.pack("!II", 1, 2))
    + _READY
)


class _Session(BaseRequestHandler):
    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self.request.recv(size - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def _body(self) -> bytes:
        return self._read(struct.unpack("!I", self._read(4))[0] - 4)

    def handle(self) -> None:
        with suppress(EOFError, ConnectionError):
            while struct.unpack("!I", self._body()[:4])[0] in {_SSL, _LOAD_BALANCE}:
                self.request.sendall(b"N")
            self.request.sendall(_WELCOME)
            while (kind := self._read(1)) != b"X":
                self._answer(kind, self._body())

    def _answer(self, kind: bytes, body: bytes) -> None:
        if kind != b"Q":
            return
        query = body.rstrip(b"\0").decode().lower()
        if query.startswith("bad"):
            self.request.sendall(_ERROR)
        elif query.startswith("select"):
            self.request.sendall(_SELECTED)
        else:
            self.request.sendall(_message(b"C", b"OK\0") + _READY)


@contextmanager
def vertica(directory: Path | None = None) -> Iterator[Server]:
    """Run the stand-in; it leaves nothing in `directory`."""
    with ThreadingTCPServer((HOST, 0), _Session) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield Server(*server.server_address)
        finally:
            server.shutdown()


@pytest.fixture(scope="session")
def vertica_server() -> Iterator[Server]:
    """A stand-in for Vertica: any user, any database."""
    with vertica() as server:
        yield server
