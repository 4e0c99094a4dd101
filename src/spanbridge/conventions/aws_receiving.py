"""AWS calls that receive messages: the call first, its span afterwards, for it may continue what they carry."""

from __future__ import annotations

from dataclasses import replace
from inspect import iscoroutinefunction
from time import time_ns
from typing import TYPE_CHECKING, Any

from opentelemetry.context import detach
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.trace import SpanKind, get_current_span

from spanbridge.conventions import aws_messages
from spanbridge.core.guard import guarded
from spanbridge.core.tracing import HTTP, Operation, cover, opener

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, SpanContext

    from spanbridge.conventions.aws import Call
    from spanbridge.core.tracing import Setup, Wrapped

_MOST_LINKS = 128  # the SDK's default limit


def receives(client: Any = None, operation_name: Any = None, *args: Any, **kwargs: Any) -> bool:
    """Say whether a call is one that receives messages."""
    return operation_name in ("ReceiveMessage", "GetRecords")


def received(wrapped: Wrapped, setup: Setup, sending: Operation[Call], *, propagates: bool) -> Wrapped:
    """Return a replacement of `wrapped` for calls that receive messages, plain or `async`.

    Args:
        wrapped: botocore's, or aiobotocore's, `_make_api_call`.
        setup: what the `instrument()` call decided.
        sending: the operation that other calls are.
        propagates: whether messages carry the context.
    """
    adopts, empty_polls = setup.options["continue_received"], setup.options["empty_polls"]

    def parent(call: Call, context: Context) -> tuple[Context, SpanKind]:
        adopted = adopts
        if adopted is None and not get_current_span(context).get_span_context().is_valid:
            adopted = len({span_context.trace_id for span_context in _span_contexts(call)}) == 1
        return call.contexts[0] if adopted and call.contexts else context, SpanKind.CLIENT

    operation = replace(sending, describe=lambda call: call, parent=parent, inject=None, prepare=None)
    begin = opener(setup, operation, f"{setup.integration}: receiving")

    def prepared(*args: Any, **kwargs: Any) -> Call | None:
        if (setup.source.tracer is None and setup.source.resolve() is None) or not is_instrumentation_enabled():
            return None
        call = sending.describe(*args, **kwargs)
        if call is not None and propagates:
            call.params = aws_messages.asking(call.service, call.params)
        return call

    def tell(call: Call, start: int, result: Any, error: BaseException | None = None) -> None:
        if error is None:
            call.contexts = aws_messages.contexts(call.service, result) if propagates else []
            if not empty_polls and not (result.get("Messages") or result.get("Records")):
                return
        scope = begin((call,), {}, start)
        if scope is None:
            return
        try:
            _link(scope.span, _span_contexts(call))
        finally:
            scope.complete(result) if error is None else scope.fail(error)

    prepare, told = (guarded(function, f"{setup.integration}: receiving") for function in (prepared, tell))

    if iscoroutinefunction(wrapped):

        async def receive_async(*args: Any, **kwargs: Any) -> Any:
            call = prepare(*args, **kwargs)
            if call is None:
                return await wrapped(*args, **kwargs)
            start, token = time_ns(), cover(HTTP)
            try:
                result = await wrapped(call.client, call.operation, call.params)
            except BaseException as error:
                detach(token)
                told(call, start, None, error)
                raise
            detach(token)
            told(call, start, result)
            return result

        return receive_async

    def receive(*args: Any, **kwargs: Any) -> Any:
        call = prepare(*args, **kwargs)
        if call is None:
            return wrapped(*args, **kwargs)
        start, token = time_ns(), cover(HTTP)
        try:
            result = wrapped(call.client, call.operation, call.params)
        except BaseException as error:
            detach(token)
            told(call, start, None, error)
            raise
        detach(token)
        told(call, start, result)
        return result

    return receive


def _link(span: Span, contexts: list[SpanContext]) -> None:
    """Link to the senders of messages, except to the one that the span continues."""
    seen = {getattr(getattr(span, "parent", None), "span_id", None)}
    for context in contexts:
        if context.span_id not in seen and len(seen) <= _MOST_LINKS:
            seen.add(context.span_id)
            span.add_link(context)


def _span_contexts(call: Call) -> list[SpanContext]:
    return [get_current_span(context).get_span_context() for context in call.contexts]
