from __future__ import annotations

from typing import Any
from unittest import mock

from tests.contract.probes import Probe


class Elasticsearch(Probe):
    server = "elasticsearch_server"

    def open(self, server: Any) -> Any:
        from elasticsearch import Elasticsearch

        client = Elasticsearch(f"http://{server.host}:{server.port}")
        client._otel.enabled = False  # that it is silent beside us, its own test sees
        return client

    def close(self, client: Any) -> None:
        client.close()

    def operate(self, client: Any) -> Any:
        return client.info()["tagline"]

    def fail(self, client: Any, error: Exception) -> None:
        with mock.patch.object(client.transport.node_pool, "get", side_effect=error):
            client.info()
