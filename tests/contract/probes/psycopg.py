from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.contract.probes import Probe

if TYPE_CHECKING:
    from collections.abc import Iterator


class Psycopg(Probe):
    server = "postgres_server"

    def open(self, server: Any) -> Any:
        import psycopg

        return psycopg.connect(host=server.host, port=server.port, user="postgres", dbname="postgres")

    def close(self, connection: Any) -> None:
        connection.close()

    def operate(self, connection: Any) -> Any:
        cursor = connection.cursor()
        returned = cursor.execute("SELECT 'x', %s::int", (7,))
        return returned is cursor, cursor.fetchall(), cursor.connection is connection, type(cursor)

    def fail(self, connection: Any, error: Exception) -> None:
        def rows() -> Iterator[tuple[int]]:
            raise error
            yield (1,)

        connection.cursor().executemany("SELECT %s", rows())
