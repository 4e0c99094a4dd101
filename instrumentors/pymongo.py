"""pymongo: one CLIENT span per command, plain and asyncio, from PyMongo's own events; filters without their values.

An operation that finds no server has a span, too. Not traced: handshakes, heartbeats, waiting for a connection. A span
is not the current one: nothing of the application runs within it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import SpanKind

from spanbridge.conventions import http
from spanbridge.conventions.database import Target
from spanbridge.conventions.mongodb import CAPTURE_STATEMENT, Commands, listen
from spanbridge.core import semconv
from spanbridge.core.instrumentor import Instrumentor
from spanbridge.core.patching import Library, Patch
from spanbridge.core.tracing import DATABASE, Operation, Setup, TracerSource, observed, traced_failures
from spanbridge.version import __version__ as __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.trace import Tracer

    from spanbridge.core.tracing import Wrapped


@lru_cache(maxsize=1)
def _listener() -> Any:
    """Answer the listener that all clients have from now on; PyMongo lets nobody take it back."""
    from pymongo import monitoring

    class Listener(Commands, monitoring.CommandListener):
        pass

    listener = Listener()
    monitoring.register(listener)
    return listener


def _registering(wrapped: Wrapped, setup: Setup) -> Wrapped:
    """Begin to listen when PyMongo's monitoring is imported; what registers listeners stays what it is."""
    _listener().follow(setup)
    return observed(wrapped, setup)


def _selection(setup: Setup) -> Operation[tuple[str, Target]]:
    """Compile the kind of operation that has found no server to send its command to."""

    def describe(
        topology: Any, selector: Any = None, operation: Any = "", *args: Any, **kwargs: Any
    ) -> tuple[str, Target]:
        # The operation's name is told since PyMongo 4.6.
        name = str.__str__(operation) if isinstance(operation, str) and operation else "select_server"
        host, port = next(iter(topology.description.server_descriptions()), (None, None))
        return name, Target("mongodb", host=host, port=port)

    def attributes(selection: tuple[str, Target]) -> dict[str, Any]:
        rendered = dict(selection[1].attributes(setup.semconv))
        if not setup.semconv.contrib:
            rendered["db.operation.name"] = selection[0]
        return rendered

    return Operation(SpanKind.CLIENT, describe, lambda selection: selection[0], attributes, layer=DATABASE)


def _selecting(wrapped: Wrapped, setup: Setup) -> Wrapped:
    """Make a span of a selection that fails; let clients made before hear of us with their first one."""

    def adopt(topology: Any, *args: Any, **kwargs: Any) -> None:
        options = topology._settings._pool_options  # noqa: SLF001  # PyMongo has no public way there
        listen(getattr(options, "_event_listeners", None) or options.event_listeners, _listener())

    return observed(traced_failures(wrapped, setup, _selection(setup)), setup, before=adopt)


@lru_cache(maxsize=1)
def _command_tracer() -> type:
    from pymongo.monitoring import CommandListener

    class CommandTracer(Commands, CommandListener):
        """A listener with a tracer of its own, to be registered by hand.

        Args:
            tracer: what spans are made with.
            request_hook: called as `(span, CommandStartedEvent)`.
            response_hook: called as `(span, CommandSucceededEvent)`.
            failed_hook: called as `(span, CommandFailedEvent)`.
            capture_statement: whether the values in filters are shown.
            semconv_opt_in_mode: contrib's mode (`default`, `database`, `database/dup`); None reads the environment.
        """

        def __init__(
            self,
            tracer: Tracer,
            request_hook: Callable[..., Any] | None = None,
            response_hook: Callable[..., Any] | None = None,
            failed_hook: Callable[..., Any] | None = None,
            capture_statement: bool = False,
            semconv_opt_in_mode: Any = None,
        ) -> None:
            names = semconv.of_mode(semconv_opt_in_mode).by_database()
            source = TracerSource(__name__, names.schema_url)
            source.tracer = tracer
            options = {
                "request_hook": request_hook,
                "response_hook": response_hook,
                "failed_hook": failed_hook,
                "capture_statement": capture_statement,
            }
            super().__init__(Setup("pymongo", source, names, options))

        def _pop_span(self, event: Any) -> Any:
            """Answer the span of a command on its way, as contrib's subclasses expect, and forget the command."""
            scope = self._take(event)
            return scope and scope.span

    return CommandTracer


def __getattr__(name: str) -> Any:
    """Answer `CommandTracer`, which PyMongo has to be imported for."""
    if name == "CommandTracer":
        return _command_tracer()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class PymongoInstrumentor(Instrumentor):
    """Traces PyMongo from 3.1: `MongoClient` and `AsyncMongoClient`, whenever they were made.

    Hooks: `request_hook(span, CommandStartedEvent)`, `response_hook(span, CommandSucceededEvent)`,
    `failed_hook(span, CommandFailedEvent)`.
    """

    library = Library("pymongo", ("pymongo >= 3.1",), tested="4.20.0")
    database_alone = True
    options = (
        *http.optional_hooks(
            ("request_hook", "(span, CommandStartedEvent)"),
            ("response_hook", "(span, CommandSucceededEvent)"),
            ("failed_hook", "(span, CommandFailedEvent)"),
        ),
        CAPTURE_STATEMENT,
    )
    patches = (
        Patch("pymongo.monitoring", "register", _registering),
        # Since 4.9 there is a module for each kind of client; before 4.0, beginning a session selects a server, too.
        Patch("pymongo.topology", "Topology.get_server_session", _selecting),
        Patch("pymongo.topology", "Topology.select_server", _selecting),
        Patch("pymongo.synchronous.topology", "Topology.select_server", _selecting),
        Patch("pymongo.asynchronous.topology", "Topology.select_server", _selecting),
    )
