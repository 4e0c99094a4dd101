"""psycopg 3 with a real PostgreSQL: sync and async, and what people rely on behaves as without us."""

from __future__ import annotations

import asyncio
import inspect
from contextlib import closing
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql

from spanbridge.core.options import apply_settings
from spanbridge.instrumentors.psycopg import PsycopgInstrumentor
from tests.telltales import TELLTALES, refused_without_a_word

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from spanbridge.testing import Payload, Spans
    from tests.servers import Server

SECRET = "topsecret"
VERSION = tuple(int(part) for part in psycopg.__version__.split(".")[:2])


@pytest.fixture(autouse=True)
def _instrumented(spans: Spans) -> None:
    PsycopgInstrumentor().instrument()


@pytest.fixture
def conninfo(postgres_server: Server) -> str:
    return f"host={postgres_server.host} port={postgres_server.port} user=postgres dbname=postgres"


@pytest.fixture
def connection(conninfo: str, spans: Spans) -> Iterator[Any]:
    with closing(psycopg.connect(conninfo)) as connection:
        connection.execute("CREATE TEMPORARY TABLE items (id integer, name text)")
        connection.commit()
        spans.clear()
        yield connection


def names(spans: Spans) -> list[str]:
    return [span["name"] for span in spans]


def texts(spans: Spans) -> list[str | None]:
    return [span["attributes"].get("db.query.text") for span in spans]


def test_what_a_program_calls_itself(conninfo: str, spans: Spans, payload: Payload) -> None:
    with closing(psycopg.connect(f"{conninfo} application_name=checkout")) as connection:
        connection.execute("SELECT 1")
    assert payload()[0][0]["meta"]["db.application"] == "checkout"


def test_a_statement_is_one_client_span(connection: Any, spans: Spans, postgres_server: Server) -> None:
    assert connection.execute("SELECT 'x', %s", (SECRET,)).fetchall() == [("x", SECRET)]
    [span] = spans
    assert (span["name"], span["kind"], span["scope"]) == ("SELECT", "CLIENT", "spanbridge.instrumentors.psycopg")
    assert span["attributes"] == {
        "db.system.name": "postgresql",
        "db.namespace": "postgres",
        "db.user": "postgres",
        "server.address": postgres_server.host,
        "server.port": postgres_server.port,
        "db.operation.name": "SELECT",
        "db.query.text": "SELECT ?, %s",
        "db.response.returned_rows": 1,
    }


def copied(cursor: Any) -> None:
    with cursor.copy("COPY items TO STDOUT") as copy:
        assert b"".join(map(bytes, copy)) == b""


STATEMENTS: dict[str, tuple[Callable[[Any], Any], list[str]]] = {
    "bytes": (lambda cursor: cursor.execute(b"SELECT 'topsecret'"), ["SELECT ?"]),
    "a composed one": (
        lambda cursor: cursor.execute(
            sql.SQL("SELECT {} FROM {}").format(sql.Literal(SECRET), sql.Identifier("items"))
        ),
        ['SELECT ? FROM "items"'],
    ),
    "a keyword": (lambda cursor: cursor.execute(query="SELECT %s::int", params=(1,)), ["SELECT %s::int"]),
    "named parameters": (lambda cursor: cursor.execute("SELECT %(a)s::int", {"a": 1}), ["SELECT %(a)s::int"]),
    "no rows": (lambda cursor: cursor.executemany("SELECT %s", []), ["SELECT %s"]),
    "many rows": (
        lambda cursor: cursor.executemany("INSERT INTO items VALUES (%s, 'topsecret')", [(1,), (2,)]),
        ["INSERT INTO items VALUES (%s, ?)"],
    ),
    "a stream": (lambda cursor: list(cursor.stream("SELECT generate_series(1, 3)")), ["SELECT generate_series(?)"]),
    "a copy": (copied, ["COPY items TO STDOUT"]),
}


@pytest.mark.parametrize("way", STATEMENTS)
def test_every_way_to_run_a_statement(way: str, connection: Any, spans: Spans) -> None:
    run, expected = STATEMENTS[way]
    run(connection.cursor())
    assert texts(spans) == expected
    assert SECRET not in repr(list(spans))


def test_a_template_string(connection: Any, spans: Spans) -> None:
    """What `t"SELECT {name}"` is on Python 3.14; older ones have no such literal."""

    class Part:
        expression = "name"

    class Template:
        strings = ("SELECT ", " AS a")
        interpolations = (Part(),)

    with pytest.raises((TypeError, psycopg.Error)):
        connection.execute(Template())
    assert texts(spans) == ["SELECT {name} AS a"]


def test_a_streams_span_ends_with_its_last_row(connection: Any, spans: Spans) -> None:
    stream = connection.cursor().stream("SELECT generate_series(1, 3)")
    assert inspect.isgenerator(stream)
    assert len(spans.unfinished) == 0
    assert next(stream) == (1,)
    assert (len(spans), len(spans.unfinished)) == (0, 1)
    stream.close()
    assert names(spans) == ["SELECT"]


def test_a_copys_span_ends_with_its_block(connection: Any, spans: Spans) -> None:
    cursor = connection.cursor()
    with cursor.copy("COPY items FROM STDIN") as copy:
        copy.write_row((1, SECRET))
        assert (len(spans), len(spans.unfinished)) == (0, 1)
    assert cursor.rowcount == 1
    error = ValueError("mine")

    def broken() -> None:
        with cursor.copy("COPY items FROM STDIN"):
            raise error

    with pytest.raises((ValueError, psycopg.errors.QueryCanceled)) as raised:  # the second with psycopg 3.0
        broken()
    assert error in {raised.value, raised.value.__context__}
    assert [(span["status"], span["attributes"].get("db.response.returned_rows")) for span in spans] == [
        ("UNSET", 1),
        ("ERROR", None),
    ]


def test_kinds_of_cursors(connection: Any, spans: Spans) -> None:
    with connection.cursor("rows", scrollable=True) as cursor:
        cursor.execute("SELECT generate_series(1, 5)")
        assert [row[0] for row in cursor] == [1, 2, 3, 4, 5]
    kinds = [getattr(psycopg, name) for name in ("ClientCursor", "RawCursor") if hasattr(psycopg, name)]
    for kind in kinds:
        cursor = kind(connection)
        assert cursor.execute("SELECT 1").fetchall() == [(1,)]
    assert names(spans) == ["SELECT"] * (1 + len(kinds))
    with connection.cursor("rows") as cursor, pytest.raises(psycopg.NotSupportedError):
        cursor.executemany("SELECT %s", [(1,)])


def test_an_applications_own_classes(conninfo: str, spans: Spans) -> None:
    class Cursor(psycopg.Cursor[Any]):
        def execute(self, *args: Any, **kwargs: Any) -> Any:
            return super().execute(*args, **kwargs)

    class Connection(psycopg.Connection[Any]):
        pass

    with Connection.connect(conninfo, row_factory=psycopg.rows.dict_row) as connection:
        connection.cursor_factory = Cursor
        assert type(connection) is Connection
        cursor = connection.cursor()
        assert type(cursor) is Cursor
        assert cursor.execute("SELECT 1 AS one").fetchone() == {"one": 1}
    assert names(spans) == ["SELECT", "COMMIT"]


def test_transactions(connection: Any, spans: Spans) -> None:
    with connection.transaction(), connection.transaction():
        connection.execute("SELECT 1")
    assert names(spans) == ["BEGIN", "SAVEPOINT", "SELECT", "RELEASE", "COMMIT"]
    spans.clear()
    with connection.transaction() as transaction:
        connection.execute("SELECT 1")
        raise psycopg.Rollback(transaction)
    assert names(spans) == ["BEGIN", "SELECT", "ROLLBACK"]
    spans.clear()
    connection.execute("SELECT 1")
    connection.rollback()
    connection.commit()
    assert names(spans) == ["SELECT", "ROLLBACK", "COMMIT"]
    assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


@pytest.mark.skipif(VERSION < (3, 1), reason="two-phase commits and pipelines are new in psycopg 3.1")
def test_two_phases(connection: Any, spans: Spans) -> None:
    for end in (connection.tpc_commit, connection.tpc_rollback):
        connection.tpc_begin("spanbridge")
        connection.execute("SELECT 1")
        connection.tpc_prepare()
        end()
    assert names(spans) == ["SELECT", "PREPARE", "COMMIT", "SELECT", "PREPARE", "ROLLBACK"]


@pytest.mark.skipif(VERSION < (3, 1), reason="two-phase commits and pipelines are new in psycopg 3.1")
def test_pipelines(connection: Any, spans: Spans) -> None:
    with connection.pipeline() as pipeline:
        first, second = connection.execute("SELECT 1"), connection.execute("SELECT 2")
        pipeline.sync()
        assert (first.fetchone(), second.fetchone()) == ((1,), (2,))
        cursor = connection.cursor()
        cursor.executemany("INSERT INTO items VALUES (%s)", [(1,), (2,)])
    assert cursor.rowcount == 2
    assert names(spans) == ["SELECT", "SELECT", "INSERT"]


def prepared(connection: Any) -> int:
    for _ in range(8):
        connection.execute("SELECT id FROM items WHERE id = %s", (1,))
    return int(connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchone()[0])


def test_statements_are_prepared_as_without_us(conninfo: str, connection: Any, spans: Spans) -> None:
    wanted = {"tags": {"ddps": "shop"}, "target": {"dddb": "namespace"}, "trace_context": False}
    apply_settings({"database.comments": wanted})
    with_us = prepared(connection)
    PsycopgInstrumentor().uninstrument()
    assert prepared(connection) == with_us == 1
    PsycopgInstrumentor().instrument()
    with closing(psycopg.connect(conninfo)) as other:
        other.execute("CREATE TEMPORARY TABLE items (id integer)")
        assert prepared(other) == 1
        seen = other.execute("SELECT current_query()").fetchone()[0]
        assert seen == "/*dddb='postgres',ddps='shop'*/ SELECT current_query()"
    assert "ddps" not in repr(list(spans))
    apply_settings({})


def test_an_error_has_its_sqlstate(connection: Any, spans: Spans) -> None:
    with pytest.raises(psycopg.errors.UndefinedTable):
        connection.execute("SELECT 1 FROM nowhere")
    [span] = spans
    assert span["status"] == "ERROR"
    assert span["attributes"]["db.response.status_code"] == "42P01"
    assert span["attributes"]["error.type"] == "UndefinedTable"


@pytest.mark.parametrize("telltale", TELLTALES)
def test_no_value_leaves_with_an_exception(telltale: str, connection: Any, spans: Spans) -> None:
    refused_without_a_word(telltale, connection, psycopg.Error, spans)


def test_no_value_leaves_with_a_copy_or_a_later_exception(connection: Any, spans: Spans) -> None:
    cursor = connection.cursor()
    cursor.execute("CREATE TEMPORARY TABLE numbers (number int)")
    with pytest.raises(psycopg.Error, match=SECRET), cursor.copy("COPY numbers FROM STDIN") as copy:
        copy.write(f"{SECRET}\n")
    connection.rollback()
    try:
        cursor.execute("SELECT %s::int", (SECRET,))
    except psycopg.Error:
        connection.rollback()
        with pytest.raises(psycopg.Error):
            cursor.execute("SELECT 1 FROM nowhere")
    assert len([span for span in spans if span["status"] == "ERROR"]) == 3
    assert SECRET not in repr(list(spans))


def test_closed_cursors_and_connections(connection: Any, spans: Spans, caplog: pytest.LogCaptureFixture) -> None:
    cursor = connection.cursor()
    cursor.close()
    with pytest.raises(psycopg.InterfaceError):
        cursor.execute("SELECT 1")
    connection.close()
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError):
        connection.commit()
    assert caplog.messages == []


def test_a_connection_that_is_closed_unused(conninfo: str, caplog: pytest.LogCaptureFixture) -> None:
    connection = psycopg.connect(conninfo)
    connection.close()
    with pytest.raises(psycopg.OperationalError):
        connection.commit()
    assert caplog.messages == []


def test_a_refused_connection_is_seen(spans: Spans, caplog: pytest.LogCaptureFixture) -> None:
    refused = "host=127.0.0.1 port=1 dbname=shop password=topsecret"
    for connect in (psycopg.connect, psycopg.Connection.connect):
        with pytest.raises(psycopg.OperationalError):
            connect(refused)
    with pytest.raises(psycopg.OperationalError):
        asyncio.run(psycopg.AsyncConnection.connect(refused))
    assert [(span["name"], span["status"]) for span in spans] == [("CONNECT", "ERROR")] * 3
    assert {span["attributes"]["db.namespace"] for span in spans} == {"shop"}
    assert SECRET not in repr(list(spans))
    with pytest.raises(psycopg.ProgrammingError):
        psycopg.connect("no conninfo at all")
    assert caplog.messages == []


def test_connections_and_fetches_may_have_spans(conninfo: str, spans: Spans) -> None:
    PsycopgInstrumentor().uninstrument()
    PsycopgInstrumentor().instrument(trace_connect=True, trace_fetch=True)
    with closing(psycopg.connect(conninfo)) as connection:
        cursor = connection.execute("SELECT 1")
        assert cursor.fetchone() == (1,)
        assert cursor.fetchmany(1) == cursor.fetchall() == []
    assert names(spans) == ["CONNECT", "SELECT", "FETCHONE", "FETCHMANY", "FETCHALL"]


def test_asynchronous(conninfo: str, spans: Spans) -> None:
    async def work() -> None:
        async with await psycopg.AsyncConnection.connect(conninfo) as connection:
            cursor = await connection.execute("SELECT %s::int", (1,))
            assert await cursor.fetchall() == [(1,)]
            await cursor.executemany("SELECT %s", [(1,), (2,)])
            assert [row async for row in cursor.stream("VALUES (1), (2)")] == [(1,), (2,)]
            async with cursor.copy("COPY (SELECT 1) TO STDOUT") as copy:
                assert [bytes(row) async for row in copy] == [b"1\n"]
            async with connection.cursor("rows") as named:
                await named.execute("SELECT 2")
                assert await named.fetchone() == (2,)
            await connection.rollback()
            async with connection.transaction():
                await connection.execute("SELECT 3")
            with pytest.raises(psycopg.errors.DivisionByZero):
                await connection.execute("SELECT 1 / 0")
            await asyncio.gather(connection.rollback())

    asyncio.run(work())
    assert names(spans) == [
        *("SELECT", "SELECT", "VALUES", "COPY", "SELECT", "ROLLBACK", "BEGIN", "SELECT", "COMMIT"),
        *("SELECT", "ROLLBACK", "COMMIT"),
    ]
    assert {span["parent"] for span in spans} == {None}


def test_pools(conninfo: str, spans: Spans) -> None:
    pool = pytest.importorskip("psycopg_pool")
    with pool.ConnectionPool(conninfo, min_size=1, max_size=1, open=False) as connections:
        connections.wait()
        with connections.connection() as connection:
            connection.execute("SELECT 1")
    assert names(spans) == ["SELECT", "COMMIT"]


def test_one_connection(conninfo: str, spans: Spans, caplog: pytest.LogCaptureFixture) -> None:
    PsycopgInstrumentor().uninstrument()
    connection = psycopg.connect(conninfo)
    before = connection.cursor_factory
    assert PsycopgInstrumentor.instrument_connection(connection) is connection
    assert issubclass(connection.cursor_factory, before)
    connection.execute("SELECT 1")
    PsycopgInstrumentor.instrument_connection(connection)
    assert "already instrumented" in caplog.text
    assert PsycopgInstrumentor.uninstrument_connection(connection) is connection
    assert connection.cursor_factory is before
    connection.execute("SELECT 1")
    assert names(spans) == ["SELECT"]
    PsycopgInstrumentor.instrument_connection(connection).execute("SELECT 1")
    assert names(spans) == ["SELECT", "SELECT"]
    connection.close()


class Cursor:
    """A cursor that inherits nothing from the driver's."""

    def __init__(self, connection: Any) -> None:
        self.rowcount = 7

    def execute(self, query: str, params: Any = None) -> str:
        return query


class Connection(psycopg.Connection[Any]):
    """A connection that makes such cursors only."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cursor_factory = Cursor  # type: ignore[assignment]

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        return self.cursor_factory(self)


def test_cursors_of_foreign_classes(conninfo: str, spans: Spans, postgres_server: Server) -> None:
    with closing(Connection.connect(conninfo)) as connection:
        assert issubclass(connection.cursor_factory, Cursor)
        assert connection.cursor().execute("SELECT 1") == "SELECT 1"
        [span] = spans
        assert span["attributes"]["server.port"] == postgres_server.port
        assert span["attributes"]["db.response.returned_rows"] == 7
        assert PsycopgInstrumentor.uninstrument_connection(connection).cursor_factory is Cursor  # type: ignore[comparison-overlap]
        connection.cursor().execute("SELECT 1")
    assert names(spans) == ["SELECT"]


def test_commenter(conninfo: str, spans: Spans) -> None:
    PsycopgInstrumentor().uninstrument()
    options = {"dbapi_level": False, "dbapi_threadsafety": False, "driver_paramstyle": False, "libpq_version": False}
    PsycopgInstrumentor().instrument(enable_commenter=True, commenter_options=options, enable_attribute_commenter=True)
    with closing(psycopg.connect(conninfo)) as connection:
        seen = connection.execute(sql.SQL("SELECT {};").format(sql.SQL("current_query()"))).fetchone()[0]
    [span] = spans
    traceparent = f"00-{span['trace_id']:032x}-{span['span_id']:016x}-01"
    driver = f"psycopg%3A{psycopg.__version__}"
    assert seen == f"SELECT current_query() /*db_driver='{driver}',traceparent='{traceparent}'*/;".replace("%", "%%")
    assert span["attributes"]["db.query.text"] == seen


def test_one_traced_connection_less(connection: Any, conninfo: str, spans: Spans) -> None:
    assert PsycopgInstrumentor.uninstrument_connection(connection) is connection
    connection.execute("SELECT 1")
    connection.commit()
    with connection.transaction():
        pass
    assert names(spans) == []
    with closing(psycopg.connect(conninfo)) as other:
        other.execute("SELECT 1")
    assert names(spans) == ["SELECT"]


def test_uninstrument(connection: Any, spans: Spans) -> None:
    PsycopgInstrumentor().uninstrument()
    connection.execute("SELECT 1")
    connection.commit()
    assert names(spans) == []
