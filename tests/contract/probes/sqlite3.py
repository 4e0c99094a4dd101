from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry.instrumentation.utils import suppress_instrumentation

from tests.contract.probes import Probe

if TYPE_CHECKING:
    from collections.abc import Iterator


class SQLite3(Probe):
    outlives = False  # the driver's classes are C and cannot be patched in place

    def open(self, server: Any) -> Any:
        import sqlite3

        connection = sqlite3.connect(":memory:")
        with suppress_instrumentation():
            connection.execute("CREATE TABLE items (id INTEGER)")
        return connection

    def close(self, connection: Any) -> None:
        connection.close()

    def operate(self, connection: Any) -> Any:
        import sqlite3

        cursor = connection.cursor()
        returned = cursor.execute("SELECT count(*) FROM items WHERE id = ?", (7,))
        same = isinstance(connection, sqlite3.Connection), isinstance(cursor, sqlite3.Cursor), returned is cursor
        return *same, returned.fetchall(), type(cursor).__name__, repr(type(cursor)), cursor.connection is connection

    def fail(self, connection: Any, error: Exception) -> None:
        def rows() -> Iterator[tuple[int]]:
            raise error
            yield (1,)

        connection.cursor().executemany("INSERT INTO items VALUES (?)", rows())
