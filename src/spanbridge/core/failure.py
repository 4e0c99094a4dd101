"""How a span tells of an exception: status, `error.type` and an event, without what may not leave the process.

https://opentelemetry.io/docs/specs/semconv/exceptions/exceptions-spans/
"""

from __future__ import annotations

import re
from contextlib import suppress
from traceback import format_exception
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.semconv.attributes.exception_attributes import (
    EXCEPTION_MESSAGE,
    EXCEPTION_STACKTRACE,
    EXCEPTION_TYPE,
)
from opentelemetry.trace import Status, StatusCode

from spanbridge.core.guard import described

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.trace import Span
    from opentelemetry.util.types import AttributeValue

# What takes values out of the texts of exceptions that have passed a store's or a client's span: on its way up, each
# passes others, of servers and tasks, which know nothing of statements.
_cleaners: WeakKeyDictionary[BaseException, Callable[[str], str]] = WeakKeyDictionary()
_CHAINED = 8


def record_failure(
    span: Span, error: BaseException, *, error_type: bool = True, clean: Callable[[str], str] | None = None
) -> None:
    """Mark a span as failed by `error`: exception event, status, and `error.type`.

    Cancellation and interpreter exits are no failures of the operation and leave the span unmarked.

    Args:
        span: the span.
        error: what the call raised.
        error_type: whether `error.type` is written.
        clean: takes out of the exception's texts what may not leave the process. It holds for the spans, too, that this
            exception passes later, and those that are raised because of it; so it must not refer to the exception.
    """
    if not isinstance(error, Exception):
        return
    if error_type:
        span.set_attribute(ERROR_TYPE, type(error).__qualname__)
    if clean is None:
        clean = _known_cleaner(error)
    else:
        with suppress(TypeError):  # a class in C, which nothing can refer to weakly
            _cleaners[error] = clean
    description = described(error)
    span.set_status(Status(StatusCode.ERROR, description if clean is None else clean(description)))
    try:
        texts: dict[str, AttributeValue] = {}
        if clean is not None:
            texts[EXCEPTION_MESSAGE] = clean(str(error))
            texts[EXCEPTION_STACKTRACE] = _clean_stack("".join(format_exception(error)), clean)
        span.record_exception(error, texts)
    except Exception:  # its text cannot be had
        span.add_event("exception", {EXCEPTION_TYPE: f"{type(error).__module__}.{type(error).__qualname__}"})


def _known_cleaner(error: BaseException | None) -> Callable[[str], str] | None:
    for _ in range(_CHAINED if _cleaners else 0):
        if error is None:
            break
        with suppress(TypeError):
            if (clean := _cleaners.get(error)) is not None:
                return clean
        error = error.__cause__ or error.__context__
    return None


_FRAME = re.compile(r'(?m)^ +File ".*", line \d+, in .*$')


def _clean_stack(stack: str, clean: Callable[[str], str]) -> str:
    """Clean a stack trace, but for files and line numbers, which are no values even where they look like some."""
    frames = iter(_FRAME.findall(stack))
    return re.sub("\0", lambda _: next(frames, ""), clean(_FRAME.sub("\0", stack)))
