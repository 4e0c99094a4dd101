"""What each integration is doing, and why: the registry behind `spanbridge.status()` and the doctor."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from spanbridge.core.guard import report

if TYPE_CHECKING:
    from collections.abc import Iterator


class State(str, Enum):
    """What an integration or one of its patch points is doing."""

    ACTIVE = "active"
    WAITING = "waiting for import"
    NOT_INSTALLED = "not installed"
    TOO_OLD = "too old"
    DISABLED = "disabled"
    FAILED = "failed"
    ABSENT = "not in this version"

    __str__ = str.__str__


@dataclass(frozen=True)
class PatchStatus:
    """One patch point: `target` is `module:Class.method`."""

    target: str
    state: State
    reason: str = ""


@dataclass(frozen=True)
class IntegrationStatus:
    """One integration.

    Args:
        name: the entry point's name.
        state: what it is doing.
        reason: why, in one line; empty when active.
        version: the library's installed version, empty when unknown.
        requires: the versions that are instrumented, as requirement strings.
        tested: the newest version that our tests ran, empty for the standard library.
        patches: its patch points.
    """

    name: str
    state: State
    reason: str = ""
    version: str = ""
    requires: tuple[str, ...] = ()
    tested: str = ""
    patches: tuple[PatchStatus, ...] = ()


def status() -> list[IntegrationStatus]:
    """Say for every integration of ours what it is doing and why, sorted by name; imports no library."""
    return sorted((_ask(name, instrumentor) for name, instrumentor in registry()), key=lambda row: row.name)


def registry() -> Iterator[tuple[str, Any]]:
    """Yield (name, instrumentor or the error of its import) for every integration of ours.

    The name is the module's: entry points may spell it with dashes, as contrib does (`aiohttp-client`).
    """
    from opentelemetry.util._importlib_metadata import entry_points

    for entry_point in entry_points(group="opentelemetry_instrumentor"):
        if not entry_point.value.startswith("spanbridge."):
            continue
        try:
            instrumentor = entry_point.load()()
        except Exception as error:
            report(f"loading the instrumentor {entry_point.name}", error)
            yield entry_point.name.replace("-", "_"), error
        else:
            yield entry_point.name.replace("-", "_"), instrumentor


def _ask(name: str, instrumentor: Any) -> IntegrationStatus:
    if isinstance(instrumentor, Exception):
        return IntegrationStatus(name, State.FAILED, f"{type(instrumentor).__name__}: {instrumentor}")
    try:
        row: IntegrationStatus = instrumentor.status()
    except Exception as error:
        return IntegrationStatus(name, State.FAILED, f"{type(error).__name__}: {error}")
    return row
