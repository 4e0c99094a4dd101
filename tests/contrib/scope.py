"""What of contrib's suites a drop-in need not pass, and why; patterns match `TestClass.test_name`."""

from __future__ import annotations

from typing import NamedTuple

RELEASE = "0.66b1"
LAST_RELEASES = {"boto": "0.61b0", "elasticsearch": "0.64b0"}  # of what contrib has given up

# What a suite installs, where it is more than the distribution of its own name.
TARGETS: dict[str, tuple[str, ...]] = {
    "aiopg": ("aiopg", "psycopg2-binary"),
    "aiohttp-client": ("aiohttp==3.10.5", "pytest-aiohttp", "http-server-mock"),
    "aiohttp-server": ("aiohttp", "pytest-aiohttp", "pytest-asyncio"),
    "asgi": ("asgiref",),
    "asyncio": ("pytest-asyncio",),
    "boto": (  # which moto mocks until 2.3
        "boto",
        "httpretty==1.1.4",
        "moto[awslambda,ec2]==2.3.2",
        "setuptools<81",
        "urllib3<2",
        "werkzeug<2.1",
    ),
    "botocore": (
        "aiobotocore",
        "aws-xray-sdk",
        "boto3",
        "moto[awslambda,dynamodb,s3,sqs,sns,stepfunctions]==5.0.28",  # later ones answer with other request ids
        "opentelemetry-propagator-aws-xray",
        "pytest-asyncio",
        "pytest-vcr",
    ),
    "cassandra": ("cassandra-driver",),
    "dbapi": ("sqlalchemy",),
    "pyramid": ("pyramid", "setuptools<81", "werkzeug"),
    "elasticsearch": ("elasticsearch<9", "elasticsearch-dsl<9"),
    "mysql": ("mysql-connector-python",),
    "psycopg": ("psycopg[binary]",),
    "psycopg2": ("psycopg2-binary",),
    "sqlalchemy": ("sqlalchemy", "aiosqlite", "greenlet"),
    "grpc": ("grpcio", "protobuf==3.20.3", "pytest-asyncio"),  # the suite holds code that an old protoc generated
    "redis": ("redis", "fakeredis"),
    "requests": ("requests", "mocket"),
    "sqlite3": (),
    "starlette": ("starlette<1", "httpx"),
    "threading": (),
    "tornado": ("tornado", "http-server-mock"),
    "wsgi": (),
}

# The suites whose module has another name here.
MODULES = {"threading": "futures"}


class Exempt(NamedTuple):
    """Tests of one library that say nothing about public behaviour of spans."""

    library: str
    pattern: str
    reason: str


_METRICS = "metrics: `meter_provider` is accepted, nothing is recorded (DESIGN section 6)"
_SEAM = "seam: replaces or reads a private name of contrib's module"

_MIDDLEWARE = "seam: contrib's own dotted path in settings.MIDDLEWARE; ours changes no settings"

EXEMPT = (
    Exempt("aiohttp-client", "*.test_metric*", _METRICS),
    Exempt("aiohttp-client", "*.test_basic_exception*", f"{_METRICS}, which these compare as well"),
    Exempt("aiohttp-client", "*.test_status_codes*", f"{_METRICS}, which these compare as well"),
    *(
        Exempt("aiohttp-client", f"TestAioHttpClientInstrumentor.test_instrument{mode}", f"{_METRICS}, as well")
        for mode in ("", "_new_semconv", "_both_semconv")
    ),
    Exempt("aiohttp-server", "*.test_semantic_conventions_metrics*", f"{_METRICS}, which these compare as well"),
    Exempt("aiohttp-server", "*.test_status_code_instrumentation*", f"{_METRICS}, which it compares as well"),
    Exempt("asyncio", "TestAsyncioToThread.test_to_thread*", f"{_METRICS}, which these compare as well"),
    Exempt("asyncio", "TestAsyncioCancel.test_cancel", f"{_METRICS}, which it compares as well"),
    Exempt("asyncio", "*.test_asyncio_ensure_future_with_future", f"{_METRICS}, which it compares as well"),
    Exempt("asyncio", "TestTraceFuture.test_trace_future_cancelled", f"{_METRICS}, which it compares as well"),
    Exempt("asyncio", "*.test_separator", f"{_SEAM} (get_coros_to_trace)"),
    Exempt("asyncio", "*.test_future_trace_enabled", f"{_SEAM} (get_future_trace_enabled)"),
    Exempt("django", "*.test_wsgi_metrics*", _METRICS),
    Exempt("django", "TestMiddlewareSpanActivationTiming.*", _METRICS),
    Exempt("django", "*.test_hooks", f"{_SEAM} (_DjangoMiddleware._otel_request_hook)"),
    Exempt("django", "*.test_middleware_added*", _MIDDLEWARE),
    Exempt("django", "*.test_query_wrapper*", f"{_SEAM} (_QueryWrapper)"),
    Exempt("django", "*.test_empty_sql", f"{_SEAM} (_QueryWrapper)"),
    Exempt("django", "*.test_multiple_connection_support", f"{_SEAM} (_QueryWrapper)"),
    Exempt("cassandra", "*.test_instrument_uninstrument", f"{_SEAM} (the wrapper's class)"),
    Exempt("cassandra", "TestCassandraInstrumentationDependencies.*", f"{_SEAM} (distribution)"),
    Exempt("falcon", "*.test_falcon_*metric*", _METRICS),
    Exempt("falcon", "*.test_traced_not_recording", f"{_METRICS}, which it compares as well"),
    Exempt("falcon", "*.test_url_template_new_semconv", f"{_METRICS}, which it compares as well"),
    Exempt("flask", "*.test_*metric*", _METRICS),
    Exempt("flask", "*.test_duration_histogram_*_with_context*", _METRICS),
    Exempt("flask", "*.test_active_requests_counter_decremented_on_error", _METRICS),
    Exempt("flask", "*.test_request_context_reference_handling", f"{_SEAM} (_request_ctx_ref)"),
    Exempt("flask", "*.test_streaming_with_error_in_cleanup", f"{_SEAM} (context.detach inside the module)"),
    Exempt("flask", "*.test_duplicate_teardown_request*", f"{_SEAM} (_ENVIRON_TOKEN, its own teardown function)"),
    Exempt("botocore", "*.test_instruments_with_aiobotocore_installed", "counts all entry points of the environment"),
    Exempt("botocore", "*DynamoDbExtension.test_*_item_collection_metrics", f"{_SEAM} (_DynamoDbExtension)"),
    Exempt("botocore", "*DynamoDbExtension.test_delete_item_consumed_capacity", f"{_SEAM} (_DynamoDbExtension)"),
    Exempt("botocore", "*.test_invoke_parse_arn", f"{_SEAM} (_LambdaExtension)"),
    Exempt("botocore", "TestMessageAttributes.*", f"{_SEAM} (extensions._messaging)"),
    Exempt("botocore", "test_botocore_bedrock.*", "gen_ai: log events with the conversation, and metrics"),
    Exempt("pyramid", "*metric*", _METRICS),
    Exempt("pyramid", "*.test_warnings", f"{_SEAM} (callbacks._logger)"),
    Exempt("pyramid", "*.test_before_traversal_subscriber_not_dup*", f"{_SEAM} (_before_traversal as subscriber)"),
    Exempt("pyramid", "*.test_not_recording", f"{_SEAM} (get_tracer is asked again for each request)"),
    Exempt("grpc", "*.test_client_interceptor_*", f"{_SEAM} (OpenTelemetryClientInterceptor)"),
    Exempt("requests", "*.test_*metric*", _METRICS),
    Exempt("requests", "*.test_custom_histogram_boundaries*", _METRICS),
    Exempt("pymongo", "*.test_schema_url_*", f"{_SEAM} (_commandtracer_instance, _tracer)"),
    Exempt("redis", "*.test_schema_url_*", f"{_SEAM} (_get_tracer); the schema URL itself is public"),
    Exempt("redis", "TestBuildSpanMetaDataForPipeline.*", f"{_SEAM} (_build_span_meta_data_for_pipeline)"),
    Exempt("celery", "TestMetrics.*", _METRICS),
    Exempt("celery", "*.test_task_clears_start_time_cache", f"{_METRICS} (task_id_to_start_time)"),
    Exempt("celery", "*.test_duplicate_instrumentaion", f"{_METRICS} (task_id_to_start_time)"),
    Exempt("celery", "TestUtils.*", f"{_SEAM} (the module utils)"),
    Exempt("dbapi", "*.test_operation_duration_*", _METRICS),
    Exempt("dbapi", "*.test_async_operation_duration_*", _METRICS),
    Exempt("dbapi", "*.test_returned_rows_*", _METRICS),
    Exempt("dbapi", "*.test_custom_meter_provider", _METRICS),
    Exempt("dbapi", "*.test_metrics_not_emitted_*", _METRICS),
    Exempt("dbapi", "*.test_executemany_mysqlclient_integration_comment*", f"{_SEAM} (util_version)"),
    Exempt("dbapi", "*.test_capture_mysql_version_fallback", f"{_SEAM} (_logger)"),
    Exempt("dbapi", "*.test_instrument_connection_db_api_integration_factory", f"{_SEAM} (_self_db_api_integration)"),
    Exempt("asgi", "*.test_asgi_metrics*", _METRICS),
    Exempt("asgi", "*.test_basic_metric_*", _METRICS),
    Exempt("asgi", "*.test_metric_target_attribute", _METRICS),
    Exempt("asgi", "*.test_collect_target_attribute_*", f"{_SEAM} (_collect_target_attribute)"),
    Exempt("starlette", "*.test_*metric*", _METRICS),
    Exempt("starlette", "*.test_manual_instrument_is_noop", f"{_SEAM} (its middleware in app.user_middleware)"),
    Exempt("starlette", "TestAutoInstrumentationLogic.test_instrumentation", f"{_SEAM} (the class it puts in)"),
    Exempt("starlette", "TestAuto*.test_sub_app_starlette_call", "a mounted application's request is one span here"),
    *(
        Exempt(library, f"*.test_instrument_{name}", f"{_SEAM} ({what})")
        for library in ("mysql", "mysqlclient")
        for name, what in (
            ("enable_commenter_dbapi_kwargs", "how it calls contrib's dbapi"),
            ("with_dbapi_sqlcomment_*", "the whole library, replaced as its global"),
            ("connection_with_dbapi_sqlcomment_enabled*", "the whole library, replaced as its global"),
        )
    ),
    *(
        Exempt(library, f"*.test_sqlcommenter_{state}", f"{_SEAM} (how it calls contrib's dbapi)")
        for library in ("psycopg", "psycopg2")
        for state in ("enabled", "disabled")
    ),
    Exempt("psycopg", "*.test_instrument_connection_uses_async_cursor_factory", f"{_SEAM} (its mark on connections)"),
    Exempt("aiopg", "TestAiopgMetrics.*", _METRICS),
    Exempt("aiopg", "*.test_custom_meter_provider_connect", _METRICS),
    Exempt("psycopg2", "TestPsycopg2InstrumentorParameters.*", f"{_SEAM} (how it calls contrib's dbapi)"),
    Exempt("psycopg2", "*.test_instrumentation_dependencies_*", f"{_SEAM} (distribution)"),
    Exempt("psycopg2", "*.test_instruments_with_psycopg2_installed", "counts all entry points of the environment"),
    Exempt("psycopg2", "*.test_uninstrument_connection_with_instrument_connection", f"{_SEAM} (pg_cursor)"),
    Exempt("sqlalchemy", "TestSqlalchemyMetricsInstrumentation.*", _METRICS),
    Exempt("sqlalchemy", "*.test_get_db_name_from_cursor_or_conn_*", f"{_SEAM} (_get_db_name_from_cursor_or_conn)"),
    Exempt("sqlalchemy", "*.test_no_memory_leakage_if_engine_diposed", f"{_SEAM} (what of its tracers is collected)"),
    Exempt("wsgi", "*.test_wsgi_metrics*", _METRICS),
    Exempt("tornado", "TestTornadoMetricsInstrumentation.*", _METRICS),
    Exempt("tornado", "*.test_*_metrics_*", _METRICS),
    Exempt("tornado", "*.test_patch_applied_only_once", f"{_SEAM} (patch_handler_class)"),
    Exempt("tornado", "*.test_patch_references", f"{_SEAM} (patched_handlers)"),
    Exempt("wsgi", "*.test_response_attributes_noop", f"{_METRICS}; it asserts the keyword `duration_attrs`"),
)

# The suites, by the last part of their distribution's name (`aiohttp-client`), each with the names that it imports or
# patches before any test runs. Ours has no such name, so a stand-in takes the patch.
# `_excluded_urls_from_env` stands for a variable that the suites set as well, and that we read ourselves.
PRIVATE_NAMES: dict[str, tuple[str, ...]] = {
    "aiohttp-client": (),
    "aiohttp-server": (),
    "asgi": ("_collect_target_attribute",),
    "asyncio": (),
    "celery": ("utils",),
    "cassandra": ("distribution",),
    "wsgi": (),
    "boto": (),
    "botocore": (),
    "dbapi": ("util_version", "_logger"),
    "django": ("_DjangoMiddleware",),
    "elasticsearch": (),
    "falcon": (),
    "flask": (
        "_ENVIRON_ACTIVATION_KEY",
        "_ENVIRON_TOKEN",
        "_IS_FLASK_31_PLUS",
        "_excluded_urls_from_env",
        "_request_ctx_ref",
    ),
    "grpc": (),
    "jinja2": (),
    "pyramid": (),
    "pymemcache": (),
    "pymongo": (),
    "requests": ("_excluded_urls_from_env",),
    "aiopg": (),
    "mysql": ("util_version",),
    "mysqlclient": ("util_version",),
    "psycopg": (),
    "psycopg2": ("DatabaseApiIntegration", "dbapi", "distribution", "pg_cursor"),
    "sqlalchemy": (),
    "sqlite3": (),
    "starlette": ("_excluded_urls",),
    "threading": (),
    "tornado": ("_excluded_urls", "_traced_request_attrs", "patch_handler_class", "unpatch_handler_class"),
    "redis": ("get_tracer",),
}
# Suites that replace what is public in the library through the global by which contrib's module holds it.
LIBRARY_AS_GLOBAL = {"mysql": "mysql", "mysqlclient": "MySQLdb", "psycopg": "psycopg", "psycopg2": "psycopg2"}
# Submodules likewise, with what of them is our module's and stand-ins for the rest.
PRIVATE_SUBMODULES: dict[str, tuple[str, ...]] = {
    "asyncio.environment_variables": (
        "OTEL_PYTHON_ASYNCIO_COROUTINE_NAMES_TO_TRACE",
        "OTEL_PYTHON_ASYNCIO_FUTURE_TRACE_ENABLED",
        "OTEL_PYTHON_ASYNCIO_TO_THREAD_FUNCTION_NAMES_TO_TRACE",
    ),
    "asyncio.utils": ("get_coros_to_trace", "get_future_trace_enabled"),
    "django.middleware": (),
    "django.middleware.otel_middleware": ("_DjangoMiddleware",),
    "django.middleware.sqlcommenter_middleware": ("SqlCommenter", "_QueryWrapper", "_get_opentelemetry_values"),
    "botocore.environment_variables": ("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT",),
    "botocore.extensions.bedrock": ("_GEN_AI_CLIENT_OPERATION_DURATION_BUCKETS", "_GEN_AI_CLIENT_TOKEN_USAGE_BUCKETS"),
    "botocore.extensions.bedrock_utils": ("ConverseStreamWrapper", "InvokeModelWithResponseStreamWrapper", "_Choice"),
    "botocore.extensions.dynamodb": ("_BotocoreInstrumentorContext", "_DynamoDbExtension"),
    "botocore.extensions.lmbd": ("_LambdaExtension",),
    "botocore.extensions._messaging": ("inject_propagation_context", "message_attributes_setter"),
    "pyramid.callbacks": ("_logger", "_excluded_urls"),
    "cassandra.package": ("_instruments_cassandra_driver", "_instruments_scylla_driver"),
    "elasticsearch.utils": ("sanitize_body",),
    "aiopg.aiopg_integration": ("AiopgIntegration", "_ContextManager", "_PoolAcquireContextManager"),
    "psycopg2.package": ("_instruments_psycopg2", "_instruments_psycopg2_binary"),
    "psycopg2.version": ("__version__",),
    "sqlalchemy.engine": ("_get_db_name_from_cursor_or_conn",),
    "grpc._aio_client": ("AioClientInterceptor", "UnaryUnaryAioClientInterceptor"),
    "grpc._client": ("OpenTelemetryClientInterceptor",),
    "grpc.grpcext": ("intercept_channel",),
    "grpc.grpcext._interceptor": ("_StreamClientInfo", "_UnaryClientInfo"),
    "redis.util": ("_build_span_meta_data_for_pipeline",),
}
