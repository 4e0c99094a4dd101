from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from tests.contract.probes import Probe
from tests.contract.probes.grpc_server import METADATA, METHOD, Context


class GrpcAioServer(Probe):
    """The interceptors of a server, without the server, so that contexts and exceptions come through."""

    outlives = False  # asyncio servers call their handlers in C

    def open(self, server: Any) -> Any:
        import grpc.aio._server as module

        made: list[Any] = []
        original = module.cygrpc
        module.cygrpc = SimpleNamespace(get_working_loop=lambda: None, AioServer=lambda *args: made.append(args))
        try:
            grpc_server = module.server()
        finally:
            module.cygrpc = original
        del grpc_server._server  # which is no server, so there is nothing to shut down
        self.error: Exception | None = None
        return list(made[0][3] or ())

    def operate(self, interceptors: Any) -> Any:
        import grpc

        async def add(request: bytes, context: Any) -> bytes:
            if self.error is not None:
                raise self.error
            return request * 2

        async def call() -> Any:
            handler = grpc.unary_unary_rpc_method_handler(add)

            async def find(details: Any) -> Any:
                return handler

            details = SimpleNamespace(method=METHOD, invocation_metadata=METADATA)
            for interceptor in interceptors:
                handler = await interceptor.intercept_service(find, details)
            return await handler.unary_unary(b"one", Context()), handler.unary_unary.__name__

        return asyncio.run(call())

    def fail(self, interceptors: Any, error: Exception) -> None:
        self.error = error
        self.operate(interceptors)
