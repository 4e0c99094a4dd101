from __future__ import annotations

from typing import Any

from tests.contract.probes import Probe


class Psycopg2(Probe):
    server = "postgres_server"
    outlives = False  # the driver's classes are C and cannot be patched in place

    def open(self, server: Any) -> Any:
        import psycopg2

        return psycopg2.connect(host=server.host, port=server.port, user="postgres", dbname="postgres")

    def close(self, connection: Any) -> None:
        connection.close()

    def operate(self, connection: Any) -> Any:
        from psycopg2 import extensions

        cursor = connection.cursor()
        returned = cursor.execute("SELECT 'x', %s", (7,))
        same = isinstance(connection, extensions.connection), isinstance(cursor, extensions.cursor)
        return (
            *same,
            returned,
            cursor.fetchall(),
            type(cursor).__name__,
            repr(type(cursor)),
            cursor.connection is connection,
        )

    def fail(self, connection: Any, error: Exception) -> None:
        from psycopg2 import extensions

        class Hostile:
            def __conform__(self, protocol: Any) -> None:
                raise error

        assert extensions.ISQLQuote
        connection.cursor().execute("SELECT %s", (Hostile(),))
