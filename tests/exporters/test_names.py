"""Operation, resource, type and service: ddtrace's for known libraries, the Agent's for everything else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.trace import SpanKind

from spanbridge.exporters.datadog import names
from spanbridge.exporters.datadog.mapping import SpanMapper
from spanbridge.exporters.datadog.settings import Settings
from tests.exporters.samples import assert_sendable, finished

if TYPE_CHECKING:
    from collections.abc import Mapping

CLIENT, SERVER, INTERNAL = SpanKind.CLIENT, SpanKind.SERVER, SpanKind.INTERNAL
PRODUCER, CONSUMER = SpanKind.PRODUCER, SpanKind.CONSUMER

SELECT = "SELECT *\n FROM users"

# library, kind, span name, attributes -> service (without DD_SERVICE: None is the script's), operation, resource, type
CLASSIC: list[tuple[str, SpanKind, str, dict[str, Any], tuple[str | None, str, str, str]]] = [
    # flask: stable names, unmatched, old names
    (
        "flask", SERVER, "GET /items/<int:id>",
        {"http.request.method": "GET", "http.route": "/items/<int:id>", "http.response.status_code": 200},
        ("flask", "flask.request", "GET /items/<int:id>", "web"),
    ),
    (
        "flask", SERVER, "GET", {"http.request.method": "GET", "http.response.status_code": 404},
        ("flask", "flask.request", "GET 404", "web"),
    ),
    (
        "flask", SERVER, "GET /old", {"http.method": "GET", "http.route": "/old", "http.status_code": 200},
        ("flask", "flask.request", "GET /old", "web"),
    ),
    (
        "flask", SERVER, "HTTP", {"http.request.method": "_OTHER", "http.response.status_code": 405},
        ("flask", "flask.request", "HTTP 405", "web"),
    ),
    # requests
    (
        "requests", CLIENT, "GET", {"http.request.method": "GET", "url.full": "http://h:81/a/b?c=d#e"},
        ("requests", "requests.request", "GET /a/b", "http"),
    ),
    (
        "requests", CLIENT, "POST", {"http.method": "POST", "http.url": "https://h"},
        ("requests", "requests.request", "POST /", "http"),
    ),
    # sqlite3: statement, commit, fetch, old names
    (
        "sqlite3", CLIENT, "SELECT",
        {"db.system.name": "sqlite", "db.query.text": SELECT, "db.operation.name": "SELECT"},
        ("sqlite", "sqlite.query", SELECT, "sql"),
    ),
    (
        "sqlite3", CLIENT, "COMMIT", {"db.system.name": "sqlite", "db.operation.name": "COMMIT"},
        ("sqlite", "sqlite.connection.commit", "sqlite.connection.commit", ""),
    ),
    (
        "sqlite3", CLIENT, "fetchall", {"db.query.text": SELECT, "db.operation.name": "fetchall"},
        ("sqlite", "sqlite.query.fetchall", SELECT, "sql"),
    ),
    ("sqlite3", CLIENT, "SELECT", {"db.system": "sqlite", "db.statement": SELECT},
     ("sqlite", "sqlite.query", SELECT, "sql")),
    # redis: command, pipeline, old names, nothing known
    (
        "redis", CLIENT, "SET", {"db.system.name": "redis", "db.query.text": "SET k ?", "db.operation.name": "SET"},
        ("redis", "redis.command", "SET", "redis"),
    ),
    (
        "redis", CLIENT, "PIPELINE", {"db.query.text": "SET k ?\nGET k", "db.operation.batch.size": 2},
        ("redis", "redis.command", "SET\nGET", "redis"),
    ),
    ("redis", CLIENT, "GET", {"db.system": "redis", "db.statement": "GET ?"},
     ("redis", "redis.command", "GET", "redis")),
    ("redis", CLIENT, "GET", {"db.operation.name": "GET"}, ("redis", "redis.command", "GET", "redis")),
    ("redis", CLIENT, "redis", {}, ("redis", "redis.command", "redis.command", "redis")),
    # others
    (
        "aiohttp_server", SERVER, "GET", {"http.request.method": "GET", "http.response.status_code": 404},
        ("aiohttp-web", "aiohttp.request", "404", "web"),
    ),
    (
        "starlette", SERVER, "GET", {"http.request.method": "GET", "url.path": "/none"},
        ("starlette", "starlette.request", "GET /none", "web"),
    ),
    (
        "fastapi", SERVER, "GET", {"http.request.method": "GET", "http.route": "/items/{item}"},
        ("fastapi", "fastapi.request", "GET /items/{item}", "web"),
    ),
    ("starlette", INTERNAL, "GET /x http send", {"asgi.event.type": "http.response.start"},
     ("starlette", "http.response.start", "http.response.start", "")),
    ("pyramid", SERVER, "GET", {"http.request.method": "GET", "pyramid.route.name": "home"},
     ("pyramid", "pyramid.request", "GET home", "web")),
    ("httplib", CLIENT, "GET", {"http.request.method": "GET", "url.full": "http://h/a"},
     (None, "http.client.request", "http.client.request", "http")),
    ("aiohttp_client", CLIENT, "GET", {"http.request.method": "GET"},
     (None, "aiohttp.request", "aiohttp.request", "http")),
    ("psycopg2", CLIENT, "SELECT", {"db.query.text": SELECT}, ("postgres", "postgres.query", SELECT, "sql")),
    ("mysqlclient", CLIENT, "x", {"db.operation.name": "rollback"},
     ("mysql", "MySQLdb.connection.rollback", "MySQLdb.connection.rollback", "")),
    ("sqlalchemy", CLIENT, "SELECT", {"db.query.text": SELECT, "db.system.name": "postgresql"},
     ("postgres", "postgres.query", SELECT, "sql")),
    ("cassandra", CLIENT, "BATCH", {"db.operation.batch.size": 2, "db.query.text": "x"},
     ("cassandra", "cassandra.query", "BatchStatement", "cassandra")),
    ("elasticsearch", CLIENT, "search", {"http.request.method": "GET", "url.path": "/logs-2024/_doc/5"},
     ("elasticsearch", "elasticsearch.query", "GET /logs-?/_doc/?", "elasticsearch")),
    ("pymemcache", CLIENT, "x", {"db.operation.name": "SET_MANY"},
     ("memcached", "memcached.command", "set_many", "cache")),
    ("pymongo", CLIENT, "x",
     {"db.operation.name": "find", "db.collection.name": "users", "db.query.text": '{"age": "?"}'},
     ("pymongo", "pymongo.cmd", 'find users {"age": "?"}', "mongodb")),
    ("botocore", CLIENT, "S3.GetObject", {"rpc.service": "S3", "rpc.method": "GetObject"},
     ("aws.s3", "s3.command", "s3.getobject", "http")),
    ("botocore", CLIENT, "x", {"rpc.method": "CloudWatch Logs/PutLogEvents"},
     ("aws.logs", "logs.command", "logs.putlogevents", "http")),
    ("boto", CLIENT, "x", {"rpc.service": "EC2"}, ("aws.ec2", "ec2.command", "ec2", "http")),
    ("grpc", CLIENT, "x", {"rpc.service": "pkg.Greeter", "rpc.method": "Hello"},
     ("grpc-client", "grpc", "/pkg.Greeter/Hello", "grpc")),
    ("grpc", SERVER, "x", {"rpc.method": "pkg.Greeter/Hello"}, ("grpc-server", "grpc", "/pkg.Greeter/Hello", "grpc")),
    ("celery", PRODUCER, "apply_async/tasks.add", {}, ("celery-producer", "celery.apply", "tasks.add", "")),
    ("celery", CONSUMER, "run/tasks.add", {"celery.task_name": "tasks.add"},
     ("celery-worker", "celery.run", "tasks.add", "worker")),
    ("kombu", PRODUCER, "send", {"kombu.exchange": "orders"}, (None, "kombu.publish", "orders", "worker")),
    ("kombu", PRODUCER, "send", {"messaging.destination.name": "jobs"},
     (None, "kombu.publish", "kombu.publish", "worker")),
    ("jinja2", INTERNAL, "jinja2.render", {"jinja2.template_name": "a.html"},
     (None, "jinja2.render", "a.html", "template")),
    ("jinja2", INTERNAL, "jinja2.compile", {}, (None, "jinja2.compile", "<memory>", "template")),
    ("mako", INTERNAL, "mako.template.render", {}, ("mako", "mako.template.render", "<memory>", "template")),
]  # fmt: skip


def mapped(
    scope: str, kind: SpanKind, name: str, attributes: Mapping[str, Any], settings: Settings | None = None
) -> dict[str, Any]:
    span = SpanMapper(settings or Settings()).map(
        finished(name, kind, attributes, scope=scope), top_level=True, local_root=True
    )
    assert_sendable([span])
    return span


@pytest.fixture(autouse=True)
def _no_fault(caplog: pytest.LogCaptureFixture) -> Any:
    yield
    assert [record.getMessage() for record in caplog.records] == []


@pytest.mark.parametrize("prefix", names.SCOPES)
@pytest.mark.parametrize(
    ("library", "kind", "name", "attributes", "expected"),
    CLASSIC,
    ids=lambda value: value if type(value) is str else "",
)
def test_classic_names(
    monkeypatch: pytest.MonkeyPatch,
    prefix: str,
    library: str,
    kind: SpanKind,
    name: str,
    attributes: dict[str, Any],
    expected: tuple[str | None, str, str, str],
) -> None:
    monkeypatch.setattr("spanbridge.exporters.datadog.mapping.inferred_service", lambda: "script")
    span = mapped(prefix + library, kind, name, attributes)
    service, *rest = expected
    assert [span[field] for field in ("service", "name", "resource", "type")] == [service or "script", *rest]
    assert span["meta"]["component"]


@pytest.mark.parametrize(
    ("library", "kind", "service"),
    [
        ("flask", SERVER, "shop"),
        ("falcon", SERVER, "falcon"),
        ("requests", CLIENT, "requests"),
        ("sqlite3", CLIENT, "sqlite"),
        ("redis", CLIENT, "redis"),
        ("httplib", CLIENT, "shop"),
        ("jinja2", INTERNAL, "shop"),
        ("celery", CONSUMER, "shop"),
        ("grpc", SERVER, "shop"),
        ("grpc", CLIENT, "grpc-client"),
        ("botocore", CLIENT, "aws.aws"),
    ],
)
def test_which_libraries_keep_their_service_beside_dd_service(library: str, kind: SpanKind, service: str) -> None:
    scope = f"spanbridge.instrumentors.{library}"
    assert mapped(scope, kind, "x", {}, Settings(service="shop"))["service"] == service
    alone = Settings(service="shop", remove_integration_services=True)
    assert mapped(scope, kind, "x", {}, alone)["service"] == "shop"


def test_services_by_variable() -> None:
    settings = Settings(
        service="shop",
        integration_services={"redis": "cache", "sqlite": "db", "grpc_client": "calls", "django_database": "orm"},
        service_mapping={"cache": "cache-2", "shop": "store", "requests": "http"},
        split_by_domain=frozenset({"requests"}),
    )

    def service(library: str, kind: SpanKind, **attributes: str) -> str:
        named = {key.replace("_", "."): value for key, value in attributes.items()}
        return str(mapped(f"spanbridge.instrumentors.{library}", kind, "x", named, settings)["service"])

    assert service("redis", CLIENT) == "cache-2"
    assert service("sqlite3", CLIENT) == "db"
    assert service("django", CLIENT) == "orm"
    assert service("grpc", CLIENT) == "calls"
    assert service("flask", SERVER) == "store"
    assert service("requests", CLIENT, url_full="http://user:pw@host:81/a") == "host:81"
    assert service("requests", CLIENT, server_address="host") == "host"


def test_every_row_names_a_span_about_which_nothing_is_known() -> None:
    for row in names.CLASSIC:
        library, _, kind = row.partition(" ")
        span = mapped(f"spanbridge.instrumentors.{library}", SpanKind[(kind or "client").upper()], "x", {})
        assert span["name"]


def test_scopes() -> None:
    assert names.row_for("spanbridge.instrumentors.flask", SERVER) == ("flask", names.CLASSIC["flask"])
    assert names.row_for("opentelemetry.instrumentation.redis.v2", CLIENT) == ("redis", names.CLASSIC["redis"])
    assert names.row_for("opentelemetry.instrumentation.grpc", SERVER) == ("grpc", names.CLASSIC["grpc server"])
    for scope in ("flask", "", "opentelemetry.instrumentation.unknown", "opentelemetry.instrumentation."):
        assert names.row_for(scope, SERVER) is None


@pytest.mark.parametrize(
    ("attributes", "resource"),
    [
        ({"http.response.status_code": 404}, "GET 404"),
        ({"http.response.status_code": 200, "http.route": "/{name}"}, "GET /{name}"),
        ({"url.scheme": "wss", "http.response.status_code": 403}, "websocket 403"),
        ({"url.scheme": "wss", "http.response.status_code": 101, "http.route": "/{name}"}, "websocket /{name}"),
        ({}, "GET"),
    ],
)
def test_an_unmatched_asgi_path_can_be_hidden(attributes: dict[str, Any], resource: str) -> None:
    attributes |= {"http.request.method": "GET", "url.path": "/secret"}
    span = mapped("spanbridge.instrumentors.asgi", SERVER, "GET", attributes, Settings(obfuscate_404_resource=True))
    assert span["resource"] == resource


# kind, attributes -> operation, resource, type; the span's name is "name"
OTLP: list[tuple[SpanKind, dict[str, str], tuple[str, str, str]]] = [
    (SERVER, {"http.request.method": "GET", "http.route": "/a"}, ("http.server.request", "GET /a", "web")),
    (SERVER, {"http.method": "GET"}, ("http.server.request", "GET", "web")),
    (CLIENT, {"http.request.method": "GET", "url.template": "/a"}, ("http.client.request", "GET /a", "http")),
    (CLIENT, {"http.request.method": "_OTHER", "http.route": "/a"}, ("http.client.request", "HTTP", "http")),
    (INTERNAL, {"http.request.method": "GET"}, ("internal", "GET", "custom")),
    (CLIENT, {"db.system.name": "postgresql", "db.query.text": "SELECT 1"}, ("postgresql.query", "SELECT 1", "sql")),
    (CLIENT, {"db.system": "Redis", "db.statement": "GET k"}, ("redis.query", "GET k", "redis")),
    (CLIENT, {"db.system": "redis"}, ("redis.query", "name", "redis")),
    (CLIENT, {"db.system.name": "microsoft.sql_server"}, ("microsoft.sql_server.query", "name", "sql")),
    (CLIENT, {"db.system.name": "dynamodb"}, ("dynamodb.query", "name", "db")),
    (SERVER, {"db.system.name": "redis"}, ("server.request", "name", "web")),
    (
        PRODUCER, {"messaging.system": "kafka", "messaging.operation": "publish", "messaging.destination.name": "q"},
        ("kafka.publish", "publish q", "custom"),
    ),
    (CONSUMER, {"messaging.system": "kafka", "messaging.operation.type": "get"}, ("kafka.get", "get", "custom")),
    (
        CLIENT, {"db.system": "mysql", "db.statement": "SELECT 1", "db.query.text": "SELECT 2"},
        ("mysql.query", "SELECT 1", "sql"),
    ),
    (CLIENT, {"db.system": "Öl & Gas "}, ("öl_gas.query", "name", "db")),
    (CONSUMER, {"messaging.system": "kafka"}, ("consumer", "name", "custom")),
    (
        CLIENT, {"rpc.system": "aws-api", "rpc.service": "S3", "rpc.method": "Get"},
        ("aws.s3.request", "Get S3", "http"),
    ),
    (CLIENT, {"rpc.system": "aws-api"}, ("aws.client.request", "name", "http")),
    (CLIENT, {"rpc.system": "grpc", "rpc.method": "M"}, ("grpc.client.request", "M", "http")),
    (SERVER, {"rpc.system.name": "grpc"}, ("grpc.server.request", "name", "web")),
    (CLIENT, {"faas.invoked_provider": "aws", "faas.invoked_name": "fn"}, ("aws.fn.invoke", "name", "http")),
    (SERVER, {"faas.trigger": "datasource"}, ("datasource.invoke", "name", "web")),
    (
        INTERNAL, {"graphql.operation.type": "query", "graphql.operation.name": "q"},
        ("graphql.server.request", "query q", "custom"),
    ),
    (SERVER, {"network.protocol.name": "amqp"}, ("amqp.server.request", "name", "web")),
    (CLIENT, {"network.protocol.name": "amqp"}, ("amqp.client.request", "name", "http")),
    (SERVER, {}, ("server.request", "name", "web")),
    (CLIENT, {}, ("client.request", "name", "http")),
    (INTERNAL, {}, ("internal", "name", "custom")),
    (PRODUCER, {}, ("producer", "name", "custom")),
    (CONSUMER, {}, ("consumer", "name", "custom")),
    (CLIENT, {"gen_ai.system": "x"}, ("client.request", "name", "llm")),
    (INTERNAL, {"gen_ai.operation.name": "chat"}, ("internal", "name", "llm")),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "attributes", "expected"), OTLP)
def test_other_scopes_are_named_as_the_agent_names_otlp(
    kind: SpanKind, attributes: dict[str, str], expected: tuple[str, str, str]
) -> None:
    span = mapped("my.scope", kind, "name", attributes)
    assert (span["name"], span["resource"], span["type"]) == expected
    assert ("_dd.measured" in span["metrics"]) == (kind in {CLIENT, PRODUCER, CONSUMER})
    assert span["meta"]["span.kind"] == kind.name.lower()
    assert span["meta"]["otel.scope.name"] == "my.scope"


@pytest.mark.parametrize("kind", list(SpanKind))
@pytest.mark.parametrize("system", ["trino", "snowflake", "postgresql", "gcp.spanner", "hive", "couchbase", "_OTHER"])
@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM users WHERE ssn = '123'", "  insert into t values ('x')", "/* a * b */ -- c\n(with x as ...)",
        "exec p 'x'", "; \t UPDATE t SET a = 'x'",
    ],
)  # fmt: skip
def test_no_sql_escapes_the_agents_obfuscation(kind: SpanKind, system: str, statement: str) -> None:
    for attributes in (
        {"db.system.name": system, "db.query.text": statement}, {"db.system": system, "db.statement": statement},
    ):  # fmt: skip
        assert mapped("any", kind, "name", attributes)["type"] == "sql"


@pytest.mark.parametrize(
    "statement", ["MATCH (n) RETURN n", '{"find": "users"}', "selection", "/*" * 5000, "--" * 5000, "(" * 5000, ""]
)
def test_what_is_not_sql(statement: str) -> None:
    assert mapped("any", CLIENT, "name", {"db.system": "neo4j", "db.statement": statement})["type"] == "db"


V1 = [
    ("flask", SERVER, {"http.request.method": "GET", "http.route": "/a"}, ("http.server.request", "GET /a", "web")),
    ("requests", CLIENT, {"http.request.method": "GET", "url.full": "http://h/a"},
     ("http.client.request", "GET /a", "http")),
    ("aiohttp_client", CLIENT, {"http.request.method": "GET"}, ("http.client.request", "http.client.request", "http")),
    ("psycopg2", CLIENT, {"db.query.text": "SELECT 1"}, ("postgresql.query", "SELECT 1", "sql")),
    ("psycopg2", CLIENT, {"db.query.text": "SELECT 1", "db.operation.name": "fetchone"},
     ("postgresql.query.fetchone", "SELECT 1", "sql")),
    ("sqlite3", CLIENT, {"db.query.text": "SELECT 1"}, ("sqlite.query", "SELECT 1", "sql")),
    ("redis", CLIENT, {"db.query.text": "GET k"}, ("redis.command", "GET", "redis")),
    ("pymongo", CLIENT, {"db.operation.name": "find"}, ("mongodb.query", "find", "mongodb")),
    ("botocore", CLIENT, {"rpc.service": "S3", "rpc.method": "GetObject"},
     ("aws.s3.request", "s3.getobject", "http")),
    ("botocore", CLIENT, {"rpc.service": "SQS", "rpc.method": "SendMessage"},
     ("aws.sqs.send", "sqs.sendmessage", "http")),
    ("grpc", SERVER, {"rpc.method": "p.G/H"}, ("grpc.server.request", "/p.G/H", "grpc")),
    ("kombu", PRODUCER, {"kombu.exchange": "q"}, ("kombu.send", "q", "worker")),
    ("celery", CONSUMER, {"celery.task_name": "t"}, ("celery.run", "t", "worker")),
]  # fmt: skip


@pytest.mark.parametrize(("library", "kind", "attributes", "expected"), V1)
def test_schema_v1(library: str, kind: SpanKind, attributes: dict[str, str], expected: tuple[str, str, str]) -> None:
    settings = Settings(service="shop", schema="v1")
    span = mapped(f"{names.SCOPES[0]}{library}", kind, "name", attributes, settings)
    assert (span["service"], span["name"], span["resource"], span["type"]) == ("shop", *expected)


def test_scheme_otel_holds_for_known_libraries_too() -> None:
    attributes = {"http.request.method": "GET", "http.route": "/a"}
    span = mapped(
        "spanbridge.instrumentors.flask", SERVER, "GET /a", attributes, Settings(names="otel", service="shop")
    )
    assert (span["service"], span["name"], span["resource"]) == ("shop", "http.server.request", "GET /a")
    assert "component" not in span["meta"]
