"""SQLAlchemy over SQLite, PostgreSQL and MariaDB: one span per statement, however many layers are instrumented."""

from __future__ import annotations

import asyncio
import gc
import warnings
import weakref
from typing import TYPE_CHECKING, Any
from wsgiref.util import setup_testing_defaults

import pytest
from opentelemetry import trace

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the oldest versions compare literals with `is`, and more
    import sqlalchemy.dialects.postgresql
    import sqlalchemy.dialects.sqlite
    from sqlalchemy import create_engine, text
    from sqlalchemy.orm import Session

from spanbridge.core.options import apply_settings
from spanbridge.instrumentors.psycopg2 import Psycopg2Instrumentor
from spanbridge.instrumentors.sqlalchemy import SQLAlchemyInstrumentor
from spanbridge.instrumentors.sqlite3 import SQLite3Instrumentor
from spanbridge.instrumentors.wsgi import OpenTelemetryMiddleware

if TYPE_CHECKING:
    from spanbridge.testing import Payload, Spans
    from tests.servers import Server

SECRET = "topsecret"
VERSION = tuple(int(part) for part in sqlalchemy.__version__.split(".")[:2])


@pytest.fixture(autouse=True)
def _instrumented(spans: Spans) -> None:
    SQLAlchemyInstrumentor().instrument()


@pytest.fixture
def postgres_url(postgres_server: Server) -> str:
    pytest.importorskip("psycopg2")
    return f"postgresql+psycopg2://postgres@{postgres_server.host}:{postgres_server.port}/postgres"


def again(**options: Any) -> Any:
    SQLAlchemyInstrumentor().uninstrument()
    return SQLAlchemyInstrumentor().instrument(**options)


def statements(spans: Spans) -> list[tuple[str, str]]:
    """Answer scope and text of all spans with a statement, but for those that a first connection makes."""
    found = [(span["scope"].rpartition(".")[2], span["attributes"].get("db.query.text")) for span in spans]
    return [(scope, statement) for scope, statement in found if statement and "mine" in statement]


def run(engine: Any, statement: str = "SELECT 1 AS mine, 'topsecret'") -> Any:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(statement)).fetchall()]


def test_a_statement_is_one_client_span(spans: Spans, payload: Payload) -> None:
    engine = create_engine("sqlite:///:memory:")
    assert run(engine) == [(1, SECRET)]
    [span] = spans
    assert (span["name"], span["kind"], span["scope"]) == ("SELECT", "CLIENT", "spanbridge.instrumentors.sqlalchemy")
    assert span["attributes"] == {
        "db.system.name": "sqlite",
        "db.namespace": ":memory:",
        "db.operation.name": "SELECT",
        "db.query.text": "SELECT ? AS mine, ?",
    }
    ((mapped,),) = payload()
    assert mapped["meta"]["sql.db"] == mapped["meta"]["db.name"] == ":memory:"


def test_engines_made_before_and_by_any_means(spans: Spans) -> None:
    SQLAlchemyInstrumentor().uninstrument()
    engine = create_engine("sqlite://")
    SQLAlchemyInstrumentor().instrument()
    run(engine)
    run(engine.execution_options(isolation_level="SERIALIZABLE"))
    run(sqlalchemy.engine_from_config({"sqlalchemy.url": "sqlite://"}))
    assert [scope for scope, _ in statements(spans)] == ["sqlalchemy"] * 3


def test_the_outermost_layer_alone(postgres_url: str, postgres_server: Server, spans: Spans) -> None:
    Psycopg2Instrumentor().instrument()
    SQLite3Instrumentor().instrument()
    run(create_engine("sqlite://"))
    psycopg2 = pytest.importorskip("psycopg2")
    where = {"host": postgres_server.host, "port": postgres_server.port, "user": "postgres"}
    engine = create_engine("postgresql+psycopg2://", creator=lambda: psycopg2.connect(**where))
    run(engine)
    engine.dispose()
    assert statements(spans) == [("sqlalchemy", "SELECT ? AS mine, ?")] * 2
    [span] = [
        span
        for span in spans
        if "mine" in span["attributes"].get("db.query.text", "") and "server.port" in span["attributes"]
    ]
    # What the URL does not say, the driver has told.
    assert span["attributes"]["server.address"] == postgres_server.host
    assert span["attributes"]["server.port"] == postgres_server.port
    assert span["attributes"]["db.namespace"] == "postgres"
    assert span["attributes"]["db.response.returned_rows"] == 1


def test_both_layers_where_both_are_asked_for(spans: Spans) -> None:
    again(trace_driver=True)
    SQLite3Instrumentor().instrument()
    run(create_engine("sqlite://"))
    assert sorted(statements(spans)) == [("sqlalchemy", "SELECT ? AS mine, ?"), ("sqlite3", "SELECT ? AS mine, ?")]
    upper = next(span for span in spans if span["scope"].endswith("sqlalchemy"))
    lower = next(span for span in spans if "mine" in span["attributes"].get("db.query.text", "") and span is not upper)
    assert lower["parent_id"] == upper["span_id"]


def test_many_rows_and_the_orm(postgres_url: str, spans: Spans) -> None:
    table = sqlalchemy.Table(
        "mine", sqlalchemy.MetaData(), sqlalchemy.Column("id", sqlalchemy.Integer, primary_key=True)
    )
    engine = create_engine(postgres_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TEMPORARY TABLE mine (id integer)"))
        connection.execute(table.insert(), [{"id": number} for number in range(3)])
        session = Session(bind=connection)
        assert session.query(table).filter(table.c.id > 0).count() == 2
        streaming = connection.execution_options(stream_results=True).execute(text("SELECT * FROM mine"))
        assert len(streaming.fetchall()) == 3
        session.close()
    engine.dispose()
    verbs = [statement.split()[0] for _, statement in statements(spans)]
    assert verbs == ["CREATE", "INSERT", "SELECT", "SELECT"]
    assert {"4" for span in spans if "4" in span["attributes"].get("db.query.text", "")} == set()


def test_two_phases(postgres_url: str, spans: Spans) -> None:
    engine = create_engine(postgres_url)
    with engine.connect() as connection:
        transaction = connection.begin_twophase()
        connection.execute(text("SELECT 1 AS mine"))
        transaction.prepare()
        transaction.commit()
    engine.dispose()
    assert [scope for scope, _ in statements(spans)] == ["sqlalchemy"]


def test_errors(postgres_url: str, spans: Spans) -> None:
    engine = create_engine(postgres_url)
    with pytest.raises(sqlalchemy.exc.ProgrammingError) as raised:
        run(engine, "SELECT mine FROM nowhere WHERE name = 'topsecret'")
    assert raised.value.orig.pgcode == "42P01"
    [span] = [span for span in spans if span["status"] == "ERROR"]
    assert span["attributes"]["db.response.status_code"] == "42P01"
    assert span["attributes"]["error.type"] == "UndefinedTable"
    assert span["attributes"]["db.query.text"] == "SELECT mine FROM nowhere WHERE name = ?"
    assert run(engine) == [(1, SECRET)]
    assert {span["parent"] for span in spans} == {None}
    engine.dispose()


def test_no_value_leaves_with_the_span_of_the_request_either(spans: Spans) -> None:
    engine = create_engine("sqlite://")

    def application(environ: Any, start_response: Any) -> Any:
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE users (name TEXT UNIQUE)"))
            for _ in range(2):
                connection.execute(text("INSERT INTO users VALUES (:name)"), {"name": SECRET})

    environ: dict[str, Any] = {"PATH_INFO": "/users"}
    setup_testing_defaults(environ)
    with pytest.raises(sqlalchemy.exc.IntegrityError, match=SECRET) as caught:
        OpenTelemetryMiddleware(application)(environ, lambda *_: None)
    request = spans[-1]
    assert (request["kind"], request["status"]) == ("SERVER", "ERROR")
    assert "UNIQUE constraint failed" in request["description"]
    assert SECRET not in str(list(spans))
    gone = weakref.ref(caught.value.orig)
    del caught
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("driver_too", [False, True])
def test_a_refused_connection_is_seen_once(driver_too: bool, spans: Spans) -> None:
    pytest.importorskip("psycopg2")
    if driver_too:
        Psycopg2Instrumentor().instrument()
    with pytest.raises(sqlalchemy.exc.OperationalError):
        run(create_engine("postgresql+psycopg2://me:topsecret@127.0.0.1:1/shop"))
    [span] = spans
    assert (span["name"], span["status"]) == ("CONNECT", "ERROR")
    assert span["attributes"]["server.port"] == 1
    assert SECRET not in repr(span)


def test_connections_may_have_spans(spans: Spans) -> None:
    again(trace_connect=True)
    run(create_engine("sqlite://"))
    assert [span["name"] for span in spans] == ["CONNECT", "SELECT"]


@pytest.mark.skipif(VERSION < (1, 4), reason="asyncio engines are new in SQLAlchemy 1.4")
def test_a_drivers_thread_of_its_own_makes_no_second_span(spans: Spans) -> None:
    pytest.importorskip("aiosqlite")
    from sqlalchemy.ext.asyncio import create_async_engine

    SQLite3Instrumentor().instrument()

    async def work() -> None:
        engine = create_async_engine("sqlite+aiosqlite://")
        async with engine.connect() as connection:
            assert (await connection.execute(text("SELECT 1 AS mine"))).scalar() == 1
        await engine.dispose()

    asyncio.run(work())
    assert statements(spans) == [("sqlalchemy", "SELECT ? AS mine")]


@pytest.mark.skipif(VERSION < (1, 4), reason="asyncio engines are new in SQLAlchemy 1.4")
def test_asyncio(postgres_server: Server, spans: Spans) -> None:
    pytest.importorskip("psycopg" if VERSION >= (2, 0) else "asyncpg")
    from sqlalchemy.ext.asyncio import create_async_engine

    async def work() -> None:
        url = f"postgresql+psycopg://postgres@{postgres_server.host}:{postgres_server.port}/postgres"
        engine = create_async_engine(url)

        async def one(number: int) -> Any:
            async with engine.connect() as connection:
                return (await connection.execute(text(f"SELECT {number} AS mine, pg_sleep(0.01)"))).scalar()

        assert await asyncio.gather(*map(one, range(3))) == [0, 1, 2]
        async with engine.connect() as connection:
            with pytest.raises(sqlalchemy.exc.ProgrammingError):
                await connection.execute(text("SELECT mine FROM nowhere"))
            await connection.rollback()
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(connection.execute(text("SELECT 9 AS mine, pg_sleep(30)")), 0.2)
        await engine.dispose()

    asyncio.run(work())
    assert [scope for scope, _ in statements(spans)] == ["sqlalchemy"] * 5
    assert {span["parent"] for span in spans} == {None}
    assert spans.unfinished == []


def test_single_engines(spans: Spans) -> None:
    one, other, third = (create_engine("sqlite://") for _ in range(3))
    assert again(engine=one) is not None
    assert len(again(engines=[one, other])) == 2
    for engine in (one, other, third):
        run(engine)
    assert len(spans) == 2
    spans.clear()
    tracer = SQLAlchemyInstrumentor.instrument_engine(third)
    run(third)
    tracer.close()
    run(third)
    assert len(spans) == 1


def test_uninstrument(spans: Spans) -> None:
    engine = create_engine("sqlite://")
    run(engine)
    SQLAlchemyInstrumentor().uninstrument()
    spans.clear()
    run(engine)
    assert len(spans) == 0


def test_engines_are_not_kept(spans: Spans) -> None:
    gone = []

    def short_lived() -> None:
        engine = create_engine("sqlite://")
        weakref.finalize(engine, gone.append, 1)
        run(engine)
        engine.dispose()

    for _ in range(3):
        short_lived()
    gc.collect()
    assert gone == [1, 1, 1]


def test_listeners_of_the_application_see_the_same(spans: Spans) -> None:
    seen = []
    engine = create_engine("sqlite://")
    sqlalchemy.event.listen(engine, "before_cursor_execute", lambda *args: seen.append(args[2]))
    run(engine)
    assert seen == ["SELECT 1 AS mine, 'topsecret'"]


def _refuse(*_: Any) -> None:
    raise LookupError("of the application")


@pytest.mark.parametrize("unheard", ["a listener raises", "listeners are left out"])
def test_failures_that_no_event_tells_of(unheard: str, spans: Spans) -> None:
    engine = create_engine("sqlite://")
    options = {"skip_user_error_events": unheard == "listeners are left out"}
    if not options["skip_user_error_events"]:
        sqlalchemy.event.listen(engine, "handle_error", _refuse)
    with engine.connect() as connection:
        connection = connection.execution_options(**options)
        with pytest.raises((LookupError, sqlalchemy.exc.OperationalError)):
            connection.execute(text("SELECT mine FROM nowhere"))
        connection.execute(text("SELECT 1 AS mine"))
    assert statements(spans) == [("sqlalchemy", "SELECT mine FROM nowhere"), ("sqlalchemy", "SELECT ? AS mine")]
    failed = spans[-2]
    assert (failed["status"], failed["attributes"]["error.type"]) == ("ERROR", "OperationalError")
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_a_listener_that_raises_before_the_statement_is_sent(spans: Spans) -> None:
    """The application's listener may come after ours; before SQLAlchemy 2.1, no event tells of the end, then."""
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        connection.execute(text("SELECT 1 AS mine"))
        sqlalchemy.event.listen(engine, "before_cursor_execute", _refuse)
        with trace.get_tracer(__name__).start_as_current_span("mine") as outer:
            try:
                connection.execute(text("SELECT 2 AS mine"))
            except LookupError as caught:  # whoever keeps it keeps the execution, and so its span
                error = caught
                assert trace.get_current_span() is outer
                assert spans.unfinished == ["mine"]
        assert trace.get_current_span() is trace.INVALID_SPAN
    sent, refused = (span for span in spans if span["name"] == "SELECT")
    assert (sent["status"], refused["status"], refused["parent"]) == ("UNSET", "ERROR", "mine")
    assert refused["attributes"]["error.type"] == "LookupError"
    [event] = refused["events"]
    assert event["attributes"]["exception.message"] == str(error)


def test_a_statement_within_another(spans: Spans) -> None:
    """What an application's listener asks in between, and gives up, is not the end of the statement."""
    engine, other = create_engine("sqlite://"), create_engine("sqlite://")
    sqlalchemy.event.listen(other, "before_cursor_execute", _refuse)

    def ask(*args: Any) -> None:
        with other.connect() as connection, pytest.raises(LookupError):
            connection.execute(text("SELECT 1 AS theirs"))
        assert len(spans.unfinished) == 1

    with engine.connect() as connection:
        connection.execute(text("SELECT 1 AS mine"))
        spans.clear()
        sqlalchemy.event.listen(engine, "before_cursor_execute", ask)
        connection.execute(text("SELECT 2 AS mine"))
    assert [span["status"] for span in spans] == ["UNSET"]


def test_commenter(postgres_url: str, spans: Spans) -> None:
    again(enable_commenter=True, commenter_options={"db_framework": False})
    engine = create_engine(postgres_url)
    [[seen]] = run(engine, "SELECT current_query() AS mine")
    span = spans[-1]
    trace = f"00-{span['trace_id']:032x}-{span['span_id']:016x}-01"
    assert seen == f"SELECT current_query() AS mine /*db_driver='psycopg2',traceparent='{trace}'*/"
    assert span["attributes"]["db.query.text"] == "SELECT current_query() AS mine"
    engine.dispose()


def test_comments_for_database_monitoring(postgres_url: str, spans: Spans) -> None:
    apply_settings(
        {"database.comments": {"tags": {"ddps": "shop"}, "target": {"dddb": "namespace"}, "trace_context": False}}
    )
    again()
    engine = create_engine(postgres_url)
    assert run(engine, "SELECT current_query() AS mine") == [
        ("/*dddb='postgres',ddps='shop'*/ SELECT current_query() AS mine",)
    ]
    engine.dispose()
    run(create_engine("sqlite://"))
    apply_settings({})
