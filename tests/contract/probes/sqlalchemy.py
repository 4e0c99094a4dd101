from __future__ import annotations

import sqlite3
from typing import Any

from tests.contract.probes import Probe


class Connection(sqlite3.Connection):
    """Made by calling the class, so that no instrumentor of the driver has a hand in it."""

    error: Exception | None = None

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        return super().cursor(Cursor)


class Cursor(sqlite3.Cursor):
    def execute(self, *args: Any, **kwargs: Any) -> Any:
        if self.connection.error is not None:
            raise self.connection.error
        return super().execute(*args, **kwargs)


class SQLAlchemy(Probe):
    def open(self, server: Any) -> Any:
        import sqlalchemy
        from sqlalchemy.pool import StaticPool

        connection = Connection(":memory:", check_same_thread=False)
        return sqlalchemy.create_engine("sqlite://", creator=lambda: connection, poolclass=StaticPool)

    def close(self, engine: Any) -> None:
        engine.dispose()

    def operate(self, engine: Any) -> Any:
        import sqlalchemy

        with engine.connect() as connection:
            result = connection.execute(sqlalchemy.text("SELECT 'x', :number"), {"number": 7})
            return [tuple(row) for row in result.fetchall()], type(result), type(connection), type(engine)

    def fail(self, engine: Any, error: Exception) -> None:
        import sqlalchemy

        with engine.connect() as connection:
            driver = getattr(connection.connection, "dbapi_connection", None) or connection.connection.connection
            driver.error = error
            try:
                connection.execute(sqlalchemy.text("SELECT 1"))
            finally:
                driver.error = None
