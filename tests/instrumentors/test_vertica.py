"""vertica-python against a stand-in for the server."""

from __future__ import annotations

import warnings
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # the oldest version imports `crypt`
    import vertica_python

from spanbridge.instrumentors.vertica import VerticaInstrumentor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spanbridge.testing import Payload, Spans
    from tests.servers import Server


@pytest.fixture
def connection(vertica_server: Server, spans: Spans) -> Iterator[Any]:
    VerticaInstrumentor().instrument()
    where = {"host": vertica_server.host, "port": vertica_server.port, "database": "shop", "tlsmode": "disable"}
    with closing(vertica_python.connect(user="me", password="", **where)) as connection:
        yield connection


def names(spans: Spans) -> list[str]:
    return [span["name"] for span in spans]


def test_a_statement_is_one_client_span(connection: Any, spans: Spans, vertica_server: Server) -> None:
    cursor = connection.cursor()
    cursor.execute("SELECT 'topsecret', $$topsecret$$")
    assert [[int(value) for value in row] for row in cursor.fetchall()] == [[7]]  # 0.7 answers bytes
    [span] = spans
    assert (span["name"], span["kind"], span["scope"]) == ("SELECT", "CLIENT", "spanbridge.instrumentors.vertica")
    assert span["attributes"] == {
        "db.system.name": "vertica",
        "db.namespace": "shop",
        "db.user": "me",
        "server.address": vertica_server.host,
        "server.port": vertica_server.port,
        "db.operation.name": "SELECT",
        "db.query.text": "SELECT ?, ?",
    }


def test_fetches_may_have_spans(vertica_server: Server, spans: Spans, payload: Payload) -> None:
    VerticaInstrumentor().instrument(trace_fetch=True)
    where = {"host": vertica_server.host, "port": vertica_server.port, "database": "shop", "tlsmode": "disable"}
    with closing(vertica_python.connect(user="me", password="", **where)) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT 1")
        cursor.fetchone()
    names = [(row["name"], row["resource"]) for row, *_ in payload()]
    assert names == [("vertica.query", "SELECT ?"), ("vertica.fetchone", "vertica.fetchone")]


def test_transactions_are_statements(connection: Any, spans: Spans) -> None:
    connection.commit()
    connection.rollback()
    assert [span["attributes"]["db.query.text"] for span in spans] == ["COMMIT;", "ROLLBACK;"]


def test_an_error_is_recorded(connection: Any, spans: Spans) -> None:
    with pytest.raises(vertica_python.errors.QueryError):
        connection.cursor().execute("bad statement")
    [span] = spans
    assert span["status"] == "ERROR"
    assert span["attributes"]["db.response.status_code"] == "42601"


# What the oldest version could not connect, it leaves open.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")
def test_a_refused_connection_is_seen(spans: Spans) -> None:
    VerticaInstrumentor().instrument()
    with pytest.raises(Exception):
        vertica_python.connect(host="127.0.0.1", port=1, user="me", password="topsecret", database="shop")
    [span] = spans
    assert (span["name"], span["status"]) == ("CONNECT", "ERROR")
    assert span["attributes"]["server.port"] == 1
    assert "topsecret" not in repr(span)
