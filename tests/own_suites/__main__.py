"""The libraries' own tests, without us and under our launcher: `python -m tests.own_suites [option ...] [name ...]`.

The suites come from the libraries' source distributions and are never part of this tree. What passes alone must pass
instrumented: exit 1 when a test does not (beyond those that suites.toml declares), when no trace arrived, or when we
warned.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
from collections import Counter
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from tests.environments import clean_variables, environment, source_distribution
from tests.junit import outcomes, unittest_outcomes
from tests.own_suites.suites import SUITES, Suite

if TYPE_CHECKING:
    from collections.abc import Iterator

_OURS = ("pytest", "opentelemetry-sdk", "opentelemetry-instrumentation", "msgspec")
_WATCH = Path(__file__).parent.resolve() / "watch"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.own_suites", description="libraries' tests, instrumented")
    parser.add_argument("--cache", type=Path, default=Path(".nox", "own_suites"), help="where environments live")
    parser.add_argument("--output", action="store_true", help="show the suites' own output")
    parser.add_argument("-k", default="", dest="expression", help="pytest's -k, for a closer look")
    parser.add_argument("names", nargs="*", default=list(SUITES), help=f"of {', '.join(SUITES)}")
    arguments = parser.parse_args()
    return max([_judge(name, SUITES[name], arguments) for name in arguments.names], default=0)


def _judge(name: str, suite: Suite, arguments: argparse.Namespace) -> int:
    """Run one suite alone and instrumented; print what differs, and say whether something did."""
    print(f"--- {name}", flush=True)
    needs = (*_OURS, *filter(None, (suite.requirement, *suite.needs)))
    python = environment(arguments.cache / name, *needs, with_spanbridge=True)
    with _receiver() as (port, traces), tempfile.TemporaryDirectory() as scratch:
        is_installed = "--pyargs" in suite.command
        home = Path(scratch) if is_installed else source_distribution(suite.requirement, arguments.cache, python)
        warnings = Path(scratch, "warnings.log")
        watch = {"PYTHONPATH": str(_WATCH), "PYTEST_PLUGINS": "watch", "OWN_SUITES_WARNINGS": str(warnings)}
        alone = _run(suite, [str(python)], home, arguments, {})
        steer = {"DD_TRACE_AGENT_URL": f"http://127.0.0.1:{port}", "DD_SERVICE": name, **watch}
        launched = [str(python.parent / "opentelemetry-instrument"), str(python)]
        instrumented = _run(suite, launched, home, arguments, steer)
        traces["sent"] -= 1  # the watch's own
        warned = warnings.read_text().splitlines() if warnings.exists() else []
    passing = [test for test, fault in alone.items() if fault is None]
    broken = {test: instrumented.get(test, "was not run") for test in passing if instrumented.get(test, "") is not None}
    mended = [test for test, fault in alone.items() if fault is not None and instrumented.get(test, "") is None]
    declared = {test: reason for test in broken for pattern, reason in suite.declared if fnmatchcase(test, pattern)}
    print(
        f"{suite.requirement or name}: {len(passing)} of {len(alone)} tests pass alone,"
        f" {len(broken)} of them not with us ({len(declared)} declared); {len(mended)} pass only with us;"
        f" {traces['sent']} traces; {len(warned)} warnings"
    )
    for test, fault in broken.items():
        if test not in declared:
            print(f"  BROKEN {test}: {' '.join((fault or '').split())[:300]}")
    for line, times in Counter(warned).most_common(20):
        print(f"  WARNED {times} times: {line[:300]}")
    silent = suite.spans and traces["sent"] <= 0
    return 1 if broken.keys() - declared.keys() or warned or not passing or silent else 0


def _run(
    suite: Suite, interpreter: list[str], home: Path, arguments: argparse.Namespace, variables: dict[str, str]
) -> dict[str, str | None]:
    """Run the suite in a process of its own, with servers of its own; answer each test's fault, None if it passed."""
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ports = {}
        for name, settings in suite.servers.items():
            (scratch / name).mkdir()
            run = getattr(import_module(f"tests.servers.{name}"), name)
            server = stack.enter_context(run(scratch / name, *settings))
            ports[f"{name}_port"] = str(server.port)
        fill = {"report": str(scratch / "report.xml"), "scratch": str(scratch), **ports}
        own = {key: value.format_map(fill) for key, value in suite.variables.items()}
        options = [option.format_map(fill) for option in suite.command]
        if suite.prepare:
            subprocess.run([interpreter[-1], "-c", suite.prepare.format_map(fill)], check=True)
        more = ["-k", arguments.expression] if arguments.expression else []
        root = "/" if "--pyargs" in suite.command else "."
        cache = f"cache_dir={scratch / 'cache'}"
        fixed = ["-c", suite.config, "--rootdir", root, "-o", cache, f"--junitxml={fill['report']}", "-q"]
        runner = [suite.runner, "-v", "2"] if suite.runner else ["-m", "pytest", *fixed]
        done = subprocess.run(
            [*interpreter, *runner, *options, *more],
            cwd=home,
            env=clean_variables(**variables, **own),
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=3000,
        )
        if suite.runner:
            if arguments.output:
                print(done.stdout[-20000:], done.stderr[-200000:])
            return {outcome.path: outcome.fault for outcome in unittest_outcomes(done.stderr)}
        report = scratch / "report.xml"
        if arguments.output or not report.exists():
            print(done.stdout[-20000:], done.stderr[-5000:])
        return {outcome.path: outcome.fault for outcome in outcomes(report)} if report.exists() else {}


@contextlib.contextmanager
def _receiver() -> Iterator[tuple[int, Counter[str]]]:
    """Serve as an Agent that only counts the traces it is sent."""
    traces: Counter[str] = Counter()

    class Agent(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            traces["sent"] += int(self.headers.get("X-Datadog-Trace-Count", 0))
            body = b'{"rate_by_service":{}}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_PUT

        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Agent)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port, traces
    finally:
        server.shutdown()
        server.server_close()


if __name__ == "__main__":
    sys.exit(main())
