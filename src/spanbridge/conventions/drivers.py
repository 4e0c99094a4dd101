"""PEP 249 drivers whose methods are traced where they stand: what these methods have in common, as advices.

`Driver` is told once how to find out where a connection leads. Proxies, for anything else, are in `dbapi`.
https://peps.python.org/pep-0249/
"""

from __future__ import annotations

from contextlib import suppress
from copy import copy
from dataclasses import replace
from functools import reduce, wraps
from inspect import iscoroutinefunction
from operator import attrgetter
from sys import modules
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from spanbridge.conventions import database, sqlcommenter
from spanbridge.conventions.database import Query, Target, shared_target, text_of
from spanbridge.core.guard import or_unchanged, qualified_name, report
from spanbridge.core.options import Option, boolean
from spanbridge.core.tracing import HTTP, traced, traced_failures

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from spanbridge.core.patching import Advice
    from spanbridge.core.tracing import Operation, Scope, Setup, Wrapped

TRACE_CONNECT = Option(
    "trace_connect", False, "Make a span for every connection that is opened; failures always make one.", boolean
)
TRACE_FETCH = Option("trace_fetch", False, "Make a span for every fetch.", boolean, setting="trace_fetch_methods")
TRACE_DRIVER = Option("trace_driver", False, "Make the driver's spans, too, beneath those of this library.", boolean)
CAPTURE_PARAMETERS = Option("capture_parameters", False, "Record the parameters of statements.", boolean)
OPTIONS: tuple[Option[Any], ...] = (*sqlcommenter.OPTIONS, TRACE_CONNECT, TRACE_FETCH)

FETCHES = ("fetchone", "fetchmany", "fetchall")
_STATEMENT = (*sqlcommenter.STATEMENT_KEYWORDS, "procname")
PARAMETERS = ("params", "vars", "args", "parameters", "params_seq", "vars_list", "seq_params", "seq_of_parameters")
"""By which names drivers take what a statement is filled with."""


def passed(args: tuple[Any, ...], kwargs: Mapping[str, Any], position: int, names: tuple[str, ...]) -> Any:
    """Answer an argument by its position or one of its names; None when it was not passed."""
    if len(args) > position:
        return args[position]
    return next((kwargs[name] for name in names if name in kwargs), None) if kwargs else None


def attribute(of: Any, path: str) -> Any:
    """Follow a dotted path; None where it ends early."""
    return reduce(lambda found, name: getattr(found, name, None), path.split("."), of)


def as_text(value: Any) -> str | None:
    """Answer what a driver calls a name as text; None for what is none."""
    return None if value is None or callable(value) else text_of(value) or str(value)


def as_port(value: Any) -> int | None:
    """Answer a port as a number; None for what is none."""
    try:
        return int(value)
    except (TypeError, ValueError):
        return None


def layered(setup: Setup, operation: Operation[Query]) -> Operation[Query]:
    """Let the driver below make its spans, too, if the option `TRACE_DRIVER` asks for it."""
    return replace(operation, layer=0, covers=HTTP) if setup.options.get("trace_driver") else operation


class Driver:
    """One driver: makes the operations of its methods, and the advices for them.

    Args:
        module: the driver's module, of which comments tell.
        system: the `db.system.name`.
        attributes: where a connection tells its `database`, `host`, `port` and `user`, as dotted paths.
        arguments: takes what `connect` takes, and answers where that would lead.
        connection_of: answers the connection of a cursor, or None once it is closed.
        comment_batches: changes how comments are put into the statement of an `executemany`.
    """

    def __init__(
        self,
        module: str,
        system: str,
        attributes: Mapping[str, str],
        arguments: Callable[..., Target],
        *,
        connection_of: Callable[[Any], Any] = attrgetter("connection"),
        comment_batches: Callable[[sqlcommenter.Placing], sqlcommenter.Placing] = lambda place: place,
    ) -> None:
        self.module = module
        self.system = system
        self.attributes = attributes
        self._arguments = arguments
        self._connection_of = connection_of
        self._comment_batches = comment_batches
        self._statements: WeakKeyDictionary[Any, str] = WeakKeyDictionary()  # the last of each cursor, for its fetches

    def locate(self, connection: Any) -> Target:
        """Ask a connection where it leads."""
        found = {name: attribute(connection, path) for name, path in self.attributes.items()}
        database, user, host = (as_text(found.get(name)) or None for name in ("database", "user", "host"))
        return shared_target(self.system, database, user, host, as_port(found.get("port")), self.more(connection))

    def more(self, connection: Any) -> tuple[tuple[str, Any], ...]:
        """Answer what else a connection's spans say of it."""
        return ()

    def knows(self, connection: Any) -> bool:
        """Say whether an object is of the driver's own classes, or of one that inherits from them."""
        return self.owns(type(connection))

    def owns(self, cls: type) -> bool:
        """Say whether a class is one of the driver's own, or inherits from them."""
        return any(base.__module__.partition(".")[0] == self.module.partition(".")[0] for base in cls.__mro__)

    def forget(self, connection: Any) -> bool:
        """Trace a connection no more; answer False if that was so, or cannot be."""
        try:
            known = getattr(connection, "_spanbridge_target", ...)
            connection._spanbridge_target = None  # noqa: SLF001
        except AttributeError:
            return False
        return known is not None

    def remember(self, connection: Any) -> None:
        """Take `forget` back: ask the connection anew where it leads."""
        with suppress(AttributeError):
            del connection._spanbridge_target  # noqa: SLF001

    def target(self, connection: Any) -> Target | None:
        """Answer where a connection leads, as known when its first span starts; None if it is not to be traced."""
        target: Any = ...
        try:
            target = getattr(connection, "_spanbridge_target", ...)
            if target is ... and connection is not None:
                target = self.locate(connection)
                connection._spanbridge_target = target  # noqa: SLF001
        except Exception as error:
            # Classes in C take no attribute; a weak reference may lead to one that is gone; a closed one may not tell.
            if not isinstance(error, (AttributeError, ReferenceError)) and not self.owns(type(error)):
                report(f"{self.module}: where a connection leads", error)
        return Target(self.system) if target is ... else target

    def target_of(self, cursor: Any) -> Target | None:
        """Answer where a cursor's connection leads."""
        return self.target(self._connection_of(cursor))

    def leading_to(self, target: Target | None) -> Driver:
        """Answer a copy for cursors, of whatever class, that all lead there."""
        known = copy(self)
        known.target_of = lambda cursor: target  # type: ignore[method-assign]
        return known

    # Operations.

    def statement(
        self, setup: Setup, *, batch: bool = False, text: Callable[..., Any] | None = None, commented: bool = True
    ) -> Operation[Query]:
        """Compile a cursor's method that runs a statement.

        Args:
            setup: what the `instrument()` call decided.
            batch: whether it is run once for each of many sets of parameters.
            text: answers the statement, given the method's arguments, where it is not the first of them.
            commented: whether comments go into the statement.
        """
        target_of, remember = self.target_of, setup.options.get("trace_fetch")

        def describe(cursor: Any, /, *args: Any, **kwargs: Any) -> Query | None:
            target = target_of(cursor)
            if target is None:
                return None
            if text:
                statement, parameters = text(*args, **kwargs), None
            else:
                statement = text_of(passed(args, kwargs, 0, _STATEMENT), cursor)
                # Whoever records them or not: they are taken out of what a failure says.
                parameters = args[1] if len(args) > 1 else passed(args, kwargs, 1, PARAMETERS) if kwargs else None
            if remember:
                self._statements[cursor] = statement
            size = database.batch_size(parameters) if batch else None
            return Query(target, statement, cursor, parameters, size)

        def leading(cursor: Any, /, *args: Any, **kwargs: Any) -> Target | None:
            return target_of(cursor)

        prepare = self._commenter(setup, batch=batch) if commented else None
        # Statements whose fetches are traced are to be remembered, too, where another layer's span tells of them.
        operation = database.operation(setup, describe, prepare=prepare, target_of=None if remember else leading)
        return layered(setup, operation)

    def procedure(self, setup: Setup) -> Operation[Query]:
        """Compile a cursor's `callproc`; its statement is the procedure's name."""
        target_of, verb = self.target_of, None if setup.semconv.contrib else "CALL"

        def describe(cursor: Any, /, *args: Any, **kwargs: Any) -> Query | None:
            target = target_of(cursor)
            name = text_of(passed(args, kwargs, 0, _STATEMENT))
            parameters = passed(args, kwargs, 1, PARAMETERS)
            return None if target is None else Query(target, name, verb=verb, parameters=parameters, cursor=cursor)

        return database.operation(setup, describe)

    def call(self, setup: Setup, verb: str) -> Operation[Query]:
        """Compile a connection's method that has no statement (`commit`)."""

        def describe(connection: Any, /, *args: Any, **kwargs: Any) -> Query | None:
            target = self.target(connection)
            return None if target is None else Query(target, verb=verb)

        return database.operation(setup, describe)

    def fetching(self, setup: Setup, method: str) -> Operation[Query]:
        """Compile a cursor's method that fetches rows of the last statement."""

        def describe(cursor: Any, /, *args: Any, **kwargs: Any) -> Query | None:
            target, statement = self.target_of(cursor), self._statements.get(cursor, "")
            return None if target is None else Query(target, statement, verb=method.upper(), cursor=cursor)

        return database.operation(setup, describe, prepare=_note_size if method == "fetchmany" else None)

    def connecting(self, setup: Setup) -> Operation[Query]:
        """Compile what opens a connection."""

        def describe(*args: Any, **kwargs: Any) -> Query:
            try:
                target = self._arguments(*args, **kwargs)
            except Exception:  # arguments that the driver itself cannot read
                target = Target(self.system)
            return Query(target, verb="CONNECT")

        return database.operation(setup, describe)

    def cursor_operations(self, setup: Setup) -> dict[str, Operation[Query]]:
        """Compile the methods of PEP 249's cursor."""
        fetches = FETCHES if setup.options.get("trace_fetch") else ()
        return {
            "execute": self.statement(setup),
            "executemany": self.statement(setup, batch=True),
            "callproc": self.procedure(setup),
            **{name: self.fetching(setup, name) for name in fetches},
        }

    def _commenter(self, setup: Setup, *, batch: bool) -> Callable[[Scope[Query]], object] | None:
        placing = (self._comment_batches,) if batch else ()
        return sqlcommenter.preparing(setup, modules.get(self.module), self.system, *placing)

    # Advices.

    def execute(self, original: Wrapped, setup: Setup) -> Wrapped:
        """Trace a cursor's `execute`."""
        return traced(original, setup, self.statement(setup))

    def executemany(self, original: Wrapped, setup: Setup) -> Wrapped:
        """Trace a cursor's `executemany`."""
        return traced(original, setup, self.statement(setup, batch=True))

    def callproc(self, original: Wrapped, setup: Setup) -> Wrapped:
        """Trace a cursor's `callproc`."""
        return traced(original, setup, self.procedure(setup))

    def fetch(self, method: str) -> Advice:
        """Trace one of a cursor's `FETCHES`, if the option asks for it."""

        def advice(original: Wrapped, setup: Setup) -> Wrapped:
            on = setup.options.get("trace_fetch")
            return traced(original, setup, self.fetching(setup, method)) if on else original

        return advice

    def end(self, verb: str) -> Advice:
        """Trace a connection's `commit` or `rollback`, which contrib does not and ddtrace does."""

        def advice(original: Wrapped, setup: Setup) -> Wrapped:
            return original if setup.semconv.contrib else traced(original, setup, self.call(setup, verb))

        return advice

    def connect(self, original: Wrapped, setup: Setup) -> Wrapped:
        """Trace what opens a connection: failures, or all with the option."""
        if setup.semconv.contrib:
            return original
        follow = traced if setup.options.get("trace_connect") else traced_failures
        return follow(original, setup, self.connecting(setup))


def _note_size(scope: Scope[Query]) -> None:
    """Note how many rows a `fetchmany` asks for."""
    size = passed(scope.args, scope.kwargs, 1, ("size",)) or getattr(scope.args[0], "arraysize", None)
    if isinstance(size, int):
        scope.span.set_attribute("db.fetch.size", size)


class PostgresDriver(Driver):
    """A driver whose connections know what the server calls their program."""

    def more(self, connection: Any) -> tuple[tuple[str, Any], ...]:
        """Answer the program's name, as the server has last told it: nothing is sent."""
        with suppress(Exception):  # a closed connection does not tell
            ask = getattr(connection, "get_parameter_status", None) or attribute(connection, "info.parameter_status")
            if name := ask and ask("application_name"):
                return (("postgresql.application_name", name),)
        return ()


def trace_factory(driver: Driver, connection: Any, attribute: str, setup: Setup, default: Any = None) -> bool:
    """Let one connection, made before, make traced cursors; answer False where it does not make them by a class.

    Args:
        driver: whose connection it is.
        connection: the connection.
        attribute: where it holds the class of its cursors.
        setup: what was decided for it.
        default: the class where it holds none.
    """
    factory = getattr(connection, attribute, None) or default
    if not isinstance(factory, type):
        return False
    operations = driver.leading_to(driver.target(connection)).cursor_operations(setup)
    setattr(connection, attribute, database.Subclasses(factory, setup, operations).traced_root)
    return True


def untrace_factory(connection: Any, attribute: str) -> bool:
    """Take `trace_factory` back; answer False where there is nothing to take back."""
    plain = database.plain_class(getattr(connection, attribute, None))
    if plain is not None:
        setattr(connection, attribute, plain)
    return plain is not None


def answered(function: Wrapped, change: Callable[[Any], Any]) -> Wrapped:
    """Answer a function of the same flavour (plain, `async def`) that passes its result through `change`."""
    changed = or_unchanged(change, f"what {qualified_name(function)} answers")

    if iscoroutinefunction(function):

        @wraps(function)
        async def call_async(*args: Any, **kwargs: Any) -> Any:
            return changed(await function(*args, **kwargs))

        return call_async

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return changed(function(*args, **kwargs))

    return call
