"""What varies per library in the contract: one real operation. A module per entry point, of the same name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.servers import Server


class Probe(ABC):
    """A real operation with a real library. Import the library inside the methods."""

    server = ""
    """The fixture of tests/conftest.py that runs the server it needs, if any."""

    outlives = True
    """Whether an object made before `instrument()` is traced."""

    makes_spans = True
    """False for what carries the context and makes no spans by default."""

    nested = True
    """Whether it is a part of the local span around it; not so what comes in from a socket."""

    uncalled: frozenset[str] = frozenset()
    """The hooks of what else the library does, which the operation does not call."""

    @abstractmethod
    def open(self, server: Server | None) -> Any:
        """Make the object that the application works with: app, client, connection."""

    def close(self, target: Any) -> None:  # noqa: B027 - most have nothing to take down
        """Take it down."""

    @abstractmethod
    def operate(self, target: Any) -> Any:
        """Do one traced operation; answer all that the application can see of it, identities included.

        What it answers is compared with the same operation without instrumentation.
        """

    @abstractmethod
    def fail(self, target: Any, error: Exception) -> None:
        """Do one traced operation in whose midst `error` is raised, and reaches the application."""

    def sent(self, target: Any) -> Mapping[str, str] | None:
        """Answer the headers that the last operation carried out of the process, if it propagates."""
        return None


def load(name: str) -> Probe:
    """Find the probe of an entry point."""
    module = import_module(f"{__name__}.{name}")
    return next(cls() for cls in vars(module).values() if _is_probe(cls) and cls.__module__ == module.__name__)


def _is_probe(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Probe) and value is not Probe
