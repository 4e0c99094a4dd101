from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.contract.probes.grpc_client import METHOD, GrpcClient, Timeout


class GrpcAioClient(GrpcClient):
    def open(self, server: Any) -> Any:
        import grpc.aio

        self.loop = asyncio.new_event_loop()

        async def connect() -> Any:
            return grpc.aio.insecure_channel(f"{server.host}:{server.port}")

        self.channel = self.loop.run_until_complete(connect())
        return self.channel.unary_unary(METHOD)

    def close(self, call: Any) -> None:
        self.loop.run_until_complete(self.channel.close())
        self.loop.close()

    def operate(self, call: Any) -> Any:
        async def work() -> Any:
            done = call(b"one", metadata=(("a", "b"),))
            self.metadata = json.loads(await done)
            return type(done), str(await done.code()), self.metadata["a"]

        answer = self.loop.run_until_complete(work())
        self.loop.run_until_complete(asyncio.sleep(0))  # what is called back when it is done
        return answer

    def fail(self, call: Any, error: Exception) -> None:
        async def work() -> Any:
            return await call(b"one", timeout=Timeout(error))

        self.loop.run_until_complete(work())
