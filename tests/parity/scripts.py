"""Scripts of programs/: each uses one library and ends by itself. Their PEP 723 headers say what they need.

    # /// script
    # dependencies = ["bottle==0.13.4"]
    # [tool.parity]
    # ddtrace = "4.16.0"                               # unless it is this one
    # alone = ["molten==1.0.2"]                        # dependencies whose own ones are left out
    # prepare = "tests.pylons_port"                    # run in the environments, once all is installed
    # servers = ["redis"]                              # modules of tests/servers; the port is in REDIS_PORT
    # variables = { DD_TRACE_TORNADO_ENABLED = "1" }   # for both tracers
    # [[tool.parity.differences]]                      # on purpose: changes lines of one side to what the other shows
    # reason = "SQL literals never leave the process"
    # side = "ddtrace"                                 # or "spanbridge"
    # pattern = "id = 7"                               # a regular expression, searched for in the operation's line
    # replacement = "id = ?"                           # without it, the operation is left out, its children move up
    # ///

A line is `service | operation | resource | type | kind | HTTP status | ERROR`, "-" for an empty column. What the script
prints must be equal under both tracers.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.parity import receiver
from tests.parity.operations import difference

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from tests.parity.operations import Operation
    from tests.parity.receiver import Launcher, Span

_PROGRAMS = Path(__file__).parent.resolve() / "programs"
_HEADER = re.compile(r"^# /// script\n((?:#.*\n)*?)# ///$", re.MULTILINE)


@dataclass(frozen=True)
class Script:
    """One script and what its header says."""

    path: Path
    dependencies: tuple[str, ...]
    alone: tuple[str, ...]
    prepare: str
    servers: tuple[str, ...]
    variables: dict[str, str]
    differences: list[dict[str, str]]
    ddtrace: str

    def run(self, launcher: Launcher, agent_python: Path) -> tuple[list[Span], list[str]]:
        """Run it under one tracer; return all spans received, and what it printed."""
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            ports = receiver.free_ports(3)
            stack.enter_context(receiver.agent(agent_python, ports, folder))
            variables = receiver.variables(ports[0], DD_SERVICE="parity", **self.variables)
            for name in self.servers:
                home = folder / name
                home.mkdir()
                start = getattr(import_module(f"tests.servers.{name}"), name)
                variables[f"{name.upper()}_PORT"] = str(stack.enter_context(start(home)).port)
            # Away from its own folder, where its name would hide the library's.
            program = shutil.copy(self.path, folder / "program.py")
            for shared in _PROGRAMS.glob("_*.py"):
                shutil.copy(shared, folder)
            done = subprocess.run(
                launcher.command(program),
                env=variables,
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            if done.returncode:
                sys.exit(f"{launcher.wrapper} {self.path.name} ended with {done.returncode}:\n{done.stderr[-4000:]}")
            return receiver.received(ports[0]), done.stdout.splitlines()

    def compare(self, theirs: list[Operation], mine: list[Operation], *, answers: list[str]) -> int:
        """Print what differs, beyond what the header declares, and say whether something did."""
        theirs, mine = (self._adjusted(side, roots) for side, roots in (("ddtrace", theirs), ("spanbridge", mine)))
        expected, got = ([line for root in roots for line in root.lines()] for roots in (theirs, mine))
        lines = difference(expected, got)
        if answers:
            print("the program itself behaves differently:", *answers, sep="\n  ")
        if lines:
            print("  (- ddtrace, + spanbridge)", *lines, sep="\n  ")
        missing = Counter(line.strip() for line in expected) - Counter(line.strip() for line in got)
        extra = Counter(line.strip() for line in got) - Counter(line.strip() for line in expected)
        print(f"{len(expected)} operations of ddtrace: {missing.total()} missing here, {extra.total()} here alone")
        return 1 if answers or lines or not expected else 0

    def _adjusted(self, side: str, roots: list[Operation]) -> list[Operation]:
        """Apply the declared differences of one side, from the leaves up."""
        adjusted: list[Operation] = []
        for root in roots:
            group = [replace(root, children=self._adjusted(side, root.children))]
            for rule in self.differences:
                if rule["side"] == side:
                    group = [new for old in group for new in _changed(old, rule)]
            adjusted += group
        return adjusted


def _changed(operation: Operation, rule: dict[str, str]) -> list[Operation]:
    line = operation.line()
    if not re.search(rule["pattern"], line):
        return [operation]
    if "replacement" not in rule:
        return operation.children
    return [operation.with_line(re.sub(rule["pattern"], rule["replacement"], line))]


def names() -> list[str]:
    """Name the scripts; what begins with an underscore is shared between them."""
    return sorted(path.stem for path in _PROGRAMS.glob("[!_]*.py"))


def read(name: str) -> Script:
    """Read the header of the script `name`."""
    path = _PROGRAMS / f"{name}.py"
    header = _HEADER.search(path.read_text())
    assert header is not None, f"{path} has no PEP 723 header"
    text = "\n".join(line.removeprefix("#").removeprefix(" ") for line in header[1].splitlines())
    fields: dict[str, Any] = tomllib.loads(text)
    more = fields.get("tool", {}).get("parity", {})
    return Script(
        path,
        tuple(fields["dependencies"]),
        tuple(more.get("alone", ())),
        more.get("prepare", ""),
        tuple(more.get("servers", ())),
        more.get("variables", {}),
        more.get("differences", []),
        more.get("ddtrace", "4.16.0"),
    )
