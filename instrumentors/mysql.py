"""mysql-connector, pure, C and `.aio`, in pools or not: one CLIENT span per statement, commit and rollback.

A connection that fails to open makes a span. Not traced: fetching, `cmd_query` and its kin, `ping`, the X protocol.
"""

from __future__ import annotations

from functools import partial, wraps
from typing import TYPE_CHECKING, Any

from spanbridge.conventions import drivers
from spanbridge.conventions.database import Target, shared_target
from spanbridge.conventions.drivers import Driver, as_port, as_text
from spanbridge.core.guard import guarded
from spanbridge.core.patching import Library, Patch
from spanbridge.instrumentors.dbapi import DriverInstrumentor
from spanbridge.version import __version__ as __version__

if TYPE_CHECKING:
    from spanbridge.core.tracing import Setup, Wrapped


def _connection_of(cursor: Any) -> Any:
    connection = getattr(cursor, "_connection", None)
    return getattr(cursor, "_cnx", None) if connection is None else connection  # by version


def _arguments(connection: Any, /, **kwargs: Any) -> Target:
    """Ask a connection for its settings, which those of a `connect(**kwargs)` are about to replace.

    The public `database` asks the server.
    """
    names = {"database": "_database", "user": "_user", "host": "_host", "port": "_port"}
    kwargs.setdefault("database", kwargs.get("db"))
    known = {key: kwargs.get(key) or getattr(connection, name, None) for key, name in names.items()}
    namespace, user, host = (as_text(known[key]) or None for key in ("database", "user", "host"))
    return shared_target("mysql", namespace, user, host, as_port(known["port"]))


class _Connector(Driver):
    def locate(self, connection: Any) -> Target:
        return _arguments(connection)


_DRIVER = _Connector(
    "mysql.connector",
    "mysql",
    {"database": "database", "port": "server_port", "host": "server_host", "user": "user"},
    _arguments,
    connection_of=_connection_of,
)


def _connecting(original: Wrapped, setup: Setup) -> Wrapped:
    return drivers.answered(original, partial(MySQLInstrumentor.stand_in, setup=setup))


_QUERY_ATTRIBUTES = 1 << 27  # the server's capability


def _takes_attributes(connection: Any) -> bool:
    capabilities = (connection._handshake or {}).get("capabilities", 0)  # noqa: SLF001 - the flavours differ in all else
    return bool(capabilities & _QUERY_ATTRIBUTES)


def _unsent(connection: Any, value: Any) -> bool:
    """Say whether a query attribute is the current span's context, which the connector adds, for no server."""
    return value[0] == "traceparent" and not _takes_attributes(connection)


def _adding_attribute(original: Wrapped, setup: Setup) -> Wrapped:
    """Leave out what the server does not take: the connector warns, and in C binds it in a parameter's place."""
    unsent = guarded(_unsent, "mysql: adding a query attribute")

    @wraps(original)
    def append(*args: Any, **kwargs: Any) -> Any:
        return None if unsent(*args, **kwargs) else original(*args, **kwargs)

    return append


_CURSORS = {
    "cursor": ("MySQLCursor", "MySQLCursorPrepared"),
    "cursor_cext": ("CMySQLCursor", "CMySQLCursorPrepared"),
    "aio.cursor": ("MySQLCursor", "MySQLCursorPrepared"),
}
_CONNECTIONS = {
    "connection": "MySQLConnection",
    "connection_cext": "CMySQLConnection",
    "aio.connection": "MySQLConnection",
}


class MySQLInstrumentor(DriverInstrumentor):
    """Traces all connections and cursors, those made before included."""

    library = Library(
        "mysql",
        ("mysql-connector-python >= 2.1", "mysql-connector >= 2.1", "mysql-connector-python-rf >= 2.1"),
        tested="26.10.0",
    )
    driver = _DRIVER
    patches = (
        Patch("mysql.connector", "connect", _connecting),
        Patch("mysql.connector.abstracts", "MySQLConnectionAbstract.connect", _DRIVER.connect),
        Patch("mysql.connector.aio.connection", "MySQLConnection.connect", _DRIVER.connect),
        Patch("mysql.connector.abstracts", "MySQLConnectionAbstract.query_attrs_append", _adding_attribute),
        Patch("mysql.connector.aio.abstracts", "MySQLConnectionAbstract.query_attrs_append", _adding_attribute),
        *(
            Patch(f"mysql.connector.{module}", f"{name}.{method}", _DRIVER.end(method.upper()))
            for module, name in _CONNECTIONS.items()
            for method in ("commit", "rollback")
        ),
        *(
            Patch(f"mysql.connector.{module}", f"{name}.{method}", advice)
            for module, names in _CURSORS.items()
            for name in names
            for method, advice in (
                ("execute", _DRIVER.execute),
                ("executemany", _DRIVER.executemany),
                ("callproc", _DRIVER.callproc),
                *((method, _DRIVER.fetch(method)) for method in drivers.FETCHES),
            )
        ),
    )
    options = drivers.OPTIONS

    @classmethod
    def instrument_connection(cls, connection: Any, *args: Any, **kwargs: Any) -> Any:
        """Answer a proxy that traces this one connection; arguments as of `DriverInstrumentor`."""
        if getattr(connection, "otel_context_propagation", False) and not _takes_attributes(connection):
            connection.otel_context_propagation = False
        return super().instrument_connection(connection, *args, **kwargs)
