# /// script
# dependencies = ["grpcio==1.85.3"]
# ///
"""A gRPC client and server of all four kinds of calls, well and ill, in one process over loopback."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import grpc

if TYPE_CHECKING:
    from collections.abc import Iterator


def one(request: bytes, context: Any) -> bytes:
    if request == b"missing":
        context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")
    if request == b"broken":
        raise ValueError("of the server")
    return request


def many(request: bytes, context: Any) -> Iterator[bytes]:
    yield from (request, request)


def joined(requests: Iterator[bytes], context: Any) -> bytes:
    return b"".join(requests)


def each(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
    yield from requests


HANDLERS = {
    "One": grpc.unary_unary_rpc_method_handler(one),
    "Many": grpc.unary_stream_rpc_method_handler(many),
    "Joined": grpc.stream_unary_rpc_method_handler(joined),
    "Each": grpc.stream_stream_rpc_method_handler(each),
}


def main() -> None:
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.Stock", HANDLERS),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary("/shop.Stock/One")
        print(call(b"x"), call.with_call(b"y")[0], call.future(b"z").result())
        for name in (b"missing", b"broken"):
            with suppress(grpc.RpcError):
                call(name)
        with suppress(grpc.RpcError):
            channel.unary_unary("/shop.Stock/Unknown")(b"x")
        print(list(channel.unary_stream("/shop.Stock/Many")(b"x")))
        print(channel.stream_unary("/shop.Stock/Joined")(iter([b"x", b"y"])))
        print(list(channel.stream_stream("/shop.Stock/Each")(iter([b"x", b"y"]))))
    server.stop(None).wait()


main()
