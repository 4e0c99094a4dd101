"""asyncio: tasks keep their context by themselves; what goes to an executor gets it from here. No spans by default.

Spans on request, as contrib makes them: for coroutines and `to_thread` functions of given names, and for futures.
Not covered: loops whose class is in C (uvloop's `create_task`; its executors are covered by `futures`).
"""

from __future__ import annotations

from functools import partial, wraps
from inspect import isawaitable
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from opentelemetry.trace import SpanKind

from spanbridge.conventions import carry
from spanbridge.core.guard import report
from spanbridge.core.instrumentor import Instrumentor
from spanbridge.core.options import Option, boolean, words
from spanbridge.core.patching import Library, Patch
from spanbridge.core.tracing import Operation, opener, traced
from spanbridge.version import __version__ as __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    from spanbridge.conventions.carry import Carrier
    from spanbridge.core.patching import Advice
    from spanbridge.core.tracing import Setup, Wrapped

OTEL_PYTHON_ASYNCIO_COROUTINE_NAMES_TO_TRACE = "OTEL_PYTHON_ASYNCIO_COROUTINE_NAMES_TO_TRACE"
OTEL_PYTHON_ASYNCIO_FUTURE_TRACE_ENABLED = "OTEL_PYTHON_ASYNCIO_FUTURE_TRACE_ENABLED"
OTEL_PYTHON_ASYNCIO_TO_THREAD_FUNCTION_NAMES_TO_TRACE = "OTEL_PYTHON_ASYNCIO_TO_THREAD_FUNCTION_NAMES_TO_TRACE"


def _carrier(loop: Any, executor: Any) -> Carrier | None:
    return carry.Carried if executor is None else carry.carrier_of(executor)


def _named(prefix: str, describe: Callable[..., str]) -> Operation[str]:
    return Operation(SpanKind.INTERNAL, describe, prefix.__add__, lambda name: {})


def _name_of(function: Any) -> str:
    while isinstance(function, partial):
        function = function.func
    return getattr(function, "__name__", "")


async def _awaiting(coroutine: Any) -> Any:
    return await coroutine


class _Tracing:
    """What one `instrument()` call traces: coroutines and functions by name, futures or none."""

    def __init__(self, setup: Setup) -> None:
        self.coroutines = frozenset(setup.options["coroutine_names_to_trace"])
        self.functions = frozenset(setup.options["to_thread_function_names_to_trace"])
        self.futures: bool = setup.options["future_trace_enabled"]
        self._setup = setup
        self._run = traced(_awaiting, setup, _named("asyncio coro-", _name_of))
        self._begin = opener(setup, _named("asyncio future", lambda future: ""), "asyncio: future")
        self._seen: WeakSet[Any] = WeakSet()  # the same future, or a stand-in of ours, may come by several times

    def coroutine(self, coroutine: Any) -> Any:
        """Answer a stand-in that makes a span while it runs, for a coroutine by one of the names."""
        wanted = _name_of(coroutine) in self.coroutines and isawaitable(coroutine)
        if not wanted or coroutine in self._seen:
            return coroutine
        stand_in = self._run(coroutine)
        stand_in.__name__, stand_in.__qualname__ = coroutine.__name__, coroutine.__qualname__
        self._seen.add(stand_in)
        return stand_in

    def future(self, future: Any) -> Any:
        """Keep a span open until the future is done."""
        if future not in self._seen and (scope := self._begin((future,), {})) is not None:
            self._seen.add(future)
            scope.carry_on(future)
        return future

    def item(self, item: Any) -> Any:
        """Trace a coroutine or a future; tasks are coroutines that have been looked at."""
        if hasattr(item, "add_done_callback"):
            return self.future(item) if self.futures and not hasattr(item, "get_coro") else item
        return self.coroutine(item)

    def function(self, function: Any) -> Any:
        """Answer a stand-in that makes a span in the thread that runs it, for a function by one of the names."""
        name = _name_of(function)
        if name not in self.functions:
            return function
        return traced(function, self._setup, _named("asyncio to_thread-", lambda *args, **kwargs: name))


def _changing(change: Callable[[_Tracing], Callable[[Any], Any]], first: int, last: int | None) -> Advice:
    """Make the advice that passes the positional arguments from `first` up to `last` through `change`."""

    def advice(wrapped: Wrapped, setup: Setup) -> Wrapped:
        tracing = AsyncioInstrumentor().tracing
        if tracing is None or not (tracing.coroutines or tracing.functions or tracing.futures):
            return wrapped
        changed = change(tracing)

        @wraps(wrapped)
        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                args = (*args[:first], *map(changed, args[first:last]), *(() if last is None else args[last:]))
            except Exception as error:
                report("asyncio: tracing by name", error)
            return wrapped(*args, **kwargs)

        return call

    return advice


def _item(tracing: _Tracing) -> Callable[[Any], Any]:
    return tracing.item


def _items(tracing: _Tracing) -> Callable[[Any], Any]:
    def changed(items: Any) -> Any:
        return items if isawaitable(items) else tuple(map(tracing.item, items))

    return changed


def _function(tracing: _Tracing) -> Callable[[Any], Any]:
    return tracing.function


class AsyncioInstrumentor(Instrumentor):
    """Carries the context into executors; traces coroutines, functions and futures when asked."""

    library = Library("asyncio")
    options = (
        Option(
            "coroutine_names_to_trace",
            (),
            "Names of coroutines that get a span each.",
            words,
            (OTEL_PYTHON_ASYNCIO_COROUTINE_NAMES_TO_TRACE,),
        ),
        Option(
            "to_thread_function_names_to_trace",
            (),
            "Names of functions that get a span each where `asyncio.to_thread` runs them.",
            words,
            (OTEL_PYTHON_ASYNCIO_TO_THREAD_FUNCTION_NAMES_TO_TRACE,),
        ),
        Option(
            "future_trace_enabled",
            False,
            "Make a span for every future that is waited for.",
            boolean,
            (OTEL_PYTHON_ASYNCIO_FUTURE_TRACE_ENABLED,),
        ),
    )
    patches = (
        Patch("asyncio.base_events", "BaseEventLoop.run_in_executor", carry.argument(2, "func", _carrier)),
        Patch("asyncio.base_events", "BaseEventLoop.create_task", _changing(_item, 1, 2)),
        Patch("asyncio.tasks", "create_task", _changing(_item, 0, 1)),
        Patch("asyncio.tasks", "ensure_future", _changing(_item, 0, 1)),
        Patch("asyncio.tasks", "wait_for", _changing(_item, 0, 1)),
        Patch("asyncio.tasks", "gather", _changing(_item, 0, None)),
        Patch("asyncio.tasks", "wait", _changing(_items, 0, 1)),
        Patch("asyncio.tasks", "as_completed", _changing(_items, 0, 1)),
        Patch("asyncio.threads", "to_thread", _changing(_function, 0, 1)),
    )
    tracing: _Tracing | None = None

    def setup(self, **kwargs: Any) -> Setup:
        """Decide which names are traced, too."""
        setup = super().setup(**kwargs)
        self.tracing = _Tracing(setup)
        return setup

    def trace_item(self, item: Any) -> Any:
        """Trace a coroutine or a future if it is to be; answers what to await in its stead."""
        return item if self.tracing is None else self.tracing.item(item)

    def trace_coroutine(self, coroutine: Any) -> Any:
        """Trace a coroutine if its name is to be; answers what to await in its stead."""
        return coroutine if self.tracing is None else self.tracing.coroutine(coroutine)

    def trace_future(self, future: Any) -> Any:
        """Trace this future, whether or not all are to be; answers it."""
        return future if self.tracing is None else self.tracing.future(future)

    def trace_to_thread(self, function: Any) -> Any:
        """Trace a function if its name is to be; answers what to run in its stead."""
        return function if self.tracing is None else self.tracing.function(function)
