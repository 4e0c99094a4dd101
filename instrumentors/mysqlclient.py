"""mysqlclient, and whatever else owns the module MySQLdb: one CLIENT span per statement, commit and rollback.

`Connection.query` is a statement, too, and a connection that fails to open makes a span. Not traced: fetching, `ping`,
the result sets after the first (`nextset`).
"""

from __future__ import annotations

from functools import partial, wraps
from typing import TYPE_CHECKING, Any

from spanbridge.conventions import database, drivers, sqlcommenter
from spanbridge.conventions.database import Query, Target, shared_target, text_of
from spanbridge.conventions.drivers import Driver, as_port, as_text, passed
from spanbridge.core.guard import guarded
from spanbridge.core.patching import Library, Patch
from spanbridge.core.tracing import traced
from spanbridge.instrumentors.dbapi import DriverInstrumentor
from spanbridge.version import __version__ as __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    from spanbridge.core.tracing import Setup, Wrapped


def _arguments(connection: Any, /, *args: Any, **kwargs: Any) -> Target:
    user, database_name = passed(args, kwargs, 1, ("user",)), passed(args, kwargs, 3, ("database", "db"))
    host, port = passed(args, kwargs, 0, ("host",)), as_port(passed(args, kwargs, 4, ("port",)))
    return shared_target("mysql", as_text(database_name) or None, as_text(user) or None, as_text(host) or None, port)


class _MySQLdb(Driver):
    def locate(self, connection: Any) -> Target:
        """Ask a connection made before `instrument()`, which remembers no more than `localhost via TCP/IP`."""
        return shared_target("mysql", None, None, str(connection.get_host_info()).partition(" via ")[0], None)


_DRIVER = _MySQLdb(
    "MySQLdb",
    "mysql",
    {"database": "db", "port": "port", "host": "host", "user": "user"},
    _arguments,
    comment_batches=sqlcommenter.after_verb,
)


def _remember(locate: Callable[..., Target] | None, connection: Any, /, *args: Any, **kwargs: Any) -> None:
    connection._spanbridge_target = locate and locate(connection, *args, **kwargs)  # noqa: SLF001


def _opening(original: Wrapped, setup: Setup) -> Wrapped:
    opened = _DRIVER.connect(original, setup)
    remember = guarded(_remember, "mysqlclient: where a connection leads")

    @wraps(original)
    def __init__(*args: Any, **kwargs: Any) -> Any:  # noqa: N807
        remember(None, *args)  # what it sends to set itself up is no statement of the application's
        result = opened(*args, **kwargs)
        remember(_arguments, *args, **kwargs)
        return result

    return __init__


def _query(original: Wrapped, setup: Setup) -> Wrapped:
    def describe(connection: Any, statement: Any, /) -> Query | None:
        target = _DRIVER.target(connection)
        return None if target is None else Query(target, text_of(statement))

    return traced(original, setup, database.operation(setup, describe))


def _connecting(original: Wrapped, setup: Setup) -> Wrapped:
    return drivers.answered(original, partial(MySQLClientInstrumentor.stand_in, setup=setup))


class MySQLClientInstrumentor(DriverInstrumentor):
    """Traces all connections and cursors, those made before included (which do not tell their database)."""

    library = Library("MySQLdb", ("mysqlclient >= 1.3", "MySQL-python >= 1.2.3"), tested="2.3.1")
    driver = _DRIVER
    patches = (
        Patch("MySQLdb", "connect", _connecting),
        Patch("MySQLdb.connections", "Connection.__init__", _opening),
        Patch("MySQLdb.connections", "Connection.query", _query),
        Patch("MySQLdb.connections", "Connection.commit", _DRIVER.end("COMMIT")),
        Patch("MySQLdb.connections", "Connection.rollback", _DRIVER.end("ROLLBACK")),
        Patch("MySQLdb.cursors", "BaseCursor.execute", _DRIVER.execute),
        Patch("MySQLdb.cursors", "BaseCursor.executemany", _DRIVER.executemany),
        Patch("MySQLdb.cursors", "BaseCursor.callproc", _DRIVER.callproc),
        *(
            Patch("MySQLdb.cursors", f"{mixin}.{method}", _DRIVER.fetch(method))
            for mixin in ("CursorStoreResultMixIn", "CursorUseResultMixIn")
            for method in drivers.FETCHES
        ),
    )
    options = drivers.OPTIONS
