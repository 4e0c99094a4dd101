from __future__ import annotations

from typing import Any

from tests.contract.probes import Probe


class MySQL(Probe):
    server = "mariadb_server"

    def open(self, server: Any) -> Any:
        import mysql.connector

        connection = mysql.connector.connect(
            host=server.host, port=server.port, user="tester", password="secret", database="shop"
        )
        # The connector sends a current span's context along, and warns because MariaDB does not understand that.
        connection.otel_context_propagation = False
        return connection

    def close(self, connection: Any) -> None:
        connection.close()

    def operate(self, connection: Any) -> Any:
        cursor = connection.cursor()
        returned = cursor.execute("SELECT 'x', %s", (7,))
        return returned, list(cursor.fetchall()), type(cursor), type(connection)

    def fail(self, connection: Any, error: Exception) -> None:
        class Hostile(str):
            __slots__ = ()

            def encode(self, *args: Any, **kwargs: Any) -> bytes:
                raise error

        connection.cursor().execute(Hostile("SELECT 1"))
