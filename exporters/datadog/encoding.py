"""Chunks of mapped spans -> msgpack, in the layout of /v0.4/traces (protocol A.2)."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from spanbridge.core.guard import report

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LOWEST, HIGHEST = -(1 << 63), (1 << 64) - 1

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
