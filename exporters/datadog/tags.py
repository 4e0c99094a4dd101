"""Attribute -> tag: one table per family of spans with ddtrace's tag names; `OTLP` is the Agent's (protocol B.1)."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from spanbridge.core.options import words

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Attributes: TypeAlias = "Mapping[str, Any]"
Meta: TypeAlias = dict[str, str]
Metrics: TypeAlias = dict[str, float]
Store: TypeAlias = "Callable[[Any, Meta, Metrics], None]"
Finish: TypeAlias = "Callable[[Attributes, Meta, Metrics], None]"


class Reserved:
    """Marks attributes that steer the mapping and are not stored as they are."""


RESERVED: Final = Reserved()
Target: TypeAlias = "str | Store | Reserved | None"
"""Where an attribute goes: under that name, through that function, to the mapping itself, or nowhere (None)."""

_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_KEYS_REMEMBERED = 2_000
_NOT_IN_HEADERS = re.compile(r"[^a-z0-9_\-:/]")  # what ddtrace replaces in the names of captured headers
LONGEST_TEXT = 25_000  # characters; the Agent cuts tag values there


def text(attributes: Attributes, *keys: str) -> str:
    """Answer the first of `keys` that holds a text which is not empty."""
    for key in keys:
        value = attributes.get(key)
        if isinstance(value, str) and value:
            return value
    return ""


def status(attributes: Attributes) -> int:
    """Answer the HTTP status code under its stable or its old name, or 0."""
    value = attributes.get("http.response.status_code")
    if value is None:
        value = attributes.get("http.status_code")
    if isinstance(value, int):
        return value
    return int(value) if isinstance(value, str) and len(value) == 3 and value.isdecimal() else 0


_path_in = re.compile(r"(?:[^:/?#]*://)?[^/?#]*([^?#]*)").match


def url_path(url: str) -> str:
    """Cut the path out of a URL; `/` when it is empty."""
    found: Any = _path_in(url)  # every text fits
    return found[1] or "/"


def jsonable(value: object) -> str:
    """Write a list or mapping as JSON; what JSON does not know becomes text."""
    try:
        return json.dumps(plain(value), ensure_ascii=False, separators=(",", ":"))
    except RecursionError:
        return str(value)


def plain(value: object) -> object:
    """Reduce a value to what JSON knows: texts, numbers, booleans, lists and mappings; the rest becomes text."""
    if isinstance(value, dict):
        return {as_text(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if value is None or type(value) in {bool, int} or (type(value) is float and value - value == 0):
        return value
    return as_text(value)


def as_text(value: object) -> str:
    """Turn any attribute value into tag text (protocol B.1 and the table of odd values)."""
    if isinstance(value, str):
        text = str.__str__(value)
    elif isinstance(value, bool):
        return "true" if value else "false"
    elif isinstance(value, (bytes, bytearray)):
        text = bytes(value).decode("utf-8", "replace")
    elif isinstance(value, (list, tuple, dict)):
        text = jsonable(value)
    else:
        text = str(value)
    return text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + "..."


def store(key: str, value: object, meta: Meta, metrics: Metrics) -> None:
    """Store one value by its type: numbers that fit as metric, the rest as text; None, NaN and infinities nowhere."""
    if type(value) is int and -(1 << 63) <= value < 1 << 64:
        metrics[key] = value
    elif isinstance(value, int) and not isinstance(value, bool):
        number = int.__int__(value)
        if -(1 << 63) <= number < 1 << 64:
            metrics[key] = number
        else:
            meta[key] = str(number)
    elif isinstance(value, float):
        decimal = float.__float__(value)
        if decimal - decimal == 0:
            metrics[key] = decimal
    elif value is not None:
        meta[key] = as_text(value)


def number(tag: str) -> Store:
    """Store a number, or a text that is one, as metric."""

    def store_number(value: Any, meta: Meta, metrics: Metrics) -> None:
        if type(value) is int and 0 <= value < 1 << 63:
            metrics[tag] = value
        elif type(value) is str and value.isdecimal() and len(value) < 20:
            metrics[tag] = int(value)
        else:
            store(tag, value, meta, metrics)

    return store_number


def string(tag: str, also: str = "") -> Store:
    """Store the value as text under `tag`, and under `also` too."""

    def store_text(value: Any, meta: Meta, metrics: Metrics) -> None:
        if type(value) is int:  # statuses
            value = str(value)
        elif type(value) is not str or len(value) > LONGEST_TEXT:
            value = as_text(value)
        meta[tag] = value
        if also:
            meta[also] = value

    return store_text


def joined(tag: str) -> Store:
    """Store a list of texts (captured headers) as one."""

    def store_list(value: Any, meta: Meta, metrics: Metrics) -> None:
        meta[tag] = as_text(",".join(map(as_text, value)) if isinstance(value, (list, tuple)) else value)

    return store_list


def _noted(tag: str) -> Store:
    def store_noted(value: Any, meta: Meta, metrics: Metrics) -> None:
        meta[tag] = "true"

    return store_noted


def _as_python(tag: str) -> Store:
    """Write lists and booleans as `str` does, and ddtrace with it."""

    def store_as_python(value: Any, meta: Meta, metrics: Metrics) -> None:
        if isinstance(value, tuple):
            value = list(value)
        meta[tag] = as_text(str(value) if isinstance(value, (list, bool)) else value)

    return store_as_python


# As Cassandra's protocol numbers them.
_CONSISTENCIES = words("any, one, two, three, quorum, all, local_quorum, each_quorum, serial, local_serial, local_one")


def _consistency(value: Any, meta: Meta, metrics: Metrics) -> None:
    level = _CONSISTENCIES.index(value) if value in _CONSISTENCIES else value
    store("cassandra.consistency_level", level, meta, metrics)


class Targets(dict[str, Target]):
    """A table that answers for every key: captured headers and `datadog.*` by prefix, others under their own name."""

    def __init__(self, table: Mapping[str, Target]) -> None:
        super().__init__(table)
        self._like_otlp = table is OTLP

    def __missing__(self, key: Any) -> Target:
        target: Target = key
        if not isinstance(key, str):
            return None
        if key.startswith(("http.request.header.", "http.response.header.")):
            way, _, header = key.partition(".header.")
            target = joined(f"{way}.headers.{header if self._like_otlp else _NOT_IN_HEADERS.sub('_', header)}")
        elif key.startswith("datadog."):
            target = RESERVED
        elif key.__class__ is not str:
            target = str.__str__(key)
        if len(self) < _KEYS_REMEMBERED:
            self[key] = target
        return target


_STEERING: dict[str, Target] = {
    **dict.fromkeys(("operation.name", "resource.name", "span.type", "service.name", "error.type"), RESERVED),
    **dict.fromkeys(("analytics.event", "sampling.priority", "manual.keep", "manual.drop"), RESERVED),
    # Receivers read JSON there, and refuse the payload if it is none.
    "events": "attributes.events",
    "_dd.span_links": None,
    "datadog.env": string("env"),
    "datadog.version": string("version"),
    "datadog.http_status_code": string("http.status_code"),
    "datadog.span.kind": string("span.kind"),
    "datadog.error.msg": string("error.message", "error.msg"),
    "datadog.error.type": string("error.type"),
    "datadog.error.stack": string("error.stack"),
}
_HTTP: dict[str, Target] = _STEERING | {
    "http.request.method": "http.method",
    "http.response.status_code": string("http.status_code"),
    "http.status_code": string("http.status_code"),
    "user_agent.original": "http.useragent",
    "http.user_agent": "http.useragent",
    "network.protocol.version": "http.version",
    "http.flavor": "http.version",
    "http.request.body.size": "http.request.content_length",
    "http.response.body.size": "http.response.content_length",
}

HTTP_SERVER: dict[str, Target] = _HTTP | dict.fromkeys(
    (
        # told by http.url
        *("url.scheme", "url.path", "url.query", "server.address", "server.port"),
        *("http.scheme", "http.target", "http.host", "http.server_name", "net.host.name", "net.host.port"),
        # addresses of users, which ddtrace keeps only when asked (DD_TRACE_CLIENT_IP_ENABLED)
        *("client.address", "client.port", "network.peer.address", "network.peer.port"),
        *("http.client_ip", "net.peer.ip", "net.peer.name", "net.peer.port", "net.host.ip"),
    )
)


def _route(spell: Callable[[str], str]) -> Store:
    """Store a route as ddtrace spells it, which is remembered."""
    spelt = lru_cache(1000)(spell)

    def store_route(value: Any, meta: Meta, metrics: Metrics) -> None:
        meta["http.route"] = spelt(value)

    return store_route


FLASK: dict[str, Target] = HTTP_SERVER | {
    "http.route": string("http.route", "flask.url_rule"),
    "template.name": "flask.template_name",
}
DJANGO: dict[str, Target] = HTTP_SERVER | {
    "http.route": _route(lambda route: "^/" if route == "/" else as_text(route)),
    "template.name": "django.template.name",
    "user.id": string("usr.id", "django.user.id"),
}
TORNADO: dict[str, Target] = HTTP_SERVER | {
    "http.route": _route(lambda route: re.sub(r"\{\w+\}", "%s", as_text(route))),
}
CLIENT_IP: dict[str, Target] = {
    "client.address": "http.client_ip",
    "http.client_ip": "http.client_ip",
    "network.peer.address": "network.client.ip",
    "net.peer.ip": "network.client.ip",
}
HTTP_CLIENT: dict[str, Target] = _HTTP | {
    "url.full": "http.url",
    "server.address": "out.host",
    "net.peer.name": "out.host",
    "server.port": None,
    "net.peer.port": None,
}
_PEER: dict[str, Target] = {
    "server.address": string("out.host", "server.address"),
    "net.peer.name": string("out.host", "server.address"),
    "server.port": number("network.destination.port"),
    "net.peer.port": number("network.destination.port"),
}
_DATABASE: dict[str, Target] = (
    _STEERING
    | _PEER
    | {
        "db.system.name": "db.system",
        "db.namespace": "db.name",
        "db.operation.name": "db.operation",
        "db.response.returned_rows": number("db.row_count"),
        "net.transport": None,
        "network.transport": None,
    }
)
SQL: dict[str, Target] = _DATABASE | {
    # the resource holds the statement, where the Agent obfuscates it
    "db.query.text": None,
    "db.statement": None,
    "db.operation.batch.size": _noted("sql.executemany"),
    "spanbridge.db.batch": _noted("sql.executemany"),
    "spanbridge.db.trace_injected": _noted("_dd.dbm_trace_injected"),
    "postgresql.application_name": "db.application",
}
SQLALCHEMY: dict[str, Target] = SQL | dict.fromkeys(("db.namespace", "db.name"), string("db.name", "sql.db"))
REDIS: dict[str, Target] = _DATABASE | {
    "db.query.text": "redis.raw_command",
    "db.statement": "redis.raw_command",
    "db.namespace": number("out.redis_db"),
    "db.redis.database_index": number("out.redis_db"),
    "db.operation.name": None,
    "db.operation.batch.size": number("redis.pipeline_length"),
    "db.redis.pipeline_length": number("redis.pipeline_length"),
    "db.redis.args_length": number("redis.args_length"),
}
MEMCACHED: dict[str, Target] = _DATABASE | {
    "db.query.text": "memcached.query",
    "db.statement": "memcached.query",
    "db.operation.name": None,
}
FLASK_CACHE: dict[str, Target] = MEMCACHED | {
    "flask_cache.key": _as_python("flask_cache.key"),
    "db.namespace": number("out.redis_db"),
}
MONGODB: dict[str, Target] = _DATABASE | {
    "db.query.text": "mongodb.query",
    "db.statement": "mongodb.query",
    "db.namespace": "mongodb.db",
    "db.name": "mongodb.db",
    "db.collection.name": "mongodb.collection",
    "db.mongodb.collection": "mongodb.collection",
    "db.operation.name": None,
    "mongodb.ordered": _as_python("mongodb.ordered"),
}
CASSANDRA: dict[str, Target] = SQL | {
    "db.namespace": "cassandra.keyspace",
    "db.name": "cassandra.keyspace",
    "cassandra.consistency.level": _consistency,
    "db.operation.batch.size": number("cassandra.batch_size"),
}
ELASTICSEARCH: dict[str, Target] = _DATABASE | {
    "http.request.method": "elasticsearch.method",
    "http.response.status_code": string("http.status_code"),
    "http.status_code": string("http.status_code"),
    "db.response.status_code": string("http.status_code"),
    "url.full": None,
    "url.path": "elasticsearch.url",
    "url.query": "elasticsearch.params",
    "db.query.text": "elasticsearch.body",
    "db.statement": "elasticsearch.body",
    "db.system": None,
    "db.system.name": None,
}
AWS: dict[str, Target] = _HTTP | {
    "rpc.system": None,
    "rpc.system.name": None,
    "rpc.service": None,
    "rpc.method": "aws.operation",
    "cloud.region": string("aws.region", "region"),
    "aws.request_id": "aws.requestid",
    "aws.endpoint_prefix": None,
    "aws.s3.bucket": string("aws.s3.bucket_name", "bucketname"),
    "aws.kinesis.stream_name": string("aws.kinesis.stream_name", "streamname"),
    "aws.events.rule.name": "rulename",
    "aws.step_functions.state_machine.arn": "statemachinearn",
    "faas.invoked_name": "functionname",
    "server.address": "out.host",
    "server.port": None,
}
GRPC: dict[str, Target] = (
    _STEERING
    | _PEER
    | {
        "server.address": "grpc.host",
        "rpc.method": None,
        "rpc.system": None,
        "rpc.system.name": None,
        "rpc.grpc.status_code": RESERVED,
        "rpc.response.status_code": RESERVED,
        "error.message": string("error.message", "error.msg"),
    }
)
_MESSAGING: dict[str, Target] = (
    _STEERING
    | _PEER
    | {"messaging.operation.type": None, "messaging.operation.name": None, "messaging.destination_kind": None}
)
CELERY: dict[str, Target] = _MESSAGING | {
    "messaging.message.id": "celery.id",
    "messaging.message.conversation_id": "celery.correlation_id",
    "messaging.conversation_id": "celery.correlation_id",
    "messaging.destination.name": "celery.routing_key",
    "messaging.destination": "celery.routing_key",
    "celery.task_name": None,  # the resource
    "celery.delivery_info.is_eager": _as_python("celery.delivery_info.is_eager"),
    "celery.delivery_info.redelivered": _as_python("celery.delivery_info.redelivered"),
}
KOMBU: dict[str, Target] = _MESSAGING | {
    "messaging.message.body.size": number("kombu.body_length"),
    "kombu.virtual_host": "out.vhost",
}
PLAIN: dict[str, Target] = _STEERING | _PEER

OTLP: dict[str, Target] = _STEERING | {
    "client.address": "http.client_ip",
    "http.response.body.size": "http.response.content_length",
    "http.response.status_code": string("http.status_code"),
    "http.status_code": string("http.status_code"),
    "http.request.body.size": "http.request.content_length",
    "http.request.header.referrer": "http.referrer",
    "http.request.method": "http.method",
    "network.protocol.version": "http.version",
    "server.address": "http.server_name",
    "url.full": "http.url",
    "user_agent.original": "http.useragent",
    "db.namespace": string("db.namespace", "db.name"),
}


def server_url(attributes: Attributes, meta: Meta, metrics: Metrics) -> None:
    """Rebuild `http.url` as `scheme://host:port/path?query`, without the scheme's own port."""
    get = attributes.get
    path = get("url.path")
    if path.__class__ is str:
        scheme, host, port, query = get("url.scheme"), get("server.address"), get("server.port"), get("url.query")
    else:  # the old names
        path, scheme, host, port, query = get("http.target"), get("http.scheme"), get("http.host"), None, None
        if not host:
            host, port = get("http.server_name") or get("net.host.name"), get("net.host.port")
        if path.__class__ is not str:
            return
    if host.__class__ is not str or not host or scheme.__class__ is not str:
        url = path
    else:
        if port and ":" in host and host[0] != "[":
            host = f"[{host}]"
        url = (
            f"{scheme}://{host}{path}"
            if not port or port == _DEFAULT_PORTS.get(scheme)
            else f"{scheme}://{host}:{port}{path}"
        )
    meta["http.url"] = f"{url}?{query}" if query else url


def asgi_url(attributes: Attributes, meta: Meta, metrics: Metrics) -> None:
    """Rebuild `http.url`, and tell the handshakes of websockets."""
    server_url(attributes, meta, metrics)
    if meta.get("http.url", "").startswith(("ws:", "wss:")):
        meta["http.upgraded"] = "websocket"


def client_answer(attributes: Attributes, meta: Meta, metrics: Metrics) -> None:
    """Put the status in words; take what is no part of a request out of `http.url`: user info, and the fragment."""
    url = meta.get("http.url", "")
    if "REDACTED:REDACTED@" in url:
        url = meta["http.url"] = url.replace("REDACTED:REDACTED@", "", 1)
    if "#" in url:
        meta["http.url"] = url.partition("#")[0]
    if (code := meta.get("http.status_code")) and (words_ := status_words(code)):
        meta["http.status_msg"] = words_


@lru_cache(1000)
def status_words(code: str) -> str:
    """Answer what HTTP calls a status, `Not Found`, or ""."""
    from http import HTTPStatus

    return next((status.phrase for status in HTTPStatus if str(status.value) == code), "")


def redis_arguments(attributes: Attributes, meta: Meta, metrics: Metrics) -> None:
    """Count the words of a single command, as `redis.args_length` (a value is one `?` in sanitised text)."""
    command = meta.get("redis.raw_command")
    if command and "redis.args_length" not in metrics and "redis.pipeline_length" not in metrics:
        metrics["redis.args_length"] = command.count(" ") + 1


def mongodb_documents(attributes: Attributes, meta: Meta, metrics: Metrics) -> None:
    """Count the documents that an insert sends."""
    if attributes.get("db.operation.name") == "insert":
        metrics["mongodb.documents"] = metrics.get("db.operation.batch.size", 1)


def cassandra_answer(attributes: Attributes, meta: Meta, metrics: Metrics) -> None:
    """Say whether there are several pages; show the statements of a batch, which are not its resource."""
    if "error.type" not in attributes:
        meta["cassandra.paginated"] = str("cassandra.page_number" in metrics)
    if "cassandra.batch_size" in metrics and (shown := text(attributes, "db.query.text")):
        meta["cassandra.query"] = shown


# The prefixes of endpoints, by which ddtrace calls services, for spans that do not tell theirs: where it is not the
# service's name in lower case without blanks.
_ENDPOINTS = {
    "cloudwatch": "monitoring",
    "cloudwatchlogs": "logs",
    "cloudwatchevents": "events",
    "eventbridge": "events",
    "sfn": "states",
    "ses": "email",
    "sesv2": "email",
}
_PARTITIONS = {"cn": "aws-cn", "us-gov": "aws-us-gov", "us-iso": "aws-iso", "us-isob": "aws-iso-b", "eusc": "aws-eusc"}


@lru_cache(1000)
def _endpoint(service: str) -> str:
    name = service.replace(" ", "").lower()
    return _ENDPOINTS.get(name, name)


@lru_cache(100)
def _partition(region: str) -> str:
    return _PARTITIONS.get(region.rsplit("-", 2)[0], "aws")


def aws_call(attributes: Attributes) -> tuple[str, str]:
    """Answer the prefix of the endpoint and the operation, both in lower case: `s3`, `getobject`."""
    method = text(attributes, "rpc.method", "aws.operation")
    full, _, method = method.rpartition("/")
    prefix = text(attributes, "aws.endpoint_prefix", "endpoint")
    return prefix or _endpoint(text(attributes, "rpc.service") or full or "aws"), method.lower()


def aws_names(attributes: Attributes, meta: Meta, metrics: Metrics) -> None:
    """Name service, partition, and what the call is about: queue, topic and account, table."""
    meta["aws_service"] = aws_call(attributes)[0]
    meta["aws.agent"] = text(attributes, "aws.agent") or meta.get("component", "botocore")
    if "aws.partition" not in meta and (region := meta.get("aws.region")):
        meta["aws.partition"] = _partition(region)
    service = meta["aws_service"]
    name = text(attributes, "messaging.destination.name", "messaging.destination").rpartition(":")[2]
    if service == "sqs" and name:
        meta["aws.sqs.queue_name"] = meta["queuename"] = name
        account = text(attributes, "aws.sqs.queue.url", "aws.queue_url").rpartition("/")[0].rpartition("/")[2]
        if account.isdecimal():
            meta["aws_account"] = account
    elif topic := text(attributes, "aws.sns.topic.arn"):
        meta["aws.sns.topic_arn"] = topic
        meta["topicname"], meta["aws_account"] = topic.rpartition(":")[2], (topic.split(":") + [""] * 5)[4]
    tables = attributes.get("aws.dynamodb.table_names")
    if isinstance(tables, (list, tuple)) and len(tables) == 1:
        meta["aws.dynamodb.table_name"] = meta["tablename"] = as_text(tables[0])


_GRPC_CODES = words(
    "OK, CANCELLED, UNKNOWN, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND, ALREADY_EXISTS, PERMISSION_DENIED,"
    "RESOURCE_EXHAUSTED, FAILED_PRECONDITION, ABORTED, OUT_OF_RANGE, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS,"
    "UNAUTHENTICATED"
)


_IP = re.compile(r"\d+(?:\.\d+){3}|[\da-fA-F:.]*:[\da-fA-F:.]*")


def grpc_method(attributes: Attributes, meta: Meta, metrics: Metrics) -> None:
    """Split the method's path into `grpc.method.*`, name the status code (`StatusCode.OK`), which may be an error.

    A server that is called by its address has it in `network.destination.ip`, too, any other in `peer.hostname`.
    """
    if _IP.fullmatch(host := meta.get("grpc.host", "")):
        meta["network.destination.ip"] = host
    elif host and "/" not in host:  # as the path of a socket has it
        meta["peer.hostname"] = host
    path = rpc_path(attributes)
    service, _, method = path.strip("/").rpartition("/")
    package, _, name = service.rpartition(".")
    parts = {"path": path, "package": package, "service": name, "name": method}
    meta.update((f"grpc.method.{part}", value) for part, value in parts.items() if value)
    for key in ("rpc.response.status_code", "rpc.grpc.status_code"):
        code = attributes.get(key)
        if isinstance(code, int) and 0 <= code < len(_GRPC_CODES):
            code = _GRPC_CODES[code]
        if isinstance(code, str) and code:
            meta["grpc.status.code"] = f"StatusCode.{code}"
            if code != "OK" and attributes.get("error.type", code) == code:
                meta["error.type"] = f"StatusCode.{code}"
            return


def rpc_path(attributes: Attributes) -> str:
    """Answer `/package.Service/Method` from the old pair of attributes or the newer full method."""
    service, method = text(attributes, "rpc.service"), text(attributes, "rpc.method")
    path = f"{service}/{method}" if service and "/" not in method else method
    return path if path.startswith("/") else f"/{path}"


@lru_cache(1000)
def quantised(path: str) -> str:
    """Replace numbers in a path as ddtrace's elasticsearch integration does: `/12` -> `/?`, runs of digits -> `?`."""
    return re.sub(r"\d{2,}", "?", re.sub(r"/\d+(?=/|$)", "/?", path))


_NOT_IN_TAG = re.compile(r"(?:[^\w:./\-]|_)+")


@lru_cache(1000)
def normalised(value: str) -> str:
    """Normalise as the Agent normalises tag values: lower case, other characters become one `_`, 200 at most."""
    return _NOT_IN_TAG.sub("_", value.lower()).strip("_")[:200]
