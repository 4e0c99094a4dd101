"""cassandra-driver against a stand-in for the server, from 3.5 to the newest."""

from __future__ import annotations

import gc
import sys
import threading
import warnings
from contextlib import nullcontext
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pytest
from packaging.version import Version

pytest.importorskip("cassandra")

with warnings.catch_warnings(action="ignore") if sys.version_info >= (3, 11) else nullcontext():  # of asyncore
    from cassandra.cluster import Cluster, NoHostAvailable
from cassandra.concurrent import execute_concurrent
from cassandra.protocol import SyntaxException
from cassandra.query import BatchStatement, SimpleStatement

from spanbridge.instrumentors import cassandra
from spanbridge.instrumentors.cassandra import CassandraInstrumentor, Pages
from tests.servers import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spanbridge.testing import Payload, Spans
    from tests.servers import Server

# What the driver says of itself, and leaves to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

OLD = Version(version("cassandra-driver")) < Version("3.9")


@pytest.fixture
def session(spans: Spans, cassandra_server: Server) -> Iterator[Any]:
    cluster = Cluster([cassandra_server.host], port=cassandra_server.port)
    made = cluster.connect("shop")  # before `instrument()`
    CassandraInstrumentor().instrument()
    yield made
    CassandraInstrumentor().uninstrument()
    cluster.shutdown()


def texts(spans: Spans) -> list[str]:
    return [span["attributes"].get("db.query.text", "") for span in spans]


def test_a_statement(session: Any, spans: Spans, cassandra_server: Server, payload: Payload) -> None:
    statement = SimpleStatement("SELECT a FROM t WHERE b = 'secret'", consistency_level=4)
    assert [row.a for row in session.execute(statement)] == [7]
    (span,) = spans
    assert (span["name"], span["kind"], span["status"]) == ("SELECT", "CLIENT", "UNSET")
    assert span["attributes"] == {
        "db.system.name": "cassandra",
        "db.namespace": "shop",
        "db.operation.name": "SELECT",
        "db.query.text": "SELECT a FROM t WHERE b = ?",
        "db.response.returned_rows": 1,
        "cassandra.cluster": "standin",
        "cassandra.consistency.level": "quorum",
        "server.address": cassandra_server.host,
        "server.port": cassandra_server.port,
    }
    ((mapped,),) = payload()
    names = (mapped["service"], mapped["name"], mapped["resource"], mapped["type"])
    assert names == ("cassandra", "cassandra.query", "SELECT a FROM t WHERE b = ?", "cassandra")
    assert mapped["metrics"]["cassandra.consistency_level"] == 4
    assert (mapped["meta"]["cassandra.cluster"], mapped["meta"]["cassandra.paginated"]) == ("standin", "False")


def test_prepared_statements(session: Any, spans: Spans) -> None:
    prepared = session.prepare("SELECT a FROM t WHERE b = ?")
    session.execute(prepared, ("secret",))
    session.execute(prepared.bind(("secret",)))
    assert texts(spans) == ["SELECT a FROM t WHERE b = ?"] * 2


def test_batches(session: Any, spans: Spans, payload: Payload) -> None:
    batch = BatchStatement()
    for number in range(3):
        batch.add("INSERT INTO t (a, b) VALUES (%s, 'secret')", (number,))
    batch.add(session.prepare("INSERT INTO t (b) VALUES (?)"), ("secret",))
    session.execute(batch)
    (span,) = spans
    assert span["name"] == "BATCH"
    assert span["attributes"]["db.operation.batch.size"] == 4
    assert "secret" not in repr(span)
    ((mapped,),) = payload()
    assert mapped["resource"] == "BatchStatement"
    assert mapped["meta"]["cassandra.query"] == "INSERT INTO t (a, b) VALUES (?); INSERT INTO t (a, b) VALUES (?)"
    assert mapped["metrics"]["cassandra.batch_size"] == 4


def test_each_page_is_a_round_trip(session: Any, spans: Spans, payload: Payload) -> None:
    assert len(list(session.execute("SELECT a FROM pages"))) == 4
    assert texts(spans) == ["SELECT a FROM pages"] * 2
    assert [span["attributes"]["cassandra.page_number"] for span in spans] == [1, 2]
    assert [span["attributes"]["db.response.returned_rows"] for span in spans] == [2, 2]
    assert [row["meta"]["cassandra.paginated"] for row, *_ in payload()] == ["True", "True"]


def test_a_further_page_after_a_first_that_was_answered_at_once(session: Any, spans: Spans) -> None:
    future = session.execute_async("SELECT a FROM pages")
    future.result()
    future._callbacks.clear()  # as the driver does before 3.9, where the answer comes before the callback
    future.start_fetching_next_page()
    future.result()
    assert len(spans) == 2
    assert spans.unfinished == []


@pytest.mark.skipif(OLD, reason="the driver forgets callbacks that it can call at once")
def test_pages_by_callbacks(session: Any, spans: Spans, payload: Payload) -> None:
    future = session.execute_async("SELECT a FROM pages")
    done, seen = threading.Event(), []

    def page(rows: Any) -> None:
        seen.extend(rows)
        if future.has_more_pages:
            future.start_fetching_next_page()
        else:
            done.set()

    future.add_callbacks(page, lambda error: done.set())
    assert done.wait(10)
    assert len(seen) == 4
    assert len(spans) == 2


def test_futures_end_with_their_answers(session: Any, spans: Spans) -> None:
    with spans.provider.get_tracer("test").start_as_current_span("root"):
        futures = [session.execute_async("SELECT a FROM t") for _ in range(20)]
        with spans.provider.get_tracer("test").start_as_current_span("meanwhile"):
            pass
        assert all(future.result()[0].a == 7 for future in futures)
    execute_concurrent(session, [("SELECT a FROM t", ())] * 5)
    assert [span["parent"] for span in spans if span["name"] == "meanwhile"] == ["root"]
    assert [span["parent"] for span in spans if span["name"] == "SELECT"].count("root") == 20
    assert spans.unfinished == []


def test_failures(session: Any, spans: Spans, payload: Payload) -> None:
    with pytest.raises(SyntaxException):
        session.execute("bad statement")
    errors: list[Exception] = []
    done = threading.Event()
    session.execute_async("bad again").add_errback(lambda error: (errors.append(error), done.set()))
    assert done.wait(10)
    assert [type(error) for error in errors] == [SyntaxException]
    assert [(span["status"], span["attributes"]["error.type"]) for span in spans] == [("ERROR", "SyntaxException")] * 2


def boom(*args: Any) -> None:
    raise RuntimeError("boom")


def test_an_end_that_is_not_understood(
    session: Any, spans: Spans, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cassandra, "_describe_answer", boom)
    assert session.execute_async("SELECT a FROM t").result()[0].a == 7
    monkeypatch.setattr(Pages, "take", boom)
    assert session.execute_async("SELECT a FROM t").result()[0].a == 7
    with pytest.raises(SyntaxException):
        session.execute("bad statement")
    assert len([message for message in caplog.messages if "the end of a page" in message]) == 1
    # With the driver's own objects, which its threads may still hold for a moment; old timers keep those that were
    # answered before they were set.
    wait_for(lambda: gc.collect() >= 0 and (OLD or not spans.unfinished), "the end of every span")


def test_a_cluster_that_is_not_there(spans: Spans) -> None:
    CassandraInstrumentor().instrument()
    cluster = Cluster(["127.0.0.1"], port=1)
    with pytest.raises(NoHostAvailable):
        cluster.connect()
    cluster.shutdown()
    (span,) = spans
    assert (span["name"], span["status"], span["attributes"]["server.port"]) == ("CONNECT", "ERROR", 1)


def test_names_of_contrib(spans: Spans, cassandra_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPANBRIDGE_SEMCONV", "contrib")
    CassandraInstrumentor().instrument(include_db_statement=True)
    cluster = Cluster([cassandra_server.host], port=cassandra_server.port)
    cluster.connect("shop").execute("SELECT a FROM t")
    cluster.shutdown()
    span = spans[-1]
    assert span["name"] == "Cassandra"
    assert span["attributes"] == {
        "db.system": "cassandra",
        "db.name": "shop",
        "db.statement": "SELECT a FROM t",
        "net.peer.name": (cassandra_server.host,),
    }
