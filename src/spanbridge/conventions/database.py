"""SQL databases: one CLIENT span per statement, commit or rollback, with the literals taken out.

Drivers say where a connection leads (`Target`, made once per connection) and which of their methods run what.
https://opentelemetry.io/docs/specs/semconv/database/database-spans/
"""

from __future__ import annotations

import re
from functools import lru_cache, wraps
from inspect import getattr_static
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import SpanKind

from spanbridge.conventions.sql import STATEMENT_LIMIT, dialect_of, operation_name, sanitize, without_values
from spanbridge.core.attributes import checked, has_attribute, plain_value
from spanbridge.core.failure import record_failure
from spanbridge.core.guard import described, report
from spanbridge.core.semconv import Semconv, pick
from spanbridge.core.tracing import DATABASE, HTTP, Operation, traced

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from opentelemetry.trace import Span

    from spanbridge.core.tracing import Setup

_OLD = (("db.system", "system"), ("db.name", "namespace"), ("db.user", "user"))
_STABLE = (("db.system.name", "system"), ("db.namespace", "namespace"))
_USER = (("db.user", "user"),)  # old as well, but nothing has taken its place
_OLD_PEER = (("net.peer.name", "host"), ("net.peer.port", "port"))
_STABLE_PEER = (("server.address", "host"), ("server.port", "port"))


class Target:
    """Where a connection leads; fields that the driver does not tell are None.

    Args:
        system: the `db.system.name`, such as `postgresql`.
        namespace: the database.
        user: who is logged in.
        host: the server's address.
        port: the server's port.
        more: further attributes that all spans of the connection share, where names are not contrib's.
    """

    __slots__ = ("_place", "_rendered", "host", "more", "namespace", "port", "system", "user")

    def __init__(
        self,
        system: str,
        namespace: str | None = None,
        user: str | None = None,
        host: str | None = None,
        port: int | None = None,
        more: tuple[tuple[str, Any], ...] = (),
    ) -> None:
        self.system = system
        self.namespace = namespace
        self.user = user
        self.host = host
        self.port = port
        self.more = more
        self._rendered: tuple[Semconv, dict[str, Any]] | None = None
        self._place: tuple[Semconv, dict[str, Any]] | None = None

    def attributes(self, semconv: Semconv) -> dict[str, Any]:
        """Render the part of the attributes that all spans of the connection share, in plain values.

        It is kept for the next call.
        """
        if self._rendered is None or self._rendered[0] is not semconv:
            told = [(key, getattr(self, field)) for key, field in _rows(semconv)]
            if not semconv.contrib:
                told += self.more
            values = {key: value for key, given in told if (value := plain_value(given)) is not None and value != ""}
            self._rendered = (semconv, values)
        return self._rendered[1]

    def place(self, semconv: Semconv) -> dict[str, Any]:
        """Render what a driver knows better than the layer above it; kept likewise."""
        if self._place is None or self._place[0] is not semconv:
            told = _STABLE_PEER if semconv.contrib else (*_STABLE_PEER, ("db.namespace", "namespace"))
            values = {key: value for key, field in told if (value := getattr(self, field)) is not None}
            self._place = (semconv, values)
        return self._place[1]


def _rows(semconv: Semconv) -> tuple[tuple[str, str], ...]:
    # contrib moves the peer's names with the HTTP signal, not with the database's.
    peer = semconv.http if semconv.contrib else semconv.database
    rows = pick(semconv.database, _OLD, _STABLE if semconv.contrib else (*_STABLE, *_USER))
    rows += (_OLD_PEER if peer.old else ()) + (_STABLE_PEER if peer.stable else ())
    return rows


def text_keys(semconv: Semconv) -> tuple[str, ...]:
    """Name the attributes that a statement's text goes by."""
    names = semconv.database
    return (("db.statement",) if names.old else ()) + (("db.query.text",) if names.stable else ())


class Query:
    """One statement on its way.

    Args:
        target: where it goes.
        statement: the text as the application wrote it; "" when there is none.
        cursor: the driver's cursor, asked for its row count afterwards, or the connection.
        parameters: what the statement is filled with; leaves the process only if `capture_parameters` asks for it.
        batch: how many sets of parameters, `UNCOUNTED` or None for a single execution.
        verb: the `db.operation.name`, found in the statement when not given.
    """

    __slots__ = ("batch", "cursor", "parameters", "statement", "target", "verb")

    def __init__(
        self,
        target: Target,
        statement: str = "",
        cursor: Any = None,
        parameters: Any = None,
        batch: int | None = None,
        verb: str | None = None,
    ) -> None:
        self.target = target
        self.statement = statement
        self.cursor = cursor
        self.parameters = parameters
        self.batch = batch
        self.verb = verb


def text_of(statement: Any, connection: Any = None) -> str:
    """Answer a statement as text: str, bytes, a psycopg `Composable`, a template string; "" for anything else."""
    if isinstance(statement, str):
        return statement
    if isinstance(statement, (bytes, bytearray)):
        return statement.decode("utf-8", "replace")
    if hasattr(statement, "as_string"):
        return str(statement.as_string(connection))
    if hasattr(statement, "interpolations") and hasattr(statement, "strings"):
        names = [f"{{{part.expression}}}" for part in statement.interpolations] + [""]
        return "".join(literal + name for literal, name in zip(statement.strings, names, strict=True))
    return ""


@lru_cache(maxsize=256)
def shared_target(
    system: str,
    namespace: str | None,
    user: str | None,
    host: str | None,
    port: int | None,
    more: tuple[tuple[str, Any], ...] = (),
) -> Target:
    """Answer the one `Target` of its kind: connections are many, databases few, and each remembers its attributes."""
    return Target(system, namespace, user, host, port, more)


def first_word(statement: str) -> str:
    """Answer the first word after a leading comment, as contrib names spans."""
    if statement.startswith("/*"):
        statement = statement.partition("*/")[2]
    words = statement.split(None, 1)
    return words[0] if words else ""


UNCOUNTED = -1
"""The size of a batch whose sets of parameters cannot be counted but by consuming them."""


def batch_size(parameters: Any) -> int:
    """Answer how many sets of parameters there are, or `UNCOUNTED`."""
    return len(parameters) if isinstance(parameters, (list, tuple)) else UNCOUNTED


def text_attributes(statement: str, system: str, semconv: Semconv) -> dict[str, str]:
    """Render a statement as spans carry it: without its literals, or as it is where contrib is followed."""
    shown = statement if semconv.contrib else sanitize(statement, dialect_of(system))
    return dict.fromkeys(text_keys(semconv), shown)


def operation(
    setup: Setup,
    describe: Callable[..., Query | None],
    *,
    prepare: Callable[..., object] | None = None,
    target_of: Callable[..., Target | None] | None = None,
) -> Operation[Query]:
    """Compile the kind of call that `describe` describes.

    Args:
        setup: what the `instrument()` call decided.
        describe: takes the call's arguments, answers the query.
        prepare: called with the open scope (commenters).
        target_of: takes the call's arguments, answers the target alone, for less than `describe` costs.
    """
    semconv = setup.semconv
    contrib = semconv.contrib
    captures = bool(setup.options.get("capture_parameters"))
    find_verb = first_word if contrib else operation_name

    def name(query: Query) -> str:
        if query.verb is None:
            query.verb = find_verb(query.statement)
        return query.verb or query.target.namespace or query.target.system

    @lru_cache(maxsize=512)
    def static(target: Target, statement: str, verb: str | None) -> tuple[str, dict[str, Any]]:
        """Make what depends on connection and statement alone once, never on parameters: (the verb, attributes)."""
        if verb is None:
            verb = find_verb(statement)
        attributes = dict(target.attributes(semconv))
        if statement or not verb or contrib:
            attributes.update(text_attributes(statement, target.system, semconv))
        if verb and not contrib:
            attributes["db.operation.name"] = verb
        return verb, checked(attributes)

    def attributes(query: Query) -> dict[str, Any]:
        # A cache of long statements would hold too much.
        render = static if len(query.statement) <= STATEMENT_LIMIT else static.__wrapped__
        query.verb, rendered = render(query.target, query.statement, query.verb)
        if query.batch is None and not captures:
            return rendered
        rendered = dict(rendered)
        if query.batch is not None and not contrib:
            if query.batch == UNCOUNTED:
                rendered["spanbridge.db.batch"] = True
            else:
                rendered["db.operation.batch.size"] = query.batch
        if captures and query.parameters is not None:
            rendered["db.statement.parameters"] = str(query.parameters)
        return rendered

    def succeeded(span: Span, query: Query, result: Any) -> None:
        # What a connection's own `execute` returns is the cursor.
        rows = getattr(query.cursor, "rowcount", getattr(result, "rowcount", None))
        if type(rows) is int and 0 <= rows < _NO_COUNT:
            span.set_attribute("db.response.returned_rows", rows)

    def failed(span: Span, query: Query, error: BaseException) -> None:
        clean = None if contrib else _cleaner(query, error)
        record_failure(span, error, error_type=semconv.database.stable, clean=clean)
        code = status_code(error)
        if code and not contrib:
            span.set_attribute("db.response.status_code", code)

    def described_target(*args: Any, **kwargs: Any) -> Target | None:
        query = describe(*args, **kwargs)
        return None if query is None else query.target

    find_target = target_of or described_target

    def enrich(outer: Span, *args: Any, **kwargs: Any) -> None:
        """Tell the outer layer's span where its statement went, unless it knows."""
        target = find_target(*args, **kwargs)
        if target is not None:
            for key, value in target.place(semconv).items():
                if not has_attribute(outer, key):
                    outer.set_attribute(key, value)

    return Operation(
        SpanKind.CLIENT,
        describe,
        name,
        attributes,
        layer=DATABASE,
        covers=DATABASE | HTTP,
        prepare=prepare,
        succeeded=None if contrib else succeeded,
        failed=failed,
        enrich=enrich,
    )


def _cleaner(query: Query, error: BaseException) -> Callable[[str], str]:
    """Compile what takes the values of a statement out of what is said of its failure."""
    statement, dialect, filled, stored = (
        query.statement,
        dialect_of(query.target.system),
        query.parameters,
        [*_stored(error)],
    )
    given = filled is not None and not (isinstance(filled, (dict, list, tuple)) and not filled)
    # Of the statement of an error before this one, nothing is known.
    excerpts = _EXCERPTS if given or error.__context__ is not None else ()

    def clean(text: str) -> str:
        for value in stored:
            text = text.replace(value, "?")
        for pattern, shown in excerpts:
            text = pattern.sub(shown, text)
        return without_values(text, statement, dialect, filled)

    return clean


# Where the messages of PostgreSQL (in the server's language) and MySQL quote a statement, which a driver may have
# filled in, and written its parameters in ways of its own.
_EXCERPTS = ((re.compile(r"(?m)^(\w+ \d+ ?: ).+$"), r"\1?"), (re.compile(r"(?s)( near ').+(' at line \d)"), r"\1?\2"))

# Where MySQL's messages quote a value, which may hold quotes itself.
_MYSQL_QUOTED = re.compile(
    r"""(?s)(?:Duplicate entry |value: )('.*')(?= for key | for column | for function |"?\)?$)"""
)
_DOUBLE_QUOTED = re.compile(r'".*?"', re.DOTALL)


def _stored(error: BaseException | None) -> Iterator[str]:
    """Yield what the messages of an error, and of those before it, quote of stored data, which no statement shows."""
    for _ in range(_CHAINED):
        if error is None:
            return
        yield from _MYSQL_QUOTED.findall(described(error))
        diagnostics = getattr(error, "diag", None)  # psycopg2, psycopg 3: apart, for the labels are translated
        for field in ("message_detail", "context", "internal_query"):
            if value := getattr(diagnostics, field, None):
                yield value
        if (getattr(diagnostics, "sqlstate", None) or "").startswith("22"):  # a value is wrong: it is in quotes
            yield from _DOUBLE_QUOTED.findall(getattr(diagnostics, "message_primary", None) or "")
        error = error.__cause__ or error.__context__


_CHAINED = 8


# mysqlclient's cursors that do not know theirs say 2 ** 64 - 1, others -1.
_NO_COUNT = 1 << 63

# Where drivers keep the database's own code: MySQL's number, which it prefers to its SQLSTATE, or SQLSTATE.
# https://opentelemetry.io/docs/specs/semconv/database/mysql/
_CODE_FIELDS = ("errno", "sqlstate", "pgcode", "sqlite_errorname")


def status_code(error: BaseException) -> str:
    """Answer the database's own code of an error (`db.response.status_code`), or an empty string."""
    if isinstance(error, OSError):  # the system's number
        return ""
    for holder in (error, getattr(error, "error_response", None)):  # the second is the old vertica-python's
        for field in _CODE_FIELDS:
            code = getattr(holder, field, None)
            code = text_of(code) or code  # old drivers have bytes
            if isinstance(code, (str, int)) and code not in {"", -1}:
                return str(code)
    match error.args:
        case (int(number), str()):  # mysqlclient, PyMySQL
            return str(number)
    return ""


# Drivers whose classes are C: traced subclasses, of whatever class the user has chosen.


class Subclasses:
    """Makes, and remembers, traced versions of the classes of one driver.

    A user's class is joined with a traced version of the driver's own (`root`), which comes after it in the method
    resolution order: whatever it overrides, it reaches the driver through us.

    Args:
        root: the driver's class.
        setup: what the `instrument()` call decided.
        methods: which operation each method is.
        members: further attributes.
    """

    def __init__(
        self, root: type, setup: Setup, methods: Mapping[str, Operation[Any]], members: Mapping[str, Any] | None = None
    ) -> None:
        traced_methods = {
            name: traced(_method(root, name), setup, kind) for name, kind in methods.items() if hasattr(root, name)
        }
        self.root = root
        twin = _alike(root, (root,), {})
        self.traced_root = _alike(root, (root,), {**traced_methods, **(members or {}), _UNTRACED: twin})
        self.of = lru_cache(maxsize=128)(self._make)

    def adopt(self, instance: Any) -> bool:
        """Give an object that somebody else has made its traced class; say False where that is not possible."""
        try:
            cls: Any = type(instance)
            traced_class = self.of(cls)
            if traced_class is not cls:
                instance.__class__ = traced_class
            return isinstance(instance, self.traced_root)
        except TypeError:  # its class is C
            return False
        except Exception as error:
            report("tracing an object of the driver", error)
            return False

    def _make(self, base: type) -> type:
        """Answer the traced version of `base`; a class that is no `root`, or one already, as it is."""
        try:
            if base is self.root:
                return self.traced_root
            if not issubclass(base, self.root) or issubclass(base, self.traced_root):
                return base
            return _alike(base, (base, self.traced_root), {})
        except Exception as error:  # such as TypeError of a class that lets nobody inherit
            report(f"tracing {base.__qualname__}", error)
            return base


def _method(cls: type, name: str) -> Callable[..., Any]:
    """Answer what takes the instance first; callables that classes do not bind (`execute = some_object`) do not."""
    found: Callable[..., Any] = getattr(cls, name)
    if hasattr(type(getattr_static(cls, name)), "__get__"):
        return found

    @wraps(found)
    def call(instance: Any, /, *args: Any, **kwargs: Any) -> Any:
        return found(*args, **kwargs)

    return call


# The class attribute by which a traced class names the driver's own, remade in Python: an object can move between these
# two, but not to a class in C.
_UNTRACED = "_spanbridge_untraced"


def plain_class(cls: Any) -> type | None:
    """Answer the class that the application asked for, given its traced version; None for any other."""
    return cls.__bases__[0] if hasattr(cls, _UNTRACED) else None


def untrace(instance: Any) -> bool:
    """Give an object of a traced class the class that the application asked for, for good; say whether it was one."""
    cls = type(instance)
    twin = getattr(cls, _UNTRACED, None)
    if twin is None:
        return False
    base = cls.__bases__[0]
    instance.__class__ = twin if _UNTRACED in vars(cls) else _alike(base, (base, twin), {})
    return True


def _alike(model: type, bases: tuple[type, ...], namespace: Mapping[str, Any]) -> type:
    names = {"__module__": model.__module__, "__qualname__": model.__qualname__, "__doc__": model.__doc__}
    return type(model)(model.__name__, bases, {**names, **namespace})
