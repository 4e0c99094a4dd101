from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from sqlite3 import connect as connect_held_earlier
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.utils import suppress_instrumentation

from spanbridge.instrumentors.sqlite3 import SQLite3Instrumentor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from spanbridge.testing import Payload, Spans

ORIGINAL = [sqlite3.connect]  # in a list, for wherever a module holds it, it is replaced
INSERT = "INSERT INTO items VALUES (?)"


@pytest.fixture(autouse=True)
def _instrumented(spans: Spans) -> None:
    SQLite3Instrumentor().instrument()


@pytest.fixture
def connection(spans: Spans) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE items (id INTEGER)")
    spans.clear()
    yield connection
    connection.close()


def names(spans: Spans) -> list[str]:
    return [span["name"] for span in spans]


def test_a_statement_is_one_client_span(connection: sqlite3.Connection, spans: Spans) -> None:
    cursor = connection.cursor()
    assert cursor.execute("SELECT id\n FROM items WHERE id = 42 AND 'x' = ?", ("secret",)) is cursor
    assert cursor.fetchall() == []
    [span] = spans
    assert span["name"] == "SELECT"
    assert span["kind"] == "CLIENT"
    assert span["scope"] == "spanbridge.instrumentors.sqlite3"
    assert span["attributes"] == {
        "db.system.name": "sqlite",
        "db.operation.name": "SELECT",
        "db.query.text": "SELECT id\n FROM items WHERE id = ? AND ? = ?",
    }


def test_no_literal_leaves(connection: sqlite3.Connection, spans: Spans) -> None:
    connection.execute("INSERT INTO items VALUES (4111)")
    connection.executemany("INSERT INTO items SELECT ? WHERE 'tok-en' <> ''", [("4112",), ("4113",)])
    connection.executescript("UPDATE items SET id = 4114; -- of 4115\nDELETE FROM items WHERE id = x'4116'")
    assert len(spans) == 3
    assert not any(secret in repr(spans) for secret in ("411", "tok-en"))


def test_connections_run_statements_themselves(connection: sqlite3.Connection, spans: Spans) -> None:
    assert connection.execute("SELECT 1").fetchone() == (1,)
    connection.executemany(INSERT, [(1,), (2,), (3,)])
    connection.executescript("CREATE TABLE more (id); DROP TABLE more")
    assert names(spans) == ["SELECT", "INSERT", "CREATE"]
    assert spans[1]["attributes"]["db.operation.batch.size"] == 3
    assert spans[1]["attributes"]["db.response.returned_rows"] == 3


def test_transactions(connection: sqlite3.Connection, spans: Spans) -> None:
    connection.execute(INSERT, (1,))
    connection.commit()
    connection.execute(INSERT, (2,))
    connection.rollback()
    assert names(spans) == ["INSERT", "COMMIT", "INSERT", "ROLLBACK"]
    assert spans[1]["attributes"] == {"db.system.name": "sqlite", "db.operation.name": "COMMIT"}
    assert connection.execute("SELECT count(*) FROM items").fetchone() == (1,)


def test_a_with_block_commits_and_rolls_back(connection: sqlite3.Connection) -> None:
    def insert(number: int) -> None:
        with connection as entered:
            assert entered is connection
            connection.execute(INSERT, (number,))
            _ = 1 / number

    insert(1)
    with pytest.raises(ZeroDivisionError):
        insert(0)
    assert connection.execute("SELECT id FROM items").fetchall() == [(1,)]
    assert not connection.in_transaction


def test_fetches_may_have_spans(spans: Spans, payload: Payload) -> None:
    SQLite3Instrumentor().uninstrument()
    SQLite3Instrumentor().instrument(trace_fetch=True)
    with closing(sqlite3.connect(":memory:")) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT 'secret'")
        assert (cursor.fetchmany(2), cursor.fetchone()) == ([("secret",)], None)
        assert connection.execute("SELECT 1").fetchall() == [(1,)]
    assert names(spans) == ["SELECT", "FETCHMANY", "FETCHONE", "SELECT", "FETCHALL"]
    rows = [row for row, *_ in payload()]
    assert [row["name"] for row in rows[1:3]] == ["sqlite.query.fetchmany", "sqlite.query.fetchone"]
    assert {row["resource"] for row in rows} == {"SELECT ?"}
    assert [row["metrics"].get("db.fetch.size") for row in rows] == [None, 2, None, None, None]


def test_generators_are_parameters(connection: sqlite3.Connection, spans: Spans, payload: Payload) -> None:
    connection.cursor().executemany(INSERT, ((number,) for number in range(5)))
    assert "db.operation.batch.size" not in spans[0]["attributes"]
    assert payload()[0][0]["meta"]["sql.executemany"] == "true"
    assert spans[0]["attributes"]["db.response.returned_rows"] == 5
    assert connection.execute("SELECT sum(id) FROM items").fetchone() == (10,)


def test_an_error_passes_unchanged_and_is_recorded(connection: sqlite3.Connection, spans: Spans) -> None:
    with pytest.raises(sqlite3.OperationalError, match="no such table: nowhere"):
        connection.execute("SELECT * FROM nowhere")
    [span] = spans
    assert span["status"] == "ERROR"
    assert span["description"] == "OperationalError: no such table: nowhere"
    assert span["attributes"]["error.type"] == "OperationalError"
    if sys.version_info >= (3, 11):
        assert span["attributes"]["db.response.status_code"] == "SQLITE_ERROR"
    assert [event["name"] for event in span["events"]] == ["exception"]


def test_the_applications_own_exception_passes_as_the_same_object(connection: sqlite3.Connection, spans: Spans) -> None:
    error = ValueError("mine")

    def rows() -> Iterator[tuple[int]]:
        yield (1,)
        raise error

    with pytest.raises(ValueError, match="mine") as raised:
        connection.executemany(INSERT, rows())
    assert raised.value is error
    assert spans[0]["attributes"]["error.type"] == "ValueError"


def test_wrong_arguments_are_the_drivers_affair(
    connection: sqlite3.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(TypeError):
        connection.execute()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        connection.execute(b"SELECT 1")  # type: ignore[arg-type]
    assert caplog.records == []


def test_a_connect_function_held_earlier_is_traced(spans: Spans) -> None:
    connection = connect_held_earlier(":memory:")
    connection.execute("SELECT 1")
    connection.close()
    assert names(spans) == ["SELECT"]


class Connection(sqlite3.Connection):
    """An application's class."""


class Traceless(sqlite3.Connection):
    __slots__ = ("label",)


class Reporting(sqlite3.Connection):
    statements: list[str]

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        return super().cursor(ReportingCursor)

    def execute(self, sql: str, *args: Any) -> Any:
        self.statements = [*getattr(self, "statements", ()), sql]
        return super().execute(sql, *args)


class ReportingCursor(sqlite3.Cursor):
    pass


FACTORIES: dict[str, tuple[Callable[..., Any], type]] = {
    "the driver's class": (sqlite3.Connection, sqlite3.Connection),
    "a class": (Connection, Connection),
    "a class with slots": (Traceless, Traceless),
    "a class that overrides cursor() and execute()": (Reporting, Reporting),
    "a function that makes an object of a class": (lambda *args, **kwargs: Reporting(*args, **kwargs), Reporting),
    "a function that makes the driver's object": (
        lambda *args, **kwargs: sqlite3.Connection(*args, **kwargs),
        sqlite3.Connection,
    ),
}


@pytest.mark.parametrize("name", FACTORIES)
def test_factories(name: str, spans: Spans) -> None:
    factory, made = FACTORIES[name]
    connection = sqlite3.connect(":memory:", factory=factory)  # type: ignore[call-overload]
    assert isinstance(connection, made)
    assert connection.execute("SELECT 1").fetchone() == (1,)
    cursor = connection.cursor()
    assert isinstance(cursor, ReportingCursor if made is Reporting else sqlite3.Cursor)
    assert cursor.execute("VALUES (2)").fetchone() == (2,)
    assert names(spans) == ["SELECT", "VALUES"]
    assert getattr(connection, "statements", ["SELECT 1"]) == ["SELECT 1"]
    connection.close()


@pytest.mark.filterwarnings("ignore:Passing more than 1 positional argument:DeprecationWarning")
def test_a_factory_by_position(spans: Spans) -> None:
    connection = sqlite3.connect(":memory:", 5.0, 0, "DEFERRED", True, Connection)
    assert isinstance(connection, Connection)
    connection.execute("SELECT 1")
    connection.close()
    assert names(spans) == ["SELECT"]


def test_factories_of_cursors(connection: sqlite3.Connection, spans: Spans) -> None:
    for factory in (ReportingCursor, lambda connection: ReportingCursor(connection)):
        cursor = connection.cursor(factory)
        assert isinstance(cursor, ReportingCursor)
        cursor.execute("SELECT 1")
    cursor = connection.cursor(lambda connection: sqlite3.Cursor(connection))
    assert isinstance(cursor, sqlite3.Cursor)
    cursor.execute("SELECT 1")
    assert names(spans) == ["SELECT"] * 3


def test_what_the_driver_knows_about_connections_stays(connection: sqlite3.Connection, spans: Spans) -> None:
    connection.row_factory = sqlite3.Row
    connection.create_function("twice", 1, lambda number: 2 * number)
    row = connection.execute("SELECT twice(21) AS answer").fetchone()
    assert row["answer"] == 42
    assert list(connection.execute("VALUES (1), (2)").fetchall()[1]) == [2]
    assert [tuple(row) for row in connection.execute("VALUES (3), (4)")] == [(3,), (4,)]
    cursor = connection.cursor()
    assert cursor.connection is connection
    assert type(connection).__name__ == "Connection"
    assert repr(type(connection)) == "<class 'sqlite3.Connection'>"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the parameter is new in Python 3.12")
def test_autocommit(spans: Spans) -> None:
    for autocommit in (True, False):
        connection = sqlite3.connect(":memory:", autocommit=autocommit)  # type: ignore[call-arg,unused-ignore]
        assert connection.autocommit is autocommit  # type: ignore[attr-defined,unused-ignore]
        connection.execute("CREATE TABLE items (id)")
        assert connection.in_transaction is not autocommit
        connection.commit()
        connection.close()
    assert names(spans) == ["CREATE", "COMMIT"] * 2


def test_backup_takes_traced_and_proxied_targets(connection: sqlite3.Connection) -> None:
    connection.execute(INSERT, (7,))
    connection.commit()
    plain, proxied = sqlite3.connect(":memory:"), SQLite3Instrumentor.instrument_connection(sqlite3.connect(":memory:"))
    for source, target in ((connection, plain), (connection, proxied), (proxied, connection), (proxied, plain)):
        source.backup(target, pages=-1)
        assert target.execute("SELECT id FROM items").fetchall() == [(7,)]
    plain.close()
    proxied.close()


def test_suppressed(connection: sqlite3.Connection, spans: Spans) -> None:
    with suppress_instrumentation():
        connection.execute("SELECT 1")
    assert names(spans) == []


def test_without_a_provider(connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    SQLite3Instrumentor().uninstrument()
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    SQLite3Instrumentor().instrument()
    other = sqlite3.connect(":memory:")
    assert other.execute("SELECT 1").fetchall() == [(1,)]
    other.close()


def test_uninstrument_restores_the_identical_function(connection: sqlite3.Connection, spans: Spans) -> None:
    replacement = [sqlite3.connect]
    assert replacement != ORIGINAL
    SQLite3Instrumentor().uninstrument()
    assert sqlite3.connect is sqlite3.dbapi2.connect is connect_held_earlier is ORIGINAL[0]  # type: ignore[attr-defined]
    later = replacement[0](":memory:")
    assert type(later) is sqlite3.Connection
    later.execute("SELECT 1")
    later.close()
    connection.execute("SELECT 1")
    assert names(spans) == []


@pytest.mark.parametrize("name", FACTORIES)
def test_uninstrument_connection(name: str, spans: Spans, caplog: pytest.LogCaptureFixture) -> None:
    factory, made = FACTORIES[name]
    connection = sqlite3.connect(":memory:", factory=factory)  # type: ignore[call-overload]
    plain = SQLite3Instrumentor.uninstrument_connection(connection)
    assert plain is connection or plain is connection.__wrapped__
    assert isinstance(plain, made)
    assert plain.execute("SELECT 1").fetchone() == (1,)
    plain.cursor().execute("SELECT 1")
    plain.commit()
    assert names(spans) == []
    assert caplog.records == []
    assert SQLite3Instrumentor.uninstrument_connection(plain) is plain
    assert "already uninstrumented" in caplog.text
    SQLite3Instrumentor.instrument_connection(plain).execute("SELECT 1")
    assert names(spans) == ["SELECT"]
    plain.close()


def test_instrument_connection(spans: Spans, caplog: pytest.LogCaptureFixture) -> None:
    SQLite3Instrumentor().uninstrument()
    connection = sqlite3.connect(":memory:")
    traced = SQLite3Instrumentor.instrument_connection(connection)
    assert isinstance(traced, sqlite3.Connection)
    traced.execute("SELECT 1")
    with traced as entered:
        assert entered is traced
        cursor = traced.cursor()
        assert cursor.execute("SELECT 2") is cursor
        assert next(cursor) == (2,)
    assert names(spans) == ["SELECT"] * 2
    assert spans[0]["scope"] == "spanbridge.instrumentors.sqlite3"
    assert SQLite3Instrumentor.instrument_connection(traced) is traced
    assert "already instrumented" in caplog.text
    assert SQLite3Instrumentor.uninstrument_connection(traced) is connection
    connection.execute("SELECT 1")
    connection.close()
    assert len(spans) == 2


def test_a_traced_connection_in_a_proxy_makes_one_span(connection: sqlite3.Connection, spans: Spans) -> None:
    traced = SQLite3Instrumentor.instrument_connection(connection)
    traced.execute("SELECT 1")
    assert names(spans) == ["SELECT"]
    assert SQLite3Instrumentor.uninstrument_connection(traced) is connection
    connection.execute("SELECT 1")
    assert names(spans) == ["SELECT"]


def test_as_contrib_does(monkeypatch: pytest.MonkeyPatch, spans: Spans) -> None:
    SQLite3Instrumentor().uninstrument()
    monkeypatch.setenv("SPANBRIDGE_SEMCONV", "contrib")
    SQLite3Instrumentor().instrument()
    connection = sqlite3.connect(":memory:")
    connection.cursor().execute("select 'kept'")
    connection.commit()
    connection.close()
    [span] = spans
    assert span["name"] == "select"
    assert span["attributes"] == {"db.system": "sqlite", "db.statement": "select 'kept'"}


def test_no_literal_leaves_with_an_exception(spans):
    SQLite3Instrumentor().instrument()
    connection = sqlite3.connect(":memory:")
    with pytest.raises(sqlite3.OperationalError) as caught:
        connection.execute("SELECT hunter2_function('hunter2hunter2', x'aabbcc')")
    assert "hunter2" in str(caught.value), "the application sees the message as it is"
    with pytest.raises(sqlite3.OperationalError):
        connection.execute("SELECT 'hunter2' FROM \"a 'hunter2' b\"")
    assert "hunter2" not in str([span["description"] for span in spans[1:]])
    assert "hunter2" not in str([event["attributes"]["exception.message"] for event in spans[1]["events"]])


def test_a_with_block_ends_its_transaction(connection: sqlite3.Connection, spans: Spans) -> None:
    with connection:
        connection.execute(INSERT, (1,))
    error = ValueError("mine")

    def broken() -> None:
        with connection:
            connection.execute(INSERT, (2,))
            raise error

    with pytest.raises(ValueError, match="mine") as raised:
        broken()
    assert raised.value is error
    with connection:  # no transaction, nothing to end
        connection.execute("SELECT 1")
    assert connection.execute("SELECT id FROM items").fetchall() == [(1,)]
    assert names(spans) == ["INSERT", "COMMIT", "INSERT", "ROLLBACK", "SELECT", "SELECT"]
    assert {span["status"] for span in spans} == {"UNSET"}


def test_an_exception_whose_text_cannot_be_had(spans: Spans, caplog: pytest.LogCaptureFixture) -> None:
    class UnspeakableError(Exception):
        def __str__(self) -> str:
            raise ValueError

    def parameters() -> Any:
        raise UnspeakableError
        yield

    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE items (id)")
    with pytest.raises(UnspeakableError):
        connection.executemany("INSERT INTO items VALUES (?)", parameters())
    assert (spans[-1]["status"], spans[-1]["description"]) == ("ERROR", "UnspeakableError")
    assert caplog.messages == []
