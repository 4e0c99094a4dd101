"""psycopg2 with a real PostgreSQL: what is C stays C, and every way to run a statement is seen once."""

from __future__ import annotations

import io
import pickle
import re
import subprocess
import sys
import sysconfig
import textwrap
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg2
import psycopg2.extras
import psycopg2.pool
import pytest
from opentelemetry import context, trace
from psycopg2 import extensions, sql

from spanbridge.conventions import database
from spanbridge.core.options import apply_settings
from spanbridge.instrumentors.psycopg2 import Psycopg2Instrumentor
from tests.environments import clean_variables
from tests.telltales import TELLTALES, refused_without_a_word

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from spanbridge.testing import Payload, Spans
    from tests.servers import Server

SECRET = "topsecret"


@pytest.fixture(autouse=True)
def _instrumented(spans: Spans) -> None:
    Psycopg2Instrumentor().instrument()


@pytest.fixture
def dsn(postgres_server: Server) -> str:
    return f"host={postgres_server.host} port={postgres_server.port} user=postgres dbname=postgres"


@pytest.fixture
def connection(dsn: str, spans: Spans) -> Iterator[Any]:
    with closing(psycopg2.connect(dsn)) as connection:
        connection.cursor().execute("CREATE TEMPORARY TABLE items (id integer, name text)")
        spans.clear()
        yield connection


def names(spans: Spans) -> list[str]:
    return [span["name"] for span in spans]


def texts(spans: Spans) -> list[str | None]:
    return [span["attributes"].get("db.query.text") for span in spans]


def test_a_statement_is_one_client_span(connection: Any, spans: Spans, postgres_server: Server) -> None:
    cursor = connection.cursor()
    assert cursor.execute("SELECT 'x', %s", (SECRET,)) is None
    assert cursor.fetchall() == [("x", SECRET)]
    [span] = spans
    assert (span["name"], span["kind"], span["scope"]) == ("SELECT", "CLIENT", "spanbridge.instrumentors.psycopg2")
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


STATEMENTS: dict[str, tuple[Callable[[Any], Any], list[str]]] = {
    "bytes": (lambda cursor: cursor.execute(b"SELECT 'topsecret'"), ["SELECT ?"]),
    "a composed one": (
        lambda cursor: cursor.execute(sql.SQL("SELECT {} FROM items").format(sql.Literal(SECRET))),
        ["SELECT ? FROM items"],
    ),
    "a keyword": (lambda cursor: cursor.execute(query="SELECT %s", vars=(1,)), ["SELECT %s"]),
    "no rows": (
        lambda cursor: cursor.executemany("INSERT INTO items VALUES (%s)", []),
        ["INSERT INTO items VALUES (%s)"],
    ),
    "many rows": (
        lambda cursor: cursor.executemany("INSERT INTO items VALUES (%s, 'topsecret')", [(1,), (2,)]),
        ["INSERT INTO items VALUES (%s, ?)"],
    ),
    "execute_values": (
        lambda cursor: psycopg2.extras.execute_values(
            cursor, "INSERT INTO items VALUES %s", [(1, SECRET), (2, SECRET)]
        ),
        ["INSERT INTO items VALUES (?)"],
    ),
    "execute_values in two pages": (
        lambda cursor: psycopg2.extras.execute_values(
            cursor, "INSERT INTO items VALUES %s", [(1, SECRET)] * 3, page_size=2
        ),
        ["INSERT INTO items VALUES (?)"] * 2,
    ),
    "execute_batch": (
        lambda cursor: psycopg2.extras.execute_batch(cursor, "INSERT INTO items VALUES (%s, %s)", [(1, SECRET)] * 2),
        ["INSERT INTO items VALUES (?);INSERT INTO items VALUES (?)"],
    ),
    "a procedure": (lambda cursor: cursor.callproc("upper", [SECRET]), ["upper"]),
    "copy_expert": (lambda cursor: cursor.copy_expert("COPY items TO STDOUT", io.StringIO()), ["COPY items TO STDOUT"]),
    "copy_from": (lambda cursor: cursor.copy_from(io.StringIO("1\ta\n"), "items"), ["COPY items FROM STDIN"]),
    "copy_to": (lambda cursor: cursor.copy_to(io.StringIO(), table="items"), ["COPY items TO STDOUT"]),
}


@pytest.mark.parametrize("way", STATEMENTS)
def test_every_way_to_run_a_statement(way: str, connection: Any, spans: Spans) -> None:
    run, expected = STATEMENTS[way]
    run(connection.cursor())
    assert texts(spans) == expected
    assert SECRET not in repr(list(spans))


class Loud(extensions.connection):
    """An application's class that passes its own cursors on."""

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        kwargs.setdefault("cursor_factory", Counting)
        return super().cursor(*args, **kwargs)


class Counting(extensions.cursor):
    count = 0

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        self.count += 1
        return super().execute(*args, **kwargs)


FACTORIES = {
    "a class": (Loud, Loud, Counting),
    "a function": (lambda *args, **kwargs: Loud(*args, **kwargs), Loud, Counting),
    "a function that makes the driver's": (
        lambda *args, **kwargs: extensions.connection(*args, **kwargs),
        extensions.connection,
        extensions.cursor,
    ),
    "the library's": (
        psycopg2.extras.RealDictConnection,
        psycopg2.extras.RealDictConnection,
        psycopg2.extras.RealDictCursor,
    ),
    "one for replication": (psycopg2.extras.LogicalReplicationConnection,) * 2 + (extensions.cursor,),
}


@pytest.mark.parametrize("way", ["keyword", "position"])
@pytest.mark.parametrize("name", FACTORIES)
def test_factories_of_connections(name: str, way: str, dsn: str, spans: Spans) -> None:
    factory, made, cursors = FACTORIES[name]
    connect: Any = psycopg2.connect
    connection = connect(dsn, factory) if way == "position" else connect(dsn, connection_factory=factory)
    assert isinstance(connection, made)
    assert type(connection).__name__ == made.__name__
    cursor = connection.cursor()
    assert isinstance(cursor, cursors)
    if made is not psycopg2.extras.LogicalReplicationConnection:
        cursor.execute("SELECT 1 AS one")
        assert texts(spans) == ["SELECT ? AS one"]
        assert getattr(cursor, "count", 1) == 1
    connection.close()


@pytest.mark.parametrize(
    "factory",
    [
        psycopg2.extras.RealDictCursor,
        psycopg2.extras.NamedTupleCursor,
        psycopg2.extras.DictCursor,
        Counting,
        lambda *args, **kwargs: Counting(*args, **kwargs),
    ],
)
def test_factories_of_cursors(factory: Any, connection: Any, dsn: str, spans: Spans) -> None:
    other = psycopg2.connect(dsn, cursor_factory=factory)
    for cursor in (connection.cursor(cursor_factory=factory), connection.cursor(None, factory), other.cursor()):
        cursor.execute("SELECT 1 AS one")
        assert len(cursor.fetchall()) == 1
        if isinstance(factory, type):
            assert isinstance(cursor, factory)
            assert repr(type(cursor)) == repr(factory)
    other.close()
    assert names(spans) == ["SELECT"] * 3


def test_a_class_that_cannot_be_traced_keeps_its_cursors(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError

    monkeypatch.setattr(database, "_alike", broken)
    with closing(psycopg2.connect(dsn, connection_factory=psycopg2.extras.DictConnection)) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT 1 AS one")
        assert cursor.fetchone()["one"] == 1


def test_named_cursors(connection: Any, spans: Spans) -> None:
    with connection.cursor("rows", scrollable=True, withhold=True) as cursor:
        cursor.execute("SELECT generate_series(1, 5)")
        assert [row[0] for row in cursor] == [1, 2, 3, 4, 5]
        assert cursor.scrollable
    assert names(spans) == ["SELECT"]


def test_transactions(connection: Any, spans: Spans) -> None:
    connection.cursor().execute("INSERT INTO items VALUES (1)")
    connection.commit()
    connection.rollback()
    assert names(spans) == ["INSERT", "COMMIT", "ROLLBACK"]
    assert "db.query.text" not in spans[1]["attributes"]
    assert spans[1]["attributes"]["db.namespace"] == "postgres"


def test_a_with_block_ends_its_transaction(connection: Any, spans: Spans) -> None:
    def insert(number: int) -> None:
        with connection as entered:
            assert entered is connection
            connection.cursor().execute("INSERT INTO items VALUES (%s)", (1 / number,))

    insert(1)
    with pytest.raises(ZeroDivisionError):
        insert(0)
    assert names(spans) == ["INSERT", "COMMIT", "ROLLBACK"]


def test_two_phases(dsn: str, spans: Spans) -> None:
    connection = psycopg2.connect(dsn)
    for end in (connection.tpc_commit, connection.tpc_rollback):
        connection.tpc_begin(connection.xid(1, "spanbridge", "two phases"))
        connection.cursor().execute("SELECT 1")
        connection.tpc_prepare()
        end()
    assert names(spans) == ["SELECT", "PREPARE", "COMMIT", "SELECT", "PREPARE", "ROLLBACK"]
    connection.close()


def test_pools(dsn: str, spans: Spans) -> None:
    pool = psycopg2.pool.ThreadedConnectionPool(1, 2, dsn)
    connection = pool.getconn()
    connection.cursor().execute("SELECT 1")
    pool.putconn(connection)
    pool.closeall()
    assert names(spans) == ["SELECT", "ROLLBACK"]


def test_asynchronous_connections(dsn: str, spans: Spans) -> None:
    connection = psycopg2.connect(dsn, async_=True)
    psycopg2.extras.wait_select(connection)
    cursor = connection.cursor()
    cursor.execute("SELECT %s", (1,))
    psycopg2.extras.wait_select(connection)
    assert cursor.fetchall() == [(1,)]
    connection.close()
    assert names(spans) == ["SELECT"]


def test_an_error_has_its_sqlstate(connection: Any, spans: Spans) -> None:
    with pytest.raises(psycopg2.errors.UndefinedTable) as raised:
        connection.cursor().execute("SELECT 1 FROM nowhere")
    assert raised.value.pgcode == "42P01"
    [span] = spans
    assert span["status"] == "ERROR"
    assert span["attributes"]["db.response.status_code"] == "42P01"
    assert span["attributes"]["error.type"] == "UndefinedTable"


@pytest.mark.parametrize("telltale", TELLTALES)
def test_no_value_leaves_with_an_exception(telltale: str, connection: Any, spans: Spans) -> None:
    refused_without_a_word(telltale, connection, psycopg2.Error, spans)


def test_no_value_leaves_with_a_copy_or_a_later_exception(connection: Any, spans: Spans) -> None:
    cursor = connection.cursor()
    cursor.execute("CREATE TEMPORARY TABLE numbers (number int)")
    with pytest.raises(psycopg2.Error, match=SECRET):
        cursor.copy_from(io.StringIO(f"{SECRET}\n"), "numbers")
    connection.rollback()
    try:
        cursor.execute("SELECT %s::int", (SECRET,))
    except psycopg2.Error:
        connection.rollback()
        with pytest.raises(psycopg2.Error):
            cursor.execute("SELECT 1 FROM nowhere")
    assert len([span for span in spans if span["status"] == "ERROR"]) == 3
    assert SECRET not in repr(list(spans))


def test_closed_cursors_and_connections(connection: Any, spans: Spans, caplog: pytest.LogCaptureFixture) -> None:
    cursor = connection.cursor()
    cursor.close()
    with pytest.raises(psycopg2.InterfaceError):
        cursor.execute("SELECT 1")
    connection.close()
    with pytest.raises(psycopg2.InterfaceError):
        connection.cursor()
    with pytest.raises(psycopg2.InterfaceError):
        connection.commit()
    assert caplog.messages == []


def test_a_refused_connection_is_seen(spans: Spans, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(psycopg2.OperationalError):
        psycopg2.connect("host=127.0.0.1 port=1 dbname=shop user=me password=topsecret")
    [span] = spans
    assert (span["name"], span["status"]) == ("CONNECT", "ERROR")
    assert span["attributes"]["server.port"] == 1
    assert span["attributes"]["db.namespace"] == "shop"
    assert SECRET not in repr(span)
    assert span["end"] > span["start"]
    with pytest.raises(psycopg2.ProgrammingError):
        psycopg2.connect("no dsn at all")
    assert caplog.messages == []


def test_connections_may_have_spans(dsn: str, spans: Spans) -> None:
    Psycopg2Instrumentor().uninstrument()
    Psycopg2Instrumentor().instrument(trace_connect=True)
    psycopg2.connect(dsn).close()
    assert names(spans) == ["CONNECT"]


def test_fetches_may_have_spans(dsn: str, spans: Spans, payload: Payload) -> None:
    Psycopg2Instrumentor().uninstrument()
    Psycopg2Instrumentor().instrument(trace_fetch=True)
    with closing(psycopg2.connect(dsn)) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT 1")
        assert cursor.fetchone() == (1,)
        assert cursor.fetchmany() == cursor.fetchmany(2) == cursor.fetchmany(size=3) == []
        assert cursor.fetchall() == []
    assert names(spans) == ["SELECT", "FETCHONE", *["FETCHMANY"] * 3, "FETCHALL"]
    assert texts(spans) == ["SELECT ?"] * 6
    sizes = [row["metrics"].get("db.fetch.size") for row, *_ in payload()]
    assert sizes == [None, None, 1, 2, 3, None]


def test_what_a_program_calls_itself(dsn: str, spans: Spans, payload: Payload) -> None:
    with closing(psycopg2.connect(f"{dsn} application_name=checkout")) as connection:
        connection.cursor().execute("SELECT 1")
    assert payload()[0][0]["meta"]["db.application"] == "checkout"


def test_c_code_takes_them_as_its_own(connection: Any) -> None:
    cursor = connection.cursor()
    assert extensions.quote_ident('a"b', connection) == extensions.quote_ident('a"b', cursor) == '"a""b"'
    extensions.register_type(extensions.UNICODE, connection)
    extensions.register_type(extensions.UNICODE, cursor)
    psycopg2.extras.register_uuid(conn_or_curs=connection)
    psycopg2.extras.register_default_json(connection)
    assert sql.Identifier("a").as_string(cursor) == sql.Identifier("a").as_string(connection) == '"a"'
    adapted = extensions.adapt("x")
    adapted.prepare(connection)
    assert adapted.getquoted() == b"'x'"
    assert extensions.encrypt_password("a", "b", cursor, "md5").startswith("md5")
    assert cursor.mogrify("%s", ("x",)) == b"'x'"
    assert type(connection).__name__ == "connection"
    error = pickle.loads(pickle.dumps(psycopg2.Error("text")))
    assert isinstance(error, psycopg2.Error)


def test_uninstrument(connection: Any, dsn: str, spans: Spans) -> None:
    Psycopg2Instrumentor().uninstrument()
    other = psycopg2.connect(dsn)
    assert type(other) is extensions.connection
    for each in (connection, other):
        each.cursor().execute("SELECT 1")
        each.commit()
    assert names(spans) == []
    other.close()


def test_one_connection(dsn: str, spans: Spans, caplog: pytest.LogCaptureFixture) -> None:
    Psycopg2Instrumentor().uninstrument()
    connection = psycopg2.connect(dsn, cursor_factory=Counting)
    assert Psycopg2Instrumentor.instrument_connection(connection) is connection
    connection.cursor().execute("SELECT 1")
    assert names(spans) == ["SELECT"]
    Psycopg2Instrumentor.instrument_connection(connection)
    assert "already instrumented" in caplog.text
    assert Psycopg2Instrumentor.uninstrument_connection(connection) is connection
    assert connection.cursor_factory is Counting
    connection.cursor().execute("SELECT 1")
    assert names(spans) == ["SELECT"]
    Psycopg2Instrumentor.uninstrument_connection(connection)
    assert "already uninstrumented" in caplog.text
    connection.close()


def test_one_traced_connection_less(connection: Any, spans: Spans) -> None:
    plain = Psycopg2Instrumentor.uninstrument_connection(connection)
    plain.cursor().execute("SELECT 1")
    plain.commit()
    assert names(spans) == []


def test_commenter(dsn: str, spans: Spans) -> None:
    Psycopg2Instrumentor().uninstrument()
    Psycopg2Instrumentor().instrument(enable_commenter=True, commenter_options={"libpq_version": False})
    with closing(psycopg2.connect(dsn)) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT current_query();")
        seen = cursor.fetchone()[0]
        assert seen.startswith("SELECT current_query() /*db_driver='psycopg2")
        assert f"traceparent='00-{spans[0]['trace_id']:032x}-{spans[0]['span_id']:016x}-01'" in seen
        assert "libpq" not in seen
        cursor.execute(query="SELECT current_query()")
        assert "/*db_driver" in cursor.fetchone()[0]
    assert set(texts(spans)) == {"SELECT current_query();", "SELECT current_query()"}


@pytest.mark.parametrize("full", [False, True])
def test_comments_for_database_monitoring(full: bool, dsn: str, spans: Spans) -> None:
    wanted = {
        "tags": {"dde": "te st", "ddps": "shop"},
        "target": {"dddb": "namespace", "ddh": "host"},
        "trace_context": full,
    }
    apply_settings({"database.comments": wanted, "integrations.psycopg2.comment_tags": {"dddbs": "postgres"}})
    Psycopg2Instrumentor().uninstrument()
    Psycopg2Instrumentor().instrument()
    with closing(psycopg2.connect(dsn)) as connection:
        cursor = connection.cursor()
        for statement in ("SELECT current_query()", b"SELECT current_query()", sql.SQL("SELECT current_query()")):
            spans.clear()
            cursor.execute(statement)
            trace = f",traceparent='00-{spans[0]['trace_id']:032x}-{spans[0]['span_id']:016x}-01'" if full else ""
            expected = f"/*dddb='postgres',dddbs='postgres',dde='te%%20st',ddh='127.0.0.1',ddps='shop'{trace}*/ SELECT"
            assert cursor.fetchone()[0].startswith(expected)
            assert ("spanbridge.db.trace_injected" in spans[0]["attributes"]) is full
        cursor.callproc("current_query")
        assert "dddb" not in cursor.fetchone()[0]
    apply_settings({})


def test_comments_for_database_monitoring_hold_no_more_of_the_trace(dsn: str, spans: Spans) -> None:
    apply_settings({"database.comments": {"tags": {}, "target": {}, "trace_context": True}})
    Psycopg2Instrumentor().uninstrument()
    Psycopg2Instrumentor().instrument()
    caller = trace.SpanContext(1, 2, True, trace.TraceFlags(0x03), trace.TraceState([("dd", "s:1")]))
    token = context.attach(trace.set_span_in_context(trace.NonRecordingSpan(caller)))
    with closing(psycopg2.connect(dsn)) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT current_query()")
        expected = f"/*traceparent='00-{1:032x}-{spans[0]['span_id']:016x}-01'*/ SELECT current_query()"
        assert cursor.fetchone() == (expected,)
    context.detach(token)
    apply_settings({})


ASKING = """
    import sys, psycopg2
    cursor = psycopg2.connect(sys.argv[1]).cursor()
    cursor.execute("SELECT current_query()")
    print(cursor.fetchone()[0])
"""
TRACEPARENT = "traceparent='00-[0-9a-f]{32}-[0-9a-f]{16}-0[13]'"
BY_ENVIRONMENT = {
    "DD_DBM_PROPAGATION_MODE=disabled": ("", ""),
    "DD_DBM_PROPAGATION_MODE=service": ("/*{tags}*/ ", ""),
    "DD_DBM_PROPAGATION_MODE=full": ("/*{tags}," + TRACEPARENT + "*/ ", ""),
    "SPANBRIDGE_PSYCOPG2_ENABLE_COMMENTER=true": ("", " /*db_driver=.*," + TRACEPARENT + "*/"),
}


@pytest.mark.parametrize("setting", BY_ENVIRONMENT)
def test_comments_by_environment(setting: str, dsn: str) -> None:
    """The server itself sees them, in a program that knows nothing of us."""
    name, value = setting.split("=")
    variables = clean_variables(
        **{name: value}, DD_SERVICE="shop", DD_ENV="ci", DD_VERSION="2", DD_TRACE_AGENT_URL="http://127.0.0.1:1"
    )
    launcher = Path(sysconfig.get_path("scripts"), "opentelemetry-instrument")
    command = [str(launcher), sys.executable, "-c", textwrap.dedent(ASKING), dsn]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120, check=True)
    before, behind = (part.replace("/*", "/[*]").replace("*/", "[*]/") for part in BY_ENVIRONMENT[setting])
    before = before.replace("{tags}", "dddb='postgres',dddbs='postgres',dde='ci',ddh='127.0.0.1',ddps='shop',ddpv='2'")
    assert re.fullmatch(f"{before}SELECT current_query[(][)]{behind}\n", done.stdout)
