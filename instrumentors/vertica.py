"""vertica-python: one CLIENT span per statement and COPY; commits and rollbacks are statements there.

An `executemany` is the COPY, or the statements, that it sends; a connection that fails to open makes a span. Not
traced: fetching, unless `trace_fetch` asks for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spanbridge.conventions import drivers
from spanbridge.conventions.database import Target, shared_target
from spanbridge.conventions.drivers import Driver, as_port, as_text
from spanbridge.core.patching import Library, Patch
from spanbridge.core.tracing import traced
from spanbridge.instrumentors.dbapi import DriverInstrumentor
from spanbridge.version import __version__ as __version__

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spanbridge.core.tracing import Setup, Wrapped


def _target(options: Mapping[str, Any]) -> Target:
    namespace, user, host = (as_text(options.get(key)) or None for key in ("database", "user", "host"))
    return shared_target("vertica", namespace, user, host, as_port(options.get("port")))


def _arguments(connection: Any, options: Mapping[str, Any] | None = None, /) -> Target:
    return _target(options or {})


class _Vertica(Driver):
    def locate(self, connection: Any) -> Target:
        """Ask a connection for its options, the driver's defaults included."""
        return _target(connection.options)


_DRIVER = _Vertica("vertica_python", "vertica", {}, _arguments)


def _copy(original: Wrapped, setup: Setup) -> Wrapped:
    return traced(original, setup, _DRIVER.statement(setup, commented=False))


class VerticaInstrumentor(DriverInstrumentor):
    """Traces all connections and cursors, those made before included."""

    library = Library("vertica_python", ("vertica-python >= 0.6",), tested="1.4.0")
    driver = _DRIVER
    patches = (
        Patch("vertica_python.vertica.connection", "Connection.__init__", _DRIVER.connect),
        Patch("vertica_python.vertica.cursor", "Cursor.execute", _DRIVER.execute),
        Patch("vertica_python.vertica.cursor", "Cursor.copy", _copy),
        *(
            Patch("vertica_python.vertica.cursor", f"Cursor.{method}", _DRIVER.fetch(method))
            for method in drivers.FETCHES
        ),
    )
    options = drivers.OPTIONS
