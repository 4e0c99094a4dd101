"""Threads, timers, executors and pools: the context goes along with the work; no spans.

`FuturesInstrumentor` covers concurrent.futures and multiprocessing's pools; `ThreadingInstrumentor`, by contrib's name
for it, threads, timers and thread pools. Both can be on. Not covered: multiprocessing.Process, subinterpreters.
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any

from spanbridge.conventions import carry
from spanbridge.conventions.carry import Carried, carrier_of, context_to_carry
from spanbridge.core.instrumentor import Instrumentor
from spanbridge.core.patching import Library, Patch
from spanbridge.version import __version__ as __version__

if TYPE_CHECKING:
    from threading import Thread

    from spanbridge.core.tracing import Setup, Wrapped

# Threads that work for everybody: each piece of work brings its own context, and the thread itself has none.
_SHARED = ("concurrent.futures.", "multiprocessing.pool", "multiprocessing.queues", "opentelemetry.sdk.", "spanbridge.")


def _starting(wrapped: Wrapped, setup: Setup) -> Wrapped:
    """A thread is started: whatever its `run` is, also a subclass's own, it runs with the context."""
    source = setup.source

    @wraps(wrapped)
    def start(*args: Any, **kwargs: Any) -> Any:
        context = context_to_carry(source)
        if context is None or not args or not hasattr(args[0], "run") or _is_shared(args[0]):
            return wrapped(*args, **kwargs)
        thread: Thread = args[0]
        own = vars(thread)
        missing = object()
        before, run = own.get("run", missing), thread.run

        def put_back() -> None:
            own.pop("run", None)
            if before is not missing:
                own["run"] = before

        def run_once() -> None:
            put_back()
            Carried(run, context)()

        own["run"] = run_once
        try:
            return wrapped(*args, **kwargs)
        except BaseException:
            put_back()
            raise

    return start


def _is_shared(thread: Thread) -> bool:
    owner = getattr(getattr(thread, "_target", None), "__module__", None) or type(thread).__module__
    return owner.startswith(_SHARED)


_THREAD_POOL = Patch("concurrent.futures.thread", "ThreadPoolExecutor.submit", carry.argument(1, "fn", carrier_of))
_POOL_METHODS = ("apply_async", "map", "map_async", "starmap", "starmap_async", "imap", "imap_unordered")


class FuturesInstrumentor(Instrumentor):
    """Carries the context into executors' and pools' threads and processes, and to futures' callbacks."""

    library = Library("concurrent.futures")
    patches = (
        _THREAD_POOL,
        Patch("concurrent.futures.process", "ProcessPoolExecutor.submit", carry.argument(1, "fn", carrier_of)),
        Patch("concurrent.futures._base", "Future.add_done_callback", carry.argument(1, "fn")),
        *(
            Patch("multiprocessing.pool", f"Pool.{method}", carry.argument(1, "func", carrier_of))
            for method in _POOL_METHODS
        ),
    )


class ThreadingInstrumentor(Instrumentor):
    """Carries the context into threads, timers and thread pools."""

    name = "threading"
    library = Library("threading")
    patches = (Patch("threading", "Thread.start", _starting), _THREAD_POOL)
