"""Plain, by hand, contrib, ddtrace and spanbridge measured in turn in one run, against the budgets of DESIGN section 8.

`python -m tests.benchmarks [--cache DIR] [--rounds N] [--check] [operation ...]`; exit 1 on a missed budget only with
`--check`. A budget that the same tracing by hand misses as well is one that no instrumentor can keep; the line says so.
What is not about single operations is measured only when all of them are.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from tests.environments import clean_variables, environment
from tests.servers.postgres import postgres

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_WORKER = Path(__file__).parent.resolve() / "worker.py"
_ELSEWHERE = _WORKER.parent  # in the tree itself, its metadata would be found as an installed distribution
_SERVERS = ("flask", "django", "falcon", "starlette", "aiohttp_server", "tornado")
_LIBRARIES = (
    *(name.removesuffix("_server") for name in _SERVERS),
    *("requests", "redis", "celery", "grpcio", "jinja2", "botocore"),
    *("pymemcache", "psycopg2-binary", "psycopg[binary]", "sqlalchemy<2.1"),  # contrib knows no SQLAlchemy 2.1
)
_SDK = ("opentelemetry-sdk", "opentelemetry-instrumentation", "opentelemetry-exporter-otlp-proto-common")
_DATABASES = ("sqlite3", "redis", "pymemcache", "psycopg2", "psycopg", "sqlalchemy")
_OPERATIONS = (*_SERVERS, "requests", *_DATABASES, "celery", "grpc", "jinja2", "botocore", "futures")
_CONTRIB = tuple(f"opentelemetry-instrumentation-{name}".replace("_", "-") for name in (*_OPERATIONS[:-1], "threading"))
# Which environment a variant runs in. Two run where spanbridge is installed, with nothing of it switched on.
_VARIANTS = {
    "plain": "spanbridge",
    "by_hand": "spanbridge",
    "by_hand_on_recorder": "spanbridge",
    "contrib": "contrib",
    "contrib_idle": "contrib",
    "ddtrace": "ddtrace",
    "spanbridge_on_sdk": "spanbridge",
    "spanbridge_on_recorder": "spanbridge",
    "spanbridge_datadog": "spanbridge",
    "spanbridge_idle": "spanbridge",
}
_NOT_IMPORTED = ("ssl", "urllib3", "requests", "asyncio")
_STARTED = f"import sys; print(*[name for name in {_NOT_IMPORTED} if name in sys.modules])"
_NO_EXPORT = {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}

Figures = dict[str, dict[str, float]]


class Budget(NamedTuple):
    """One row of DESIGN section 8: a figure of this run, the most it may be, and what the same takes by hand."""

    what: str
    figure: float
    limit: float
    unit: str = "us"
    by_hand: float = 0.0

    @property
    def held(self) -> bool:
        """Whether the figure is at or below its limit."""
        return self.figure <= self.limit

    @property
    def within_reach(self) -> bool:
        """Whether the same tracing by hand keeps to the limit."""
        return self.by_hand <= self.limit

    def __str__(self) -> str:
        verdict = "PASS" if self.held else "MISS"
        beyond = "" if self.held or self.within_reach else f" (by hand {self.by_hand:.1f})"
        return f"{verdict}  {self.what}: {self.figure:.1f} {self.unit}, at most {self.limit:.1f}{beyond}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="four tracers in turn, one table")
    parser.add_argument("--cache", type=Path, default=Path(".nox", "bench"), help="where the environments live")
    parser.add_argument("--rounds", type=int, default=5, help="how often each variant is measured (the median counts)")
    parser.add_argument("--check", action="store_true", help="exit 1 when a budget is missed")
    parser.add_argument("operations", nargs="*", default=_OPERATIONS, help=f"of {', '.join(_OPERATIONS)}")
    parser.add_argument("--only", default=",".join(_VARIANTS), help="variants, comma separated (no budgets then)")
    arguments = parser.parse_args()
    variants = arguments.only.split(",")
    pythons = {
        "contrib": environment(arguments.cache / "contrib", *_SDK, *_CONTRIB, *_LIBRARIES),
        "ddtrace": environment(arguments.cache / "ddtrace", "ddtrace==4.16.0", *_LIBRARIES),
        # With the same libraries: the launcher reads the metadata of everything that is installed.
        "bare": environment(
            arguments.cache / "bare", "opentelemetry-sdk", "opentelemetry-instrumentation", *_LIBRARIES
        ),
        "spanbridge": environment(arguments.cache / "spanbridge", *_SDK, "msgspec", *_LIBRARIES, with_spanbridge=True),
    }
    with _Receiver() as receiver, tempfile.TemporaryDirectory() as logs, postgres(Path(logs)) as server:
        os.environ["POSTGRES"] = f"host={server.host} port={server.port} user=postgres dbname=postgres"
        figures = _rounds(pythons, variants, arguments.operations, arguments.rounds, receiver)
        every = set(arguments.operations) == set(_OPERATIONS)
        started, imported = _start_up(pythons, receiver) if every else ({}, [])
    _print_operations(figures, arguments.operations)
    if every:
        _print_others(figures, started, imported)
    if set(variants) != set(_VARIANTS):
        return 0
    budgets = list(_operation_budgets(figures, arguments.operations))
    if every:
        budgets += _other_budgets(figures, started, imported)
    print("\nbudgets (DESIGN section 8)")
    for budget in budgets:
        print(f"  {budget}")
    return 1 if arguments.check and any(budget.within_reach and not budget.held for budget in budgets) else 0


def _rounds(
    pythons: dict[str, Path], variants: list[str], operations: Sequence[str], rounds: int, receiver: str
) -> Figures:
    """Run every variant once a round, and return the median of the rounds for each figure."""
    collected: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    versions: dict[str, dict[str, str]] = {}
    for number in range(rounds):
        for variant in variants:
            if sys.stderr.isatty():
                print(f"\rround {number + 1} of {rounds}: {variant:20}", end="", file=sys.stderr, flush=True)
            command = [str(pythons[_VARIANTS[variant]]), str(_WORKER), variant, *operations]
            done = subprocess.run(
                command, env=_variables(receiver), cwd=_ELSEWHERE, capture_output=True, text=True, check=False
            )
            if done.returncode:
                sys.exit(f"\n{variant} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
            result = json.loads(done.stdout.splitlines()[-1])
            versions[variant] = result["versions"]
            for name, figure in result["figures"].items():
                collected[variant][name].append(figure)
    if sys.stderr.isatty():
        print(f"\r{'':40}\r", end="", file=sys.stderr)
    if len({json.dumps(one, sort_keys=True) for one in versions.values()}) > 1:
        print(f"note: the environments hold different versions: {versions}")
    return {variant: {name: median(each) for name, each in named.items()} for variant, named in collected.items()}


def _start_up(pythons: dict[str, Path], receiver: str) -> tuple[dict[str, float], list[str]]:
    """Return milliseconds until the program's first line, and what of the forbidden modules spanbridge imported."""
    off = {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "*", **_NO_EXPORT}
    launchers = {
        "python": (pythons["bare"], (), {}),
        "bare launcher": (pythons["bare"], ("opentelemetry-instrument",), off),
        "contrib": (pythons["contrib"], ("opentelemetry-instrument",), _NO_EXPORT),
        "ddtrace": (pythons["ddtrace"], ("ddtrace-run",), {}),
        "spanbridge": (pythons["spanbridge"], ("opentelemetry-instrument",), {}),
    }
    spent: dict[str, list[float]] = defaultdict(list)
    modules: dict[str, list[str]] = {}
    for _ in range(8):
        for name, (python, wrapper, settings) in launchers.items():
            command = [*(str(python.parent / program) for program in wrapper), str(python), "-c", _STARTED]
            start = time.perf_counter()
            variables = {**_variables(receiver), **settings}
            done = subprocess.run(command, env=variables, cwd=_ELSEWHERE, capture_output=True, text=True, check=True)
            spent[name].append((time.perf_counter() - start) * 1000)
            modules[name] = done.stdout.split()
    imported = [module for module in modules["spanbridge"] if module not in modules["bare launcher"]]
    return {name: min(each) for name, each in spent.items()}, imported


def _variables(receiver: str) -> dict[str, str]:
    return clean_variables(
        DD_SERVICE="bench",
        DD_TRACE_AGENT_URL=receiver,
        DD_INSTRUMENTATION_TELEMETRY_ENABLED="false",
        DD_REMOTE_CONFIGURATION_ENABLED="false",
        DD_TRACE_TORNADO_ENABLED="true",
        DJANGO_SETTINGS_MODULE="django_shop",
        PYTHONDONTWRITEBYTECODE="",
    )


def _added(figures: Figures, variant: str, operation: str) -> float:
    return figures[variant][operation] - figures["plain"][operation]


def _print_operations(figures: Figures, operations: Sequence[str]) -> None:
    if "plain" not in figures:
        return
    plain = figures["plain"]
    print("microseconds that a tracer adds to an operation (lower quartile of the batches, median of the rounds)\n")
    _print_row("", operations)
    _print_row("plain, total", [plain[name] for name in operations])
    for variant, named in figures.items():
        if variant != "plain":
            _print_row(variant, [named[name] - plain[name] for name in operations])
            _print_row(
                "  mean, with its threads", [named[f"{name}, mean"] - plain[f"{name}, mean"] for name in operations]
            )
        if f"suppressed {operations[0]}" in named:
            _print_row("  suppressed", [named[f"suppressed {name}"] - plain[name] for name in operations])
            _print_row("  its spans in an empty loop", [named.get(f"alone {name}", 0.0) for name in operations])


def _print_row(title: str, cells: Sequence[float | str]) -> None:
    print(f"{title:26}" + "".join(f"{cell:>15}" if isinstance(cell, str) else f"{cell:15.1f}" for cell in cells))


def _print_others(figures: Figures, started: dict[str, float], imported: list[str]) -> None:
    print()
    for named in figures.values():
        for name, figure in named.items():
            if name.startswith(("encoding", "nine attributes")):
                print(f"{name:38}{figure:8.1f} us per span")
            elif name.startswith("live span"):
                print(f"{name:38}{figure:8.0f} bytes")
    print()
    for name, milliseconds in started.items():
        print(f"{'start-up, ' + name:38}{milliseconds:8.0f} ms")
    print(
        f"of {', '.join(_NOT_IMPORTED)} spanbridge imports (and the bare launcher not): {', '.join(imported) or 'none'}"
    )


def _operation_budgets(figures: Figures, operations: Sequence[str]) -> Iterator[Budget]:
    ours = figures["spanbridge_on_recorder"]
    for operation in operations:
        added = _added(figures, "spanbridge_on_sdk", operation)
        hand = _added(figures, "by_hand", operation)
        peer = min(_added(figures, "contrib", operation), _added(figures, "ddtrace", operation))
        parts = 3 if operation in _SERVERS else 2
        yield Budget(f"{operation}: added, 1.3 x the same tracing by hand", added, 1.3 * hand)
        yield Budget(f"{operation}: added, 1/{parts} of the cheaper peer", added, peer / parts, by_hand=hand)
        added = _added(figures, "spanbridge_on_recorder", operation)
        hand = _added(figures, "by_hand_on_recorder", operation)
        yield Budget(f"{operation}: added on our recorder, 1/4 of the cheaper peer", added, peer / 4, by_hand=hand)
    for operation in operations:
        yield Budget(f"{operation}: added without a provider", _added(figures, "spanbridge_idle", operation), 2.0)
        yield Budget(
            f"{operation}: added when suppressed", ours[f"suppressed {operation}"] - figures["plain"][operation], 2.0
        )


def _other_budgets(figures: Figures, started: dict[str, float], imported: list[str]) -> Iterator[Budget]:
    ours = figures["spanbridge_on_recorder"]
    span = ours["nine attributes, spanbridge"]
    yield Budget("a span with nine attributes made current, 1/4 of the SDK's", span, ours["nine attributes, sdk"] / 4)
    live = ours["live span, spanbridge"]
    yield Budget("memory of a live span, half of the SDK's", live, ours["live span, sdk"] / 2, "bytes")
    encoding = ours["encoding as datadog, spanbridge"]
    yield Budget("mapping + encoding a span, 1/8 of OTLP/protobuf", encoding, ours["encoding as otlp, sdk"] / 8)
    yield Budget(
        "mapping + encoding, ddtrace for the same operations",
        encoding,
        figures["ddtrace"]["encoding ddtrace, per operation"],
    )
    added = started["spanbridge"] - started["bare launcher"]
    yield Budget("start-up added to the bare launcher", added, 150.0, "ms")
    yield Budget(f"modules of {', '.join(_NOT_IMPORTED)} imported at start", len(imported), 0, "modules")


class _Receiver:
    """A Datadog receiver that answers at once and keeps nothing, so that writers do what they do in production."""

    class _Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            while length > 0:
                length -= len(self.rfile.read(min(length, 1 << 16)) or b" " * length)
            self._answer(b'{"rate_by_service":{}}')

        do_PUT = do_POST

        def do_GET(self) -> None:
            self._answer(b'{"endpoints":["/v0.4/traces","/v0.5/traces"],"version":"7.60.0"}')

        def _answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    def __enter__(self) -> str:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()


if __name__ == "__main__":
    sys.exit(main())
