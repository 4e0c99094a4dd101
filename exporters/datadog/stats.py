"""Client-side stats: hits, errors and latencies of mapped spans in buckets of 10 seconds, for /v0.6/stats (protocol E).

The Agent would count the same from the spans; who counts here may keep rejected traces to himself.
"""

from __future__ import annotations

import math
import re
import struct
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from spanbridge.core.guard import first_time, logger
from spanbridge.core.options import words
from spanbridge.exporters.datadog.mapping import runtime_id
from spanbridge.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from spanbridge.exporters.datadog.info import AgentInfo
    from spanbridge.exporters.datadog.settings import Settings

    Span = dict[str, Any]

BUCKET_NANOSECONDS = 10_000_000_000
MOST_KEYS = 7_000  # of one bucket
_BLOCKED = "tracer_blocked_value"
# What may differ most, by its place in the key: how many values of it one bucket holds.
_BOUNDS = {"Resource": 1_024, "HTTPEndpoint": 512, "PeerTags": 512}

# The sketch's logarithmic bins: the upper end of each is so many times its lower end.
GAMMA = 1.015625
_OFFSET, _MOST_BINS = 1338.5, 2_048
_PER_BIN = 1 / math.log(GAMMA)
_SMALLEST = 2.2250738585072014e-308

_GRPC_KEYS = ("rpc.grpc.status_code", "grpc.code", "rpc.grpc.status.code", "grpc.status.code")
_GRPC_CODES = words(
    "OK, CANCELLED, UNKNOWN, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND, ALREADY_EXISTS, PERMISSION_DENIED,"
    "RESOURCE_EXHAUSTED, FAILED_PRECONDITION, ABORTED, OUT_OF_RANGE, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS,"
    "UNAUTHENTICATED"
)
_GRPC_NUMBERS = {name.replace("_", ""): str(code) for code, name in enumerate(_GRPC_CODES)} | {"CANCELED": "1"}
_CALLERS = frozenset({"client", "producer", "consumer"})
_PEER = re.compile(
    r"(?P<scheme>ip-|(?:dnspoll|ftp|file|https?):/{2,3})?"
    r"(?:(?P<v4>\d{1,3}(?P<dot>[.\-_])\d{1,3}(?P=dot)\d{1,3}(?P=dot)\d{1,3})(?!\d)"
    r"|\[(?P<v6>[0-9a-f:.]+)\]|(?P<bare>[0-9a-f:.]*:[0-9a-f:.]*)$)",
    re.IGNORECASE,
)
# Addresses that are the same everywhere: this machine, and the metadata services of clouds.
_WELL_KNOWN = frozenset({"127.0.0.1", "::1", "169.254.169.254", "fd00:ec2::254", "169.254.170.2"})


class Sketch:
    """A histogram of durations in bins of equal relative width."""

    __slots__ = ("_bins", "_zeros")

    def __init__(self) -> None:
        self._bins: defaultdict[int, int] = defaultdict(int)
        self._zeros = 0

    def add(self, value: float) -> None:
        """Count one value, at least 0."""
        if value < _SMALLEST:
            self._zeros += 1
        else:
            self._bins[math.floor(math.log(value) * _PER_BIN + _OFFSET)] += 1

    def encode(self) -> bytes:
        """Write it as the protobuf message DDSketch."""
        mapping = struct.pack("<BdBd", 0x09, GAMMA, 0x11, _OFFSET)
        counts = b""
        if self._bins:
            last = max(self._bins)
            first = max(min(self._bins), last - _MOST_BINS + 1)
            dense = [self._bins.get(index, 0) for index in range(first, last + 1)]
            dense[0] += sum(count for index, count in self._bins.items() if index < first)
            packed = struct.pack(f"<{len(dense)}d", *dense)
            counts = (
                b"\x12" + _varint(len(packed)) + packed + b"\x18" + _varint(first << 1 if first >= 0 else ~(first << 1))
            )
        zeros = struct.pack("<Bd", 0x21, self._zeros) if self._zeros else b""
        return b"\x0a" + _varint(len(mapping)) + mapping + b"\x12" + _varint(len(counts)) + counts + b"\x1a\x00" + zeros


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*found, value))


@dataclass(slots=True)
class Group:
    """The counts of the spans that share a key."""

    hits: int = 0
    errors: int = 0
    duration: int = 0
    top_level_hits: int = 0
    ok: Sketch = field(default_factory=Sketch)
    failed: Sketch = field(default_factory=Sketch)


# The key of a group: these fields of the payload, in this order.
_KEY = (
    *("Service", "Name", "Resource", "Type", "HTTPStatusCode", "SpanKind", "Synthetics", "IsTraceRoot", "PeerTags"),
    *("GRPCStatusCode", "HTTPMethod", "HTTPEndpoint", "srv_src"),
)
Key = tuple[Any, ...]
_OVERFLOW: Key = (
    *(_BLOCKED, _BLOCKED, _BLOCKED, _BLOCKED, 0, _BLOCKED, False, 0, (f"{_BLOCKED}:",), "", _BLOCKED, _BLOCKED),
    _BLOCKED,
)
_BOUNDED = [(_KEY.index(name), most) for name, most in _BOUNDS.items()]


class _Bucket:
    def __init__(self) -> None:
        self.groups: dict[Key, Group] = {}
        self._seen: dict[int, set[Any]] = {place: set() for place, _ in _BOUNDED}

    def group(self, key: Key) -> Group:
        if (group := self.groups.get(key)) is None:
            key = self._bounded(key)
            group = self.groups.setdefault(key, Group())
        return group

    def _bounded(self, key: Key) -> Key:
        fields = list(key)
        for place, most in _BOUNDED:
            seen = self._seen[place]
            if fields[place] not in seen and len(seen) >= most:
                fields[place] = _OVERFLOW[place]
            else:
                seen.add(fields[place])
        bounded = tuple(fields)
        return _OVERFLOW if bounded not in self.groups and len(self.groups) >= MOST_KEYS else bounded


class Concentrator:
    """Counts the spans of whole chunks; the worker alone calls it.

    Args:
        settings: who sends.
        info: what the Agent wants to be counted.
    """

    def __init__(self, settings: Settings, info: AgentInfo) -> None:
        self._settings = settings
        self._kinds = frozenset(kind.lower() for kind in info.span_kinds)
        self._peer_tags = info.peer_tags
        self._excludes = _filter(info)
        self._buckets: dict[int, _Bucket] = {}
        self._oldest = 0
        self._sequence = 0

    def add(self, spans: Sequence[Span], origin: str, now: int) -> None:
        """Count the spans of one chunk.

        Args:
            spans: mapped spans, the local root first if it is among them.
            origin: where the trace comes from.
            now: nanoseconds since the epoch.
        """
        if self._excludes(spans[0]):
            return
        if not self._oldest:
            self._oldest = now - now % BUCKET_NANOSECONDS
        synthetic = origin.startswith("synthetics")
        for span in spans:
            metrics = span["metrics"]
            top = metrics.get("_dd.top_level") == 1
            kind = span["meta"].get("span.kind", "")
            if not (top or metrics.get("_dd.measured") == 1 or kind.lower() in self._kinds):
                continue
            duration = span["duration"]
            end = span["start"] + duration
            start = max(end - end % BUCKET_NANOSECONDS, self._oldest)
            bucket = self._buckets.get(start)
            if bucket is None:
                bucket = self._buckets[start] = _Bucket()
            group = bucket.group(self._key(span, kind, synthetic))
            group.hits += 1
            group.duration += duration
            group.top_level_hits += top
            if span["error"]:
                group.errors += 1
                group.failed.add(duration)
            else:
                group.ok.add(duration)

    def _key(self, span: Span, kind: str, synthetic: bool) -> Key:
        meta, metrics = span["meta"], span["metrics"]
        return (
            *(span["service"], span["name"], span["resource"], span["type"]),
            _number(metrics.get("http.status_code", meta.get("http.status_code"))),
            *(kind, synthetic, 2 if span["parent_id"] else 1),
            self._peers(meta, kind.lower()),
            _grpc_status(meta, metrics),
            meta.get("http.method", ""),
            meta.get("http.endpoint", meta.get("http.route", "")),
            meta.get("_dd.svc_src", ""),
        )

    def _peers(self, meta: dict[str, str], kind: str) -> tuple[str, ...]:
        if kind in _CALLERS:
            return tuple(f"{tag}:{without_address(meta[tag])}" for tag in self._peer_tags if tag in meta)
        return (f"_dd.base_service:{meta['_dd.base_service']}",) if "_dd.base_service" in meta else ()

    def flush(self, now: int, *, everything: bool = False) -> bytes | None:
        """Take the buckets out that no more spans are expected for; answer the payload, or None when there is none.

        Args:
            now: nanoseconds since the epoch.
            everything: also those of the last seconds.
        """
        current = now - now % BUCKET_NANOSECONDS
        until = current - BUCKET_NANOSECONDS
        ready = {start: self._buckets.pop(start) for start in sorted(self._buckets) if everything or start < until}
        self._oldest = max(self._oldest, current if everything else until)
        if not ready:
            return None
        self._sequence += 1
        return _encoder()(self._payload(ready))

    def _payload(self, buckets: dict[int, _Bucket]) -> dict[str, Any]:
        settings = self._settings
        return {
            "Hostname": settings.hostname,
            "Env": settings.env or "unknown-env",
            "Version": settings.version,
            "Stats": [
                {
                    "Start": start,
                    "Duration": BUCKET_NANOSECONDS,
                    "Stats": list(_rows(bucket)),
                    "AgentTimeShift": 0,
                }
                for start, bucket in buckets.items()
            ],
            "Lang": "python",
            "TracerVersion": __version__,
            "RuntimeID": runtime_id(),
            "Sequence": self._sequence,
            "AgentAggregation": "",
            "Service": settings.service,
            "ContainerID": "",
            "Tags": [],
            "GitCommitSha": settings.git_metadata.get("_dd.git.commit.sha", ""),
            "ImageTag": "",
            "ProcessTagsHash": 0,
            "ProcessTags": "",
        }


def _rows(bucket: _Bucket) -> Iterator[dict[str, Any]]:
    for key, group in bucket.groups.items():
        yield {
            **dict(zip(_KEY, key, strict=True)),
            "DBType": "",
            "Hits": group.hits,
            "Errors": group.errors,
            "Duration": group.duration,
            "OkSummary": group.ok.encode(),
            "ErrorSummary": group.failed.encode(),
            "TopLevelHits": group.top_level_hits,
            "SpanDerivedPrimaryTags": [],
            "AdditionalMetricTags": [],
        }


@cache
def _encoder() -> Callable[[object], bytes]:
    from msgspec.msgpack import Encoder

    return Encoder().encode


def _number(value: object) -> int:
    if isinstance(value, (int, float)):
        return int(value)
    return int(value) if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 10 else 0


def _grpc_status(meta: dict[str, str], metrics: dict[str, float]) -> str:
    for text in filter(None, map(meta.get, _GRPC_KEYS)):
        if text.isascii() and text.isdecimal():
            return text
        if found := _GRPC_NUMBERS.get(text.removeprefix("StatusCode.").upper().replace("_", "")):
            return found
    number = next((metrics[key] for key in _GRPC_KEYS if key in metrics), None)
    return str(int(number)) if number is not None and 0 <= number <= 255 else ""


def without_address(value: str) -> str:
    """Take IP addresses out of a list of peers, for there may be any number of them."""
    if not any(character.isdigit() for character in value):
        return value
    return ",".join(dict.fromkeys(map(_without_one, value.split(","))))


def _without_one(peer: str) -> str:
    match = _PEER.match(peer)
    if match is None:
        return peer
    from ipaddress import IPv4Address, IPv6Address

    version_4, version_6 = match["v4"], match["v6"] or match["bare"]
    try:
        if version_4:
            IPv4Address(version_4.replace(match["dot"], "."))
        else:
            IPv6Address(version_6)
    except ValueError:
        return peer
    if (version_4 or version_6) in _WELL_KNOWN:
        return peer
    return f"{match['scheme'] or ''}blocked-ip-address{peer[match.end() :]}"


def _filter(info: AgentInfo) -> Callable[[Span], bool]:
    """Compile what the Agent does not want to be counted, by the tags and the resource of a trace's root."""
    exact, patterns = info.filters.get("filter_tags"), info.filters.get("filter_tags_regex")
    tests: dict[str, list[Callable[[Span], bool]]] = {"require": [], "reject": []}
    try:
        for wanted, found in tests.items():
            for given, is_pattern in ((exact or {}, False), (patterns or {}, True)):
                found.extend(_tag_test(item, is_pattern=is_pattern) for item in given.get(wanted) or ())
        resources = [re.compile(pattern) for pattern in info.filters.get("ignore_resources") or ()]
    except (AttributeError, TypeError, re.error) as error:
        if first_time(f"filters:{info.filters}"):
            logger.info("the Agent's filters cannot be used, so that its traces are counted all: %s", error)
        return lambda root: False
    if not (resources or any(tests.values())):
        return lambda root: False
    return lambda root: (
        any(pattern.search(root["resource"]) for pattern in resources)
        or any(test(root) for test in tests["reject"])
        or not all(test(root) for test in tests["require"])
    )


def _tag_test(item: str, *, is_pattern: bool) -> Callable[[Span], bool]:
    key, colon, value = item.partition(":")
    if is_pattern:
        pattern = re.compile(value)
        return lambda root: key in root["meta"] and (not colon or pattern.search(root["meta"][key]) is not None)
    return lambda root: key in root["meta"] and (not colon or root["meta"][key] == value)
