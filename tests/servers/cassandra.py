"""A stand-in for Cassandra: answers its native protocol (versions 3 and 4) well enough for the drivers from 3.5 on.

Statements that begin with `bad` are syntax errors, those that read `pages` get two pages of two rows, other SELECTs one
row. https://github.com/apache/cassandra/blob/trunk/doc/native_protocol_v4.spec
"""

from __future__ import annotations

import socketserver
import struct
import threading
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.servers import HOST, Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Opcodes of requests and of answers.
STARTUP, OPTIONS, QUERY, PREPARE, EXECUTE, REGISTER, BATCH = 1, 5, 7, 9, 10, 11, 13
ERROR, READY, SUPPORTED, RESULT = 0, 2, 6, 8
PROTOCOL_ERROR, SYNTAX_ERROR = 0x000A, 0x2000
VOID, ROWS, SET_KEYSPACE, PREPARED = 1, 2, 3, 4
INT, UUID, VARCHAR, INET, SET = 9, 12, 13, 16, 0x22
HAS_MORE_PAGES, WITH_PAGING_STATE, PAGE_SIZE, WITH_VALUES = 2, 8, 4, 1


def string(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack(">H", len(encoded)) + encoded


def value(content: bytes) -> bytes:
    return struct.pack(">i", len(content)) + content


def kind(number: int) -> bytes:
    return struct.pack(">HH", SET, VARCHAR) if number == SET else struct.pack(">H", number)


def columns(keyspace: str, table: str, names: dict[str, int]) -> bytes:
    return string(keyspace) + string(table) + b"".join(string(name) + kind(number) for name, number in names.items())


def rows(table: str, names: dict[str, int], content: list[list[bytes]], *, more: bytes = b"") -> bytes:
    flags = 1 | (HAS_MORE_PAGES if more else 0)
    head = struct.pack(">iii", ROWS, flags, len(names)) + (value(more) if more else b"")
    cells = b"".join(value(cell) for row in content for cell in row)
    return head + columns("ks", table, names) + struct.pack(">i", len(content)) + cells


def error(code: int, message: str) -> tuple[int, bytes]:
    return ERROR, struct.pack(">i", code) + string(message)


HOST_ID = uuid.uuid4().bytes
ADDRESS = bytes([127, 0, 0, 1])
LOCAL = {
    "key": (VARCHAR, b"local"),
    "cluster_name": (VARCHAR, b"standin"),
    "data_center": (VARCHAR, b"dc1"),
    "rack": (VARCHAR, b"r1"),
    "release_version": (VARCHAR, b"3.11.0"),
    "partitioner": (VARCHAR, b"org.apache.cassandra.dht.Murmur3Partitioner"),
    "tokens": (SET, struct.pack(">i", 1) + value(b"0")),
    "rpc_address": (INET, ADDRESS),
    "broadcast_address": (INET, ADDRESS),
    "listen_address": (INET, ADDRESS),
    "host_id": (UUID, HOST_ID),
    "schema_version": (UUID, HOST_ID),
    "native_protocol_version": (VARCHAR, b"4"),
    "cql_version": (VARCHAR, b"3.4.4"),
}
PEERS = {"peer": INET, "keyspace_name": VARCHAR, "rpc_address": INET}


class Connection(socketserver.BaseRequestHandler):
    """One connection: frames in, frames out."""

    def handle(self) -> None:
        try:
            while True:
                version, _, stream, opcode, length = struct.unpack(">BBhBi", self.read(9))
                body = self.read(length)
                if version > 4:
                    version, (answer, content) = (
                        4,
                        error(
                            PROTOCOL_ERROR,
                            f"Invalid or unsupported protocol version ({version}); the greatest supported version is 4",
                        ),
                    )
                else:
                    answer, content = self.answer(version, opcode, body)
                self.request.sendall(struct.pack(">BBhBi", 0x80 | version, 0, stream, answer, len(content)) + content)
        except (EOFError, ConnectionError):
            pass

    def read(self, count: int) -> bytes:
        collected = b""
        while len(collected) < count:
            if not (received := self.request.recv(count - len(collected))):
                raise EOFError
            collected += received
        return collected

    def answer(self, version: int, opcode: int, body: bytes) -> tuple[int, bytes]:
        if opcode in {STARTUP, REGISTER}:
            return READY, b""
        if opcode == OPTIONS:
            options = string("CQL_VERSION") + struct.pack(">H", 1) + string("3.4.4")
            return SUPPORTED, struct.pack(">H", 2) + options + string("COMPRESSION") + struct.pack(">H", 0)
        if opcode == QUERY:
            (length,) = struct.unpack(">i", body[:4])
            return self.run(body[4 : 4 + length].decode(), body[4 + length :])
        if opcode == PREPARE:
            identity = uuid.uuid4().bytes
            self.server.prepared[identity] = body[4:].decode()  # type: ignore[attr-defined]
            keys = struct.pack(">i", 0) if version >= 4 else b""
            variables = struct.pack(">ii", 1, 1) + keys + columns("ks", "t", {"b": VARCHAR})
            results = struct.pack(">ii", 1, 1) + columns("ks", "t", {"a": INT})
            return RESULT, struct.pack(">iH", PREPARED, len(identity)) + identity + variables + results
        if opcode == EXECUTE:
            (length,) = struct.unpack(">H", body[:2])
            return self.run(self.server.prepared[body[2 : 2 + length]], body[2 + length :])  # type: ignore[attr-defined]
        if opcode == BATCH:
            return RESULT, struct.pack(">i", VOID)
        return error(PROTOCOL_ERROR, f"unexpected opcode {opcode}")

    def run(self, statement: str, parameters: bytes) -> tuple[int, bytes]:
        lower = statement.lower()
        if lower.startswith("bad"):
            return error(SYNTAX_ERROR, "line 1:0 no viable alternative at input 'bad'")
        if "system.local" in lower:
            content = [[cell for _, cell in LOCAL.values()]]
            return RESULT, rows("local", {name: number for name, (number, _) in LOCAL.items()}, content)
        if "system" in lower and "from" in lower:
            return RESULT, rows("peers", PEERS, [])
        if lower.startswith("use "):
            return RESULT, struct.pack(">i", SET_KEYSPACE) + string(lower[4:].strip('" '))
        if lower.startswith("select"):
            first = "pages" in lower and not parameters[2] & WITH_PAGING_STATE
            number = struct.pack(">i", 7)
            return RESULT, rows(
                "t", {"a": INT}, [[number]] * (2 if "pages" in lower else 1), more=b"2" if first else b""
            )
        return RESULT, struct.pack(">i", VOID)


class StandIn(socketserver.ThreadingTCPServer):
    """The stand-in's socket; statements are prepared for all of its connections."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self) -> None:
        self.prepared: dict[bytes, str] = {}
        super().__init__((HOST, 0), Connection)


@contextmanager
def cassandra(directory: Path) -> Iterator[Server]:
    """Run the stand-in; it keeps nothing, in `directory` or elsewhere."""
    with StandIn() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Server(HOST, server.server_address[1])
        server.shutdown()


@pytest.fixture(scope="session")
def cassandra_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A stand-in for Cassandra."""
    with cassandra(tmp_path_factory.getbasetemp()) as server:
        yield server
