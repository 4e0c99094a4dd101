"""mongoengine against a server that speaks MongoDB's protocol, alone and with pymongo's instrumentor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

mongoengine = pytest.importorskip("mongoengine")

import pymongo  # noqa: E402
from opentelemetry.instrumentation.utils import suppress_instrumentation  # noqa: E402

from spanbridge.instrumentors.mongoengine import MongoengineInstrumentor  # noqa: E402
from spanbridge.instrumentors.pymongo import PymongoInstrumentor  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spanbridge.testing import Payload, Spans
    from tests.servers import Server

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def user(spans: Spans, mongodb_server: Server) -> Iterator[Any]:
    mongoengine.connect("shop", host=mongodb_server.host, port=mongodb_server.port, uuidRepresentation="standard")

    class User(mongoengine.Document):
        name = mongoengine.StringField()
        meta = {"auto_create_index": False}  # noqa: RUF012

    User.drop_collection()
    User(name="ann").save()  # before `instrument()`
    yield User
    with suppress_instrumentation():
        mongoengine.connection.disconnect()


@pytest.mark.parametrize("both", [False, True])
def test_a_command_is_one_span(user: Any, spans: Spans, payload: Payload, *, both: bool) -> None:
    if both:
        PymongoInstrumentor().instrument()
    MongoengineInstrumentor().instrument()
    assert user.objects(name="ann").first().name == "ann"
    (span,) = spans
    assert (span["scope"], span["name"]) == ("spanbridge.instrumentors.mongoengine", "find user")
    assert span["attributes"]["db.query.text"] == '{"name": "?"}'
    ((mapped,),) = payload()
    names = (mapped["service"], mapped["name"], mapped["resource"], mapped["type"])
    assert names == ("mongodb", "pymongo.cmd", 'find user {"name": "?"}', "mongodb")


def test_other_clients_are_pymongos(user: Any, spans: Spans, mongodb_server: Server) -> None:
    MongoengineInstrumentor().instrument()
    PymongoInstrumentor().instrument()
    client = pymongo.MongoClient(mongodb_server.host, mongodb_server.port)
    client.shop.command("ping")
    user(name="bob").save()
    with suppress_instrumentation():
        client.close()
    assert [span["scope"].rpartition(".")[2] for span in spans] == ["pymongo", "mongoengine"]


def test_writes(user: Any, spans: Spans) -> None:
    MongoengineInstrumentor().instrument()
    found = user(name="secret").save()
    found.name = "other"
    found.save()
    found.delete()
    assert [span["name"] for span in spans] == ["insert user", "update user", "delete user"]
    assert "secret" not in repr(list(spans))
