"""redis against a private server: plain, asyncio and cluster clients, from 2.6 to the newest."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

redis = pytest.importorskip("redis")

from spanbridge.instrumentors.redis import RedisInstrumentor  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spanbridge.testing import Payload, Spans
    from tests.servers import Server

# redis 2.6 leaves the socket of a refused connection to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

needs_asyncio = pytest.mark.skipif(not hasattr(redis, "asyncio"), reason="redis-py has asyncio clients since 4.2")
needs_cluster = pytest.mark.skipif(not hasattr(redis, "RedisCluster"), reason="redis-py has cluster clients since 4.1")


@pytest.fixture
def client(spans: Spans, redis_server: Server) -> Iterator[Any]:
    made = redis.StrictRedis(redis_server.host, redis_server.port)  # before `instrument()`
    made.flushall()
    RedisInstrumentor().instrument()
    yield made
    RedisInstrumentor().uninstrument()
    made.connection_pool.disconnect()


def texts(spans: Spans) -> list[str]:
    return [span["attributes"]["db.query.text"] for span in spans]


def test_a_command(client: Any, spans: Spans, redis_server: Server, payload: Payload) -> None:
    client.execute_command("SET", "user:1", "secret value", "EX", 60)
    (span,) = spans
    assert (span["name"], span["kind"], span["status"]) == ("SET", "CLIENT", "UNSET")
    assert span["attributes"] == {
        "db.system.name": "redis",
        "db.namespace": "0",
        "db.operation.name": "SET",
        "db.query.text": "SET user:1 ? EX ?",
        "server.address": redis_server.host,
        "server.port": redis_server.port,
    }
    ((mapped,),) = payload()
    names = (mapped["service"], mapped["name"], mapped["resource"], mapped["type"])
    assert names == ("redis", "redis.command", "SET", "redis")


@needs_cluster  # what is as new
def test_what_a_client_calls_itself(spans: Spans, redis_server: Server, payload: Payload) -> None:
    RedisInstrumentor().instrument()
    client = redis.Redis(redis_server.host, redis_server.port, client_name="checkout")
    client.get("a")
    client.pipeline().get("a").get("b").execute()
    assert [row["meta"]["redis.client_name"] for row, *_ in payload()] == ["checkout"] * 2
    client.connection_pool.disconnect()


def test_commands_that_do_not_fit_tell_how_long_they_are(client: Any, spans: Spans, payload: Payload) -> None:
    client.mget([f"key-{number}" for number in range(1_000)])
    client.mget("a", "b")
    assert [chunk[0]["metrics"]["redis.args_length"] for chunk in payload()] == [1_001, 3]


@pytest.mark.parametrize(("switch", "resource"), [("true", "SET"), ("false", "SET a ?")])
def test_resources_may_have_keys(
    client: Any, payload: Payload, monkeypatch: pytest.MonkeyPatch, switch: str, resource: str
) -> None:
    client.set("a", "secret")
    monkeypatch.setenv("DD_REDIS_RESOURCE_ONLY_COMMAND", switch)
    assert payload()[0][0]["resource"] == resource


def test_reading_commands_tell_how_many_keys_they_found(client: Any, spans: Spans) -> None:
    client.execute_command("MSET", "a", "1", "b", "")
    client.execute_command("HSET", "h", "f", "1")
    client.execute_command("RPUSH", "l", "1", "2")
    spans.clear()
    for command in ("GET a", "GET b", "GET c", "MGET a b c", "HMGET h f g", "HMGET i f", "HGETALL i", "LRANGE l 0 -1"):
        client.execute_command(*command.split())
    assert [span["attributes"]["db.response.returned_rows"] for span in spans] == [1, 1, 0, 2, 1, 0, 0, 1]


def test_keys_stay_and_values_go(client: Any, spans: Spans) -> None:
    client.execute_command("MSET", "a", "secret-1", "b", "secret-2")
    client.mget("a", "b")
    client.hset("h", "field", "secret-3")
    client.execute_command("config", "get", "maxmemory")
    client.execute_command("eval", "return 1", 1, "key", "secret-4")
    client.lpush("l", b"\xff\x00secret-5")
    assert texts(spans) == [
        "MSET a ? b ?",
        "MGET a b",
        "HSET h ? ?",
        "CONFIG get maxmemory",
        "EVAL ? 1 key ?",
        "LPUSH l ?",
    ]
    assert [span["name"] for span in spans] == ["MSET", "MGET", "HSET", "CONFIG", "EVAL", "LPUSH"]
    assert "secret" not in repr(list(spans))


def test_keys_go_when_asked(spans: Spans, redis_server: Server) -> None:
    RedisInstrumentor().instrument(capture_keys=False)
    client = redis.StrictRedis(redis_server.host, redis_server.port)
    client.get("user:1")
    client.connection_pool.disconnect()
    assert texts(spans) == ["GET ?"]


def test_a_pipeline_is_one_span(client: Any, spans: Spans) -> None:
    pipeline = client.pipeline()
    pipeline.set("a", 1)
    pipeline.get("a")
    pipeline.execute()
    (span,) = spans
    assert (span["name"], span["attributes"]["db.operation.batch.size"]) == ("PIPELINE", 2)
    assert texts(spans) == ["SET a ?\nGET a"]


def test_an_empty_pipeline_sends_nothing(client: Any, spans: Spans) -> None:
    assert client.pipeline().execute() == []
    assert len(spans) == 0


def test_a_large_pipeline_is_cheap_to_describe(client: Any, spans: Spans) -> None:
    pipeline = client.pipeline(transaction=False)
    for number in range(1000):
        pipeline.set(f"key:{number}", "x")
    pipeline.execute()
    assert spans[0]["attributes"]["db.operation.batch.size"] == 1000
    assert len(texts(spans)[0].splitlines()) == 100


def test_watch_and_what_follows_it(client: Any, spans: Spans) -> None:
    with client.pipeline() as pipeline:
        pipeline.watch("k")
        pipeline.get("k")
        pipeline.multi()
        pipeline.set("k", "v")
        pipeline.execute()
    assert texts(spans) == ["WATCH k", "GET k", "SET k ?"]


def test_a_watch_error_is_an_answer(client: Any, spans: Spans) -> None:
    with client.pipeline() as pipeline:
        pipeline.watch("k")
        client.set("k", "other")
        pipeline.multi()
        pipeline.set("k", "v")
        with pytest.raises(redis.WatchError):
            pipeline.execute()
    assert [span["status"] for span in spans] == ["UNSET"] * 3


@pytest.mark.parametrize("values", [("topsecret",), ("a topsecret\nof two lines",)])
def test_no_value_leaves_with_an_exception(values: tuple[str], client: Any, spans: Spans) -> None:
    client.set("word", "x")
    with pytest.raises(redis.ResponseError, match="topsecret"):  # the application sees it
        client.execute_command("NOSUCHCOMMAND", *values)
    names = ["NOSUCHCOMMAND"]
    if hasattr(client.pipeline(), "annotate_exception"):  # before 2.7, a pipeline answers its errors
        names.append("PIPELINE RPUSH")
        with pytest.raises(redis.ResponseError, match="topsecret"), client.pipeline() as pipeline:
            pipeline.rpush("word", *values).execute()
    failed = [span for span in spans if span["status"] == "ERROR"]
    assert [span["name"] for span in failed] == names
    assert all("Command # 1 (?) of pipeline caused error: WRONGTYPE" in span["description"] for span in failed[1:])
    assert "topsecret" not in repr(failed)


def test_failures(client: Any, spans: Spans) -> None:
    with pytest.raises(redis.ResponseError):
        client.execute_command("NOSUCH", "secret")
    with pytest.raises(redis.ConnectionError):
        redis.StrictRedis("127.0.0.1", 1).get("k")
    assert [(span["name"], span["status"], span["attributes"]["error.type"]) for span in spans] == [
        ("NOSUCH", "ERROR", "ResponseError"),
        ("GET", "ERROR", "ConnectionError"),
    ]


def test_hooks(spans: Spans, redis_server: Server) -> None:
    RedisInstrumentor().instrument(
        request_hook=lambda span, client, args, kwargs: span.set_attribute("args", len(args)),
        response_hook=lambda span, client, response: span.set_attribute("answer", str(response)),
    )
    client = redis.StrictRedis(redis_server.host, redis_server.port)
    client.set("k", "v")
    client.connection_pool.disconnect()
    assert (spans[0]["attributes"]["args"], spans[0]["attributes"]["answer"]) == (3, "True")


def test_one_client_only(spans: Spans, redis_server: Server) -> None:
    traced, other = (redis.StrictRedis(redis_server.host, redis_server.port) for _ in range(2))
    RedisInstrumentor.instrument_client(traced, tracer_provider=spans.provider)
    traced.set("k", "v")
    traced.pipeline().set("k", "w").execute()
    with traced.pipeline() as pipeline:
        pipeline.watch("k")
    other.set("k", "v")
    assert texts(spans) == ["SET k ?", "SET k ?", "WATCH k"]
    RedisInstrumentor.uninstrument_client(traced)
    traced.set("k", "v")
    assert len(spans) == 3
    for client in (traced, other):
        client.connection_pool.disconnect()


@needs_asyncio
def test_asyncio(spans: Spans, redis_server: Server) -> None:
    RedisInstrumentor().instrument()

    async def work() -> None:
        client = redis.asyncio.Redis(host=redis_server.host, port=redis_server.port)
        await client.set("k", "v")
        async with client.pipeline() as pipeline:
            await pipeline.watch("k")
            await pipeline.get("k")
            pipeline.multi()
            await pipeline.set("k", "w").get("k").execute()
        await asyncio.gather(*(client.get(f"k{number}") for number in range(5)))
        await (client.aclose() if hasattr(client, "aclose") else client.close())

    with spans.provider.get_tracer("test").start_as_current_span("root"):
        asyncio.run(work())
    assert texts(spans[:-1])[:4] == ["SET k ?", "WATCH k", "GET k", "SET k ?\nGET k"]  # type: ignore[arg-type]
    assert {span["parent"] for span in spans[:-1]} == {"root"}
    assert len(spans) == 4 + 5 + 1


@needs_cluster
def test_cluster(spans: Spans, redis_cluster_server: Server) -> None:
    client = redis.RedisCluster(redis_cluster_server.host, redis_cluster_server.port)
    RedisInstrumentor().instrument()
    client.set("a", "1")
    client.get("b")
    pipeline = client.pipeline()
    pipeline.set("a", 1)
    pipeline.set("b", 2)
    pipeline.get("c")
    pipeline.execute()
    client.close()
    assert texts(spans) == ["SET a ?", "GET b", "SET a ?\nSET b ?\nGET c"]
    assert all(span["attributes"]["server.address"] for span in spans)


@needs_cluster
@needs_asyncio
def test_asyncio_cluster(spans: Spans, redis_cluster_server: Server) -> None:
    RedisInstrumentor().instrument()

    async def work() -> None:
        client = redis.asyncio.RedisCluster(redis_cluster_server.host, redis_cluster_server.port)
        await client.set("a", "1")
        await client.pipeline().set("a", 1).get("b").execute()
        await client.aclose()

    asyncio.run(work())
    assert texts(spans)[-2:] == ["SET a ?", "SET a ?\nGET b"]
    assert [span["attributes"]["server.port"] for span in spans[-2:]] == [redis_cluster_server.port] * 2
