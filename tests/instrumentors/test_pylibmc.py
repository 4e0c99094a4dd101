"""pylibmc against a private memcached: clients, clones and pools."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

pylibmc = pytest.importorskip("pylibmc")

from spanbridge.instrumentors.pylibmc import PylibmcInstrumentor  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spanbridge.testing import Payload, Spans
    from tests.servers import Server


@pytest.fixture
def client(spans: Spans, memcached_server: Server) -> Iterator[Any]:
    made = pylibmc.Client([f"{memcached_server.host}:{memcached_server.port}"], binary=True)  # before `instrument()`
    made.behaviors = {"cas": True}
    made.flush_all()
    PylibmcInstrumentor().instrument()
    yield made
    PylibmcInstrumentor().uninstrument()


def texts(spans: Spans) -> list[str]:
    return [span["attributes"]["db.query.text"] for span in spans]


def test_a_call(client: Any, spans: Spans, memcached_server: Server, payload: Payload) -> None:
    assert client.set("user:1", "secret value")
    (span,) = spans
    assert (span["name"], span["kind"], span["status"]) == ("set", "CLIENT", "UNSET")
    assert span["attributes"] == {
        "db.system.name": "memcached",
        "db.operation.name": "set",
        "db.query.text": "set user:1",
        "server.address": memcached_server.host,
        "server.port": memcached_server.port,
    }
    ((mapped,),) = payload()
    names = (mapped["service"], mapped["name"], mapped["resource"], mapped["type"])
    assert names == ("memcached", "memcached.cmd", "set", "cache")


def test_every_method(client: Any, spans: Spans) -> None:
    client.set("n", 1)
    client.add("m", "secret")
    client.replace("m", "secret")
    client.append("m", "secret")
    client.prepend("m", "secret")
    client.get("m")
    client.gets("m")
    client.incr("n")
    client.decr("n")
    client.touch("n", 60)
    client.set_multi({"a": "secret", "b": 2})
    client.add_multi({"c": "secret"})
    client.get_multi(["a", "b", "missing"])
    client.incr_multi(["b"], delta=2)
    client.delete_multi(["a", "b"])
    client.delete("n")
    client.get_stats()
    client.flush_all()
    assert texts(spans) == [
        "set n",
        "add m",
        "replace m",
        "append m",
        "prepend m",
        "get m",
        "gets m",
        "incr n",
        "decr n",
        "touch n",
        "set_multi a b",
        "add_multi c",
        "get_multi a b missing",
        "incr_multi b",
        "delete_multi a b",
        "delete n",
        "get_stats",
        "flush_all",
    ]
    assert "secret" not in repr(list(spans))


def test_hits_and_misses(client: Any, spans: Spans) -> None:
    client.set("k", "")
    client.get("k")
    client.get("missing")
    client.get_multi(["k", "missing"])
    client.gets("missing")
    found = [span["attributes"].get("db.response.returned_rows") for span in spans]
    assert found == [None, 1, 0, 1, 0]


def test_a_client_as_a_mapping(client: Any, spans: Spans) -> None:
    client["k"] = "v"
    assert client["k"] == "v"
    assert "k" in client
    del client["k"]
    assert texts(spans) == ["set k", "get k", "get k", "delete k"]


def test_clones_and_pools(client: Any, spans: Spans) -> None:
    client.clone().get("k")
    with pylibmc.ClientPool(client, 2).reserve() as pooled:
        pooled.get("k")
    assert texts(spans) == ["get k", "get k"]
    assert {span["attributes"]["server.address"] for span in spans} == {"127.0.0.1"}


def test_failures(client: Any, spans: Spans) -> None:
    with pytest.raises(pylibmc.NotFound):
        client.incr("missing")
    with pytest.raises(pylibmc.Error):
        pylibmc.Client(["127.0.0.1:1"]).set("k", "v")
    assert [(span["name"], span["status"]) for span in spans] == [("incr", "ERROR"), ("set", "ERROR")]
    assert spans[0]["attributes"]["error.type"] == "NotFound"


def test_a_socket_path(spans: Spans) -> None:
    PylibmcInstrumentor().instrument()
    with pytest.raises(pylibmc.Error):
        pylibmc.Client(["/nowhere/memcached.sock"]).set("k", "v")
    assert spans[0]["attributes"]["server.address"] == "/nowhere/memcached.sock"


def test_keys_go_when_asked(spans: Spans, memcached_server: Server) -> None:
    PylibmcInstrumentor().instrument(capture_keys=False)
    pylibmc.Client([f"{memcached_server.host}:{memcached_server.port}"]).get("k")
    assert texts(spans) == ["get ?"]
