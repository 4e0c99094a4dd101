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
    if operation.name == "sqlite.query":
        operation.resource = _LITERAL.sub("?", operation.resource)
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


_LITERAL = re.compile(r"'(?:[^']|'')*'|(?<![\w.])\d+(?:\.\d+)?\b")
_MISSED_BY_DDTRACE = ("create view v", "insert into t(b)")  # the statements of the route /sql/untraced

OF_DDTRACE = (
    Difference("SQL literals never leave the process: resources are sanitised", _without_literals),
    Difference("followed redirects are one span: the call that the program made", _as_one_call),
)
OF_SPANBRIDGE = (Difference("executescript and Connection.executemany are traced as well", _without_missed_statements),)


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
