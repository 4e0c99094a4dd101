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
        requirement: the release whose source distribution has the tests.
        command: pytest's arguments; `{NAME_port}` is a server's port.
        needs: what else the environment holds.
        config: the file with pytest's options for them (without one, pytest would find ours).
        servers: modules of tests/servers, a private one each for every run.
        variables: the process's variables, `{NAME_port}` as above.
        differences: what is declared.
    """

    requirement: str
    command: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    config: str = "/dev/null"
    servers: tuple[str, ...] = ()
    variables: Mapping[str, str] = MappingProxyType({})
    differences: tuple[Difference, ...] = ()


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
    "bottle": Suite("bottle==0.13.4", ("test",)),
    "djangorestframework": Suite(
        "djangorestframework==3.18.3",
        ("tests",),
        ("django==5.2.19", "pytest-django", "pytz", "dj-database-url", "markdown", "pyyaml"),
        "setup.cfg",
    ),
    "tornado": Suite("tornado==6.6", ("--pyargs", "tornado.test")),
    "sqlalchemy": Suite(
        "sqlalchemy==2.1.9", ("test/engine", "test/sql", "test/orm"), ("greenlet", "aiosqlite"), "pyproject.toml"
    ),
}
