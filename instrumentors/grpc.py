"""grpc, both sides, plain and asyncio: one CLIENT and one SERVER span per call, until its last message.

Channels and servers made before `instrument()` are traced, except asyncio servers. Users' interceptors keep their
order: a server's span is around them; a plain client's is within them, an asyncio client's around them.
"""

from __future__ import annotations

from functools import lru_cache, wraps
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from spanbridge.conventions import rpc, rpc_calls
from spanbridge.conventions import rpc_filters as filters
from spanbridge.core.guard import report
from spanbridge.core.instrumentor import Instrumentor
from spanbridge.core.options import Option
from spanbridge.core.patching import Library, Patch
from spanbridge.version import __version__ as __version__

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.trace import TracerProvider

    from spanbridge.core.tracing import Setup, Wrapped

__all__ = [
    "GrpcAioInstrumentorClient",
    "GrpcAioInstrumentorServer",
    "GrpcInstrumentorClient",
    "GrpcInstrumentorServer",
    "aio_client_interceptors",
    "aio_server_interceptor",
    "client_interceptor",
    "filters",
    "intercept_channel",
    "server_interceptor",
]


def _finding_handlers(wrapped: Wrapped, setup: Setup) -> Wrapped:
    """What the server, or the last of the users' interceptors, answers for a method gets a span around it."""
    served = rpc_calls.serving(setup)

    @wraps(wrapped)
    def find(*args: Any, **kwargs: Any) -> Any:
        handler = wrapped(*args, **kwargs)
        try:
            if handler is not None:
                return served(handler, _method_of(*args, **kwargs))
        except Exception as error:
            report(f"{setup.integration}: finding the handler", error)
        return handler

    return find


def _method_of(rpc_event: Any, *args: Any, **kwargs: Any) -> Any:
    """The method's name: of a method registered beforehand the event does not tell it."""
    registered = (*args, *kwargs.values())
    names = (one.name() for one in registered if type(one).__name__ == "_RegisteredMethod")
    return next(filter(None, names), None) or rpc_event.call_details.method


def _making_server(wrapped: Wrapped, setup: Setup) -> Wrapped:
    """An asyncio server looks for handlers in C: the span comes with an interceptor, before those of the user."""

    @wraps(wrapped)
    def init(*args: Any, **kwargs: Any) -> Any:
        try:
            args, kwargs = _with_interceptor(_aio_server_interceptor(setup), *args, **kwargs)
        except Exception as error:
            report(f"{setup.integration}: making a server", error)
        return wrapped(*args, **kwargs)

    return init


def _with_interceptor(
    ours: Any,
    server: Any = None,
    thread_pool: Any = None,
    handlers: Any = None,
    interceptors: Any = (),
    *args: Any,
    **kwargs: Any,
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (server, thread_pool, handlers, (ours, *(interceptors or ())), *args), kwargs


class _GrpcInstrumentor(Instrumentor):
    library = Library("grpc", ("grpcio >= 1.8",), tested="1.85.3")
    options: ClassVar[tuple[Option[Any], ...]] = (rpc.FILTER, rpc.EXCLUDED_SERVICES)
    _filters: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, filter_: Any = None) -> None:
        super().__init__()
        if filter_ is not None or not self.is_instrumented_by_opentelemetry:
            # As contrib does, already here.
            self._filters = {
                "filter_": filter_,
                "excluded_services": rpc.EXCLUDED_SERVICES.resolve(self.name, {}),
            }

    def setup(self, **kwargs: Any) -> Setup:
        """Take the constructor's filters, unless the call brings some."""
        return super().setup(**{**self._filters, **kwargs})


_CHANNEL_OPTIONS = tuple(
    Option(name, None, "Accepted for compatibility; channels of every kind are traced.")
    for name in ("channel_type", "secure_channel", "insecure_channel")
)
_KINDS = {
    "unary_unary": "unary",
    "unary_stream": "server_streaming",
    "stream_unary": "client_streaming",
    "stream_stream": "bidi_streaming",
}


def _calling(module: str, name: str, kind: str) -> Patch:
    """A row for a method of the callables of a kind, such as `_UnaryUnaryMultiCallable.with_call`."""
    return Patch(module, name.format(_in_class_name(kind)), rpc_calls.calling(_KINDS[kind]))


def _in_class_name(kind: str) -> str:
    return kind.title().replace("_", "")


class GrpcInstrumentorClient(_GrpcInstrumentor):
    """Traces clients; hooks: `request_hook(span, request)`, `response_hook(span, response)`."""

    name = "grpc_client"
    options = (*_GrpcInstrumentor.options, *rpc.HOOKS, *_CHANNEL_OPTIONS)
    patches = (
        *(
            _calling("grpc._channel", f"_{{}}MultiCallable.{method}", kind)
            for kind in ("unary_unary", "stream_unary")
            for method in ("__call__", "with_call", "future")
        ),
        _calling("grpc._channel", "_{}MultiCallable.__call__", "unary_stream"),
        _calling("grpc._channel", "_SingleThreaded{}MultiCallable.__call__", "unary_stream"),
        _calling("grpc._channel", "_{}MultiCallable.__call__", "stream_stream"),
    )


class GrpcInstrumentorServer(_GrpcInstrumentor):
    """Traces servers."""

    name = "grpc_server"
    patches = (Patch("grpc._server", "_find_method_handler", _finding_handlers),)


class GrpcAioInstrumentorClient(_GrpcInstrumentor):
    """Traces asyncio clients; hooks as of `GrpcInstrumentorClient`."""

    name = "grpc_aio_client"
    scope = "spanbridge.instrumentors.grpc_aio_client"
    options = (*_GrpcInstrumentor.options, *rpc.HOOKS)
    patches = tuple(_calling("grpc.aio._channel", "{}MultiCallable.__call__", kind) for kind in _KINDS)


class GrpcAioInstrumentorServer(_GrpcInstrumentor):
    """Traces asyncio servers that are made after `instrument()`."""

    name = "grpc_aio_server"
    scope = "spanbridge.instrumentors.grpc_aio_server"
    patches = (Patch("grpc.aio._server", "Server.__init__", _making_server),)


# Interceptors, for one channel or server.


def client_interceptor(
    tracer_provider: TracerProvider | None = None,
    filter_: Any = None,
    request_hook: Any = None,
    response_hook: Any = None,
) -> Any:
    """Make an interceptor for `grpc.intercept_channel`.

    Args:
        tracer_provider: instead of the global one.
        filter_: answers for a call's details whether it is traced.
        request_hook: called as `(span, request)`.
        response_hook: called as `(span, response)`.
    """
    setup = GrpcInstrumentorClient().setup(
        tracer_provider=tracer_provider, filter_=filter_, request_hook=request_hook, response_hook=response_hook
    )
    return _interceptor("grpc", tuple(_KINDS))(setup, rpc_calls.continuing)


def aio_client_interceptors(
    tracer_provider: TracerProvider | None = None,
    filter_: Any = None,
    request_hook: Any = None,
    response_hook: Any = None,
) -> list[Any]:
    """Make the interceptors for an asyncio channel, one per kind of call; arguments as of `client_interceptor`."""
    setup = GrpcAioInstrumentorClient().setup(
        tracer_provider=tracer_provider, filter_=filter_, request_hook=request_hook, response_hook=response_hook
    )
    return [_interceptor("grpc.aio", (kind,))(setup, rpc_calls.continuing_async) for kind in _KINDS]


def server_interceptor(tracer_provider: TracerProvider | None = None, filter_: Any = None) -> Any:
    """Make an interceptor for `grpc.server`; arguments as of `client_interceptor`."""
    base: Any = import_module("grpc").ServerInterceptor
    served = rpc_calls.serving(GrpcInstrumentorServer().setup(tracer_provider=tracer_provider, filter_=filter_))

    class Interceptor(base):  # type: ignore[misc]
        def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
            handler = continuation(handler_call_details)
            return None if handler is None else served(handler, handler_call_details.method)

    return Interceptor()


def aio_server_interceptor(tracer_provider: TracerProvider | None = None, filter_: Any = None) -> Any:
    """Make an interceptor for `grpc.aio.server`; arguments as of `client_interceptor`."""
    return _aio_server_interceptor(GrpcAioInstrumentorServer().setup(tracer_provider=tracer_provider, filter_=filter_))


def _aio_server_interceptor(setup: Setup) -> Any:
    base: Any = import_module("grpc.aio").ServerInterceptor
    served = rpc_calls.serving(setup)

    class Interceptor(base):  # type: ignore[misc]
        async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
            handler = await continuation(handler_call_details)
            return None if handler is None else served(handler, handler_call_details.method)

    return Interceptor()


def intercept_channel(channel: Any, *interceptors: Any) -> Any:
    """Put interceptors before a channel, as contrib's `grpcext` does for interceptors of its own kind."""
    return import_module("grpc").intercept_channel(channel, *interceptors)


@lru_cache(maxsize=8)
def _interceptor(module: str, kinds: tuple[str, ...]) -> Any:
    """Make the class of a client's interceptor for `kinds` of calls."""

    def init(self: Any, setup: Setup, continuing: Wrapped) -> None:
        self.send = rpc_calls.followed(continuing, setup, rpc_calls.details_of, rpc_calls.replace_details)

    def intercepting(kind: str) -> Any:
        return lambda self, continuation, details, request: self.send(continuation, details, request, _KINDS[kind])

    bases = tuple(getattr(import_module(module), f"{_in_class_name(kind)}ClientInterceptor") for kind in kinds)
    methods = {f"intercept_{kind}": intercepting(kind) for kind in kinds}
    return type("Interceptor", bases, {"__init__": init, **methods})
