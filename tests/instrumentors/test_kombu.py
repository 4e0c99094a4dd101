"""kombu over memory, Redis and RabbitMQ: what is published, and what consumers make of it."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of old versions on new Pythons
    pytest.importorskip("kombu")
    from kombu import Connection, Consumer, Exchange, Producer, Queue
    from kombu.mixins import ConsumerMixin

from opentelemetry import baggage, trace
from opentelemetry.context import attach, detach

from spanbridge.conventions.messaging import broker_of
from spanbridge.instrumentors.kombu import KombuInstrumentor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spanbridge.testing import Payload, Spans

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:pkg_resources is deprecated"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

ORDERS = Queue("orders.new", Exchange("orders", type="direct"), routing_key="new")
SYSTEMS = {"memory": "memory", "redis": "redis", "amqp": "rabbitmq"}


@pytest.fixture(params=["memory", "redis", "amqp"])
def connection(request: pytest.FixtureRequest, spans: Spans) -> Iterator[Any]:
    if request.param == "memory":
        url = "memory://localhost"
    elif request.param == "redis":
        server = request.getfixturevalue("redis_server")
        url = f"redis://{server.host}:{server.port}/5"
    else:
        server = request.getfixturevalue("rabbitmq_server")
        url = f"amqp://guest:guest@{server.host}:{server.port}//"
    with Connection(url) as made:
        ORDERS(made.default_channel).declare()
        ORDERS(made.default_channel).purge()
        KombuInstrumentor().instrument()
        yield made


only_memory = pytest.mark.parametrize("connection", ["memory"], indirect=True)


def span(name: str) -> Any:
    return trace.get_tracer("application").start_as_current_span(name)


def test_publishing_and_receiving(connection: Any, spans: Spans, payload: Payload) -> None:
    found: list[Any] = []

    def work(body: Any, message: Any) -> None:
        found.append((body, baggage.get_baggage("user"), trace.get_current_span().get_span_context().span_id))
        message.ack()

    token = attach(baggage.set_baggage("user", "7"))
    with span("request"):
        Producer(connection, serializer="json").publish(
            {"id": 7}, exchange="orders", routing_key="new", headers={"own": "header"}
        )
    detach(token)
    with Consumer(connection, [ORDERS], callbacks=[work]):
        connection.drain_events(timeout=20)
    sent, _, received = spans
    assert (sent["name"], sent["kind"], sent["parent"]) == ("publish orders", "PRODUCER", "request")
    assert (received["name"], received["kind"], received["parent_id"]) == (
        "receive orders",
        "CONSUMER",
        sent["span_id"],
    )
    assert received["trace_id"] == sent["trace_id"]
    assert found == [({"id": 7}, "7", received["span_id"])]
    broker = {"messaging.system": SYSTEMS[connection.transport.driver_type], "server.address": connection.hostname}
    if connection.port:
        broker["server.port"] = connection.port
    shared = {
        "messaging.destination.name": "orders",
        "kombu.exchange": "orders",
        "kombu.routing_key": "new",
        "kombu.virtual_host": connection.virtual_host,
        **broker,
    }
    assert sent["attributes"] == shared | {
        "messaging.operation.type": "send",
        "messaging.operation.name": "publish",
        "messaging.message.body.size": len('{"id": 7}'),
    }
    assert received["attributes"] == shared | {
        "messaging.operation.type": "process",
        "messaging.operation.name": "receive",
    }
    mapped = {row["name"]: row for chunk in payload() for row in chunk}
    assert (mapped["kombu.publish"]["resource"], mapped["kombu.publish"]["type"]) == ("orders", "worker")
    assert mapped["kombu.publish"]["metrics"]["kombu.body_length"] == 9
    assert (mapped["kombu.receive"]["resource"], mapped["kombu.receive"]["type"]) == ("orders", "worker")


def test_the_transports_own_calls_make_no_spans(connection: Any, spans: Spans) -> None:
    if connection.transport.driver_type == "redis":
        from spanbridge.instrumentors.redis import RedisInstrumentor

        RedisInstrumentor().instrument()
    Producer(connection).publish("x", exchange="orders", routing_key="new")
    assert [row["name"] for row in spans] == ["publish orders"]


def test_a_simple_queue(connection: Any, spans: Spans) -> None:
    with connection.SimpleQueue("simple") as queue:
        queue.clear()
        queue.put("hello", headers={"own": "header"})
        message = queue.get(timeout=20)
        message.ack()
    assert (message.payload, message.headers["own"]) == ("hello", "header")
    sent, received = spans
    assert message.headers["traceparent"].split("-")[2] == f"{sent['span_id']:016x}"
    assert received["parent_id"] == sent["span_id"]


@only_memory
def test_the_applications_headers_stay_as_they_are(connection: Any, spans: Spans) -> None:
    headers = {"own": "header"}
    producer = Producer(connection, Exchange("orders"), routing_key="new")
    producer.publish("x", headers=headers)
    producer.publish("x", "new", None, False, False, 0, None, None, None, headers)
    producer.publish("x", retry=True)
    assert headers == {"own": "header"}
    channel = connection.default_channel
    messages = [channel.basic_get("orders.new") for _ in range(3)]
    found = [int(message.headers["traceparent"].split("-")[2], 16) for message in messages]
    assert found == [row["span_id"] for row in spans]
    assert [message.headers.get("own") for message in messages] == ["header", "header", None]


@only_memory
def test_a_callback_that_fails(connection: Any, spans: Spans, payload: Payload) -> None:
    error = ValueError("of the application")

    def work(body: Any, message: Any) -> None:
        message.ack()
        raise error

    Producer(connection).publish("x", exchange="orders", routing_key="new")
    with Consumer(connection, [ORDERS], callbacks=[work]), pytest.raises(ValueError) as raised:
        connection.drain_events(timeout=20)
    assert raised.value is error
    assert [(row["name"], row["status"]) for row in spans] == [("publish orders", "UNSET"), ("receive orders", "ERROR")]


@only_memory
def test_messages_and_ports_of_other_kinds(connection: Any, spans: Spans, caplog: pytest.LogCaptureFixture) -> None:
    received = []
    consumer = Consumer(connection.default_channel, [ORDERS], callbacks=[lambda *args: received.append(args)])
    consumer.receive("body", 42)  # as tests do
    connection.port = "unknown"
    Producer(connection).publish("hello", exchange=ORDERS.exchange, routing_key="new")
    assert received == [("body", 42)]
    assert [span["name"] for span in spans] == ["receive", "publish orders"]
    assert caplog.text == ""


def test_the_broker_of_a_stand_in_has_no_system() -> None:
    assert broker_of(Mock(hostname="there", port=5672)) == ("", "there", 5672)


@only_memory
def test_publishing_that_fails(connection: Any, spans: Spans, payload: Payload) -> None:
    with pytest.raises(Exception) as raised:
        Producer(connection).publish(object(), exchange="orders", serializer="json")
    assert raised.value is not None
    assert [row["status"] for row in spans] == ["ERROR"]


@only_memory
def test_a_consumer_mixin(connection: Any, spans: Spans) -> None:
    class Worker(ConsumerMixin):
        def __init__(self) -> None:
            self.connection = connection

        def get_consumers(self, Consumer: Any, channel: Any) -> Any:
            return [Consumer([ORDERS], callbacks=[self.work])]

        def work(self, body: Any, message: Any) -> None:
            message.ack()
            self.should_stop = True

    Producer(connection).publish("x", exchange="orders", routing_key="new")
    Worker().run()
    assert [row["name"] for row in spans] == ["publish orders", "receive orders"]


@only_memory
def test_the_default_exchange_has_the_queues_name(connection: Any, spans: Spans) -> None:
    Producer(connection).publish("x", routing_key="orders.new")
    assert (spans[0]["name"], spans[0]["attributes"]["messaging.destination.name"]) == (
        "publish orders.new",
        "orders.new",
    )


@only_memory
def test_what_celery_says_to_itself(connection: Any, spans: Spans) -> None:
    producer = Producer(connection)
    producer.publish({"hostname": "x"}, exchange="celeryev", declare=[Exchange("celeryev")])
    producer.publish({"method": "ping"}, exchange="celery.pidbox", declare=[Exchange("celery.pidbox", type="fanout")])
    producer.publish({"task_id": "1", "status": "SUCCESS", "result": 3}, routing_key="orders.new")
    assert len(spans) == 0
