"""Every command that a person or CI runs: `nox -s tests`, `nox -s demo`, `nox -l` for the rest."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import nox
from nox.project import load_toml
from packaging.specifiers import SpecifierSet

if TYPE_CHECKING:
    from collections.abc import Iterable

nox.needs_version = ">= 2024.4.15"
nox.options.sessions = ["lint", "types", "site", "tests"]
nox.options.default_venv_backend = "uv"
nox.options.error_on_missing_interpreters = True

PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14", "3.15")
VERSIONS = load_toml("tests/libraries.toml")
LIBRARIES = VERSIONS["library"]
SOURCES = ("src", "instrumentors", "exporters", "pyproject.toml", "README.md", "LICENSE")
RUNNER = (
    *("pytest", "pytest-asyncio", "pytest-rerunfailures", "hypothesis", "tomli; python_version < '3.11'"),
    *("structlog", "loguru"),  # as the documentation shows them
)
OLDEST_OPENTELEMETRY = ("opentelemetry-sdk==1.36.0", "opentelemetry-instrumentation==0.57b0")
CONTRACT = ("tests/contract",)
# The main Python runs all tests. The other long runs have the contract of one integration of each kind, and leave out
# what takes minutes and does not depend on the Python.
ELSEWHERE = {
    "CONTRACT_ENTRIES": "asyncio celery django flask grpc_client jinja2 psycopg redis requests sqlite3 starlette"
}
CHAOS = "tests/isolation"
QUICK = ("-m", "not slow")
WEB_SERVERS = ("gunicorn", "gevent", "pyuwsgi", "uvicorn")
RECEIVERS = (
    "ddapm-test-agent >= 1.69",
    "datadog-serverless-compat",
    "msgpack",
    "opentelemetry-exporter-otlp-proto-http",
)


def interpreters() -> dict[str, str]:
    """Map each Python version of ours that runs on this machine to its interpreter, from PATH or pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv", "versions")
    found = {}
    for version in PYTHONS:
        candidates = [sys.executable, shutil.which(f"python{version}")]
        candidates += sorted(map(str, pyenv.glob(f"{version}.*/bin/python{version}")), reverse=True)
        running = next((path for path in candidates if path and _version(path) == version), None)
        if running:
            found[version] = running
    return found


def _version(interpreter: str) -> str:
    """Ask an interpreter for its version; pyenv's shims stand on PATH and refuse to run."""
    program = "import ssl, sqlite3, sys; print('%d.%d' % sys.version_info[:2])"
    try:
        answer = subprocess.run([interpreter, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    except OSError:
        return ""
    return answer.stdout.strip()


FOUND = interpreters()
MAIN = "3.11" if "3.11" in FOUND else f"{sys.version_info[0]}.{sys.version_info[1]}"


class Run(NamedTuple):
    """One run of the tests: which of them, and in what environment.

    Args:
        paths: what pytest gets.
        requirements: what is installed beside the wheel.
        details: the row of libraries.toml that says how.
    """

    paths: tuple[str, ...]
    requirements: tuple[str, ...]
    details: dict[str, Any]


EVERYWHERE = (
    "tests/core",
    "tests/conventions",
    "tests/contract",
    "tests/exporters",
    "tests/launcher",
    "tests/recorder",
    "tests/test_testing.py",
    "tests/test_threads.py",
)


def _runs() -> list[object]:
    """List what `tests` runs: all with the newest libraries, each oldest library, the rest on every other Python."""
    runs = [
        _run(MAIN, ("tests", f"--ignore={CHAOS}"), _newest(MAIN), _shared_details(), f"python {MAIN}"),
        # In a process of its own: what breaks our lines breaks those that clean up, too.
        _run(MAIN, (CHAOS,), _newest(MAIN), _shared_details(), "chaos"),
    ]
    elsewhere = {**_shared_details(), "variables": ELSEWHERE}
    on_sdk = {**elsewhere, "variables": {**ELSEWHERE, "SPANBRIDGE_RECORDER": "sdk"}}
    runs.append(_run(MAIN, (*EVERYWHERE, *QUICK), _newest(MAIN), on_sdk, "the SDK's recorder"))
    for name, library in LIBRARIES.items():
        if "newest" not in library:
            continue
        entries = [entry for entry in library.get("entries", [name]) if entry == name or entry not in LIBRARIES]
        files = (f"tests/instrumentors/test_{entry}.py" for entry in entries)
        paths = tuple(file for file in files if Path(file).exists())
        distribution = library.get("distribution", name)
        if library.get("alone"):
            both = (*paths, *CONTRACT, "-k", " or ".join(entries))
            runs.append(
                _run(_python(library), both, _newest_of(name, _python(library)), library, f"{name} {library['newest']}")
            )
        oldest = {"id": f"{name} {library['oldest']}", "requirements": [f"{distribution}=={library['oldest']}"]}
        for row in ({**library, **oldest}, *({"python": _python(library), **row} for row in library.get("also", ()))):
            requirements = (*row["requirements"], *row.get("companions", ()))
            runs.append(_run(_python(row), paths, requirements, row, row["id"]))
    runs.append(_first_versions())
    oldest_opentelemetry = (*_newest(MAIN), *OLDEST_OPENTELEMETRY)
    runs.append(_run(MAIN, (*EVERYWHERE, *QUICK), oldest_opentelemetry, elsewhere, "opentelemetry 1.36"))
    runs += [
        _run(version, (*EVERYWHERE, *QUICK), _newest(version), elsewhere, f"python {version}")
        for version in FOUND
        if version != MAIN
    ]
    return [run for run in runs if run is not None]


def _first_versions() -> object:
    """Make the run of the versions that need what Python has dropped."""
    libraries = {name: library for name, library in LIBRARIES.items() if "first" in library}
    paths = tuple(f"tests/instrumentors/test_{name}.py" for name in libraries)
    firsts = (f"{library.get('distribution', name)}=={library['first']}" for name, library in libraries.items())
    debian = [package for library in libraries.values() for package in library.get("debian", ())]
    details = {**VERSIONS["first"], "debian": debian}
    return _run(_python(details), paths, (*firsts, *details["companions"]), details, "first versions")


def _run(
    version: str, paths: tuple[str, ...], requirements: Iterable[str], details: dict[str, Any], title: str
) -> object:
    """Make a parameter of `tests`; none where the machine lacks the interpreter."""
    python = FOUND.get(version)
    lane = "main" if "tests" in paths else "others"
    return python and nox.param(python, Run(paths, tuple(requirements), details), id=title, tags=[lane])


def _python(row: dict[str, Any]) -> str:
    return row.get("python", MAIN)


def _newest(version: str) -> list[str]:
    """Name the newest version of every library that runs on this Python, with what its tests need."""
    names = [name for name, library in LIBRARIES.items() if not library.get("alone") and _runs_on(library, version)]
    return list(
        dict.fromkeys(["jinja2", *(requirement for name in names for requirement in _newest_of(name, version))])
    )


def _newest_of(name: str, version: str) -> list[str]:
    library = LIBRARIES[name]
    if "newest" not in library:
        return []
    newest = library.get("newest_for", {}).get(version, library["newest"])
    return [f"{library.get('distribution', name)}=={newest}", *library.get("beside", ())]


def _runs_on(library: dict[str, Any], version: str) -> bool:
    return version in SpecifierSet(library.get("pythons", ""))


def _shared_details() -> dict[str, Any]:
    """What the environment of the newest libraries needs: all that they need."""
    shared = [library for library in LIBRARIES.values() if not library.get("alone")]
    return {"debian": [package for library in shared for package in library.get("debian", ())]}


@nox.session
@nox.parametrize("python,run", _runs())
def tests(session: nox.Session, run: Run) -> None:
    """Run the tests: newest libraries, oldest libraries, every Python found."""
    paths, requirements, details = run
    _debian(session, details.get("debian", ()))
    receivers = RECEIVERS if {"tests", "tests/exporters", CHAOS} & set(paths) else ()
    web_servers = WEB_SERVERS if {"tests", "tests/launcher"} & set(paths) else ()
    variables = details.get("variables", {})
    options = []
    if before := details.get("before"):
        session.run("python", "-m", before)
    if overrides := details.get("overrides"):
        file = Path(session.create_tmp(), "overrides.txt")
        file.write_text("\n".join(overrides))
        options += ["--overrides", str(file)]
    if build := details.get("build"):
        session.install(*build)
        options += ["--no-build-isolation"]
    session.install(*options, _wheel(session), *RUNNER, *receivers, *web_servers, *requirements, env=variables)
    if prepare := details.get("prepare"):
        session.run("python", "-m", prepare)
    missing = [version for version in PYTHONS if version not in FOUND]
    if missing and "tests" in paths:
        session.log("not on this machine, so not tested: Python %s", ", ".join(missing))
    # Two runs share the machine in CI: what fails twice in a row is wrong, what fails once was in a hurry.
    in_ci = ("--reruns", "1", "-rR", "--durations", "12") if os.environ.get("CI") else ()
    session.run("python", "-m", "pytest", *in_ci, *(session.posargs or paths), env=variables)


def _debian(session: nox.Session, packages: Iterable[str]) -> None:
    """Install Debian packages that are missing, where we may; else say so, and let the installation fail."""
    if not shutil.which("dpkg-query"):
        return
    asked = sorted(set(packages))
    missing = [
        name
        for name in asked
        if "ok installed"
        not in session.run(
            "dpkg-query", "-W", "-f", "${Status}", name, external=True, silent=True, success_codes=[0, 1]
        )
    ]
    if not missing:
        return
    if os.geteuid() != 0:
        session.warn("missing Debian packages: %s", " ".join(missing))
        return
    quiet = {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    # Two runs of this file may want something at once, and apt-get would not wait.
    apt = ("flock", str(Path(tempfile.gettempdir(), "spanbridge-apt.lock")), "apt-get", "-qq")
    session.run(*apt, "update", external=True, env=quiet, silent=True)
    session.run(*apt, "install", "-y", "--no-install-recommends", *missing, external=True, env=quiet, silent=True)


@nox.session(python=FOUND[MAIN])
def lint(session: nox.Session) -> None:
    """Check style, formatting and the layers."""
    session.install(_wheel(session), "ruff", "import-linter")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("lint-imports")


@nox.session(python=FOUND[MAIN])
def types(session: nox.Session) -> None:
    """Check the types of the wheel, as its users see them."""
    session.install(_wheel(session), "mypy", "basedpyright", "pytest", "types-requests", *_newest(MAIN))
    session.run("mypy", "-p", "spanbridge")
    example = str(Path("tests/typing/example.py").resolve())
    session.chdir(session.create_tmp())  # away from `src`, which pyright would look into
    session.run("mypy", "--strict", example)
    session.run("basedpyright", "--level", "error", example)  # pyright, without a download


@nox.session(python=FOUND[MAIN])
def demo(session: nox.Session) -> None:
    """Run the demo and end: `nox -s demo`."""
    session.install(f"{_wheel(session)}[demo]")
    session.run("spanbridge", "demo", *(session.posargs or ["--once"]))


@nox.session(python=FOUND[MAIN])
def bench(session: nox.Session) -> None:
    """Measure plain, contrib, ddtrace and spanbridge in turn in one run, and print the ratios."""
    session.install("pytest")  # of tests.servers
    session.run("python", "-m", "tests.benchmarks", *session.posargs)


@nox.session(python=FOUND[MAIN])
def endings(session: nox.Session) -> None:
    """Measure how programs end and receivers fail under ddtrace, OTLP and spanbridge: spans received, seconds."""
    session.install("msgspec")
    session.run("python", "-m", "tests.benchmarks.endings", *session.posargs)


@nox.session(python=FOUND[MAIN])
def soak(session: nox.Session) -> None:
    """Do a million operations under tracemalloc, Agent up and Agent down; 10,000 contexts at once; a million spans."""
    # The tests' servers report through pytest.
    session.install(_wheel(session), "opentelemetry-sdk", "pytest", *_newest_of("gevent", MAIN))
    session.run("python", "-m", "tests.soak.operations", *session.posargs)
    if not session.posargs:
        session.run("python", "-m", "tests.soak.contexts")
        session.run("python", "-m", "tests.soak.million_spans")


@nox.session(python=FOUND[MAIN])
def contrib(session: nox.Session) -> None:
    """Run contrib's own tests against our classes."""
    session.run("python", "-m", "tests.contrib", *session.posargs)


@nox.session(python=FOUND[MAIN])
def own_suites(session: nox.Session) -> None:
    """Run the libraries' own tests without us and under our launcher: what passes alone must pass with us."""
    session.install("pytest")  # what starts the servers of the tests reports through it
    session.run("python", "-m", "tests.own_suites", *session.posargs)


@nox.session(python=FOUND[MAIN])
def sdk_suite(session: nox.Session) -> None:
    """Run the SDK's own trace tests on our provider: `-- --sdk 1.36.0` for another version of it."""
    session.install("opentelemetry-sdk")
    session.run("python", "-m", "tests.sdk_suite", *session.posargs)


@nox.session(python=FOUND[MAIN])
def parity(session: nox.Session) -> None:
    """Run one program under ddtrace and under spanbridge, and compare the operations that arrive."""
    session.install("pytest")  # what starts the servers of the tests reports through it
    session.run("python", "-m", "tests.parity", *session.posargs)


@nox.session(python=FOUND[MAIN])
def docs(session: nox.Session) -> None:
    """Write the generated tables of README and documentation anew."""
    session.install(_wheel(session))
    session.run("python", "-m", "tests.readme", "--write")


@nox.session(python=FOUND[MAIN])
def site(session: nox.Session) -> None:
    """Build the documentation; a dead link or a missing page is an error. `nox -s site -- serve` shows it."""
    session.install(_wheel(session), "mkdocs-material")
    session.run("mkdocs", *(session.posargs or ["build", "--strict", "--quiet"]), env={"NO_MKDOCS_2_WARNING": "1"})


_built: list[str] = []


def _wheel(session: nox.Session) -> str:
    """Build the wheel that all sessions of this run install, from a copy: setuptools keeps what a tree once held."""
    if not _built:
        copy = Path(session.create_tmp(), "tree")
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        for source in SOURCES:
            if Path(source).is_dir():
                shutil.copytree(source, copy / source, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
            elif Path(source).exists():
                shutil.copy(source, copy)
        session.run_install("uv", "build", "--quiet", "--wheel", "--out-dir", copy / "dist", copy, external=True)
        _built.append(str(next((copy / "dist").glob("*.whl"), copy)))  # none with --no-install, which installs nothing
    return _built[0]
