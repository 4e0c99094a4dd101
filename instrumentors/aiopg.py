"""aiopg: one CLIENT span per statement, from the call to its result; psycopg2 below stays silent.

What `cursor.begin()` and the like send are statements, too, and a connection that fails to open makes a span. Not
traced: fetching, and what a new connection asks the server about its types.
"""

from __future__ import annotations

from functools import partial, wraps
from inspect import iscoroutine, iscoroutinefunction
from sys import modules
from typing import TYPE_CHECKING, Any

from spanbridge.conventions import drivers
from spanbridge.conventions.database import Target
from spanbridge.conventions.dbapi import Promise, TracedPoolProxy
from spanbridge.conventions.drivers import PostgresDriver, as_port
from spanbridge.core.guard import guarded, or_unchanged, qualified_name
from spanbridge.core.patching import Library, Patch
from spanbridge.instrumentors import aiopg_wrappers as wrappers
from spanbridge.instrumentors.aiopg_wrappers import AiopgIntegration
from spanbridge.instrumentors.dbapi import DriverInstrumentor
from spanbridge.version import __version__ as __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    from spanbridge.core.tracing import Setup, Wrapped

__all__ = ["AiopgInstrumentor", "AiopgIntegration", "wrappers"]


def _arguments(connection: Any, /) -> Target:
    found = modules["psycopg2.extensions"].parse_dsn(connection.raw.dsn)
    return Target("postgresql", found.get("dbname"), found.get("user"), found.get("host"), as_port(found.get("port")))


class _Aiopg(PostgresDriver):
    def locate(self, connection: Any) -> Target:
        """Ask psycopg2's connection below."""
        return super().locate(connection.raw)


_ATTRIBUTES = {"database": "info.dbname", "port": "info.port", "host": "info.host", "user": "info.user"}
_DRIVER = _Aiopg("aiopg", "postgresql", _ATTRIBUTES, _arguments)


def _opening(original: Wrapped, setup: Setup) -> Wrapped:
    """Keep silent about what a connection asks before the application has it."""
    opened = _DRIVER.connect(original, setup)
    if not iscoroutinefunction(original):
        return opened

    silence = guarded(_silence, "aiopg: connecting")
    end_silence = guarded(_end_silence, "aiopg: connected")

    @wraps(original)
    async def connect(*args: Any, **kwargs: Any) -> Any:
        silence(*args)
        try:
            return await opened(*args, **kwargs)
        finally:
            end_silence(*args)

    return connect


def _silence(connection: Any) -> None:
    for layer in _layers(connection):
        _DRIVER.forget(layer)


def _end_silence(connection: Any) -> None:
    for layer in _layers(connection):
        _DRIVER.remember(layer)


def _layers(connection: Any) -> tuple[Any, Any]:
    """A connection, and psycopg2's within it."""
    return connection, getattr(connection, "raw", None)


def _foreign(original: Wrapped, setup: Setup, stand_in: Callable[..., Any]) -> Wrapped:
    """Trace what another function than aiopg's makes (a test's, a wrapper's): a coroutine, of classes of its own."""
    answer = or_unchanged(partial(stand_in, setup=setup), f"aiopg: what {qualified_name(original)} answers")

    @wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        made = original(*args, **kwargs)
        return Promise(made, answer) if iscoroutine(made) else answer(made)

    return call


def _connecting(original: Wrapped, setup: Setup) -> Wrapped:
    return _foreign(original, setup, AiopgInstrumentor.stand_in)


def _pooling(original: Wrapped, setup: Setup) -> Wrapped:
    return _foreign(original, setup, AiopgInstrumentor.pool_stand_in)


class AiopgInstrumentor(DriverInstrumentor):
    """Traces all connections and cursors, pools' and those made before included."""

    library = Library("aiopg", ("aiopg >= 0.12",), tested="1.4.0")
    driver = _DRIVER
    integration = AiopgIntegration
    patches = (
        Patch("aiopg", "connect", _connecting),
        Patch("aiopg", "create_pool", _pooling),
        Patch("aiopg.connection", "Connection._connect", _opening),
        Patch("aiopg.connection", "Cursor.execute", _DRIVER.execute),
        Patch("aiopg.connection", "Cursor.callproc", _DRIVER.callproc),
        *(Patch("aiopg.connection", f"Cursor.{method}", _DRIVER.fetch(method)) for method in drivers.FETCHES),
    )
    options = (*drivers.OPTIONS, drivers.TRACE_DRIVER)

    @classmethod
    def pool_stand_in(cls, made: Any, setup: Setup) -> Any:
        """Answer a proxy for what `create_pool` made, if that is a pool, but none of the driver's own."""
        if setup.source.closed or cls.driver.knows(made) or not hasattr(made, "acquire"):
            return made
        return TracedPoolProxy(made, partial(cls.stand_in, setup=setup))
