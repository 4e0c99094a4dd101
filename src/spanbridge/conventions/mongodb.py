"""MongoDB: one CLIENT span per command, from the events that PyMongo publishes; filters without their values.

https://opentelemetry.io/docs/specs/semconv/database/mongodb/
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from functools import lru_cache, partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import SpanKind, Status, StatusCode

from spanbridge.conventions import http, sql
from spanbridge.conventions.database import Target, text_keys
from spanbridge.core.failure import record_failure
from spanbridge.core.options import Option, boolean
from spanbridge.core.semconv import pick
from spanbridge.core.tracing import DATABASE, HTTP, Operation, apart, opener

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.trace import Span

    from spanbridge.core.tracing import Begin, Scope, Setup

# What of a command is looked at, at most: items of a list, levels of a document, characters of the text.
_ITEMS, _LEVELS, _TEXT_LIMIT = 100, 30, 5_000

# Commands by the field that holds what they look for.
_FILTERS = {"find": "filter", "count": "query", "distinct": "query", "findAndModify": "query", "aggregate": "pipeline"}
_WRITES = {"insert": "documents", "update": "updates", "delete": "deletes"}

# How a find's other fields are written beside its filter: as the query modifiers that they were before MongoDB 3.2.
_MODIFIERS = {
    "sort": "$orderby",
    "hint": "$hint",
    "let": "let",
    "comment": "$comment",
    "maxTimeMS": "$maxTimeMS",
    "max": "$max",
    "min": "$min",
    "returnKey": "$returnKey",
    "showRecordId": "$showDiskLoc",
}

CAPTURE_STATEMENT = Option(
    "capture_statement", False, "Show the values in filters; by default they are masked.", boolean
)


def normalised(value: Any, levels: int = _LEVELS) -> Any:
    """Answer a filter or a pipeline with its values replaced by `?`; field names and operators stay.

    Of the values that a list holds nothing stays but that they are there.
    """
    if isinstance(value, Mapping):
        return {
            str(key): normalised(item, levels - 1)
            if isinstance(item, (Mapping, list)) and key not in {"$in", "$nin"} and levels
            else "?"
            for key, item in islice(value.items(), _ITEMS)
        }
    if isinstance(value, list) and levels:
        return [normalised(item, levels - 1) for item in value[:_ITEMS]]
    return {}


def sought(name: str, command: Mapping[str, Any]) -> Any:
    """Answer what a command looks for: a find's filter and modifiers, an update's filter; None if it has nothing."""
    if name == "find":
        modifiers = {shown: command[field] for field, shown in _MODIFIERS.items() if field in command}
        return {"$query": command.get("filter", {}), **modifiers} if modifiers else command.get("filter")
    if name in _FILTERS:
        return command.get(_FILTERS[name])
    if name in {"update", "delete"}:
        writes: list[Any] = command.get(_WRITES[name]) or []
        return writes[0].get("q") if len(writes) == 1 else None
    return None


@lru_cache(maxsize=256)
def _target(namespace: str, host: str | None, port: int | None) -> Target:
    return Target("mongodb", namespace, host=host, port=port)


class Command:
    """One command.

    Args:
        started: PyMongo's event of its start.
    """

    __slots__ = ("batch", "collection", "ended", "name", "ordered", "started", "target")

    def __init__(self, started: Any) -> None:
        self.started = started
        self.ended: Any = None
        self.name = started.command_name
        host, port = started.connection_id or (None, None)
        self.target = _target(started.database_name, host, port and int(port))
        # A command's first field names its collection; a cursor's next batch has it elsewhere.
        collection = started.command.get("collection" if self.name == "getMore" else self.name)
        self.collection = collection if isinstance(collection, str) else ""
        writes = started.command.get(_WRITES.get(self.name, ""))
        self.batch = len(writes) if isinstance(writes, list) and len(writes) > 1 else None
        self.ordered = None if writes is None else bool(started.command.get("ordered", True))


def _contrib_statement(command: Command, *, capture: bool) -> str:
    fields = {**_WRITES, "find": "filter", "getMore": "collection", "aggregate": "pipeline"}
    captured = command.started.command.get(fields.get(command.name)) if capture else None
    return f"{command.name} {captured}" if captured else str(command.name)


def _operation(setup: Setup) -> Operation[Command]:
    semconv = setup.semconv
    contrib, names = semconv.contrib, semconv.database
    capture = bool(setup.options.get("capture_statement"))
    keys = text_keys(semconv)
    collection_keys = [key for key, _ in pick(names, (("db.mongodb.collection", ""),), (("db.collection.name", ""),))]
    request_hook, response_hook, failed_hook = (
        http.hooked(setup, f"{moment}_hook") for moment in ("request", "response", "failed")
    )

    def name(command: Command) -> str:
        if contrib:
            return f"{command.target.namespace}.{command.name}"
        return f"{command.name} {command.collection}" if command.collection else str(command.name)

    def text(command: Command) -> str:
        if contrib:
            return _contrib_statement(command, capture=capture)
        document = sought(command.name, command.started.command)
        if not document:
            return ""
        shown = str(document) if capture else json.dumps(normalised(document))
        return shown if len(shown) <= _TEXT_LIMIT else f"{shown[: _TEXT_LIMIT - 3]}..."

    def attributes(command: Command) -> dict[str, Any]:
        rendered = dict(command.target.attributes(semconv))
        if shown := text(command):
            rendered.update(dict.fromkeys(keys, shown))
        if command.collection:
            rendered.update(dict.fromkeys(collection_keys, command.collection))
        if not contrib:
            rendered["db.operation.name"] = command.name
            if command.batch:
                rendered["db.operation.batch.size"] = command.batch
            if command.ordered is not None:
                rendered["mongodb.ordered"] = command.ordered
        return rendered

    def opened(span: Span, command: Command) -> None:
        if request_hook is not None:
            request_hook(span, command.started)

    def succeeded(span: Span, command: Command, ended: Any) -> None:
        if not contrib:
            _describe_reply(span, ended.reply, command)
            # What a driver of SQL would call the row count.
            if command.ordered is not None and isinstance(written := ended.reply.get("n"), int):
                span.set_attribute("db.response.returned_rows", written)
        if response_hook is not None:
            response_hook(span, ended)

    def failed(span: Span, command: Command, error: BaseException) -> None:
        failure = command.ended.failure
        clean = _kept if contrib else partial(_without_values, command=command)
        if contrib or isinstance(error, _UnseenError):
            _mark(span, failure, error_type=names.stable or not contrib, clean=clean)
        else:
            record_failure(span, error, clean=clean)
        if not contrib and (code := failure.get("code")) is not None:
            span.set_attribute("db.response.status_code", str(code))
        if failed_hook is not None:
            failed_hook(span, command.ended)

    return Operation(
        SpanKind.CLIENT,
        Command,
        name,
        attributes,
        layer=DATABASE,
        covers=DATABASE | HTTP,
        opened=opened if request_hook else None,
        succeeded=succeeded,
        failed=failed,
    )


def _describe_reply(span: Span, reply: Mapping[str, Any], command: Command) -> None:
    """Tell how many documents a batch has, and of writes that failed although the command did not."""
    cursor = reply.get("cursor")
    if isinstance(cursor, Mapping):
        batch = cursor.get("firstBatch", cursor.get("nextBatch"))
        if isinstance(batch, list):
            span.set_attribute("db.response.returned_rows", len(batch))
    errors = reply.get("writeErrors") or [reply.get("writeConcernError")]
    if errors[0]:
        _mark(span, errors[0], error_type=True, clean=partial(_without_values, command=command))
        span.set_attribute("db.response.status_code", str(errors[0].get("code")))


# Where messages quote what is stored: a key that is there already, and PyMongo's rendering of the whole answer.
_STORED = re.compile(r"(dup key: |full error: ).+")
# Where commands have values.
_VALUES = ("documents", "updates", "deletes", "filter", "query", "update", "pipeline")


def _without_values(text: str, command: Command) -> str:
    values = [command.started.command.get(field) for field in _VALUES]
    return sql.without_values(_STORED.sub(r"\1?", text), "", sql.ANSI, values)


def _kept(text: str) -> str:
    return text


def _mark(span: Span, failure: Mapping[str, Any], *, error_type: bool, clean: Callable[[str], str]) -> None:
    """Mark a span as failed by what the server, or the driver, says of it."""
    span.set_status(Status(StatusCode.ERROR, clean(failure.get("errmsg", "Unknown error"))))
    if error_type:
        kind = failure.get("codeName") or failure.get("errtype") or failure.get("code") or "UnknownError"
        span.set_attribute("error.type", str(kind))


class _UnseenError(Exception):
    """Stands for a failure whose exception is not at hand."""


def _raised(failure: Mapping[str, Any]) -> BaseException:
    """Answer the exception that PyMongo is about to raise: it tells of failures while it handles them."""
    error = sys.exc_info()[1]
    if error is None:
        return _UnseenError()
    told = getattr(error, "details", None) is failure or failure.get("errtype") == type(error).__name__
    return error if told else _UnseenError()


# The commands on their way in this thread or task, by event key, with the listener whose span they have: of several
# listeners, the first that hears of a command has it. A command whose task is cancelled has no end that PyMongo would
# tell of; its span ends with the task's context, or when it is one of many.
_open: ContextVar[Mapping[Any, tuple[Commands, Scope[Command]]]] = ContextVar("spanbridge-mongodb-commands")
_MOST_OPEN = 16


class Commands:
    """Makes spans of PyMongo's command events; to be mixed with its `CommandListener`.

    Args:
        setup: what the `instrument()` call decided; none makes no spans.
    """

    def __init__(self, setup: Setup | None = None) -> None:
        self.follow(setup)

    def follow(self, setup: Setup | None) -> None:
        """Make spans as another `instrument()` call decided, or none."""
        self._begin: Begin | None = None
        if setup is not None:
            self._begin = apart(opener(setup, _operation(setup), f"{setup.integration}: command"))

    def started(self, event: Any) -> None:
        """Open the span of a command; it is not the current one."""
        key, others = _key(event), _open.get({})
        if self._begin is None or key in others or (scope := self._begin((event,), {})) is None:
            return
        kept = islice(others.items(), max(0, len(others) + 1 - _MOST_OPEN), None)
        _open.set({**dict(kept), key: (self, scope)})

    def succeeded(self, event: Any) -> None:
        """End the span of a command that got a reply."""
        if (scope := self._take(event)) is not None:
            scope.complete(event)

    def failed(self, event: Any) -> None:
        """End the span of a command that failed."""
        if (scope := self._take(event)) is not None:
            scope.record.ended = event
            scope.fail(_raised(event.failure))

    def _take(self, event: Any) -> Scope[Command] | None:
        key, all_open = _key(event), _open.get({})
        owner, scope = all_open.get(key, (None, None))
        if owner is not self:
            return None
        _open.set({other: entry for other, entry in all_open.items() if other != key})
        return scope


def _key(event: Any) -> Any:
    return event.request_id, event.connection_id


def listen(listeners: Any, listener: Commands, *, first: bool = False) -> None:
    """Let `listener` hear the events of a client that was made before it was registered.

    Args:
        listeners: the client's own collection of listeners; PyMongo has no public way into it.
        listener: also a `CommandListener`.
        first: whether it hears events before the others.
    """
    mine = getattr(listeners, "_EventListeners__command_listeners", None)
    if isinstance(mine, list) and listener not in mine:
        mine.insert(0 if first else len(mine), listener)
        listeners._EventListeners__enabled_for_commands = True  # noqa: SLF001
