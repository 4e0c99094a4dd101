"""sqlite3: one CLIENT span per statement, commit and rollback, through cursors and through connections.

Connections and cursors become subclasses of the classes that the application asked for; the end of a `with` block is
the commit or rollback that it does. Not traced: fetching, unless `trace_fetch` asks for it, `backup`, `iterdump`,
blobs, and connections made by calling their class.
"""

from __future__ import annotations

from dataclasses import replace
from functools import wraps
from typing import TYPE_CHECKING, Any

from spanbridge.conventions import carry, database, drivers
from spanbridge.conventions.database import Query, Target, text_of
from spanbridge.conventions.dbapi import Known, compiled, get_traced_cursor_proxy, proxied
from spanbridge.conventions.drivers import Driver
from spanbridge.core.instrumentor import Instrumentor
from spanbridge.core.patching import Library, Patch
from spanbridge.version import __version__ as __version__

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Mapping

    from opentelemetry.trace import TracerProvider

    from spanbridge.core.tracing import Operation, Setup, Wrapped

_TARGET = Target("sqlite")
_DRIVER = Driver("sqlite3", "sqlite", {}, lambda *args, **kwargs: _TARGET).leading_to(_TARGET)


def _execute(cursor: Any, sql: Any, parameters: Any = None, /) -> Query:
    return Query(_TARGET, text_of(sql), cursor, parameters)


def _executemany(cursor: Any, sql: Any, parameters: Any, /) -> Query:
    size = database.batch_size(parameters)
    return Query(_TARGET, text_of(sql), cursor, parameters, size)


def _executescript(cursor: Any, script: Any, /) -> Query:
    return Query(_TARGET, text_of(script), cursor)


def _verb(verb: str) -> Callable[..., Query | None]:
    def describe(connection: Any, /) -> Query:
        return Query(_TARGET, verb=verb)

    return describe


def _left(connection: Any, error_type: Any = None, /, *_: Any) -> Query | None:
    """Describe the end of a `with` block, which does nothing outside of a transaction."""
    return Query(_TARGET, verb="ROLLBACK" if error_type else "COMMIT") if connection.in_transaction else None


def _operations(setup: Setup) -> tuple[Mapping[str, Operation[Query]], Mapping[str, Operation[Query]]]:
    """Say which methods run what: (of cursors, of connections besides)."""
    statements: dict[str, Callable[..., Query]] = {
        "execute": _execute,
        "executemany": _executemany,
        "executescript": _executescript,
    }
    # A layer above has nothing to learn of where a file is.
    cursors = {name: replace(database.operation(setup, describe), enrich=None) for name, describe in statements.items()}
    if setup.options["trace_fetch"]:
        cursors |= _DRIVER.cursor_operations(setup)  # these remember what is fetched
    # contrib traces no transactions; ddtrace, whose dashboards ours are to fill, does.
    endings: dict[str, Callable[..., Query | None]] = {
        "commit": _verb("COMMIT"),
        "rollback": _verb("ROLLBACK"),
        "__exit__": _left,
    }
    wanted = {} if setup.semconv.contrib else endings
    return cursors, {name: database.operation(setup, describe) for name, describe in wanted.items()}


# The position of `factory` in sqlite3.connect, for those who pass it so.
_FACTORY = 5


def _connecting(wrapped: Wrapped, setup: Setup) -> Wrapped:
    # Not from the package, which is still being imported when its `dbapi2` is there.
    from sqlite3.dbapi2 import Connection, Cursor

    cursor_operations, endings = _operations(setup)
    cursors = database.Subclasses(Cursor, setup, cursor_operations)
    known = Known(compiled(setup), _TARGET)

    def cursor(self: Connection, factory: Any = Cursor) -> Any:
        if isinstance(factory, type):
            return Connection.cursor(self, cursors.of(factory))
        made = Connection.cursor(self, factory)
        return made if cursors.adopt(made) else get_traced_cursor_proxy(made, known)

    def backup(self: Connection, target: Any, **options: Any) -> None:
        Connection.backup(self, getattr(target, "__wrapped__", target), **options)

    def through_cursor(method: str) -> Callable[..., Any]:
        def call(self: Connection, *args: Any) -> Any:
            return getattr(cursor(self), method)(*args)

        return wraps(getattr(Connection, method))(call)

    members: dict[str, Any] = {"cursor": cursor, "backup": backup}
    if setup.options["trace_fetch"]:  # the cursor that a connection's own method makes is the driver's, in C
        members |= {method: through_cursor(method) for method in ("execute", "executemany")}
    connections = database.Subclasses(Connection, setup, {**cursor_operations, **endings}, members)
    source = setup.source

    @wraps(wrapped)
    def connect(*args: Any, **kwargs: Any) -> Any:
        if source.closed:
            return wrapped(*args, **kwargs)
        factory = args[_FACTORY] if len(args) > _FACTORY else kwargs.get("factory", Connection)
        if not isinstance(factory, type):
            made = wrapped(*args, **kwargs)
            return made if connections.adopt(made) else proxied(made, known)
        if len(args) > _FACTORY:
            args = (*args[:_FACTORY], connections.of(factory), *args[_FACTORY + 1 :])
        else:
            kwargs["factory"] = connections.of(factory)
        return wrapped(*args, **kwargs)

    return connect


class SQLite3Instrumentor(Instrumentor):
    """Traces connections made by `sqlite3.connect`, whoever holds that function."""

    library = Library("sqlite3")
    options = (drivers.TRACE_FETCH,)
    patches = (
        Patch("sqlite3.dbapi2", "connect", _connecting),
        # aiosqlite hands its calls to a thread: what they do belongs where they were made.
        Patch("aiosqlite.core", "Connection._execute", carry.argument(1, "fn")),
    )

    @staticmethod
    def instrument_connection(
        connection: sqlite3.Connection, tracer_provider: TracerProvider | None = None
    ) -> sqlite3.Connection:
        """Trace this one connection, made before; answers a proxy, for its class is C and fixed.

        Args:
            connection: the connection.
            tracer_provider: instead of the global one.
        """
        from spanbridge.instrumentors import dbapi

        traced: sqlite3.Connection = dbapi.instrument_connection(
            __name__, connection, "sqlite", {}, version=__version__, tracer_provider=tracer_provider
        )
        return traced

    @staticmethod
    def uninstrument_connection(connection: sqlite3.Connection) -> sqlite3.Connection:
        """Answer the connection as it is without us: a proxy's original, a traced one switched off."""
        from spanbridge.instrumentors import dbapi

        plain: sqlite3.Connection = dbapi.uninstrument_connection(connection)
        return plain
