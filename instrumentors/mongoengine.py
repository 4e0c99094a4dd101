"""mongoengine: one CLIENT span per command of its connections, as `pymongo` makes them, under its own name.

With both on, mongoengine's connections are its own and others are PyMongo's. Not traced: what PyMongo's own
integration sees besides commands (servers that are not there), which stays its.
"""

from __future__ import annotations

from functools import lru_cache, wraps
from typing import TYPE_CHECKING, Any

from spanbridge.conventions.mongodb import CAPTURE_STATEMENT, Commands, listen
from spanbridge.core.guard import guarded
from spanbridge.core.instrumentor import Instrumentor
from spanbridge.core.patching import Library, Patch
from spanbridge.version import __version__ as __version__

if TYPE_CHECKING:
    from spanbridge.core.tracing import Setup, Wrapped


@lru_cache(maxsize=1)
def _listener() -> Any:
    """Answer the listener of mongoengine's connections."""
    from pymongo.monitoring import CommandListener

    class Listener(Commands, CommandListener):
        pass

    return Listener()


def _getting(wrapped: Wrapped, setup: Setup) -> Wrapped:
    """Listen to connections when they are made, or asked for, and to those that are there already."""
    _listener().follow(setup)
    source = setup.source

    def adopt(connection: Any) -> None:
        # Before PyMongo's own listener, so that the command's span is ours.
        listen(getattr(connection, "_event_listeners", None), _listener(), first=True)

    adopt = guarded(adopt, f"{setup.integration}: listening to a connection")
    for connection in getattr(wrapped, "__globals__", {}).get("_connections", {}).values():
        adopt(connection)

    @wraps(wrapped)
    def get_connection(*args: Any, **kwargs: Any) -> Any:
        connection = wrapped(*args, **kwargs)
        if not source.closed:  # even before there is a provider, which our listener waits for
            adopt(connection)
        return connection

    return get_connection


class MongoengineInstrumentor(Instrumentor):
    """Traces what documents and querysets of mongoengine ask of MongoDB, whenever its connections were made."""

    library = Library("mongoengine", ("mongoengine >= 0.11",), tested="0.29.3")
    options = (CAPTURE_STATEMENT,)
    patches = (Patch("mongoengine.connection", "get_connection", _getting),)
