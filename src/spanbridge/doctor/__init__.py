"""`spanbridge doctor`: why is nothing traced? Starts a program as its user would, and reports what became of it."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from os import environ
from pathlib import Path
from typing import TYPE_CHECKING

from spanbridge.core.status import State
from spanbridge.doctor import agent, findings, text
from spanbridge.doctor.report import FOLDER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spanbridge.doctor.report import Report

_LAUNCHER = "opentelemetry-instrument"
_START_SECONDS = 60.0
# Of two processes of one program, the integration's state is the one that comes first here.
_STRONGEST = (State.FAILED, State.ACTIVE, State.TOO_OLD, State.WAITING, State.DISABLED, State.NOT_INSTALLED)


def run(command: Sequence[str], *, seconds: float | None, send: bool, as_json: bool) -> int:
    """Examine a program, or this environment when there is none, and print the report.

    Args:
        command: the program and its arguments, as on the command line.
        seconds: interrupt the program so many seconds after its start; None lets it end by itself.
        send: send the Agent one trace.
        as_json: print the report for machines.

    Returns:
        The exit code: 0, or 1 when an error was found, or 2 when the program could not be examined.
    """
    reports = _watch(command or [sys.executable, "-c", ""], seconds)
    if not reports:
        print(
            "the program was not instrumented at all: it never reached OpenTelemetry's launcher;"
            f" fix: check that `{_LAUNCHER} python -c ''` works in this environment",
            file=sys.stderr,
        )
        return 2
    joined = _joined(reports)
    url = next(row["value"] for row in joined["configuration"] if row["name"] == "agent_url")
    answer = agent.ask(url, send=send)
    found = findings.of(joined, answer, program=bool(command))
    if as_json:
        print(json.dumps({**joined, "agent": asdict(answer), "findings": [asdict(row) for row in found]}, indent=2))
    else:
        print(text.render(joined, found, answer, program=bool(command)))
    return 1 if any(row.level == findings.ERROR for row in found) else 0


def _watch(command: Sequence[str], seconds: float | None) -> list[Report]:
    """Run the program under the launcher, and return what its processes said."""
    if shutil.which(command[0]) is None:
        print(f"{command[0]}: there is no such program", file=sys.stderr)
        return []
    if Path(command[0]).name != _LAUNCHER:
        beside = Path(sys.executable).with_name(_LAUNCHER)
        command = [str(beside) if beside.exists() else _LAUNCHER, *command]
    with tempfile.TemporaryDirectory(prefix="spanbridge-doctor-") as name:
        folder = Path(name)
        # The program's output is not ours: the report alone goes to standard output.
        with subprocess.Popen(command, stdout=sys.stderr, env={**environ, FOLDER: name}) as process:
            try:
                if seconds is not None:
                    _wait_until_it_runs(process, folder)
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGINT)
                _end(process)
            except KeyboardInterrupt:  # which the program got as well
                _end(process)
        texts = [path.read_text() for path in sorted(folder.iterdir())]
        return [json.loads(text) for text in texts if text]


def _wait_until_it_runs(process: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and not any(folder.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.05)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Wait for a program that was interrupted, and end it for good if it does not mind."""
    for stronger in (process.terminate, process.kill):
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            stronger()
        else:
            return


def _joined(reports: list[Report]) -> Report:
    """Make one report of those of all processes: each integration at its strongest, the spans of all."""
    first, *others = reports
    for other in others:
        first["spans"] += other["spans"]
        first["imported"] = sorted({*first["imported"], *other["imported"]})
        for index, (one, two) in enumerate(zip(first["integrations"], other["integrations"], strict=True)):
            spans = one["spans"] + two["spans"]
            strongest = min(one, two, key=lambda row: _STRONGEST.index(State(row["state"])))
            first["integrations"][index] = {**strongest, "spans": spans}
    return first
