"""The current context at the least cost that the API's objects allow, and by its functions where those have changed."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any

from opentelemetry import context as api
from opentelemetry.context import Context
from opentelemetry.context.contextvars_context import ContextVarsRuntimeContext
from opentelemetry.trace import INVALID_SPAN, set_span_in_context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from opentelemetry.trace import Span

# Under which a Context holds the current span.
(SPAN_KEY,) = set_span_in_context(INVALID_SPAN, Context())


def _variable() -> ContextVar[Context] | None:
    """Find the variable behind the API's functions, unless OTEL_PYTHON_CONTEXT names another runtime context."""
    runtime = getattr(api, "_RUNTIME_CONTEXT", None)
    variable = getattr(runtime, "_current_context", None)
    return variable if type(runtime) is ContextVarsRuntimeContext and type(variable) is ContextVar else None


variable = _variable()
get_current: Callable[[], Context] = api.get_current if variable is None else variable.get
attach: Callable[[Context], Token[Context]] = api.attach if variable is None else variable.set


if variable is None:
    detach: Callable[[Any], None] = api.detach
else:
    _reset = variable.reset

    def detach(token: Any) -> None:
        """Make current again what was so before the `attach` that answered `token`."""
        try:
            _reset(token)
        except Exception:
            api.detach(token)  # fails likewise, and logs it as always


def abandon(token: Any, context: Context) -> None:
    """Detach for somebody who is gone, where `context` is still current, and in the place where it was attached."""
    if variable is not None and variable.get() is context:
        with suppress(ValueError):  # of another place, which has inherited it
            variable.reset(token)


@contextmanager
def attached(context: Context) -> Iterator[None]:
    """Make `context` the current one within a `with` statement; what is left attached there goes with it."""
    token = attach(context)
    try:
        yield
    finally:
        detach(token)


def with_span(span: Span, context: Context) -> Context:
    """Answer a context like `context` in which `span` is the current one."""
    return Context(context | {SPAN_KEY: span})
