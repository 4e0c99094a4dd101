"""Chunks of mapped spans -> msgpack, in the layout of /v0.4/traces or of /v0.5/traces (protocol A.2).

A chunk that waits is in the v0.4 layout; v0.5, whose table of texts is the payload's, is made of that when it is sent.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from spanbridge.core.guard import report

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LOWEST, HIGHEST = -(1 << 63), (1 << 64) - 1

_OF_THE_TRACE = (
    "_dd.p.",
    "_dd.origin",
    "_dd.git.",
    "_sampling_priority_v1",
    *(f"_dd.{by}_psr" for by in ("rule", "agent", "limit")),
)

Chunks = list[list[dict[str, Any]]]


@cache
def _encoder() -> Callable[[object], bytes]:
    """Make the encoder at the first send: importing msgspec costs some milliseconds that start-up need not wait for."""
    from msgspec.msgpack import Encoder

    return Encoder().encode


def encode_chunk(spans: list[dict[str, Any]]) -> bytes:
    """Encode one chunk; `join` makes a payload of several.

    Args:
        spans: its mapped spans.
    """
    return encode_v04([spans])[1:]  # without the header of an array of one


def join(chunks: Sequence[bytes]) -> bytes:
    """Make the payload that holds these encoded chunks: msgpack's array header, then one after the other."""
    count = len(chunks)
    if count < 16:
        header = bytes((0x90 | count,))
    elif count < 1 << 16:
        header = b"\xdc" + count.to_bytes(2, "big")
    else:
        header = b"\xdd" + count.to_bytes(4, "big")
    return header + b"".join(chunks)


def join_v05(chunks: Sequence[bytes]) -> bytes:
    """Make the payload for /v0.5/traces that holds these encoded chunks.

    Args:
        chunks: in the v0.4 layout, with links and events as tags.
    """
    table = {"": 0}

    def index(text: str) -> int:
        return table.setdefault(text, len(table))

    traces = [[_row(span, index) for span in decode_chunk(chunk)] for chunk in chunks]
    return _encoder()([list(table), traces])


def _row(span: dict[str, Any], index: Callable[[str], int]) -> list[Any]:
    return [
        *(index(span[key]) for key in ("service", "name", "resource")),
        *(span[key] for key in ("trace_id", "span_id", "parent_id", "start", "duration", "error")),
        {index(key): index(value) for key, value in span["meta"].items()},
        {index(key): float(value) for key, value in span["metrics"].items()},
        index(span["type"]),
    ]


def decode_chunk(chunk: bytes) -> list[dict[str, Any]]:
    """Read an encoded chunk back."""
    from msgspec.msgpack import decode

    spans: list[dict[str, Any]] = decode(chunk)
    return spans


def halves(chunk: bytes) -> tuple[bytes, bytes]:
    """Divide an encoded chunk of several spans; what concerns the trace stands on the first span of both halves."""
    spans = decode_chunk(chunk)
    middle = len(spans) // 2
    for place in ("meta", "metrics"):
        first, second = spans[0].get(place, {}), spans[middle].setdefault(place, {})
        second |= {tag: value for tag, value in first.items() if tag.startswith(_OF_THE_TRACE)}
    return encode_chunk(spans[:middle]), encode_chunk(spans[middle:])


def encode_v04(chunks: Chunks) -> bytes:
    """Encode `chunks`; a value that msgpack cannot hold is repaired or left out, and nothing else is lost.

    Args:
        chunks: one list of mapped spans per chunk.
    """
    encode = _encoder()
    try:
        return encode(chunks)
    except Exception as error:
        report("encoding spans at once (a value was repaired)", error)
        return encode([[_repaired(span) for span in chunk] for chunk in chunks])


def _repaired(span: dict[str, Any]) -> dict[str, Any]:
    try:
        _encoder()(span)
    except Exception:
        return {_repaired_text(key): value for key, old in span.items() if (value := _repair(old)) is not None}
    return span


def _repaired_text(value: str) -> str:
    return str.__str__(value).encode("utf-8", "replace").decode()


def _repair(value: object) -> object:
    """Replace lone surrogates, write integers beyond 64 bits as text, leave out what has no encoding (None)."""
    if isinstance(value, str):
        return _repaired_text(value)
    if isinstance(value, dict):
        items = ((_repair(key), _repair(item)) for key, item in value.items())
        return {key: item for key, item in items if isinstance(key, str) and item is not None}
    if isinstance(value, (list, tuple)):
        return [item for item in map(_repair, value) if item is not None]
    if type(value) is int and not LOWEST <= value <= HIGHEST:
        return None
    try:
        _encoder()(value)
    except Exception:
        return None
    return value
