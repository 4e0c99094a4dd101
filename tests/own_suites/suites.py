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
        command: the runner's arguments; `{NAME_port}` is a server's port. The tests come from the source distribution
            unless `--pyargs` names modules of what is installed.
        needs: what else the environment holds.
        config: the file with pytest's options for them (without one, pytest would find ours).
        servers: modules of tests/servers, a private one each for every run.
        variables: the process's variables, `{NAME_port}` as above.
        differences: what is declared.
        runner: a script of the source distribution that runs tests by unittest, instead of pytest.
    """

    requirement: str = ""
    command: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    config: str = "/dev/null"
    servers: tuple[str, ...] = ()
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
        "sqlalchemy==2.1.9", ("test/engine", "test/sql", "test/orm"), ("greenlet", "aiosqlite"), "pyproject.toml"
    ),
}
