"""Every DD_* variable, read in one place: what the exporter needs, and what instrumentors need under neutral names.

DD_ wins over its legacy alias DATADOG_; an explicit OTEL_* setting wins over both. Nothing here raises.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, fields
from os import environ
from os.path import exists
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlsplit

from spanbridge.core.guard import first_time, logger
from spanbridge.core.options import boolean, from_environment, words
from spanbridge.exporters.datadog.variables import report_meaningless

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

T = TypeVar("T")

AGENT_SOCKET = "/var/run/datadog/apm.socket"
STYLES = ("datadog", "tracecontext", "baggage")
_KNOWN_STYLES = frozenset({*STYLES, "b3", "b3multi", "b3 single header", "none"})
ENVIRONMENT_KEYS = ("deployment.environment.name", "deployment.environment")

# ddtrace's names of integrations that go by other names here; all others have one name.
_RENAMED = {
    "aiohttp": ("aiohttp_client", "aiohttp_server"),
    "django": ("django", "djangorestframework"),
    "futures": ("futures", "threading"),
    "grpc": ("grpc_client", "grpc_server", "grpc_aio_client", "grpc_aio_server"),
    "mysqldb": ("mysqlclient",),
    "psycopg": ("psycopg", "psycopg2"),
    "sqlite": ("sqlite3",),
}
_SAME_NAME = words(
    "aiobotocore, aiohttp_client, aiohttp_server, aiopg, asyncio, asgi, boto, botocore, bottle, cassandra, celery,"
    "djangorestframework, elasticsearch, falcon, fastapi, flask, flask_cache, gevent, grpc_aio_client, grpc_aio_server,"
    "grpc_client, grpc_server, httplib, jinja2, kombu, mako, molten, mongoengine, mysql, mysqlclient, psycopg2,"
    "pylibmc, pylons, pymemcache, pymongo, pyramid, redis, rediscluster, requests, sqlalchemy, sqlite3, starlette,"
    "threading, tornado, vertica, wsgi"
)
INTEGRATIONS: dict[str, tuple[str, ...]] = _RENAMED | {name: (name,) for name in _SAME_NAME}

# Resources of Django are named after the view, with the method and without.
_DJANGO_HANDLER, _DJANGO_LEGACY = "DD_DJANGO_USE_HANDLER_RESOURCE_FORMAT", "DD_DJANGO_USE_LEGACY_RESOURCE_FORMAT"

# Neutral key of one integration <- the variables that set it, the strongest first; {} is its name in capitals.
_INTEGRATION_SWITCHES = {
    "enabled": ("DD_TRACE_{}_ENABLED",),
    "distributed_tracing": ("DD_{}_DISTRIBUTED_TRACING", "DD_{}_DISTRIBUTED_TRACING_ENABLED"),
    "trace_fetch_methods": ("DD_{}_TRACE_FETCH_METHODS", "DD_DBAPI2_TRACE_FETCH_METHODS"),
    "trace_connect": ("DD_{}_TRACE_CONNECT",),
    "split_by_domain": ("DD_{}_SPLIT_BY_DOMAIN",),
    "middleware_spans": ("DD_{}_INSTRUMENT_MIDDLEWARE",),
    "template_spans": ("DD_{}_INSTRUMENT_TEMPLATES",),
    "cache_spans": ("DD_{}_INSTRUMENT_CACHES",),
    "database_spans": ("DD_{}_INSTRUMENT_DATABASES", "DD_{}_ALWAYS_CREATE_DATABASE_SPANS"),
    "propagation": ("DD_{}_PROPAGATION_ENABLED",),
    "empty_polls": ("DD_{}_EMPTY_POLL_ENABLED",),
}
# Neutral key of the process <- the variable that sets it.
_SWITCHES = {
    "http.server.query_string": "DD_HTTP_SERVER_TAG_QUERY_STRING",
    "http.client.query_string": "DD_TRACE_HTTP_CLIENT_TAG_QUERY_STRING",
    "integrations.pymemcache.capture_keys": "DD_TRACE_MEMCACHED_COMMAND_ENABLED",
}
# Where proxies name the client, the strongest first, unless DD_TRACE_CLIENT_IP_HEADER says it.
_CLIENT_HEADERS = (
    *("x-forwarded-for", "x-real-ip", "true-client-ip", "x-client-ip", "forwarded", "forwarded-for"),
    *("x-cluster-client-ip", "fastly-client-ip", "cf-connecting-ip", "cf-connecting-ipv6"),
)


def _names(*variables: str) -> Iterator[str]:
    for variable in variables:
        yield variable
        if variable.startswith("DD_"):
            yield "DATADOG_" + variable.removeprefix("DD_")


def _read(convert: Callable[[str], T], default: T, *variables: str) -> T:
    return from_environment(_names(*variables), convert, default)


def pairs(raw: str) -> dict[str, str]:
    """Read `key:value` pairs, separated by commas if there is one, else by blanks (protocol G.2, DD_TAGS)."""
    parts = raw.split(",") if "," in raw else raw.split()
    found = (part.partition(":") for part in parts)
    return {name.strip(): value.strip() for name, _, value in found if name.strip()}


def _positive(raw: str) -> float:
    value = float(raw)
    if not (math.isfinite(value) and value > 0):
        raise ValueError("expected a number above 0")
    return value


def _rate(raw: str) -> float:
    value = float(raw)
    if not 0 <= value <= 1:
        raise ValueError("expected a number from 0 to 1")
    return value


def _count(raw: str) -> int:
    value = int(raw)
    if value < 0:
        raise ValueError("expected a whole number, 0 or above")
    return value


def _at_least_one(raw: str) -> int:
    return max(1, _count(raw))


def _port(raw: str) -> int:
    value = int(raw)
    if not 0 < value < 65536:
        raise ValueError("expected a port from 1 to 65535")
    return value


def _host(raw: str) -> str:
    host = raw.strip().strip("[]")
    if re.search(r"[\s/@?#\[\]]", host) or host.count(":") == 1:
        raise ValueError("expected a host name or address, without scheme and port")
    return f"[{host}]" if ":" in host else host


def _url(raw: str) -> str:
    url = urlsplit(raw.strip())
    if url.scheme == "unix" and url.path:
        return raw.strip()
    if url.scheme not in {"http", "https"} or not url.hostname or re.search(r"\s", url.netloc):
        raise ValueError("expected http://host:port, https://host:port or unix:///path")
    if url.port == 0:
        raise ValueError("expected a port from 1 to 65535")
    return raw.strip().rstrip("/")


def agent_url() -> str:
    """Find the Agent: URL, else host or port, else its unix socket if that exists, else localhost (protocol A.7)."""
    host = _read(_host, "", "DD_TRACE_AGENT_HOSTNAME", "DD_AGENT_HOST")
    port = _read(_port, 0, "DD_TRACE_AGENT_PORT", "DD_AGENT_PORT")
    default = f"http://{host or 'localhost'}:{port or 8126}"
    if not host and not port and exists(AGENT_SOCKET):  # noqa: PTH110 - unlike Path.exists, it never raises
        default = f"unix://{AGENT_SOCKET}"
    return _read(_url, default, "DD_TRACE_AGENT_URL")


def _statuses(raw: str) -> frozenset[int]:
    found: set[int] = set()
    for part in words(raw):
        first, dash, last = part.partition("-")
        low, high = int(first), int(last) if dash else int(first)
        if not 100 <= low <= high <= 999:
            raise ValueError("expected statuses such as 500-599,404")
        found.update(range(low, high + 1))
    return frozenset(found)


def _styles(raw: str) -> tuple[str, ...]:
    styles = tuple(style.lower() for style in words(raw))
    unknown = [style for style in styles if style not in _KNOWN_STYLES]
    if unknown and len(unknown) == len(styles):
        raise ValueError(f"unknown propagation style {unknown[0]!r}")
    for style in unknown:
        if first_time(f"propagation style:{style}"):
            logger.warning("the propagation style %r is unknown; those beside it are used", style)
    styles = tuple(style for style in styles if style not in unknown)
    return tuple("b3" if style == "b3 single header" else style for style in styles if style != "none")


def _choice(*values: str) -> Callable[[str], str]:
    def convert(raw: str) -> str:
        if (value := raw.strip().lower()) not in values:
            raise ValueError("expected " + " or ".join(values))
        return value

    return convert


def _logs_injection(raw: str) -> bool:
    return raw.strip().lower() == "structured" or boolean(raw)


def _text(raw: str) -> str:
    """Read the file that a variable names."""
    try:
        return Path(raw.strip()).read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(error.strerror or "not readable") from None


def _otel_resource() -> dict[str, str]:
    """Read what OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say, percent-decoded as the SDK does it."""
    items = (item.partition("=") for item in environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","))
    found = {key.strip(): unquote(value.strip()) for key, separator, value in items if separator and key.strip()}
    if name := environ.get("OTEL_SERVICE_NAME", "").strip():
        found["service.name"] = name
    return found


def _stronger(what: str, otel: str, datadog: str) -> str:
    """Let the OTEL_* setting win over the DD_* one, and say so when they differ."""
    if otel and datadog and otel != datadog and first_time(f"settings:{what}:{otel}:{datadog}"):
        logger.info("%s is %r (set by OTEL_*); DD_* would say %r", what, otel, datadog)
    return otel or datadog


def _integration_services() -> dict[str, str]:
    """Collect DD_<INTEGRATION>_SERVICE and _SERVICE_NAME, keyed by the integration in lower case."""
    found: dict[str, str] = {}
    for pattern in (r"DATADOG_(\w+)_SERVICE(?:_NAME)?", r"DD_(\w+)_SERVICE_NAME", r"DD_(\w+)_SERVICE"):
        for name, value in environ.items():
            if value.strip() and (match := re.fullmatch(pattern, name)):
                found[match[1].lower()] = value.strip()
    return found


def _is(default: T, convert: Callable[[str], T | None], *variables: str) -> T:
    """Declare a field of `Settings`: its default, its reader, its variables (the strongest first)."""
    return field(
        default_factory=lambda: default, metadata={"default": default, "convert": convert, "variables": variables}
    )


@dataclass(frozen=True)
class Settings:
    """What the exporter is told by its environment; names and defaults are ddtrace's (protocol G.2)."""

    # Who sends. Services, environment, version and tags may also come from DD_TAGS and OTEL_*; empty means unset.
    service: str = _is("", str.strip, "DD_SERVICE", "DD_SERVICE_NAME")
    env: str = _is("", str.strip, "DD_ENV")
    version: str = _is("", str.strip, "DD_VERSION")
    tags: Mapping[str, str] = _is({}, pairs, "DD_TAGS", "DD_TRACE_GLOBAL_TAGS")
    git_metadata: Mapping[str, str] = field(default_factory=dict)
    report_hostname: bool = _is(False, boolean, "DD_TRACE_REPORT_HOSTNAME")
    hostname: str = _is("", str.strip, "DD_HOSTNAME")
    external_env: str = _is("", str, "DD_EXTERNAL_ENV")

    # Where to. `agent_url` is http://host:port[/prefix], https://... or unix:///path; times in seconds.
    trace_enabled: bool = _is(True, boolean, "DD_TRACE_ENABLED")
    agent_url: str = "http://localhost:8126"
    api_version: str = _is("v0.4", _choice("v0.4", "v0.5"), "DD_TRACE_API_VERSION")
    timeout: float = _is(2.0, _positive, "DD_TRACE_AGENT_TIMEOUT_SECONDS")
    flush_interval: float = _is(1.0, _positive, "DD_TRACE_WRITER_INTERVAL_SECONDS")
    buffer_bytes: int = _is(20 << 20, _at_least_one, "DD_TRACE_WRITER_BUFFER_SIZE_BYTES")
    payload_bytes: int = _is(20 << 20, _at_least_one, "DD_TRACE_WRITER_MAX_PAYLOAD_SIZE_BYTES")
    partial_flush: bool = _is(True, boolean, "DD_TRACE_PARTIAL_FLUSH_ENABLED", "DD_TRACER_PARTIAL_FLUSH_ENABLED")
    partial_flush_min_spans: int = _is(
        300, _at_least_one, "DD_TRACE_PARTIAL_FLUSH_MIN_SPANS", "DD_TRACER_PARTIAL_FLUSH_MIN_SPANS"
    )

    # How spans are named. `classic` is ddtrace's way, `otel` the Agent's for OTLP.
    names: str = _is("classic", _choice("classic", "otel"), "SPANBRIDGE_DATADOG_NAMES")
    schema: str = _is("v0", _choice("v0", "v1"), "DD_TRACE_SPAN_ATTRIBUTE_SCHEMA")
    service_mapping: Mapping[str, str] = _is({}, pairs, "DD_SERVICE_MAPPING")
    integration_services: Mapping[str, str] = field(default_factory=dict)
    remove_integration_services: bool = _is(False, boolean, "DD_TRACE_REMOVE_INTEGRATION_SERVICE_NAMES_ENABLED")
    split_by_domain: frozenset[str] = frozenset()
    peer_service: bool = _is(False, boolean, "DD_TRACE_PEER_SERVICE_DEFAULTS_ENABLED")
    peer_service_mapping: Mapping[str, str] = _is({}, pairs, "DD_TRACE_PEER_SERVICE_MAPPING")
    obfuscate_404_resource: bool = _is(False, boolean, "DD_ASGI_OBFUSCATE_404_RESOURCE")
    handler_resource: bool = _is(False, boolean, _DJANGO_HANDLER)
    legacy_resource: bool = _is(False, boolean, _DJANGO_LEGACY)
    redis_words: bool = _is(True, boolean, "DD_REDIS_RESOURCE_ONLY_COMMAND")
    error_statuses: frozenset[int] = _is(frozenset(range(500, 600)), _statuses, "DD_TRACE_HTTP_SERVER_ERROR_STATUSES")
    client_ip: bool = _is(False, boolean, "DD_TRACE_CLIENT_IP_ENABLED")
    traceback_frames: int = _is(30, _count, "DD_TRACE_SPAN_TRACEBACK_MAX_SIZE")

    # Propagation. `behavior_extract` is continue, restart or ignore; a header length of 0 sends no x-datadog-tags.
    styles_extract: tuple[str, ...] = _is(
        STYLES, _styles, "DD_TRACE_PROPAGATION_STYLE_EXTRACT", "DD_TRACE_PROPAGATION_STYLE"
    )
    styles_inject: tuple[str, ...] = _is(
        STYLES, _styles, "DD_TRACE_PROPAGATION_STYLE_INJECT", "DD_TRACE_PROPAGATION_STYLE"
    )
    extract_first: bool = _is(False, boolean, "DD_TRACE_PROPAGATION_EXTRACT_FIRST")
    behavior_extract: str = _is(
        "continue", _choice("continue", "restart", "ignore"), "DD_TRACE_PROPAGATION_BEHAVIOR_EXTRACT"
    )
    x_datadog_tags_max_length: int = _is(512, _count, "DD_TRACE_X_DATADOG_TAGS_MAX_LENGTH")
    baggage_tag_keys: tuple[str, ...] = _is(("user.id", "account.id", "session.id"), words, "DD_TRACE_BAGGAGE_TAG_KEYS")

    # Sampling. The rules are JSON, read by the sampler; a rate limit below 0 is none, `stats` None is the default.
    sampling_rules: str = _is("", str.strip, "DD_TRACE_SAMPLING_RULES")
    sample_rate: float | None = _is(None, _rate, "DD_TRACE_SAMPLE_RATE")
    rate_limit: int = _is(100, int, "DD_TRACE_RATE_LIMIT")
    span_sampling_rules: str = _is("", str.strip, "DD_SPAN_SAMPLING_RULES")
    stats: bool | None = _is(None, boolean, "DD_TRACE_STATS_COMPUTATION_ENABLED", "DD_TRACE_COMPUTE_STATS")

    # Logs: the application's, and our own.
    logs_injection: bool = _is(True, _logs_injection, "DD_LOGS_INJECTION")
    debug: bool = _is(False, boolean, "DD_TRACE_DEBUG")
    startup_logs: bool = _is(False, boolean, "DD_TRACE_STARTUP_LOGS")
    log_file: str = _is("", str.strip, "DD_TRACE_LOG_FILE")

    @classmethod
    def from_environment(cls) -> Settings:
        """Read the environment; a wrong value gets one warning and its default."""
        read: dict[str, Any] = {}
        for row in fields(cls):
            if variables := row.metadata.get("variables"):
                read[row.name] = _read(row.metadata["convert"], row.metadata["default"], *variables)
        tags, otel = dict(read["tags"]), _otel_resource()
        otel_env = [otel.pop(key) for key in ENVIRONMENT_KEYS if key in otel]
        for name, said in (
            ("service", otel.pop("service.name", "")),
            ("env", otel_env[0] if otel_env else ""),
            ("version", otel.pop("service.version", "")),
        ):
            read[name] = _stronger(name, said, read[name] or tags.pop(name, ""))
            tags.pop(name, None)
        read["peer_service"] = read["peer_service"] or read["schema"] == "v1"
        read["git_metadata"] = _git_metadata(tags)
        read["tags"] = tags | otel
        read["agent_url"] = agent_url()
        read["integration_services"] = _integration_services()
        read["split_by_domain"] = frozenset(name for name, on in _switches("split_by_domain").items() if on)
        read["span_sampling_rules"] = read["span_sampling_rules"] or _read(_text, "", "DD_SPAN_SAMPLING_RULES_FILE")
        read["debug"] = read["debug"] or environ.get("OTEL_LOG_LEVEL", "").strip().lower() == "debug"
        if _emptied("DD_TRACE_BAGGAGE_TAG_KEYS"):
            read["baggage_tag_keys"] = ()
        report_meaningless()
        return cls(**read)


def _emptied(variable: str) -> bool:
    """Say whether a variable is there and empty, where that means something: elsewhere it is as if it were not set."""
    return environ.get(variable, "unset").strip() == ""


def _git_metadata(tags: dict[str, str]) -> dict[str, str]:
    """Take repository and commit from their variables, `tags`, or DD_MAIN_PACKAGE; without credentials (protocol F)."""
    url = _read(str.strip, tags.pop("git.repository_url", ""), "DD_GIT_REPOSITORY_URL")
    commit = _read(str.strip, tags.pop("git.commit.sha", ""), "DD_GIT_COMMIT_SHA")
    if not _read(boolean, True, "DD_TRACE_GIT_METADATA_ENABLED"):
        return {}
    if not (url and commit) and (package := _read(str.strip, "", "DD_MAIN_PACKAGE")):
        packaged_url, packaged_commit = _source_code_link(package)
        url, commit = url or packaged_url, commit or packaged_commit
    url = re.sub(r"(?<=://)[^/]*@", "", url)
    found = {"_dd.git.repository_url": url, "_dd.git.commit.sha": commit}
    return {tag: value for tag, value in found.items() if value}


def _source_code_link(package: str) -> tuple[str, str]:
    """Find `Project-URL: source_code_link, URL#commit` in the metadata of a distribution."""
    from importlib.metadata import PackageNotFoundError, metadata

    try:
        links = metadata(package).get_all("Project-URL") or []
    except (PackageNotFoundError, ValueError):
        return "", ""
    for link in links:
        label, _, address = link.partition(",")
        url, hash_sign, commit = address.strip().partition("#")
        if label.strip() == "source_code_link" and hash_sign:
            return url, commit.partition("&")[0]
    return "", ""


def resource_attributes(settings: Settings) -> dict[str, str]:
    """Give the attributes that `settings` add to an OpenTelemetry Resource."""
    known = {
        "service.name": settings.service,
        "deployment.environment.name": settings.env,
        "service.version": settings.version,
    }
    return {**settings.tags, **{key: value for key, value in known.items() if value}}


def _switches(switch: str) -> dict[str, bool]:
    """Read one switch of every integration; only what the environment sets is in the answer, under our names."""
    found: dict[str, bool] = {}
    unset: bool | None = None
    convert: Callable[[str], bool | None] = boolean
    for integration, ours in INTEGRATIONS.items():
        variables = (variable.format(integration.upper()) for variable in _INTEGRATION_SWITCHES[switch])
        value = _read(convert, unset, *variables)
        if value is not None:
            found |= dict.fromkeys(ours, value)
    return found


def _patch_modules(raw: str) -> dict[str, bool]:
    return {name: boolean(value or "true") for name, value in pairs(raw).items()}


def _pattern(raw: str) -> str:
    try:
        re.compile(raw)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return raw


def neutral_settings() -> dict[str, Any]:
    """Translate DD_* variables into the option keys of `spanbridge.core.options`; only what is set is in the answer.

    Keys: `integrations.<name>.<switch>` as in `_INTEGRATION_SWITCHES`, and `disabled_by`, the reason, where `enabled`
    is false; `http.header_tags` (lower-case header -> tag name, or "" for the usual one), `http.obfuscation_pattern`
    ("" switches it off), `http.server.query_string`, `http.client.query_string`; `http.client_headers`, the headers
    that name a request's client, in lower case with dashes, the strongest first; `database.comments` and
    `integrations.<name>.comment_tags` (see `spanbridge.conventions.sqlcommenter`); `messaging.envelope`, always: under
    this name Datadog's tracers look for a context where it can only travel as JSON.
    """
    found: dict[str, Any] = {"messaging.envelope": "_datadog"}
    for switch in _INTEGRATION_SWITCHES:
        for name, value in _switches(switch).items():
            found[f"integrations.{name}.{switch}"] = value
    for integration, ours in INTEGRATIONS.items():
        for variable in _names(*(one.format(integration.upper()) for one in _INTEGRATION_SWITCHES["enabled"])):
            for name in ours:
                if variable in environ and found.get(f"integrations.{name}.enabled") is False:
                    found[f"integrations.{name}.disabled_by"] = f"{variable} is false"
    nothing: dict[str, bool] = {}
    for module, value in _read(_patch_modules, nothing, "DD_PATCH_MODULES").items():
        for name in INTEGRATIONS.get(module.lower(), ()):
            found[f"integrations.{name}.enabled"] = value
            if not value:
                found[f"integrations.{name}.disabled_by"] = "DD_PATCH_MODULES switches it off"
    unset: bool | None = None
    convert: Callable[[str], bool | None] = boolean
    for key, variable in _SWITCHES.items():
        if (switched := _read(convert, unset, variable)) is not None:
            found[key] = switched
    no_headers: dict[str, str] = {}
    if headers := _read(pairs, no_headers, "DD_TRACE_HEADER_TAGS"):
        found["http.header_tags"] = {header.lower(): tag for header, tag in headers.items()}
    found |= _noted()
    found |= _client_headers()
    found |= _obfuscation_pattern()
    found |= _database_comments()
    return found


def _noted() -> dict[str, Any]:
    """Say what instrumentors are to note besides, for the names that variables ask for."""
    found = {}
    if any(_read(boolean, False, variable) for variable in (_DJANGO_HANDLER, _DJANGO_LEGACY)):
        found["integrations.django.handler"] = True
    if not _read(boolean, True, "DD_TRACE_MONGODB_OBFUSCATION"):
        found |= dict.fromkeys((f"integrations.{name}.capture_statement" for name in ("mongoengine", "pymongo")), True)
    return found


def _client_headers() -> dict[str, Any]:
    if not _read(boolean, False, "DD_TRACE_CLIENT_IP_ENABLED"):
        return {}
    header = _read(str.strip, "", "DD_TRACE_CLIENT_IP_HEADER").lower().replace("_", "-")
    return {"http.client_headers": (header,) if header else _CLIENT_HEADERS}


def _database_comments() -> dict[str, Any]:
    """Say what database monitoring wants to read in statements: who asks which database, and in which trace."""
    mode = _read(_choice("disabled", "service", "dynamic_service", "full"), "disabled", "DD_DBM_PROPAGATION_MODE")
    if mode == "disabled":
        return {}
    from spanbridge.exporters.datadog import names

    settings = Settings.from_environment()
    tags = {"dde": settings.env, "ddps": settings.service, "ddpv": settings.version}
    found: dict[str, Any] = {
        "database.comments": {
            "tags": {key: value for key, value in tags.items() if value},
            "target": {"dddb": "namespace", "ddh": "host"},
            "trace_context": mode == "full",
        }
    }
    for library, row in names.CLASSIC.items():
        service = names.own_service(library, row, settings, settings.service) if row.type == "sql" else ""
        if service and isinstance(service, str):
            found[f"integrations.{library}.comment_tags"] = {"dddbs": settings.service_mapping.get(service, service)}
    return found


def _obfuscation_pattern() -> dict[str, str]:
    variable = "DD_TRACE_OBFUSCATION_QUERY_STRING_REGEXP"
    if _emptied(variable):
        return {"http.obfuscation_pattern": ""}
    unset: str | None = None
    convert: Callable[[str], str | None] = _pattern
    pattern = _read(convert, unset, variable)
    return {} if pattern is None else {"http.obfuscation_pattern": pattern}
