from __future__ import annotations

from typing import Any

from tests.contract.probes import Probe


class Redis(Probe):
    server = "redis_server"

    def open(self, server: Any) -> Any:
        import redis

        return redis.Redis(server.host, server.port)

    def close(self, client: Any) -> None:
        client.close()

    def operate(self, client: Any) -> Any:
        answer = object()
        client.set_response_callback("ECHO", lambda *args, **kwargs: answer)
        return client.execute_command("ECHO", "x") is answer

    def fail(self, client: Any, error: Exception) -> None:
        def raise_error(*args: Any, **kwargs: Any) -> None:
            raise error

        client.set_response_callback("ECHO", raise_error)
        client.execute_command("ECHO", "x")
