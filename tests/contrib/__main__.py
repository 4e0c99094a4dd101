"""Contrib's own test suites against our classes: `python -m tests.contrib [option ...] [library ...]`.

The suites come from contrib's source distributions and are never part of this tree. `--baseline` runs them against
contrib itself, which tells what the environment costs, `--opt-in http` with other names than the old ones. Exit 1 when
a library passes under 95 % of the public tests.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from tests.contrib.scope import EXEMPT, LAST_RELEASES, PRIVATE_NAMES, RELEASE, TARGETS
from tests.environments import clean_variables, environment, source_distribution
from tests.junit import outcomes

if TYPE_CHECKING:
    from tests.junit import Outcome

LIBRARIES = tuple(PRIVATE_NAMES)
THRESHOLD = 0.95
_PREFIX = "opentelemetry-instrumentation-"
_COMMON = ("pytest", f"opentelemetry-test-utils=={RELEASE}", f"opentelemetry-util-http=={RELEASE}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.contrib", description="contrib's suites against our classes")
    parser.add_argument(
        "--cache", type=Path, default=Path(".nox", "contrib"), help="where environments and suites live"
    )
    parser.add_argument("--baseline", action="store_true", help="run the suites against contrib itself")
    parser.add_argument("--opt-in", default="", help="OTEL_SEMCONV_STABILITY_OPT_IN, where a suite does not set it")
    parser.add_argument("--output", action="store_true", help="show pytest's own output")
    parser.add_argument("libraries", nargs="*", default=list(LIBRARIES), help=f"of {', '.join(LIBRARIES)}")
    arguments = parser.parse_args()
    enough = True
    for library in arguments.libraries:
        python = _python(library, arguments.cache, baseline=arguments.baseline)
        suite = source_distribution(f"{_PREFIX}{library}=={_release(library)}", arguments.cache, python)
        results = _run(python, suite, show=arguments.output, aliased=not arguments.baseline, opt_in=arguments.opt_in)
        enough &= _judge(library, results)
    return 0 if enough else 1


def _python(library: str, cache: Path, *, baseline: bool) -> Path:
    """Return the interpreter of an environment with `library`, its suite's needs, and contrib's class or ours."""
    needs = (*_COMMON, *TARGETS.get(library, (library,)))
    if baseline:
        return environment(cache / f"baseline-{library}", *needs, f"{_PREFIX}{library}=={_release(library)}")
    ours = ("opentelemetry-sdk", "opentelemetry-instrumentation", "msgspec")
    return environment(cache / f"ours-{library}", *needs, *ours, with_spanbridge=True)


def _release(library: str) -> str:
    return LAST_RELEASES.get(library, RELEASE)


def _run(python: Path, suite: Path, *, show: bool, aliased: bool, opt_in: str) -> list[Outcome]:
    """Run one suite in its own process and return what each test did."""
    variables = clean_variables(OTEL_SEMCONV_STABILITY_OPT_IN=opt_in)
    plugin = []
    if aliased:
        variables |= {"SPANBRIDGE_SEMCONV": "contrib", "PYTHONPATH": str(Path(__file__).parent.resolve())}
        plugin = ["-p", "alias"]
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch, "report.xml")
        command = [
            str(python),
            "-m",
            "pytest",
            "tests",
            "-c",
            "/dev/null",
            "--rootdir",
            ".",
            f"--junitxml={report}",
            "-q",
        ]
        options = ["-p", "no:cacheprovider", "--tb=native", *plugin]
        done = subprocess.run(
            [*command, *options], cwd=suite, env=variables, capture_output=True, text=True, check=False
        )
        if show or not report.exists():
            print(done.stdout[-20000:], done.stderr[-5000:])
        return list(outcomes(report)) if report.exists() else []


def _judge(library: str, results: list[Outcome]) -> bool:
    """Print the score of one library and say whether it reaches the threshold."""
    public: list[Outcome] = []
    exempt: list[Outcome] = []
    for outcome in results:
        reasons = (
            rule.reason for rule in EXEMPT if rule.library == library and fnmatchcase(outcome.name, rule.pattern)
        )
        reason = next(reasons, None)
        (public if reason is None else exempt).append(outcome)
    passed = sum(outcome.fault is None for outcome in public)
    share = passed / len(public) if public else 0.0
    beyond = sum(outcome.fault is None for outcome in exempt)
    print(
        f"{library:9} {passed} of {len(public)} public-behaviour tests pass ({share:.1%});"
        f" {beyond} of {len(exempt)} exempt ones pass too"
    )
    for outcome in public:
        if outcome.fault is not None:
            print(f"          FAILED {outcome.name}: {outcome.fault[:300]}")
    return share >= THRESHOLD


if __name__ == "__main__":
    sys.exit(main())
