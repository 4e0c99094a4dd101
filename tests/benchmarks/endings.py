"""How programs end and receivers fail, under ddtrace, OpenTelemetry's OTLP and us, side by side.

`python -m tests.benchmarks.endings [--cache DIR] [--only NAME,...]`: each program makes 200 spans of sqlite3. Shown are
the spans received, and the time from the last span to the end less that of the same program untraced.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks import receiver
from tests.environments import clean_variables, environment

SPANS = 200
_SECONDS = 90
_TOOLS = f"""
import os, sqlite3, sys, time
SPANS = {SPANS}
def work(n=SPANS):
    connection = sqlite3.connect(":memory:")
    cursor = connection.cursor()  # contrib traces cursors only
    for i in range(n):
        cursor.execute("SELECT 1")
    open("mark", "w").write(str(time.monotonic()))
"""
ENDINGS = {
    "normal": "work()",
    "sys.exit": "work(); sys.exit(3)",
    "unhandled exception": "work(); raise ValueError",
    "SIGINT": "work(); os.kill(os.getpid(), 2); time.sleep(60)",
    "SIGTERM, default handler": "work(); os.kill(os.getpid(), 15); time.sleep(60)",
    "SIGTERM, own handler": (
        "import signal; signal.signal(15, lambda *_: sys.exit(0)); work(); os.kill(os.getpid(), 15); time.sleep(60)"
    ),
    "os.fork, child returns": "work(100); pid = os.fork(); pid and os.wait(); pid or work(100)",
    "os.fork, child ends in os._exit": "work(100)\nif os.fork(): os.wait()\nelse: work(100); os._exit(0)",
    "parent forks and goes on": "work(100)\npid = os.fork()\nif not pid: os._exit(0)\nwork(100); os.waitpid(pid, 0)",
    "multiprocessing, fork pool": (
        "import multiprocessing\nif __name__ == '__main__':\n"
        " with multiprocessing.get_context('fork').Pool(2) as pool: pool.map(work, [50] * 4, chunksize=1)"
    ),
    "os._exit": "work(); os._exit(0)",
}
RECEIVERS = (
    "healthy",
    "refuses",
    "black hole",
    "resets",
    "404",
    "413",
    "429",
    "500",
    "503",
    "junk in a 200",
    "every second 503",
)


class Tracer(NamedTuple):
    """A tracer: its environment's interpreter, its launcher, its variables."""

    python: Path
    launcher: str
    variables: dict[str, str]


class Outcome(NamedTuple):
    """What became of one program."""

    received: int
    seconds: float
    code: int


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.endings", description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path(".nox", "bench"), help="where the environments live")
    parser.add_argument("--only", default="", help="endings and receivers, comma separated")
    arguments = parser.parse_args()
    tracers = _tracers(arguments.cache)
    rows = [(name, program, "healthy") for name, program in ENDINGS.items()]
    rows += [(f"receiver: {kind}", ENDINGS["normal"], kind) for kind in RECEIVERS[1:]]
    print("| | " + " | ".join(tracers) + " |", "| --- |" + " --- |" * len(tracers), sep="\n", flush=True)
    for name, program, kind in rows:
        if arguments.only and name not in arguments.only.split(","):
            continue
        plain = _run(Tracer(tracers["spanbridge"].python, "", {}), program, "healthy")
        outcomes = [_run(tracer, program, kind) for tracer in tracers.values()]
        cells = [_cell(outcome, plain) for outcome in outcomes]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    return 0


def _cell(outcome: Outcome, plain: Outcome) -> str:
    changed = "" if outcome.code == plain.code else f", exit code {outcome.code} instead of {plain.code}"
    return f"{outcome.received} of {SPANS}, {outcome.seconds - plain.seconds:+.1f} s{changed}"


def _tracers(cache: Path) -> dict[str, Tracer]:
    sdk = ("opentelemetry-sdk", "opentelemetry-instrumentation")
    otlp = ("opentelemetry-exporter-otlp-proto-http", "opentelemetry-instrumentation-sqlite3", "opentelemetry-distro")
    off = {"OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}
    protocol = {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", "OTEL_TRACES_EXPORTER": "otlp"}
    quiet = {"DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false", "DD_REMOTE_CONFIGURATION_ENABLED": "false"}
    launcher = "opentelemetry-instrument"
    return {
        "ddtrace": Tracer(environment(cache / "ends-ddtrace", "ddtrace==4.16.0"), "ddtrace-run", quiet),
        "OTLP": Tracer(environment(cache / "ends-otlp", *sdk, *otlp), launcher, {**off, **protocol}),
        "spanbridge": Tracer(
            environment(cache / "ends-spanbridge", *sdk, "msgspec", with_spanbridge=True), launcher, {}
        ),
    }


def _run(tracer: Tracer, program: str, kind: str) -> Outcome:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "program.py").write_text(f"{_TOOLS}\n{program}\n")
        server = stack.enter_context(receiver.started(kind))
        variables = {
            **tracer.variables,
            "DD_TRACE_AGENT_URL": server.url,
            "OTEL_EXPORTER_OTLP_ENDPOINT": server.url,
            "DD_SERVICE": "shop",
        }
        launcher = [str(tracer.python.with_name(tracer.launcher))] if tracer.launcher else []
        with subprocess.Popen(
            [*launcher, str(tracer.python), "program.py"],
            cwd=folder,
            env=clean_variables(**variables),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as process:
            code = _wait(process)
            ended = time.monotonic()
        mark = folder / "mark"
        return Outcome(server.received, ended - float(mark.read_text()) if mark.exists() else 0.0, code)


def _wait(process: subprocess.Popen[bytes]) -> int:
    try:
        return process.wait(_SECONDS)
    except subprocess.TimeoutExpired:
        return -99
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
