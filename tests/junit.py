"""Reads what the harnesses of foreign test suites go by: pytest's JUnit reports, and what unittest prints."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple
from xml.etree import ElementTree as ET

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Outcome(NamedTuple):
    """One test that was run: `package.module.Class::test_name`, and the words of its fault, None where it passed."""

    path: str
    fault: str | None

    @property
    def name(self) -> str:
        """`Class.test_name`, or `module.test_name` of a test outside a class."""
        owner, _, test = self.path.partition("::")
        return f"{owner.rpartition('.')[2]}.{test}"


def outcomes(report: Path) -> Iterator[Outcome]:
    """Yield what each test of a report did; skipped ones are left out."""
    for case in ET.parse(report).iter("testcase"):
        if case.find("skipped") is not None:
            continue
        fault = next((case.find(kind) for kind in ("failure", "error") if case.find(kind) is not None), None)
        words = None if fault is None else " ".join((fault.get("message") or fault.text or "failed").split())
        yield Outcome(f"{case.get('classname') or ''}::{case.get('name')}", words)


# `test_name (package.module.Class.test_name)`; before Python 3.11, without the name at the end.
_TITLE = re.compile(r"^(FAIL: |ERROR: )?(\w+) \(([\w.]+)\)", re.MULTILINE)


def unittest_outcomes(output: str) -> Iterator[Outcome]:
    """Yield what each test did that a verbose run of unittest has printed; skipped ones are left out."""
    found: dict[str, str | None] = {}
    titles = list(_TITLE.finditer(output))
    for title, after in zip(titles, [*(each.start() for each in titles[1:]), len(output)], strict=True):
        fault, name, owner = title.groups()
        path = f"{owner.removesuffix('.' + name)}::{name}"
        words = output[title.end() : after]
        if fault:
            found[path] = words.partition("======")[0].rstrip().rpartition("\n")[2] or fault
        elif "... skipped" not in words:
            found.setdefault(path)
    for path, fault in found.items():
        yield Outcome(path, fault)
