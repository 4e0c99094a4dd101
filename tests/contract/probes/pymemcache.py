from __future__ import annotations

from typing import Any

from opentelemetry.instrumentation.utils import suppress_instrumentation

from tests.contract.probes import Probe


class Pymemcache(Probe):
    server = "memcached_server"

    def open(self, server: Any) -> Any:
        from pymemcache.client.base import Client

        client = Client((server.host, server.port), deserializer=self._deserialize)
        with suppress_instrumentation():
            client.set("k", "v", noreply=False)
        return client

    def close(self, client: Any) -> None:
        client.close()

    def _deserialize(self, key: Any, value: Any, flags: Any) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def operate(self, client: Any) -> Any:
        self.answer = object()
        return client.get("k") is self.answer

    def fail(self, client: Any, error: Exception) -> None:
        self.answer = error
        client.get("k")
