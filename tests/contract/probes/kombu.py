from __future__ import annotations

from typing import Any

from tests.contract.probes import Probe


class Kombu(Probe):
    def open(self, server: Any) -> Any:
        from kombu import Connection

        connection = Connection("memory://localhost")
        self.queue = connection.SimpleQueue("contract")
        self.queue.clear()
        return connection

    def close(self, connection: Any) -> None:
        self.queue.close()
        connection.release()

    def operate(self, connection: Any) -> Any:
        from kombu import Producer

        headers = {"own": "header"}
        answer = Producer(connection.default_channel).publish({"id": 7}, routing_key="contract", headers=headers)
        self.message = connection.default_channel.basic_get("contract")
        return answer is None, headers, self.message.payload, self.message.headers["own"]

    def fail(self, connection: Any, error: Exception) -> None:
        from kombu import Consumer, Queue

        def work(body: Any, message: Any) -> None:
            raise error

        self.queue.put("x")
        with Consumer(connection.default_channel, [Queue("contract")], callbacks=[work], no_ack=True):
            connection.drain_events(timeout=20)

    def sent(self, connection: Any) -> Any:
        return self.message.headers
