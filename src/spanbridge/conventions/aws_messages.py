"""How a context travels with what AWS carries from one program to another, and how the receiver finds it again.

SQS and SNS have message attributes. Kinesis, EventBridge, Step Functions and Lambda have none: there the context goes
into the JSON that is sent, under the one name (`messaging.envelope`) that the vendor's other tracers look for.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from opentelemetry.propagate import get_global_textmap
from opentelemetry.trace import get_current_span

from spanbridge.core.guard import first_time, logger
from spanbridge.core.options import setting
from spanbridge.core.propagation import extract

if TYPE_CHECKING:
    from opentelemetry.context import Context

Params = Mapping[str, Any]
Headers = dict[str, str]

# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-message-metadata.html and its like
_MOST_ATTRIBUTES = 10
_LARGEST_DETAIL = 256 << 10
_LARGEST_RECORD = 1 << 20
_LARGEST_INPUT = 256 << 10
_LARGEST_CLIENT_CONTEXT = 3583


def envelope() -> str:
    """Name the attribute, or key, that holds the context as JSON; empty when each header is an attribute itself."""
    return setting("messaging.envelope", "")


def put(service: str, operation: str, params: Params, headers: Headers, *, contrib: bool) -> Params:
    """Answer parameters that carry `headers`; the given ones stay as they are, for they are the application's."""
    place = (_CONTRIB_PLACES if contrib else _PLACES).get((service, operation))
    return params if place is None or not headers else place(params, headers)


def asking(service: str, params: Params) -> Params:
    """Answer parameters that ask SQS for the message attributes that carry a context, too."""
    if service != "sqs":
        return params
    asked = list(params.get("MessageAttributeNames") or ())
    name = envelope()
    wanted = [name] if name else sorted(get_global_textmap().fields)
    if "All" in asked or ".*" in asked or not (missing := [name for name in wanted if name not in asked]):
        return params
    return {**params, "MessageAttributeNames": [*asked, *missing]}


def contexts(service: str, result: Any) -> list[Context]:
    """Answer the contexts that the messages of a result carry, in their order."""
    if service == "sqs":
        carriers = [_of_message(message) for message in result.get("Messages") or ()]
    elif service == "kinesis":
        carriers = [_of_record(record) for record in result.get("Records") or ()]
    else:
        return []
    extracted = [extract(carrier) for carrier in carriers if carrier]
    return [context for context in extracted if get_current_span(context).get_span_context().is_valid]


# Writing.


def _attributes(kind: str) -> Callable[[Params, Headers], Params]:
    def place(entry: Params, headers: Headers) -> Params:
        given = entry.get("MessageAttributes") or {}
        name = envelope()
        added = {name: _attribute(kind, json.dumps(headers))} if name else _strings(headers)
        added = {key: value for key, value in added.items() if key not in given}
        if len(given) + len(added) > _MOST_ATTRIBUTES:
            _too_much("a message has as many attributes as it may have")
            return entry
        return {**entry, "MessageAttributes": {**given, **added}}

    return place


def _attribute(kind: str, text: str) -> dict[str, Any]:
    return {"DataType": kind, f"{kind}Value": text.encode() if kind == "Binary" else text}


def _strings(headers: Headers) -> dict[str, Any]:
    return {key: _attribute("String", value) for key, value in headers.items()}


def _contrib_attributes(entry: Params, headers: Headers) -> Params:
    """As contrib does, into the application's own mapping if there is one."""
    given = entry.get("MessageAttributes")
    attributes = {} if given is None else given
    if len(attributes) + len(get_global_textmap().fields) > _MOST_ATTRIBUTES:
        _too_much("a message has as many attributes as it may have")
    else:
        attributes.update(_strings(headers))
    return {**entry, "MessageAttributes": attributes}


def _in_each(key: str, place: Callable[[Params, Headers], Params]) -> Callable[[Params, Headers], Params]:
    def place_in_each(params: Params, headers: Headers) -> Params:
        return {**params, key: [place(entry, headers) for entry in params.get(key) or ()]}

    return place_in_each


def _in_json(key: str, largest: int, *, absent: str | None = None) -> Callable[[Params, Headers], Params]:
    """Put the context into the JSON object below `key`; anything else than an object stays as it is."""

    def place(params: Params, headers: Headers) -> Params:
        name, text = envelope(), params.get(key, absent)
        document = _object(text)
        if not name or document is None or name in document:
            return params
        written = json.dumps({**document, name: headers})
        if _ends_a_line(text):
            written += "\n"
        if len(written) >= largest:
            _too_much(f"{key} would be larger than {largest} bytes")
            return params
        return {**params, key: written}

    return place


def _object(text: Any) -> dict[str, Any] | None:
    """Read a JSON object from text, from bytes, or from their base64."""
    if not isinstance(text, (str, bytes, bytearray)) or not text:
        return None
    for decode in (lambda raw: raw, b64decode):
        try:
            document = json.loads(decode(text))
        except ValueError:
            continue
        return document if isinstance(document, dict) else None
    return None


def _ends_a_line(text: Any) -> bool:
    return text[-1:] in {"\n", b"\n"}


def _client_context(params: Params, headers: Headers) -> Params:
    """Lambda hands `custom` of its client context to the function; base64 of a JSON object.

    https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html (X-Amz-Client-Context)
    """
    given = params.get("ClientContext")
    document = _object(given) if given else {}
    if document is None or not isinstance(custom := document.get("custom") or {}, dict):
        return params
    written = b64encode(json.dumps({**document, "custom": {**custom, **headers}}).encode()).decode()
    if len(written) > _LARGEST_CLIENT_CONTEXT:
        _too_much("the client context has no room left")
        return params
    return {**params, "ClientContext": written}


def _contrib_payload(params: Params, headers: Headers) -> Params:
    document = _object(params.get("Payload"))
    if document is None:
        return params
    return {**params, "Payload": json.dumps({**document, "headers": {**(document.get("headers") or {}), **headers}})}


def _too_much(reason: str) -> None:
    if first_time(f"aws:{reason}"):
        logger.warning("AWS: the context does not travel along: %s", reason)


# SNS takes binary: its subscriptions' filters stumble over JSON in strings.
_PLACES: dict[tuple[str, str], Callable[[Params, Headers], Params]] = {
    ("sqs", "SendMessage"): _attributes("String"),
    ("sqs", "SendMessageBatch"): _in_each("Entries", _attributes("String")),
    ("sns", "Publish"): _attributes("Binary"),
    ("sns", "PublishBatch"): _in_each("PublishBatchRequestEntries", _attributes("Binary")),
    ("kinesis", "PutRecord"): _in_json("Data", _LARGEST_RECORD),
    ("kinesis", "PutRecords"): _in_each("Records", _in_json("Data", _LARGEST_RECORD)),
    ("events", "PutEvents"): _in_each("Entries", _in_json("Detail", _LARGEST_DETAIL, absent="{}")),
    ("stepfunctions", "StartExecution"): _in_json("input", _LARGEST_INPUT),
    ("stepfunctions", "StartSyncExecution"): _in_json("input", _LARGEST_INPUT),
    ("lambda", "Invoke"): _client_context,
}
_CONTRIB_PLACES: dict[tuple[str, str], Callable[[Params, Headers], Params]] = {
    ("sns", "Publish"): _contrib_attributes,
    ("sns", "PublishBatch"): _in_each("PublishBatchRequestEntries", _contrib_attributes),
    ("lambda", "Invoke"): _contrib_payload,
}


# Reading.


def _of_message(message: Params) -> Headers:
    """SQS's own attributes, else those of the SNS notification that the body is."""
    if headers := _of_attributes(message.get("MessageAttributes") or {}):
        return headers
    body = message.get("Body") or ""
    if '"MessageAttributes"' not in body:
        return {}
    notification = _object(body) or {}
    return _of_attributes(notification.get("MessageAttributes") or {})


def _of_attributes(attributes: Params) -> Headers:
    name = envelope()
    if name in attributes:
        document = _object(_content(attributes[name]))
        return {} if document is None else {str(key): str(value) for key, value in document.items()}
    fields = get_global_textmap().fields
    return {key: str(_content(value)) for key, value in attributes.items() if key in fields}


def _content(attribute: Params) -> Any:
    """SQS says `StringValue` or `BinaryValue`, SNS's JSON says `Value`."""
    return next((attribute[key] for key in ("StringValue", "BinaryValue", "Value") if key in attribute), "")


def _of_record(record: Params) -> Headers:
    document = _object(record.get("Data")) or {}
    carried = document.get(envelope())
    return {str(key): str(value) for key, value in carried.items()} if isinstance(carried, dict) else {}
