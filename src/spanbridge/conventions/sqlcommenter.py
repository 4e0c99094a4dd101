"""SQL commenter: who asks, as a comment behind the statement, for the database's own logs to show.

Keys and format are those of the OpenTelemetry contrib instrumentations, after https://google.github.io/sqlcommenter/spec/.
"""

from __future__ import annotations

import re
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import quote

from opentelemetry.trace import TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from spanbridge.conventions.database import text_attributes, text_of
from spanbridge.core.options import Option, boolean, setting

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, MutableMapping

    from opentelemetry.context import Context
    from opentelemetry.trace import SpanContext

    from spanbridge.conventions.database import Query, Target
    from spanbridge.core.tracing import Scope, Setup

Placing: TypeAlias = "Callable[[Any, str, Any], Any]"
"""Given a statement, a comment and the driver's cursor, answers the statement with the comment in it."""

STATEMENT_KEYWORDS = ("query", "operation", "sql", "statement")
"""What PEP 249 and the drivers call the statement."""

FRAMEWORK_TAGS = "SQLCOMMENTER_ORM_TAGS_AND_VALUES"
"""The context key under which frameworks (flask, django, an ORM) leave tags of theirs, a mapping."""

OPTIONS: tuple[Option[Any], ...] = (
    Option("enable_commenter", False, "Append a comment with driver and trace context to statements.", boolean),
    Option("commenter_options", None, "The keys that it maps to False are left out of comments."),
    Option("enable_attribute_commenter", False, "Show the comment in the span's statement, too.", boolean),
)

# Modules whose distribution, which is the one to tell the version, has another name.
_DISTRIBUTIONS = {"MySQLdb": "mysqlclient"}
_propagator = TraceContextTextMapPropagator()


def driver_tags(module: Any, system: str) -> dict[str, Any]:
    """Tell what is known of a driver from its module alone (https://peps.python.org/pep-0249/#globals).

    Args:
        module: the driver's module; None when the caller does not know it.
        system: the `db.system.name`.
    """
    name = getattr(module, "__name__", "unknown")
    tags = {
        "db_driver": f"{name}:{_version(module, name).split(' ')[0]}",
        "dbapi_threadsafety": getattr(module, "threadsafety", "unknown"),
        "dbapi_level": getattr(module, "apilevel", "1.0"),
        "driver_paramstyle": getattr(module, "paramstyle", "unknown"),
    }
    if system == "postgresql":
        tags["libpq_version"] = _libpq_version(module)
    elif system == "mysql":
        tags["mysql_client_version"] = _client_info(module, name)
    return tags


def _version(module: Any, name: str) -> str:
    found = getattr(module, "__version__", None)
    if found is None and name in _DISTRIBUTIONS:
        with suppress(PackageNotFoundError):
            found = version(_DISTRIBUTIONS[name])
    return "unknown" if found is None else str(found)


def _libpq_version(module: Any) -> Any:
    """The libpq in use with psycopg 3, the one built against with psycopg2."""
    try:
        return module.pq.version()
    except AttributeError:
        return getattr(module, "__libpq_version__", None)


def _client_info(module: Any, name: str) -> str:
    """MySQL's client library; "" where only a connection knows it."""
    holder = {"MySQLdb": "_mysql.get_client_info", "pymysql": "get_client_info"}.get(name)
    return str(attrgetter(holder)(module)()) if holder else ""


def _client_info_of(cursor: Any) -> str:
    for path in (
        "_cnx._cmysql.get_client_info",
        "_connection._cmysql.get_client_info",
    ):  # of mysql.connector, by version
        with suppress(AttributeError):
            return str(attrgetter(path)(cursor)())
    return "unknown"


def commenter(
    setup: Setup,
    tags: MutableMapping[str, Any],
    options: Mapping[str, Any] | None,
    *,
    in_attribute: bool = False,
    position: int = 1,
    place: Placing | None = None,
) -> Callable[[Scope[Query]], None]:
    """Make what appends the comment to a call's statement, for `Operation.prepare`.

    Args:
        setup: what the `instrument()` call decided.
        tags: what `driver_tags` tells; completed when the first cursor tells more.
        options: the keys that are False in it are left out.
        in_attribute: whether the span's statement shows the comment, too.
        position: where the statement stands among the call's arguments.
        place: instead of `append`.
    """
    write = writer(tags, options)

    def prepare(scope: Scope[Query]) -> None:
        query = scope.record
        if not scope.span.is_recording():
            return
        text = write(scope)
        if change_statement(scope, place or append, text, position) and in_attribute:
            shown = text_attributes(query.statement, query.target.system, setup.semconv)
            scope.span.set_attributes({key: _behind(value, text) for key, value in shown.items()})

    return prepare


def writer(tags: MutableMapping[str, Any], options: Mapping[str, Any] | None) -> Callable[[Scope[Query]], str]:
    """Make what writes the comment for a call; see `commenter` for the arguments."""
    out = {key for key, wanted in (options or {}).items() if not wanted}

    def write(scope: Scope[Query]) -> str:
        if tags.get("mysql_client_version") == "":
            tags["mysql_client_version"] = _client_info_of(scope.record.cursor)
        found = {**tags, **({} if "opentelemetry_values" in out else _trace_context(scope.context))}
        wanted = {key: value for key, value in found.items() if key not in out}
        framework: Any = scope.context.get(FRAMEWORK_TAGS)
        return comment({**wanted, **(framework or {})})

    return write


TRACE_INJECTED = "spanbridge.db.trace_injected"
"""True on spans whose statement carries their trace context for the vendor's database monitoring."""


def vendor_writer(integration: str) -> Callable[[Scope[Query]], str] | None:
    """Make what writes the comment that the vendor's database monitoring reads; None when it is not asked for.

    Setting `database.comments` is a mapping: `tags` (the same in every comment), `target` (key -> field of `Target`)
    and `trace_context` (whether `traceparent` is among them); `integrations.<name>.comment_tags` are further tags.
    """
    wanted: Mapping[str, Any] = setting("database.comments", {})
    if not wanted:
        return None
    fixed = {**wanted["tags"], **setting(f"integrations.{integration}.comment_tags", {})}
    fields, in_full = wanted["target"], wanted["trace_context"]

    @lru_cache(maxsize=256)
    def of(target: Target) -> dict[str, Any]:
        found = {key: getattr(target, field) for key, field in fields.items()}
        return {**{key: value for key, value in found.items() if value}, **fixed}

    text_of_target = lru_cache(maxsize=256)(lambda target: comment(of(target)))

    def write(scope: Scope[Query]) -> str:
        if not in_full:
            return text_of_target(scope.record.target)
        scope.span.set_attribute(TRACE_INJECTED, True)
        return comment({**of(scope.record.target), "traceparent": _traceparent(scope.span.get_span_context())})

    return write


def preparing(
    setup: Setup, module: Any, system: str, placing: Callable[[Placing], Placing] = lambda place: place
) -> Callable[[Scope[Query]], object] | None:
    """Make what puts every comment that is asked for into the statement of a call; None when there is none.

    Args:
        setup: what the `instrument()` call decided, with the values of `OPTIONS`.
        module: the driver's module.
        system: the `db.system.name`.
        placing: changes how a comment is put behind or before a statement.
    """
    options, vendor = setup.options, vendor_writer(setup.integration)
    steps: list[Callable[[Scope[Query]], object]] = []
    if options.get("enable_commenter"):
        in_attribute = bool(options.get("enable_attribute_commenter"))
        tags = driver_tags(module, system)
        chosen, place = options.get("commenter_options"), placing(append)
        steps.append(commenter(setup, tags, chosen, in_attribute=in_attribute, place=place))
    if vendor is not None:
        in_front = placing(prepend)
        steps.append(lambda scope: change_statement(scope, in_front, vendor(scope)))

    def both(scope: Scope[Query]) -> None:
        for step in steps:
            step(scope)

    return (steps[0] if len(steps) == 1 else both) if steps else None


def change_statement(scope: Scope[Query], place: Placing, text: str, position: int = 1) -> bool:
    """Put a comment into the statement that a call is about to get; answer False if it gets none."""
    args, kwargs = scope.args, scope.kwargs
    if len(args) > position:
        commented = place(args[position], text, scope.record.cursor)
        scope.args = (*args[:position], commented, *args[position + 1 :])
        return True
    for name in STATEMENT_KEYWORDS:
        if name in kwargs:
            scope.kwargs = {**kwargs, name: place(kwargs[name], text, scope.record.cursor)}
            return True
    return False


def _trace_context(context: Context) -> dict[str, str]:
    carrier: dict[str, str] = {}
    _propagator.inject(carrier, context)
    return carrier


def _traceparent(context: SpanContext) -> str:
    """As version 00 began: its readers may know `01` alone for a sampled trace, and no state beside it."""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & TraceFlags.SAMPLED:02x}"


def comment(tags: Mapping[str, Any]) -> str:
    """Write ` /*key='value',...*/`, in the order of the keys; "" when there is no tag with a value.

    Keys and values are URL-encoded, so that none can end the comment; `%` is doubled for drivers that format.
    """
    pairs = [f"{_quoted(key)}={_quoted(value)!r}" for key, value in sorted(tags.items()) if value is not None]
    return f" /*{','.join(pairs)}*/" if pairs else ""


def _quoted(value: Any) -> Any:
    if isinstance(value, (bool, int, float)):
        return value
    return quote(value if isinstance(value, (str, bytes)) else str(value)).replace("%", "%%")


def append(statement: Any, text: str, cursor: Any = None) -> Any:
    """Answer a statement with a comment behind it, before its final semicolon.

    Text, bytes and template strings stay what they are; what a driver composes becomes text; all else is left alone.

    Args:
        statement: as the application wrote it.
        text: the comment.
        cursor: the driver's cursor or connection, which composed statements need.
    """
    return _changed(statement, lambda body: _behind(body, text), cursor, at_end=True)


def prepend(statement: Any, text: str, cursor: Any = None) -> Any:
    """Answer a statement with a comment before it; see `append`."""
    return _changed(statement, lambda body: f"{text.lstrip()} {body}", cursor)


def after_verb(place: Placing) -> Placing:
    """Make a `Placing` for drivers that rewrite an INSERT of many rows: they want the verb first and VALUES last."""

    def insert(statement: Any, text: str, cursor: Any = None) -> Any:
        if not _REWRITTEN.match(text_of(statement, cursor)):
            return place(statement, text, cursor)
        return _changed(statement, lambda body: _REWRITTEN.sub(lambda verb: f"{verb[0]}{text}", body, count=1), cursor)

    return insert


_REWRITTEN = re.compile(r"\s*(?:INSERT|REPLACE)\b", re.IGNORECASE)


def _changed(statement: Any, change: Callable[[str], str], cursor: Any, *, at_end: bool = False) -> Any:
    if isinstance(statement, bytes):
        return change(statement.decode("latin-1")).encode("latin-1")
    if isinstance(getattr(statement, "strings", None), tuple):
        strings = list(statement.strings)
        place = -1 if at_end else 0
        strings[place] = change(strings[place])
        *before, last = strings
        return type(statement)(*chain.from_iterable(zip(before, statement.interpolations, strict=True)), last)
    plain = text_of(statement, cursor)
    return change(plain) if plain else statement


def _behind(statement: str, text: str) -> str:
    body = statement.rstrip()
    return f"{body[:-1]}{text};" if body.endswith(";") else f"{body}{text}"
