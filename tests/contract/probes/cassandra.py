from __future__ import annotations

from typing import Any
from unittest import mock

from tests.contract.probes import Probe


class Cassandra(Probe):
    server = "cassandra_server"

    def open(self, server: Any) -> Any:
        from cassandra.cluster import Cluster

        return Cluster(port=server.port, protocol_version=4).connect()  # else the driver warns

    def close(self, session: Any) -> None:
        session.cluster.shutdown()

    def operate(self, session: Any) -> Any:
        return [row.a for row in session.execute("SELECT a FROM t")]

    def fail(self, session: Any, error: Exception) -> None:
        with mock.patch.object(session, "_create_response_future", side_effect=error):
            session.execute("SELECT a FROM t")
