"""psycopg 3's documented features, each run without us and then with us: what they answer, or raise, is the same."""

from __future__ import annotations

import asyncio
import inspect
import re
import threading
from contextlib import closing, suppress
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar

import psycopg
import pytest
from psycopg import AsyncConnection, AsyncCursor, Column, Connection, Cursor, rows, sql

from spanbridge.instrumentors.psycopg import PsycopgInstrumentor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from spanbridge.testing import Spans
    from tests.servers import Server

VERSION = tuple(int(part) for part in psycopg.__version__.split(".")[:2])
pytestmark = pytest.mark.skipif(
    VERSION < (3, 2), reason="raw cursors, and waiting for notifications, are new in psycopg 3.2"
)

SETUP = "CREATE TEMPORARY TABLE items (id serial PRIMARY KEY, name text UNIQUE)"
ONE_TO_FIVE = "SELECT generate_series(1, 5) AS n"
state = attrgetter("statusmessage", "rowcount", "rownumber", "closed")

FEATURES: list[Callable[..., Any]] = []
feature = FEATURES.append


def attempt(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Answer what a call answers, or what it raises."""
    try:
        return call(*args, **kwargs)
    except Exception as error:
        return type(error), str(error), type(error.__cause__), type(error.__context__)


async def attempt_async(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """As `attempt`, of what is awaited."""
    try:
        return await call(*args, **kwargs)
    except Exception as error:
        return type(error), str(error), type(error.__cause__), type(error.__context__)


def filled(connection: Any) -> Any:
    cursor = connection.cursor()
    cursor.executemany("INSERT INTO items (name) VALUES (%s)", [("a",), ("b",), ("c",)])
    return cursor


@feature
def executing(connection: Any) -> Iterator[Any]:
    cursor = connection.cursor()
    yield cursor.execute(ONE_TO_FIVE) is cursor
    yield state(cursor), cursor.description, cursor.fetchone(), state(cursor)
    yield cursor.fetchmany(2), cursor.rownumber, cursor.fetchall(), cursor.fetchone(), cursor.rownumber
    yield cursor.pgresult.status, repr(cursor)
    yield (
        attempt(cursor.execute),
        attempt(cursor.execute, None),
        attempt(cursor.execute, 1),
        attempt(cursor.execute, ""),
    )
    yield (
        attempt(cursor.execute, "SELECT %s", 1),
        attempt(cursor.execute, "SELECT %s %s", (1,)),
        attempt(cursor.fetchone),
    )
    yield attempt(cursor.execute, "SELECT %(a)s", {"b": 1}), attempt(cursor.execute, "SELECT %", (1,))
    yield attempt(cursor.execute, "SELEC 1"), state(cursor), attempt(cursor.execute, "SELECT 1")
    connection.rollback()
    cursor.execute("SELECT 1; SELECT 2, 3")
    yield cursor.fetchall(), cursor.nextset(), cursor.fetchall(), cursor.nextset()
    cursor.execute("SELECT 1; SELECT 2, 3")
    yield [result.fetchall() for result in cursor.results()] if hasattr(cursor, "results") else None
    cursor.execute("SELECT %s::int", (1,), prepare=True, binary=True)
    yield cursor.format, cursor.fetchall()
    cursor.execute(ONE_TO_FIVE)
    yield cursor.scroll(2), cursor.fetchone(), cursor.scroll(0, mode="absolute"), list(cursor)
    yield attempt(cursor.scroll, 20), attempt(cursor.scroll, 0, mode="x")
    yield cursor.setinputsizes([1]), cursor.setoutputsize(1), cursor.arraysize
    yield cursor.close(), attempt(cursor.execute, "SELECT 1"), attempt(cursor.fetchone), state(cursor)
    yield connection.execute("SELECT %s::int AS a", (4,), binary=True).fetchall()
    with connection.cursor() as entered:
        yield type(entered), entered.execute("SELECT 1").fetchone()
    yield entered.closed, attempt(connection.execute, "SELECT 1", (), True)


@feature
def executing_many(connection: Any) -> Iterator[Any]:
    cursor = filled(connection)
    yield state(cursor), cursor.description, attempt(cursor.fetchall)
    insert = "INSERT INTO items (name) VALUES (%s) RETURNING id, name"
    cursor.executemany(insert, ((name,) for name in "xyz"), returning=True)
    yield state(cursor), cursor.fetchall(), cursor.nextset(), cursor.fetchone(), cursor.nextset(), cursor.fetchall()
    yield cursor.nextset(), cursor.nextset()
    yield cursor.executemany(insert, [], returning=True), state(cursor), attempt(cursor.fetchall)
    yield cursor.executemany(insert, ()), state(cursor)
    yield attempt(cursor.executemany, insert), attempt(cursor.executemany, insert, 1)
    yield attempt(cursor.executemany, insert, [("a",), ("q",)]), state(cursor)
    connection.rollback()
    yield attempt(cursor.executemany, "SELECT %s::int", [(1,), ("x",)])


@feature
def streaming(connection: Any) -> Iterator[Any]:
    cursor = connection.cursor()
    stream = cursor.stream(ONE_TO_FIVE)
    yield inspect.isgenerator(stream), next(stream), state(cursor), list(stream), state(cursor)
    yield list(cursor.stream("SELECT %s::int", (1,), binary=True)), attempt(list, cursor.stream("UPDATE x"))
    connection.rollback()
    yield attempt(lambda: list(cursor.stream("INSERT INTO items (name) VALUES ('s')")))
    connection.rollback()
    half = cursor.stream(ONE_TO_FIVE)
    yield next(half), half.close(), cursor.execute("SELECT 7").fetchall()
    with suppress(KeyError):
        for row in cursor.stream(ONE_TO_FIVE):
            raise KeyError(row)
    yield cursor.execute("SELECT 8").fetchall()
    yield attempt(lambda: list(cursor.stream(ONE_TO_FIVE, size=2)))
    thrown = cursor.stream(ONE_TO_FIVE)
    yield next(thrown), attempt(thrown.throw, ValueError("stop")), connection.info.transaction_status


@feature
def copying(connection: Any) -> Iterator[Any]:
    filled(connection)
    cursor = connection.cursor()
    to = "COPY items (name) TO STDOUT"
    with cursor.copy(to) as copy:
        yield type(copy), [bytes(part) for part in copy], copy.read()
    yield state(cursor)
    with cursor.copy(to) as copy:
        copy.set_types(["text"])
        yield list(copy.rows())
    with cursor.copy(to) as copy:
        yield copy.read_row(), bytes(copy.read()), bytes(copy.read()), copy.read()
    with cursor.copy("COPY items (name) FROM STDIN") as copy:
        yield copy.write("d\n"), copy.write(b"e\n"), copy.write_row(["f"])
    yield state(cursor)
    with cursor.copy("COPY items (name) FROM STDIN (FORMAT BINARY)") as copy:
        copy.set_types(["text"])
        yield copy.write_row(("g",))
    with cursor.copy("COPY (SELECT %s::text) TO STDOUT", ("h",)) as copy:
        yield list(map(bytes, copy))
    with cursor.copy(sql.SQL("COPY {} TO STDOUT (FORMAT BINARY)").format(sql.Identifier("items"))) as copy:
        copy.set_types(["int4", "text"])
        yield list(copy.rows())

    def failing() -> None:
        with cursor.copy("COPY items (name) FROM STDIN") as copy:
            copy.write("x\n")
            raise ZeroDivisionError("mine")

    yield attempt(failing), connection.info.transaction_status
    connection.rollback()
    yield attempt(cursor.copy("SELECT 1").__enter__), type(cursor.copy(to)).__name__
    connection.rollback()
    yield attempt(cursor.copy("COPY nothing TO STDOUT").__enter__)
    connection.rollback()

    class Writer(psycopg.copy.LibpqWriter):
        written: ClassVar[list[bytes]] = []

        def write(self, data: Any) -> None:
            self.written.append(bytes(data))
            super().write(data)

    with cursor.copy("COPY items (name) FROM STDIN", writer=Writer(cursor)) as copy:
        copy.write_row(["w"])
    yield Writer.written, cursor.rowcount

    @cursor.copy(to)  # what context managers can do besides
    def decorated() -> int:
        return 3

    yield decorated()


@feature
def copies_left_early(connection: Any) -> Iterator[Any]:
    with connection.cursor() as cursor, cursor.copy("COPY (SELECT generate_series(1, 100000)) TO STDOUT") as copy:
        yield bytes(copy.read())
    yield connection.info.transaction_status, attempt(connection.execute, "SELECT 1")


@feature
def pipelines(connection: Any) -> Iterator[Any]:
    with connection.pipeline() as pipeline:
        first, second = connection.cursor(), connection.cursor()
        first.execute("SELECT %s::int", (1,))
        second.executemany("INSERT INTO items (name) VALUES (%s) RETURNING id", [("p",), ("q",)], returning=True)
        yield type(pipeline).__name__, pipeline.sync(), first.fetchall(), second.fetchall(), second.nextset()
        yield second.fetchall(), second.rowcount, connection.execute("SELECT 2").fetchone()
        yield attempt(list, first.stream(ONE_TO_FIVE)), attempt(first.copy("COPY items TO STDOUT").__enter__)
    connection.rollback()

    def failing() -> None:
        with connection.pipeline():
            connection.execute("SELECT 1")
            connection.execute("SELEC 2")
            connection.execute("SELECT 3")

    yield attempt(failing), connection.info.transaction_status
    connection.rollback()
    with connection.pipeline(), connection.transaction(), connection.pipeline():
        connection.execute("INSERT INTO items (name) VALUES ('in')")
    yield connection.execute("SELECT name FROM items").fetchall()


@feature
def transactions(connection: Any) -> Iterator[Any]:
    with connection.transaction("mine") as outer:
        yield outer.savepoint_name, outer.status.name, outer.connection is connection, repr(outer)
        with connection.transaction(force_rollback=True) as inner:
            filled(connection)
            yield inner.savepoint_name, inner.status.name
        yield inner.status.name, connection.execute("SELECT count(*) FROM items").fetchone()
        with connection.transaction() as undone:
            filled(connection)
            raise psycopg.Rollback(undone)
        yield undone.status.name, attempt(connection.commit), attempt(connection.rollback)
    yield outer.status.name, connection.info.transaction_status, attempt(outer.__enter__)

    def leaving() -> None:
        with connection.transaction() as top, connection.transaction():
            raise psycopg.Rollback(top)

    yield attempt(leaving), connection.info.transaction_status

    def failing() -> None:
        with connection.transaction():
            connection.execute("SELEC")

    yield attempt(failing), connection.info.transaction_status
    first, second = connection.transaction(), connection.transaction()
    first.__enter__()
    second.__enter__()
    yield attempt(first.__exit__, None, None, None), attempt(second.__exit__, None, None, None)
    connection.rollback()
    connection.autocommit = True
    yield connection.autocommit, connection.execute("SELECT 1").fetchone(), connection.info.transaction_status
    with connection.transaction():
        yield connection.info.transaction_status
    yield connection.commit(), connection.rollback()


@feature
def two_phases(connection: Any) -> Iterator[Any]:
    xid = connection.xid(1, "gtrid", "bqual")
    yield xid, attempt(connection.tpc_commit)
    connection.tpc_begin(xid)
    connection.execute("SELECT 1")
    yield (
        attempt(connection.commit),
        attempt(connection.rollback),
        connection.tpc_prepare(),
        attempt(connection.tpc_prepare),
    )
    yield connection.tpc_rollback()
    connection.tpc_begin("plain")
    connection.execute("SELECT 1")
    yield connection.tpc_prepare(), connection.tpc_commit()
    connection.tpc_begin("one")
    yield connection.execute("SELECT 1").fetchone(), connection.tpc_commit(), connection.info.transaction_status
    connection.tpc_begin("left")
    connection.execute("SELECT 1")
    yield connection.tpc_prepare(), attempt(connection.tpc_commit, "none")
    dsn = connection.info.dsn
    connection.close()
    with closing(psycopg.connect(dsn)) as other:
        yield [found.gtrid for found in other.tpc_recover()], other.tpc_rollback("left"), other.tpc_recover()


@feature
def notifications(connection: Any) -> Iterator[Any]:
    connection.autocommit = True
    told: list[Any] = []

    def hear(notify: Any) -> None:
        told.append((notify.channel, notify.payload))

    connection.execute("LISTEN news")
    connection.add_notify_handler(hear)
    connection.execute("NOTIFY news, 'first'")
    yield list(told), connection.remove_notify_handler(hear), attempt(connection.remove_notify_handler, hear)
    threading.Timer(0.05, lambda: None).start()
    connection.execute("NOTIFY news, 'second'")
    yield [(notify.channel, notify.payload) for notify in connection.notifies(timeout=0.2, stop_after=1)]
    notices: list[Any] = []
    connection.add_notice_handler(lambda notice: notices.append((notice.severity, notice.message_primary)))
    connection.execute("DO $$ BEGIN RAISE NOTICE 'hear, hear'; END $$")
    yield notices


class Row:
    """A row of ours."""

    def __init__(self, *values: Any, **named: Any) -> None:
        self.values = (values, named)

    def __repr__(self) -> str:
        return f"Row({self.values})"


@feature
def row_factories(connection: Any) -> Iterator[Any]:
    select = "SELECT 1 AS a, 'x' AS b"
    factories = [rows.dict_row, rows.namedtuple_row, rows.scalar_row, rows.class_row(Row), rows.args_row(Row)]
    for factory in [*factories, rows.kwargs_row(Row), rows.tuple_row]:
        with connection.cursor(row_factory=factory) as cursor:
            row = cursor.execute(select).fetchone()
            yield type(row).__name__, repr(row), cursor.row_factory is factory
        with connection.cursor("named", row_factory=factory) as cursor:
            yield repr(cursor.execute(select).fetchone())
        connection.rollback()
    connection.row_factory = rows.dict_row
    yield connection.execute(select).fetchall(), list(connection.cursor().stream(select))
    with connection.cursor() as cursor:
        cursor.execute(select)
        cursor.row_factory = rows.tuple_row
        yield cursor.fetchall()


@feature
def server_side_cursors(connection: Any) -> Iterator[Any]:
    for options in ({}, {"scrollable": True}, {"scrollable": False}, {"withhold": True}):
        cursor = connection.cursor("far", **options)
        yield type(cursor), cursor.name, cursor.scrollable, cursor.withhold, cursor.itersize, state(cursor)
        yield (
            cursor.execute(ONE_TO_FIVE) is cursor,
            cursor.description,
            cursor.rowcount,
            cursor.fetchone(),
            cursor.rownumber,
        )
        yield cursor.fetchmany(2), cursor.scroll(-1) if options.get("scrollable") else None
        cursor.itersize = 2
        yield list(cursor), cursor.rownumber, attempt(cursor.execute, "SELECT %s::int", (3,)), cursor.fetchall()
        yield repr(cursor), cursor.close(), attempt(cursor.fetchone), state(cursor)
    with connection.cursor("far") as cursor:
        yield attempt(cursor.executemany, "SELECT %s", [(1,)])
        yield attempt(cursor.execute, "SELEC"), attempt(cursor.execute, "SELECT 1", binary=True)
    connection.rollback()
    with psycopg.ServerCursor(connection, "direct") as direct:
        yield direct.execute("SELECT %s::int", [5], binary=True).fetchall()
    yield attempt(connection.cursor("never").close)


@feature
def classes_of_cursors(connection: Any) -> Iterator[Any]:
    for name in ("ClientCursor", "RawCursor", "RawServerCursor"):
        cls = getattr(psycopg, name, None)
        if cls is None:
            continue
        cursor = cls(connection, "raw") if "Server" in name else cls(connection)
        raw = name.startswith("Raw")
        yield type(cursor), cursor.execute("SELECT $1::int" if raw else "SELECT %s::int", [3]).fetchall()
        yield attempt(cursor.executemany, "SELECT $1::int" if raw else "SELECT %s::int", [(1,), (2,)], returning=True)
        if name == "ClientCursor":
            yield cursor.mogrify("SELECT %s, %s", ["it's", 3]), cursor.execute("SELECT 1; SELECT 2").fetchall()
            yield cursor.execute("CREATE TEMPORARY TABLE made AS SELECT %s AS a", ("x",)).statusmessage
            yield list(cursor.stream("SELECT %s::int", (2,)))
            with cursor.copy("COPY (SELECT %s) TO STDOUT", ("it's",)) as copy:
                yield list(map(bytes, copy))
        cursor.close()
        connection.rollback()
    connection.cursor_factory = psycopg.ClientCursor
    yield type(connection.cursor()), connection.execute("SELECT %s", ["a"]).fetchone()

    class Mine(Cursor[Any]):
        def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
            return super().execute(query + "::int + 1", params, **options)

    connection.cursor_factory = Mine
    yield connection.cursor().execute("SELECT %s", [1]).fetchall(), connection.execute("SELECT %s", [2]).fetchall()


@feature
def preparing(connection: Any) -> Iterator[Any]:
    def prepared() -> list[Any]:
        return connection.execute("SELECT statement FROM pg_prepared_statements ORDER BY 1", prepare=False).fetchall()

    for _ in range(connection.prepare_threshold + 2):
        connection.execute("SELECT %s::int", (1,))
    yield prepared()
    connection.prepare_threshold = 0
    connection.execute("SELECT %s::text", ("x",))
    yield len(prepared()), connection.prepared_max
    connection.prepare_threshold = None
    connection.execute("SELECT %s::date", ("2020-01-01",))
    yield len(prepared())
    connection.cursor().executemany("SELECT %s::bool", [(True,)] * 8)
    yield len(prepared())


@feature
def connections(connection: Any) -> Iterator[Any]:
    yield type(connection), connection.closed, connection.broken, connection.info.dbname, connection.isolation_level
    yield connection.deferrable, connection.read_only, attempt(connection.set_read_only, True), connection.read_only
    yield attempt(connection.execute, "INSERT INTO items (name) VALUES ('r')"), attempt(connection.set_autocommit, True)
    connection.rollback()
    yield connection.cancel(), connection.fileno() > 0, type(connection.adapters), Connection is psycopg.Connection
    with connection as entered:
        yield entered is connection, connection.execute("SELECT 1").fetchone()
    yield (
        connection.closed,
        attempt(connection.execute, "SELECT 1"),
        attempt(connection.commit),
        attempt(connection.rollback),
    )
    yield attempt(connection.cursor), attempt(connection.transaction().__enter__), connection.close()


@feature
def threads(connection: Any) -> Iterator[Any]:
    """Threads that share a connection, as the documentation says they may."""
    found: list[Any] = []

    def work(number: int) -> None:
        found.append(connection.execute("SELECT %s::int", (number,)).fetchone())

    workers = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    yield sorted(found)


ASYNC_FEATURES: list[Callable[..., Any]] = []
async_feature = ASYNC_FEATURES.append


@async_feature
async def executing_async(connection: Any) -> AsyncIterator[Any]:
    cursor = connection.cursor()
    yield await cursor.execute(ONE_TO_FIVE) is cursor
    yield (
        state(cursor),
        cursor.description,
        await cursor.fetchone(),
        await cursor.fetchmany(2),
        [row async for row in cursor],
    )
    yield await attempt_async(cursor.execute, "SELEC"), await attempt_async(cursor.execute)
    await connection.rollback()
    insert = "INSERT INTO items (name) VALUES (%s) RETURNING id, name"
    yield await cursor.executemany(insert, [("a",), ("b",)], returning=True), await cursor.fetchall(), cursor.nextset()
    yield await cursor.fetchall(), await attempt_async(cursor.executemany, insert, [("a",)]), state(cursor)
    await connection.rollback()
    yield [row async for row in cursor.stream(ONE_TO_FIVE)], inspect.isasyncgen(cursor.stream(ONE_TO_FIVE))
    half = cursor.stream(ONE_TO_FIVE)
    yield await anext(half), await half.aclose(), await (await connection.execute("SELECT 7")).fetchall()
    async with connection.cursor("far", row_factory=rows.dict_row) as far:
        await far.execute(ONE_TO_FIVE)
        yield type(far), await far.fetchone(), await far.fetchmany(2), [row async for row in far]
    async with psycopg.AsyncClientCursor(connection) as client:
        yield client.mogrify("SELECT %s", ["it's"]), await (await client.execute("SELECT %s", ["a"])).fetchall()
    async with psycopg.AsyncRawCursor(connection) as raw:
        yield await (await raw.execute("SELECT $1::int", [4])).fetchall()
    yield [
        inspect.iscoroutinefunction(method) for method in (cursor.execute, connection.commit, AsyncConnection.connect)
    ]
    yield str(inspect.signature(AsyncCursor.execute)), str(inspect.signature(AsyncCursor.copy))


@async_feature
async def copying_async(connection: Any) -> AsyncIterator[Any]:
    cursor = connection.cursor()
    async with cursor.copy("COPY items (name) FROM STDIN") as copy:
        yield type(copy), await copy.write("a\n"), await copy.write_row(["b"])
    yield state(cursor)
    async with cursor.copy("COPY items (name) TO STDOUT") as copy:
        yield [bytes(part) async for part in copy]
    async with cursor.copy("COPY items (name) TO STDOUT") as copy:
        yield [row async for row in copy.rows()]

    async def failing() -> None:
        async with cursor.copy("COPY items (name) FROM STDIN"):
            raise ZeroDivisionError("mine")

    yield (
        await attempt_async(failing),
        await attempt_async(cursor.copy("SELECT 1").__aenter__),
        type(cursor.copy("x")).__name__,
    )


@async_feature
async def pipelines_async(connection: Any) -> AsyncIterator[Any]:
    async with connection.pipeline() as pipeline:
        first = await connection.execute("SELECT 1")
        second = await connection.execute("SELECT 2")
        yield await pipeline.sync(), await first.fetchall(), await second.fetchall()

    async def failing() -> None:
        async with connection.pipeline():
            await connection.execute("SELEC")
            await connection.execute("SELECT 1")

    yield await attempt_async(failing), connection.info.transaction_status
    await connection.rollback()
    # Many tasks may share a connection.
    cursors = await asyncio.gather(*[connection.execute("SELECT %s::int", (number,)) for number in range(5)])
    yield [await cursor.fetchone() for cursor in cursors]


@async_feature
async def transactions_async(connection: Any) -> AsyncIterator[Any]:
    async with connection.transaction() as outer:
        async with connection.transaction(force_rollback=True):
            yield await (await connection.execute("INSERT INTO items (name) VALUES ('a') RETURNING id")).fetchone()
        yield outer.status.name, await attempt_async(connection.commit)

    async def leaving() -> None:
        async with connection.transaction() as top, connection.transaction():
            raise psycopg.Rollback(top)

    yield await attempt_async(leaving), outer.status.name, connection.info.transaction_status
    await connection.tpc_begin("async")
    await connection.execute("SELECT 1")
    yield await connection.tpc_prepare(), await connection.tpc_rollback(), await attempt_async(connection.tpc_commit)
    await connection.set_autocommit(True)
    await connection.execute("LISTEN news")
    await connection.execute("NOTIFY news, 'hear'")
    yield [(notify.channel, notify.payload) async for notify in connection.notifies(timeout=0.2, stop_after=1)]


@async_feature
async def cancelling_async(connection: Any) -> AsyncIterator[Any]:
    task = asyncio.create_task(connection.execute("SELECT pg_sleep(10)"))
    await asyncio.sleep(0.05)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError as error:
        yield type(error), error.args
    await connection.rollback()
    try:
        await asyncio.wait_for(connection.execute("SELECT pg_sleep(10)"), 0.05)
    except asyncio.TimeoutError as error:
        yield type(error)
    await connection.rollback()
    yield await (await connection.execute("SELECT 1")).fetchone()
    async with connection as entered:
        yield entered is connection
    yield await attempt_async(connection.execute, "SELECT 1"), attempt(connection.cursor), connection.closed


def comparable(value: Any) -> Any:
    """Replace what has no equality of its own."""
    if isinstance(value, (tuple, list)) and not isinstance(value, psycopg.Xid):
        return [comparable(part) for part in value]
    if isinstance(value, (str, Column, Row, psycopg.Cursor, psycopg.AsyncCursor)):
        return re.sub("0x[0-9a-f]+", "0x", value if isinstance(value, str) else repr(value))
    return value


@pytest.fixture
def conninfo(postgres_server: Server) -> str:
    return f"host={postgres_server.host} port={postgres_server.port} user=postgres dbname=postgres"


@pytest.mark.parametrize("run", FEATURES, ids=lambda run: run.__name__)
def test_as_without_us(run: Callable[..., Iterator[Any]], conninfo: str, spans: Spans) -> None:
    def answers() -> list[Any]:
        with closing(psycopg.connect(conninfo)) as connection:
            connection.execute(SETUP)
            connection.commit()
            return [comparable(answer) for answer in run(connection)]

    plain = answers()
    assert not spans
    PsycopgInstrumentor().instrument()
    assert answers() == plain
    assert spans
    assert spans.unfinished == []


@pytest.mark.parametrize("run", ASYNC_FEATURES, ids=lambda run: run.__name__)
def test_as_without_us_async(run: Callable[..., AsyncIterator[Any]], conninfo: str, spans: Spans) -> None:
    async def answers() -> list[Any]:
        connection = await AsyncConnection.connect(conninfo)
        try:
            await connection.execute(SETUP)
            await connection.commit()
            return [comparable(answer) async for answer in run(connection)]
        finally:
            await connection.close()

    plain = asyncio.run(answers())
    assert not spans
    PsycopgInstrumentor().instrument()
    assert asyncio.run(answers()) == plain
    assert spans
    assert spans.unfinished == []
