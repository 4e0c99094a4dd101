"""Every variable of ddtrace's users: what it does here, or that it does nothing (protocol G.2).

docs/variables.md is written from these tables.
"""

from __future__ import annotations

import re
from os import environ

from spanbridge.core.guard import first_time, logger

# What a variable does here; {NAME} stands for an integration in capitals.
MEANINGS = {
    "DD_SERVICE": "The application's service; else the name of its script or module.",
    "DD_ENV": "The environment, tag `env` of every span.",
    "DD_VERSION": "The application's version, tag `version` of the spans of its own service.",
    "DD_TAGS": "Tags of every span: `key:value`, separated by commas or blanks; may hold `service`, `env`, `version`.",
    "DD_GIT_REPOSITORY_URL": "Where the sources are; credentials are cut out.",
    "DD_GIT_COMMIT_SHA": "Which commit runs.",
    "DD_MAIN_PACKAGE": "The distribution whose `source_code_link` names repository and commit otherwise.",
    "DD_TRACE_GIT_METADATA_ENABLED": "Tag spans with repository and commit.",
    "DD_TRACE_REPORT_HOSTNAME": "Tag local roots with the machine's name.",
    "DD_HOSTNAME": "The machine's name, where it is reported.",
    "DD_EXTERNAL_ENV": "Handed on to the Agent, which names the container by it.",
    "DD_TRACE_ENABLED": "Record and send spans.",
    "DD_TRACE_AGENT_URL": "Where the Agent is: `http://host:port`, `https://...` or `unix:///path`.",
    "DD_AGENT_HOST": "The Agent's host, where no URL is given.",
    "DD_TRACE_AGENT_PORT": "The Agent's port, where no URL is given.",
    "DD_TRACE_API_VERSION": "The layout of payloads, `v0.4` or `v0.5`.",
    "DD_TRACE_AGENT_TIMEOUT_SECONDS": "How long one request may take.",
    "DD_TRACE_WRITER_INTERVAL_SECONDS": "How often spans are sent.",
    "DD_TRACE_WRITER_BUFFER_SIZE_BYTES": "How much waits while the Agent is away; then the oldest traces are lost.",
    "DD_TRACE_WRITER_MAX_PAYLOAD_SIZE_BYTES": "The largest payload.",
    "DD_TRACE_PARTIAL_FLUSH_ENABLED": "Send finished spans of a trace that goes on.",
    "DD_TRACE_PARTIAL_FLUSH_MIN_SPANS": "How many of them there must be.",
    "SPANBRIDGE_DATADOG_NAMES": "`classic`: ddtrace's names; `otel`: those that the Agent gives to OTLP.",
    "DD_TRACE_SPAN_ATTRIBUTE_SCHEMA": "`v1`: ddtrace's newer names, one service, peers named.",
    "DD_SERVICE_MAPPING": "Renames services: `from:to,...`.",
    "DD_{NAME}_SERVICE": "The service of one integration's spans.",
    "DD_CELERY_PRODUCER_SERVICE": "The service of tasks that are sent.",
    "DD_CELERY_WORKER_SERVICE": "The service of tasks that are run.",
    "DD_DJANGO_DATABASE_SERVICE": "The service of Django's own spans of databases.",
    "DD_TRACE_REMOVE_INTEGRATION_SERVICE_NAMES_ENABLED": "Give all spans the application's service.",
    "DD_TRACE_PEER_SERVICE_DEFAULTS_ENABLED": "Name who was called, in `peer.service`.",
    "DD_TRACE_PEER_SERVICE_MAPPING": "Renames peers: `from:to,...`.",
    "DD_ASGI_OBFUSCATE_404_RESOURCE": "Unmatched paths become `404` in resources.",
    "DD_DJANGO_USE_HANDLER_RESOURCE_FORMAT": "Resources of Django are `METHOD view`, not `METHOD pattern`.",
    "DD_DJANGO_USE_LEGACY_RESOURCE_FORMAT": "Resources of Django are the view alone.",
    "DD_REDIS_RESOURCE_ONLY_COMMAND": "Resources of redis are the command's word; else all that is shown of it.",
    "DD_TRACE_HTTP_SERVER_ERROR_STATUSES": "Which HTTP statuses are errors, of servers and clients: `500-599,404`.",
    "DD_TRACE_CLIENT_IP_ENABLED": "Tag requests with the client's address.",
    "DD_TRACE_CLIENT_IP_HEADER": "The header that names the client, instead of those that proxies usually add.",
    "DD_TRACE_SPAN_TRACEBACK_MAX_SIZE": "How many frames `error.stack` keeps.",
    "DD_TRACE_PROPAGATION_STYLE": "Headers: `datadog`, `tracecontext`, `baggage`, `b3`, `b3multi`, `none`.",
    "DD_TRACE_PROPAGATION_STYLE_EXTRACT": "Those that are read, the first that is found being continued.",
    "DD_TRACE_PROPAGATION_STYLE_INJECT": "Those that are written.",
    "DD_TRACE_PROPAGATION_EXTRACT_FIRST": "Do not look at further headers once one was found.",
    "DD_TRACE_PROPAGATION_BEHAVIOR_EXTRACT": "`continue` the caller's trace, `restart` and link to it, or `ignore` it.",
    "DD_TRACE_X_DATADOG_TAGS_MAX_LENGTH": "Most characters of `x-datadog-tags`; 0 for no such header.",
    "DD_TRACE_BAGGAGE_TAG_KEYS": "Which baggage becomes tags of local roots; `*` for all, empty for none.",
    "DD_TRACE_SAMPLING_RULES": "Traces that are kept: JSON, each rule with `sample_rate` and what it fits, see below.",
    "DD_TRACE_SAMPLE_RATE": "What is kept of traces that fit no rule (ddtrace 4 has dropped this one).",
    "DD_TRACE_RATE_LIMIT": "How many traces rules may keep per second; below 0 any number.",
    "DD_SPAN_SAMPLING_RULES": "Spans of rejected traces that are kept: JSON, see below.",
    "DD_SPAN_SAMPLING_RULES_FILE": "The same in a file.",
    "DD_TRACE_STATS_COMPUTATION_ENABLED": "Count spans here, and keep rejected traces from the Agent if it agrees.",
    "DD_LOGS_INJECTION": "Name trace and span on records of `logging`.",
    "DD_TRACE_DEBUG": "Log what this package does, to standard error if nothing else is configured.",
    "DD_TRACE_STARTUP_LOGS": "Log the settings at the start.",
    "DD_TRACE_LOG_FILE": "Log to this file.",
    "DD_TRACE_{NAME}_ENABLED": "Trace one library.",
    "DD_{NAME}_DISTRIBUTED_TRACING": "Continue and pass on traces in one library.",
    "DD_{NAME}_TRACE_FETCH_METHODS": "Trace fetching rows, too.",
    "DD_{NAME}_TRACE_CONNECT": "Trace connecting, too.",
    "DD_{NAME}_INSTRUMENT_MIDDLEWARE": "Trace middleware, too.",
    "DD_{NAME}_INSTRUMENT_TEMPLATES": "Trace templates, too.",
    "DD_{NAME}_INSTRUMENT_CACHES": "Trace caches, too.",
    "DD_{NAME}_INSTRUMENT_DATABASES": "Trace databases through the framework, too.",
    "DD_{NAME}_PROPAGATION_ENABLED": "Continue the trace of the message that was received.",
    "DD_{NAME}_EMPTY_POLL_ENABLED": "Trace polls that bring nothing, too.",
    "DD_TRACE_MONGODB_OBFUSCATION": "Mask the values in filters of MongoDB.",
    "DD_TRACE_MEMCACHED_COMMAND_ENABLED": "Show keys in commands of pymemcache.",
    "DD_DBM_PROPAGATION_MODE": "Name service (`service`), or trace as well (`full`), in a comment of every statement.",
    "DD_{NAME}_SPLIT_BY_DOMAIN": "Call the service of outgoing requests after their host.",
    "DD_PATCH_MODULES": "Which libraries are traced: `module:true,...`.",
    "DD_TRACE_HEADER_TAGS": "Headers that become tags: `header:tag,header`.",
    "DD_TRACE_OBFUSCATION_QUERY_STRING_REGEXP": "What is cut out of query strings; empty for nothing.",
    "DD_HTTP_SERVER_TAG_QUERY_STRING": "Keep the query string of requests that are served.",
    "DD_TRACE_HTTP_CLIENT_TAG_QUERY_STRING": "Keep the query string of requests that are made.",
}  # fmt: skip

ALIASES = {
    "DD_SERVICE": ("DD_SERVICE_NAME",),
    "DD_TAGS": ("DD_TRACE_GLOBAL_TAGS",),
    "DD_AGENT_HOST": ("DD_TRACE_AGENT_HOSTNAME",),
    "DD_TRACE_AGENT_PORT": ("DD_AGENT_PORT",),
    "DD_{NAME}_SERVICE": ("DD_{NAME}_SERVICE_NAME",),
    "DD_DJANGO_DATABASE_SERVICE": ("DD_DJANGO_DATABASE_SERVICE_NAME",),
    "DD_TRACE_PARTIAL_FLUSH_ENABLED": ("DD_TRACER_PARTIAL_FLUSH_ENABLED",),
    "DD_TRACE_PARTIAL_FLUSH_MIN_SPANS": ("DD_TRACER_PARTIAL_FLUSH_MIN_SPANS",),
    "DD_TRACE_STATS_COMPUTATION_ENABLED": ("DD_TRACE_COMPUTE_STATS",),
    "DD_{NAME}_DISTRIBUTED_TRACING": ("DD_{NAME}_DISTRIBUTED_TRACING_ENABLED",),
    "DD_{NAME}_INSTRUMENT_DATABASES": ("DD_{NAME}_ALWAYS_CREATE_DATABASE_SPANS",),
    "DD_{NAME}_TRACE_FETCH_METHODS": ("DD_DBAPI2_TRACE_FETCH_METHODS",),
}

# What OpenTelemetry has for the same; where it is set, it wins.
COUNTERPARTS = {
    "DD_SERVICE": "`OTEL_SERVICE_NAME`, `service.name` in `OTEL_RESOURCE_ATTRIBUTES`",
    "DD_ENV": "`deployment.environment.name` in `OTEL_RESOURCE_ATTRIBUTES`",
    "DD_VERSION": "`service.version` in `OTEL_RESOURCE_ATTRIBUTES`",
    "DD_TAGS": "`OTEL_RESOURCE_ATTRIBUTES`",
    "DD_TRACE_ENABLED": "`OTEL_SDK_DISABLED`, `OTEL_TRACES_EXPORTER`",
    "DD_TRACE_PROPAGATION_STYLE": "`OTEL_PROPAGATORS`",
    "DD_TRACE_PROPAGATION_STYLE_EXTRACT": "`OTEL_PROPAGATORS`",
    "DD_TRACE_PROPAGATION_STYLE_INJECT": "`OTEL_PROPAGATORS`",
    "DD_TRACE_SAMPLING_RULES": "`OTEL_TRACES_SAMPLER`",
    "DD_TRACE_SAMPLE_RATE": "`OTEL_TRACES_SAMPLER`, `OTEL_TRACES_SAMPLER_ARG`",
    "DD_TRACE_DEBUG": "`OTEL_LOG_LEVEL=debug`",
    "DD_TRACE_{NAME}_ENABLED": "`OTEL_PYTHON_DISABLED_INSTRUMENTATIONS`",
}

# What does nothing here, and why.
IGNORED = {
    "DD_TRACE_WRITER_REUSE_CONNECTIONS": "connections are always reused",
    "DD_TRACE_MAX_TPS": "what waits is bounded in bytes by DD_TRACE_WRITER_BUFFER_SIZE_BYTES",
    "DD_PRIORITY_SAMPLING": "priorities are always sent",
    "DD_TRACE_HTTP_CLIENT_ERROR_STATUSES": "DD_TRACE_HTTP_SERVER_ERROR_STATUSES holds for clients, too, as in ddtrace",
    "DD_TRACE_PROPAGATION_HTTP_BAGGAGE_ENABLED": "baggage travels in the W3C header",
    "DD_TRACE_128_BIT_TRACEID_GENERATION_ENABLED": "trace ids always have 128 bits",
    "DD_TRACE_128_BIT_TRACEID_LOGGING_ENABLED": "logs name the whole trace id",
    "DD_TRACE_STATS_ADDITIONAL_TAGS": "spans are counted under the standard key",
    "DD_TRACE_ANALYTICS_ENABLED": "App Analytics is gone; the attribute analytics.event marks single spans",
    "DD_TRACE_OTEL_ENABLED": "OpenTelemetry is what traces here",
    "DD_DJANGO_TRACING_MINIMAL": "details are off unless their own variables switch them on",
    "DD_DJANGO_USE_HANDLER_WITH_URL_NAME_RESOURCE_FORMAT": "it is for Django before 2.2, which ddtrace 4 has dropped",
    "DD_DJANGO_INCLUDE_USER_NAME": "the option user_id notes a user's id, and nothing else of users is noted",
    "DD_DJANGO_CACHE_SERVICE": "spans of caches, an option, are parts of the application",
    "DD_DJANGO_DATABASE_SERVICE_NAME_PREFIX": "DD_DJANGO_DATABASE_SERVICE names the service of all databases",
    "DD_DJANGO_TRACE_FETCH_METHODS": "fetches are the driver's, as in DD_PSYCOPG_TRACE_FETCH_METHODS",
    "DD_BOTOCORE_INSTRUMENT_INTERNALS": "a call is one span",
    "DD_BOTOCORE_INVOKE_WITH_LEGACY_CONTEXT": "the context has one place, where functions look for it",
    "DD_BOTOCORE_ADD_SPAN_POINTERS": "spans do not point at what is stored",
    "DD_BOTOCORE_DYNAMODB_TABLE_PRIMARY_KEYS": "spans do not point at what is stored",
    "DD_AWS_TAG_NO_PARAMS": "names of buckets, queues, topics and tables are tags, no other parameter ever is",
    "DD_TRACE_CLOUD_REQUEST_PAYLOAD_TAGGING": "what is sent to clouds is never a tag",
    "DD_TRACE_CLOUD_RESPONSE_PAYLOAD_TAGGING": "what clouds answer is never a tag",
    "DD_TRACE_RESOURCE_RENAMING_ENABLED": "routes are known, and none is guessed from a path",
    "DD_CODE_ORIGIN_FOR_SPANS_ENABLED": "this package is no debugger",
    "DD_TRACE_WEBSOCKET_MESSAGES_ENABLED": "a websocket is one span, its handshake",
    "DD_REDIS_CMD_MAX_LENGTH": "commands are shown without their values, and cut after 1,000 characters",
    "DD_AIOHTTP_CLIENT_DISABLE_STREAM_TIMING_FOR_MEM_LEAK": "streams are not timed",
    "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "this package sends no telemetry about itself",
    "DD_REMOTE_CONFIGURATION_ENABLED": "settings come from the environment alone",
    "DD_RUNTIME_METRICS_ENABLED": "this package sends traces only",
    "DD_PROFILING_ENABLED": "this package is no profiler",
    "DD_APPSEC_ENABLED": "this package does not protect applications",
    "DD_IAST_ENABLED": "this package does not protect applications",
    "DD_DYNAMIC_INSTRUMENTATION_ENABLED": "this package is no debugger",
    "DD_DATA_STREAMS_ENABLED": "this package does not watch data streams",
    "DD_LLMOBS_ENABLED": "this package has no LLM observability",
    "DD_CALL_BASIC_CONFIG": "logging is the application's to configure",
}
_IGNORED_PATTERNS = (
    (
        re.compile(r"(?:DD|DATADOG)_(?:TRACE_)?\w+_ANALYTICS_(?:ENABLED|SAMPLE_RATE)"),
        IGNORED["DD_TRACE_ANALYTICS_ENABLED"],
    ),
    (re.compile(r"DD_DJANGO_INCLUDE_USER_(?:LOGIN|EMAIL|REALNAME)"), IGNORED["DD_DJANGO_INCLUDE_USER_NAME"]),
    (re.compile(r"DD_TRACE_WEBSOCKET_MESSAGES_\w+"), IGNORED["DD_TRACE_WEBSOCKET_MESSAGES_ENABLED"]),
    (re.compile(r"DD_DJANGO_CACHE_SERVICE_NAME"), IGNORED["DD_DJANGO_CACHE_SERVICE"]),
    (re.compile(r"DD_TRACE_CLOUD_PAYLOAD_TAGGING_\w+"), IGNORED["DD_TRACE_CLOUD_REQUEST_PAYLOAD_TAGGING"]),
    (re.compile(r"DD_TRACE_RESOURCE_RENAMING_\w+"), IGNORED["DD_TRACE_RESOURCE_RENAMING_ENABLED"]),
    (re.compile(r"DD_\w+_CMD_MAX_LENGTH"), IGNORED["DD_REDIS_CMD_MAX_LENGTH"]),
    (re.compile(r"DD_PROFILING_\w+"), IGNORED["DD_PROFILING_ENABLED"]),
    (re.compile(r"DD_RUNTIME_METRICS_\w+"), IGNORED["DD_RUNTIME_METRICS_ENABLED"]),
)
# An OTEL_* variable, and the DD_* ones that it makes meaningless.
_OVERRULED = {
    "OTEL_TRACES_SAMPLER": ("DD_TRACE_SAMPLING_RULES", "DD_TRACE_SAMPLE_RATE"),
    "OTEL_PROPAGATORS": (
        "DD_TRACE_PROPAGATION_STYLE",
        "DD_TRACE_PROPAGATION_STYLE_EXTRACT",
        "DD_TRACE_PROPAGATION_STYLE_INJECT",
    ),
}


def report_meaningless() -> None:
    """Say once of every variable that is set and does nothing here, why that is so."""
    for name in environ:
        if name.startswith(("DD_", "DATADOG_")) and (reason := _reason(name)) and first_time(f"variable:{name}"):
            logger.info("%s does nothing here: %s", name, reason)


def _reason(name: str) -> str:
    modern = "DD_" + name.removeprefix("DATADOG_").removeprefix("DD_")
    if modern in IGNORED:
        return IGNORED[modern]
    for winner, losers in _OVERRULED.items():
        chosen = environ.get(winner, "").strip()
        if modern in losers and chosen and chosen != "datadog":
            return f"{winner}={chosen} is set"
    return next((reason for pattern, reason in _IGNORED_PATTERNS if pattern.fullmatch(name)), "")
