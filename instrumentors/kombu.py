"""kombu: a PRODUCER span per published message, a CONSUMER span around a consumer's callbacks; any transport.

Not traced: what Celery says to itself (events, remote control, results) and the tasks that it sends, which have spans
of their own; consumers with `on_message` instead of callbacks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spanbridge.conventions import messaging
from spanbridge.conventions.messaging import Broker, Message
from spanbridge.core.instrumentor import Instrumentor
from spanbridge.core.patching import Library, Patch
from spanbridge.core.tracing import observed, traced
from spanbridge.version import __version__ as __version__

if TYPE_CHECKING:
    from spanbridge.core.tracing import Scope, Setup, Wrapped

_HEADERS_POSITION = 10  # among `publish`'s positional arguments
_RESULT = {"task_id", "status", "result"}


def _is_celerys(exchange: str, body: Any) -> bool:
    """Say whether Celery talks to itself: events, remote control and its answers, results."""
    return exchange == "celeryev" or exchange.endswith(".pidbox") or (type(body) is dict and body.keys() >= _RESULT)


def _message(action: str, exchange: str, routing_key: str, headers: Any, connection: Any) -> Message:
    destination = exchange or routing_key
    named = (
        ("kombu.exchange", exchange),
        ("kombu.routing_key", routing_key),
        ("kombu.virtual_host", getattr(connection, "virtual_host", None)),
    )
    return Message(
        f"{action} {destination}" if destination else action,
        headers,
        broker=Broker("") if connection is None else messaging.broker_of(connection),
        destination=destination,
        extra={key: value for key, value in named if value},
    )


def _connection_of(channel: Any) -> Any:
    return getattr(getattr(channel, "connection", None), "client", None)


def _publishing(wrapped: Wrapped, setup: Setup) -> Wrapped:
    def describe(
        producer: Any,
        body: Any,
        routing_key: str | None = None,
        delivery_mode: Any = None,
        mandatory: Any = None,
        immediate: Any = None,
        priority: Any = None,
        content_type: Any = None,
        content_encoding: Any = None,
        serializer: Any = None,
        headers: Any = None,
        compression: Any = None,
        exchange: Any = None,
        *args: Any,
        **properties: Any,
    ) -> Message | None:
        exchange = exchange or producer.exchange
        name = str(getattr(exchange, "name", exchange) or "")
        if _is_celerys(name, body):
            return None
        key = producer.routing_key if routing_key is None else routing_key
        # Without a connection there is a channel; with one, asking for the channel would connect.
        connection = getattr(producer, "__connection__", None) or _connection_of(producer.channel)
        return _message("publish", name, str(key or ""), messaging.own_headers(headers), connection)

    def prepare(scope: Scope[Message]) -> None:
        args, headers = scope.args, scope.record.headers
        if len(args) > _HEADERS_POSITION:
            scope.args = (*args[:_HEADERS_POSITION], headers, *args[_HEADERS_POSITION + 1 :])
        else:
            scope.kwargs = {**scope.kwargs, "headers": headers}

    return traced(wrapped, setup, messaging.send(setup, "publish", describe, prepare=prepare))


def _encoded(wrapped: Wrapped, setup: Setup) -> Wrapped:
    """The message is serialised and about to go out, perhaps once more after a reconnection."""

    def before(producer: Any, body: Any, *args: Any, **kwargs: Any) -> None:
        span = messaging.span_of_sending()
        if span is not None and isinstance(body, (str, bytes)):
            span.set_attribute("messaging.message.body.size", len(body))

    return observed(wrapped, setup, before=before)


def _receiving(wrapped: Wrapped, setup: Setup) -> Wrapped:
    def describe(consumer: Any, body: Any, message: Any) -> Message | None:
        info = getattr(message, "delivery_info", None) or {}
        exchange, routing_key = str(info.get("exchange") or ""), str(info.get("routing_key") or "")
        if _is_celerys(exchange, body):
            return None
        headers = getattr(message, "headers", None)
        return _message("receive", exchange, routing_key, headers, _connection_of(consumer.channel))

    return traced(wrapped, setup, messaging.process(setup, "receive", describe))


class KombuInstrumentor(Instrumentor):
    """Traces kombu's producers and consumers, and what is built on them (SimpleQueue, ConsumerMixin)."""

    library = Library("kombu", ("kombu >= 4.0",), tested="5.7.0")
    patches = (
        Patch("kombu.messaging", "Producer.publish", _publishing),
        Patch("kombu.messaging", "Producer._publish", _encoded),
        Patch("kombu.messaging", "Consumer.receive", _receiving),
    )
