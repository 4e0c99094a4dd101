from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.contract.probes import Probe

if TYPE_CHECKING:
    from collections.abc import Iterator


class MySQLClient(Probe):
    server = "mariadb_server"

    def open(self, server: Any) -> Any:
        import MySQLdb

        return MySQLdb.connect(host=server.host, port=server.port, user="tester", password="secret", database="shop")

    def close(self, connection: Any) -> None:
        connection.close()

    def operate(self, connection: Any) -> Any:
        cursor = connection.cursor()
        returned = cursor.execute("SELECT 'x', %s", (7,))
        return returned, list(cursor.fetchall()), type(cursor), type(connection)

    def fail(self, connection: Any, error: Exception) -> None:
        def rows() -> Iterator[tuple[int]]:
            raise error
            yield (1,)

        connection.cursor().executemany("SELECT %s", rows())
