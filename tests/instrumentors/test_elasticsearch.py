"""Clients of Elasticsearch from 1.6, and of OpenSearch, against servers that speak their protocols."""

from __future__ import annotations

import asyncio
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

NAMES = ("elasticsearch", *(f"elasticsearch{major}" for major in (7, 6, 5, 2, 1)), "opensearchpy")
FOUND = next((name for name in NAMES if find_spec(name)), "elasticsearch")
pytest.importorskip(FOUND)

from spanbridge.instrumentors.elasticsearch import ElasticsearchInstrumentor  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from spanbridge.testing import Payload, Spans
    from tests.servers import Server

library = import_module(FOUND)
OPEN = FOUND == "opensearchpy"
MAJOR = 7 if OPEN else library.VERSION[0]
Client = library.OpenSearch if OPEN else library.Elasticsearch
AsyncClient = getattr(library, "AsyncOpenSearch" if OPEN else "AsyncElasticsearch", None)
TYPED = {"doc_type": "_doc"} if MAJOR < 7 else {}
REFUSED = {"max_retries": 0}

pytestmark = [
    # What old clients say of their server, and leave to the garbage collector.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:.*(security|verify|HTTPResponse|certificate).*"),
]
needs_asyncio = pytest.mark.skipif(AsyncClient is None, reason="there are asyncio clients since 7.8")


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Server:
    return request.getfixturevalue("opensearch_server" if OPEN else "elasticsearch_server")


@pytest.fixture
def client(spans: Spans, server: Server) -> Iterator[Any]:
    made = Client([f"http://{server.host}:{server.port}"])  # before `instrument()`
    store(made, "users", 1, {"name": "ann"})
    spans.clear()  # of the client's own
    ElasticsearchInstrumentor().instrument()
    yield made
    ElasticsearchInstrumentor().uninstrument()
    close(made)


def close(client: Any) -> None:
    if hasattr(client.transport, "close"):
        client.transport.close()


def store(client: Any, index: str, number: int, document: dict[str, Any]) -> Any:
    body = {"document": document} if MAJOR >= 8 else {"body": document}
    return client.index(index=index, id=str(number), **body, **TYPED)


def fetch(client: Any, index: str, number: int) -> Any:
    return client.get(index=index, id=str(number), **TYPED)


def find(client: Any, index: str, query: dict[str, Any]) -> Any:
    return client.search(index=index, **({"query": query} if MAJOR >= 8 else {"body": {"query": query}}))


def names(spans: Spans) -> list[str]:
    return [span["name"] for span in spans]


def test_a_request(client: Any, spans: Spans, server: Server, payload: Payload) -> None:
    assert fetch(client, "users", 1)["_source"] == {"name": "ann"}
    (span,) = spans
    assert (span["name"], span["kind"], span["status"]) == ("get", "CLIENT", "UNSET")
    status = {"http.response.status_code": 200} if "http.response.status_code" in span["attributes"] else {}
    assert span["attributes"] == {
        "db.system.name": "opensearch" if OPEN else "elasticsearch",
        "db.operation.name": "get",
        "db.collection.name": "users",
        "http.request.method": "GET",
        "url.path": "/users/_doc/1",
        "server.address": server.host,
        "server.port": server.port,
        **status,
    }
    assert bool(status) is (MAJOR >= 8 or MAJOR < 2)
    ((mapped,),) = payload()
    named = (mapped["service"], mapped["name"], mapped["resource"], mapped["type"])
    assert named == ("elasticsearch", "elasticsearch.query", "GET /users/_doc/?", "elasticsearch")


def test_bodies_and_query_strings_stay_here(client: Any, spans: Spans) -> None:
    store(client, "users", 2, {"name": "secret"})
    find(client, "users", {"match": {"name": "secret"}})
    client.search(q="name:secret")
    assert names(spans) == ["index", "search", "search"]
    assert "secret" not in repr(list(spans))
    assert spans[2]["attributes"]["url.query"] == "q=?"


@pytest.mark.parametrize(
    ("how", "shown"), [("masked", '{"match": {"name": "?"}}'), ("raw", '{"match": {"name": "ann"}}')]
)
def test_bodies_when_asked(client: Any, spans: Spans, how: str, shown: str) -> None:
    ElasticsearchInstrumentor().uninstrument()
    ElasticsearchInstrumentor().instrument(capture_body=how)
    find(client, "users", {"match": {"name": "ann"}})
    assert shown in spans[0]["attributes"]["db.query.text"]


def test_bulks_and_scrolls(client: Any, spans: Spans) -> None:
    helpers = import_module(f"{FOUND}.helpers")
    documents = [{"_index": "many", "_id": str(number), "n": number} for number in range(5)]
    helpers.bulk(client, documents, refresh=True)
    assert names(spans) == ["bulk"]
    if MAJOR >= 5:  # how older clients scroll, no server of ours knows
        list(helpers.scan(client, index="many", size=1))
        # Newer clients say what a call is; of older ones the path does.
        assert names(spans)[:3] in (["bulk", "search", "scroll"], ["bulk", "search", "search"])
    assert {span["parent"] for span in spans} == {None}
    assert {span["scope"] for span in spans} == {"spanbridge.instrumentors.elasticsearch"}


def test_what_is_not_found(client: Any, spans: Spans) -> None:
    with pytest.raises(library.NotFoundError):
        fetch(client, "users", 77)
    (span,) = spans
    assert (span["status"], span["attributes"]["db.response.status_code"]) == ("ERROR", "404")
    spans.clear()
    assert not client.exists(index="users", id="77", **TYPED)
    assert [span["status"] for span in spans] == ["UNSET"]


def test_a_server_that_is_not_there(client: Any, spans: Spans) -> None:
    absent = Client(["http://127.0.0.1:1"], **REFUSED)
    with pytest.raises(library.ConnectionError):
        absent.info()
    close(absent)
    (span,) = spans
    assert (span["name"], span["status"]) == ("info", "ERROR")
    assert span["attributes"]["error.type"] == "ConnectionError"
    assert (span["attributes"]["server.address"], span["attributes"]["server.port"]) == ("127.0.0.1", 1)


def test_hooks(client: Any, spans: Spans) -> None:
    ElasticsearchInstrumentor().uninstrument()
    ElasticsearchInstrumentor().instrument(
        request_hook=lambda span, method, url, kwargs: span.set_attribute("request", f"{method} {url}"),
        response_hook=lambda span, body: span.set_attribute("found", body["found"]),
    )
    fetch(client, "users", 1)
    assert (spans[0]["attributes"]["request"], spans[0]["attributes"]["found"]) == ("GET /users/_doc/1", True)


def test_the_http_client_below_stays_silent(client: Any, spans: Spans) -> None:
    import spanbridge

    spanbridge.instrument()
    fetch(client, "users", 1)
    assert names(spans) == ["get"]


@pytest.fixture
def native() -> Callable[[], Any]:
    telemetry = pytest.importorskip(f"{FOUND}._otel")
    return telemetry.OpenTelemetry


@pytest.mark.skipif(MAJOR < 8, reason="the clients have spans of their own since 8.13")
def test_the_clients_own_spans(client: Any, spans: Spans, native: Any) -> None:
    client.cluster.health()
    assert names(spans) == ["cluster.health"]
    spans.clear()
    ElasticsearchInstrumentor().uninstrument()
    telemetry = native(tracer=spans.provider.get_tracer("native"))
    with telemetry.span("GET", endpoint_id="search", path_parts={}):
        pass
    assert names(spans) == ["search"]


def test_names_of_contrib(client: Any, spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPANBRIDGE_SEMCONV", "contrib")
    monkeypatch.setenv("OTEL_PYTHON_INSTRUMENTATION_ELASTICSEARCH_ENABLED", "false")
    ElasticsearchInstrumentor().uninstrument()
    ElasticsearchInstrumentor(span_name_prefix="Search").instrument()
    if hasattr(client, "_otel"):
        client._otel.enabled = False
    fetch(client, "users", 1)
    (span,) = spans
    assert span["name"] == "Search/users/_doc/:id"
    assert span["attributes"]["elasticsearch.id"] == "1"
    assert span["attributes"]["elasticsearch.url"] == "/users/_doc/1"
    ElasticsearchInstrumentor(span_name_prefix=None)


@needs_asyncio
def test_asyncio(client: Any, spans: Spans, server: Server) -> None:
    async def work() -> None:
        made = AsyncClient([f"http://{server.host}:{server.port}"])
        await asyncio.gather(*(made.get(index="users", id="1", **TYPED) for _ in range(3)))
        with pytest.raises(library.NotFoundError):
            await made.get(index="users", id="77", **TYPED)
        await made.close()

    with spans.provider.get_tracer("test").start_as_current_span("root"):
        asyncio.run(work())
    assert names(spans) == ["get"] * 4 + ["root"]
    assert {span["parent"] for span in spans[:-1]} == {"root"}
    assert [span["status"] for span in spans] == ["UNSET"] * 3 + ["ERROR", "UNSET"]
