"""cassandra (cassandra-driver, scylla-driver): one CLIENT span per statement, batch and page, until it is answered.

Also of a `Cluster.connect` that fails. Statements are shown without their literals. Not traced: preparing, the control
connection; speculative executions and retries belong to the statement's span.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache, partial, wraps
from typing import TYPE_CHECKING, Any

from spanbridge.conventions import database
from spanbridge.conventions.database import Query, Target
from spanbridge.core.guard import guarded
from spanbridge.core.instrumentor import Instrumentor
from spanbridge.core.options import Option, boolean
from spanbridge.core.patching import Library, Patch
from spanbridge.core.tracing import apart, opener, traced, traced_failures
from spanbridge.version import __version__ as __version__

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from spanbridge.core.tracing import Operation, Scope, Setup, Wrapped

_SHOWN = 2  # statements of a batch that are written out

# The attribute of a response future that knows its query and the open scope of the page on its way.
_STATE = "_spanbridge_pages"


class Pages:
    """What has been asked of one response future: the query, and the scope of the page that is on its way."""

    __slots__ = ("number", "query", "scope")

    def __init__(self, query: Query, scope: Scope[Query]) -> None:
        self.query = query
        self.number = 1
        self.scope: Scope[Query] | None = scope

    def take(self) -> Scope[Query] | None:
        """Answer the open scope, once."""
        scope, self.scope = self.scope, None
        return scope


@lru_cache(maxsize=256)
def _target(keyspace: str | None, host: str | None, port: int | None) -> Target:
    return Target("cassandra", keyspace, host=host, port=port)


def _where(cluster: Any, keyspace: str | None) -> Target:
    """Answer a cluster's first contact point; which node answers is known afterwards."""
    first = next(iter(getattr(cluster, "contact_points", None) or ()), None)
    host = first[0] if isinstance(first, tuple) else first
    port = getattr(cluster, "port", None)
    return _target(keyspace, host if isinstance(host, str) else None, port if isinstance(port, int) else None)


def _text(statement: Any) -> str:
    """Answer a statement's text: a bound one's is that of what was prepared."""
    if hasattr(statement, "prepared_statement"):
        statement = statement.prepared_statement
    return database.text_of(getattr(statement, "query_string", statement))


def _batch(statement: Any) -> list[Any] | None:
    """Answer a batch's statements, as triples of (whether prepared, text or id, parameters)."""
    found = getattr(statement, "_statements_and_parameters", None)
    return list(found) if found is not None else None


def _execute(session: Any, query: Any, parameters: Any = None, *args: Any, **kwargs: Any) -> Query:
    keyspace = getattr(query, "keyspace", None) or session.keyspace
    target = _where(session.cluster, keyspace if isinstance(keyspace, str) else None)
    if (statements := _batch(query)) is not None:
        text = "; ".join(text for prepared, text, *_ in statements[:_SHOWN] if not prepared)
        return Query(target, text, verb="BATCH", batch=len(statements), cursor=(session, query))
    return Query(target, _text(query), parameters=parameters, cursor=(session, query))


def _connect(cluster: Any, keyspace: str | None = None, *args: Any, **kwargs: Any) -> Query:
    return Query(_where(cluster, keyspace), verb="CONNECT")


def _extra(query: Query) -> dict[str, Any]:
    """Tell of cluster and consistency."""
    session, statement = query.cursor
    extra = {}
    if isinstance(name := getattr(getattr(session.cluster, "metadata", None), "cluster_name", None), str):
        extra["cassandra.cluster"] = name
    if isinstance(level := getattr(statement, "consistency_level", None), int):
        from cassandra import ConsistencyLevel  # type: ignore[import-untyped]

        extra["cassandra.consistency.level"] = ConsistencyLevel.value_to_name[level].lower()
    return extra


def _describe_answer(span: Span, future: Any, rows: Any, number: int) -> None:
    """Tell how many rows there are, which page they are, and of the node that answered."""
    if isinstance(rows, list):
        span.set_attribute("db.response.returned_rows", len(rows))
    more = bool(getattr(future, "has_more_pages", False))
    if more or number > 1:
        span.set_attribute("cassandra.page_number", number)
    host = getattr(future, "_current_host", None)
    if isinstance(address := getattr(host, "address", None), str):
        span.set_attribute("server.address", address)


# The answer to each page comes in the driver's own thread; where it is not understood, the scope goes with the future.

_guarded = partial(guarded, site="cassandra: the end of a page")


@_guarded
def _answered(rows: Any, future: Any, pages: Pages, *, described: bool) -> None:
    if (scope := pages.take()) is not None:
        if described and scope.span.is_recording():
            _describe_answer(scope.span, future, rows, pages.number)
        scope.end()


@_guarded
def _failed(error: BaseException, pages: Pages) -> None:
    if (scope := pages.take()) is not None:
        scope.fail(error)


@_guarded
def _heard_again(future: Any, pages: Pages, *, described: bool) -> None:
    """Ask for the answer to a further page, too: before 3.9 the driver forgets a callback that it can call at once."""
    kept = getattr(future, "_callbacks", None)
    if kept is not None and all(callback is not _answered for callback, *_ in kept):
        future.add_callback(_answered, future, pages, described=described)


def _operation(setup: Setup) -> Operation[Query]:
    semconv = setup.semconv
    made = database.operation(setup, _execute)
    base = made.attributes

    def stream(scope: Scope[Query], future: Any) -> Any:
        if not hasattr(type(future), "add_callbacks"):
            return None
        pages = Pages(scope.record, scope)
        setattr(future, _STATE, pages)
        scope.leave()  # the answer may come at any time, in another thread
        future.add_callbacks(
            _answered,
            _failed,
            callback_args=(future, pages),
            callback_kwargs={"described": not semconv.contrib},
            errback_args=(pages,),
        )
        return future

    def contrib_attributes(query: Query) -> dict[str, Any]:
        session, statement = query.cursor
        rendered = {
            key: value
            for key, value in query.target.attributes(semconv).items()
            if key not in {"net.peer.name", "net.peer.port", "server.address", "server.port"}
        }
        points = session.cluster.contact_points
        rendered.update(dict.fromkeys(_peer_keys(setup), points))
        if setup.options["include_db_statement"]:
            rendered.update(dict.fromkeys(database.text_keys(semconv), str(statement)))
        return rendered

    if semconv.contrib:
        return replace(
            made, name=lambda query: "Cassandra", attributes=contrib_attributes, succeeded=None, stream=stream
        )
    return replace(made, attributes=lambda query: {**base(query), **_extra(query)}, succeeded=None, stream=stream)


def _peer_keys(setup: Setup) -> tuple[str, ...]:
    names = setup.semconv.http
    return (("net.peer.name",) if names.old else ()) + (("server.address",) if names.stable else ())


def _executing(wrapped: Wrapped, setup: Setup) -> Wrapped:
    return traced(wrapped, setup, _operation(setup))


def _fetching(wrapped: Wrapped, setup: Setup) -> Wrapped:
    """Make a span for each further page; its end is what the first page's callbacks see."""

    def describe(future: Any) -> Query | None:
        pages = getattr(future, _STATE, None)
        return pages.query if pages is not None and future.has_more_pages else None

    described = not setup.semconv.contrib
    pages_operation = replace(_operation(setup), describe=describe)
    begin = apart(opener(setup, pages_operation, f"{setup.integration}: next page", wrapped))

    @wraps(wrapped)
    def start_fetching_next_page(*args: Any, **kwargs: Any) -> Any:
        scope = begin(args, kwargs)
        if scope is None:
            return wrapped(*args, **kwargs)
        pages = getattr(args[0], _STATE)
        pages.number += 1
        pages.scope = scope
        try:
            result = wrapped(*args, **kwargs)
        except BaseException as error:
            scope.fail(error)
            raise
        _heard_again(args[0], pages, described=described)
        return result

    return start_fetching_next_page


def _connecting(wrapped: Wrapped, setup: Setup) -> Wrapped:
    return traced_failures(wrapped, setup, database.operation(setup, _connect))


class CassandraInstrumentor(Instrumentor):
    """Traces the drivers from 3.5: every session, whenever it was made; futures, callbacks and pages included."""

    library = Library("cassandra", ("cassandra-driver >= 3.5", "scylla-driver >= 3.21"), tested="3.30.1")
    database_alone = True
    options = (
        Option("include_db_statement", False, "Show statements where names are contrib's; ours always do.", boolean),
    )
    patches = (
        Patch("cassandra.cluster", "Session.execute_async", _executing),
        Patch("cassandra.cluster", "Session.execute_graph_async", _executing),
        Patch("cassandra.cluster", "ResponseFuture.start_fetching_next_page", _fetching),
        Patch("cassandra.cluster", "Cluster.connect", _connecting),
    )
