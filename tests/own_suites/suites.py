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


SUITES: dict[str, Suite] = {
    "tornado": Suite("tornado==6.6", ("--pyargs", "tornado.test")),
    "sqlalchemy": Suite(
        "sqlalchemy==2.1.9", ("test/engine", "test/sql", "test/orm"), ("greenlet", "aiosqlite"), "pyproject.toml"
    ),
}
