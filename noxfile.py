"""Every command that a person or CI runs: `nox -s tests`, `nox -s demo`, `nox -l` for the rest."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nox
from nox.project import load_toml

nox.needs_version = ">= 2024.4.15"
nox.options.sessions = ["lint", "types", "tests"]
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.error_on_missing_interpreters = True

PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14", "3.15")
LIBRARIES = load_toml("tests/libraries.toml")["library"]
SOURCES = ("src", "instrumentors", "exporters", "pyproject.toml", "README.md", "LICENSE")
RUNNER = ("pytest", "pytest-asyncio", "hypothesis", "tomli; python_version < '3.11'")
OLDEST_OPENTELEMETRY = ("opentelemetry-sdk==1.36.0", "opentelemetry-instrumentation==0.57b0")
RECEIVERS = ("ddapm-test-agent >= 1.69", "datadog-serverless-compat", "msgpack")


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


def _runs() -> list[object]:
    """List what `tests` runs: all with the newest libraries, each oldest library, the rest on every other Python."""
    runs = [nox.param(FOUND[MAIN], ("tests",), _newest(), id=f"python {MAIN}")]
    for name, library in LIBRARIES.items():
        if "oldest" in library:
            pins = [f"{name}=={library['oldest']}", *library.get("companions", ())]
            python = FOUND.get(library.get("python", MAIN))
            if python:
                runs.append(
                    nox.param(python, (f"tests/instrumentors/test_{name}.py",), pins, id=f"{name} {library['oldest']}")
                )
    everywhere = (
        "tests/core",
        "tests/conventions",
        "tests/contract",
        "tests/exporters",
        "tests/launcher",
        "tests/test_testing.py",
    )
    runs.append(nox.param(FOUND[MAIN], everywhere, [*_newest(), *OLDEST_OPENTELEMETRY], id="opentelemetry 1.36"))
    runs += [
        nox.param(python, everywhere, _newest(), id=f"python {version}")
        for version, python in FOUND.items()
        if version != MAIN
    ]
    return runs


def _newest() -> list[str]:
    return ["jinja2", *(f"{name}=={library['newest']}" for name, library in LIBRARIES.items() if "newest" in library)]


@nox.session
@nox.parametrize("python,paths,requirements", _runs())
def tests(session: nox.Session, paths: tuple[str, ...], requirements: list[str]) -> None:
    """Run the tests: newest libraries, oldest libraries, every Python found."""
    receivers = RECEIVERS if "tests/exporters" in paths or paths == ("tests",) else ()
    session.install(_wheel(session), *RUNNER, *receivers, *requirements)
    missing = [version for version in PYTHONS if version not in FOUND]
    if missing and paths == ("tests",):
        session.log("not on this machine, so not tested: Python %s", ", ".join(missing))
    session.run("python", "-m", "pytest", *(session.posargs or paths))


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
    session.install(_wheel(session), "mypy", "pytest", "types-requests", *_newest())
    session.run("mypy", "-p", "spanbridge")


@nox.session(python=FOUND[MAIN])
def demo(session: nox.Session) -> None:
    """Run the demo and end: `nox -s demo`."""
    session.install(f"{_wheel(session)}[demo]")
    session.run("spanbridge", "demo", *(session.posargs or ["--once"]))


@nox.session(python=FOUND[MAIN])
def bench(session: nox.Session) -> None:
    """Measure plain, contrib, ddtrace and spanbridge in turn in one run, and print the ratios."""
    session.run("python", "-m", "tests.benchmarks", *session.posargs)


@nox.session(python=FOUND[MAIN])
def contrib(session: nox.Session) -> None:
    """Run contrib's own tests against our classes."""
    session.run("python", "-m", "tests.contrib", *session.posargs)


@nox.session(python=FOUND[MAIN])
def parity(session: nox.Session) -> None:
    """Run one program under ddtrace and under spanbridge, and compare the operations that arrive."""
    session.run("python", "-m", "tests.parity", *session.posargs)


@nox.session(python=FOUND[MAIN])
def docs(session: nox.Session) -> None:
    """Write the README's generated table anew."""
    session.install(_wheel(session))
    session.run("python", "-m", "tests.readme", "--write")


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
        if session.venv_backend == "uv":
            session.run_install("uv", "build", "--quiet", "--wheel", "--out-dir", copy / "dist", copy, external=True)
        else:
            session.run_install("python", "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", copy / "dist", copy)
        _built.append(str(next((copy / "dist").glob("*.whl"), copy)))  # none with --no-install, which installs nothing
    return _built[0]
