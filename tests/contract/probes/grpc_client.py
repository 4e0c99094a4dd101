from __future__ import annotations

import json
from typing import Any

from tests.contract.probes import Probe

METHOD = "/shop.Cart/Add"


class Timeout:
    """Raises an error in the midst of a call, where grpc adds it to the clock."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __radd__(self, other: Any) -> Any:
        raise self.error


class GrpcClient(Probe):
    server = "grpc_server"

    def open(self, server: Any) -> Any:
        import grpc

        self.channel = grpc.insecure_channel(f"{server.host}:{server.port}")
        return self.channel.unary_unary(METHOD)

    def close(self, call: Any) -> None:
        self.channel.close()

    def operate(self, call: Any) -> Any:
        answer, done = call.with_call(b"one", metadata=(("a", "b"),))
        self.metadata = json.loads(answer)
        return type(done), str(done.code()), self.metadata["a"]

    def fail(self, call: Any, error: Exception) -> None:
        call(b"one", timeout=Timeout(error))

    def sent(self, call: Any) -> Any:
        return self.metadata
