"""The SDK's own trace tests on our provider: `python -m tests.sdk_suite [--cache DIR] [--sdk VERSION] [--baseline]`.

The tests come from the SDK's source distribution and are never part of this tree; `place/sitecustomize.py` puts our
TracerProvider in the SDK's place. `--baseline` leaves it out. Exit 1 when a test of public behaviour fails.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path

from tests.environments import clean_variables, environment, source_distribution
from tests.junit import outcomes

_PLACE = Path(__file__).parent.resolve() / "place"
_SUITES = ("tests/trace", "tests/context", "tests/shared_internal")

# Tests that say nothing about public behaviour: (what `TestClass.test_name` is like, the reason).
EXEMPT: tuple[tuple[str, str], ...] = ()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sdk_suite", description="the SDK's tests on our provider")
    parser.add_argument(
        "--cache", type=Path, default=Path(".nox", "sdk_suite"), help="where environment and tests live"
    )
    parser.add_argument(
        "--sdk", default=version("opentelemetry-sdk"), help="the SDK's version; the installed one if not given"
    )
    parser.add_argument("--baseline", action="store_true", help="run the tests on the SDK's own provider")
    parser.add_argument("--output", action="store_true", help="show pytest's own output")
    arguments = parser.parse_args()
    cache = arguments.cache.resolve()
    sdk = f"opentelemetry-sdk=={arguments.sdk}"
    utilities = f"opentelemetry-test-utils=={_beta(arguments.sdk)}"
    runner = ("pytest", "pytest-asyncio", "psutil", "flaky", "msgspec")
    python = environment(cache / arguments.sdk, sdk, utilities, *runner, with_spanbridge=True)
    return _judge(_run(python, source_distribution(sdk, cache, python), arguments), arguments.sdk)


def _beta(stable: str) -> str:
    """Answer the version of OpenTelemetry's unstable packages that goes with a stable one: 1.45.2 -> 0.66b2."""
    _, minor, patch = stable.split(".")
    return f"0.{int(minor) + 21}b{patch}"


def _run(python: Path, suite: Path, arguments: argparse.Namespace) -> dict[str, str]:
    """Run the tests in a process of their own; answer the last words of each one's fault, none for those that pass."""
    path = f"{python.parent}:{clean_variables()['PATH']}"  # the tests start `python`
    variables = clean_variables(PATH=path, **({} if arguments.baseline else {"PYTHONPATH": str(_PLACE)}))
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch, "report.xml")
        suites = [each for each in _SUITES if (suite / each).exists()]
        options = ["-c", "/dev/null", "--rootdir", ".", f"--junitxml={report}", "-q", "-p", "no:cacheprovider"]
        command = [str(python), "-m", "pytest", *suites, *options]
        done = subprocess.run(command, cwd=suite, env=variables, capture_output=True, text=True, check=False)
        if arguments.output or not report.exists():
            print(done.stdout[-20000:], done.stderr[-5000:])
        return {outcome.name: outcome.fault or "" for outcome in outcomes(report)} if report.exists() else {}


def _judge(results: dict[str, str], sdk: str) -> int:
    """Print the score, and say whether all tests of public behaviour pass."""
    exempt = {name: reason for name in results for pattern, reason in EXEMPT if fnmatchcase(name, pattern)}
    public = {name: fault for name, fault in results.items() if name not in exempt}
    failed = {name: fault for name, fault in public.items() if fault}
    print(f"opentelemetry-sdk {sdk}: {len(public) - len(failed)} of {len(public)} tests of public behaviour pass")
    for name, fault in failed.items():
        print(f"  FAILED {name}: {' '.join(fault.split())[:300]}")
    for name, reason in exempt.items():
        print(f"  exempt {name} ({'fails' if results[name] else 'passes'}): {reason}")
    return 1 if failed or not public else 0


if __name__ == "__main__":
    sys.exit(main())
