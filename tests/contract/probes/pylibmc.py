from __future__ import annotations

from typing import Any

from opentelemetry.instrumentation.utils import suppress_instrumentation

from tests.contract.probes import Probe


class Pylibmc(Probe):
    server = "memcached_server"

    def open(self, server: Any) -> Any:
        import pylibmc

        class Client(pylibmc.Client):
            fault: Exception | None = None

            def deserialize(self, value: bytes, flags: int) -> Any:
                if self.fault is not None:
                    raise self.fault
                return super().deserialize(value, flags)

        client = Client([f"{server.host}:{server.port}"])
        with suppress_instrumentation():
            client.set("k", "v")
        return client

    def operate(self, client: Any) -> Any:
        return client.get("k")

    def fail(self, client: Any, error: Exception) -> None:
        client.fault = error
        client.get("k")
