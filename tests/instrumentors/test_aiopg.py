"""aiopg with a real PostgreSQL, psycopg2 instrumented below."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import aiopg
import psycopg2
import pytest

from spanbridge.instrumentors.aiopg import AiopgInstrumentor, wrappers
from spanbridge.instrumentors.psycopg2 import Psycopg2Instrumentor

if TYPE_CHECKING:
    from spanbridge.testing import Spans
    from tests.servers import Server

SECRET = "topsecret"


@pytest.fixture(autouse=True)
def _instrumented(spans: Spans) -> None:
    AiopgInstrumentor().instrument()
    Psycopg2Instrumentor().instrument()


@pytest.fixture
def dsn(postgres_server: Server) -> str:
    return f"host={postgres_server.host} port={postgres_server.port} user=postgres dbname=postgres"


def names(spans: Spans) -> list[str]:
    return [span["name"] for span in spans]


def test_a_statement_is_one_client_span(dsn: str, spans: Spans, postgres_server: Server) -> None:
    async def work() -> None:
        async with aiopg.connect(dsn) as connection, connection.cursor() as cursor:
            await cursor.execute("SELECT 'x', %s, pg_sleep(0.01)", (SECRET,))
            assert (await cursor.fetchone())[:2] == ("x", SECRET)

    asyncio.run(work())
    [span] = spans
    assert (span["name"], span["kind"], span["scope"]) == ("SELECT", "CLIENT", "spanbridge.instrumentors.aiopg")
    assert span["attributes"] == {
        "db.system.name": "postgresql",
        "db.namespace": "postgres",
        "db.user": "postgres",
        "server.address": postgres_server.host,
        "server.port": postgres_server.port,
        "db.operation.name": "SELECT",
        "db.query.text": "SELECT ?, %s, pg_sleep(?)",
        "db.response.returned_rows": 1,
    }


def test_pools_transactions_and_procedures(dsn: str, spans: Spans) -> None:
    async def work() -> None:
        async with aiopg.create_pool(dsn, minsize=1, maxsize=1) as pool, pool.acquire() as connection:
            cursor = await connection.cursor()
            async with cursor.begin():
                await cursor.execute("SELECT 1")
            await cursor.callproc("upper", ["a"])
            assert await cursor.fetchone() == ("A",)
            cursor.close()

    asyncio.run(work())
    assert names(spans) == ["BEGIN", "SELECT", "COMMIT", "CALL"]
    assert {span["scope"] for span in spans} == {"spanbridge.instrumentors.aiopg"}


def test_an_error_is_seen_when_it_comes(dsn: str, spans: Spans) -> None:
    async def work() -> None:
        async with aiopg.connect(dsn) as connection, connection.cursor() as cursor:
            with pytest.raises(psycopg2.errors.UndefinedTable):
                await cursor.execute("SELECT 1 FROM nowhere")

    asyncio.run(work())
    [span] = spans
    assert span["status"] == "ERROR"
    assert span["attributes"]["db.response.status_code"] == "42P01"


def test_a_refused_connection_is_seen(spans: Spans) -> None:
    async def work() -> None:
        await aiopg.connect("host=127.0.0.1 port=1 dbname=shop password=topsecret")

    with pytest.raises(psycopg2.OperationalError):
        asyncio.run(work())
    assert [(span["name"], span["status"]) for span in spans] == [("CONNECT", "ERROR")]
    assert SECRET not in repr(list(spans))


def test_both_layers_where_both_are_asked_for(dsn: str, spans: Spans) -> None:
    AiopgInstrumentor().uninstrument()
    AiopgInstrumentor().instrument(trace_driver=True)

    async def work() -> None:
        async with aiopg.connect(dsn, enable_hstore=False) as connection, connection.cursor() as cursor:
            await cursor.execute("SELECT 1")

    asyncio.run(work())
    assert [span["scope"].rpartition(".")[2] for span in spans] == ["psycopg2", "aiopg"]
    assert spans[0]["parent_id"] == spans[1]["span_id"]


def test_one_connection(dsn: str, spans: Spans, postgres_server: Server) -> None:
    AiopgInstrumentor().uninstrument()
    Psycopg2Instrumentor().uninstrument()

    async def work() -> None:
        async with aiopg.connect(dsn) as connection:
            proxy: Any = AiopgInstrumentor().instrument_connection(connection)
            async with proxy.cursor() as cursor:
                await cursor.execute("SELECT 1")
                assert await cursor.fetchone() == (1,)
            assert [(span["name"], span["attributes"]["server.port"]) for span in spans] == [
                ("SELECT", postgres_server.port)
            ]
            assert AiopgInstrumentor().uninstrument_connection(proxy) is connection

    asyncio.run(work())


def test_a_fault_of_ours_leaves_the_pool_plain(
    dsn: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(wrappers, "AiopgIntegration", lambda *_, **__: 1 / 0)
    wrappers.wrap_create_pool("mine", "postgresql")

    async def work() -> None:
        async with aiopg.create_pool(dsn, minsize=1, maxsize=1) as pool:
            assert type(pool) is aiopg.Pool

    try:
        asyncio.run(work())
    finally:
        wrappers.unwrap_create_pool()
    assert "ZeroDivisionError" in caplog.text


def test_by_hand(dsn: str, spans: Spans, postgres_server: Server) -> None:
    """`wrappers`, as in contrib: aiopg's own connections and pools answer to it, too."""
    AiopgInstrumentor().uninstrument()
    Psycopg2Instrumentor().uninstrument()
    connect, create_pool = aiopg.connect, aiopg.create_pool
    attributes = AiopgInstrumentor.driver.attributes
    wrappers.wrap_connect("mine", "postgresql", attributes)
    wrappers.wrap_create_pool("mine", "postgresql", attributes)

    async def work() -> None:
        async with aiopg.connect(dsn) as connection, connection.cursor() as cursor:
            await cursor.execute("SELECT 'topsecret'")
            assert await cursor.fetchone() == (SECRET,)
        connection = await aiopg.connect(dsn)
        await (await connection.cursor()).execute("SELECT 2")
        await connection.close()
        async with aiopg.create_pool(dsn, minsize=1, maxsize=1) as pool:
            async with pool.acquire() as connection, connection.cursor() as cursor:
                await cursor.execute("SELECT 3")
            connection = await pool.acquire()
            await (await connection.cursor()).execute("SELECT 4")
            await pool.release(connection)

    try:
        asyncio.run(work())
    finally:
        wrappers.unwrap_connect()
        wrappers.unwrap_create_pool()
    assert (aiopg.connect, aiopg.create_pool) == (connect, create_pool)
    assert [(span["scope"], span["attributes"]["db.query.text"]) for span in spans] == [("mine", "SELECT ?")] * 4
    assert {span["attributes"]["server.port"] for span in spans} == {postgres_server.port}
