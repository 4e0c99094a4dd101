"""Messages: a PRODUCER span where one is sent, a CONSUMER span where it is worked on, joined by the message's headers.

https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, NamedTuple

from opentelemetry.context import Context, create_key
from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace import INVALID_SPAN, SpanKind, get_current_span, set_span_in_context

from spanbridge.core.context import attach, get_current
from spanbridge.core.options import setting
from spanbridge.core.propagation import extract, inject
from spanbridge.core.tracing import DATABASE, HTTP, MESSAGING, RPC, Operation

if TYPE_CHECKING:
    from opentelemetry.trace import Span, SpanContext

    from spanbridge.core.semconv import Semconv
    from spanbridge.core.tracing import Scope, Setup

Describe = Callable[..., "Message | None"]


class Broker(NamedTuple):
    """Where messages go through.

    Args:
        system: the `messaging.system`, such as `rabbitmq`.
        host: its address, None when unknown.
        port: its port, None when unknown.
    """

    system: str
    host: str | None = None
    port: int | None = None


_NO_BROKER = Broker("")
_SENDING = create_key("spanbridge-message-being-sent")


# kombu's transports by the names that the conventions have for their brokers.
_SYSTEMS = {
    "amqp": "rabbitmq",
    "pyamqp": "rabbitmq",
    "librabbitmq": "rabbitmq",
    "sqs": "aws_sqs",
    "azureservicebus": "servicebus",
}


def broker_of(connection: Any) -> Broker:
    """Answer where a kombu connection leads, without connecting."""
    transport = connection.transport_cls
    name = transport if isinstance(transport, str) else getattr(transport, "driver_type", None)
    if not isinstance(name, str):  # as of a stand-in
        name = ""
    host, port = connection.hostname, str(connection.port)
    number = int(port) if port.isdecimal() else None
    return Broker(_SYSTEMS.get(name.lower(), name), str(host) if host else None, number)


class Message:
    """One message, as it is sent or worked on.

    Args:
        name: the span's name.
        headers: what the context is injected into (a mapping of its own), or extracted from.
        broker: where it goes through.
        destination: the queue, topic or exchange; "" when it has no name (yet).
        extra: further attributes.
        local: whether it never left this process: then it continues the current context, whatever its headers say.
    """

    __slots__ = ("broker", "destination", "extra", "headers", "link", "local", "name")

    def __init__(
        self,
        name: str,
        headers: Any,
        *,
        broker: Broker = _NO_BROKER,
        destination: str = "",
        extra: Mapping[str, Any] | None = None,
        local: bool = False,
    ) -> None:
        self.name = name
        self.headers = headers
        self.broker = broker
        self.destination = destination
        self.extra = extra
        self.local = local
        self.link: SpanContext | None = None


class Keys(NamedTuple):
    """Names of the attributes that say where a message goes and which one it is."""

    destination: str
    message: str = "messaging.message.id"
    conversation: str = "messaging.message.conversation_id"


def keys(semconv: Semconv) -> Keys:
    """Choose the names: those of today, or contrib's."""
    if semconv.contrib:
        return Keys("messaging.destination", conversation="messaging.conversation_id")
    return Keys("messaging.destination.name")


def _renderer(semconv: Semconv, kind: str, name: str) -> Callable[[Message], dict[str, Any]]:
    destination = keys(semconv).destination
    contrib = semconv.contrib
    fixed = {} if contrib else {"messaging.operation.type": kind, "messaging.operation.name": name}

    def render(message: Message) -> dict[str, Any]:
        rendered: dict[str, Any] = dict(fixed)
        if message.destination:
            rendered[destination] = message.destination
        system, host, port = message.broker
        if not contrib:
            if system:
                rendered["messaging.system"] = system
            if host:
                rendered["server.address"] = host
            if port:
                rendered["server.port"] = port
        if message.extra is not None:
            rendered.update(message.extra)
        return rendered

    return render


def _propagates(setup: Setup) -> bool:
    return setting(f"integrations.{setup.integration}.distributed_tracing", default=True)


def send(
    setup: Setup,
    name: str,
    describe: Describe,
    *,
    prepare: Callable[[Scope[Message]], None],
    succeeded: Callable[[Span, Message, Any], None] | None = None,
) -> Operation[Message]:
    """Compile the sending of a message. What the transport does for it (commands, requests) makes no spans.

    Args:
        setup: what the `instrument()` call decided.
        name: what the library calls it (`messaging.operation.name`).
        describe: takes the call's arguments, answers the message with a mapping for its headers.
        prepare: puts the headers, which hold the context by then, into the call.
        succeeded: adds what the result tells.
    """

    def prepared(scope: Scope[Message]) -> None:
        attach(Context(get_current() | {_SENDING: scope.span}))  # ends with the scope
        prepare(scope)

    return Operation(
        SpanKind.PRODUCER,
        describe,
        lambda message: message.name,
        _renderer(setup.semconv, "send", name),
        layer=MESSAGING,
        covers=MESSAGING | DATABASE | HTTP | RPC,
        inject=_inject if _propagates(setup) else None,
        prepare=prepared,
        succeeded=succeeded,
        fresh=True,
    )


def span_of_sending() -> Span | None:
    """Answer the span of the message that is just being sent, if it records, for layers that know more of it."""
    span: Any = get_current().get(_SENDING)
    return span if span is not None and span.is_recording() else None


def process(
    setup: Setup, name: str, describe: Describe, *, getter: Getter[Any] | None = None, linked: bool = False
) -> Operation[Message]:
    """Compile the work on a message; it continues the sender's trace.

    Args:
        setup: what the `instrument()` call decided.
        name: what the library calls it (`messaging.operation.name`).
        describe: takes the call's arguments, answers the message with its headers.
        getter: how the headers are read, when they are no mapping.
        linked: begin a trace of its own, with a link to the sender's.
    """
    propagates, read = _propagates(setup), getter or _HEADERS

    def parent(message: Message, current: Context) -> tuple[Context, SpanKind]:
        if message.local:
            return current, SpanKind.CONSUMER
        context = Context()
        if propagates:
            context = extract(message.headers, context, read)
        sender = get_current_span(context).get_span_context()
        if linked and sender.is_valid:
            message.link = sender
            context = set_span_in_context(INVALID_SPAN, context)
        return context, SpanKind.CONSUMER

    def opened(span: Span, message: Message) -> None:
        if message.link is not None:
            span.add_link(message.link)

    return Operation(
        SpanKind.CONSUMER,
        describe,
        lambda message: message.name,
        _renderer(setup.semconv, "process", name),
        parent=parent,
        opened=opened if linked else None,
        fresh=True,
    )


def _inject(message: Message, context: Context) -> None:
    inject(message.headers, context)


def texts(value: object) -> list[str] | None:
    """Answer a header's value as propagators want it, whatever type the transport hands it over in."""
    if value is None:
        return None
    if isinstance(value, str):
        return [value]
    if isinstance(value, (bytes, bytearray)):
        return [bytes(value).decode("latin-1")]
    if isinstance(value, (list, tuple, set)):
        return [str(item) for item in value]
    return [str(value)]


class _Headers(Getter[Mapping[str, Any]]):
    """Reads headers of any type, or none."""

    def get(self, carrier: Mapping[str, Any] | None, key: str) -> list[str] | None:
        return texts(carrier.get(key)) if carrier else None

    def keys(self, carrier: Mapping[str, Any] | None) -> list[str]:
        return [str(key) for key in carrier or ()]


_HEADERS = _Headers()


def own_headers(headers: Mapping[str, Any] | None) -> MutableMapping[str, Any]:
    """Copy the application's headers: its mapping stays as it is, and may be used for the next message."""
    return dict(headers) if headers else {}
