"""The wire forms of a trace's record: x-datadog-* (protocol C.1), the `dd` member of tracestate (C.2), B3 (C.3).

And of baggage: as W3C and ddtrace write it, so that a `+` is a plus. OpenTelemetry's propagator takes it for a blank.

Pure functions; whatever a peer sends costs bounded time and at worst yields nothing.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, unquote

from opentelemetry.trace.span import TraceState as W3CTraceState

from spanbridge.exporters.datadog.trace import LOW_64, TraceState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Values = Callable[[str], Sequence[str]]

TRACE_ID, PARENT_ID = "x-datadog-trace-id", "x-datadog-parent-id"
PRIORITY, ORIGIN, TAGS = "x-datadog-sampling-priority", "x-datadog-origin", "x-datadog-tags"
TRACEPARENT, TRACESTATE, BAGGAGE = "traceparent", "tracestate", "baggage"
B3 = "b3"
B3_TRACE_ID, B3_SPAN_ID, B3_SAMPLED, B3_FLAGS = "x-b3-traceid", "x-b3-spanid", "x-b3-sampled", "x-b3-flags"
SAMPLED, RANDOM = 0x01, 0x02

_MOST_TAGS_READ = 512
_MOST_TRACESTATE_READ, _MOST_TRACESTATE_WRITTEN, _MOST_MEMBERS = 8192, 512, 32
_MOST_MEMBER = 256 - 22  # `dd=` and `p:` with its id are not counted
_LONG_MEMBER = 128
_MOST_ITEMS = 64
_MOST_BAGGAGE, _MOST_BAGGAGE_BYTES = 64, 8192
# A `+` would do in values, but is escaped for those who read it as a blank.
_SAFE_IN_KEY, _SAFE_IN_VALUE = "!#$&'*^`|", "!#$&'()*/:<>?@[]^`{|}"
_DECIMAL = re.compile(r"[0-9]{1,20}")
_PRIORITY = re.compile(r"-1|[0-2]")
_PROPAGATED = re.compile(r"_dd\.p\.[\x21-\x2b\x2d-\x3c\x3e-\x7e]+")
_TAG = re.compile(r"[\x21-\x2b\x2d-\x3c\x3e-\x7e]+")
_VALUE = re.compile(r"[\x20-\x2b\x2d-\x7e]+")
_ORIGIN = re.compile(r"[\x20-\x7e]{1,128}")
_DECISION_MAKER = re.compile(r"-(?:[0-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5])")
_HALF_ID = re.compile(r"[0-9a-f]{16}")
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_MEMBER = re.compile(
    r"([a-z][_0-9a-z\-*/]{0,255}|[a-z0-9][_0-9a-z\-*/]{0,240}@[a-z][_0-9a-z\-*/]{0,13})"
    r"=([\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e])"
)
_FOREIGN_IN_VALUE = re.compile(r"[,;~]|[^\x20-\x7e]+")
_FOREIGN_IN_KEY = re.compile(r"[, =]|[^\x20-\x7e]+")
_B3_TRACE_ID = re.compile(r"(?:[0-9a-f]{16}){1,2}", re.IGNORECASE)
_B3_SPAN_ID = re.compile(r"[0-9a-f]{16}", re.IGNORECASE)
_B3_PRIORITIES = {"0": 0, "1": 1, "d": 2}
_PARENT = "p"


class Found(NamedTuple):
    """A context that a peer sent."""

    trace_id: int
    span_id: int
    state: TraceState
    flags: int = 0
    members: W3CTraceState | None = None


def first(values: Sequence[str]) -> str:
    """Give the first value of a header, without blanks around it; empty when there is none."""
    return values[0].strip() if values else ""


def _identifier(raw: str) -> int:
    number = int(raw) if _DECIMAL.fullmatch(raw) else 0
    return number if number <= LOW_64 else 0


def _origin(raw: str) -> str:
    return raw if _ORIGIN.fullmatch(raw) else ""


def read_datadog(values: Values) -> Found | None:
    """Read x-datadog-* headers.

    Args:
        values: gives the values of a header by its lower-case name.
    """
    trace_id = _identifier(first(values(TRACE_ID)))
    if not trace_id:
        return None
    state = TraceState(origin=_origin(first(values(ORIGIN))))
    if _PRIORITY.fullmatch(priority := first(values(PRIORITY))):
        state.priority = int(priority)
    _read_tags(first(values(TAGS)), state)
    span_id = _identifier(first(values(PARENT_ID)))
    if not span_id:
        # Synthetic tests name the trace but no parent. OpenTelemetry cannot continue a trace without a parent id.
        span_id = state.absent_parent = trace_id
    return Found(int(state.tags.get("_dd.p.tid", "0"), 16) << 64 | trace_id, span_id, state)


def _read_tags(raw: str, state: TraceState) -> None:
    if not raw:
        return
    if len(raw) > _MOST_TAGS_READ:
        state.error = "extract_max_size"
        return
    tags: dict[str, str] = {}
    for part in raw.split(","):
        key, _, value = part.partition("=")
        value = value.strip()
        if not (_TAG.fullmatch(key) and _VALUE.fullmatch(value)):
            state.error = "decoding_error"
            return
        if _PROPAGATED.fullmatch(key) and key != "_dd.p.upstream_services":
            tags[key] = value
    decision_maker = tags.pop("_dd.p.dm", "")
    if decision_maker and not _DECISION_MAKER.fullmatch(decision_maker):
        state.error, decision_maker = "decoding_error", ""
    high = tags.get("_dd.p.tid")
    if high is not None and (not _HALF_ID.fullmatch(high) or not int(high, 16)):
        state.error = f"malformed_tid {tags.pop('_dd.p.tid')}"
    state.decision_maker, state.tags = decision_maker, tags


def write_datadog(trace_id: int, state: TraceState, most_tags: int) -> tuple[tuple[str, str], ...]:
    """Render the x-datadog-* headers that are the same for every span of a trace; tags that do not fit are noted."""
    headers = [(TRACE_ID, str(trace_id & LOW_64))]
    if state.priority is not None:
        headers.append((PRIORITY, str(state.priority)))
    if state.origin:
        headers.append((ORIGIN, state.origin))
    tags = {"_dd.p.dm": state.decision_maker, **state.tags} if state.decision_maker else state.tags
    if tags and (not state.error or state.error.startswith("malformed_tid")):
        text = ",".join(f"{key}={value}" for key, value in tags.items())
        if most_tags == 0:
            state.error = "disabled"
        elif len(text) > most_tags:
            state.error = "inject_max_size"
        elif all(_TAG.fullmatch(key) and _VALUE.fullmatch(value) for key, value in tags.items()):
            headers.append((TAGS, text))
        else:
            state.error = "encoding_error"
    return tuple(headers)


def read_w3c(values: Values) -> Found | None:
    """Read traceparent, and what the `dd` member of tracestate adds to it.

    Args:
        values: gives the values of a header by its lower-case name.
    """
    match = _TRACEPARENT.fullmatch(first(values(TRACEPARENT)))
    if match is None:
        return None
    version, trace, span, flags, more = match.groups()
    trace_id, span_id = int(trace, 16), int(span, 16)
    if version == "ff" or not trace_id or not span_id or (version == "00" and more):
        return None
    bits = int(flags, 16) & (SAMPLED | RANDOM)
    own, members = _split_tracestate(values(TRACESTATE))
    return Found(trace_id, span_id, read_member(own, trace_id, bits), bits, members)


def _split_tracestate(values: Sequence[str]) -> tuple[str, W3CTraceState | None]:
    """Separate the `dd` member from the others; members that are not well-formed are left out."""
    if sum(map(len, values)) > _MOST_TRACESTATE_READ:
        return "", None
    own = ""
    members: dict[str, str] = {}
    for text in values:
        for member in text.split(","):
            stripped = member.strip(" \t")
            if stripped.startswith("dd="):
                own = own or stripped[3:]
            elif len(members) < _MOST_MEMBERS - 1 and (match := _MEMBER.fullmatch(stripped)):
                members.setdefault(match[1], match[2])
    return own, W3CTraceState(list(members.items())) if members else None


def read_member(member: str, trace_id: int, flags: int) -> TraceState:
    """Make the record of a trace from its `dd` member (may be empty) and the flags of its traceparent."""
    state = TraceState.new(trace_id)
    priority: int | None = None
    for item in member.split(";")[:_MOST_ITEMS]:
        key, _, raw = item.partition(":")
        value = raw.replace("~", "=")
        if key == "s" and _PRIORITY.fullmatch(value):
            priority = int(value)
        elif key == "o":
            state.origin = _origin(value)
        elif key == _PARENT and _HALF_ID.fullmatch(value):
            state.last_parent_id = value
        elif key == "t.dm":
            state.decision_maker = value if _DECISION_MAKER.fullmatch(value) else ""
        elif key.startswith("t.") and key != "t.tid" and _VALUE.fullmatch(value):
            tag = f"_dd.p.{key[2:]}"
            if _PROPAGATED.fullmatch(tag):
                state.tags[tag] = value
    state.priority = _agreed_priority(priority, flags & SAMPLED, state.origin)
    return state


def _agreed_priority(priority: int | None, sampled: int, origin: str) -> int | None:
    """Reconcile the priority of the `dd` member with the sampled flag, which another vendor may have changed."""
    if origin == "rum" and not priority:
        return priority
    if sampled:
        return priority if priority is not None and priority > 0 else 1
    return priority if priority is not None and priority < 0 else 0


def write_member(state: TraceState) -> str:
    """Render the part of the `dd` member that is the same for every span of a trace, with a `;` in front."""
    items = []
    if state.priority is not None:
        items.append(f"s:{state.priority}")
    if state.origin:
        items.append(f"o:{_encode(state.origin)}")
    tags = {"_dd.p.dm": state.decision_maker} if state.decision_maker else {}
    if (user := state.tags.get("_dd.p.usr.id")) is not None:
        tags["_dd.p.usr.id"] = user
    tags |= state.tags
    length = sum(len(item) + 1 for item in items)
    for key, value in tags.items():
        item = f"t.{_FOREIGN_IN_KEY.sub('_', key.removeprefix('_dd.p.'))}:{_encode(value)}"
        if length + len(item) + 1 <= _MOST_MEMBER:
            items.append(item)
            length += len(item) + 1
    return "".join(f";{item}" for item in items)


def _encode(value: str) -> str:
    return _FOREIGN_IN_VALUE.sub("_", value).replace("=", "~")


def write_tracestate(own: str, others: Mapping[str, str]) -> str:
    """Put the `dd` member in front of the other members; long ones go first when there is no room for all."""
    members = [f"{key}={value}" for key, value in others.items() if key != "dd"][: _MOST_MEMBERS - 1]
    excess = len(own) + sum(len(member) + 1 for member in members) - _MOST_TRACESTATE_WRITTEN
    long = [member for member in members if len(member) > _LONG_MEMBER]
    short = [member for member in members if len(member) <= _LONG_MEMBER]
    for member in (*long[::-1], *short[::-1]):
        if excess <= 0:
            break
        if not member.startswith("ot="):
            members.remove(member)
            excess -= len(member) + 1
    return ",".join([own, *members])


def read_b3(values: Values) -> Found | None:
    """Read the single header `b3`: trace id, span id, decision.

    Args:
        values: gives the values of a header by its lower-case name.
    """
    trace, _, rest = first(values(B3)).partition("-")
    span, _, rest = rest.partition("-")
    return _found_b3(trace, span, rest.partition("-")[0])


def read_b3_multi(values: Values) -> Found | None:
    """Read the headers x-b3-*.

    Args:
        values: gives the values of a header by its lower-case name.
    """
    decision = "d" if first(values(B3_FLAGS)) == "1" else first(values(B3_SAMPLED))
    return _found_b3(first(values(B3_TRACE_ID)), first(values(B3_SPAN_ID)), decision)


def _found_b3(trace: str, span: str, decision: str) -> Found | None:
    if not (_B3_TRACE_ID.fullmatch(trace) and _B3_SPAN_ID.fullmatch(span)):
        return None
    trace_id, span_id = int(trace, 16), int(span, 16)
    if not trace_id & LOW_64 or not span_id:
        return None
    state = TraceState.new(trace_id)
    state.priority = _B3_PRIORITIES.get(decision)
    return Found(trace_id, span_id, state)


def write_b3(trace_id: int, span_id: int, priority: int | None) -> dict[str, str]:
    """Render the header `b3`."""
    decision = "" if priority is None else "-0" if priority <= 0 else "-1" if priority == 1 else "-d"
    return {B3: f"{_b3_id(trace_id)}-{span_id:016x}{decision}"}


def write_b3_multi(trace_id: int, span_id: int, priority: int | None) -> dict[str, str]:
    """Render the headers x-b3-*."""
    found = {B3_TRACE_ID: _b3_id(trace_id), B3_SPAN_ID: f"{span_id:016x}"}
    if priority is not None and priority > 1:
        found[B3_FLAGS] = "1"
    elif priority is not None:
        found[B3_SAMPLED] = str(max(priority, 0))
    return found


def _b3_id(trace_id: int) -> str:
    return f"{trace_id:032x}" if trace_id >> 64 else f"{trace_id:016x}"


def read_baggage(values: Values) -> dict[str, str]:
    """Read the header `baggage`; a part that is no `key=value` spoils all of it (protocol C.3).

    Args:
        values: gives the values of a header by its lower-case name.
    """
    found: dict[str, str] = {}
    if not (said := values(BAGGAGE)):
        return found
    room = _MOST_BAGGAGE_BYTES
    for part in ",".join(said).split(",", _MOST_BAGGAGE)[:_MOST_BAGGAGE]:
        room -= len(part.encode("utf-8", "replace")) + 1
        if room < -1:
            break
        key, separator, value = part.partition("=")
        if not (separator and key.strip()):
            return {}
        found[unquote(key.strip())] = unquote(value.strip())
    return found


def write_baggage(items: Mapping[str, object]) -> str:
    """Render the header `baggage`, with as many items as may be sent."""
    written: list[str] = []
    room = _MOST_BAGGAGE_BYTES
    for key, value in list(items.items())[:_MOST_BAGGAGE]:
        item = f"{_percent(key, _SAFE_IN_KEY)}={_percent(value, _SAFE_IN_VALUE)}"
        room -= len(item) + 1
        if room < -1:
            break
        written.append(item)
    return ",".join(written)


def _percent(value: object, safe: str) -> str:
    return quote(str(value).strip(), safe, errors="replace")
