"""aiopg by hand: what contrib has in `aiopg.wrappers`, for connections and pools that are not aiopg's own classes.

Connections, pools and cursors become proxies; `AiopgInstrumentor` traces aiopg's own classes in place instead.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from opentelemetry.instrumentation.utils import unwrap

from spanbridge.conventions.dbapi import Promise, TracedPoolProxy
from spanbridge.instrumentors import dbapi
from spanbridge.instrumentors.dbapi import DatabaseApiIntegration, uninstrument_connection
from spanbridge.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.trace import TracerProvider

    from spanbridge.core.tracing import Wrapped

__all__ = [
    "AiopgIntegration",
    "instrument_connection",
    "trace_integration",
    "uninstrument_connection",
    "unwrap_connect",
    "unwrap_create_pool",
    "wrap_connect",
    "wrap_create_pool",
]


class AiopgIntegration(DatabaseApiIntegration):
    """What psycopg2's connection, below that of aiopg, tells of where it leads."""

    def get_connection_attributes(self, connection: Any) -> None:
        """Read from the connection below what `connection_attributes` names."""
        super().get_connection_attributes(getattr(connection, "_conn", connection))

    def wrapped_pool(self, create_pool_method: Wrapped, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Open a pool, and promise its proxy."""
        return Promise(create_pool_method(*args, **kwargs), partial(TracedPoolProxy, answer=self.proxy))


def trace_integration(
    database_system: str,
    connection_attributes: Mapping[str, str] | None = None,
    tracer_provider: TracerProvider | None = None,
    meter_provider: Any = None,
) -> None:
    """Trace every connection that `aiopg.connect` makes; see `dbapi.wrap_connect` for the arguments."""
    wrap_connect(__name__, database_system, connection_attributes, __version__, tracer_provider, meter_provider)


def wrap_connect(
    name: str,
    database_system: str,
    connection_attributes: Mapping[str, str] | None = None,
    version: str = "",
    tracer_provider: TracerProvider | None = None,
    meter_provider: Any = None,
) -> None:
    """Trace every connection that `aiopg.connect` makes; see `dbapi.wrap_connect` for the arguments."""
    import aiopg

    dbapi.wrap_connect(
        name,
        aiopg,
        "connect",
        database_system,
        connection_attributes,
        version,
        tracer_provider,
        db_api_integration_factory=AiopgIntegration,
    )


def unwrap_connect() -> None:
    """Take `wrap_connect` back."""
    import aiopg

    unwrap(aiopg, "connect")


def instrument_connection(
    name: str,
    connection: Any,
    database_system: str,
    connection_attributes: Mapping[str, str] | None = None,
    version: str = "",
    tracer_provider: TracerProvider | None = None,
    meter_provider: Any = None,
) -> Any:
    """Answer a proxy that traces this one connection; see `dbapi.wrap_connect` for the arguments."""
    return dbapi.instrument_connection(
        name,
        connection,
        database_system,
        connection_attributes,
        version,
        tracer_provider,
        db_api_integration_factory=AiopgIntegration,
    )


def wrap_create_pool(
    name: str,
    database_system: str,
    connection_attributes: Mapping[str, str] | None = None,
    version: str = "",
    tracer_provider: TracerProvider | None = None,
    meter_provider: Any = None,
) -> None:
    """Trace the connections of every pool that `aiopg.create_pool` makes; see `dbapi.wrap_connect`."""
    import aiopg

    make = dbapi.maker(
        AiopgIntegration,
        name,
        database_system,
        connection_attributes=connection_attributes,
        version=version,
        tracer_provider=tracer_provider,
    )
    dbapi.wrap_function(aiopg, "create_pool", make, "wrapped_pool")


def unwrap_create_pool() -> None:
    """Take `wrap_create_pool` back."""
    import aiopg

    unwrap(aiopg, "create_pool")
