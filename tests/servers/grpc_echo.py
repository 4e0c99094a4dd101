"""A gRPC server in a process of its own, where nothing is traced: answers with the metadata that it gets, as JSON."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.servers import HOST, Server, free_port, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROGRAM = """
import json, sys
from concurrent.futures import ThreadPoolExecutor
import grpc

def echo(request, context):
    return json.dumps(dict(context.invocation_metadata())).encode()

class Handlers(grpc.GenericRpcHandler):
    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(echo)

server = grpc.server(ThreadPoolExecutor(2))
server.add_generic_rpc_handlers((Handlers(),))
server.add_insecure_port(sys.argv[1])
server.start()
server.wait_for_termination()
"""


@contextmanager
def grpc_echo(directory: Path) -> Iterator[Server]:
    """Run it, with its log in `directory`."""
    port = free_port()
    with running([sys.executable, "-c", PROGRAM, f"{HOST}:{port}"], port, directory / "grpc.log"):
        yield Server(HOST, port)


@pytest.fixture(scope="session")
def grpc_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A gRPC server that echoes metadata."""
    pytest.importorskip("grpc")
    with grpc_echo(tmp_path_factory.mktemp("grpc")) as server:
        yield server
