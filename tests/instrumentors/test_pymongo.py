"""pymongo against a server that speaks MongoDB's protocol: plain and asyncio clients, from 3.10 to the newest."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any

import pytest

pymongo = pytest.importorskip("pymongo")

from opentelemetry.instrumentation.utils import suppress_instrumentation  # noqa: E402
from pymongo import monitoring  # noqa: E402
from pymongo.errors import (  # noqa: E402
    BulkWriteError,
    DuplicateKeyError,
    OperationFailure,
    ServerSelectionTimeoutError,
)

from spanbridge.instrumentors import pymongo as ours  # noqa: E402
from spanbridge.instrumentors.pymongo import PymongoInstrumentor  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spanbridge.testing import Payload, Spans
    from tests.servers import Server

needs_asyncio = pytest.mark.skipif(
    not hasattr(pymongo, "AsyncMongoClient"), reason="PyMongo has asyncio clients since 4.9"
)


@pytest.fixture
def client(spans: Spans, mongodb_server: Server) -> Iterator[Any]:
    made = pymongo.MongoClient(mongodb_server.host, mongodb_server.port)  # before `instrument()`
    made.shop.users.drop()
    made.shop.users.insert_many([{"_id": number, "age": number} for number in range(10)])
    PymongoInstrumentor().instrument()
    yield made
    PymongoInstrumentor().uninstrument()
    made.close()


def names(spans: Spans) -> list[str]:
    return [span["name"] for span in spans]


def texts(spans: Spans) -> list[str | None]:
    return [span["attributes"].get("db.query.text") for span in spans]


def test_a_command(client: Any, spans: Spans, mongodb_server: Server, payload: Payload) -> None:
    assert len(list(client.shop.users.find({"age": {"$gt": 7}, "name": {"$ne": "secret"}}))) == 2
    (span,) = spans
    assert (span["name"], span["kind"], span["status"]) == ("find users", "CLIENT", "UNSET")
    assert span["attributes"] == {
        "db.system.name": "mongodb",
        "db.namespace": "shop",
        "db.collection.name": "users",
        "db.operation.name": "find",
        "db.query.text": '{"age": {"$gt": "?"}, "name": {"$ne": "?"}}',
        "db.response.returned_rows": 2,
        "server.address": mongodb_server.host,
        "server.port": mongodb_server.port,
    }
    ((mapped,),) = payload()
    named = (mapped["service"], mapped["name"], mapped["resource"], mapped["type"])
    assert named == ("pymongo", "pymongo.cmd", 'find users {"age": {"$gt": "?"}, "name": {"$ne": "?"}}', "mongodb")


def test_what_is_sought(client: Any, spans: Spans) -> None:
    users = client.shop.users
    list(users.find({"age": 1}).sort("age", 1))
    users.update_one({"_id": 1}, {"$set": {"name": "secret"}})
    users.delete_one({"_id": 2})
    list(users.aggregate([{"$match": {"age": {"$in": [1, 2]}}}, {"$limit": 1}]))
    users.insert_one({"name": "secret"})
    assert names(spans) == ["find users", "update users", "delete users", "aggregate users", "insert users"]
    assert texts(spans) == [
        '{"$query": {"age": "?"}, "$orderby": {"age": "?"}}',
        '{"_id": "?"}',
        '{"_id": "?"}',
        '[{"$match": {"age": {"$in": "?"}}}, {"$limit": "?"}]',
        None,
    ]
    assert "secret" not in repr(list(spans))


def test_writes(client: Any, spans: Spans, payload: Payload) -> None:
    users = client.shop.writes
    users.insert_one({"name": "secret"})
    users.insert_many([{"_id": 1}, {"_id": 2}], ordered=False)
    users.update_many({}, {"$set": {"name": "secret"}})
    users.find_one({})
    users.drop()
    told = ("mongodb.ordered", "mongodb.documents", "db.row_count")
    rows = [[(row["meta"] | row["metrics"]).get(tag) for tag in told] for row, *_ in payload()]
    assert rows == [["True", 1, 1], ["False", 2, 2], ["True", None, 3], [None, None, 1], [None, None, None]]


def test_batches_of_a_cursor(client: Any, spans: Spans, payload: Payload) -> None:
    assert len(list(client.shop.users.find({}).batch_size(4))) == 10
    assert names(spans) == ["find users", "getMore users", "getMore users"]
    assert [span["attributes"]["db.response.returned_rows"] for span in spans] == [4, 4, 2]


def test_bulks(client: Any, spans: Spans) -> None:
    users = client.shop.users
    users.insert_many([{"_id": number} for number in range(20, 25)])
    users.bulk_write([pymongo.InsertOne({"_id": 30}), pymongo.DeleteOne({"_id": 30}), pymongo.DeleteOne({"_id": 31})])
    assert names(spans) == ["insert users", "insert users", "delete users"]
    assert [span["attributes"].get("db.operation.batch.size") for span in spans] == [5, None, 2]


def test_commands_of_a_database(client: Any, spans: Spans, payload: Payload) -> None:
    client.shop.command("ping")
    assert names(spans) == ["ping"]
    assert "db.collection.name" not in spans[0]["attributes"]
    ((mapped,),) = payload()
    assert mapped["resource"] == "ping 1"


def test_failures(client: Any, spans: Spans) -> None:
    with pytest.raises(OperationFailure) as raised:
        client.shop.users.find_one({"$bad": 1})
    (span,) = spans
    assert (span["status"], span["attributes"]["error.type"]) == ("ERROR", type(raised.value).__qualname__)
    assert span["attributes"]["db.response.status_code"] == str(raised.value.code)
    assert [event["name"] for event in span["events"]] == ["exception"]


def test_no_value_leaves_with_an_exception(client: Any, spans: Spans) -> None:
    people = client.shop.people
    people.create_index("name", unique=True)
    people.insert_many([{"_id": 1, "name": "topsecret"}, {"_id": 2, "name": "other"}])
    with pytest.raises(pymongo.errors.DuplicateKeyError, match="topsecret"):  # the application sees it
        people.insert_one({"name": "topsecret"})
    with pytest.raises(pymongo.errors.DuplicateKeyError):
        people.find_one_and_update({"_id": 2}, {"$set": {"name": "topsecret"}})
    with pytest.raises(pymongo.errors.OperationFailure):
        list(people.aggregate([{"$nosuchstage": {"of": "topsecret"}}]))
    assert [span["name"] for span in spans if span["status"] == "ERROR"] == [
        "insert people",
        "findAndModify people",
        "aggregate people",
    ]
    assert "topsecret" not in repr(list(spans))
    people.drop()


def test_writes_that_fail_although_the_command_does_not(client: Any, spans: Spans) -> None:
    with pytest.raises(DuplicateKeyError):
        client.shop.users.insert_one({"_id": 1})
    with pytest.raises(BulkWriteError):
        client.shop.users.insert_many([{"_id": 50}, {"_id": 1}])
    assert [span["status"] for span in spans] == ["ERROR", "ERROR"]
    assert [span["attributes"]["db.response.status_code"] for span in spans] == ["11000", "11000"]


def test_a_server_that_is_not_there(spans: Spans) -> None:
    PymongoInstrumentor().instrument()
    client = pymongo.MongoClient("127.0.0.1", 1, serverSelectionTimeoutMS=200)
    with pytest.raises(ServerSelectionTimeoutError):
        client.shop.users.find_one()
    client.close()
    (span,) = spans
    assert (span["status"], span["attributes"]["error.type"]) == ("ERROR", "ServerSelectionTimeoutError")
    assert (span["attributes"]["server.address"], span["attributes"]["server.port"]) == ("127.0.0.1", 1)


def test_listeners_of_the_application_hear_on(spans: Spans, mongodb_server: Server) -> None:
    class Listener(monitoring.CommandListener):
        heard: list[str] = []  # noqa: RUF012

        def started(self, event: Any) -> None:
            self.heard.append(event.command_name)

        def succeeded(self, event: Any) -> None:
            self.heard.append("succeeded")

        def failed(self, event: Any) -> None:
            self.heard.append("failed")

    PymongoInstrumentor().instrument()
    client = pymongo.MongoClient(mongodb_server.host, mongodb_server.port, event_listeners=[Listener()])
    client.shop.command("ping")
    assert Listener.heard == ["ping", "succeeded"]
    assert names(spans) == ["ping"]
    with suppress_instrumentation():
        client.close()


def test_parents_and_what_is_not_current(client: Any, spans: Spans) -> None:
    with spans.provider.get_tracer("test").start_as_current_span("root"):
        for document in client.shop.users.find({}).batch_size(5):
            with spans.provider.get_tracer("test").start_as_current_span(f"work {document['_id']}"):
                pass
    assert {span["parent"] for span in spans} == {"root", None}


def test_hooks(spans: Spans, mongodb_server: Server) -> None:
    PymongoInstrumentor().instrument(
        request_hook=lambda span, event: span.set_attribute("request", event.command_name),
        response_hook=lambda span, event: span.set_attribute("response", event.reply["ok"]),
        failed_hook=lambda span, event: span.set_attribute("failed", event.failure["code"]),
    )
    client = pymongo.MongoClient(mongodb_server.host, mongodb_server.port)
    client.shop.command("ping")
    with pytest.raises(OperationFailure) as raised:
        client.shop.command("nosuch")
    with suppress_instrumentation():
        client.close()
    assert (spans[0]["attributes"]["request"], spans[0]["attributes"]["response"]) == ("ping", 1)
    assert spans[1]["attributes"]["failed"] == raised.value.code


def test_values_when_asked(spans: Spans, mongodb_server: Server, payload: Payload) -> None:
    PymongoInstrumentor().instrument(capture_statement=True)
    client = pymongo.MongoClient(mongodb_server.host, mongodb_server.port)
    client.shop.users.find_one({"age": 5})
    with suppress_instrumentation():
        client.close()
    assert texts(spans) == ["{'age': 5}"]
    ((mapped,),) = payload()
    assert (mapped["resource"], mapped["meta"]["mongodb.query"]) == ("find users", "{'age': 5}")


def test_names_of_contrib(spans: Spans, mongodb_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPANBRIDGE_SEMCONV", "contrib")
    PymongoInstrumentor().instrument()
    client = pymongo.MongoClient(mongodb_server.host, mongodb_server.port)
    client.shop.users.find_one({"age": 5})
    with suppress_instrumentation():
        client.close()
    (span,) = spans
    assert span["name"] == "shop.find"
    assert span["attributes"] == {
        "db.system": "mongodb",
        "db.name": "shop",
        "db.mongodb.collection": "users",
        "db.statement": "find",
        "net.peer.name": mongodb_server.host,
        "net.peer.port": mongodb_server.port,
    }


def test_a_listener_registered_by_hand(spans: Spans, mongodb_server: Server) -> None:
    tracer = ours.CommandTracer(spans.provider.get_tracer("mine"))
    client = pymongo.MongoClient(mongodb_server.host, mongodb_server.port, event_listeners=[tracer])
    client.shop.command("ping")
    assert [(span["scope"], span["name"]) for span in spans] == [("mine", "ping")]
    client.close()


# PyMongo leaves sockets that never were connected to the garbage collector, with and without us.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@needs_asyncio
def test_asyncio(spans: Spans, mongodb_server: Server) -> None:
    async def work() -> None:
        client = pymongo.AsyncMongoClient(mongodb_server.host, mongodb_server.port)
        await client.shop.users.find_one({"age": 1})
        PymongoInstrumentor().instrument()
        await asyncio.gather(*(client.shop.users.find_one({"age": number}) for number in range(5)))
        with pytest.raises(OperationFailure):
            await client.shop.command("nosuch")
        with suppress_instrumentation():
            await client.close()
        absent = pymongo.AsyncMongoClient("127.0.0.1", 1, serverSelectionTimeoutMS=200)
        with pytest.raises(ServerSelectionTimeoutError):
            await absent.shop.users.find_one()
        await absent.close()

    with spans.provider.get_tracer("test").start_as_current_span("root"):
        asyncio.run(work())
    assert names(spans) == ["find users"] * 5 + ["nosuch", "find", "root"]
    assert {span["parent"] for span in spans[:-1]} == {"root"}


# PyMongo leaves the socket of a cancelled command to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@needs_asyncio
def test_a_cancelled_command_ends(spans: Spans, mongodb_server: Server, payload: Payload) -> None:
    PymongoInstrumentor().instrument()

    async def work() -> None:
        client = pymongo.AsyncMongoClient(mongodb_server.host, mongodb_server.port)
        await client.shop.command("ping")
        task = asyncio.create_task(client.shop.users.find_one({"age": 1}))
        while not spans.unfinished:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        del task
        with suppress_instrumentation():
            await client.close()

    asyncio.run(work())
    gc.collect()
    assert names(spans) == ["ping", "find users"]
