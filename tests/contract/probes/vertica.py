from __future__ import annotations

from typing import Any

from tests.contract.probes import Probe


class Vertica(Probe):
    server = "vertica_server"

    def open(self, server: Any) -> Any:
        import vertica_python

        where = {"host": server.host, "port": server.port, "database": "shop", "tlsmode": "disable"}
        return vertica_python.connect(user="me", password="", **where)

    def close(self, connection: Any) -> None:
        connection.close()

    def operate(self, connection: Any) -> Any:
        cursor = connection.cursor()
        returned = cursor.execute("SELECT 'x'")
        return returned is cursor, cursor.fetchall(), type(cursor), cursor.connection is connection

    def fail(self, connection: Any, error: Exception) -> None:
        def write(*args: Any) -> None:
            raise error

        connection.write, plain = write, connection.write
        try:
            connection.cursor().execute("SELECT 1")
        finally:
            connection.write = plain
