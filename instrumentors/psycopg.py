"""psycopg 3, sync and async: one CLIENT span per statement, `stream`, `copy`, commit, rollback, `transaction()` step.

A stream's span ends with its last row, a copy's with its block, and a connection that fails to open makes one. In
pipelines, which answer later, spans cover the sending. Not traced: fetching, notifications.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from functools import partial
from sys import modules
from typing import TYPE_CHECKING, Any

from spanbridge.conventions import database, drivers
from spanbridge.conventions.database import Query, Target
from spanbridge.conventions.drivers import PostgresDriver, as_port
from spanbridge.core.guard import logger
from spanbridge.core.patching import Library, Patch
from spanbridge.core.tracing import traced
from spanbridge.instrumentors.dbapi import DriverInstrumentor
from spanbridge.version import __version__ as __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    from spanbridge.core.patching import Advice
    from spanbridge.core.tracing import Setup, Wrapped


def _arguments(*args: Any, **kwargs: Any) -> Target:
    conninfo = kwargs.pop("conninfo", None) or next((value for value in args if isinstance(value, str)), "")
    found = modules["psycopg.conninfo"].conninfo_to_dict(conninfo, **kwargs)
    return Target("postgresql", found.get("dbname"), found.get("user"), found.get("host"), as_port(found.get("port")))


class _Psycopg(PostgresDriver):
    def target_of(self, cursor: Any) -> Target | None:
        """Every cursor knows its connection; one that does not is none of the driver's."""
        return None if cursor.connection is None else super().target_of(cursor)


_ATTRIBUTES = {"database": "info.dbname", "port": "info.port", "host": "info.host", "user": "info.user"}
_DRIVER = _Psycopg("psycopg", "postgresql", _ATTRIBUTES, _arguments)
_FACTORIES = ("cursor_factory", "server_cursor_factory")


def _copy(managed: Callable[..., Any]) -> Advice:
    """Trace the generator that the library has made a context manager, and make the result one again."""

    def advice(original: Any, setup: Setup) -> Wrapped:
        generator = getattr(original, "__wrapped__", None)
        operation = _DRIVER.statement(setup, commented=False)
        return managed(traced(generator, setup, operation)) if generator else traced(original, setup, operation)

    return advice


def _entered(transaction: Any, /) -> Query | None:
    target = _DRIVER.target(transaction.connection)
    outer = transaction.connection.info.transaction_status == 0  # PQTRANS_IDLE
    return None if target is None else Query(target, verb="BEGIN" if outer else "SAVEPOINT")


def _left(transaction: Any, error_type: Any = None, /, *_: Any) -> Query | None:
    target = _DRIVER.target(transaction.connection)
    if error_type is not None or transaction.force_rollback:
        verb = "ROLLBACK"
    else:
        verb = "COMMIT" if getattr(transaction, "_outer_transaction", True) else "RELEASE"
    return None if target is None else Query(target, verb=verb)


def _step(describe: Callable[..., Query | None]) -> Advice:
    def advice(original: Wrapped, setup: Setup) -> Wrapped:
        return original if setup.semconv.contrib else traced(original, setup, database.operation(setup, describe))

    return advice


def _cursor_class(connection: Any) -> Any:
    flavour = "AsyncCursor" if isinstance(connection, modules["psycopg"].AsyncConnection) else "Cursor"
    return connection.cursor_factory or getattr(modules["psycopg"], flavour)


def _trace_cursors(connection: Any, setup: Setup) -> bool:
    """Let one connection make traced cursors; answer False if it is no such connection."""
    if not hasattr(connection, "cursor_factory"):
        return False
    drivers.trace_factory(_DRIVER, connection, "server_cursor_factory", setup)
    return drivers.trace_factory(_DRIVER, connection, "cursor_factory", setup, _cursor_class(connection))


def _connecting(original: Wrapped, setup: Setup) -> Wrapped:
    return drivers.answered(_DRIVER.connect(original, setup), partial(PsycopgInstrumentor.stand_in, setup=setup))


def _rows(prefix: str, managed: Callable[..., Any], enter: str, leave: str) -> tuple[Patch, ...]:
    """List what is traced of the classes of one flavour."""
    cursors = (f"{prefix}Cursor", f"{prefix}ServerCursor")
    connection, transaction = f"{prefix}Connection", f"{prefix}Transaction"
    endings = {"commit": "COMMIT", "rollback": "ROLLBACK", "tpc_commit": "COMMIT", "tpc_rollback": "ROLLBACK"}
    rows = {
        **{f"{cursor}.execute": _DRIVER.execute for cursor in cursors},
        **{f"{cursor}.executemany": _DRIVER.executemany for cursor in cursors},
        f"{cursors[0]}.stream": _DRIVER.execute,
        f"{cursors[0]}.copy": _copy(managed),
        **{f"{cursor}.{method}": _DRIVER.fetch(method) for cursor in cursors for method in drivers.FETCHES},
        **{f"{connection}.{method}": _DRIVER.end(verb) for method, verb in endings.items()},
        f"{connection}.tpc_prepare": _DRIVER.end("PREPARE"),
        f"{connection}.connect": _connecting,
        f"{transaction}.{enter}": _step(_entered),
        f"{transaction}.{leave}": _step(_left),
    }
    return tuple(Patch("psycopg", target, advice) for target, advice in rows.items())


class PsycopgInstrumentor(DriverInstrumentor):
    """Traces the connections, cursors and transactions of both flavours, those made before included."""

    library = Library("psycopg", ("psycopg >= 3.0",), tested="3.3.9")
    driver = _DRIVER
    patches = (
        *_rows("", contextmanager, "__enter__", "__exit__"),
        *_rows("Async", asynccontextmanager, "__aenter__", "__aexit__"),
        Patch("psycopg", "connect", _connecting),
    )
    options = (*drivers.OPTIONS, drivers.CAPTURE_PARAMETERS)

    @classmethod
    def instrument_connection(cls, connection: Any, *args: Any, **kwargs: Any) -> Any:
        """Trace the statements of this one connection, in place; arguments as of `DriverInstrumentor`."""
        if database.plain_class(getattr(connection, "cursor_factory", None)):
            logger.warning("psycopg: attempting to instrument a connection while already instrumented")
            return connection
        cls.driver.remember(connection)
        if _trace_cursors(connection, cls.connection_setup(*args, **kwargs)):
            return connection
        return super().instrument_connection(connection, *args, **kwargs)

    @classmethod
    def uninstrument_connection(cls, connection: Any) -> Any:
        """Answer the connection as it is without us."""
        restored = [drivers.untrace_factory(connection, name) for name in _FACTORIES]
        forgotten = cls.driver.forget(connection)
        return connection if forgotten or any(restored) else super().uninstrument_connection(connection)

    @classmethod
    def stand_in(cls, made: Any, setup: Setup) -> Any:
        """Trace a connection that makes other cursors than the driver's, which are traced as they are."""
        if not hasattr(made, "cursor_factory"):
            return super().stand_in(made, setup)
        if not setup.source.closed and not cls.driver.owns(_cursor_class(made)):
            _trace_cursors(made, setup)
        return made
