"""Faults of ours: one warning per site, the traceback at DEBUG, never an exception."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

from spanbridge.core.guard import first_time, guarded, logger, or_unchanged, report

if TYPE_CHECKING:
    import pytest


def boom(*args: Any) -> Any:
    raise ValueError("inside")


def test_once_per_site(caplog: pytest.LogCaptureFixture) -> None:
    for site in ("one", "one", "two"):
        report(site, ValueError("why"))
    assert [message.split(" failed (")[0] for message in caplog.messages] == ["one", "two"]
    assert "ValueError: why" in caplog.messages[0]
    assert {record.levelname for record in caplog.records} == {"WARNING"}


def test_traceback_at_debug_only(caplog: pytest.LogCaptureFixture) -> None:
    guarded(boom, "quiet")()
    assert caplog.records[0].exc_info is None
    caplog.set_level("DEBUG", "spanbridge")
    guarded(boom, "loud")()
    assert "in boom" in caplog.text


def test_guarded(caplog: pytest.LogCaptureFixture) -> None:
    assert guarded(int, "site")("7") == 7
    assert guarded(int, "site")("seven") is None
    assert guarded(boom, "site")(1, 2) is None
    assert len(caplog.messages) == 1
    assert guarded(boom, "other").__name__ == "boom"


def test_changes(caplog: pytest.LogCaptureFixture) -> None:
    given = object()
    assert or_unchanged(str.upper, "site")("seven") == "SEVEN"
    assert or_unchanged(boom, "site")(given) is given
    assert len(caplog.messages) == 1


def test_error_whose_text_raises(caplog: pytest.LogCaptureFixture) -> None:
    class UnspeakableError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    report("unspeakable", UnspeakableError())
    assert caplog.messages[0].startswith("unspeakable failed (UnspeakableError)")


def test_log_handler_of_the_application_that_raises() -> None:
    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError("disk full")

    handler = Broken()
    logger.addHandler(handler)
    try:
        report("site", ValueError())
    finally:
        logger.removeHandler(handler)


def test_first_time_in_threads() -> None:
    answers: list[bool] = []
    barrier = threading.Barrier(8)

    def ask() -> None:
        barrier.wait(10)
        answers.append(first_time("threads"))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [False] * 7 + [True]
