"""gevent: greenlets, groups, pools and the hub's threads get the context of whoever starts them; no spans.

The order of instrumentation and monkey patching does not matter. Not covered: classes that an application has derived
from `Greenlet` before `instrument()` (Greenlet is C, so it is replaced and not patched); callbacks of `link`.
"""

from __future__ import annotations

from contextvars import Context
from functools import lru_cache, wraps
from typing import TYPE_CHECKING, Any

from opentelemetry.context import attach, get_current

from spanbridge.conventions import carry
from spanbridge.core.guard import report
from spanbridge.core.instrumentor import Instrumentor
from spanbridge.core.patching import Library, Patch
from spanbridge.version import __version__ as __version__

if TYPE_CHECKING:
    from spanbridge.core.tracing import Setup, Wrapped


def _give_context(greenlet: Any) -> None:
    """Give a greenlet that has not run yet the current context; one that the application has given stays."""
    try:
        current = get_current()
        if current and not greenlet.dead and greenlet.gr_context is None:
            own = Context()
            own.run(attach, current)
            greenlet.gr_context = own
    except Exception as error:
        report("gevent: carrying the context", error)


class _Carrying:
    """What is mixed into gevent's classes."""

    __slots__ = ()

    def start(self) -> None:
        if GeventInstrumentor.carries:
            _give_context(self)
        super().start()  # type: ignore[misc]

    def start_later(self, seconds: float) -> None:
        if GeventInstrumentor.carries:
            _give_context(self)
        super().start_later(seconds)  # type: ignore[misc]


@lru_cache(maxsize=16)
def _subclass(cls: Any) -> Any:
    home = cls.__module__.replace("_gevent_cgreenlet", "greenlet").replace("_gevent_c_imap", "_imap")  # where it is put
    names = {"__module__": home, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    return type(cls)(cls.__name__, (_Carrying, cls), names)


def _replaced(cls: Any, setup: Setup) -> Any:
    ours_already = not isinstance(cls, type) or issubclass(cls, _Carrying)
    return cls if ours_already else _subclass(cls)


def _spawning(method: Any, setup: Setup) -> Any:
    """`gevent.spawn` is a method of the class that has been replaced."""
    cls = getattr(method, "__self__", None)
    return getattr(_subclass(cls), method.__name__) if _replaced(cls, setup) is not cls else method


def _spawning_raw(wrapped: Wrapped, setup: Setup) -> Wrapped:
    @wraps(wrapped)
    def spawn_raw(*args: Any, **kwargs: Any) -> Any:
        greenlet = wrapped(*args, **kwargs)
        if hasattr(greenlet, "gr_context"):
            _give_context(greenlet)
        return greenlet

    return spawn_raw


class GeventInstrumentor(Instrumentor):
    """Carries the context into greenlets."""

    library = Library("gevent", ("gevent >= 1.0",), tested="26.9.0")
    patches = (
        # Not gevent.greenlet and gevent._imap, which take the names of their C modules and so are never told of.
        Patch("gevent", "Greenlet", _replaced),
        Patch("gevent.pool", "Group.greenlet_class", _replaced),
        Patch("gevent.pool", "IMap", _replaced),
        Patch("gevent.pool", "IMapUnordered", _replaced),
        Patch("gevent.hub", "spawn_raw", _spawning_raw),
        Patch("gevent", "spawn", _spawning),
        Patch("gevent", "spawn_later", _spawning),
        Patch("gevent.threadpool", "ThreadPool.spawn", carry.argument(1, "func")),
    )
    carries = False

    def _instrument(self, **kwargs: Any) -> None:
        super()._instrument(**kwargs)
        GeventInstrumentor.carries = True

    def _uninstrument(self, **kwargs: Any) -> None:
        super()._uninstrument(**kwargs)
        GeventInstrumentor.carries = False
