"""Names in environment variables that mean nothing here: probably misspelt; each is answered with the nearest one."""

from __future__ import annotations

from difflib import get_close_matches
from os import environ
from typing import TYPE_CHECKING, NamedTuple

from spanbridge.core.guard import first_time, logger
from spanbridge.core.options import words
from spanbridge.core.status import registry

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

# Variables that list integrations; the first is OpenTelemetry's, and may name instrumentors of others.
_LISTS = ("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "SPANBRIDGE_DISABLED", "SPANBRIDGE_ENABLED")
_OWN = frozenset(
    {
        *_LISTS,
        "SPANBRIDGE_DATADOG_NAMES",
        "SPANBRIDGE_DEBUG",
        "SPANBRIDGE_DOCTOR_FOLDER",
        "SPANBRIDGE_PREFER",
        "SPANBRIDGE_RECORDER",
        "SPANBRIDGE_SEMCONV",
        "SPANBRIDGE_SIGTERM",
    }
)


class Misspelt(NamedTuple):
    """One name: what is wrong with it, and what to write instead."""

    what: str
    fix: str


def misspelt() -> Iterator[Misspelt]:
    """Look through the environment for names that nothing answers to."""
    from opentelemetry.util._importlib_metadata import entry_points

    ours = {name: instrumentor for name, instrumentor in registry() if not isinstance(instrumentor, Exception)}
    every = {entry.name for entry in entry_points(group="opentelemetry_instrumentor")}
    for variable in _LISTS:
        for name in words(environ.get(variable, "")):
            known: Collection[str] = every if variable == _LISTS[0] else ours.keys()
            if name not in known and name != "*":
                yield _answer(f"{variable} names {name!r}, which is no integration", name, known)
    options = {
        variable for name, one in ours.items() for option in one.options for variable in option.variables_for(name)
    }
    known = _OWN | options | {f"SPANBRIDGE_{name.upper()}_ENABLED" for name in ours}
    for variable in sorted(environ):
        if variable.startswith("SPANBRIDGE_") and variable not in known:
            yield _answer(f"{variable} is no variable of ours", variable, known)


def warn_once() -> None:
    """Log every misspelt name, the first time only."""
    if not first_time("spelling"):
        return
    for name in misspelt():
        logger.warning("%s%s", name.what, f"; {name.fix}" if name.fix else "")


def _answer(what: str, name: str, known: Collection[str]) -> Misspelt:
    near = get_close_matches(name, known, n=1)
    return Misspelt(what, f"did you mean {near[0]}?" if near else "")
