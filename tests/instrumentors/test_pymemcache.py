"""pymemcache against a private memcached: single, pooled and hashing clients, from 1.3 to the newest."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import pytest

pymemcache = pytest.importorskip("pymemcache")

from pymemcache.client.base import Client, PooledClient  # noqa: E402
from pymemcache.client.hash import HashClient  # noqa: E402
from pymemcache.exceptions import MemcacheIllegalInputError  # noqa: E402

from spanbridge.instrumentors.pymemcache import PymemcacheInstrumentor  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spanbridge.testing import Payload, Spans
    from tests.servers import Server

# pymemcache 1.3 leaves the socket of a refused connection to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    yield
    gc.collect()


@pytest.fixture
def address(memcached_server: Server) -> tuple[str, int]:
    return memcached_server.host, memcached_server.port


@pytest.fixture
def client(spans: Spans, address: tuple[str, int]) -> Iterator[Any]:
    made = Client(address)  # before `instrument()`
    made.flush_all(noreply=False)
    PymemcacheInstrumentor().instrument()
    yield made
    PymemcacheInstrumentor().uninstrument()
    made.close()


def texts(spans: Spans) -> list[str]:
    return [span["attributes"]["db.query.text"] for span in spans]


def rows(spans: Spans) -> list[int | None]:
    return [span["attributes"].get("db.response.returned_rows") for span in spans]


def test_a_call(client: Any, spans: Spans, address: tuple[str, int], payload: Payload) -> None:
    client.set("user:1", "secret value")
    (span,) = spans
    assert (span["name"], span["kind"], span["status"]) == ("set", "CLIENT", "UNSET")
    assert span["attributes"] == {
        "db.system.name": "memcached",
        "db.operation.name": "set",
        "db.query.text": "set user:1",
        "server.address": address[0],
        "server.port": address[1],
    }
    ((mapped,),) = payload()
    names = (mapped["service"], mapped["name"], mapped["resource"], mapped["type"])
    assert names == ("memcached", "memcached.command", "set", "cache")


def test_every_method(client: Any, spans: Spans) -> None:
    client.set("n", "1", noreply=False)
    client.add("secret-free", "secret", noreply=False)
    client.replace("n", "2", noreply=False)
    client.append("n", "3", noreply=False)
    client.prepend("n", "4", noreply=False)
    client.cas("n", "5", client.gets("n")[1])
    client.incr("n", 1)
    client.decr("n", 1)
    client.touch("n", noreply=False)
    client.get("n")
    client.delete("n", noreply=False)
    client.stats()
    client.flush_all(noreply=False)
    client.quit()
    assert texts(spans) == [
        "set n",
        "add secret-free",
        "replace n",
        "append n",
        "prepend n",
        "gets n",
        "cas n",
        "incr n",
        "decr n",
        "touch n",
        "get n",
        "delete n",
        "stats",
        "flush_all",
        "quit",
    ]


def test_many_keys_by_any_name_are_one_call(client: Any, spans: Spans) -> None:
    client.set_many({"a": "secret", "b": "secret"}, noreply=False)
    client.set_multi(values={"c": "secret"}, noreply=False)
    client.get_many(["a", "b", "missing"])
    client.get_multi(keys=["a"])
    client.gets_many(["a", "b"])
    client.delete_many(["a", "b"], noreply=False)
    client.delete_multi([b"c"], noreply=False)
    assert texts(spans) == [
        "set_many a b",
        "set_many c",
        "get_many a b missing",
        "get_many a",
        "gets_many a b",
        "delete_many a b",
        "delete_many c",
    ]
    assert rows(spans) == [None, None, 2, 1, 2, None, None]


def test_hits_and_misses(client: Any, spans: Spans) -> None:
    client.set("k", "", noreply=False)
    client.get("k")
    client.get(key="missing")
    client.gets("k")
    client.gets("missing")
    assert rows(spans) == [None, 1, 0, 1, 0]


def test_a_client_as_a_mapping(client: Any, spans: Spans) -> None:
    client["k"] = "v"
    assert client["k"] == b"v"
    del client["k"]
    assert texts(spans) == ["set k", "get k", "delete k"]


def test_a_pooled_client(client: Any, spans: Spans, address: tuple[str, int]) -> None:
    pooled = PooledClient(address, max_pool_size=2)
    pooled.set("k", "v", noreply=False)
    pooled.get("k")
    pooled.get_many(["k"])
    pooled.set_many({"k": "v"}, noreply=False)
    pooled.close()
    assert texts(spans) == ["set k", "get k", "get_many k", "set_many k"]
    assert {span["attributes"]["server.port"] for span in spans} == {address[1]}
    assert rows(spans) == [None, 1, 1, None]


@pytest.mark.parametrize("pooling", [False, True])
def test_a_hash_client(client: Any, spans: Spans, address: tuple[str, int], *, pooling: bool) -> None:
    hashing = HashClient([address], use_pooling=pooling)
    hashing.set("k", "v", noreply=False)
    hashing.get("k")
    hashing.get_many(["k"])
    hashing.set_many({"a": "v", "b": "v"}, noreply=False)
    assert texts(spans)[:3] == ["set k", "get k", "get_many k"]
    assert "set_many" in texts(spans)[3] or texts(spans)[3:] == ["set a", "set b"]  # before 2.0, key by key
    assert {span["attributes"]["server.port"] for span in spans} == {address[1]}
    for each in hashing.clients.values():
        each.close()


@pytest.mark.skipif(not hasattr(pymemcache, "Client"), reason="pymemcache.Client exists since 3.0")
def test_the_class_by_its_other_names(client: Any, spans: Spans, address: tuple[str, int]) -> None:
    other = pymemcache.Client(address)
    other.get("k")
    other.close()
    assert texts(spans) == ["get k"]


def test_failures(client: Any, spans: Spans) -> None:
    refused = Client(("127.0.0.1", 1))
    with pytest.raises(ConnectionRefusedError):
        refused.get("k")
    with pytest.raises(MemcacheIllegalInputError) as raised:
        client.get("with space")
    assert [(span["name"], span["status"], span["attributes"]["error.type"]) for span in spans] == [
        ("get", "ERROR", "ConnectionRefusedError"),
        ("get", "ERROR", type(raised.value).__qualname__),
    ]


def test_a_socket_path(spans: Spans) -> None:
    PymemcacheInstrumentor().instrument()
    with pytest.raises((OSError, TypeError)):  # before 2.0, paths are not supported
        Client("/nowhere/memcached.sock").get("k")
    (span,) = spans
    assert span["attributes"]["server.address"] == "/nowhere/memcached.sock"
    assert "server.port" not in span["attributes"]


def test_keys_go_when_asked(spans: Spans, address: tuple[str, int]) -> None:
    PymemcacheInstrumentor().instrument(capture_keys=False)
    client = Client(address)
    client.get_many(["a", "b"])
    client.close()
    assert texts(spans) == ["get_many ? ?"]


def test_names_of_contrib(spans: Spans, address: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPANBRIDGE_SEMCONV", "contrib")
    PymemcacheInstrumentor().instrument()
    client = Client(address)
    client.set_multi({"a": "1"})
    client.close()
    (span,) = spans
    assert span["name"] == "set_multi"
    assert span["attributes"] == {
        "db.system": "memcached",
        "db.statement": "set_multi a",
        "net.peer.name": address[0],
        "net.peer.port": address[1],
        "net.transport": "ip_tcp",
    }
