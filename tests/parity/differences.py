"""Where spanbridge differs from ddtrace on purpose: each entry changes one side's tree to what the other shows."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.parity.operations import Operation


class Difference(NamedTuple):
    """A deliberate difference: the reason, and a function that returns what stands in an operation's place."""

    reason: str
    replace: Callable[[Operation], list[Operation]]


def _without_literals(operation: Operation) -> list[Operation]:
    if operation.name == "sqlite.query" and _LITERAL.search(operation.resource):
        without = _COMMENT.sub(" ", _LITERAL.sub("\0", operation.resource))
        operation.resource = _LITERALS.sub("(?)", without).replace("\0", "?")
    operation.resource = operation.resource or operation.name  # as the Agent does
    return [operation]


def _without_unknown_methods(operation: Operation) -> list[Operation]:
    method, _, rest = operation.resource.partition(" ")
    if operation.name == "flask.request" and method not in _METHODS:
        operation.resource = f"HTTP {rest}"
    return [operation]


def _without_empty_pipelines(operation: Operation) -> list[Operation]:
    return [] if operation.resource == "redis.command" else [operation]


def _without_watch_errors(operation: Operation) -> list[Operation]:
    if operation.name == "flask.request" and operation.resource == "GET /redis/watch":
        for call in operation.children:
            call.error = False
    return [operation]


def _as_one_call(operation: Operation) -> list[Operation]:
    if operation.name == "requests.request":
        calls = operation.children
        while any(call.name == operation.name for call in calls):
            calls = [lower for call in calls for lower in (call.children if call.name == operation.name else [call])]
        operation.children = calls
    return [operation]


def _without_missed_statements(operation: Operation) -> list[Operation]:
    missed = operation.name == "sqlite.query" and operation.resource.startswith(_MISSED_BY_DDTRACE)
    return [] if missed else [operation]


def _without_ends_of_blocks(operation: Operation) -> list[Operation]:
    if operation.name == "flask.request" and operation.resource == "GET /sql/with":
        ends = ("sqlite.connection.commit", "sqlite.connection.rollback")
        operation.children = [call for call in operation.children if call.name not in ends]
    return [operation]


_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")
_COMMENT = re.compile(r"\s*--[^\n]*\s*")
_LITERALS = re.compile(r"\(\s*\0(?:\s*,\s*\0)*\s*\)")
_LITERAL = re.compile(r"'(?:[^']|'')*'|(?<![\w.])\d+(?:\.\d+)?\b")
# The statements of the route /sql/untraced, and one on a closed connection.
_MISSED_BY_DDTRACE = ("create view v", "insert into t(b)", "delete from closed")

OF_DDTRACE = (
    Difference("SQL literals never leave the process: resources are sanitised as the Agent would", _without_literals),
    Difference(
        "methods that no RFC knows are HTTP, or clients could make any number of resources", _without_unknown_methods
    ),
    Difference("an empty pipeline sends nothing", _without_empty_pipelines),
    Difference("a WatchError is the answer that WATCH asks for, not a failure", _without_watch_errors),
    Difference("followed redirects are one span: the call that the program made", _as_one_call),
)
OF_SPANBRIDGE = (
    Difference("executescript and Connection.executemany are traced as well", _without_missed_statements),
    Difference("the end of a `with` block over a connection is seen", _without_ends_of_blocks),
)


def adjust(roots: list[Operation], differences: tuple[Difference, ...]) -> list[Operation]:
    """Return `roots` with every deliberate difference applied, from the leaves up."""
    adjusted = []
    for root in roots:
        root.children = adjust(root.children, differences)
        group = [root]
        for one in differences:
            group = [new for old in group for new in one.replace(old)]
        adjusted += group
    return adjusted
