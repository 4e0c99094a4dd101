"""Operations: the spans that a Datadog user sees by default, as a tree per trace, and their readable diff."""

from __future__ import annotations

import difflib
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Span = dict[str, Any]
_SEPARATOR = " | "


@dataclass
class Operation:
    """What must be equal of a span, with the operations below it in order of their start."""

    service: str
    name: str
    resource: str
    type: str
    error: int
    kind: str
    status: str
    start: int
    children: list[Operation] = field(default_factory=list)

    def line(self) -> str:
        """Answer this operation as one line of columns."""
        values = (self.service, self.name, self.resource, self.type, self.kind, self.status, "ERROR" * self.error)
        return _SEPARATOR.join(value.replace("\n", "\\n") or "-" for value in values)

    def with_line(self, line: str) -> Operation:
        """Answer this operation with the columns of `line`."""
        service, name, *resource, category, kind, status, error = (
            "" if value == "-" else value for value in line.split(_SEPARATOR)
        )
        return replace(
            self,
            service=service,
            name=name,
            resource=_SEPARATOR.join(resource),
            type=category,
            kind=kind,
            status=status,
            error=int(bool(error)),
        )

    def lines(self, depth: int = 0) -> Iterator[str]:
        """Yield this operation and those below, one line each."""
        yield "  " * depth + self.line()
        for child in self.children:
            yield from child.lines(depth + 1)


def trees(spans: Iterable[Span], *, every_span: bool) -> list[Operation]:
    """Return the operations without a parent, in order of their start.

    Args:
        spans: v0.4 spans of any number of traces.
        every_span: take all; else those that are measured or top-level, each below its nearest such ancestor.
    """
    by_id = {(span["trace_id"], span["span_id"]): span for span in spans}
    roots: list[Operation] = []
    below: dict[tuple[int, int], list[Operation]] = defaultdict(list)
    for identity, span in by_id.items():
        if every_span or _is_operation(span):
            parent = _parent(span, by_id)
            while parent is not None and not (every_span or _is_operation(parent)):
                parent = _parent(parent, by_id)
            siblings = roots if parent is None else below[parent["trace_id"], parent["span_id"]]
            siblings.append(_operation(span, below[identity]))
    for siblings in (roots, *below.values()):
        siblings.sort(key=lambda operation: operation.start)
    return roots


def difference(expected: Iterable[str], got: Iterable[str]) -> list[str]:
    """Return the lines of a diff, with the whole trace as context, or nothing when the two are equal."""
    expected, got = list(expected), list(got)
    return [] if expected == got else [line for line in difflib.ndiff(expected, got) if not line.startswith("?")]


def _is_operation(span: Span) -> bool:
    metrics = span.get("metrics") or {}
    return metrics.get("_dd.measured") == 1 or metrics.get("_dd.top_level") == 1


def _parent(span: Span, by_id: dict[tuple[int, int], Span]) -> Span | None:
    return by_id.get((span["trace_id"], span.get("parent_id") or 0))


def _operation(span: Span, children: list[Operation]) -> Operation:
    meta = span.get("meta") or {}
    return Operation(
        service=span["service"],
        name=span["name"],
        resource=span["resource"],
        type=span.get("type") or "",
        error=span.get("error", 0),
        kind=meta.get("span.kind", ""),
        status=meta.get("http.status_code", ""),
        start=span["start"],
        children=children,
    )
