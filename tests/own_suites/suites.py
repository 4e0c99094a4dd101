"""Reads suites.toml."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class Suite:
    """A library's own tests, as suites.toml describes them; `declared` are pairs of (pattern of a test, reason)."""

    requirement: str
    command: list[str]
    needs: list[str]
    config: str
    servers: dict[str, list[str]]
    prepare: str
    runner: str
    variables: dict[str, str]
    declared: list[tuple[str, str]]
    spans: bool


def _read(row: dict[str, Any]) -> Suite:
    return Suite(
        row.get("requirement", ""),
        shlex.split(row["command"]),
        row.get("needs", "").split(),
        row.get("config", "/dev/null"),
        row.get("servers", {}),
        row.get("prepare", ""),
        row.get("runner", ""),
        row.get("variables", {}),
        [(pattern, rule["reason"]) for rule in row.get("differences", ()) for pattern in rule["tests"]],
        row.get("spans", True),
    )


SUITES = {
    name: _read(row) for name, row in tomllib.loads(Path(__file__).with_name("suites.toml").read_text("utf-8")).items()
}
