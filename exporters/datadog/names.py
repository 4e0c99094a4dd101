"""Library -> operation, type, resource, service: as ddtrace 4.16 names them (`CLASSIC`), or as the Agent names OTLP.

Spans of our instrumentors and of OpenTelemetry contrib's share the rows, found by the last part of the scope's name.
asyncio, gevent and futures have no row: they carry context and make no spans of their own.
"""

from __future__ import annotations

import re
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from opentelemetry.trace import SpanKind

from spanbridge.core.options import words
from spanbridge.exporters.datadog import tags
from spanbridge.exporters.datadog.tags import (
    Attributes,
    aws_call,
    normalised,
    quantised,
    rpc_path,
    status,
    text,
    url_path,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from spanbridge.exporters.datadog.settings import Settings
    from spanbridge.exporters.datadog.tags import Finish, Target

Rule: TypeAlias = "Callable[[str, Attributes], str]"
"""Answers a name from the span's name and its attributes."""

SCOPES = ("spanbridge.instrumentors.", "opentelemetry.instrumentation.")
_METHOD = ("http.request.method", "http.method")
_SYSTEM = ("db.system.name", "db.system")
_STATEMENT = ("db.query.text", "db.statement")
_OPERATION = ("db.operation.name", "db.operation")
_FILTERED = frozenset({"find", "update", "delete"})
_FETCHES = frozenset({"fetchone", "fetchmany", "fetchall", "FETCHONE", "FETCHMANY", "FETCHALL"})


# --- rules -----------------------------------------------------------------------------------------------------------


def span_name(name: str, attributes: Attributes) -> str:
    """The span's own name."""
    return name


def main(name: str, attributes: Attributes) -> str:
    """Every span of this scope is the row's operation."""
    return ""


def without_method(name: str, attributes: Attributes) -> str:
    """A web framework's span without an HTTP method is a detail (middleware, view, send), under its own name."""
    if "http.request.method" in attributes or "http.method" in attributes:
        return ""
    return text(attributes, "asgi.event.type") or name


def connection(vendor: str) -> Rule:
    """A driver's call without a statement is `<vendor>.connection.commit`, its resource too."""

    def rule(name: str, attributes: Attributes) -> str:
        if "db.query.text" in attributes or "db.statement" in attributes:
            return ""
        operation = text(attributes, *_OPERATION)
        return f"{vendor}.connection.{operation.lower()}" if operation else f"{vendor}.{name}"

    return rule


def fetch(prefix: str) -> Rule:
    """Fetching rows of a statement is `<prefix>.fetchone`."""

    def rule(name: str, attributes: Attributes) -> str:
        operation = attributes.get("db.operation.name")
        return f"{prefix}.{operation.lower()}" if operation in _FETCHES else ""

    return rule


def vertica_part(name: str, attributes: Attributes) -> str:
    """Fetching rows is `vertica.fetchone`, loading them `vertica.copy`."""
    return "vertica.copy" if attributes.get("db.operation.name") == "COPY" else _VERTICA_FETCH(name, attributes)


_VERTICA_FETCH = fetch("vertica")


def other_than(operation: str) -> Rule:
    """Spans by another name than `operation` keep their own."""
    return lambda name, attributes: "" if name == operation else name


def constant(value: str) -> Rule:
    """The same for every span."""
    return lambda name, attributes: value


def the_operation(name: str, attributes: Attributes) -> str:
    """The operation, whatever the schema calls it."""
    return ""


def _method(attributes: Attributes) -> str:
    method = attributes.get("http.request.method") or attributes.get("http.method") or ""
    return "HTTP" if method == "_OTHER" else method


def route(name: str, attributes: Attributes) -> str:
    """`GET /items/<int:id>`; for unmatched requests `GET 404`."""
    method, matched = _method(attributes), attributes.get("http.route") or status(attributes)
    return f"{method} {matched}" if matched else method


def django_route(name: str, attributes: Attributes) -> str:
    """`GET items/<int:id>`; `GET ^/` for the empty pattern; for unmatched requests `GET 404`."""
    matched = attributes.get("http.route") or "404"
    return f"{_method(attributes)} {'^/' if matched == '/' else matched}"


def django_handler(name: str, attributes: Attributes) -> str:
    """`GET shop.views.item`; for unmatched requests `GET 404` (DD_DJANGO_USE_HANDLER_RESOURCE_FORMAT)."""
    return f"{_method(attributes)} {text(attributes, 'code.function.name') or '404'}"


def django_handler_alone(name: str, attributes: Attributes) -> str:
    """`shop.views.item`; for unmatched requests `GET 404` (DD_DJANGO_USE_LEGACY_RESOURCE_FORMAT)."""
    return text(attributes, "code.function.name") or django_handler(name, attributes)


def route_or_status(name: str, attributes: Attributes) -> str:
    """`GET /items/{id}`; for unmatched requests the bare `404`."""
    return route(name, attributes) if attributes.get("http.route") else str(status(attributes) or name)


def route_or_path(name: str, attributes: Attributes) -> str:
    """`GET /items/{id}`, `websocket /rooms/{id}`; for unmatched requests the raw path.

    (DD_ASGI_OBFUSCATE_404_RESOURCE changes that.)
    """
    path = text(attributes, "http.route") or url_path(text(attributes, "url.path", "http.target", "http.url"))
    return f"{_asgi_method(attributes)} {path}"


def route_or_code(name: str, attributes: Attributes) -> str:
    """`GET /items/{id}`, `websocket /rooms/{id}`; for unmatched requests `GET 404` (DD_ASGI_OBFUSCATE_404_RESOURCE)."""
    matched = text(attributes, "http.route") or status(attributes)
    return f"{_asgi_method(attributes)} {matched or ''}".rstrip()


def _asgi_method(attributes: Attributes) -> str:
    websocket = text(attributes, "url.scheme", "http.scheme") in _WEBSOCKETS
    return "websocket" if websocket else _method(attributes)


_WEBSOCKETS = frozenset({"ws", "wss"})


def falcon_resource(name: str, attributes: Attributes) -> str:
    """`GET module.Resource`; for unmatched requests `GET 404`."""
    return f"{_method(attributes)} {text(attributes, 'falcon.resource') or status(attributes)}"


def pyramid_route(name: str, attributes: Attributes) -> str:
    """`GET <name of the route>`; for unmatched requests the bare `404`."""
    matched = text(attributes, "pyramid.route.name")
    return f"{_method(attributes)} {matched}" if matched else route_or_status(name, attributes)


def pylons_action(name: str, attributes: Attributes) -> str:
    """`controller.action`; for unmatched requests, as ddtrace had it, `None.None`."""
    parts = (text(attributes, f"pylons.route.{part}") or "None" for part in ("controller", "action"))
    return ".".join(parts)


def tornado_handler(name: str, attributes: Attributes) -> str:
    """`module.Handler`."""
    return text(attributes, "tornado.handler") or route(name, attributes)


def method_and_path(name: str, attributes: Attributes) -> str:
    """`GET /path` of the called URL, without its query."""
    return f"{_method(attributes)} {url_path(attributes.get('url.full') or attributes.get('http.url') or '')}"


def statement(name: str, attributes: Attributes) -> str:
    """The statement as it was passed (the Agent obfuscates it by the span's type)."""
    found: str | None = attributes.get("db.query.text", attributes.get("db.statement"))
    return name if found is None else found


def vertica_statement(name: str, attributes: Attributes) -> str:
    """The statement; for fetches the operation."""
    return _VERTICA_FETCH(name, attributes) or statement(name, attributes)


def cassandra_query(name: str, attributes: Attributes) -> str:
    """The statement; `BatchStatement` for batches."""
    return "BatchStatement" if "db.operation.batch.size" in attributes else statement(name, attributes)


def first_words(name: str, attributes: Attributes) -> str:
    """The command, or the commands of a pipeline, one per line."""
    commands: str = attributes.get("db.query.text") or attributes.get("db.statement") or ""
    if not commands:
        return text(attributes, *_OPERATION) or "redis.command"
    if "\n" in commands:
        return "\n".join([line.partition(" ")[0] for line in commands.split("\n")])
    return commands.partition(" ")[0]


def cluster_words(name: str, attributes: Attributes) -> str:
    """The command; the whole text of a pipeline."""
    return text(attributes, *_STATEMENT) if "\n" in text(attributes, *_STATEMENT) else first_words(name, attributes)


def command(name: str, attributes: Attributes) -> str:
    """The cache's method in lower case (`get`, `set_many`)."""
    return (text(attributes, *_OPERATION) or name).lower()


def mongo_command(name: str, attributes: Attributes) -> str:
    """`find users {"age": "?"}`: command, collection (1 for a database's commands), normalised filter."""
    query = text(attributes, *_STATEMENT)
    operation = text(attributes, *_OPERATION) or query.partition(" ")[0] or name
    collection = text(attributes, "db.collection.name", "db.mongodb.collection")
    if not collection and text(attributes, "db.namespace", "db.name"):
        collection = "1"
    # Values that were asked for are in the tag alone (they are not written as JSON).
    document = query if query.startswith('{"') and operation in _FILTERED else ""
    return " ".join(part for part in (operation, collection, document) if part)


def method_and_quantised_path(name: str, attributes: Attributes) -> str:
    """`GET /logs-?/_doc/?`."""
    path = text(attributes, "url.path", "elasticsearch.url") or url_path(text(attributes, "url.full"))
    method = _method(attributes) or text(attributes, "elasticsearch.method")
    return f"{method} {quantised(path)}" if method else name


def aws_command(name: str, attributes: Attributes) -> str:
    """`s3.command`."""
    return f"{aws_call(attributes)[0]}.command"


def aws_service(name: str, attributes: Attributes) -> str:
    """`aws.s3`."""
    return f"aws.{aws_call(attributes)[0]}"


def aws_operation(name: str, attributes: Attributes) -> str:
    """`s3.getobject`; the bare service when the action is unknown."""
    service, operation = aws_call(attributes)
    return f"{service}.{operation}" if operation else service


# messages and functions have operations of their own under schema v1
_AWS_MESSAGES = {
    ("sqs", "sendmessage"): "sqs.send",
    ("sqs", "sendmessagebatch"): "sqs.send",
    ("sqs", "receivemessage"): "sqs.receive",
    ("sns", "publish"): "sns.send",
    ("sns", "publishbatch"): "sns.send",
    ("kinesis", "putrecord"): "kinesis.send",
    ("kinesis", "putrecords"): "kinesis.send",
    ("events", "putevents"): "events.send",
    ("states", "startexecution"): "stepfunctions.send",
    ("states", "startsyncexecution"): "stepfunctions.send",
    ("lambda", "invoke"): "lambda.invoke",
}


def aws_request(name: str, attributes: Attributes) -> str:
    """`aws.s3.request`, `aws.sqs.send` (schema v1)."""
    call = aws_call(attributes)
    return f"aws.{_AWS_MESSAGES.get(call) or call[0] + '.request'}"


def task_name(name: str, attributes: Attributes) -> str:
    """The name of the celery task."""
    return text(attributes, "celery.task_name") or name.rpartition("/")[2]


def exchange(name: str, attributes: Attributes) -> str:
    """The exchange that the message went through; none, and so the operation, for the default one."""
    return text(attributes, "kombu.exchange")


def grpc_path(name: str, attributes: Attributes) -> str:
    """`/package.Service/Method`."""
    path = rpc_path(attributes)
    return path if path != "/" else name


def template_name(name: str, attributes: Attributes) -> str:
    """The template's name; `<memory>` for templates made from strings."""
    return text(attributes, "jinja2.template_name", "mako.template_name", "template.name") or "<memory>"


_VENDORS = {"postgresql": "postgres", "mariadb": "mysql", "microsoft.sql_server": "mssql", "oracle.db": "oracle"}


def _vendor(attributes: Attributes) -> str:
    system = text(attributes, *_SYSTEM)
    return _VENDORS.get(system, system or "sql")


def vendor(name: str, attributes: Attributes) -> str:
    """`postgres`, `mysql`, `sqlite`, ..."""
    return _vendor(attributes)


def vendor_query(name: str, attributes: Attributes) -> str:
    """`postgres.query`."""
    return f"{_vendor(attributes)}.query"


def called_host(name: str, attributes: Attributes) -> str:
    """`host:port` of the called URL (DD_<NAME>_SPLIT_BY_DOMAIN)."""
    address = text(attributes, "url.full", "http.url").partition("://")[2]
    return address.partition("/")[0].partition("?")[0].rpartition("@")[2] or text(attributes, "server.address")


# --- the table -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One library's names.

    Args:
        operation: the name of its main operation.
        resource: rule for the resource.
        service: its service; empty means the application's.
        type: the span type, which drives the Agent's obfuscation and the product's views.
        own: keeps `service` although the application has one of its own.
        component: ddtrace's name of the integration; empty means the library's name.
        tags: table of its attributes.
        finish: completes the tags from the attributes.
        measured: main operations get `_dd.measured`.
        inner: rule that names spans other than the main operation (middleware, commit); "" for the main one.
        part: rule that names spans with the main operation's resource and type (fetches, compiling a template), or "".
        setting: middle of DD_<SETTING>_SERVICE; empty means the library's name or the component.
        status_decides: an exception that carries an HTTP status below 500 makes no error.
        connect: the name of spans for connections that are opened, instead of `<vendor>.connection.connect`.
        version: the tag that holds the library's version, "" for none.
    """

    operation: str | Rule
    resource: Rule
    service: str | Rule = ""
    _: KW_ONLY
    type: str = ""
    own: bool = False
    component: str = ""
    tags: Mapping[str, Target] = field(default_factory=lambda: tags.PLAIN)
    finish: Finish | None = None
    measured: bool = True
    inner: Rule = main
    part: Rule = main
    setting: str = ""
    status_decides: bool = False
    connect: str = ""
    version: str = ""


_web = partial(Row, type="web", tags=tags.HTTP_SERVER, finish=tags.server_url, inner=without_method)
_asgi = partial(_web, finish=tags.asgi_url, measured=False)
_http = partial(Row, type="http", tags=tags.HTTP_CLIENT, finish=tags.client_answer)
_sql = partial(Row, type="sql", tags=tags.SQL, own=True)
_redis = partial(Row, type="redis", tags=tags.REDIS, own=True, finish=tags.redis_arguments)
_cache = partial(Row, type="cache", tags=tags.MEMCACHED, own=True)
_mongo = partial(Row, type="mongodb", tags=tags.MONGODB, own=True, component="pymongo", finish=tags.mongodb_documents)
_aws = partial(Row, type="http", tags=tags.AWS, own=True, finish=tags.aws_names, status_decides=True)
_grpc = partial(Row, type="grpc", tags=tags.GRPC, finish=tags.grpc_method)
_celery = partial(Row, tags=tags.CELERY)
_kombu = partial(Row, type="worker", tags=tags.KOMBU)
_template = partial(Row, type="template")

# Library, or library and kind -> row. The service stands in only where DD_SERVICE is unset, unless the row owns it.
CLASSIC: dict[str, Row] = {
    # web frameworks
    "aiohttp_server": _web("aiohttp.request", route_or_status, "aiohttp-web", component="aiohttp"),
    "asgi": _asgi("asgi.request", route_or_path, "asgi"),
    "bottle": _web("bottle.request", route, "bottle"),
    "django": _web("django.request", django_route, "django", tags=tags.DJANGO),
    "django client": _sql(
        vendor_query, statement, vendor, inner=connection("django"), component="django", setting="django_database"
    ),
    "djangorestframework": _web("django.request", django_route, "django", component="django"),
    "falcon": _web("falcon.request", falcon_resource, "falcon", own=True),
    "fastapi": _asgi("fastapi.request", route_or_path, "fastapi"),
    "flask": _web("flask.request", route, "flask", tags=tags.FLASK, version="flask.version"),
    "molten": _web("molten.request", route, "molten", version="molten.version"),
    "pylons": _web("pylons.request", pylons_action, "pylons", own=True),
    "pyramid": _web("pyramid.request", pyramid_route, "pyramid"),
    "starlette": _asgi("starlette.request", route_or_path, "starlette"),
    "tornado": _web("tornado.request", tornado_handler, "tornado-web", tags=tags.TORNADO),
    "wsgi": _web("wsgi.request", route_or_path, "wsgi"),
    # HTTP clients
    "aiohttp_client": _http("aiohttp.request", the_operation, measured=False, inner=without_method),
    "httplib": _http("http.client.request", constant("http.client.request"), measured=False),
    "requests": _http("requests.request", method_and_path, "requests", own=True),
    "tornado client": _http("http.client.request", method_and_path),  # ddtrace has none
    # SQL databases
    "aiopg": _sql("postgres.query", statement, "postgres", inner=connection("postgres"), part=fetch("postgres.query")),
    "mysql": _sql("mysql.query", statement, "mysql", inner=connection("mysql"), part=fetch("mysql.query")),
    "mysqlclient": _sql(
        "mysql.query", statement, "mysql", component="mysqldb", inner=connection("MySQLdb"), part=fetch("mysql.query")
    ),
    "psycopg": _sql("postgres.query", statement, "postgres", inner=connection("psycopg"), part=fetch("postgres.query")),
    "psycopg2": _sql(
        "postgres.query",
        statement,
        "postgres",
        component="psycopg",
        connect="psycopg2.connect",
        inner=connection("postgres"),
        part=fetch("postgres.query"),
    ),
    "sqlalchemy": _sql(vendor_query, statement, vendor, tags=tags.SQLALCHEMY, inner=connection("sqlalchemy")),
    "sqlite3": _sql(
        "sqlite.query", statement, "sqlite", component="sqlite", inner=connection("sqlite"), part=fetch("sqlite.query")
    ),
    "vertica": _sql("vertica.query", vertica_statement, "vertica", inner=connection("vertica"), part=vertica_part),
    # other stores
    "cassandra": Row(
        "cassandra.query",
        cassandra_query,
        "cassandra",
        type="cassandra",
        own=True,
        tags=tags.CASSANDRA,
        finish=tags.cassandra_answer,
    ),
    "elasticsearch": Row(
        "elasticsearch.query",
        method_and_quantised_path,
        "elasticsearch",
        type="elasticsearch",
        own=True,
        tags=tags.ELASTICSEARCH,
        status_decides=True,
    ),
    "flask_cache": Row("flask_cache.cmd", command, "flask-cache", type="cache", tags=tags.FLASK_CACHE),
    "mongoengine": _mongo("pymongo.cmd", mongo_command, "mongodb"),
    "pylibmc": _cache("memcached.cmd", command, "memcached"),
    "pymemcache": _cache("memcached.command", command, "memcached"),
    "pymongo": _mongo("pymongo.cmd", mongo_command, "pymongo"),
    "redis": _redis("redis.command", first_words, "redis"),
    "rediscluster": _redis("redis.command", cluster_words, "rediscluster"),
    # calls to other services
    "aiobotocore": _aws(aws_command, aws_operation, aws_service, own=False, status_decides=False),
    "boto": _aws(aws_command, aws_operation, aws_service),
    "botocore": _aws(aws_command, aws_operation, aws_service),
    "grpc client": _grpc("grpc", grpc_path, "grpc-client", own=True, setting="grpc_client"),
    "grpc server": _grpc("grpc", grpc_path, "grpc-server", component="grpc_server", setting="grpc_server"),
    "grpc_client": _grpc("grpc", grpc_path, "grpc-client", own=True, component="grpc", setting="grpc_client"),
    "grpc_server": _grpc("grpc", grpc_path, "grpc-server"),
    "grpc_aio_client": _grpc("grpc", grpc_path, "grpc-aio-client", own=True),
    "grpc_aio_server": _grpc("grpc", grpc_path, "grpc-aio-server"),
    # messages
    "celery producer": _celery("celery.apply", task_name, "celery-producer", setting="celery_producer"),
    "celery consumer": _celery("celery.run", task_name, "celery-worker", type="worker", setting="celery_worker"),
    "kombu producer": _kombu("kombu.publish", exchange),
    "kombu consumer": _kombu("kombu.receive", exchange),
    # templates: the operation is the span's own name (jinja2.render, mako.template.render_unicode)
    "jinja2": _template("jinja2.render", template_name, part=other_than("jinja2.render")),
    "mako": _template(span_name, template_name, "mako"),
}

_SERVERS = words(
    "aiohttp_server, asgi, bottle, django, djangorestframework, falcon, fastapi, flask, molten, pyramid, starlette,"
    "tornado, wsgi"
)
# What DD_TRACE_SPAN_ATTRIBUTE_SCHEMA=v1 calls otherwise; operations that are not here keep their names.
V1: dict[str, str | Rule] = {
    **dict.fromkeys(_SERVERS, "http.server.request"),
    **dict.fromkeys(("aiohttp_client", "httplib", "requests"), "http.client.request"),
    **dict.fromkeys(("aiopg", "psycopg", "psycopg2"), "postgresql.query"),
    **dict.fromkeys(("mongoengine", "pymongo"), "mongodb.query"),
    **dict.fromkeys(("pylibmc", "pymemcache"), "memcached.command"),
    **dict.fromkeys(("aiobotocore", "boto", "botocore"), aws_request),
    **dict.fromkeys(("grpc client", "grpc_client", "grpc_aio_client"), "grpc.client.request"),
    **dict.fromkeys(("grpc server", "grpc_server", "grpc_aio_server"), "grpc.server.request"),
    "flask_cache": "flask_cache.command",
    "kombu producer": "kombu.send",
    "kombu consumer": "kombu.process",
}


def row_for(scope: str, kind: SpanKind, schema: str = "v0") -> tuple[str, Row] | None:
    """Find the library and its row for a scope such as `spanbridge.instrumentors.flask`; None for other scopes.

    Args:
        scope: the instrumentation scope's name.
        kind: the span's kind.
        schema: `v0`, or `v1` for the names of DD_TRACE_SPAN_ATTRIBUTE_SCHEMA=v1.
    """
    for prefix in SCOPES:
        if scope.startswith(prefix):
            library = scope.removeprefix(prefix).partition(".")[0]
            for key in (f"{library} {kind.name.lower()}", library):
                if (row := CLASSIC.get(key)) is not None:
                    return library, _in_v1(key, row) if schema == "v1" else row
            return None
    return None


def _in_v1(key: str, row: Row) -> Row:
    operation = V1.get(key, row.operation)
    part = fetch("postgresql.query") if operation == "postgresql.query" else row.part
    return replace(row, operation=operation, part=part, service="")


def as_asked(row: Row, settings: Settings) -> Row:
    """Give a row the resources that a variable asks for."""
    if row.resource is route_or_path and settings.obfuscate_404_resource:
        return replace(row, resource=route_or_code)
    if row.resource is django_route and settings.handler_resource:
        return replace(row, resource=django_handler)
    if row.resource is django_route and settings.legacy_resource:
        return replace(row, resource=django_handler_alone)
    if row.resource in {first_words, cluster_words} and not settings.redis_words:
        return replace(row, resource=statement)
    return row


def own_service(library: str, row: Row, settings: Settings, application: str) -> str | Rule:
    """Answer the service of a library's spans: what is set for it, its row's, or the application's; "" without any."""
    for name in filter(None, (row.setting, library, row.component)):
        if chosen := settings.integration_services.get(name):
            return chosen
    if library in settings.split_by_domain:
        return called_host
    if application and (settings.remove_integration_services or not row.own):
        return application
    return row.service or application


# What the last word of a detail span's name says of its type.
_DETAIL_TYPES = {"cache": "cache", "render": "template", "render_template": "template"}

Names: TypeAlias = tuple[str, str, str, bool]
"""Operation, resource, type, and whether the span is measured."""


def naming(row: Row | None, kind: SpanKind) -> Callable[[str, Attributes], Names]:
    """Compile what names the spans of one kind by their library's row; as the Agent would, without a row."""
    if row is None:
        return partial(agent_names, kind)
    operation, resource, type_, measured = row.operation, row.resource, row.type, row.measured
    inner_of, part_of, connect = row.inner, row.part, row.connect
    if inner_of is main and part_of is main and isinstance(operation, str):
        return lambda name, attributes: (operation, resource(name, attributes), type_, measured)

    def named(name: str, attributes: Attributes) -> Names:
        if inner_of is not main and (inner := inner_of(name, attributes)):
            if inner.endswith(".connect"):
                inner = connect or inner
                return inner, inner, type_, measured
            part = text(attributes, "code.function.name", "template.name")  # which function or template the detail is
            return inner, part or inner, _DETAIL_TYPES.get(inner.rpartition(".")[2], ""), False
        if part_of is not main and (part := part_of(name, attributes)):
            return part, resource(name, attributes), type_, False
        main_one = operation if operation.__class__ is str else operation(name, attributes)  # type: ignore[operator]
        return main_one, resource(name, attributes), type_, measured

    return named


# --- the Agent's rules for OTLP (protocol B.1, lower-case kinds and newer database names after B.5) ------------------

_KINDS = {kind: kind.name.lower() for kind in SpanKind}
_CLIENT, _SERVER, _INTERNAL = SpanKind.CLIENT, SpanKind.SERVER, SpanKind.INTERNAL
_TYPES = {_SERVER: "web", _CLIENT: "http"}
_SQL_SYSTEMS = words(
    "adabas, cache, clickhouse, cloudscape, cockroachdb, coldfusion, db2, derby, edb, filemaker, firebird, firstsql,"
    "h2, hanadb, hsqldb, informix, ingres, instantdb, interbase, mariadb, maxdb, mssql, mysql, netezza, oracle,"
    "other_sql, pervasive, pointbase, postgresql, progress, redshift, sqlite, sybase, teradata, vertica,"
    "aws.redshift, ibm.db2, microsoft.sql_server, oracle.db, sap.hana, sap.maxdb"
)
_DATABASE_TYPES = (
    dict.fromkeys(_SQL_SYSTEMS, "sql")
    | {name: name for name in ("cassandra", "redis", "memcached", "mongodb", "elasticsearch", "opensearch")}
    | {"valkey": "redis"}
)
_OBFUSCATED = frozenset(_DATABASE_TYPES.values())
# How a statement in SQL begins, after comments and brackets; anything else is left to the store's own type.
_SQL_STATEMENT = re.compile(
    r"(?:[\s(;]|--[^\n]*\n|/\*[^*]*\*+(?:[^/*][^*]*\*+)*/)*"
    r"(?:ALTER|BEGIN|CALL|COPY|CREATE|DECLARE|DELETE|DESCRIBE|DROP|EXEC|EXECUTE|EXPLAIN|FROM|GRANT|INSERT|LOAD|MERGE|"
    r"REPLACE|REVOKE|SELECT|SET|SHOW|TRUNCATE|UNLOAD|UPDATE|UPSERT|USE|VALUES|WITH)\b",
    re.IGNORECASE,
)
_OTLP_STATEMENT = ("db.statement", "db.query.text")
_MESSAGING_OPERATION = ("messaging.operation", "messaging.operation.type", "messaging.operation.name")

# Keys without which a span is named by its kind alone, which saves the questions below.
CONSULTED = frozenset(
    {
        *(*_METHOD, *_SYSTEM),
        *("messaging.system", "messaging.operation", "rpc.system", "rpc.system.name", "rpc.method"),
        *("faas.invoked_name", "faas.trigger", "graphql.operation.type", "network.protocol.name"),
    }
)


def agent_names(kind: SpanKind, name: str, attributes: Attributes) -> Names:
    """Name a span as the Agent names what it receives by OTLP; clients, producers and consumers are measured."""
    measured = kind is not _INTERNAL and kind is not _SERVER
    if CONSULTED.isdisjoint(attributes):
        word = _KINDS[kind]
        operation = f"{word}.request" if kind is _SERVER or kind is _CLIENT else word
        return operation, name, "llm" if _of_a_model(attributes) else _TYPES.get(kind, "custom"), measured
    resource = agent_resource(kind, name, attributes)
    return agent_operation(kind, attributes), resource, agent_type(kind, attributes), measured


def agent_operation(kind: SpanKind, attributes: Attributes) -> str:
    """Answer the operation name: HTTP, database, messaging, RPC, FaaS, GraphQL, then the kind."""
    client, server = kind is _CLIENT, kind is _SERVER
    if (client or server) and text(attributes, *_METHOD):
        return f"http.{_KINDS[kind]}.request"
    if client and (system := text(attributes, *_SYSTEM)):
        return f"{normalised(system)}.query"
    if kind is not _INTERNAL and (system := text(attributes, "messaging.system")):
        operation = text(attributes, *_MESSAGING_OPERATION)
        if operation:
            return f"{normalised(system)}.{normalised(operation)}"
    if (client or server) and (system := text(attributes, "rpc.system", "rpc.system.name")):
        if client and system == "aws-api":
            return f"aws.{normalised(text(attributes, 'rpc.service') or 'client')}.request"
        return f"{normalised(system)}.{_KINDS[kind]}.request"
    provider, function = text(attributes, "faas.invoked_provider"), text(attributes, "faas.invoked_name")
    if client and provider and function:
        return f"{normalised(provider)}.{normalised(function)}.invoke"
    if server and (trigger := text(attributes, "faas.trigger")):
        return f"{normalised(trigger)}.invoke"
    if text(attributes, "graphql.operation.type"):
        return "graphql.server.request"
    if client or server:
        protocol = text(attributes, "network.protocol.name")
        return f"{normalised(protocol)}.{_KINDS[kind]}.request" if protocol else f"{_KINDS[kind]}.request"
    return _KINDS[kind]


def agent_resource(kind: SpanKind, name: str, attributes: Attributes) -> str:
    """Answer the resource: HTTP method and route, messaging, RPC, GraphQL, the statement, then the span's name."""
    if method := _method(attributes):
        template = "url.template" if kind is _CLIENT else "http.route" if kind is _SERVER else ""
        return " ".join(filter(None, (method, text(attributes, template))))
    for first, second in (
        (_MESSAGING_OPERATION, ("messaging.destination", "messaging.destination.name")),
        (("rpc.method",), ("rpc.service",)),
        (("graphql.operation.type",), ("graphql.operation.name",)),
    ):
        if head := text(attributes, *first):
            return " ".join(filter(None, (head, text(attributes, *second))))
    if text(attributes, *_SYSTEM):
        return text(attributes, *_OTLP_STATEMENT) or name
    return name


def agent_type(kind: SpanKind, attributes: Attributes) -> str:
    """Answer the span type, which decides what the Agent obfuscates: a statement in SQL is `sql`, whoever takes it."""
    if _of_a_model(attributes):
        return "llm"
    found = _TYPES.get(kind, "custom")
    if system := text(attributes, *_SYSTEM).lower():
        if kind is _CLIENT:
            found = _DATABASE_TYPES.get(system, "db")
        if found not in _OBFUSCATED and _SQL_STATEMENT.match(text(attributes, *_OTLP_STATEMENT)):
            return "sql"
    return found


def _of_a_model(attributes: Attributes) -> bool:
    return "\ngen_ai." in "\n" + "\n".join(attributes)
