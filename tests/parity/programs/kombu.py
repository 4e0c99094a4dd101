# /// script
# dependencies = ["kombu==5.7.0", "packaging"]
# [tool.parity]
# servers = ["rabbitmq"]
# variables = { DD_TRACE_KOMBU_ENABLED = "1" }
# [[tool.parity.differences]]
# reason = "a message that cannot be written has failed to be sent"
# side = "spanbridge"
# pattern = "kombu.publish.*ERROR"
# [[tool.parity.differences]]
# reason = "the resource of the default exchange, which has no name, is the operation, as the Agent makes it"
# side = "ddtrace"
# pattern = "kombu.publish \\| - \\|"
# replacement = "kombu.publish | kombu.publish |"
# ///
"""kombu over RabbitMQ: exchanges, simple queues, mixins, callbacks that publish on or fail."""

from __future__ import annotations

import os
from typing import Any

from kombu import Connection, Consumer, Exchange, Producer, Queue
from kombu.exceptions import EncodeError
from kombu.mixins import ConsumerMixin, ConsumerProducerMixin

URL = f"amqp://guest:guest@127.0.0.1:{os.environ['RABBITMQ_PORT']}//"
ORDERS, PARCELS = Exchange("orders", type="topic"), Exchange("parcels")
NEW, SENT = Queue("new", ORDERS, routing_key="order.new"), Queue("sent", PARCELS, routing_key="sent")


class Shipping(ConsumerProducerMixin):
    """Sends a parcel for every order."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def get_consumers(self, Consumer: Any, channel: Any) -> list[Any]:
        return [Consumer([NEW], callbacks=[self.work])]

    def work(self, body: Any, message: Any) -> None:
        print("order", body)
        self.producer.publish({"parcel": body}, exchange=PARCELS, routing_key="sent", declare=[SENT])
        message.ack()
        self.should_stop = True


class Door(ConsumerMixin):
    """Takes the parcel."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def get_consumers(self, Consumer: Any, channel: Any) -> list[Any]:
        return [Consumer([SENT], callbacks=[self.look, self.work])]

    def look(self, body: Any, message: Any) -> None:
        print("look", body)

    def work(self, body: Any, message: Any) -> None:
        message.ack()
        self.should_stop = True


def refuse(body: Any, message: Any) -> None:
    message.ack()
    raise ValueError("of the application")


with Connection(URL) as connection:
    producer = Producer(connection)
    producer.publish({"id": 7}, exchange=ORDERS, routing_key="order.new", declare=[NEW], headers={"own": "header"})
    Shipping(connection).run()
    Door(connection).run()

    producer.publish("text", exchange="orders", routing_key="order.new", retry=True)
    with Consumer(connection, [NEW], callbacks=[refuse]):
        try:
            connection.drain_events(timeout=20)
        except ValueError as error:
            print(error)

    Producer(connection, ORDERS, routing_key="order.new").publish(b"bytes")
    with Consumer(connection, [NEW], on_message=lambda message: print(message.body) or message.ack()):
        connection.drain_events(timeout=20)

    producer.publish("to a queue", routing_key="new")
    producer.publish("to nobody", exchange="orders", routing_key="order.lost")
    try:
        producer.publish(object(), exchange="orders", routing_key="order.new", serializer="json")
    except (EncodeError, TypeError) as error:
        print(type(error).__name__)

    with connection.SimpleQueue("simple") as queue:
        for number in range(2):
            queue.put({"number": number})
        for _ in range(2):
            message = queue.get(timeout=20)
            print(message.payload)
            message.ack()
