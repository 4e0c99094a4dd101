"""redis-py-cluster against a private cluster, from 1.3.5 to the newest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

rediscluster = pytest.importorskip("rediscluster")

from spanbridge.instrumentors.redis import RedisInstrumentor  # noqa: E402
from spanbridge.instrumentors.rediscluster import RedisClusterInstrumentor  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spanbridge.testing import Payload, Spans
    from tests.servers import Server

Client = getattr(rediscluster, "StrictRedisCluster", None) or rediscluster.RedisCluster


@pytest.fixture
def client(spans: Spans, redis_cluster_server: Server) -> Iterator[Any]:
    nodes = [{"host": redis_cluster_server.host, "port": redis_cluster_server.port}]
    made = Client(startup_nodes=nodes)  # before `instrument()`
    RedisClusterInstrumentor().instrument()
    RedisInstrumentor().instrument()
    yield made
    RedisClusterInstrumentor().uninstrument()
    made.connection_pool.disconnect()


def texts(spans: Spans) -> list[str]:
    return [span["attributes"]["db.query.text"] for span in spans]


def test_a_command(client: Any, spans: Spans, redis_cluster_server: Server, payload: Payload) -> None:
    client.set("user:1", "secret")
    (span,) = spans
    assert (span["name"], span["kind"], span["status"]) == ("SET", "CLIENT", "UNSET")
    assert span["scope"] == "spanbridge.instrumentors.rediscluster"
    assert span["attributes"] == {
        "db.system.name": "redis",
        "db.namespace": "0",
        "db.operation.name": "SET",
        "db.query.text": "SET user:1 ?",
        "server.address": redis_cluster_server.host,
        "server.port": redis_cluster_server.port,
    }
    ((mapped,),) = payload()
    names = (mapped["service"], mapped["name"], mapped["resource"], mapped["type"])
    assert names == ("rediscluster", "redis.command", "SET", "redis")


def test_a_pipeline_over_several_nodes_is_one_span(client: Any, spans: Spans, payload: Payload) -> None:
    pipeline = client.pipeline()
    for key in "abc":
        pipeline.set(key, "secret")
    pipeline.get("a")
    pipeline.execute()
    (span,) = spans
    assert (span["name"], span["attributes"]["db.operation.batch.size"]) == ("PIPELINE", 4)
    assert texts(spans) == ["SET a ?\nSET b ?\nSET c ?\nGET a"]
    ((mapped,),) = payload()
    assert mapped["resource"] == "SET a ?\nSET b ?\nSET c ?\nGET a"


def test_an_empty_pipeline_sends_nothing(client: Any, spans: Spans) -> None:
    assert client.pipeline().execute() == []
    assert len(spans) == 0


def test_commands_that_the_client_takes_apart(client: Any, spans: Spans) -> None:
    client.mset({"a": "secret", "b": "secret"})
    client.mget("a", "b")
    assert sorted(texts(spans)) == ["GET a", "GET b", "SET a ?", "SET b ?"]


def test_failures(client: Any, spans: Spans) -> None:
    client.set("text", "x")
    spans.clear()
    with pytest.raises(Exception, match="WRONGTYPE"):
        client.lpush("text", "secret")
    assert [(span["name"], span["status"]) for span in spans] == [("LPUSH", "ERROR")]
