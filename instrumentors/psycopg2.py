"""psycopg2: one CLIENT span per statement, COPY, commit and rollback, and per connection that fails to open.

Connections and cursors become subclasses of the classes that the application asked for, so that C code takes them. Not
traced: large objects, notifications, `tpc_begin` (which sends nothing), and connections made by calling their class.
"""

from __future__ import annotations

from contextlib import suppress
from functools import wraps
from sys import modules
from typing import TYPE_CHECKING, Any

from spanbridge.conventions import database, drivers
from spanbridge.conventions.database import Target
from spanbridge.conventions.drivers import PostgresDriver, as_port
from spanbridge.core.guard import logger
from spanbridge.core.patching import Library, Patch
from spanbridge.instrumentors.dbapi import DriverInstrumentor
from spanbridge.version import __version__ as __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    from spanbridge.core.tracing import Operation, Setup, Wrapped


def _extensions() -> Any:
    return modules["psycopg2.extensions"]  # imported whenever this is asked


def _arguments(
    dsn: Any = None, *_: Any, connection_factory: Any = None, cursor_factory: Any = None, **kw: Any
) -> Target:
    extensions = _extensions()
    parameters = {key: value for key, value in kw.items() if key not in {"async", "async_"}}
    found = extensions.parse_dsn(extensions.make_dsn(dsn, **parameters))
    return Target("postgresql", found.get("dbname"), found.get("user"), found.get("host"), as_port(found.get("port")))


_ATTRIBUTES = {"database": "info.dbname", "port": "info.port", "host": "info.host", "user": "info.user"}
_DRIVER = PostgresDriver("psycopg2", "postgresql", _ATTRIBUTES, _arguments)


def _copy(direction: str) -> Callable[..., str]:
    def text(file: Any, table: str, *args: Any, **kwargs: Any) -> str:
        return f"COPY {table} {direction}"

    return text


_COPIES: dict[str, Callable[..., Any] | None] = {
    "copy_from": _copy("FROM STDIN"),
    "copy_to": _copy("TO STDOUT"),
    "copy_expert": None,  # has its statement as all others
}
_ENDINGS = {
    "commit": "COMMIT",
    "rollback": "ROLLBACK",
    "tpc_prepare": "PREPARE",
    "tpc_commit": "COMMIT",
    "tpc_rollback": "ROLLBACK",
}


class _Classes:
    """The traced classes of one `instrument()` call."""

    def __init__(self, setup: Setup) -> None:
        connection, cursor = _extensions().connection, _extensions().cursor
        copies = {name: _DRIVER.statement(setup, text=text, commented=False) for name, text in _COPIES.items()}
        endings: dict[str, Operation[Any]] = {}
        if not setup.semconv.contrib:
            endings = {name: _DRIVER.call(setup, verb) for name, verb in _ENDINGS.items()}
        cursors = database.Subclasses(cursor, setup, _DRIVER.cursor_operations(setup) | copies)

        def make_cursor(self: Any, name: Any = None, cursor_factory: Any = None, *args: Any, **kwargs: Any) -> Any:
            factory = cursor_factory or self.cursor_factory or cursor
            if isinstance(factory, type):
                return connection.cursor(self, name, cursors.of(factory), *args, **kwargs)
            made = connection.cursor(self, name, factory, *args, **kwargs)
            cursors.adopt(made)
            return made

        self.cursors = cursors
        self.connections: Any = database.Subclasses(connection, setup, endings, {"cursor": make_cursor})

    def trace(self, made: Any) -> bool:
        """Trace a connection that somebody else has made: of one in C, the cursors that it makes by default."""
        if self.connections.adopt(made):
            return True
        root = self.connections.root
        if not isinstance(made, root) or type(made).cursor is not root.cursor:  # as DictConnection has its own default
            return False
        with suppress(Exception):
            made.cursor_factory = self.cursors.of(made.cursor_factory or self.cursors.root)
        return True


# The position of `connection_factory` in psycopg2.connect, for those who pass it so.
_FACTORY = 1


def _connecting(original: Wrapped, setup: Setup) -> Wrapped:
    classes, opened, source = _Classes(setup), _DRIVER.connect(original, setup), setup.source

    @wraps(original)
    def connect(*args: Any, **kwargs: Any) -> Any:
        if source.closed:
            return original(*args, **kwargs)
        by_position = len(args) > _FACTORY
        factory = args[_FACTORY] if by_position else kwargs.get("connection_factory")
        if factory is None or isinstance(factory, type):
            factory = classes.connections.of(factory or classes.connections.root)
            if by_position:
                args = (*args[:_FACTORY], factory, *args[_FACTORY + 1 :])
            else:
                kwargs["connection_factory"] = factory
        made = opened(*args, **kwargs)
        return made if classes.trace(made) else Psycopg2Instrumentor.stand_in(made, setup)

    return connect


class Psycopg2Instrumentor(DriverInstrumentor):
    """Traces connections made by `psycopg2.connect`, whoever holds that function."""

    library = Library("psycopg2", ("psycopg2 >= 2.4", "psycopg2-binary >= 2.7.4"), tested="2.9.13")
    driver = _DRIVER
    patches = (Patch("psycopg2", "connect", _connecting),)
    options = (*drivers.OPTIONS, drivers.CAPTURE_PARAMETERS)

    @classmethod
    def instrument_connection(cls, connection: Any, *args: Any, **kwargs: Any) -> Any:
        """Trace this one connection, made before, in place: commits only if its class is none in C.

        Args:
            connection: the connection.
            *args: as of `DriverInstrumentor.instrument_connection`.
            **kwargs: the same.
        """
        if not isinstance(connection, _extensions().connection):
            setup = cls.connection_setup(*args, **kwargs)
            by_factory = drivers.trace_factory(_DRIVER, connection, "cursor_factory", setup)
            return connection if by_factory else super().instrument_connection(connection, *args, **kwargs)
        if database.plain_class(type(connection)) or database.plain_class(connection.cursor_factory):
            logger.warning("psycopg2: attempting to instrument a connection while already instrumented")
            return connection
        _Classes(cls.connection_setup(*args, **kwargs)).trace(connection)
        return connection

    @classmethod
    def uninstrument_connection(cls, connection: Any) -> Any:
        """Answer the connection as it is without us."""
        if drivers.untrace_factory(connection, "cursor_factory"):
            return connection
        return super().uninstrument_connection(connection)
