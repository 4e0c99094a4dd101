"""The engine: the only place where spans start and end.

An `Operation` says what a kind of call is; `traced` compiles it with one function into a replacement, at instrument
time, so that a call looks nothing up. Only our own lines are guarded: what the application raises or returns passes
unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import wraps
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction, signature
from time import time_ns
from types import AsyncGeneratorType, GeneratorType
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from weakref import ref

from opentelemetry import trace
from opentelemetry.context import (
    _SUPPRESS_HTTP_INSTRUMENTATION_KEY,
    _SUPPRESS_INSTRUMENTATION_KEY,
    Context,
    create_key,
    set_value,
)
from opentelemetry.trace import (
    INVALID_SPAN,
    NoOpTracerProvider,
    ProxyTracerProvider,
    SpanKind,
)

from spanbridge.core.context import SPAN_KEY, abandon, attach, attached, detach, get_current
from spanbridge.core.failure import record_failure
from spanbridge.core.guard import guarded, qualified_name, report
from spanbridge.version import __version__

if TYPE_CHECKING:
    from contextvars import Token

    from opentelemetry.trace import Span, Tracer, TracerProvider
    from opentelemetry.util.types import AttributeValue

    from spanbridge.core.semconv import Semconv

R = TypeVar("R")
Wrapped = Callable[..., Any]
Begin = Callable[..., "Scope[Any] | None"]
Attributes = Mapping[str, "AttributeValue"]

# Layers, as bits: within an open span, a call of a covered layer makes no span of its own (the outermost layer wins).
HTTP, DATABASE, MESSAGING, RPC = 1, 2, 4, 8

_COVERED = create_key("spanbridge-covered-layers")
_SCOPE = create_key("spanbridge-scope")
# The plain key is what opentelemetry-instrumentation's own suppression sets besides its unique one.
_SUPPRESS_PLAIN = "suppress_instrumentation"
_NO_KWARGS: dict[str, Any] = {}
_update = dict.update
_NO_PROVIDER = (ProxyTracerProvider, NoOpTracerProvider)


class TracerSource:
    """The tracer of one `instrument()` call: None while there is no provider, and for good once closed."""

    __slots__ = ("_beside", "_name", "_provider", "_schema_url", "closed", "takes_over", "tracer")

    def __init__(self, name: str, schema_url: str, provider: TracerProvider | None = None) -> None:
        self._name = name
        self._schema_url = schema_url
        self._provider = provider
        self._beside: list[TracerSource] = []
        self.closed = False
        self.takes_over = False
        self.tracer: Tracer | None = None
        self._ask()

    def resolve(self) -> Tracer | None:
        """Take the tracer as soon as there is a provider that records (the application may set it late)."""
        # As long as no provider is set, the API reads the environment at each call, which costs more than all the rest.
        if self.closed or (self._provider is None and getattr(trace, "_TRACER_PROVIDER", trace) is None):
            return None
        return self._ask()

    def _ask(self) -> Tracer | None:
        try:
            provider = self._provider or trace.get_tracer_provider()
            if isinstance(provider, _NO_PROVIDER):
                return None
            tracer = trace.get_tracer(self._name, __version__, provider, schema_url=self._schema_url)
            self.takes_over = getattr(tracer, "takes_over", False)
            self.tracer = tracer
        except Exception as error:
            report("getting a tracer", error)
        return self.tracer

    def beside(self, name: str) -> TracerSource:
        """Answer where the tracer of another scope comes from; it closes with this one."""
        other = TracerSource(name, self._schema_url, self._provider)
        self._beside.append(other)
        return other

    def close(self) -> None:
        """Make every replacement that cannot be taken back a plain call."""
        self.closed = True
        self.tracer = None
        for other in self._beside:
            other.close()


@dataclass(frozen=True, slots=True)
class Setup:
    """What one `instrument()` call decided, for the advices to compile in.

    Args:
        integration: the entry point's name.
        source: where the tracer comes from.
        semconv: which names are written.
        options: the values of the integration's declared options.
    """

    integration: str
    source: TracerSource
    semconv: Semconv
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Operation(Generic[R]):
    """A kind of call, as functions over the record that `describe` makes of one call.

    Args:
        kind: the span's kind.
        describe: takes the call's own arguments and answers a record, or None for a call that is not to be traced.
        name: the span's name.
        attributes: the start attributes; the span may take them over where `fresh`.
        fresh: whether `attributes` answers a new dict each time, which nobody else holds, with plain texts as keys.
        plain: whether its values are all of `PLAIN` classes, too, which then are not looked at.
        layer: the layer that the call belongs to (a bit, 0 for none).
        covers: the layers that make no spans of their own within.
        parent: the context that the span continues (servers and consumers); answers (context, kind).
        inject: writes the span's context into the outgoing call.
        opened: called once the span is open, if it records (request hooks).
        prepare: called last, with the scope; may change `scope.args` and `scope.kwargs`, which the call then gets.
        succeeded: describes the result on a span that records.
        failed: describes the exception on a span that records, instead of `record_failure`.
        stream: given (scope, result), answers a stand-in that ends the scope later, or None to end it now.
        enrich: given (outer span, *the own arguments), adds what an inner layer knows to the span of the outer one.
        found_at: the key under which the record is found in the context of the call, and of all that is below.
    """

    kind: SpanKind
    describe: Callable[..., R | None]
    name: Callable[[R], str]
    attributes: Callable[[R], Attributes]
    layer: int = 0
    covers: int = 0
    parent: Callable[[R, Context], tuple[Context, SpanKind]] | None = None
    inject: Callable[[R, Context], None] | None = None
    opened: Callable[[Span, R], None] | None = None
    prepare: Callable[[Scope[R]], object] | None = None
    succeeded: Callable[[Span, R, Any], None] | None = None
    failed: Callable[[Span, R, BaseException], None] | None = None
    stream: Callable[[Scope[R], Any], Any] | None = None
    enrich: Callable[..., None] | None = None
    found_at: str | None = None
    fresh: bool = False
    plain: bool = False


class Scope(Generic[R]):
    """One open span, current until the call returns; ends exactly once.

    `begun` tells that a part of the result is out: of a stream, or of an answer that is sent rather than returned.
    """

    __slots__ = (
        *("__weakref__", "args", "begun", "context", "ended", "kwargs"),
        *("operation", "record", "site", "span", "token"),
    )

    def __init__(
        self,
        operation: Operation[R],
        record: R,
        span: Span,
        context: Context,
        site: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self.ended = self.begun = False
        self.operation = operation
        self.record = record
        self.span = span
        self.context = context
        self.site = site
        self.args = args
        self.kwargs = kwargs
        self.token: Any = attach(context)

    def leave(self) -> None:
        """Stop being current; the span stays open."""
        token, self.token = self.token, None
        if token is not None:
            detach(token)

    def finish(self, result: Any) -> Any:
        """End the span after a call that returned `result`; answer what the application gets."""
        stream = self.operation.stream
        if stream is not None:
            self.__class__ = LastingScope
            try:
                stand_in = stream(self, result)
            except Exception as error:
                report(f"{self.site}: following the result", error)
                stand_in = None
            if stand_in is not None:
                self.leave()
                return stand_in
        self.complete(result)
        return result

    def complete(self, result: Any, *, stay: bool = False) -> None:
        """End the span after all of `result` is there.

        Args:
            result: what the call has returned or sent.
            stay: whether the call goes on, and what it still does (background tasks) stays within it; then this may be
                called in any task.
        """
        succeeded, span = self.operation.succeeded, self.span
        if succeeded is not None and not self.ended:
            try:
                if span.is_recording():
                    succeeded(span, self.record, result)
            except Exception as error:
                report(f"{self.site}: describing the result", error)
        if stay:
            self.close()
        else:
            self.end()

    def fail(self, error: BaseException) -> None:
        """End the span after a call that raised `error`."""
        try:
            if self.span.is_recording():
                failed = self.operation.failed
                if failed is None:
                    record_failure(self.span, error)
                else:
                    failed(self.span, self.record, error)
        except Exception as fault:
            report(f"{self.site}: describing the exception", fault)
        self.end()

    def end(self) -> None:
        """Stop being current and end the span, unless it has ended."""
        token = self.token
        if token is not None:
            self.token = None
            detach(token)
        self.close()

    def close(self) -> None:
        """End the span alone, unless it has ended; what a processor raises stays here."""
        if self.ended:
            return
        self.ended = True
        # What the call was given may hold the scope (a server's `start_response` does): together they would be garbage
        # that only the collector finds.
        self.args, self.kwargs = (), _NO_KWARGS
        try:
            self.span.end()
        except Exception as error:
            report(f"{self.site}: ending the span", error)

    def last(self) -> None:
        """Outlive the call, by what was returned; the span ends with the scope at the latest."""
        self.__class__ = LastingScope

    # A result that goes on after the call: attached step by step, never across a yield.

    def carry_on(self, result: Any) -> Any:
        """Answer `result`, or a stand-in that keeps the span open until what was returned is done."""
        kind = type(result)
        if not _goes_on(kind):
            return self.finish(result)
        self.last()
        if kind is GeneratorType:
            self.leave()
            return _steps(lambda *_: self, lambda *_, **__: result)()
        if kind is AsyncGeneratorType:
            self.leave()
            return _async_steps(lambda *_: self, lambda *_, **__: result)()
        if kind.__name__ == "coroutine":  # CoroutineType, or Cython's
            self.leave()
            return _awaited(self, result)
        return self.follow(result)

    def follow(self, future: Any) -> Any:
        """Answer `future`; the span ends when it is done."""
        self.last()
        self.leave()
        try:
            future.add_done_callback(self._done)
        except Exception as error:
            report(f"{self.site}: following the result", error)
            self.end()
        return future

    def _done(self, future: Any) -> None:
        try:
            if future.cancelled():
                self.end()
            # `exception()` alone would silence asyncio's report of an exception that nobody retrieves.
            elif error := getattr(future, "_exception", None) or future.exception():
                self.fail(error)
            else:
                self.finish(future.result())
        except Exception as error:
            report(f"{self.site}: following the result", error)
            self.end()


class LastingScope(Scope[R]):
    """A scope that somebody holds after the call."""

    __slots__ = ()

    def __del__(self) -> None:
        # Nobody else ends the span of a generator that was never started, of a coroutine that was never awaited, or of
        # a call whose describer has failed before it could keep the scope.
        if not self.ended:
            token, self.token = self.token, None
            if token is not None:
                abandon(token, self.context)
            self.close()


class EventScope(LastingScope[R]):
    """A scope that one event of a library opens and another ends; its context leads back to it."""

    __slots__ = ()


def ending(receiver: Callable[..., None], site: str) -> Callable[..., None]:
    """Return a receiver of the event that ends an `EventScope`; should it fail, the scope that is current ends.

    Args:
        receiver: finds the scope and ends it.
        site: where the scope was opened, as `opener` was told.
    """

    @wraps(receiver)
    def receive(*args: Any, **kwargs: Any) -> None:
        try:
            receiver(*args, **kwargs)
        except Exception as error:
            end_current(site, error)

    return receive


def end_current(site: str, fault: Exception) -> None:
    """Report that a receiver of the event that ends an `EventScope` has failed; end the one that is current."""
    report(f"{site}: hearing of the end", fault)
    if (scope := current_scope(site)) is not None:
        scope.end()


def current_scope(site: str) -> Scope[Any] | None:
    """Answer the `EventScope` that is current, if it was opened at `site`, as `opener` was told."""
    context = get_current()
    known: Any = context.get(_SCOPE)
    scope: Scope[Any] | None = known and known()
    return scope if scope is not None and scope.context is context and scope.site == site else None


def _goes_on(kind: type) -> bool:
    """Say whether a result of this class goes on after the call, in a way that can be followed.

    Other awaitables may be more than that (`async with`): they go out as they are, or `stream` knows them.
    """
    return (
        kind is GeneratorType
        or kind is AsyncGeneratorType
        or kind.__name__ == "coroutine"  # CoroutineType, or Cython's
        or (hasattr(kind, "__await__") and hasattr(kind, "add_done_callback"))
    )


async def _awaited(scope: Scope[Any], awaitable: Any) -> Any:
    scope.token = attach(scope.context)
    try:
        result = await awaitable
    except BaseException as error:
        scope.fail(error)
        raise
    return scope.finish(result)


def _steps(begin: Begin, wrapped: Wrapped) -> Wrapped:
    """Return a generator function that runs the one that `wrapped` makes, in a span from its first step to its last."""

    def steps(*args: Any, **kwargs: Any) -> Any:
        scope = begin(args, kwargs)
        if scope is None:
            return (yield from wrapped(*args, **kwargs))
        scope.leave()
        generator = wrapped(*scope.args, **scope.kwargs)
        sent, step = None, generator.send
        try:
            while True:
                token = attach(scope.context)
                try:
                    item = step(sent)
                except StopIteration as stop:
                    scope.complete(stop.value)
                    return stop.value
                except BaseException as error:
                    scope.fail(error)
                    raise
                finally:
                    detach(token)
                scope.begun = True
                try:
                    sent, step = (yield item), generator.send
                except GeneratorExit:
                    with attached(scope.context):
                        generator.close()
                    raise
                except BaseException as error:
                    sent, step = error, generator.throw
        finally:
            scope.end()

    return steps


def _async_steps(begin: Begin, wrapped: Wrapped) -> Wrapped:
    """Return what `_steps` does, for asynchronous generators."""

    async def steps(*args: Any, **kwargs: Any) -> Any:
        scope = begin(args, kwargs)
        if scope is not None:
            scope.leave()
            args, kwargs = scope.args, scope.kwargs
        generator = wrapped(*args, **kwargs)
        sent, step = None, generator.asend
        try:
            while True:
                token = None if scope is None else attach(scope.context)
                try:
                    item = await step(sent)
                except StopAsyncIteration:
                    if scope is not None:
                        scope.complete(None)
                    return
                except BaseException as error:
                    if scope is not None:
                        scope.fail(error)
                    raise
                finally:
                    if token is not None:
                        detach(token)
                if scope is not None:
                    scope.begun = True
                try:
                    sent, step = (yield item), generator.asend
                except GeneratorExit:
                    with nullcontext() if scope is None else attached(scope.context):
                        await generator.aclose()
                    raise
                except BaseException as error:
                    sent, step = error, generator.athrow
        finally:
            if scope is not None:
                scope.end()

    return steps


def opener(
    setup: Setup,
    operation: Operation[R],
    site: str,
    wrapped: Wrapped | None = None,
    scope_class: type[Scope[Any]] = LastingScope,
) -> Callable[..., Scope[R] | None]:
    """Compile the function that opens a span for a call, or answers None when the call goes straight through.

    Args:
        setup: what the `instrument()` call decided.
        operation: the kind of call.
        site: names the patch point in reports.
        wrapped: the original, to tell arguments that it takes, and the describer does not, from wrong ones.
        scope_class: `Scope` for callers that end every scope themselves, `EventScope` for those that hear of the end.
    """
    source, fresh, plain = setup.source, operation.fresh, operation.plain
    describe, name_of, attributes_of = operation.describe, operation.name, operation.attributes
    kind, layer, parent_of = operation.kind, operation.layer, operation.parent
    inject, opened, prepare, enrich = operation.inject, operation.opened, operation.prepare, operation.enrich
    found_at, leads_back = operation.found_at, issubclass(scope_class, EventScope)
    # A span that covers nothing (servers, consumers, internal work) reopens every layer.
    covers = operation.covers | layer
    is_http = layer & HTTP or operation.kind is SpanKind.SERVER
    key, plain_key = _SUPPRESS_INSTRUMENTATION_KEY, _SUPPRESS_PLAIN
    http_key = _SUPPRESS_HTTP_INSTRUMENTATION_KEY if is_http else key

    def begin(args: tuple[Any, ...], kwargs: dict[str, Any], start: int | None = None) -> Scope[R] | None:
        tracer: Any = source.tracer
        if tracer is None and (tracer := source.resolve()) is None:
            return None
        context = get_current()
        if (
            context
            and (key in context or plain_key in context or http_key in context)
            and (context.get(key) or context.get(plain_key) or context.get(http_key))
        ):
            return None
        try:
            outer: Any = context.get(_COVERED)
            if outer is not None and outer[0] & layer:
                if enrich is not None:
                    enrich(outer[1], *args, **kwargs)
                return None
            record = describe(*args, **kwargs)
            if record is None:
                return None
            span_kind = kind
            if parent_of is not None:
                context, span_kind = parent_of(record, context)
            parent: Any = context.get(SPAN_KEY)
            # Beneath a span that is not sampled nothing is, unless the sampler says otherwise: no attribute yet.
            unsampled = parent is not None and not parent.is_recording() and _is_local(parent)
            attributes: Any = None if unsampled else attributes_of(record)
            if fresh and source.takes_over:  # the last of the arguments, which are slower by name
                span = tracer.start_span(
                    name_of(record), context, span_kind, attributes, (), start, True, True, True, plain
                )
            else:
                span = tracer.start_span(name_of(record), context, span_kind, attributes, start_time=start)
            within: dict[str, Any] = {SPAN_KEY: span}
            if outer is not None or covers:
                within[_COVERED] = (covers, span)
            if found_at is not None:
                within[found_at] = record
            inside = Context(context)
            _update(inside, within)  # the one way to fill a Context without copying it once more
        except Exception as error:
            _report_start(error, site, wrapped, args, kwargs)
            return None
        try:
            if inject is not None:
                inject(record, inside)
            if (unsampled or opened is not None) and span.is_recording():
                if unsampled:
                    span.set_attributes(attributes_of(record))
                if opened is not None:
                    opened(span, record)
        except Exception as error:
            report(f"{site}: describing the call", error)
        scope = scope_class(operation, record, span, inside, site, args, kwargs)
        if leads_back:
            _update(inside, {_SCOPE: ref(scope)})
        if prepare is not None:
            try:
                prepare(scope)
            except Exception as error:
                report(f"{site}: preparing the call", error)
        return scope

    return begin


def apart(begin: Begin) -> Begin:
    """Return what opens the same spans without making them current."""

    def begin_apart(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Scope[Any] | None:
        scope = begin(args, kwargs)
        if scope is not None:
            scope.leave()
        return scope

    return begin_apart


def cover(layers: int) -> Token[Context]:
    """Attach a context in which calls of `layers` make no span; for calls whose own span is made after the fact."""
    outer: Any = get_current().get(_COVERED)
    covered = (outer[0] | layers, outer[1]) if outer is not None else (layers, INVALID_SPAN)
    return attach(set_value(_COVERED, covered))


def _report_start(
    error: Exception, site: str, wrapped: Wrapped | None, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Report that a call was not described, unless the application is about to hear that its arguments are wrong."""
    if wrapped is not None and isinstance(error, TypeError):
        try:
            signature(wrapped).bind(*args, **kwargs)
        except TypeError:
            return
        except ValueError:  # a function in C that does not tell what it takes
            if error.__traceback__ is not None and error.__traceback__.tb_next is None:  # raised by calling `describe`
                return
    report(f"{site}: starting the span", error)


def _is_local(span: Span) -> bool:
    context = span.get_span_context()
    return context.is_valid and not context.is_remote


def traced(wrapped: Wrapped, setup: Setup, operation: Operation[Any]) -> Wrapped:
    """Return a replacement of `wrapped` that makes one span per call; of the same flavour (`async def`, generator)."""
    begin = opener(setup, operation, site_of(setup, wrapped), wrapped, Scope)
    streams = operation.stream is not None

    if isgeneratorfunction(wrapped):
        return wraps(wrapped)(_steps(begin, wrapped))
    if isasyncgenfunction(wrapped):
        return wraps(wrapped)(_async_steps(begin, wrapped))

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
            if streams:
                return scope.finish(result)
            scope.complete(result)
            return result

        return call_async

    ordinary: type | None = None  # the class of results that was last seen not to go on after the call
    plain = not streams and operation.succeeded is None

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
        nonlocal ordinary
        if type(result) is ordinary:
            if streams:
                return scope.finish(result)
            if plain:
                scope.end()
            else:
                scope.complete(result)
            return result
        if not _goes_on(type(result)):
            ordinary = type(result)
        return scope.carry_on(result)

    return call


def traced_failures(wrapped: Wrapped, setup: Setup, operation: Operation[Any]) -> Wrapped:
    """Return a replacement of `wrapped` that makes a span, after the fact, for a call that fails, and else none."""
    begin = opener(setup, operation, site_of(setup, wrapped), wrapped)

    def tell(args: tuple[Any, ...], kwargs: dict[str, Any], start: int, error: BaseException) -> None:
        # Cancellation and interpreter exits are no failures.
        scope = begin(args, kwargs, start) if isinstance(error, Exception) else None
        if scope is not None:
            scope.fail(error)

    if iscoroutinefunction(wrapped):

        @wraps(wrapped)
        async def call_async(*args: Any, **kwargs: Any) -> Any:
            start = time_ns()
            try:
                return await wrapped(*args, **kwargs)
            except BaseException as error:
                tell(args, kwargs, start, error)
                raise

        return call_async

    @wraps(wrapped)
    def call(*args: Any, **kwargs: Any) -> Any:
        start = time_ns()
        try:
            return wrapped(*args, **kwargs)
        except BaseException as error:
            tell(args, kwargs, start, error)
            raise

    return call


def observed(
    wrapped: Wrapped,
    setup: Setup,
    *,
    before: Callable[..., None] | None = None,
    after: Callable[..., None] | None = None,
) -> Wrapped:
    """Return a replacement of `wrapped` that looks on, without a span of its own; of the same flavour.

    Args:
        wrapped: the original, plain or `async def`.
        setup: what the `instrument()` call decided.
        before: called with the arguments before the call.
        after: called with (result, *arguments) after a call that returned; for an `async def`, with what was awaited.
    """
    source, site = setup.source, site_of(setup, wrapped)

    if iscoroutinefunction(wrapped):

        @wraps(wrapped)
        async def look_and_await(*args: Any, **kwargs: Any) -> Any:
            if before is not None and not source.closed:
                try:
                    before(*args, **kwargs)
                except Exception as error:
                    report(site, error)
            result = await wrapped(*args, **kwargs)
            if after is not None and source.tracer is not None:
                try:
                    after(result, *args, **kwargs)
                except Exception as error:
                    report(site, error)
            return result

        return look_and_await

    @wraps(wrapped)
    def look_and_call(*args: Any, **kwargs: Any) -> Any:
        if before is not None and source.tracer is not None:
            try:
                before(*args, **kwargs)
            except Exception as error:
                report(site, error)
        return wrapped(*args, **kwargs)

    if after is None:
        return look_and_call

    @wraps(wrapped)
    def call_and_look(*args: Any, **kwargs: Any) -> Any:
        result = look_and_call(*args, **kwargs) if before is not None else wrapped(*args, **kwargs)
        if source.tracer is not None:
            try:
                after(result, *args, **kwargs)
            except Exception as error:
                report(site, error)
        return result

    return call_and_look


def diverted(wrapped: Wrapped, setup: Setup, other: Callable[..., Callable[[], Any] | None]) -> Wrapped:
    """Return a replacement of `wrapped` that may call something else; of the same flavour.

    Args:
        wrapped: the original, plain or `async def`.
        setup: what the `instrument()` call decided.
        other: takes the call's arguments; answers what to call instead, or None.
    """
    source, choose = setup.source, guarded(other, site_of(setup, wrapped))

    if iscoroutinefunction(wrapped):

        @wraps(wrapped)
        async def choose_and_await(*args: Any, **kwargs: Any) -> Any:
            instead = None if source.closed else choose(*args, **kwargs)
            return await (wrapped(*args, **kwargs) if instead is None else instead())

        return choose_and_await

    @wraps(wrapped)
    def choose_and_call(*args: Any, **kwargs: Any) -> Any:
        instead = None if source.closed else choose(*args, **kwargs)
        return wrapped(*args, **kwargs) if instead is None else instead()

    return choose_and_call


def site_of(setup: Setup, wrapped: Wrapped) -> str:
    """Name the patch point of `wrapped` in reports."""
    return f"{setup.integration}: {qualified_name(wrapped)}"
