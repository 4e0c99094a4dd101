from __future__ import annotations

from typing import Any
from unittest import mock

from opentelemetry.instrumentation.utils import suppress_instrumentation

from tests.contract.probes import Probe


class RedisCluster(Probe):
    server = "redis_cluster_server"

    def open(self, server: Any) -> Any:
        import rediscluster

        with suppress_instrumentation():  # of what a plain client asks meanwhile
            return rediscluster.RedisCluster(host=server.host, port=server.port)

    def close(self, client: Any) -> None:
        client.connection_pool.disconnect()

    def operate(self, client: Any) -> Any:
        answer = object()
        client.set_response_callback("EXISTS", lambda *args, **kwargs: answer)
        return client.execute_command("EXISTS", "x") is answer

    def fail(self, client: Any, error: Exception) -> None:
        with mock.patch.object(client, "_determine_slot", side_effect=error):  # later, the client would log it
            client.execute_command("EXISTS", "x")
