from __future__ import annotations

import asyncio
import sqlite3
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import context
from opentelemetry.instrumentation.utils import suppress_instrumentation

from spanbridge.conventions import sqlcommenter
from spanbridge.instrumentors import dbapi

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spanbridge.testing import Spans

INSERT = "INSERT INTO items VALUES (?)"


class Cursor:
    """What PEP 249 asks for, and nothing else."""

    rowcount = 2

    def __init__(self) -> None:
        self.sent: list[tuple[Any, ...]] = []

    def execute(self, operation: Any, parameters: Any = ()) -> None:
        self.sent.append((operation, parameters))

    def executemany(self, operation: Any, parameters: Any) -> None:
        self.sent.append((operation, list(parameters)))

    def callproc(self, procname: str, parameters: Any = ()) -> Any:
        self.sent.append((procname, parameters))
        return parameters


class Connection:
    def __init__(self, **told: Any) -> None:
        self.__dict__.update(told)

    def cursor(self) -> Cursor:
        return Cursor()

    def commit(self) -> None:
        pass


DRIVER = SimpleNamespace(
    __name__="driver", __version__="1.2 (extra)", apilevel="2.0", threadsafety=1, paramstyle="qmark", connect=Connection
)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Any:
    return SimpleNamespace(**vars(DRIVER))


@pytest.fixture
def sqlite(spans: Spans) -> Iterator[Any]:
    connection = dbapi.instrument_connection("tests", sqlite3.connect(":memory:"), "sqlite", {})
    connection.execute("CREATE TABLE items (id INTEGER)")
    spans.clear()
    yield connection
    connection.close()


def names(spans: Spans) -> list[str]:
    return [span["name"] for span in spans]


def test_wrap_and_unwrap(driver: Any, spans: Spans) -> None:
    dbapi.wrap_connect("tests", driver, "connect", "postgresql")
    connection = driver.connect(database=b"shop", user="me", host="db.local", port="5432")
    cursor = connection.cursor()
    cursor.execute("SELECT 'secret', %s", ("secret",))
    [span] = spans
    assert (span["name"], span["kind"], span["scope"]) == ("SELECT", "CLIENT", "tests")
    assert span["attributes"] == {
        "db.system.name": "postgresql",
        "db.namespace": "shop",
        "db.user": "me",
        "server.address": "db.local",
        "server.port": 5432,
        "db.operation.name": "SELECT",
        "db.query.text": "SELECT ?, %s",
        "db.response.returned_rows": 2,
    }
    dbapi.unwrap_connect(driver, "connect")
    assert driver.connect is Connection
    assert type(driver.connect()) is Connection


def test_trace_integration(driver: Any, spans: Spans) -> None:
    dbapi.trace_integration(driver, "connect", "mysql", capture_parameters=True)
    driver.connect().cursor().execute("SELECT %s", (7,))
    assert spans[0]["scope"] == "spanbridge.instrumentors.dbapi"
    assert spans[0]["attributes"]["db.statement.parameters"] == "(7,)"
    with pytest.raises(TypeError):
        dbapi.trace_integration(driver, "connect", "mysql", capture_parametres=True)  # type: ignore[call-arg]


def test_trace_integration_takes_its_arguments_by_position_as_contrib_does(driver: Any, spans: Spans) -> None:
    options = {"opentelemetry_values": False, "db_driver": False}
    dbapi.trace_integration(driver, "connect", "mysql", {}, None, True, True, None, True, options, None)
    driver.connect().cursor().execute("SELECT %s", (7,))
    attributes = spans[0]["attributes"]
    assert attributes["db.statement.parameters"] == "(7,)"
    assert "/*dbapi_level=" in attributes["db.query.text"]


def test_connect_functions_that_do_not_exist_are_reported(driver: Any, caplog: pytest.LogCaptureFixture) -> None:
    dbapi.wrap_connect("tests", driver, "open", "mysql")
    assert "dbapi: wrapping open failed" in caplog.text


def test_a_factory_that_raises_leaves_the_connection_plain(driver: Any, caplog: pytest.LogCaptureFixture) -> None:
    dbapi.wrap_connect("tests", driver, "connect", "mysql", db_api_integration_factory=lambda *_, **__: 1 / 0)  # type: ignore[arg-type,return-value]
    assert type(driver.connect()) is Connection
    assert "ZeroDivisionError" in caplog.text


def test_attributes_that_cannot_be_read_are_left_out(caplog: pytest.LogCaptureFixture, spans: Spans) -> None:
    class Hostile(Connection):
        @property
        def host(self) -> str:
            raise RuntimeError("closed")

    connection = dbapi.instrument_connection(
        "tests", Hostile(port=lambda: 1), "mysql", {"host": "host", "port": "port"}
    )
    connection.cursor().execute("SELECT 1")
    assert "server.port" not in spans[0]["attributes"]
    assert "RuntimeError: closed" in caplog.text


def test_an_error_of_connecting_passes_unchanged(driver: Any) -> None:
    error = ConnectionError("refused")

    def connect() -> None:
        raise error

    driver.connect = connect
    dbapi.wrap_connect("tests", driver, "connect", "mysql")
    with pytest.raises(ConnectionError) as raised:
        driver.connect()
    assert raised.value is error


def test_instrument_and_uninstrument_a_connection(caplog: pytest.LogCaptureFixture) -> None:
    connection = Connection()
    traced = dbapi.instrument_connection("tests", connection, "mysql")
    assert isinstance(traced, Connection)
    assert traced.__wrapped__ is connection
    assert dbapi.instrument_connection("tests", traced, "mysql") is traced
    assert "already instrumented" in caplog.text
    assert dbapi.uninstrument_connection(traced) is connection
    assert dbapi.uninstrument_connection(connection) is connection
    assert "already uninstrumented" in caplog.text


def test_batches_and_procedures(spans: Spans) -> None:
    cursor = dbapi.instrument_connection("tests", Connection(), "mysql").cursor()
    cursor.executemany(INSERT, [(1,), (2,), (3,)])
    cursor.executemany(INSERT, ((number,) for number in range(2)))
    assert cursor.callproc("refresh", (1,)) == (1,)
    cursor.execute(operation="DELETE FROM items")
    assert cursor.sent[1] == (INSERT, [(0,), (1,)])
    assert names(spans) == ["INSERT", "INSERT", "CALL", "DELETE"]
    assert spans[0]["attributes"]["db.operation.batch.size"] == 3
    assert "db.operation.batch.size" not in spans[1]["attributes"]
    assert spans[2]["attributes"]["db.query.text"] == "refresh"


def test_what_the_driver_has_not_the_proxy_has_not(sqlite: Any) -> None:
    traced = dbapi.instrument_connection("tests", Connection(), "mysql")
    for name in ("execute", "executescript", "rollback", "backup", "nothing"):
        assert not hasattr(traced, name)
    assert not hasattr(traced.cursor(), "executescript")
    assert not hasattr(sqlite.cursor(), "callproc")
    assert hasattr(sqlite.cursor(), "executescript")


def test_statements_of_connections(sqlite: Any, spans: Spans) -> None:
    cursor = sqlite.execute("SELECT 1")
    assert isinstance(cursor, sqlite3.Cursor)
    cursor.execute("VALUES (2)").execute("VALUES (3)")
    sqlite.executemany(INSERT, [(1,), (2,)])
    sqlite.executescript("UPDATE items SET id = 3")
    assert names(spans) == ["SELECT", "VALUES", "VALUES", "INSERT", "UPDATE"]
    assert spans[3]["attributes"]["db.response.returned_rows"] == 2


def test_transactions(sqlite: Any, spans: Spans) -> None:
    sqlite.execute(INSERT, (1,))
    sqlite.commit()
    sqlite.execute(INSERT, (2,))
    sqlite.rollback()
    assert names(spans) == ["INSERT", "COMMIT", "INSERT", "ROLLBACK"]
    assert spans[1]["attributes"] == {"db.system.name": "sqlite", "db.operation.name": "COMMIT"}


def test_with_blocks(sqlite: Any, spans: Spans) -> None:
    def insert(number: int) -> None:
        with sqlite as entered:
            assert entered is sqlite
            entered.execute(INSERT, (number,))
            _ = 1 / number

    insert(1)
    with pytest.raises(ZeroDivisionError):
        insert(0)
    assert sqlite.execute("SELECT id FROM items").fetchall() == [(1,)]


def test_what_a_with_block_swallows_stays_swallowed(spans: Spans) -> None:
    class Swallowing(Connection):
        def __enter__(self) -> Cursor:
            return self.cursor()

        def __exit__(self, *error: object) -> bool:
            return True

    with dbapi.instrument_connection("tests", Swallowing(), "mysql") as cursor:
        cursor.execute("SELECT 1")
        _ = 1 / 0
    assert names(spans) == ["SELECT"]


def test_iteration(sqlite: Any) -> None:
    cursor = sqlite.cursor().execute("VALUES (1), (2), (3)")
    assert next(cursor) == (1,)
    assert list(cursor) == [(2,), (3,)]


class Rows(sqlite3.Cursor):
    pass


def test_settings_reach_the_driver(sqlite: Any) -> None:
    sqlite.row_factory = sqlite3.Row
    assert sqlite.__wrapped__.row_factory is sqlite3.Row
    cursor = sqlite.cursor()
    cursor.arraysize = 7
    assert cursor.__wrapped__.arraysize == 7
    assert cursor.execute("SELECT 1 AS one").fetchone()["one"] == 1
    assert type(sqlite.cursor(factory=Rows).__wrapped__) is Rows


def test_backup_into_a_proxy(sqlite: Any) -> None:
    sqlite.execute(INSERT, (7,))
    sqlite.commit()
    target = dbapi.instrument_connection("tests", sqlite3.connect(":memory:"), "sqlite", {})
    sqlite.backup(target)
    assert target.execute("SELECT id FROM items").fetchall() == [(7,)]
    sqlite.backup(target=target)
    target.close()


def test_an_error_passes_unchanged_and_is_recorded(spans: Spans) -> None:
    class Refused(Exception):
        sqlstate = "42P01"

    error = Refused("no such table")

    class Failing(Cursor):
        def execute(self, operation: Any, parameters: Any = ()) -> None:
            raise error

    cursor: Any = dbapi.get_traced_cursor_proxy(Failing(), dbapi.DatabaseApiIntegration("tests", "postgresql"))
    with pytest.raises(Refused) as raised:
        cursor.execute("SELECT * FROM nowhere")
    assert raised.value is error
    assert spans[0]["status"] == "ERROR"
    assert spans[0]["attributes"]["db.response.status_code"] == "42P01"


def test_suppressed(sqlite: Any, spans: Spans) -> None:
    with suppress_instrumentation():
        assert sqlite.execute("SELECT 1").fetchall() == [(1,)]
    assert names(spans) == []


def test_without_a_provider() -> None:
    connection = dbapi.instrument_connection("tests", sqlite3.connect(":memory:"), "sqlite", {})
    assert connection.execute("SELECT 1").fetchall() == [(1,)]
    connection.close()


def test_connections_share_what_is_compiled(spans: Spans) -> None:
    first, second = (dbapi.DatabaseApiIntegration("tests", "mysql") for _ in range(2))
    assert first.engine is second.engine
    assert first.engine is not dbapi.DatabaseApiIntegration("other", "mysql").engine


class AsyncCursor:
    rowcount = 4

    async def execute(self, query: str) -> AsyncCursor:
        await asyncio.sleep(0)
        return self

    async def __aenter__(self) -> Any:
        return self

    async def __aexit__(self, *error: object) -> None:
        pass

    async def __aiter__(self) -> Any:
        yield (1,)


class AsyncConnection(AsyncCursor):
    def cursor(self) -> AsyncCursor:
        return AsyncCursor()

    async def execute(self, query: str) -> AsyncCursor:
        return await AsyncCursor().execute(query)

    async def commit(self) -> None:
        await asyncio.sleep(0)


async def connect_async() -> AsyncConnection:
    return AsyncConnection()


def test_coroutines(driver: Any, spans: Spans) -> None:
    driver.connect = connect_async
    dbapi.wrap_connect("tests", driver, "connect", "postgresql")

    async def use() -> None:
        async with await driver.connect() as connection:
            async with connection.cursor() as cursor:
                assert await cursor.execute("SELECT 1") is cursor
                assert [row async for row in cursor] == [(1,)]
            assert isinstance(await connection.execute("VALUES (1)"), dbapi.TracedCursorProxy)
            await connection.commit()

    asyncio.run(use())
    assert names(spans) == ["SELECT", "VALUES", "COMMIT"]
    assert spans[0]["attributes"]["db.response.returned_rows"] == 4


def test_integrations_and_tracers_are_made_to_be_subclassed(driver: Any, spans: Spans) -> None:
    class Integration(dbapi.DatabaseApiIntegration):
        def wrapped_connection(self, connect_method: Any, args: Any, kwargs: Any) -> Any:
            connection = connect_method(*args, **kwargs)
            self.database = kwargs["dbname"]
            self.span_attributes["db.role"] = "replica"
            return dbapi.get_traced_connection_proxy(connection, self)

    class Tracer(dbapi.CursorTracer[Cursor]):
        def get_operation_name(self, cursor: Cursor, args: Any) -> str:
            return "LOOKUP"

        def get_statement(self, cursor: Cursor, args: Any) -> str:
            return f"EXPLAIN {args[0]}"

    dbapi.wrap_connect("tests", driver, "connect", "mysql", db_api_integration_factory=Integration)
    connection = driver.connect(dbname="shop")
    cursor = connection.cursor()
    cursor.execute("SELECT 1")
    integration = dbapi.DatabaseApiIntegration("tests", "mysql")
    Tracer(integration).traced_execution(cursor.__wrapped__, cursor.__wrapped__.execute, "SELECT 2", (1,))
    assert cursor.sent == [("SELECT 1", ()), ("SELECT 2", (1,))]
    assert spans[0]["attributes"]["db.namespace"] == "shop"
    assert spans[0]["attributes"]["db.role"] == "replica"
    assert spans[1]["name"] == "LOOKUP"
    assert spans[1]["attributes"]["db.query.text"] == "EXPLAIN SELECT ?"


def test_tracers_await(spans: Spans) -> None:
    tracer = dbapi.CursorTracer[AsyncCursor](dbapi.DatabaseApiIntegration("tests", "mysql"))
    cursor = AsyncCursor()
    assert asyncio.run(tracer.traced_execution_async(cursor, cursor.execute, "SELECT 1")) is cursor
    assert names(spans) == ["SELECT"]


# Comments


def commented(driver: Any, statement: Any, system: str = "sqlite", **options: Any) -> Any:
    connection = dbapi.instrument_connection(
        "tests", Connection(), system, connect_module=driver, enable_commenter=True, **options
    )
    cursor = connection.cursor()
    cursor.execute(statement)
    return cursor.sent[0][0]


def test_a_comment_says_who_asks(driver: Any, spans: Spans) -> None:
    parent = f"00-{1:032x}-{1:016x}-01"
    assert commented(driver, "SELECT 1;") == (
        "SELECT 1 /*db_driver='driver%%3A1.2',dbapi_level='2.0',dbapi_threadsafety=1,driver_paramstyle='qmark',"
        f"traceparent='{parent}'*/;"
    )
    assert spans[0]["attributes"]["db.query.text"] == "SELECT ?;"


def test_keys_are_opted_out_of(driver: Any, spans: Spans) -> None:
    out = dict.fromkeys(("db_driver", "dbapi_level", "dbapi_threadsafety", "opentelemetry_values"), False)
    assert commented(driver, "SELECT 1", commenter_options=out) == "SELECT 1 /*driver_paramstyle='qmark'*/"
    out["driver_paramstyle"] = False
    assert commented(driver, "SELECT 1", commenter_options=out) == "SELECT 1"


def test_the_spans_statement_shows_the_comment_if_asked(driver: Any, spans: Spans) -> None:
    sent = commented(driver, "SELECT 'secret'", enable_attribute_commenter=True)
    assert spans[0]["attributes"]["db.query.text"] == sent.replace("'secret'", "?")
    assert "traceparent" in sent


def test_frameworks_add_tags_which_cannot_end_the_comment(driver: Any, spans: Spans) -> None:
    tags = {"route": "/items/*/ 'x", "tries": 3, "none": None, "odd": SimpleNamespace(a="*/")}
    token = context.attach(context.set_value(sqlcommenter.FRAMEWORK_TAGS, tags))
    try:
        sent = commented(driver, "SELECT 1")
    finally:
        context.detach(token)
    assert "odd='namespace%%28a%%3D%%27%%2A/%%27%%29',route='/items/%%2A/%%20%%27x'" in sent
    assert "tries=3*/" in sent
    assert "none" not in sent
    assert sent.count("*/") == 1


class Composed:
    def as_string(self, cursor: Any) -> str:
        assert type(cursor) is Cursor
        return "SELECT composed"


def test_statements_keep_their_type(driver: Any, spans: Spans) -> None:
    assert commented(driver, b"SELECT '\xff' ; ").startswith(b"SELECT '\xff'  /*db_driver")
    assert commented(driver, Composed()).startswith("SELECT composed /*db_driver")
    unknown = object()
    assert commented(driver, unknown) is unknown


class Template:
    """As Python 3.14's template strings."""

    def __init__(self, *parts: Any) -> None:
        self.strings = tuple(part for part in parts if isinstance(part, str))
        self.interpolations = tuple(part for part in parts if not isinstance(part, str))


def test_template_strings(driver: Any, spans: Spans) -> None:
    value = SimpleNamespace(expression="value")
    sent = commented(driver, Template("SELECT ", value, " FROM items;"))
    assert isinstance(sent, Template)
    assert sent.interpolations == (value,)
    assert sent.strings[0] == "SELECT "
    assert sent.strings[1].startswith(" FROM items /*db_driver")
    assert sent.strings[1].endswith("*/;")
    assert spans[0]["attributes"]["db.query.text"] == "SELECT {value} FROM items;"


def test_procedures_take_no_comment(driver: Any, spans: Spans) -> None:
    connection = dbapi.instrument_connection(
        "tests", Connection(), "mysql", connect_module=driver, enable_commenter=True
    )
    cursor = connection.cursor()
    cursor.callproc("refresh")
    assert cursor.sent == [("refresh", ())]


@pytest.mark.parametrize(
    ("system", "module", "tag"),
    [
        ("postgresql", {"pq": SimpleNamespace(version=lambda: 160001)}, "libpq_version=160001"),
        ("postgresql", {"__libpq_version__": 140002}, "libpq_version=140002"),
        ("mysql", {"__name__": "pymysql", "get_client_info": lambda: "1.4"}, "mysql_client_version='1.4'"),
        (
            "mysql",
            {"__name__": "MySQLdb", "_mysql": SimpleNamespace(get_client_info=lambda: "8.1")},
            "mysql_client_version='8.1'",
        ),
        ("mysql", {"__name__": "mysql.connector"}, "mysql_client_version='unknown'"),
    ],
)
def test_versions_of_client_libraries(driver: Any, spans: Spans, system: str, module: Any, tag: str) -> None:
    assert tag in commented(SimpleNamespace(**{**vars(driver), **module}), "SELECT 1", system)


def test_as_contrib_does(monkeypatch: pytest.MonkeyPatch, spans: Spans) -> None:
    monkeypatch.setenv("SPANBRIDGE_SEMCONV", "contrib")
    connection = dbapi.instrument_connection("tests", Connection(database="shop", user="me"), "mysql")
    connection.cursor().execute("/* who */ select 'kept'")
    connection.commit()
    [span] = spans
    assert span["name"] == "select"
    assert span["attributes"] == {
        "db.system": "mysql",
        "db.name": "shop",
        "db.user": "me",
        "db.statement": "/* who */ select 'kept'",
    }
