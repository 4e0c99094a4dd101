"""Carrying: the context of the place where work is handed over is current where the work is done.

No spans. Within a process the context itself goes along; to another process, what the propagators write of it.
"""

from __future__ import annotations

from functools import lru_cache, wraps
from typing import TYPE_CHECKING, Any

# By the module's attributes: tests, contrib's among them, count the calls.
from opentelemetry import context as context_api
from opentelemetry.context import Context
from opentelemetry.instrumentation.utils import is_instrumentation_enabled, suppress_instrumentation

from spanbridge.core.context import get_current
from spanbridge.core.guard import report
from spanbridge.core.propagation import extract, inject

if TYPE_CHECKING:
    from collections.abc import Callable

    from spanbridge.core.patching import Advice
    from spanbridge.core.tracing import Setup, TracerSource, Wrapped

    Carrier = Callable[[Wrapped, Context], Any]


class Carried:
    """A function that runs with `context` current, in whatever thread; for all else it looks like the function."""

    __slots__ = ("context", "function")

    def __init__(self, function: Wrapped, context: Context) -> None:
        self.function = function
        self.context = context

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the function."""
        token: object = context_api.attach(self.context)
        try:
            return self.function(*args, **kwargs)
        finally:
            if token is not None:
                context_api.detach(token)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.function, name)


class Shipped:
    """A function that can be pickled and runs in another process with the context of this one.

    The other process takes nothing over from where it was forked: the context is what was shipped, even if that is
    empty.
    """

    __slots__ = ("carrier", "function", "suppressed")

    def __init__(self, function: Wrapped, context: Context) -> None:
        self.function = function
        self.carrier: dict[str, str] = {}
        self.suppressed = not is_instrumentation_enabled()
        inject(self.carrier, context)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the function."""
        carried = Carried(self.function, extract(self.carrier, Context()))
        if not self.suppressed:
            return carried(*args, **kwargs)
        carried.function = suppress_instrumentation()(self.function)
        return carried(*args, **kwargs)


def carrier_of(pool: Any) -> Carrier | None:
    """Answer how work is carried to the workers of an executor or pool; None for those that nobody here knows."""
    cls: Any = type(pool)
    return _carrier_of(cls)


@lru_cache(maxsize=128)
def _carrier_of(pool: type) -> Carrier | None:
    known = {(cls.__module__, cls.__name__) for cls in pool.__mro__}
    return next((carrier for name, carrier in _CARRIERS if name in known), None)


# The most special ones first. Subinterpreters get what they run in their own way.
_CARRIERS: tuple[tuple[tuple[str, str], Carrier | None], ...] = (
    (("concurrent.futures.interpreter", "InterpreterPoolExecutor"), None),
    (("concurrent.futures.thread", "ThreadPoolExecutor"), Carried),
    (("concurrent.futures.process", "ProcessPoolExecutor"), Shipped),
    (("multiprocessing.pool", "ThreadPool"), Carried),
    (("multiprocessing.pool", "Pool"), Shipped),
)


def context_to_carry(source: TracerSource) -> Context | None:
    """Answer the current context, even an empty one (the other side may have one of its own); None without tracing."""
    context = get_current()
    if context or source.tracer is not None or source.resolve() is not None:
        return context
    return None


def argument(position: int, keyword: str, carrier: Callable[..., Carrier | None] = lambda *args: Carried) -> Advice:
    """Make the advice for a function that takes another, to be called elsewhere.

    Args:
        position: of the other function among the positional arguments.
        keyword: its name among the keyword arguments.
        carrier: given the positional arguments before it, answers how the function is carried, None for not at all.
    """

    def advice(wrapped: Wrapped, setup: Setup) -> Wrapped:
        source, site = setup.source, f"{setup.integration}: carrying the context"

        @wraps(wrapped)
        def call(*args: Any, **kwargs: Any) -> Any:
            context = context_to_carry(source)
            if context is None:
                return wrapped(*args, **kwargs)
            try:
                how = carrier(*args[:position])
                if how is None:
                    pass
                elif len(args) > position:
                    if args[position].__class__ is not how:  # by another integration of ours
                        args = (*args[:position], how(args[position], context), *args[position + 1 :])
                elif keyword in kwargs:
                    kwargs[keyword] = how(kwargs[keyword], context)
            except Exception as error:
                report(site, error)
            return wrapped(*args, **kwargs)

        return call

    return advice
