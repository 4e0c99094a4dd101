"""mysql-connector with a real MariaDB: pure, C, pooled and asynchronous."""

from __future__ import annotations

import asyncio
import warnings
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore", SyntaxWarning)  # the oldest versions compare literals with `is`
    import mysql.connector
    from mysql.connector import pooling

from spanbridge.core.options import apply_settings
from spanbridge.instrumentors.mysql import MySQLInstrumentor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spanbridge.testing import Spans
    from tests.servers import Server

SECRET = "topsecret"
VERSION = tuple(mysql.connector.version.VERSION[:2])
FLAVOURS = ["pure", "C"] if mysql.connector.HAVE_CEXT else ["pure"]


@pytest.fixture(autouse=True)
def _instrumented(spans: Spans) -> None:
    MySQLInstrumentor().instrument()


@pytest.fixture(params=FLAVOURS)
def arguments(request: pytest.FixtureRequest, mariadb_server: Server) -> dict[str, Any]:
    server = {"host": mariadb_server.host, "port": mariadb_server.port, "database": "shop"}
    return {**server, "user": "tester", "password": "secret", "use_pure": request.param == "pure"}


@pytest.fixture
def connection(arguments: dict[str, Any], spans: Spans) -> Iterator[Any]:
    with closing(mysql.connector.connect(**arguments)) as connection:
        connection.cursor().execute("CREATE TEMPORARY TABLE items (id integer, name text)")
        spans.clear()
        yield connection


def names(spans: Spans) -> list[str]:
    return [span["name"] for span in spans]


def test_a_statement_is_one_client_span(connection: Any, spans: Spans, mariadb_server: Server) -> None:
    cursor = connection.cursor()
    cursor.execute("SELECT \"it's\", 'x', %s", (SECRET,))
    assert cursor.fetchall() == [("it's", "x", SECRET)]
    [span] = spans
    assert (span["name"], span["kind"], span["scope"]) == ("SELECT", "CLIENT", "spanbridge.instrumentors.mysql")
    span["attributes"].pop("db.response.returned_rows", None)  # the flavours differ
    assert span["attributes"] == {
        "db.system.name": "mysql",
        "db.namespace": "shop",
        "db.user": "tester",
        "server.address": mariadb_server.host,
        "server.port": mariadb_server.port,
        "db.operation.name": "SELECT",
        "db.query.text": "SELECT ?, ?, %s",
    }


@pytest.mark.parametrize("options", [{}, {"buffered": True}, {"dictionary": True}, {"prepared": True}, {"raw": True}])
def test_kinds_of_cursors(options: dict[str, bool], connection: Any, spans: Spans) -> None:
    cursor = connection.cursor(**options)
    cursor.execute("SELECT %s", ("1",))
    assert len(cursor.fetchall()) == 1
    cursor.close()
    assert names(spans) == ["SELECT"]


@pytest.mark.filterwarnings("error:This version of the server does not support Query Attributes")
@pytest.mark.parametrize("prepared", [False, True])
def test_a_server_without_query_attributes_gets_none(prepared: bool, connection: Any, spans: Spans) -> None:
    """Of its own, the connector passes the context on in them, and MariaDB would take it for the parameter."""
    cursor = connection.cursor(prepared=prepared)
    cursor.execute("SELECT %s + 1", (3,))
    assert cursor.fetchall() == [(4,)]
    cursor.close()
    assert names(spans) == ["SELECT"]


def test_many_rows(connection: Any, spans: Spans) -> None:
    cursor = connection.cursor()
    cursor.executemany("INSERT INTO items VALUES (%s, %s)", [(1, SECRET), (2, SECRET)])
    cursor.executemany("UPDATE items SET id = %s", [(1,), (2,)])
    cursor.executemany("SELECT %s", [])
    assert names(spans) == ["INSERT", "UPDATE", "SELECT"]
    assert [span["attributes"]["db.operation.batch.size"] for span in spans] == [2, 2, 0]
    assert SECRET not in repr(list(spans))


@pytest.mark.filterwarnings("ignore:Call to deprecated function stored_results:DeprecationWarning")
def test_procedures(connection: Any, spans: Spans) -> None:
    cursor = connection.cursor()
    cursor.execute("CREATE OR REPLACE PROCEDURE answer(number integer) SELECT number")
    spans.clear()
    cursor.callproc("answer", (42,))
    assert [result.fetchall() for result in cursor.stored_results()] == [[(42,)]]
    assert [(span["name"], span["attributes"]["db.query.text"]) for span in spans] == [("CALL", "answer")]


def test_transactions(connection: Any, spans: Spans) -> None:
    connection.cursor().execute("INSERT INTO items VALUES (1, 'a')")
    connection.commit()
    connection.rollback()
    assert names(spans) == ["INSERT", "COMMIT", "ROLLBACK"]


def test_an_error_has_its_number(connection: Any, spans: Spans) -> None:
    with pytest.raises(mysql.connector.ProgrammingError) as raised:
        connection.cursor().execute("SELECT 1 FROM nowhere")
    assert raised.value.errno == 1146
    [span] = spans
    assert span["status"] == "ERROR"
    assert span["attributes"]["db.response.status_code"] == "1146"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # old versions leave the socket open
def test_a_refused_connection_is_seen(arguments: dict[str, Any], spans: Spans) -> None:
    with pytest.raises(mysql.connector.Error):
        mysql.connector.connect(**{**arguments, "port": 1})
    [span] = spans
    assert (span["name"], span["status"]) == ("CONNECT", "ERROR")
    assert span["attributes"]["db.namespace"] == "shop"
    assert span["attributes"]["server.port"] == 1
    assert span["attributes"]["db.response.status_code"] == "2003"


def test_pools(arguments: dict[str, Any], spans: Spans) -> None:
    flavour = arguments["use_pure"]
    if VERSION < (8, 1):
        del arguments["use_pure"]  # their pools know the pure one alone
    pool = pooling.MySQLConnectionPool(pool_size=1, **arguments)
    connection = pool.get_connection()
    cursor = connection.cursor(buffered=True)
    cursor.execute("SELECT 1")
    cursor.close()
    connection.commit()
    with suppress(mysql.connector.Error):  # MariaDB cannot reset a session the way newer connectors do
        connection.close()
    pool._remove_connections()
    named = mysql.connector.connect(pool_name=f"pure_{flavour}", pool_size=1, **arguments)
    named.cursor(buffered=True).execute("SELECT 2")
    with suppress(mysql.connector.Error):
        named.close()
    assert names(spans) == ["SELECT", "COMMIT", "SELECT"]


def test_closed_cursors_and_connections(connection: Any, spans: Spans, caplog: pytest.LogCaptureFixture) -> None:
    cursor, other = connection.cursor(), connection.cursor()
    cursor.close()
    with pytest.raises(Exception):
        cursor.execute("SELECT 1")
    connection.close()
    with pytest.raises(Exception):
        other.execute("SELECT 1")
    assert caplog.messages == []


def test_connections_and_fetches_may_have_spans(arguments: dict[str, Any], spans: Spans) -> None:
    MySQLInstrumentor().uninstrument()
    MySQLInstrumentor().instrument(trace_connect=True, trace_fetch=True)
    with closing(mysql.connector.connect(**arguments)) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT 1")
        assert cursor.fetchmany(1) == [(1,)]
        assert cursor.fetchone() is None
    assert names(spans) == ["CONNECT", "SELECT", "FETCHMANY", "FETCHONE"]


@pytest.mark.filterwarnings("error:This version of the server does not support Query Attributes")
def test_one_connection(arguments: dict[str, Any], spans: Spans) -> None:
    MySQLInstrumentor().uninstrument()
    with closing(mysql.connector.connect(**arguments)) as connection:
        proxy = MySQLInstrumentor().instrument_connection(connection)
        cursor = proxy.cursor(buffered=True)
        cursor.execute("SELECT 1")
        assert names(spans) == ["SELECT"]
        assert MySQLInstrumentor().uninstrument_connection(proxy) is connection
        MySQLInstrumentor().instrument()
        assert MySQLInstrumentor().uninstrument_connection(connection) is connection
        connection.cursor(buffered=True).execute("SELECT 1")
        connection.commit()
    assert names(spans) == ["SELECT"]


def test_comments(arguments: dict[str, Any], spans: Spans) -> None:
    apply_settings(
        {"database.comments": {"tags": {"ddps": "shop"}, "target": {"dddb": "namespace"}, "trace_context": False}}
    )
    MySQLInstrumentor().uninstrument()
    MySQLInstrumentor().instrument()
    with closing(mysql.connector.connect(**arguments)) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT info FROM information_schema.processlist WHERE id = connection_id()")
        assert cursor.fetchone()[0].startswith("/*dddb='shop',ddps='shop'*/ SELECT info")
        cursor.execute("CREATE TEMPORARY TABLE items (id integer)")
        cursor.executemany("INSERT INTO items VALUES (%s)", [(1,), (2,)])
        assert cursor.rowcount == 2
        statement = cursor.statement if isinstance(cursor.statement, str) else cursor.statement.decode()
        assert statement.count("VALUES") == 1
        assert statement.replace(" ", "").endswith("(1),(2)")
    apply_settings({})


def test_commenter(arguments: dict[str, Any], spans: Spans) -> None:
    MySQLInstrumentor().uninstrument()
    MySQLInstrumentor().instrument(
        enable_commenter=True, commenter_options={"dbapi_level": False, "opentelemetry_values": False}
    )
    with closing(mysql.connector.connect(**arguments)) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT info FROM information_schema.processlist WHERE id = connection_id()")
        seen = cursor.fetchone()[0]
    assert seen.startswith("SELECT info FROM")
    assert "connection_id() /*db_driver='mysql.connector%%3A" in seen
    assert "dbapi_threadsafety=1,driver_paramstyle='pyformat',mysql_client_version='" in seen
    assert "dbapi_level" not in seen
    assert "traceparent" not in seen
    assert "/*" not in spans[-1]["attributes"]["db.query.text"]


def test_asynchronous(mariadb_server: Server, spans: Spans) -> None:
    aio = pytest.importorskip("mysql.connector.aio")
    arguments = {"host": mariadb_server.host, "database": "shop", "user": "tester", "password": "secret"}

    async def work() -> None:
        connection = await aio.connect(port=mariadb_server.port, ssl_disabled=True, **arguments)
        cursor = await connection.cursor()
        await cursor.execute("SELECT %s", (SECRET,))
        assert await cursor.fetchall() == [(SECRET,)]
        await cursor.executemany("SET @a = %s", [(1,), (2,)])
        await connection.commit()
        with pytest.raises(mysql.connector.Error):
            await cursor.execute("SELECT 1 FROM nowhere")
        await cursor.close()
        await connection.close()
        with pytest.raises((mysql.connector.Error, OSError)):
            await aio.connect(port=1, ssl_disabled=True, **arguments)

    asyncio.run(work())
    assert names(spans) == ["SELECT", "SET", "COMMIT", "SELECT", "CONNECT"]
    assert [span["status"] for span in spans] == ["UNSET", "UNSET", "UNSET", "ERROR", "ERROR"]
    assert {span["attributes"]["db.namespace"] for span in spans} == {"shop"}
    assert SECRET not in repr(list(spans))
