"""One span of the SDK -> one span of the Agent's: tags, errors, links, events, and what hostile attributes cost."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from spanbridge.exporters.datadog import mapping, names
from spanbridge.exporters.datadog import trace as records
from spanbridge.exporters.datadog.encoding import encode_v04
from spanbridge.exporters.datadog.mapping import SpanMapper, last_frames, qualified
from spanbridge.exporters.datadog.settings import Settings
from tests.exporters.samples import HIGH, LOW, PARENT_ID, TRACE_ID, assert_sendable, decoded, finished, remote

if TYPE_CHECKING:
    from collections.abc import Mapping

FLASK, REQUESTS = "spanbridge.instrumentors.flask", "spanbridge.instrumentors.requests"
SQLITE, REDIS = "spanbridge.instrumentors.sqlite3", "spanbridge.instrumentors.redis"
CLIENT, SERVER = SpanKind.CLIENT, SpanKind.SERVER


def mapped(span: ReadableSpan, settings: Settings | None = None, **options: Any) -> dict[str, Any]:
    given = {"top_level": False, "local_root": False} | options
    native = {key: given.pop(key) for key in ("native_links", "native_events") if key in given}
    row = SpanMapper(settings or Settings(service="shop"), **native).map(span, **given)
    assert_sendable([row])
    assert decoded(encode_v04([[row]])) == [[row]]
    return row


def tags(attributes: Mapping[str, Any], kind: SpanKind = SpanKind.INTERNAL, scope: str = "app") -> dict[str, Any]:
    """The meta and metrics that attributes cause."""
    row, bare = (mapped(finished("x", kind, given, scope=scope)) for given in (attributes, {}))
    known = {*bare["meta"], *bare["metrics"], "_dd.measured"}
    return {key: value for key, value in {**row["meta"], **row["metrics"]}.items() if key not in known}


def test_ids_times_and_kind() -> None:
    span = finished("work", context=remote(), start_time=10**18)
    row = mapped(span)
    assert (row["trace_id"], row["parent_id"]) == (LOW, PARENT_ID)
    assert row["span_id"] == span.context.span_id
    assert row["start"] == 10**18
    assert row["duration"] == (span.end_time or 0) - 10**18
    assert (row["error"], row["resource"]) == (0, "work")


def test_a_clock_that_goes_backwards_gives_no_negative_duration() -> None:
    context = SpanContext(1, 2, is_remote=False)
    assert mapped(ReadableSpan("x", context, start_time=10, end_time=5))["duration"] == 0
    assert mapped(ReadableSpan("x", context))["start"] == 0


def test_the_local_root_says_where_it_ran() -> None:
    row = mapped(finished(context=remote()), local_root=True, top_level=True)
    assert row["meta"]["_dd.p.tid"] == f"{HIGH:016x}"
    assert row["meta"]["language"] == "python"
    assert len(row["meta"]["runtime-id"]) == 32
    assert row["metrics"]["process_id"] > 0
    assert row["metrics"]["_dd.top_level"] == 1
    inner = mapped(finished(context=remote()))
    assert not {"_dd.p.tid", "language", "runtime-id"} & set(inner["meta"])
    assert not {"process_id", "_dd.top_level"} & set(inner["metrics"])


def test_a_span_without_a_name_still_has_a_resource() -> None:
    assert mapped(finished(""))["resource"] == "internal"


def test_the_hostname_only_when_asked() -> None:
    settings = Settings(report_hostname=True, hostname="box")
    assert mapped(finished(), settings, local_root=True)["meta"]["_dd.hostname"] == "box"
    assert mapped(finished(), Settings(report_hostname=True), local_root=True)["meta"]["_dd.hostname"]
    assert "_dd.hostname" not in mapped(finished(), local_root=True)["meta"]


# --- service, version, environment, tags of all spans ---


def test_service_version_and_environment_of_the_settings() -> None:
    settings = Settings(service="shop", version="3", env="prod", tags={"team": "web"})
    row = mapped(finished(), settings)
    assert row["service"] == "shop"
    assert {key: row["meta"][key] for key in ("version", "env", "team")} == {
        "version": "3",
        "env": "prod",
        "team": "web",
    }
    assert "_dd.base_service" not in row["meta"]
    other = mapped(finished(kind=CLIENT, scope=REDIS), settings)
    assert (other["service"], other["meta"]["_dd.base_service"]) == ("redis", "shop")
    assert "version" not in other["meta"]
    assert other["meta"]["env"] == "prod"


def test_the_resource_wins_over_the_settings() -> None:
    resource = {
        "service.name": "own",
        "service.version": "9",
        "deployment.environment": "dev",
        "team": "db",
        "replicas": 3,
        "telemetry.sdk.name": "opentelemetry",
        "process.pid": 1,
    }
    settings = Settings(service="shop", version="3", env="prod", tags={"team": "web", "floor": "2"})
    row = mapped(finished(resource=resource), settings)
    assert row["service"] == "own"
    meta = {key: value for key, value in row["meta"].items() if not key.startswith(("otel.", "span."))}
    assert meta == {"version": "9", "env": "dev", "team": "db", "floor": "2", "replicas": "3"}


def test_an_unknown_service_of_the_sdk_is_none() -> None:
    assert mapped(finished(resource={"service.name": "unknown_service:python"}))["service"] == "shop"
    assert mapped(finished(), Settings())["service"]


def test_a_renamed_application_is_a_service_of_its_own() -> None:
    settings = Settings(service="shop", version="3", service_mapping={"shop": "store", "redis": "shop"})
    row, other = mapped(finished(), settings), mapped(finished(kind=CLIENT, scope=REDIS), settings)
    assert (row["service"], row["meta"]["_dd.base_service"], row["meta"].get("version")) == ("store", "shop", None)
    assert (other["service"], other["meta"].get("_dd.base_service"), other["meta"]["version"]) == ("shop", None, "3")


def test_a_span_may_name_its_service() -> None:
    settings = Settings(service="shop", service_mapping={"a": "b"})
    row = mapped(finished(attributes={"service.name": "a"}), settings)
    assert (row["service"], row["meta"]["_dd.base_service"]) == ("b", "shop")
    span = finished(attributes={"service.name": "a", "datadog.service": "c"})
    assert mapped(span)["service"] == SpanMapper(Settings()).service_of(span) == "c"


@pytest.mark.parametrize(
    ("settings", "attributes", "source"),
    [
        ({}, {}, "redis"),
        ({"integration_services": {"redis": "cache"}}, {}, "m"),
        ({"service_mapping": {"redis": "cache"}}, {}, "opt.service_mapping"),
        ({}, {"service.name": "other"}, "m"),
    ],
)
def test_where_another_service_comes_from(settings: Any, attributes: Any, source: str) -> None:
    row = mapped(finished(kind=CLIENT, scope=REDIS, attributes=attributes), Settings(service="shop", **settings))
    assert row["meta"]["_dd.svc_src"] == source


@pytest.mark.parametrize(
    ("settings", "attributes", "expected"),
    [
        ({}, {"server.address": "db1"}, (None, None, None)),
        ({}, {"peer.service": "billing"}, ("billing", "peer.service", None)),
        ({"peer_service": True}, {"server.address": "db1"}, ("db1", "out.host", None)),
        ({"peer_service": True}, {"server.address": "db1", "db.namespace": "orders"}, ("orders", "db.name", None)),
        ({"peer_service": True}, {}, (None, None, None)),
        (
            {"peer_service": True, "peer_service_mapping": {"orders": "store"}},
            {"db.namespace": "orders"},
            ("store", "db.name", "orders"),
        ),
        (
            {"peer_service_mapping": {"billing": "money"}},
            {"peer.service": "billing"},
            ("money", "peer.service", "billing"),
        ),
    ],
)
def test_who_was_called(settings: Any, attributes: Any, expected: tuple[str | None, ...]) -> None:
    row = mapped(finished(kind=CLIENT, scope=SQLITE, attributes=attributes), Settings(service="shop", **settings))
    keys = ("peer.service", "_dd.peer.service.source", "_dd.peer.service.remapped_from")
    assert tuple(row["meta"].get(key) for key in keys) == expected


def test_servers_call_nobody() -> None:
    row = mapped(finished(kind=SERVER, attributes={"server.address": "me"}), Settings(peer_service=True))
    assert "peer.service" not in row["meta"]


def test_scheme_otel_writes_what_the_agents_otlp_intake_writes() -> None:
    settings = Settings(names="otel")
    row = mapped(
        finished(
            "call", CLIENT, {"operation.name": "My Op!", "span.type": "x", "gen_ai.system": "y"}, scope="s",
            context=remote(), during=lambda span: span.set_status(StatusCode.ERROR, "it failed"),
        ),
        settings,
    )  # fmt: skip
    assert (row["name"], row["type"]) == ("my_op", "llm")
    expected = {
        "otel.trace_id": f"{TRACE_ID:032x}", "otel.status_code": "Error", "otel.status_description": "it failed",
        "otel.scope.name": "s", "otel.library.name": "s", "otel.library.version": "1.0", "error.msg": "it failed",
    }  # fmt: skip
    assert {key: row["meta"].get(key) for key in expected} == expected
    assert mapped(finished(), settings)["meta"]["otel.status_code"] == "Unset"


@pytest.mark.parametrize(("code", "message"), [(503, "503 Service Unavailable"), (599, "599")])
def test_a_failed_request_without_a_word_is_described_by_its_status(code: int, message: str) -> None:
    attributes = {"http.response.status_code": code}
    row = mapped(finished("x", SERVER, attributes, during=lambda span: span.set_status(StatusCode.ERROR)))
    assert (row["meta"]["error.message"], row["meta"]["error.msg"]) == (message, message)


def test_what_stands_in_the_resource_names_spans_too() -> None:
    row = mapped(finished("x", CLIENT, resource={"db.system": "mysql", "resource.name": "r"}))
    assert (row["name"], row["resource"], row["type"]) == ("mysql.query", "r", "sql")
    row = mapped(finished("x", CLIENT, {"db.system": "redis"}, resource={"db.system": "mysql"}))
    assert row["name"] == "redis.query"
    span = finished("x", SERVER, {"http.request.method": "GET"}, scope=FLASK, resource={"operation.name": "o"})
    assert mapped(span)["name"] == "flask.request"


# --- attributes that steer the mapping ---


def test_reserved_attributes() -> None:
    row = mapped(
        finished(
            attributes={
                "operation.name": "op", "resource.name": "res", "span.type": "worker", "analytics.event": True,
                "sampling.priority": 2, "manual.keep": True, "datadog.env": "e", "datadog.version": "v",
                "datadog.http_status_code": 201, "datadog.span.kind": "server", "datadog.error": 1,
                "datadog.error.msg": "m", "datadog.error.type": "t", "datadog.error.stack": "s",
            }
        )
    )  # fmt: skip
    assert (row["name"], row["resource"], row["type"], row["error"]) == ("op", "res", "worker", 1)
    assert row["metrics"] == {"_dd1.sr.eausr": 1, "_sampling_priority_v1": 2}
    meta = {key: value for key, value in row["meta"].items() if not key.startswith("otel.")}
    assert meta == {
        "env": "e", "version": "v", "http.status_code": "201", "span.kind": "server",
        "error.message": "m", "error.msg": "m", "error.type": "t", "error.stack": "s",
    }  # fmt: skip


def test_datadog_names_win_and_are_never_stored() -> None:
    row = mapped(
        finished(attributes={"datadog.name": "a", "operation.name": "b", "datadog.resource": "c", "datadog.foo": "d"})
    )
    assert (row["name"], row["resource"]) == ("a", "c")
    assert not [key for key in row["meta"] if key.startswith("datadog.")]


@pytest.mark.parametrize("value", ["", 5, (), b"x", "x" * 6000])
def test_odd_overrides_do_no_harm(value: Any) -> None:
    overrides = ("operation.name", "resource.name", "span.type", "service.name", "sampling.priority", "datadog.error")
    mapped(finished(attributes=dict.fromkeys(overrides, value)))


# --- tags ---


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("text", "text"),
        ("", ""),
        (1, 1),
        (-5, -5),
        (1.5, 1.5),
        ((1 << 64) - 1, (1 << 64) - 1),
        (1 << 64, str(1 << 64)),
        (-(1 << 63) - 1, str(-(1 << 63) - 1)),
        (True, "true"),
        (False, "false"),
        (float("nan"), None),
        (float("inf"), None),
        (b"caf\xc3\xa9", "café"),
        (("a", "b"), '["a","b"]'),
        ((1, 2), "[1,2]"),
        ((True,), "[true]"),
        ((), "[]"),
    ],
)
def test_values(value: Any, expected: object) -> None:
    found = tags({"key": value}).get("key")
    assert (found, type(found)) == (expected, type(expected))


def test_long_texts_are_cut() -> None:
    found = tags({"key": "x" * 30_000})["key"]
    assert 25_000 <= len(found) < 25_010
    assert len(mapped(finished("n" * 9_000))["resource"]) == 5_000


def test_a_lone_surrogate_costs_itself() -> None:
    row = SpanMapper(Settings(service="shop")).map(
        finished(attributes={"bad": "a\ud800", "good": "b"}), top_level=True, local_root=True
    )
    (((span),),) = decoded(encode_v04([[row]]))
    assert (span["meta"]["bad"], span["meta"]["good"]) == ("a?", "b")


@pytest.mark.parametrize("scope", ["app", FLASK, REQUESTS])
@pytest.mark.parametrize("key", ["http.response.status_code", "http.status_code"])
def test_the_status_code_is_text(scope: str, key: str) -> None:
    assert tags({key: 404}, SERVER if scope == FLASK else CLIENT, scope)["http.status_code"] == "404"


def test_tags_of_a_web_request() -> None:
    stable = {
        "http.request.method": "GET", "url.scheme": "http", "url.path": "/items/5", "url.query": "a=b",
        "http.route": "/items/<int:id>", "http.response.status_code": 200,
        "server.address": "shop", "server.port": 8080,
        "client.address": "10.0.0.1", "network.peer.address": "10.0.0.2", "user_agent.original": "curl",
        "network.protocol.version": "1.1", "flask.endpoint": "item", "http.request.header.x_id": ("1", "2"),
    }  # fmt: skip
    expected = {
        "http.method": "GET", "http.url": "http://shop:8080/items/5?a=b", "http.route": "/items/<int:id>",
        "flask.url_rule": "/items/<int:id>", "http.status_code": "200", "http.useragent": "curl", "http.version": "1.1",
        "flask.endpoint": "item", "http.request.headers.x_id": "1,2",
    }  # fmt: skip
    assert tags(stable, SERVER, FLASK) == expected
    old = {
        "http.method": "GET", "http.scheme": "http", "http.target": "/items/5?a=b", "http.route": "/items/<int:id>",
        "http.status_code": 200, "http.host": "shop:8080", "net.peer.ip": "10.0.0.1", "http.user_agent": "curl",
        "http.flavor": "1.1", "flask.endpoint": "item", "net.host.port": 8080, "http.server_name": "shop",
    }  # fmt: skip
    expected.pop("http.request.headers.x_id")
    assert tags(old, SERVER, "opentelemetry.instrumentation.flask") == expected


def test_attributes_that_receivers_would_take_for_events_and_links() -> None:
    assert tags({"events": "three", "_dd.span_links": "x"}, SERVER, FLASK) == {"attributes.events": "three"}
    assert tags({"events": 3}) == {"attributes.events": 3}


@pytest.mark.parametrize(
    ("start", "end", "times"),
    [
        (5, 9, (5, 4)),
        (9, 5, (9, 0)),
        (-5, 9, (0, 9)),
        (1 << 63, 1 << 64, (0, 0)),
        (5, 1 << 63, (5, 0)),
        (None, None, (0, 0)),
        (1.5, 9.5, (1, 8)),
        (float("nan"), float("inf"), (0, 0)),
        (True, "9", (1, 0)),
    ],
)
def test_times_that_cannot_be(start: Any, end: Any, times: tuple[int, int]) -> None:
    span = finished(during=lambda span: span.add_event("e", timestamp=start))
    span._start_time, span._end_time = start, end
    row = mapped(span, native_events=True)
    assert (row["start"], row["duration"]) == times
    assert type(row["start"]) is type(row["duration"]) is int


@pytest.mark.parametrize("timestamp", [-5, 1 << 64, 1.5, float("nan")])
@pytest.mark.parametrize("native", [True, False])
def test_times_of_events_that_cannot_be(timestamp: Any, native: bool) -> None:
    span = finished(during=lambda span: span.add_event("e", timestamp=timestamp))
    row = mapped(span, native_events=native)
    (event,) = row["span_events"] if native else json.loads(row["meta"]["events"])
    assert type(event["time_unix_nano"]) is int
    assert event["time_unix_nano"] in {0, 1}


def test_an_operation_always_has_a_name() -> None:
    assert mapped(finished(""))["name"]
    assert mapped(finished("", scope="spanbridge.instrumentors.mako"))["name"] == "internal"
    unspeakable = finished(attributes={"operation.name": "\x00"})
    assert mapped(unspeakable, Settings(names="otel"))["name"] == "unnamed_operation"


def test_an_error_that_cannot_be_described_is_one_nevertheless() -> None:
    class Unprintable:
        def __str__(self) -> str:
            raise ValueError

    span = finished(during=lambda span: span.set_status(Status(StatusCode.ERROR, "it failed")))
    span._status._description = Unprintable()  # type: ignore[assignment]
    assert mapped(span)["error"] == 1


def test_names_of_captured_headers() -> None:
    captured = {"http.request.header.my.x-id": ("1",), "http.response.header.a b/c:d_e": ("2",)}
    classic = {"http.request.headers.my_x-id": "1", "http.response.headers.a_b/c:d_e": "2"}
    assert tags(captured, SERVER, FLASK) == classic
    as_otlp = {"http.request.headers.my.x-id": "1", "http.response.headers.a b/c:d_e": "2"}
    assert tags(captured, SERVER).items() >= as_otlp.items()


def test_the_clients_address_only_when_asked() -> None:
    attributes = {"client.address": "10.0.0.1", "network.peer.address": "10.0.0.2"}
    span = finished("GET", SERVER, attributes, scope=FLASK)
    assert "http.client_ip" not in mapped(span)["meta"]
    meta = mapped(span, Settings(client_ip=True))["meta"]
    assert (meta["http.client_ip"], meta["network.client.ip"]) == ("10.0.0.1", "10.0.0.2")


@pytest.mark.parametrize(
    ("attributes", "url"),
    [
        ({"url.path": "/a", "url.scheme": "https", "server.address": "h", "server.port": 443}, "https://h/a"),
        ({"url.path": "/a", "url.scheme": "http", "server.address": "::1", "server.port": 81}, "http://[::1]:81/a"),
        ({"url.path": "/a", "url.query": "q=?"}, "/a?q=?"),
        ({"http.target": "/a", "http.scheme": "http", "net.host.name": "h", "net.host.port": 81}, "http://h:81/a"),
        ({"url.path": "/a", "url.scheme": "http", "server.address": 5, "server.port": "x"}, "/a"),
        ({"server.address": "h"}, None),
    ],
)
def test_the_url_of_a_web_request(attributes: dict[str, Any], url: str | None) -> None:
    assert tags(attributes, SERVER, FLASK).get("http.url") == url


def test_tags_of_calls() -> None:
    assert tags(
        {
            "http.request.method": "GET", "url.full": "http://REDACTED:REDACTED@h:81/a#b", "server.address": "h",
            "server.port": 81, "http.response.status_code": 200,
        },
        CLIENT, REQUESTS,
    ) == {
        "http.method": "GET", "http.url": "http://h:81/a", "out.host": "h", "http.status_code": "200",
        "http.status_msg": "OK",
    }  # fmt: skip
    assert "http.status_msg" not in tags({"http.response.status_code": 299}, CLIENT, REQUESTS)
    assert tags(
        {"db.system.name": "sqlite", "db.namespace": "main", "db.query.text": "SELECT 1", "db.operation.name": "SELECT",
         "db.response.returned_rows": 5, "db.operation.batch.size": 2},
        CLIENT, SQLITE,
    ) == {
        "db.system": "sqlite", "db.name": "main", "db.operation": "SELECT", "db.row_count": 5,
        "sql.executemany": "true",
    }  # fmt: skip
    assert tags(
        {"db.system.name": "redis", "db.namespace": "3", "db.query.text": "SET k ?", "server.address": "h",
         "server.port": 6379},
        CLIENT, REDIS,
    ) == {
        "db.system": "redis", "out.redis_db": 3, "redis.raw_command": "SET k ?", "redis.args_length": 3,
        "out.host": "h", "server.address": "h", "network.destination.port": 6379,
    }  # fmt: skip
    assert tags({"db.query.text": "SET k ?\nGET k", "db.operation.batch.size": 2}, CLIENT, REDIS) == {
        "redis.raw_command": "SET k ?\nGET k",
        "redis.pipeline_length": 2,
    }


@pytest.mark.parametrize(
    ("host", "tag"),
    [
        ("10.0.0.7", "network.destination.ip"),
        ("::1", "network.destination.ip"),
        ("cart.shop", "peer.hostname"),
        ("10.0.0.7.shop", "peer.hostname"),
        ("7", "peer.hostname"),
        ("/run/shop.sock", None),
    ],
)
def test_the_address_of_a_grpc_server(host: str, tag: str | None) -> None:
    found = tags({"server.address": host}, CLIENT, "spanbridge.instrumentors.grpc")
    addresses = {key: value for key, value in found.items() if key in {"network.destination.ip", "peer.hostname"}}
    assert addresses == ({tag: host} if tag else {})


@pytest.mark.parametrize(
    ("library", "kind", "attributes", "expected"),
    [
        ("django", SERVER, {"http.route": "/"}, {"http.route": "^/"}),
        ("django", SERVER, {"http.route": "items/<int:item>"}, {"http.route": "items/<int:item>"}),
        ("django", SpanKind.INTERNAL, {"template.name": "a.html"}, {"django.template.name": "a.html"}),
        ("flask", SpanKind.INTERNAL, {"template.name": "a.html"}, {"flask.template_name": "a.html"}),
        ("tornado", SERVER, {"http.route": "/items/{item}/{part}"}, {"http.route": "/items/%s/%s"}),
        ("starlette", SERVER, {"url.path": "/a", "url.scheme": "wss", "server.address": "h"},
         {"http.url": "wss://h/a", "http.upgraded": "websocket"}),
        ("starlette", SERVER, {"url.path": "/a", "url.scheme": "https", "server.address": "h"},
         {"http.url": "https://h/a"}),
        ("celery", SpanKind.CONSUMER,
         {"celery.delivery_info.is_eager": False, "celery.delivery_info.redelivered": True},
         {"celery.delivery_info.is_eager": "False", "celery.delivery_info.redelivered": "True"}),
        ("grpc_server", SERVER, {"rpc.grpc.status_code": 5, "error.message": "no such thing"},
         {"grpc.status.code": "StatusCode.NOT_FOUND", "error.type": "StatusCode.NOT_FOUND",
          "error.message": "no such thing", "error.msg": "no such thing"}),
    ],
)  # fmt: skip
def test_what_ddtrace_writes_in_its_own_way(
    library: str, kind: SpanKind, attributes: dict[str, Any], expected: dict[str, str]
) -> None:
    assert tags(attributes, kind, f"spanbridge.instrumentors.{library}") == expected


def test_tags_of_other_scopes_are_the_agents() -> None:
    assert tags(
        {"url.full": "http://h/a", "user_agent.original": "c", "http.request.header.x": ("1",), "db.namespace": "n",
         "client.address": "1.2.3.4", "server.address": "h"}
    ) == {
        "http.url": "http://h/a", "http.useragent": "c", "http.request.headers.x": "1", "db.namespace": "n",
        "db.name": "n", "http.client_ip": "1.2.3.4", "http.server_name": "h",
    }  # fmt: skip


# --- errors ---


def fail(span: Any) -> None:
    """Raise and record, as the SDK does it for an exception that leaves a span."""
    try:
        raise ValueError("broken")
    except ValueError as error:
        span.record_exception(error)
        span.set_status(Status(StatusCode.ERROR, f"ValueError: {error}"))


def test_an_exception() -> None:
    row = mapped(finished(during=fail, scope=SQLITE, kind=CLIENT))
    assert row["error"] == 1
    meta = row["meta"]
    assert (meta["error.type"], meta["error.message"], meta["error.msg"]) == ("builtins.ValueError", "broken", "broken")
    assert meta["error.stack"].startswith("Traceback")
    assert "ValueError: broken" in meta["error.stack"]
    assert "events" not in meta  # error.stack has it
    other = mapped(finished(during=fail))
    assert other["meta"]["error.type"] == "ValueError"
    assert other["meta"]["_dd.span_events.has_exception"] == "true"
    assert json.loads(other["meta"]["events"])[0]["name"] == "exception"


def test_a_recorded_exception_alone_is_no_error() -> None:
    row = mapped(finished(during=lambda span: span.record_exception(ValueError("handled")), scope=SQLITE))
    assert row["error"] == 0
    assert "error.message" not in row["meta"]
    assert json.loads(row["meta"]["events"])[0]["attributes"]["exception.message"] == "handled"


def test_the_last_of_several_exceptions_wins() -> None:
    def fail_twice(span: Any) -> None:
        span.record_exception(KeyError("first"))
        fail(span)

    row = mapped(finished(during=fail_twice, scope=SQLITE))
    assert row["meta"]["error.message"] == "broken"
    assert len(json.loads(row["meta"]["events"])) == 1


def test_a_status_without_exception() -> None:
    row = mapped(finished(during=lambda span: span.set_status(Status(StatusCode.ERROR, "no luck"))))
    assert (row["error"], row["meta"]["error.message"], row["meta"]["error.msg"]) == (1, "no luck", "no luck")
    bare = mapped(finished(during=lambda span: span.set_status(StatusCode.ERROR)))
    assert bare["error"] == 1
    assert "error.message" not in bare["meta"]
    typed = mapped(
        finished(attributes={"error.type": "timeout"}, during=lambda span: span.set_status(StatusCode.ERROR))
    )
    assert typed["meta"]["error.type"] == "timeout"


@pytest.mark.parametrize(
    ("scope", "kind", "code", "status", "raised", "error"),
    [
        (FLASK, SERVER, 500, True, False, 1),
        (FLASK, SERVER, 500, False, False, 1),
        (FLASK, SERVER, 404, False, False, 0),
        (FLASK, SERVER, 500, True, True, 1),
        (FLASK, SERVER, 200, True, True, 1),
        # a client's 4xx is an error for OpenTelemetry and none for ddtrace, unless an exception came out of the call
        (REQUESTS, CLIENT, 404, True, False, 0),
        (REQUESTS, CLIENT, 404, True, True, 1),
        (REQUESTS, CLIENT, 503, True, False, 1),
        (REQUESTS, CLIENT, 200, False, False, 0),
        (REQUESTS, CLIENT, None, True, True, 1),
        ("spanbridge.instrumentors.botocore", CLIENT, 404, True, True, 0),
        ("spanbridge.instrumentors.botocore", CLIENT, 500, True, True, 1),
        # other scopes follow OpenTelemetry
        ("app", CLIENT, 404, True, False, 1),
        ("app", SERVER, 500, False, False, 0),
    ],
)
def test_which_requests_failed(
    scope: str, kind: SpanKind, code: int | None, status: bool, raised: bool, error: int
) -> None:
    def during(span: Any) -> None:
        if raised:
            fail(span)
        elif status:
            span.set_status(StatusCode.ERROR)

    attributes = {"http.request.method": "GET", **({"http.response.status_code": code} if code else {})}
    row = mapped(finished("GET", kind, attributes, scope=scope, during=during))
    assert row["error"] == error
    told = raised or scope == "app"  # the Agent's OTLP intake makes do with the status
    assert ("error.message" in row["meta"]) == bool(error and told)


def test_error_statuses_are_configurable() -> None:
    settings = Settings(error_statuses=frozenset({404}))
    for code, error in ((404, 1), (500, 0)):
        span = finished("GET", SERVER, {"http.request.method": "GET", "http.status_code": code}, scope=FLASK)
        assert mapped(span, settings)["error"] == error


def test_only_the_innermost_frames_are_kept() -> None:
    def deep(level: int) -> None:
        if level:
            deep(level - 1)
        raise ValueError("deep")

    def during(span: Any) -> None:
        try:
            deep(20)
        except ValueError as error:
            span.record_exception(error)
        span.set_status(StatusCode.ERROR)

    stack = mapped(finished(during=during), Settings(traceback_frames=3))["meta"]["error.stack"]
    assert stack.startswith("Traceback")
    assert stack.count("\n  File ") <= 3
    assert stack.rstrip().endswith("ValueError: deep")
    assert last_frames("no frames", 0) == "no frames"
    assert last_frames('head\n  File "a"\n  File "b"', 0) == "head"


def test_qualified_names() -> None:
    assert qualified("ValueError") == "builtins.ValueError"
    assert qualified("my.Error") == "my.Error"


# --- links and events ---

OTHER = SpanContext(TRACE_ID, PARENT_ID, True, TraceFlags(1), TraceState([("v", "1")]))


def test_links() -> None:
    span = finished(links=[Link(OTHER, {"a": 1, "b": ("x",)}), Link(SpanContext(1, 2, is_remote=False))])
    first, second = mapped(span)["span_links"]
    assert first == {
        "trace_id": LOW, "trace_id_high": HIGH, "span_id": PARENT_ID, "flags": 1 | 1 << 31, "tracestate": "v=1",
        "attributes": {"a": "1", "b": '["x"]'},
    }  # fmt: skip
    assert (second["flags"], second.get("tracestate")) == (1 << 31, None)
    row = mapped(span, native_links=False)
    assert "span_links" not in row
    assert json.loads(row["meta"]["_dd.span_links"])[0] == {
        "trace_id": f"{TRACE_ID:032x}", "span_id": f"{PARENT_ID:016x}", "flags": 1, "tracestate": "v=1",
        "attributes": {"a": "1", "b": '["x"]'},
    }  # fmt: skip


def test_events() -> None:
    attributes = {"s": "t", "b": True, "i": 1, "f": 1.5, "l": (1, 2), "e": (), "n": float("nan"), "big": 1 << 70}
    span = finished(during=lambda span: span.add_event("tick", attributes, timestamp=5))
    (event,) = json.loads(mapped(span)["meta"]["events"])
    assert (event["name"], event["time_unix_nano"]) == ("tick", 5)
    assert event["attributes"]["l"] == [1, 2]
    row = mapped(span, native_events=True)
    assert "events" not in row["meta"]
    (native,) = row["span_events"]
    assert native["attributes"] == {
        "s": {"type": 0, "string_value": "t"},
        "b": {"type": 1, "bool_value": True},
        "i": {"type": 2, "int_value": 1},
        "f": {"type": 3, "double_value": 1.5},
        "l": {"type": 4, "array_value": {"values": [{"type": 2, "int_value": 1}, {"type": 2, "int_value": 2}]}},
        "e": {"type": 4, "array_value": {"values": []}},
        "n": {"type": 0, "string_value": "nan"},
        "big": {"type": 0, "string_value": str(1 << 70)},
    }


# --- the first span of a chunk ---


def test_what_concerns_the_trace_stands_on_the_first_span() -> None:
    settings = Settings(git_metadata={"_dd.git.commit.sha": "abc"})
    state = records.TraceState(
        priority=2,
        decision_maker="-4",
        origin="rum",
        tags={"_dd.p.tid": "0" * 15 + "1", "_dd.p.usr.id": "u"},
        metrics={"_dd.rule_psr": 0.5},
    )
    mapper = SpanMapper(settings)
    rows = [mapper.map(finished(name), top_level=True, local_root=True) for name in "ab"]
    before = {"meta": dict(rows[1]["meta"]), "metrics": dict(rows[1]["metrics"])}
    mapper.finish_chunk(rows, state, partial=True)
    meta, metrics = rows[0]["meta"], rows[0]["metrics"]
    assert (metrics["_sampling_priority_v1"], metrics["_dd.rule_psr"], metrics["_dd.py.partial_flush"]) == (2, 0.5, 2)
    expected = {
        "_dd.p.dm": "-4", "_dd.origin": "rum", "_dd.p.tid": "0" * 15 + "1", "_dd.p.usr.id": "u",
        "_dd.git.commit.sha": "abc",
    }  # fmt: skip
    assert {key: meta[key] for key in expected} == expected
    assert {"meta": rows[1]["meta"], "metrics": rows[1]["metrics"]} == before
    mapper.finish_chunk([], state)


# --- hostile input ---

scalar = st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)) | st.binary(max_size=20)
value = scalar | st.none() | st.lists(scalar | st.none(), max_size=3).map(tuple) | st.dictionaries(st.text(), scalar)
KEYS = [
    "http.request.method", "http.route", "http.status_code", "http.response.status_code", "url.full", "url.path",
    "url.scheme", "url.query", "server.address", "server.port", "http.target", "http.host", "http.scheme",
    "db.system.name", "db.system", "db.query.text", "db.statement", "db.namespace", "db.operation.name",
    "db.operation.batch.size", "db.collection.name", "rpc.system", "rpc.service", "rpc.method", "rpc.grpc.status_code",
    "messaging.system", "messaging.operation", "celery.task_name", "jinja2.template_name", "service.name",
    "operation.name", "resource.name", "span.type", "datadog.service", "datadog.resource", "datadog.error",
    "analytics.event", "sampling.priority", "error.type", "http.request.header.x", "_dd.top_level", "gen_ai.system",
]  # fmt: skip
libraries = ["app", *sorted({f"{names.SCOPES[0]}{row.partition(' ')[0]}" for row in names.CLASSIC})]


class Text(str):
    """A text that is none to a strict encoder."""

    __slots__ = ()


@hypothesis_settings(max_examples=400)
@given(
    scope=st.sampled_from(libraries),
    kind=st.sampled_from(SpanKind),
    name=st.text(st.characters(codec=None), min_size=1),
    attributes=st.dictionaries(st.sampled_from(KEYS) | st.text(st.characters(codec=None)), value | st.builds(Text)),
    resource=st.dictionaries(st.sampled_from(["service.name", "service.version", "a"]), value, max_size=2),
    failed=st.booleans(),
)
def test_hostile_attributes_never_break_the_payload(
    scope: str, kind: SpanKind, name: str, attributes: dict[str, Any], resource: dict[str, Any], failed: bool
) -> None:
    """Even attributes that passed by the SDK's checks, as its subclasses and replacements may hand them over."""
    context = SpanContext(TRACE_ID, 5, is_remote=False)
    span = ReadableSpan(
        name,
        context,
        resource=Resource(resource),
        attributes=attributes,
        events=[Event("exception", attributes), Event(name, attributes)],
        links=[Link(context, attributes)],
        kind=kind,
        status=Status(StatusCode.ERROR if failed else StatusCode.UNSET),
        instrumentation_scope=finished(scope=scope).instrumentation_scope,
        start_time=1,
        end_time=2,
    )
    for native in (True, False):
        mapper = SpanMapper(Settings(service="shop"), native_links=native, native_events=native)
        rows = [
            mapper.map(span, top_level=True, local_root=True),
            mapper.map(finished(), top_level=True, local_root=True),
        ]
        mapper.finish_chunk(rows, records.TraceState.new(TRACE_ID))
        ((hostile, good),) = decoded(encode_v04([rows]))
        assert_sendable([hostile, good])
        assert hostile["span_id"] == 5
        assert type(mapper.service_of(span)) is str


def test_a_value_without_text_costs_itself(caplog: pytest.LogCaptureFixture) -> None:
    class Hostile:
        def __str__(self) -> str:
            raise RuntimeError("no text")

    span = ReadableSpan("x", SpanContext(1, 2, is_remote=False), attributes={"bad": Hostile(), "good": "1"})  # type: ignore[dict-item]
    for _ in range(3):
        assert mapped(span)["meta"]["good"] == "1"
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_the_sdks_own_fields_are_its_properties(monkeypatch: pytest.MonkeyPatch) -> None:
    span = finished("GET", CLIENT, {"a": 1}, during=lambda span: span.add_event("e"), links=[Link(OTHER)])
    by_properties = mapped(mapping._copied(span))
    monkeypatch.setattr(mapping, "_copied", lambda span: pytest.fail("the fields were not found"))
    assert mapped(span) == by_properties
    assert by_properties["span_links"]
