"""Any line of ours may raise while the application works: it gets its results and its own exceptions all the same."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from spanbridge.core import guard
from tests.chaos import ChaosError, broken, lines_of, shown
from tests.contract.test_contract import instrumentor, name, trial  # noqa: F401 - fixtures

if TYPE_CHECKING:
    from collections.abc import Iterator


# Where every line has been broken and read. The others' glue is still to be read: what fails there is mostly that.
PROVEN = {
    "asyncio", "botocore", "bottle", "celery", "django", "djangorestframework", "flask", "futures", "gevent",
    "jinja2", "kombu", "mako", "psycopg", "psycopg2", "pylibmc", "pymemcache", "pyramid", "redis",
    "requests", "sqlalchemy", "sqlite3", "starlette",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _only_what_is_proven(name: str) -> None:  # noqa: F811
    if name not in PROVEN:
        pytest.skip(f"the lines of {name} that stand between the application and our guards are not told apart yet")


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


def test_results(instrumentor: Any, trial: Any, spans: Any, said: list[str]) -> None:  # noqa: F811
    plain = trial.operate()
    instrumentor.instrument()
    assert trial.operate() == plain
    unguarded, hits = [], 0
    for line in lines_of(trial.operate):
        guard.forget()
        said.clear()
        with broken(line) as times:
            try:
                got = trial.operate()
            except Exception as error:
                got = error
        hits += len(times)
        if got != plain or len(said) != len(set(said)):
            unguarded.append((shown(line), got, said[:]))
    # Carriers and djangorestframework, whose spans are Django's, have next to no lines of their own here.
    assert hits or instrumentor.name in {"asyncio", "djangorestframework", "futures", "gevent", "threading"}
    assert not unguarded


def test_exceptions(instrumentor: Any, trial: Any, spans: Any, said: list[str]) -> None:  # noqa: F811
    instrumentor.instrument()
    unguarded = []

    def fail() -> None:
        with pytest.raises(LookupError):
            trial.fail(LookupError("the application's"))

    for line in lines_of(fail):
        guard.forget()
        error = LookupError("the application's")
        got: BaseException | None = None
        with broken(line):
            try:
                trial.fail(error)
            except Exception as caught:
                got = caught
        if got is not error or isinstance(error.__context__, ChaosError):
            unguarded.append((shown(line), got))
    assert not unguarded
