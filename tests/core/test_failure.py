"""What spans say of exceptions, and what they leave out."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any
from weakref import ref

import pytest
from opentelemetry import trace

from spanbridge.core import failure
from spanbridge.core.failure import record_failure

if TYPE_CHECKING:
    from spanbridge.testing import Spans


class StoreError(Exception):
    """Of a class written in Python, as those of the stores' drivers are."""


def hide(text: str) -> str:
    return text.replace("secret", "?").replace("42", "?")


def raised(error: Exception, cause: Exception | None = None) -> Any:
    try:
        raise error from cause
    except Exception as caught:
        return caught


def told(spans: Spans, error: Exception, **options: Any) -> str:
    """Answer all that a span says of an exception."""
    with trace.get_tracer("x").start_as_current_span("failing") as span:
        record_failure(span, error, **options)
    said = spans[-1]
    (event,) = said["events"]
    return str((said["description"], event["attributes"]))


def test_what_is_hidden_stays_so_in_the_spans_around(spans: Spans) -> None:
    error = raised(StoreError("no secret"))
    assert "secret" not in told(spans, error, clean=hide)
    assert "no ?" in told(spans, error)


@pytest.mark.parametrize("link", ["cause", "context"])
def test_and_where_another_exception_tells_of_that_one(spans: Spans, link: str) -> None:
    error = raised(StoreError("no secret"))
    told(spans, error, clean=hide)
    outer = raised(RuntimeError(f"because: {error}"), error if link == "cause" else None)
    if link == "context":
        outer.__context__ = error
    said = told(spans, outer)
    assert "because: no ?" in said
    assert "secret" not in said


def test_others_are_left_alone(spans: Spans) -> None:
    error = raised(StoreError("no secret"))
    told(spans, error, clean=hide)
    assert "a secret of its own" in told(spans, raised(RuntimeError("a secret of its own")))


def test_exceptions_in_c_are_hidden_where_that_is_asked_for(spans: Spans) -> None:
    error = raised(ValueError("no secret"))
    assert "secret" not in told(spans, error, clean=hide)
    assert "secret" in told(spans, error)  # nothing can be known of it


def test_line_numbers_are_no_values(spans: Spans) -> None:
    def deep(level: int) -> None:
        if level:
            deep(level - 1)
        raise StoreError("42 secret")

    code = compile("\n" * 41 + "deep(1)", "/tmp/42/module.py", "exec")
    with pytest.raises(StoreError) as caught:
        exec(code, {"deep": deep})
    said = told(spans, caught.value, clean=hide)
    assert 'File "/tmp/42/module.py", line 42, in <module>' in said
    assert "? ?" in said
    assert "secret" not in said


def test_no_exception_is_kept(spans: Spans) -> None:
    error = raised(StoreError("no secret"))
    told(spans, error, clean=hide)
    gone = ref(error)
    del error
    gc.collect()
    assert gone() is None
    assert not failure._cleaners
