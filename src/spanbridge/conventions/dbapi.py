"""PEP 249 objects that stand for a driver's own: they run its calls in spans, `__wrapped__` being the original.

Traced: statements of cursors and of connections that run them themselves, stored procedures, commit and rollback, plain
or coroutines. Not traced: fetching, and what the end of a `with` block does inside the driver.
"""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from inspect import isawaitable, iscoroutine
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

import wrapt

from spanbridge.conventions import database
from spanbridge.conventions.database import Query, Target, first_word, text_of
from spanbridge.conventions.drivers import PARAMETERS, passed
from spanbridge.conventions.sql import operation_name
from spanbridge.core.tracing import Setup, TracerSource, traced

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from opentelemetry.trace import TracerProvider

    from spanbridge.core.semconv import Semconv
    from spanbridge.core.tracing import Scope, Wrapped

ConnectionT = TypeVar("ConnectionT")
CursorT = TypeVar("CursorT")


class Integration(Protocol):
    """What is known of one connection.

    Attributes:
        engine: runs its calls.
        target: where it leads.
        span_attributes: further attributes for every span.
        commenter: appends comments to its statements; None when it is not to.
    """

    @property
    def engine(self) -> Engine: ...  # noqa: D102
    @property
    def target(self) -> Target: ...  # noqa: D102
    @property
    def span_attributes(self) -> Mapping[str, Any]: ...  # noqa: D102
    @property
    def commenter(self) -> Callable[[Scope[Query]], None] | None: ...  # noqa: D102


class Engine(NamedTuple):
    """Calls with spans around, compiled; both take (tracer, cursor, bound method, *arguments)."""

    setup: Setup
    execute: Wrapped
    execute_async: Wrapped


def compiled(setup: Setup) -> Engine:
    """Compile the calls for what `instrument()` decided."""
    operation = database.operation(setup, _describe, prepare=_prepare)
    return Engine(setup, traced(_execute, setup, operation), traced(_execute_async, setup, operation))


@dataclass(frozen=True)
class Known:
    """An `Integration` whose target is known beforehand, for instrumentors that share one engine."""

    engine: Engine
    target: Target
    span_attributes: Mapping[str, Any] = field(default_factory=dict)
    commenter: Callable[[Scope[Query]], None] | None = None


@lru_cache(maxsize=32)
def engine(
    name: str, provider: TracerProvider | None, current: TracerProvider, semconv: Semconv, *, capture_parameters: bool
) -> Engine:
    """Compile the calls for those who have no `instrument()`, once for all connections of a kind.

    Args:
        name: the scope of the spans.
        provider: instead of the global one.
        current: the global one as it is now: when the application changes it, calls are compiled again.
        semconv: which names are written.
        capture_parameters: whether the parameters of statements are recorded.
    """
    source = TracerSource(name, semconv.schema_url, provider)
    return compiled(Setup("dbapi", source, semconv, {"capture_parameters": capture_parameters}))


def _execute(tracer: CursorTracer[Any], cursor: Any, method: Wrapped, /, *args: Any, **kwargs: Any) -> Any:
    return method(*args, **kwargs)


async def _execute_async(tracer: CursorTracer[Any], cursor: Any, method: Wrapped, /, *args: Any, **kwargs: Any) -> Any:
    return await method(*args, **kwargs)


STATEMENT = 3
"""The position of the statement among the arguments of both."""

# What PEP 249 and the drivers call it.
_KEYWORDS = ("operation", "query", "sql", "statement")
_VERBS = {"callproc": "CALL", "commit": "COMMIT", "rollback": "ROLLBACK"}


def _describe(tracer: CursorTracer[Any], cursor: Any, method: Wrapped, /, *args: Any, **kwargs: Any) -> Query:
    integration, called = tracer.integration, getattr(method, "__name__", "")
    parameters = passed(args, kwargs, 1, PARAMETERS)
    args = args or tuple(kwargs[name] for name in _KEYWORDS if name in kwargs)
    verb = None if integration.engine.setup.semconv.contrib else _VERBS.get(called)
    return Query(
        integration.target,
        tracer.get_statement(cursor, args),
        verb=verb or tracer.get_operation_name(cursor, args),
        batch=database.batch_size(parameters) if called == "executemany" else None,
        parameters=parameters,
        cursor=cursor,
    )


def _prepare(scope: Scope[Query]) -> None:
    integration, commenter = scope.args[0].integration, scope.args[0].integration.commenter
    if integration.span_attributes:
        scope.span.set_attributes(integration.span_attributes)
    # A procedure is called by its name, which takes no comment.
    if commenter is not None and getattr(scope.args[2], "__name__", "") != "callproc":
        commenter(scope)


class CursorTracer(Generic[CursorT]):
    """Runs calls of a cursor with a span around; subclasses may say otherwise what a statement is, and its name."""

    def __init__(self, db_api_integration: Integration) -> None:
        self.integration = db_api_integration

    def get_operation_name(self, cursor: CursorT, args: Sequence[Any]) -> str:
        """Answer what is done, such as `SELECT`, given a call's arguments; "" when that is not known."""
        statement = text_of(args[0], cursor) if args else ""
        contrib = self.integration.engine.setup.semconv.contrib
        return (first_word if contrib else operation_name)(statement)

    def get_statement(self, cursor: CursorT, args: Sequence[Any]) -> str:
        """Answer the statement as text, given a call's arguments; "" when there is none."""
        return text_of(args[0], cursor) if args else ""

    def traced_execution(self, cursor: CursorT, query_method: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call `query_method`, a bound method of `cursor`, in a span."""
        return self.integration.engine.execute(self, cursor, query_method, *args, **kwargs)

    async def traced_execution_async(
        self, cursor: CursorT, query_method: Callable[..., Awaitable[Any]], /, *args: Any, **kwargs: Any
    ) -> Any:
        """Await `query_method`, a bound method of `cursor`, in a span."""
        return await self.integration.engine.execute_async(self, cursor, query_method, *args, **kwargs)


async def later(awaitable: Awaitable[Any], answer: Callable[[Any], Any]) -> Any:
    """Answer `answer(...)` of what `awaitable` yields."""
    return answer(await awaitable)


class Promise(Coroutine[Any, Any, Any]):
    """What is awaited, or entered by `async with`, to get something of a driver's; gives what stands for that.

    Args:
        awaitable: the driver's own, a coroutine or an asynchronous context manager besides.
        answer: takes what it yields, and answers what the application gets.
    """

    def __init__(self, awaitable: Any, answer: Callable[[Any], Any]) -> None:
        self._awaitable = awaitable
        self._answer = answer

    @cached_property
    def _coroutine(self) -> Coroutine[Any, Any, Any]:
        return later(self._awaitable, self._answer)

    def __await__(self) -> Any:
        return self._coroutine.__await__()

    def send(self, value: Any) -> Any:
        """As of a coroutine."""
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        """As of a coroutine."""
        return self._coroutine.throw(*error)

    def close(self) -> None:
        """As of a coroutine."""
        self._coroutine.close()

    async def __aenter__(self) -> Any:
        if hasattr(self._awaitable, "__aenter__"):
            return self._answer(await self._awaitable.__aenter__())
        self._yielded = await self._coroutine
        return self._yielded

    async def __aexit__(self, *error: object) -> Any:
        if hasattr(self._awaitable, "__aexit__"):
            return await self._awaitable.__aexit__(*error)
        closing = self._yielded.close()
        return await closing if isawaitable(closing) else None


class _Through:
    """A driver's method, called through a method of its proxy; missing where the driver has none."""

    def __init__(self, via: str) -> None:
        self._via = via

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, proxy: Any, owner: type | None = None) -> Any:
        return self if proxy is None else partial(getattr(proxy, self._via), getattr(proxy.__wrapped__, self._name))


class _Proxy(getattr(wrapt, "BaseObjectProxy", wrapt.ObjectProxy)):  # type: ignore[misc]  # wrapt 2, wrapt 1
    def _self_pass(self, method: Wrapped, /, *args: Any, **kwargs: Any) -> Any:
        plain = {name: _unproxied(value) for name, value in kwargs.items()}
        return self._self_own(method(*map(_unproxied, args), **plain))

    def _self_own(self, result: Any) -> Any:
        """Keep to proxies: answer this one for its own, a new one for what it makes."""
        if result is self.__wrapped__:
            return self
        if iscoroutine(result):
            return later(result, self._self_own)
        return self._self_new(result)

    def _self_new(self, result: Any) -> Any:
        return result

    def __enter__(self) -> Any:
        return self._self_own(self.__wrapped__.__enter__())

    def __aenter__(self) -> Any:
        return self._self_own(self.__wrapped__.__aenter__())

    def __aexit__(self, *args: object) -> Any:
        return self.__wrapped__.__aexit__(*args)


class TracedPoolProxy(_Proxy):
    """A pool that promises connections.

    Args:
        pool: the pool.
        answer: takes one of its connections, and answers what the application gets.
    """

    acquire = _Through("_self_acquire")
    release = _Through("_self_pass")

    def __init__(self, pool: Any, answer: Callable[[Any], Any]) -> None:
        super().__init__(pool)
        self._self_answer = answer

    def _self_acquire(self, method: Wrapped, /, *args: Any, **kwargs: Any) -> Any:
        return Promise(method(*args, **kwargs), self._self_answer)


class _Traced(_Proxy):
    def __init__(self, wrapped: Any, db_api_integration: Integration) -> None:
        super().__init__(wrapped)
        self._self_db_api_integration = db_api_integration
        self._self_cursor_tracer: CursorTracer[Any] = CursorTracer(db_api_integration)

    def _self_execute(self, method: Wrapped, /, *args: Any, **kwargs: Any) -> Any:
        return self._self_own(self._self_cursor_tracer.traced_execution(self.__wrapped__, method, *args, **kwargs))


class TracedConnectionProxy(_Traced, Generic[ConnectionT]):
    """A connection whose statements, commits and rollbacks are traced, and whose cursors are proxies."""

    cursor = _Through("_self_pass")
    execute = _Through("_self_execute")
    executemany = _Through("_self_execute")
    executescript = _Through("_self_execute")
    commit = _Through("_self_end")
    rollback = _Through("_self_end")
    backup = _Through("_self_pass")

    def _self_end(self, method: Wrapped, /, *args: Any, **kwargs: Any) -> Any:
        contrib = self._self_db_api_integration.engine.setup.semconv.contrib
        return method(*args, **kwargs) if contrib else self._self_execute(method, *args, **kwargs)

    def _self_new(self, result: Any) -> Any:
        integration = self._self_db_api_integration
        if hasattr(result, "execute"):
            return get_traced_cursor_proxy(result, integration)
        if not hasattr(result, "__await__"):
            return result
        return Promise(result, partial(get_traced_cursor_proxy, db_api_integration=integration))


class TracedCursorProxy(_Traced, Generic[CursorT]):
    """A cursor whose statements are traced."""

    execute = _Through("_self_execute")
    executemany = _Through("_self_execute")
    executescript = _Through("_self_execute")
    callproc = _Through("_self_execute")

    def __iter__(self) -> Any:
        return iter(self.__wrapped__)

    def __next__(self) -> Any:
        return next(self.__wrapped__)

    def __aiter__(self) -> Any:
        return aiter(self.__wrapped__)


def _unproxied(value: Any) -> Any:
    """Give C code, which takes no proxy, the real thing."""
    return value.__wrapped__ if isinstance(value, _Proxy) else value


def get_traced_connection_proxy(
    connection: ConnectionT, db_api_integration: Integration, *args: Any, **kwargs: Any
) -> TracedConnectionProxy[ConnectionT]:
    """Answer the proxy of a connection."""
    return TracedConnectionProxy(connection, db_api_integration)


def proxied(connection: Any, db_api_integration: Integration) -> Any:
    """Answer the proxy of a connection; what is none comes back as it is."""
    return get_traced_connection_proxy(connection, db_api_integration) if hasattr(connection, "cursor") else connection


def get_traced_cursor_proxy(
    cursor: CursorT, db_api_integration: Integration, *args: Any, **kwargs: Any
) -> TracedCursorProxy[CursorT]:
    """Answer the proxy of a cursor."""
    return TracedCursorProxy(cursor, db_api_integration)
