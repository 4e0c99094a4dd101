"""What grpc's callables and handlers have in common, plain and asyncio: how their spans begin, and when they end."""

from __future__ import annotations

from copy import copy
from functools import partial, wraps
from importlib import import_module
from inspect import isasyncgenfunction, iscoroutinefunction
from typing import TYPE_CHECKING, Any

from opentelemetry.instrumentation.utils import is_instrumentation_enabled

from spanbridge.conventions import rpc
from spanbridge.core.guard import guarded, report
from spanbridge.core.tracing import opener, site_of, traced

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from spanbridge.core.tracing import Scope, Setup, Wrapped

    Call = Callable[["Wrapped", "Setup"], "Wrapped"]


def calling(kind: str) -> Call:
    """Make the advice for a callable's `__call__`, `with_call` or `future`; `kind` is one of `rpc.KINDS`."""

    def describe(
        callable_: Any, request: Any = None, timeout: Any = None, metadata: Any = None, *_: Any, **more: Any
    ) -> rpc.Rpc:
        request = more.get("request_iterator", request)  # asyncio may have neither: messages are written to the call
        target = getattr(callable_._channel, "target", "")  # noqa: SLF001 - the callable has no public side
        target = target() if callable(target) else target
        return rpc.Rpc(callable_._method, metadata, kind, target=target, request=request)  # noqa: SLF001

    def prepare(scope: Scope[rpc.Rpc]) -> None:
        if len(scope.args) > 3:
            scope.args = (*scope.args[:3], scope.record.metadata, *scope.args[4:])
        else:
            scope.kwargs = {**scope.kwargs, "metadata": scope.record.metadata}

    return lambda wrapped, setup: followed(wrapped, setup, describe, prepare)


def followed(
    wrapped: Wrapped,
    setup: Setup,
    describe: Callable[..., rpc.Rpc],
    prepare: Callable[[Scope[rpc.Rpc]], None],
) -> Wrapped:
    """Return a replacement of `wrapped` whose span goes on until the call that it answers is done."""
    operation = rpc.client(setup, describe, prepare, follow)
    begin = opener(setup, operation, site_of(setup, wrapped), wrapped)

    if iscoroutinefunction(wrapped):

        @wraps(wrapped)
        async def call_async(*args: Any, **kwargs: Any) -> Any:
            scope = begin(args, kwargs)
            if scope is None:
                return await wrapped(*args, **kwargs)
            try:
                result = await wrapped(*scope.args, **scope.kwargs)
            except BaseException as error:
                scope.fail(error)
                raise
            return scope.finish(result)

        return call_async

    @wraps(wrapped)
    def call(*args: Any, **kwargs: Any) -> Any:
        scope = begin(args, kwargs)
        if scope is None:
            return wrapped(*args, **kwargs)
        try:
            result = wrapped(*scope.args, **scope.kwargs)
        except BaseException as error:
            scope.fail(error)
            raise
        return scope.finish(result)

    return call


def continuing(continuation: Any, details: Any, request: Any, kind: str) -> Any:
    """What an interceptor does; the last argument is for `details_of` alone."""
    return continuation(details, request)


async def continuing_async(continuation: Any, details: Any, request: Any, kind: str) -> Any:
    """What an asyncio interceptor does."""
    return await continuation(details, request)


def details_of(continuation: Any, details: Any, request: Any, kind: str) -> rpc.Rpc:
    """Describe what an interceptor sees of a call."""
    return rpc.Rpc(details.method, details.metadata, kind, request=request)


def replace_details(scope: Scope[rpc.Rpc]) -> None:
    """Hand on details that carry the record's metadata."""
    continuation, details, request, kind = scope.args
    metadata: Any = scope.record.metadata
    if hasattr(type(details.metadata), "from_tuple"):  # asyncio has a class for it
        metadata = type(details.metadata).from_tuple(metadata)
    if hasattr(details, "_replace"):
        details = details._replace(metadata=metadata)
    else:
        details = copy(details)
        details.metadata = metadata
    scope.args = (continuation, details, request, kind)


# The end of a call, told in threads and loops of grpc's own; a scope whose end is not understood goes with the call.

_guarded = partial(guarded, site="grpc: the end of a call")


def follow(scope: Scope[rpc.Rpc], call: Any) -> Any:
    """Answer the call itself, whose end will end the scope; None for an answer that is there already."""
    if isinstance(call, tuple) or not hasattr(call, "code") or not hasattr(call, "add_done_callback"):
        return None
    if iscoroutinefunction(call.code):
        _follow_async(scope, call)
    elif hasattr(call, "_state") and hasattr(call, "__next__"):
        # Still under way. Without a reference to the call: grpc cancels one that nobody keeps.
        settle = partial(_settle_by_state, scope, call._state)  # noqa: SLF001 - all that is left by then
        if not call.add_callback(settle):
            settle()
    else:
        call.add_done_callback(partial(_settle_by_call, scope))
    return call


@_guarded
def _settle_by_state(scope: Scope[rpc.Rpc], state: Any) -> None:
    _settle(scope, state.code, state.details)


@_guarded
def _settle_by_call(scope: Scope[rpc.Rpc], call: Any) -> None:
    _settle(scope, call.code(), call.details(), call)


def _settle(scope: Scope[rpc.Rpc], code: Any, details: Any, outcome: Any = None) -> None:
    """End the scope of a plain call that is done, in whatever thread."""
    if rpc.number(code) == 0:
        # What an interceptor gets of a call with one answer.
        scope.complete(outcome.result() if hasattr(outcome, "result") else None)
    else:
        scope.fail(rpc.Refused(code, details))


def _follow_async(scope: Scope[rpc.Rpc], call: Any) -> None:
    """An asyncio call works in tasks, which tell of faults before and after what goes over the wire."""
    task = next((task for name in _TASKS if (task := getattr(call, name, None)) is not None), None)
    if task is not None:
        task.add_done_callback(partial(_task_done, scope, call))
    if not hasattr(call, "_call_response") and not hasattr(call, "_interceptors_task"):
        call.add_done_callback(_guarded(lambda _: _settle_async(scope, call)))


# What is asked first: an intercepted call becomes another call; an answer of one message; the sending of a stream's
# request.
_TASKS = ("_interceptors_task", "_call_response", "_preparation")


def _task_done(scope: Scope[rpc.Rpc], call: Any, task: Any) -> None:
    try:
        if task.cancelled():
            _settle_async(scope, call)
        elif (error := task.exception()) is not None:
            scope.fail(error)
        elif hasattr(call, "_interceptors_task"):
            if follow(scope, task.result()) is None:
                scope.complete(task.result())
        elif hasattr(call, "_call_response"):
            _settle_async(scope, call, task.result())
    except NotImplementedError:  # an interceptor's stand-in for a call, which has its answer
        scope.complete(None)
    except Exception as error:
        report(f"{scope.site}: following the call", error)
        scope.end()


def _settle_async(scope: Scope[rpc.Rpc], call: Any, response: Any = None) -> None:
    code, details = _at_once(call.code()), _at_once(call.details())
    if rpc.number(code) == 0:
        scope.complete(rpc.Answered(response, details))
    else:
        scope.fail(rpc.Refused(code, details))


def _at_once(coroutine: Any) -> Any:
    """Answer what a coroutine returns without waiting; None if it would wait."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    coroutine.close()
    return None


# Servers.


def serving(setup: Setup) -> Callable[[Any, str | bytes], Any]:
    """Compile what puts a span around a handler's behaviour, unless suppressed: takes the handler and the method."""
    operation = rpc.server(setup, _describe_served)
    plain, streamed = traced(_serve, setup, operation), traced(_serve_stream, setup, operation)
    awaited, streamed_async = traced(_serve_async, setup, operation), traced(_serve_stream_async, setup, operation)

    def around(behavior: Any, method: str | bytes, kind: str, *, streams: bool) -> Any:
        if isasyncgenfunction(behavior):

            @wraps(behavior)
            async def serve_stream_async(request: Any, context: Any) -> Any:
                async for response in streamed_async(behavior, request, context, method, kind):
                    yield response

            return serve_stream_async
        if iscoroutinefunction(behavior):

            @wraps(behavior)
            async def serve_async(request: Any, context: Any) -> Any:
                return await awaited(behavior, request, context, method, kind)

            return serve_async

        @wraps(behavior)
        def serve(request: Any, context: Any) -> Any:
            return (streamed if streams else plain)(behavior, request, context, method, kind)

        return serve

    def served(handler: Any, method: str | bytes) -> Any:
        try:
            if not is_instrumentation_enabled() or (setup.source.tracer or setup.source.resolve()) is None:
                return handler
            streams = bool(handler.request_streaming), bool(handler.response_streaming)
            name = "_".join("stream" if streaming else "unary" for streaming in streams)
            behavior = around(getattr(handler, name), method, rpc.KINDS[streams], streams=streams[1])
            make = getattr(import_module("grpc"), f"{name}_rpc_method_handler")
            return make(behavior, handler.request_deserializer, handler.response_serializer)
        except Exception as error:
            report(f"{setup.integration}: a handler", error)
            return handler

    return served


def _describe_served(behavior: Any, request: Any, context: Any, method: Any, kind: str) -> rpc.Rpc:
    return rpc.Rpc(method, context.invocation_metadata(), kind, request=request, context=context)


def _serve(behavior: Any, request: Any, context: Any, method: Any, kind: str) -> Any:
    return behavior(request, context)


def _serve_stream(behavior: Any, request: Any, context: Any, method: Any, kind: str) -> Iterator[Any]:
    yield from behavior(request, context)


async def _serve_async(behavior: Any, request: Any, context: Any, method: Any, kind: str) -> Any:
    return await behavior(request, context)


async def _serve_stream_async(behavior: Any, request: Any, context: Any, method: Any, kind: str) -> Any:
    async for response in behavior(request, context):
        yield response
