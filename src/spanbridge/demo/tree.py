"""Traces as the receiver holds them: joined into trees, drawn for a terminal, compared with what was expected."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from spanbridge.demo.terminal import Terminal


@dataclass
class Node:
    """One span in Datadog's format, and the spans below it in order of their start."""

    span: dict[str, Any]
    children: list[Node] = field(default_factory=list)

    @property
    def status(self) -> str:
        """The HTTP status code, empty when there is none."""
        return str(self.span.get("meta", {}).get("http.status_code", ""))


class Expected(NamedTuple):
    """A span that must be there, and those below it.

    Args:
        operation: Datadog's operation name.
        service: its service; any when empty.
        error: whether the span is marked as an error.
        children: what must be found directly below it.
    """

    operation: str
    service: str = ""
    error: bool = False
    children: tuple[Expected, ...] = ()

    def __str__(self) -> str:
        return f"{self.service}'s {self.operation}" if self.service else self.operation


def roots(spans: Iterable[dict[str, Any]]) -> list[Node]:
    """Join spans by trace and parent id into trees; a span whose parent has not arrived is a root."""
    nodes = {(span["trace_id"], span["span_id"]): Node(span) for span in sorted(spans, key=lambda span: span["start"])}
    found: list[Node] = []
    for (trace, _), node in nodes.items():
        parent = nodes.get((trace, node.span.get("parent_id")))
        (found if parent is None else parent.children).append(node)
    return found


def missing(node: Node, expected: Expected) -> Iterator[str]:
    """Say what `expected` asks for that the tree does not have."""
    if bool(node.span.get("error")) != expected.error:
        yield f"{expected} is {'not ' if expected.error else ''}marked as an error"
    for child in expected.children:
        candidates = [found for found in node.children if _fits(found.span, child)]
        if candidates:
            yield from min((list(missing(found, child)) for found in candidates), key=len)
        else:
            yield f"no {child} directly below {expected}"


def _fits(span: dict[str, Any], expected: Expected) -> bool:
    return span["name"] == expected.operation and expected.service in {"", span["service"]}


def draw(root: Node, terminal: Terminal) -> Iterator[str]:
    """Draw one trace: a row per span with operation, service, resource and duration, clipped to the terminal."""
    rows = list(_rows(root, "", "", terminal))
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    room = max(16, terminal.width - sum(widths) - 22)
    for operation, service, text, span in rows:
        clipped = text if len(text) <= room else text[: room - 1] + terminal.ellipsis
        lead = f"{operation:{widths[0]}}  {terminal.hue(service)}{' ' * (widths[1] - len(service))}  "
        if span is None:
            yield lead + terminal.red(clipped)
        else:
            row = f"{lead}{clipped:{room}} {span['duration'] / 1e6:>8,.2f} ms"
            yield f"{row} {terminal.red(terminal.cross)}" if span.get("error") else row


def _rows(node: Node, lead: str, branch: str, terminal: Terminal) -> Iterator[tuple[str, str, str, Any]]:
    """Yield (operation, service, resource, span) for a span, for its error (without a span), and for those below."""
    span = node.span
    below = lead + (terminal.rail if branch == terminal.tee else "  " if branch else "")
    yield lead + branch + span["name"], span["service"], " ".join(span["resource"].split()), span
    if fault := _fault(span):
        yield below + (terminal.rail if node.children else ""), "", fault, None
    for child in node.children:
        yield from _rows(child, below, terminal.elbow if child is node.children[-1] else terminal.tee, terminal)


def _fault(span: dict[str, Any]) -> str:
    if not span.get("error"):
        return ""
    meta = span.get("meta", {})
    kind, message = meta.get("error.type", ""), meta.get("error.message", "").partition("\n")[0]
    return f"{kind}: {message}" if kind and message else kind or message
