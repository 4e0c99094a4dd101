"""The SDK's own trace tests on our provider: `python -m tests.sdk_suite [--cache DIR] [--sdk VERSION] [--baseline]`.

The tests come from the SDK's source distribution and are never part of this tree; `place/sitecustomize.py` puts our
TracerProvider in the SDK's place. `--baseline` leaves it out. Exit 1 when a test of public behaviour fails.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tarfile
import tempfile
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree as ET

from tests.environments import clean_variables, environment

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
    return _judge(_run(python, _suite(sdk, cache, python), arguments), arguments.sdk)


def _beta(stable: str) -> str:
    """Answer the version of OpenTelemetry's unstable packages that goes with a stable one: 1.45.2 -> 0.66b2."""
    _, minor, patch = stable.split(".")
    return f"0.{int(minor) + 21}b{patch}"


def _suite(requirement: str, cache: Path, python: Path) -> Path:
    """Return the unpacked source distribution of the SDK, fetched once."""
    name = requirement.replace("-", "_").replace("==", "-")
    if not (cache / name).exists():
        fetch = ["-m", "pip", "download", "-qq", "--no-deps", "--no-binary", ":all:", "--dest", cache, requirement]
        subprocess.run([str(python), *map(str, fetch)], check=True)
        with tarfile.open(cache / f"{name}.tar.gz") as archive:
            archive.extractall(cache, filter="data")
    return cache / name


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
        outcomes = {}
        for case in ET.parse(report).iter("testcase") if report.exists() else ():
            if case.find("skipped") is None:
                fault = next((case.find(kind) for kind in ("failure", "error") if case.find(kind) is not None), None)
                words = "" if fault is None else (fault.get("message") or fault.text or "failed")
                outcomes[f"{(case.get('classname') or '').rpartition('.')[2]}.{case.get('name')}"] = words
        return outcomes


def _judge(outcomes: dict[str, str], sdk: str) -> int:
    """Print the score, and say whether all tests of public behaviour pass."""
    exempt = {name: reason for name in outcomes for pattern, reason in EXEMPT if fnmatchcase(name, pattern)}
    public = {name: fault for name, fault in outcomes.items() if name not in exempt}
    failed = {name: fault for name, fault in public.items() if fault}
    print(f"opentelemetry-sdk {sdk}: {len(public) - len(failed)} of {len(public)} tests of public behaviour pass")
    for name, fault in failed.items():
        print(f"  FAILED {name}: {' '.join(fault.split())[:300]}")
    for name, reason in exempt.items():
        print(f"  exempt {name} ({'fails' if outcomes[name] else 'passes'}): {reason}")
    return 1 if failed or not public else 0


if __name__ == "__main__":
    sys.exit(main())
