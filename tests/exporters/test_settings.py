"""DD_* variables: what they mean, which of two wins, and one warning for each that means nothing."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from spanbridge.exporters.datadog import settings as module
from spanbridge.exporters.datadog.settings import Settings, neutral_settings, pairs, resource_attributes

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _no_agent_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AGENT_SOCKET", "/nowhere/apm.socket")


def read(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Settings:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return Settings.from_environment()


def test_defaults_are_those_of_ddtrace() -> None:
    assert Settings.from_environment() == Settings()
    settings = Settings()
    assert settings.agent_url == "http://localhost:8126"
    assert (settings.timeout, settings.flush_interval) == (2.0, 1.0)
    assert settings.buffer_bytes == settings.payload_bytes == 20 * 1024 * 1024
    assert (settings.partial_flush, settings.partial_flush_min_spans) == (True, 300)
    assert settings.error_statuses == frozenset(range(500, 600))
    assert settings.styles_extract == settings.styles_inject == ("datadog", "tracecontext", "baggage")
    assert settings.baggage_tag_keys == ("user.id", "account.id", "session.id")


@pytest.mark.parametrize(
    ("variable", "value", "field", "expected"),
    [
        ("DD_SERVICE", " shop ", "service", "shop"),
        ("DD_SERVICE_NAME", "shop", "service", "shop"),
        ("DATADOG_SERVICE_NAME", "shop", "service", "shop"),
        ("DATADOG_ENV", "prod", "env", "prod"),
        ("DD_VERSION", "1.2", "version", "1.2"),
        ("DD_TRACE_ENABLED", "false", "trace_enabled", False),
        ("DD_TRACE_API_VERSION", "V0.4", "api_version", "v0.4"),
        ("DD_TRACE_AGENT_TIMEOUT_SECONDS", "0.5", "timeout", 0.5),
        ("DD_TRACE_WRITER_INTERVAL_SECONDS", "2", "flush_interval", 2.0),
        ("DD_TRACE_WRITER_BUFFER_SIZE_BYTES", "1000", "buffer_bytes", 1000),
        ("DD_TRACER_PARTIAL_FLUSH_ENABLED", "0", "partial_flush", False),
        ("DD_TRACE_PARTIAL_FLUSH_MIN_SPANS", "0", "partial_flush_min_spans", 1),
        ("SPANBRIDGE_DATADOG_NAMES", "otel", "names", "otel"),
        ("DD_SERVICE_MAPPING", "redis:cache,sqlite:db", "service_mapping", {"redis": "cache", "sqlite": "db"}),
        ("DD_TRACE_HTTP_SERVER_ERROR_STATUSES", "404, 500-501", "error_statuses", {404, 500, 501}),
        ("DD_TRACE_PROPAGATION_STYLE", "B3 single header,none", "styles_inject", ("b3",)),
        ("DD_TRACE_PROPAGATION_STYLE_EXTRACT", "tracecontext", "styles_extract", ("tracecontext",)),
        ("DD_TRACE_PROPAGATION_STYLE", "none", "styles_extract", ()),
        ("DD_TRACE_PROPAGATION_BEHAVIOR_EXTRACT", "Restart", "behavior_extract", "restart"),
        ("DD_TRACE_BAGGAGE_TAG_KEYS", "*", "baggage_tag_keys", ("*",)),
        ("DD_TRACE_SAMPLE_RATE", "0.25", "sample_rate", 0.25),
        ("DD_TRACE_RATE_LIMIT", "-1", "rate_limit", -1),
        ("DD_TRACE_COMPUTE_STATS", "true", "stats", True),
        ("DD_LOGS_INJECTION", "structured", "logs_injection", True),
        ("DD_EXTERNAL_ENV", "it-false", "external_env", "it-false"),
    ],
)
def test_a_variable_sets_its_field(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, field: str, expected: object
) -> None:
    assert getattr(read(monkeypatch, **{variable: value}), field) == expected


def test_dd_wins_over_its_old_alias_and_blank_is_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read(monkeypatch, DD_ENV="new", DATADOG_ENV="old", DD_SERVICE=" ", DD_SERVICE_NAME="shop")
    assert (settings.env, settings.service) == ("new", "shop")


WRONG = [
    ("DD_TRACE_ENABLED", "maybe", True),
    ("DD_TRACE_API_VERSION", "v1.0", "v0.4"),
    ("DD_TRACE_AGENT_TIMEOUT_SECONDS", "-1", 2.0),
    ("DD_TRACE_AGENT_TIMEOUT_SECONDS", "nan", 2.0),
    ("DD_TRACE_AGENT_TIMEOUT_SECONDS", "inf", 2.0),
    ("DD_TRACE_WRITER_INTERVAL_SECONDS", "0", 1.0),
    ("DD_TRACE_WRITER_BUFFER_SIZE_BYTES", "lots", 20 << 20),
    ("DD_TRACE_WRITER_MAX_PAYLOAD_SIZE_BYTES", "-5", 20 << 20),
    ("DD_TRACE_PARTIAL_FLUSH_ENABLED", "2", True),
    ("DD_TRACE_PARTIAL_FLUSH_MIN_SPANS", "1.5", 300),
    ("DD_TRACE_REPORT_HOSTNAME", "host", False),
    ("SPANBRIDGE_DATADOG_NAMES", "v1", "classic"),
    ("DD_TRACE_REMOVE_INTEGRATION_SERVICE_NAMES_ENABLED", "x", False),
    ("DD_TRACE_HTTP_SERVER_ERROR_STATUSES", "500-", frozenset(range(500, 600))),
    ("DD_TRACE_HTTP_SERVER_ERROR_STATUSES", "599-500", frozenset(range(500, 600))),
    ("DD_TRACE_HTTP_SERVER_ERROR_STATUSES", "0-99999999999", frozenset(range(500, 600))),
    ("DD_TRACE_CLIENT_IP_ENABLED", "x", False),
    ("DD_TRACE_SPAN_TRACEBACK_MAX_SIZE", "-1", 30),
    ("DD_TRACE_PROPAGATION_STYLE_INJECT", "jaeger", ("datadog", "tracecontext", "baggage")),
    ("DD_TRACE_PROPAGATION_EXTRACT_FIRST", "first", False),
    ("DD_TRACE_PROPAGATION_BEHAVIOR_EXTRACT", "stop", "continue"),
    ("DD_TRACE_X_DATADOG_TAGS_MAX_LENGTH", "many", 512),
    ("DD_TRACE_SAMPLE_RATE", "1.5", None),
    ("DD_TRACE_SAMPLE_RATE", "nan", None),
    ("DD_TRACE_RATE_LIMIT", "a few", 100),
    ("DD_TRACE_STATS_COMPUTATION_ENABLED", "x", None),
    ("DD_LOGS_INJECTION", "x", True),
    ("DD_TRACE_GIT_METADATA_ENABLED", "x", True),
    ("DD_TRACE_AGENT_URL", "localhost:8126", "http://localhost:8126"),
    ("DD_TRACE_AGENT_URL", "http://:8126", "http://localhost:8126"),
    ("DD_TRACE_AGENT_URL", "http://[::1", "http://localhost:8126"),
    ("DD_TRACE_AGENT_URL", "http://agent:0", "http://localhost:8126"),
    ("DD_TRACE_AGENT_URL", "http://agent:99999", "http://localhost:8126"),
    ("DD_TRACE_AGENT_URL", "http://a gent:8126", "http://localhost:8126"),
    ("DD_TRACE_AGENT_URL", "unix://", "http://localhost:8126"),
    ("DD_AGENT_HOST", "http://agent", ""),
    ("DD_AGENT_HOST", "agent:8126", ""),
    ("DD_TRACE_AGENT_PORT", "70000", 0),
    ("DD_TRACE_AGENT_PORT", "http", 0),
    ("DD_FLASK_SPLIT_BY_DOMAIN", "x", None),
]


@pytest.mark.parametrize(("variable", "value", "used"), WRONG)
def test_a_wrong_value_gets_one_warning_and_its_substitute(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, variable: str, value: str, used: object
) -> None:
    assert read(monkeypatch, **{variable: value}) == Settings()
    assert Settings.from_environment() == Settings()
    (message,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert f"{variable}={value!r}" in message
    assert f"using {used!r}" in message


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "http://localhost:8126"),
        ({"DD_AGENT_HOST": "agent"}, "http://agent:8126"),
        ({"DD_TRACE_AGENT_HOSTNAME": "one", "DD_AGENT_HOST": "two"}, "http://one:8126"),
        ({"DATADOG_TRACE_AGENT_HOSTNAME": "one", "DD_AGENT_HOST": "two"}, "http://one:8126"),
        ({"DD_TRACE_AGENT_PORT": "9"}, "http://localhost:9"),
        ({"DD_TRACE_AGENT_PORT": "9", "DD_AGENT_PORT": "10"}, "http://localhost:9"),
        ({"DD_AGENT_HOST": "::1"}, "http://[::1]:8126"),
        ({"DD_AGENT_HOST": "[fe80::1]", "DD_AGENT_PORT": "81"}, "http://[fe80::1]:81"),
        ({"DD_TRACE_AGENT_URL": "http://agent:81/prefix/", "DD_AGENT_HOST": "other"}, "http://agent:81/prefix"),
        ({"DD_TRACE_AGENT_URL": "http://[::1]:81"}, "http://[::1]:81"),
        ({"DD_TRACE_AGENT_URL": "https://agent"}, "https://agent"),
        ({"DD_TRACE_AGENT_URL": "unix:///tmp/a.sock"}, "unix:///tmp/a.sock"),
        ({"DD_TRACE_AGENT_URL": "ftp://x", "DD_AGENT_HOST": "agent"}, "http://agent:8126"),
    ],
)
def test_the_agents_address(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str) -> None:
    assert read(monkeypatch, **variables).agent_url == expected


@pytest.mark.parametrize("variables", [{"DD_AGENT_HOST": "agent"}, {"DD_TRACE_AGENT_PORT": "81"}])
def test_the_agents_socket_is_taken_if_it_exists_and_nothing_else_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variables: dict[str, str]
) -> None:
    socket = tmp_path / "apm.socket"
    socket.touch()
    monkeypatch.setattr(module, "AGENT_SOCKET", str(socket))
    assert read(monkeypatch).agent_url == f"unix://{socket}"
    assert read(monkeypatch, **variables).agent_url.startswith("http://")


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("a:1,b:2", {"a": "1", "b": "2"}),
        ("a:1 b:2", {"a": "1", "b": "2"}),
        ("a:1, b : 2 ,", {"a": "1", "b": "2"}),
        ("a:one two,b:2", {"a": "one two", "b": "2"}),
        ("a", {"a": ""}),
        ("a:b:c", {"a": "b:c"}),
        (":x,,  ,a:1", {"a": "1"}),
        ("a:1,a:2", {"a": "2"}),
        ("", {}),
    ],
)
def test_pairs(raw: str, expected: dict[str, str]) -> None:
    assert pairs(raw) == expected


def test_tags_name_the_service_where_nothing_stronger_does(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read(monkeypatch, DD_TAGS="service:shop,env:prod,version:3,team:web", DD_VERSION="4")
    assert (settings.service, settings.env, settings.version) == ("shop", "prod", "4")
    assert settings.tags == {"team": "web"}


def test_no_baggage_becomes_tags_where_the_list_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(monkeypatch, DD_TRACE_BAGGAGE_TAG_KEYS="").baggage_tag_keys == ()


def test_an_unknown_style_leaves_those_beside_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = read(monkeypatch, DD_TRACE_PROPAGATION_STYLE="tracecontext,jaeger")
    assert settings.styles_extract == settings.styles_inject == ("tracecontext",)
    (message,) = [record.getMessage() for record in caplog.records]
    assert "'jaeger' is unknown" in message


def test_otel_variables_win_and_say_so(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "spanbridge")
    settings = read(
        monkeypatch,
        DD_SERVICE="dd",
        DD_ENV="prod",
        DD_VERSION="1",
        DD_TAGS="team:dd,floor:2",
        OTEL_SERVICE_NAME="otel",
        OTEL_RESOURCE_ATTRIBUTES="service.name=lost,deployment.environment=staging,team=a%20b,=x,y",
    )
    assert (settings.service, settings.env, settings.version) == ("otel", "staging", "1")
    assert settings.tags == {"team": "a b", "floor": "2"}
    assert [record.getMessage().split()[0] for record in caplog.records] == ["service", "env"]
    assert resource_attributes(settings) == {
        "service.name": "otel",
        "deployment.environment.name": "staging",
        "service.version": "1",
        "team": "a b",
        "floor": "2",
    }
    assert resource_attributes(Settings()) == {}


def test_git_metadata_without_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    tags = "git.repository_url:https://user:secret@host/repo.git,git.commit.sha:abc,team:web"
    settings = read(monkeypatch, DD_TAGS=tags)
    assert settings.git_metadata == {
        "_dd.git.repository_url": "https://host/repo.git",
        "_dd.git.commit.sha": "abc",
    }
    assert settings.tags == {"team": "web"}
    assert read(monkeypatch, DD_GIT_COMMIT_SHA="def").git_metadata["_dd.git.commit.sha"] == "def"
    assert read(monkeypatch, DD_TRACE_GIT_METADATA_ENABLED="false").git_metadata == {}


def test_git_metadata_of_the_main_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    information = tmp_path / "shop-1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: shop\nVersion: 1\nProject-URL: Home, https://h\n"
        "Project-URL: source_code_link, https://u:p@git/shop#abc&x=y\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("DD_MAIN_PACKAGE", "shop")
    found = {"_dd.git.repository_url": "https://git/shop", "_dd.git.commit.sha": "abc"}
    assert Settings.from_environment().git_metadata == found
    monkeypatch.setenv("DD_GIT_COMMIT_SHA", "def")
    assert Settings.from_environment().git_metadata == found | {"_dd.git.commit.sha": "def"}
    monkeypatch.setenv("DD_MAIN_PACKAGE", "no such package")
    assert Settings.from_environment().git_metadata == {"_dd.git.commit.sha": "def"}


def test_schema_v1_names_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DD_TRACE_SPAN_ATTRIBUTE_SCHEMA", "v1")
    assert Settings.from_environment().peer_service


def test_services_of_integrations(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read(
        monkeypatch, DD_REDIS_SERVICE="cache", DD_REDIS_SERVICE_NAME="old", DATADOG_FLASK_SERVICE_NAME="web",
        DD_GRPC_CLIENT_SERVICE="g", DD_SQLITE_SERVICE=" ",
    )  # fmt: skip
    assert settings.integration_services == {"redis": "cache", "flask": "web", "grpc_client": "g"}


def test_span_sampling_rules_may_stand_in_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rules = tmp_path / "rules.json"
    rules.write_text("[]")
    assert read(monkeypatch, DD_SPAN_SAMPLING_RULES_FILE=str(rules)).span_sampling_rules == "[]"
    rules.write_bytes(b"\xff")
    assert read(monkeypatch).span_sampling_rules == ""
    rules.unlink()
    monkeypatch.setenv("DD_SPAN_SAMPLING_RULES_FILE", "/nowhere")
    assert read(monkeypatch).span_sampling_rules == ""
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert read(monkeypatch, DD_SPAN_SAMPLING_RULES="[1]").span_sampling_rules == "[1]"


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, {}),
        ({"DD_TRACE_FLASK_ENABLED": "false"}, {"integrations.flask.enabled": False}),
        ({"DD_TRACE_SQLITE_ENABLED": "0"}, {"integrations.sqlite3.enabled": False}),
        ({"DD_TRACE_SQLITE3_ENABLED": "1"}, {"integrations.sqlite3.enabled": True}),
        (
            {"DD_TRACE_AIOHTTP_ENABLED": "false", "DD_TRACE_AIOHTTP_SERVER_ENABLED": "true"},
            {"integrations.aiohttp_client.enabled": False, "integrations.aiohttp_server.enabled": True},
        ),
        (
            {"DD_PATCH_MODULES": "redis:false,psycopg:true,unknown:true"},
            {
                "integrations.redis.enabled": False,
                "integrations.psycopg.enabled": True,
                "integrations.psycopg2.enabled": True,
            },
        ),
        ({"DD_REQUESTS_DISTRIBUTED_TRACING": "no"}, {"integrations.requests.distributed_tracing": False}),
        ({"DD_REQUESTS_SPLIT_BY_DOMAIN": "1"}, {"integrations.requests.split_by_domain": True}),
        ({"DD_SQLITE_TRACE_FETCH_METHODS": "1"}, {"integrations.sqlite3.trace_fetch_methods": True}),
        (
            {"DD_DJANGO_INSTRUMENT_CACHES": "1"},
            {"integrations.django.cache_spans": True, "integrations.djangorestframework.cache_spans": True},
        ),
        ({"DD_TRACE_MONGODB_OBFUSCATION": "true"}, {}),
        (
            {"DD_TRACE_MONGODB_OBFUSCATION": "false"},
            {"integrations.pymongo.capture_statement": True, "integrations.mongoengine.capture_statement": True},
        ),
        ({"DD_TRACE_MEMCACHED_COMMAND_ENABLED": "false"}, {"integrations.pymemcache.capture_keys": False}),
        ({"DD_TRACE_HEADER_TAGS": "X-User:user, Host"}, {"http.header_tags": {"x-user": "user", "host": ""}}),
        ({"DD_HTTP_SERVER_TAG_QUERY_STRING": "false"}, {"http.server.query_string": False}),
        ({"DD_TRACE_HTTP_CLIENT_TAG_QUERY_STRING": "false"}, {"http.client.query_string": False}),
        ({"DD_TRACE_CLIENT_IP_HEADER": "X-Client"}, {}),
        (
            {"DD_TRACE_CLIENT_IP_ENABLED": "true", "DD_TRACE_CLIENT_IP_HEADER": " X_Client"},
            {"http.client_headers": ("x-client",)},
        ),
        ({"DD_TRACE_OBFUSCATION_QUERY_STRING_REGEXP": "a+"}, {"http.obfuscation_pattern": "a+"}),
        ({"DD_TRACE_OBFUSCATION_QUERY_STRING_REGEXP": ""}, {"http.obfuscation_pattern": ""}),
        ({"DD_TRACE_OBFUSCATION_QUERY_STRING_REGEXP": "("}, {}),
        ({"DD_TRACE_FLASK_ENABLED": "perhaps"}, {}),
        ({"DD_PATCH_MODULES": "redis:perhaps"}, {}),
    ],
)
def test_neutral_settings(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: dict[str, Any]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = {key: value for key, value in neutral_settings().items() if not key.endswith(".disabled_by")}
    assert found == {"messaging.envelope": "_datadog", **expected}


def test_one_switch_for_all_drivers_fetches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DD_DBAPI2_TRACE_FETCH_METHODS", "true")
    found = neutral_settings()
    assert found["integrations.sqlite3.trace_fetch_methods"] is True
    assert found["integrations.psycopg2.trace_fetch_methods"] is True
