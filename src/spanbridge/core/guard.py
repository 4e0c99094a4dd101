"""Faults of our own code: reported once per site, never seen by the application."""

from __future__ import annotations

import logging
from contextlib import suppress
from functools import wraps
from threading import Lock
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger("spanbridge")

_reported: set[str] = set()
_lock = Lock()


def first_time(site: str) -> bool:
    """Say whether `site` comes by for the first time in this process (so that a message is logged once)."""
    if site in _reported:
        return False
    with _lock:
        new = site not in _reported
        _reported.add(site)
    return new


def report(site: str, error: BaseException) -> None:
    """Log a fault of ours at `site`, the first time only; the traceback goes to the DEBUG level."""
    if first_time(f"fault:{site}"):
        with suppress(Exception):  # the application's log handlers may raise
            logger.warning(
                "%s failed (%s); the application is not affected, and further faults here are not logged",
                site,
                described(error),
                exc_info=error if logger.isEnabledFor(logging.DEBUG) else None,
            )


def described(error: BaseException) -> str:
    """Answer an exception's class and text; the class alone when the text cannot be had."""
    name = type(error).__name__
    try:
        return f"{name}: {error}"
    except Exception:
        return name


def qualified_name(function: object) -> str:
    """Answer a function's qualified name; that of its class for what has none, such as a test's stand-in."""
    name: str = getattr(function, "__qualname__", type(function).__qualname__)
    return name


def guarded(function: Callable[P, T], site: str) -> Callable[P, T | None]:
    """Return `function` with its exceptions reported under `site` and answered with None."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T | None:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            report(site, error)
            return None

    return call


def or_unchanged(change: Callable[[T], T], site: str) -> Callable[[T], T]:
    """Return `change` with its exceptions reported under `site` and answered with what it was given."""

    def changed(given: T) -> T:
        try:
            return change(given)
        except Exception as error:
            report(site, error)
            return given

    return changed


def forget() -> None:
    """Let every site report again (for tests)."""
    with _lock:
        _reported.clear()
