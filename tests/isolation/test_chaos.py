"""Any line of ours may raise while the application works: it gets its results and its own exceptions all the same."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.context import Context, attach, get_current

from spanbridge.core import guard
from tests.chaos import ChaosError, broken, lines_of, sample, shown
from tests.contract.test_contract import instrumentor, name, trial  # noqa: F401 - fixtures

if TYPE_CHECKING:
    from collections.abc import Iterator

# Carriers and djangorestframework, whose spans are Django's, have next to no lines of their own here.
NEXT_TO_NONE = {"asyncio", "djangorestframework", "futures", "gevent", "threading"}
# What an operation may take longer with a fault of ours than without us, on a busy machine (seconds).
BUSY = 5.0


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What is logged; kept without pytest, whose reports would show all of it."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    guard.logger.addHandler(handler)
    guard.logger.propagate = False
    yield messages
    guard.logger.propagate = True
    guard.logger.removeHandler(handler)


def left_behind() -> bool:
    """Say whether something is still current, which the next operation would find; and end that."""
    if not get_current():
        return False
    attach(Context())
    return True


def test_results(instrumentor: Any, trial: Any, spans: Any, said: list[str]) -> None:  # noqa: F811
    began = time.monotonic()
    plain = trial.operate()
    allowed = time.monotonic() - began + BUSY
    instrumentor.instrument()
    assert trial.operate() == plain
    noticed, hits = [], 0
    for line in sample(lines_of(trial.operate)):
        guard.forget()
        said.clear()
        began = time.monotonic()
        with broken(line) as times:
            try:
                got = trial.operate()
            except Exception as error:
                got = error
        hits += len(times)
        if left_behind():
            noticed.append(f"{shown(line)}: leaves something in the context")
        if got != plain or len(said) != len(set(said)) or time.monotonic() - began > allowed:
            noticed.append(f"{shown(line)}: {got!r} {said}")
    assert hits or instrumentor.name in NEXT_TO_NONE
    assert not noticed, "\n".join(noticed)


def test_exceptions(instrumentor: Any, trial: Any, spans: Any, said: list[str]) -> None:  # noqa: F811
    instrumentor.instrument()
    noticed = []

    def fail() -> None:
        with pytest.raises(ValueError, match="the application's"):
            trial.fail(ValueError("the application's"))

    for line in sample(lines_of(fail)):
        guard.forget()
        error = ValueError("the application's")
        got: BaseException | None = None
        with broken(line):
            try:
                trial.fail(error)
            except Exception as caught:
                got = caught
        if left_behind():
            noticed.append(f"{shown(line)}: leaves something in the context")
        if got is not error or isinstance(error.__context__, ChaosError):
            noticed.append(f"{shown(line)}: {got!r}")
    assert not noticed, "\n".join(noticed)
