"""AWS event streams as the services send them: https://smithy.io/2.0/aws/amazon-eventstream.html."""

from __future__ import annotations

import json
from base64 import b64encode
from struct import pack
from typing import TYPE_CHECKING, Any
from zlib import crc32

if TYPE_CHECKING:
    from collections.abc import Iterable

_STRING = 7  # the type of a header's value


def event(kind: str, content: Any) -> bytes:
    """Encode an event."""
    return _message({":message-type": "event", ":event-type": kind, ":content-type": "application/json"}, content)


def fault(kind: str, message: str) -> bytes:
    """Encode an exception, which ends a stream."""
    headers = {":message-type": "exception", ":exception-type": kind, ":content-type": "application/json"}
    return _message(headers, {"message": message})


def converse(*events: dict[str, Any]) -> list[bytes]:
    """Encode what ConverseStream answers; each event is a mapping of its kind to its content."""
    return [event(kind, content) for one in events for kind, content in one.items()]


def chunks(documents: Iterable[Any]) -> list[bytes]:
    """Encode what InvokeModelWithResponseStream answers: JSON of the model's own."""
    return [event("chunk", {"bytes": b64encode(json.dumps(document).encode()).decode()}) for document in documents]


def _message(headers: dict[str, str], content: Any) -> bytes:
    encoded = b"".join(
        pack("!B", len(name)) + name.encode() + pack("!BH", _STRING, len(value)) + value.encode()
        for name, value in headers.items()
    )
    payload = json.dumps(content).encode()
    prelude = pack("!II", 16 + len(encoded) + len(payload), len(encoded))
    message = prelude + pack("!I", crc32(prelude)) + encoded + payload
    return message + pack("!I", crc32(message))
