"""Virtual environments that the long harnesses (contrib, parity, benchmarks) build and keep in a cache."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

TREE = Path(__file__).resolve().parent.parent
_SOURCES = ("src", "instrumentors", "exporters", "pyproject.toml", "LICENSE", "README.md")


def environment(
    directory: Path,
    *requirements: str,
    alone: tuple[str, ...] = (),
    prepare: str = "",
    with_spanbridge: bool = False,
) -> Path:
    """Return the interpreter of an environment that holds `requirements`, built anew only when they changed.

    Args:
        directory: where the environment lives.
        requirements: PEP 508 requirements, installed together.
        alone: further ones, installed without what they ask for, which another of them does not let in.
        prepare: a module of the tests to run in it, once all is installed.
        with_spanbridge: also install this tree as it is now, as a user gets it (a wheel, not an editable install).
    """
    directory = directory.resolve()
    python = directory / "bin" / "python"
    built_from = directory / "requirements.txt"
    wanted = "\n".join((sys.version, *requirements, *alone, prepare))
    with _one_at_a_time(directory):
        if not python.exists() or not built_from.exists() or built_from.read_text() != wanted:
            shutil.rmtree(directory, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", directory], check=True)
            _install(python, *requirements)
            if alone:
                _install(python, "--no-deps", *alone)
            if prepare:
                subprocess.run([python, "-m", prepare], cwd=TREE, check=True)
            built_from.write_text(wanted)
    if with_spanbridge:
        with tempfile.TemporaryDirectory() as copy:
            for source in _SOURCES:
                origin = TREE / source
                if origin.is_dir():
                    shutil.copytree(
                        origin, Path(copy, source), ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
                    )
                elif origin.exists():
                    shutil.copy(origin, copy)
            _install(python, "--force-reinstall", "--no-deps", copy)
    return python


def source_distribution(requirement: str, cache: Path, python: Path) -> Path:
    """Return the unpacked source distribution of `name==version`, fetched once."""
    name = requirement.replace("-", "_").replace("==", "-").lower()
    if not (cache / name).exists():
        # Only this one, not what builds it: pip asks it for its metadata, and would compile its build tools.
        source = ["--no-deps", "--no-binary", requirement.partition("==")[0]]
        fetch = ["-m", "pip", "download", "-qq", *source, "--dest", cache, requirement]
        subprocess.run([str(python), *map(str, fetch)], check=True)
        with tarfile.open(cache / f"{name}.tar.gz") as archive:
            archive.extractall(cache, filter="data")
    return cache / name


@contextmanager
def _one_at_a_time(directory: Path) -> Iterator[None]:
    """Hold other runs of the tests off an environment that is being built."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with directory.with_name(f"{directory.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def clean_variables(**variables: str) -> dict[str, str]:
    """Return this process's variables without any that steer tracing, plus `variables`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "DD_", "SPANBRIDGE_"))}
    return {**kept, **variables}


def _install(python: Path, *arguments: str) -> None:
    """Install with uv where it is on PATH (ten times faster), else with pip."""
    pip = (
        ["uv", "pip", "install", "--python", str(python)]
        if shutil.which("uv")
        else [str(python), "-m", "pip", "install"]
    )
    subprocess.run([*pip, "--quiet", *arguments], check=True)
