"""The suites: where each comes from, what it needs, and which of its tests may differ with us."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


class Difference(NamedTuple):
    """Tests that need not pass instrumented: a pattern of `package.module.Class::test_name`, and the reason."""

    pattern: str
    reason: str


class Suite(NamedTuple):
    """A library's own tests.

    Attributes:
        requirement: the release whose tests these are; none for Python's own.
        command: the runner's arguments, `{NAME_port}` and `{scratch}` filled in. The tests come from the source
            distribution unless `--pyargs` names modules of what is installed.
        needs: what else the environment holds.
        config: the file with pytest's options for them (without one, pytest would find ours).
        servers: modules of tests/servers, a private one each for every run, and what theirs take besides.
        prepare: a Python program that is run before them, `{NAME_port}` and `{scratch}` (a directory) filled in.
        variables: the process's variables, filled in as well.
        differences: what is declared.
        runner: a script of the source distribution that runs tests by unittest, instead of pytest.
    """

    requirement: str = ""
    command: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    config: str = "/dev/null"
    servers: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    prepare: str = ""
    variables: Mapping[str, str] = MappingProxyType({})
    differences: tuple[Difference, ...] = ()
    runner: str = ""


_BYTES = "compares all that is sent, and we add headers"
_PARSER = "takes headers apart at every colon, and our tracestate has some"
_PYTHON = (
    "context",
    "httplib",
    "httpservers",
    "queue",
    "robotparser",
    "sched",
    "socketserver",
    "sqlite3",
    "thread",
    "threading",
    "threading_local",
    "urllib",
    "urllib2",
    "urllib2_localnet",
    "wsgiref",
    "xmlrpc",
)
# Those of event loops, TLS and subprocesses take many minutes.
_ASYNCIO = ("context", "futures", "futures2", "runners", "taskgroups", "tasks", "threads", "timeouts", "waitfor")
# What we come near, for all of them take ten minutes.
_AIOHTTP = (
    "client_functional",
    "client_session",
    "client_ws_functional",
    "tracing",
    "web_app",
    "web_exceptions",
    "web_functional",
    "web_log",
    "web_middleware",
    "web_protocol",
    "web_request_handler",
    "web_runner",
    "web_server",
)
_DJANGO = (
    "asgi",
    "async",
    "backends",
    "cache",
    "conditional_processing",
    "context_processors",
    "csrf_tests",
    "db_utils",
    "decorators",
    "generic_views",
    "handlers",
    "httpwrappers",
    "logging_tests",
    "middleware",
    "middleware_exceptions",
    "requests_tests",
    "responses",
    "servers",
    "signals",
    "template_backends",
    "template_tests",
    "test_client",
    "test_client_regress",
    "transaction_hooks",
    "transactions",
    "urlpatterns",
    "urlpatterns_reverse",
    "view_tests",
    "wsgi",
)


def _modules(folder: str, names: str) -> tuple[str, ...]:
    return tuple(f"{folder}/test_{name}.py" for name in names.split())


def _files(prefix: str, names: str) -> tuple[str, ...]:
    return tuple(f"{prefix}{name}.py" for name in names.split())


_POSTGRES = {"postgres": ("max_prepared_transactions=10",)}
# Its engine's dialect is a `Mock` that takes no listener, of which we warn.
_NOT_MOCKED = ("--deselect", "test/engine/test_pool.py::QueuePoolTest::test_recycle_pool_no_race")
_POSTGRES_TESTS = ("test/dialect/postgresql", "test/dialect/test_suite.py", "test/engine", *_NOT_MOCKED)
_SCHEMAS = """
import {0}
connection = {0}.connect("host=127.0.0.1 port={{postgres_port}} user=postgres dbname=postgres")
for schema in ("test_schema", "test_schema_2"):
    connection.cursor().execute("CREATE SCHEMA " + schema)
connection.commit()
"""

_SUBCLASS = "compares a class with `==`: with us it is a subclass of the driver's own"
_FACTORY = "asks with which class the driver makes the connection: with us a subclass, where the application names none"

_LISTENERS = "asks a client for all its listeners: among them are those that PyMongo lets register for every client"

# The clients of Azure and Google are large, and none of ours.
_CLOUDS = ("azureservicebus", "azurestoragequeues", "gcpubsub")
_KOMBU_TESTS = ("t/unit", *(f"--ignore=t/unit/transport/test_{name}.py" for name in _CLOUDS))
_CELERY_TESTS = ("t/unit/tasks", "t/unit/worker", *_files("t/unit/app/test_", "amqp app beat control"))

_REDIS_NEEDS = ("pytest-asyncio", "pytest-timeout", "numpy", "pybreaker", "xxhash", "packaging")
_REDIS_TESTS = """
    cache client command_parser commands connection encoding function hash lock max_connections_error monitor
    multiprocessing pipeline pubsub retry scripting utils asyncio/test_client asyncio/test_commands
    asyncio/test_connection asyncio/test_cwe_404 asyncio/test_hash asyncio/test_lock asyncio/test_monitor
    asyncio/test_pipeline asyncio/test_pubsub asyncio/test_retry asyncio/test_scripting"""

SUITES: dict[str, Suite] = {
    "botocore": Suite(
        "botocore==1.44.8",
        (
            *_modules(
                "tests/unit", "awsrequest client endpoint handlers hooks http_session paginate session stub waiters"
            ),
            *_modules(
                "tests/functional",
                "bedrock_runtime dynamodb eventbridge events history kinesis retry s3 sqs stub",
            ),
        ),
        ("jsonschema",),
    ),
    "elastic_transport": Suite(
        "elastic-transport==9.2.0",
        ("tests", "--ignore=tests/node/test_tls_versions.py"),
        (
            "pytest-asyncio",
            "pytest-httpserver",
            "pytest-mock",
            "trustme",
            "respx",
            "aiohttp",
            "httpx",
            "requests",
            "orjson",
            "elasticsearch",
        ),
    ),
    "djangorestframework": Suite(
        "djangorestframework==3.18.3",
        ("tests",),
        ("django==5.2.19", "pytest-django", "pytz", "dj-database-url", "markdown", "pyyaml"),
        "setup.cfg",
    ),
    "tornado": Suite(
        "tornado==6.6.1",
        ("--pyargs", "tornado.test", "--log-disable=tornado.access"),
        ("pycurl",),
        differences=(
            Difference(
                "*StreamingChunkSizeTest::test_regular_body",
                "where chunks end depends on the length of the headers, also without us",
            ),
        ),
    ),
    "python": Suite(
        command=("--pyargs", *(f"test.test_{name}" for name in _PYTHON)),
        differences=(
            Difference("*test_httplib.HeaderTests::test_ipv6host_header", _BYTES),
            Difference("*test_httplib.BasicTest::test_send_file", _BYTES),
            Difference("*test_httplib.BasicTest::test_send_iter", _BYTES),
            Difference("*test_httplib.TransferEncodingTest::*", _PARSER),
            Difference("*test_xmlrpc.HeadersServerTestCase::test_header*", _BYTES),
            Difference(
                "*test_dbapi.OpenTests::test_database_keyword", "compares the class itself, and ours is a subclass"
            ),
        ),
    ),
    "asyncio": Suite(command=("--pyargs", *(f"test.test_asyncio.test_{name}" for name in _ASYNCIO))),
    "aiohttp": Suite(
        "aiohttp==3.14.5",
        (*(f"tests/test_{name}.py" for name in _AIOHTTP), "-o", "addopts=", "-o", "timeout=60"),
        (
            "blockbuster",
            "coverage",
            "freezegun",
            "isal",
            "proxy.py",
            "pytest-mock",
            "pytest-timeout",
            "pytest-xdist",
            "pytest_codspeed",
            "re-assert",
            "trustme",
            "zlib_ng",
        ),
        "pytest.ini",
        differences=(
            Difference("tests.test_client_session::test_request_tracing[[]*", _BYTES),
            Difference("tests.test_client_session::test_request_tracing_exception*", _BYTES),
            Difference("*::test_request_tracing_interpose_headers*", "finds what the one before has left open"),
        ),
    ),
    "flask": Suite("flask==3.1.3", ("tests",), ("asgiref", "greenlet", "python-dotenv", "pytest<9"), "pyproject.toml"),
    "werkzeug": Suite(
        "werkzeug==3.1.9",
        ("tests",),
        ("cffi", "cryptography", "ephemeral-port-reserve", "pytest-timeout", "flask"),
        "pyproject.toml",
    ),
    "jinja2": Suite("jinja2==3.1.6", ("tests",), ("trio",), "pyproject.toml"),
    "starlette": Suite(
        "starlette==1.10.0",
        ("tests", "-o", "addopts="),
        (
            "httpx",
            "httpx2",
            "jinja2",
            "itsdangerous",
            "python-multipart",
            "pyyaml",
            "trio",
            "pytest_codspeed",
            "typing_extensions",
        ),
        "pyproject.toml",
        differences=(Difference("tests.middleware.test_opentelemetry::*", "Starlette's own span makes way for ours"),),
    ),
    "falcon": Suite(
        "falcon==4.4.0",
        # Real servers take a second for each test, and the stand-ins for static files fail alone.
        ("tests", "--ignore=tests/asgi/test_asgi_servers.py", "--ignore=tests/test_static.py", "-m", "not slow"),
        (
            "pyyaml",
            "requests",
            "aiofiles",
            "httpx",
            "uvicorn",
            "websockets",
            "cbor2",
            "msgpack",
            "mujson",
            "ujson",
            "orjson",
            "pytest-asyncio",
        ),
        "pyproject.toml",
    ),
    "pyramid": Suite(
        "pyramid==2.1",
        ("tests",),
        ("webtest", "zope.component", "setuptools<81"),
        "pyproject.toml",
        differences=(
            Difference(
                "*MemoryLeaksTest::test_memory_leaks", "counts the process's objects, those of our sending thread, too"
            ),
        ),
    ),
    "requests": Suite(
        "requests==2.34.2",
        ("tests", "-o", "addopts="),
        ("PySocks", "pytest-httpbin==2.1.0", "httpbin", "pytest-mock", "trustme"),
        "pyproject.toml",
    ),
    "fastapi": Suite(
        "fastapi==0.165.0",
        # FastAPI's own telemetry has tests that are written for its spans alone.
        (
            "tests",
            *(f"--ignore=tests/{name}" for name in ("test_tutorial", "test_prepare_release.py", "test_telemetry")),
        ),
        (
            "httpx",
            "httpx2",
            "pyyaml",
            "dirty-equals",
            "python-multipart",
            "sqlmodel",
            "flask",
            "PyJWT",
            "inline-snapshot",
            "orjson",
            "ujson",
            "anyio[trio]",
            "pwdlib[argon2]",
            "email-validator",
            "jinja2",
            "itsdangerous",
            "a2wsgi",
            "pytest-timeout",
            "pytest-xdist",
            "typer",
        ),
        "pyproject.toml",
    ),
    "bottle": Suite("bottle==0.13.4", ("test",), ("mako", "jinja2")),
    "django": Suite(
        "django==5.2.19",
        ("--parallel=1", *_DJANGO),
        (
            "asgiref",
            "jinja2",
            "pyyaml",
            "tblib",
            "pylibmc",
            "pymemcache",
            "redis",
            "argon2-cffi",
            "docutils",
            "aiosmtpd",
            "pillow",
        ),
        runner="tests/runtests.py",
    ),
    "sqlalchemy": Suite(
        "sqlalchemy==2.1.9",
        ("test/engine", "test/sql", "test/orm", *_NOT_MOCKED),
        ("greenlet", "aiosqlite"),
        "pyproject.toml",
    ),
    "sqlalchemy-sqlite": Suite(
        "sqlalchemy==2.1.9",
        ("test/dialect", "test/engine", *_NOT_MOCKED, "--db", "sqlite_file", "--db", "aiosqlite"),
        ("greenlet", "aiosqlite"),
        "pyproject.toml",
    ),
    "sqlalchemy-psycopg2": Suite(
        "sqlalchemy==2.1.9",
        (*_POSTGRES_TESTS, "--dburi", "postgresql+psycopg2://postgres@127.0.0.1:{postgres_port}/postgres"),
        ("greenlet", "psycopg2-binary"),
        "pyproject.toml",
        _POSTGRES,
        _SCHEMAS.format("psycopg2"),
    ),
    "sqlalchemy-psycopg": Suite(
        "sqlalchemy==2.1.9",
        (
            *_POSTGRES_TESTS,
            "--dburi",
            "postgresql+psycopg://postgres@127.0.0.1:{postgres_port}/postgres",
            "--dburi",
            "postgresql+psycopg_async://postgres@127.0.0.1:{postgres_port}/postgres",
        ),
        ("greenlet", "psycopg[binary]"),
        "pyproject.toml",
        _POSTGRES,
        _SCHEMAS.format("psycopg"),
    ),
    "sqlite3": Suite(
        "",
        ("--pyargs", "test.test_sqlite3"),
        differences=(Difference("*OpenTests::test_database_keyword", _SUBCLASS),),
    ),
    "psycopg2": Suite(
        "psycopg2==2.9.13",
        ("tests",),
        servers=_POSTGRES,
        variables={
            "PSYCOPG2_TESTDB": "postgres",
            "PSYCOPG2_TESTDB_HOST": "127.0.0.1",
            "PSYCOPG2_TESTDB_PORT": "{postgres_port}",
            "PSYCOPG2_TESTDB_USER": "postgres",
        },
        differences=(
            Difference("*ConnectionTests::test_cursor_factory_none", _SUBCLASS),
            *(
                Difference(f"*ConnectTestCase::{test}", _FACTORY)
                for test in ("test_async", "test_dsn", "test_no_keywords", "test_there_might_be_nothing")
            ),
        ),
    ),
    "redis": Suite(
        "redis==8.1.0",
        (
            *_files("tests/test_", _REDIS_TESTS),
            "tests/test_observability",
            "-m",
            "not redismod and not ssl",
            "--redis-url",
            "redis://127.0.0.1:{redis_port}/0",
        ),
        _REDIS_NEEDS,
        "pyproject.toml",
        {"redis": ("--enable-debug-command", "yes", "--enable-module-command", "yes")},
    ),
    "redis-cluster": Suite(
        "redis==8.1.0",
        (
            *("tests/test_cluster.py::TestClusterPipeline", "tests/test_cluster.py::TestRedisClusterObj"),
            *("tests/test_cluster_transaction.py", "tests/test_asyncio/test_cluster_transaction.py"),
            "tests/test_asyncio/test_cluster.py::TestClusterPipeline",
            *("-m", "not redismod and not ssl", "--redis-cluster-nodes", "3"),
            *("--redis-url", "redis://127.0.0.1:{redis_cluster_port}/0"),
        ),
        _REDIS_NEEDS,
        "pyproject.toml",
        {"redis_cluster": ()},
    ),
    "pymemcache": Suite(
        "pymemcache==4.0.0",
        ("pymemcache/test", "--server", "127.0.0.1", "--port", "{memcached_port}", "--count", "20"),
        ("Faker", "gevent", "zstd"),
        servers={"memcached": ()},
    ),
    "mysqlclient": Suite(
        "mysqlclient==2.3.2",
        ("tests",),
        servers={"mariadb": ()},
        prepare="""
with open("{scratch}/my.cnf", "w") as file:
    file.write("[MySQLdb-tests]\\nhost=127.0.0.1\\nport={mariadb_port}\\nuser=tester\\npassword=secret\\ndatabase=shop\\n"
        "default-character-set=utf8mb4\\n")
""",
        variables={"TESTDB": "{scratch}/my.cnf"},
    ),
    "pylibmc": Suite(
        "pylibmc==1.6.3",
        ("tests",),
        servers={"memcached": ()},
        variables={"MEMCACHED_HOST": "127.0.0.1", "MEMCACHED_PORT": "{memcached_port}"},
        differences=(
            Difference("*RefcountTests::*", "counts references to False and small numbers: spans that wait have some"),
            Difference("*SerializationTests::test_refcounts", "the same"),
            Difference(
                "*SerializationTests::test_override_deserialize",
                "keeps an exception, whose frames lead to that of our wrapper, which has the call's arguments",
            ),
        ),
    ),
    "flask-caching": Suite(
        "flask-caching==2.5.1",
        ("tests", "-o", "asyncio_default_fixture_loop_scope=function"),
        ("pytest-asyncio", "pytest-xprocess", "pylibmc", "redis", "asgiref"),
        "pyproject.toml",
    ),
    "kombu": Suite(
        "kombu==5.7.0",
        _KOMBU_TESTS,
        (
            "hypothesis<7",
            "Pyro4==4.82",
            "pytest-freezer",
            "redis",
            "pymongo",
            "sqlalchemy",
            "boto3",
            "pycurl",
            "urllib3",
            "msgpack",
            "pyyaml",
            "brotli",
        ),
        "setup.cfg",
        differences=(
            Difference("*test_QoS::test_restore_unacked_once_dumps_message_body*", "compares all headers of a message"),
        ),
    ),
    "celery": Suite(
        "celery==5.7.0",
        _CELERY_TESTS,
        (
            "pytest-celery",
            "pytest-rerunfailures",
            "pytest-subtests",
            "pytest-timeout",
            "pytest-click",
            "pytest-order",
            "freezegun",
            "boto3",
            "moto",
            "redis",
            "sqlalchemy",
            "pymongo",
            "gevent",
            "pydantic",
            "msgpack",
            "pyyaml",
        ),
        "pyproject.toml",
        differences=(
            Difference(
                "*test_tasks::test_inherit_parent_priority_child_task",
                "asserts with which arguments a message is sent: with us its headers have the trace's context",
            ),
        ),
    ),
    "mako": Suite(
        "mako==1.4.3", ("test",), ("babel", "lingua", "dogpile.cache", "beaker", "pygments"), "pyproject.toml"
    ),
    "pymongo": Suite(
        "pymongo==4.20.1",
        (
            *_files("test/test_", "bulk client collection command_monitoring cursor database monitoring session"),
            "test/asynchronous/test_monitoring.py",
            # It signals to the process while the server is busy, as this one never is.
            "--deselect=test/test_client.py::TestClient::test_interrupt_signal",
        ),
        ("pytest-asyncio",),
        "pyproject.toml",
        {"secantusdb": ()},
        variables={"DB_IP": "127.0.0.1", "DB_PORT": "{secantusdb_port}"},
        differences=(
            Difference("*ClientUnitTest::test_event_listeners", _LISTENERS),
            Difference("test.test_session.TestSession::*", _LISTENERS),
        ),
    ),
}
