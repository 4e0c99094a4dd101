"""mysqlclient with a real MariaDB."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import MySQLdb
import MySQLdb.cursors
import pytest

from spanbridge.core.options import apply_settings
from spanbridge.instrumentors.mysqlclient import MySQLClientInstrumentor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from spanbridge.testing import Spans
    from tests.servers import Server

SECRET = "topsecret"
ALIASES: dict[str, Any] = {name: getattr(MySQLdb, name) for name in ("connect", "Connect", "Connection")}


@pytest.fixture(autouse=True)
def _instrumented(spans: Spans) -> None:
    MySQLClientInstrumentor().instrument()


@pytest.fixture
def arguments(mariadb_server: Server) -> dict[str, Any]:
    return {
        "host": mariadb_server.host,
        "port": mariadb_server.port,
        "user": "tester",
        "passwd": "secret",
        "db": "shop",
    }


@pytest.fixture
def connection(arguments: dict[str, Any], spans: Spans) -> Iterator[Any]:
    with closing(MySQLdb.connect(**arguments)) as connection:
        connection.cursor().execute("CREATE TEMPORARY TABLE items (id integer, name text)")
        spans.clear()
        yield connection


def names(spans: Spans) -> list[str]:
    return [span["name"] for span in spans]


def texts(spans: Spans) -> list[str | None]:
    return [span["attributes"].get("db.query.text") for span in spans]


def test_a_statement_is_one_client_span(connection: Any, spans: Spans, mariadb_server: Server) -> None:
    cursor = connection.cursor()
    assert cursor.execute("SELECT \"it's\", 'x', %s", (SECRET,)) == 1
    assert cursor.fetchall() == (("it's", "x", SECRET),)
    [span] = spans
    assert (span["name"], span["kind"], span["scope"]) == ("SELECT", "CLIENT", "spanbridge.instrumentors.mysqlclient")
    assert span["attributes"] == {
        "db.system.name": "mysql",
        "db.namespace": "shop",
        "db.user": "tester",
        "server.address": mariadb_server.host,
        "server.port": mariadb_server.port,
        "db.operation.name": "SELECT",
        "db.query.text": "SELECT ?, ?, %s",
        "db.response.returned_rows": 1,
    }


STATEMENTS: dict[str, tuple[Callable[[Any], Any], list[str]]] = {
    "bytes": (lambda connection: connection.cursor().execute(b"SELECT 'topsecret'"), ["SELECT ?"]),
    "keywords": (lambda connection: connection.cursor().execute(query="SELECT %s", args=(1,)), ["SELECT %s"]),
    "many rows in one": (
        lambda connection: connection.cursor().executemany("INSERT INTO items VALUES (%s, %s)", [(1, SECRET)] * 3),
        ["INSERT INTO items VALUES (%s, %s)"],
    ),
    "many rows one by one": (
        lambda connection: connection.cursor().executemany("UPDATE items SET id = %s", [(1,), (2,)]),
        ["UPDATE items SET id = %s"],
    ),
    "no rows": (lambda connection: connection.cursor().executemany("SELECT %s", []), ["SELECT %s"]),
    "a query of the connection": (
        lambda connection: (connection.query("SELECT 'topsecret'"), connection.store_result()),
        ["SELECT ?"],
    ),
}


@pytest.mark.parametrize("way", STATEMENTS)
def test_every_way_to_run_a_statement(way: str, connection: Any, spans: Spans) -> None:
    run, expected = STATEMENTS[way]
    run(connection)
    assert texts(spans) == expected
    assert SECRET not in repr(list(spans))


def test_procedures(connection: Any, spans: Spans) -> None:
    cursor = connection.cursor()
    cursor.execute("CREATE OR REPLACE PROCEDURE answer(number integer) SELECT number")
    spans.clear()
    assert cursor.callproc("answer", (42,)) == (42,)
    assert cursor.fetchall() == ((42,),)
    assert [(span["name"], span["attributes"]["db.query.text"]) for span in spans] == [("CALL", "answer")]


@pytest.mark.parametrize("kind", ["Cursor", "DictCursor", "SSCursor", "SSDictCursor"])
def test_kinds_of_cursors(kind: str, connection: Any, arguments: dict[str, Any], spans: Spans) -> None:
    cursor = connection.cursor(getattr(MySQLdb.cursors, kind))
    cursor.execute("SELECT 1 AS one")
    assert list(cursor.fetchall()) == ([{"one": 1}] if "Dict" in kind else [(1,)])
    [span] = spans
    assert span["attributes"].get("db.response.returned_rows") == (None if "SS" in kind else 1)


def test_an_applications_own_classes(arguments: dict[str, Any], spans: Spans) -> None:
    class Cursor(MySQLdb.cursors.Cursor):
        def execute(self, *args: Any, **kwargs: Any) -> Any:
            return super().execute(*args, **kwargs)

    class Connection(MySQLdb.connections.Connection):
        pass

    with closing(Connection(cursorclass=Cursor, **arguments)) as connection:
        cursor = connection.cursor()
        assert type(cursor) is Cursor
        cursor.execute("SELECT 1")
        connection.commit()
    assert names(spans) == ["SELECT", "COMMIT"]


@pytest.mark.parametrize("alias", ALIASES)
def test_every_name_of_connect(alias: str, arguments: dict[str, Any], spans: Spans) -> None:
    for connect in (getattr(MySQLdb, alias), ALIASES[alias]):
        with closing(connect(sql_mode="ANSI", init_command="SET @a = 1", **arguments)) as connection:
            connection.cursor().execute("SELECT 1")
    assert names(spans) == ["SELECT"] * 2
    assert spans[0]["attributes"]["db.namespace"] == "shop"


def test_newer_names_of_arguments(arguments: dict[str, Any], spans: Spans) -> None:
    arguments["database"], arguments["password"] = arguments.pop("db"), arguments.pop("passwd")
    try:
        connection = MySQLdb.connect(**arguments)
    except TypeError:
        pytest.skip("mysqlclient 1 has them not")
    connection.cursor().execute("SELECT 1")
    connection.close()
    assert spans[0]["attributes"]["db.namespace"] == "shop"


def test_transactions(connection: Any, spans: Spans) -> None:
    connection.cursor().execute("INSERT INTO items VALUES (1, 'a')")
    connection.commit()
    connection.rollback()
    assert names(spans) == ["INSERT", "COMMIT", "ROLLBACK"]
    assert spans[1]["attributes"]["db.namespace"] == "shop"


def test_an_error_has_its_number(connection: Any, spans: Spans) -> None:
    with pytest.raises(MySQLdb.ProgrammingError):
        connection.cursor().execute("SELECT 1 FROM nowhere")
    [span] = spans
    assert span["status"] == "ERROR"
    assert span["attributes"]["db.response.status_code"] == "1146"


def test_no_value_leaves_with_an_exception(connection: Any, spans: Spans) -> None:
    cursor = connection.cursor()
    cursor.execute("CREATE TEMPORARY TABLE people (id int, name varchar(40) UNIQUE, age int)")
    cursor.execute("INSERT INTO people VALUES (1, %s, 1), (2, 'other', 2)", (f"{SECRET}'s",))
    for statement, *parameters in [
        ("INSERT INTO people VALUES (3, %s, 1)", (f"{SECRET}'s",)),
        ("INSERT INTO people SELECT 3, name, 1 FROM people WHERE id = 1",),
        ("INSERT INTO people (age) SELECT name FROM people WHERE id = 1",),
        ("SELECT FROM x WHERE name = %s", (f"{SECRET}'s",)),
    ]:
        with pytest.raises(MySQLdb.Error, match=SECRET):  # the application sees it
            cursor.execute(statement, *parameters)
    assert [span["status"] for span in spans[-4:]] == ["ERROR"] * 4
    assert SECRET not in repr(list(spans))


def test_closed_cursors_and_connections(
    arguments: dict[str, Any], spans: Spans, caplog: pytest.LogCaptureFixture
) -> None:
    connection = MySQLdb.connect(**arguments)
    cursor = connection.cursor()
    cursor.close()
    with pytest.raises((MySQLdb.ProgrammingError, AttributeError)):
        cursor.execute("SELECT 1")
    connection.close()
    with pytest.raises(MySQLdb.Error):
        connection.commit()
    assert caplog.messages == []


def test_a_refused_connection_is_seen(arguments: dict[str, Any], spans: Spans) -> None:
    with pytest.raises(MySQLdb.OperationalError):
        MySQLdb.connect(**{**arguments, "port": 1})
    [span] = spans
    assert (span["name"], span["status"]) == ("CONNECT", "ERROR")
    assert span["attributes"]["db.namespace"] == "shop"
    assert span["attributes"]["server.port"] == 1
    assert span["attributes"]["db.response.status_code"] in {"2002", "2003"}


def test_connections_and_fetches_may_have_spans(arguments: dict[str, Any], spans: Spans) -> None:
    MySQLClientInstrumentor().uninstrument()
    MySQLClientInstrumentor().instrument(trace_connect=True, trace_fetch=True)
    with closing(MySQLdb.connect(sql_mode="ANSI", **arguments)) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT 1")
        assert cursor.fetchone() == (1,)
        assert not cursor.fetchall()
    assert names(spans) == ["CONNECT", "SELECT", "FETCHONE", "FETCHALL"]


def test_a_connection_made_before_tells_its_host(arguments: dict[str, Any], spans: Spans) -> None:
    MySQLClientInstrumentor().uninstrument()
    with closing(MySQLdb.connect(**arguments)) as connection:
        MySQLClientInstrumentor().instrument()
        connection.cursor().execute("SELECT 1")
    assert spans[0]["attributes"]["server.address"] == "127.0.0.1"
    assert "db.namespace" not in spans[0]["attributes"]


def test_one_connection(arguments: dict[str, Any], spans: Spans) -> None:
    MySQLClientInstrumentor().uninstrument()
    with closing(MySQLdb.connect(**arguments)) as connection:
        proxy = MySQLClientInstrumentor.instrument_connection(connection)
        assert isinstance(proxy, MySQLdb.connections.Connection)
        proxy.cursor().execute("SELECT 1")
        assert names(spans) == ["SELECT"]
        assert MySQLClientInstrumentor.uninstrument_connection(proxy) is connection
        MySQLClientInstrumentor().instrument()
        assert MySQLClientInstrumentor.uninstrument_connection(connection) is connection
        connection.cursor().execute("SELECT 1")
        connection.commit()
    assert names(spans) == ["SELECT"]


def inserted(connection: Any) -> list[int]:
    """Answer how many rows each statement inserted that `executemany` sent."""
    seen = []
    cursor = connection.cursor()
    query = cursor._query

    def counting(statement: Any) -> Any:
        seen.append(bytes(statement).count(b"'a'"))
        return query(statement)

    cursor._query = counting
    cursor.executemany("INSERT INTO items VALUES (%s, %s)", [(number, "a") for number in range(3)])
    cursor.executemany("REPLACE INTO items VALUES (%s, %s) ", [(number, "a") for number in range(2)])
    return seen


@pytest.mark.parametrize("full", [False, True])
def test_many_rows_stay_one_statement_with_comments(
    full: bool, connection: Any, arguments: dict[str, Any], spans: Spans
) -> None:
    assert inserted(connection) == [3, 2]
    wanted = {"tags": {"ddps": "sh op"}, "target": {"dddb": "namespace"}, "trace_context": full}
    apply_settings({"database.comments": wanted, "integrations.mysqlclient.comment_tags": {"dddbs": "mysql"}})
    MySQLClientInstrumentor().uninstrument()
    MySQLClientInstrumentor().instrument(enable_commenter=full)
    with closing(MySQLdb.connect(**arguments)) as other:
        cursor = other.cursor()
        cursor.execute("CREATE TEMPORARY TABLE items (id integer, name text)")
        assert inserted(other) == [3, 2]
        executed = cursor._executed if hasattr(cursor, "_executed") else cursor._last_executed
        assert b"dddb='shop',dddbs='mysql',ddps='sh" in executed
        assert (b"traceparent" in executed) is full
        assert executed.endswith(b"*/") is full
    apply_settings({})


def test_commenter(arguments: dict[str, Any], spans: Spans) -> None:
    MySQLClientInstrumentor().uninstrument()
    MySQLClientInstrumentor().instrument(enable_commenter=True, commenter_options={"dbapi_level": False})
    with closing(MySQLdb.connect(**arguments)) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT info FROM information_schema.processlist WHERE id = connection_id()")
        seen = cursor.fetchone()[0]
    assert "connection_id() /*db_driver='MySQLdb%%3A" in seen
    assert "dbapi_threadsafety=1,driver_paramstyle='format',mysql_client_version='" in seen
    assert f"traceparent='00-{spans[-1]['trace_id']:032x}-{spans[-1]['span_id']:016x}-01'*/" in seen
    assert "dbapi_level" not in seen
    assert "/*" not in spans[-1]["attributes"]["db.query.text"]
