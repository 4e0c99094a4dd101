"""SQL commenter: who asks, as a comment behind the statement, for the database's own logs to show.

Keys and format are those of the OpenTelemetry contrib instrumentations, after https://google.github.io/sqlcommenter/spec/.
"""

from __future__ import annotations

from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from spanbridge.conventions.database import text_attributes, text_of
from spanbridge.core.options import Option, boolean

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, MutableMapping

    from opentelemetry.context import Context

    from spanbridge.conventions.database import Query
    from spanbridge.core.tracing import Scope, Setup

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
) -> Callable[[Scope[Query]], None]:
    """Make what appends the comment to a call's statement, for `Operation.prepare`.

    Args:
        setup: what the `instrument()` call decided.
        tags: what `driver_tags` tells; completed when the first cursor tells more.
        options: the keys that are False in it are left out.
        in_attribute: whether the span's statement shows the comment, too.
        position: where the statement stands among the call's arguments.
    """
    out = {key for key, wanted in (options or {}).items() if not wanted}

    def prepare(scope: Scope[Query]) -> None:
        args, query = scope.args, scope.record
        if len(args) <= position or not scope.span.is_recording():
            return
        if tags.get("mysql_client_version") == "":
            tags["mysql_client_version"] = _client_info_of(query.cursor)
        found = {**tags, **({} if "opentelemetry_values" in out else _trace_context(scope.context))}
        wanted = {key: value for key, value in found.items() if key not in out}
        framework: Any = scope.context.get(FRAMEWORK_TAGS)
        text = comment({**wanted, **(framework or {})})
        commented = append(args[position], text, query.cursor)
        scope.args = (*args[:position], commented, *args[position + 1 :])
        if in_attribute:
            shown = text_attributes(query.statement, query.target.system, setup.semconv)
            scope.span.set_attributes({key: _behind(value, text) for key, value in shown.items()})

    return prepare


def _trace_context(context: Context) -> dict[str, str]:
    carrier: dict[str, str] = {}
    _propagator.inject(carrier, context)
    return carrier


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
    if isinstance(statement, bytes):
        return _behind(statement.decode("latin-1"), text).encode("latin-1")
    if isinstance(getattr(statement, "strings", None), tuple):
        *strings, last = statement.strings
        pairs = zip(strings, statement.interpolations, strict=True)
        return type(statement)(*chain.from_iterable(pairs), _behind(last, text))
    plain = text_of(statement, cursor)
    return _behind(plain, text) if plain else statement


def _behind(statement: str, text: str) -> str:
    body = statement.rstrip()
    return f"{body[:-1]}{text};" if body.endswith(";") else f"{body}{text}"
