"""SQLAlchemy's events: how engines are followed, and how every statement's span ends, whatever listeners do."""

from __future__ import annotations

from contextlib import suppress
from functools import wraps
from importlib.metadata import PackageNotFoundError, version
from sys import modules
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from spanbridge.core.guard import guarded, report
from spanbridge.core.tracing import EventScope, current_scope, end_current, ending, opener

if TYPE_CHECKING:
    from spanbridge.conventions.database import Query
    from spanbridge.core.tracing import Operation, Setup, Wrapped

STATEMENT = 2
"""Position of the statement among what `before_cursor_execute` is told; the driver gets what the scope has there."""

_SITE = "sqlalchemy: statement"


class EngineTracer:
    """Follows the events of engines.

    Args:
        setup: what the `instrument()` call decided.
        statement: what a statement is.
        every: follows every engine that connects, not only those it is told.
    """

    def __init__(self, setup: Setup, statement: Operation[Query], *, every: bool = False) -> None:
        self.every = every
        self._begin = opener(setup, statement, _SITE, scope_class=EventScope)
        self._engines: WeakSet[Any] = WeakSet()

    def follow(self, engine: Any) -> EngineTracer:
        """Listen to an engine, unless that is done already."""
        plain = _plain(engine)
        if plain not in self._engines:
            self._engines.add(plain)
            event = modules["sqlalchemy.event"]
            # The start comes last: no span begins whose end is not heard of.
            event.listen(plain, "after_cursor_execute", self._after)
            event.listen(plain, "handle_error", self._failed)
            event.listen(plain, "before_cursor_execute", self._before, retval=True)
        return self

    def follows(self, engine: Any) -> bool:
        """Say whether an engine is, or is about to be, listened to."""
        return self.every or _plain(engine) in self._engines

    def close(self) -> None:
        """Listen no more."""
        handlers = {
            "before_cursor_execute": self._before,
            "after_cursor_execute": self._after,
            "handle_error": self._failed,
        }
        while self._engines:
            engine = self._engines.pop()
            for name, handler in handlers.items():
                guarded(modules["sqlalchemy.event"].remove, "sqlalchemy: removing a listener")(engine, name, handler)

    # The scope is kept where SQLAlchemy keeps all that belongs to one execution.

    def _before(self, connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> Any:
        try:
            scope = self._begin((connection, cursor, statement, parameters, context, many), {})
            if scope is not None:
                (connection if context is None else context).__dict__[_SCOPE] = scope
                statement = scope.args[STATEMENT]
        except Exception as error:
            report("sqlalchemy: a statement's start", error)
        return statement, parameters

    def _after(self, connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        try:
            scope = (connection if context is None else context).__dict__.pop(_SCOPE, None)
            if scope is not None:
                scope.complete(None)
        except Exception as error:
            end_current(_SITE, error)

    def _gone_wrong(self, context: Any) -> None:
        _fail(context.connection, context.execution_context, context.original_exception)

    _failed = ending(_gone_wrong, _SITE)


_SCOPE = "_spanbridge_scope"


def _fail(connection: Any, context: Any, error: BaseException) -> None:
    holder = context or connection
    scope = None if holder is None else vars(holder).pop(_SCOPE, None)
    if scope is not None:
        scope.fail(error)


def _not_handled(
    connection: Any,
    error: Any,
    statement: Any = None,
    parameters: Any = None,
    cursor: Any = None,
    context: Any = None,
    **_: Any,
) -> None:
    _fail(connection, context, error)


def handling(original: Wrapped, setup: Setup) -> Wrapped:
    """End what the event did not end: SQLAlchemy asks no listener after one that raises, and at times none at all."""
    end = ending(_not_handled, _SITE)

    @wraps(original)
    def handle(*args: Any, **kwargs: Any) -> Any:
        try:
            return original(*args, **kwargs)
        finally:
            end(*args[:6], **kwargs)

    return handle


def executing(original: Wrapped, setup: Setup) -> Wrapped:
    """End what an application's listener has stopped that is asked after ours; since 2.1 SQLAlchemy tells of that."""
    with suppress(PackageNotFoundError, ValueError):  # the package is still being imported
        if tuple(map(int, version("SQLAlchemy").split(".")[:2])) >= (2, 1):
            return original
    end = guarded(_stopped, _SITE)

    @wraps(original)
    def execute(*args: Any, **kwargs: Any) -> Any:
        try:
            return original(*args, **kwargs)
        except BaseException as error:
            end(args[0], error)
            raise

    return execute


def _stopped(connection: Any, error: BaseException) -> None:
    scope = current_scope(_SITE)
    if scope is not None and scope.args[0] is connection:
        scope.fail(error)


def _plain(engine: Any) -> Any:
    """Answer the engine whose events another one has: an asyncio engine's, or that of `execution_options()`."""
    engine = getattr(engine, "sync_engine", engine)
    while (parent := getattr(engine, "_proxied", None)) is not None:
        engine = parent
    return engine


def following(original: Wrapped, setup: Setup) -> Wrapped:
    """Follow an engine with its first connection, whenever it was made."""
    tracer: EngineTracer = setup.options["tracer"]
    follow = guarded(tracer.follow, "sqlalchemy: following an engine")

    @wraps(original)
    def __init__(*args: Any, **kwargs: Any) -> Any:  # noqa: N807
        if tracer.every and not setup.source.closed and len(args) > 1:
            follow(args[1])
        return original(*args, **kwargs)

    return __init__
