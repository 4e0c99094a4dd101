from __future__ import annotations

from contextvars import copy_context
from inspect import signature
from types import SimpleNamespace
from typing import Any

from tests.contract.probes import Probe

METHOD = "/shop.Cart/Add"
METADATA = (("user-agent", "tests"),)


class Context:
    """What a handler is given, as far as we look at it."""

    def invocation_metadata(self) -> Any:
        return METADATA

    def peer(self) -> str:
        return "ipv4:127.0.0.1:57284"

    def code(self) -> None: ...

    def details(self) -> None: ...


class GrpcServer(Probe):
    """Within the caller's thread, so that contexts and exceptions come through: no network, and no server's threads."""

    def open(self, server: Any) -> Any:
        import grpc

        self.error: Exception | None = None

        def add(request: bytes, context: Any) -> bytes:
            if self.error is not None:
                raise self.error
            return request * 2

        self.behavior = add
        return grpc.unary_unary_rpc_method_handler(add)

    def operate(self, handler: Any) -> Any:
        from grpc import _server

        details = SimpleNamespace(method=METHOD.encode())
        event = SimpleNamespace(call_details=details, invocation_metadata=METADATA)
        if "state" in signature(_server._find_method_handler).parameters:  # newer versions
            state = SimpleNamespace(context=copy_context())
            method = SimpleNamespace(handler=lambda details: handler, name=lambda: METHOD)
            found = _server._find_method_handler(event, state, method, None)
        else:
            generic = SimpleNamespace(service=lambda details: handler)
            found = _server._find_method_handler(event, [generic], None)
        answer = found.unary_unary(b"one", Context())
        return answer, found.request_streaming, found.response_streaming, found.unary_unary.__name__

    def fail(self, handler: Any, error: Exception) -> None:
        self.error = error
        self.operate(handler)
