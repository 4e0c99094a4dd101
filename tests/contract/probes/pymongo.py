from __future__ import annotations

from typing import Any
from unittest import mock

from opentelemetry.instrumentation.utils import suppress_instrumentation

from tests.contract.probes import Probe


class Pymongo(Probe):
    server = "mongodb_server"

    def open(self, server: Any) -> Any:
        from pymongo import MongoClient

        client = MongoClient(server.host, server.port)
        with suppress_instrumentation():
            client.contract.things.replace_one({"_id": 1}, {"name": "n"}, upsert=True)
        return client

    def close(self, client: Any) -> None:
        with suppress_instrumentation():
            client.close()

    def operate(self, client: Any) -> Any:
        return client.contract.things.find_one({"_id": 1})

    def fail(self, client: Any, error: Exception) -> None:
        with mock.patch.object(client._topology, "select_servers", side_effect=error):
            client.contract.things.find_one({"_id": 1})
