"""What a user installs: a pure wheel that pulls in little, works from any layout, and says its types."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ALLOWED = {"opentelemetry-api", "opentelemetry-sdk", "opentelemetry-instrumentation", "msgspec", "wrapt"}


@pytest.fixture(scope="module")
def wheel():
    installed = distribution("spanbridge")
    origin = json.loads(installed.read_text("direct_url.json") or "{}")
    if origin.get("dir_info", {}).get("editable"):
        pytest.skip("an editable install; `nox -s tests` installs the wheel")
    return installed


def test_it_needs_only_what_the_design_names():
    requirements = [Requirement(text) for text in distribution("spanbridge").requires or ()]
    needed = {requirement.name for requirement in requirements if requirement.marker is None}
    assert needed <= ALLOWED
    assert all(not requirement.specifier.contains("0.0.1") for requirement in requirements if not requirement.marker)
    assert "<" not in str([str(requirement.specifier) for requirement in requirements]), "no upper caps"


def test_the_wheel_is_pure_python(wheel):
    text = wheel.read_text("WHEEL")
    assert "Root-Is-Purelib: true" in text
    assert "Tag: py3-none-any" in text
    assert {Path(str(file)).suffix for file in wheel.files} <= {".py", ".pyc", ".typed", ".txt", "", ".json"}


def test_licence_and_types_are_in_it(wheel):
    names = {Path(str(file)).name for file in wheel.files}
    assert {"LICENSE", "py.typed"} <= names
    assert wheel.metadata["License-Expression"] == "Apache-2.0"


def test_it_publishes_no_list_of_libraries():
    """With such an extra, the launcher would load nothing as soon as one library is missing."""
    assert not {"instruments", "instruments-any"} & set(distribution("spanbridge").metadata.get_all("Provides-Extra"))


def test_it_works_from_a_target_directory(wheel, tmp_path):
    """As after `pip install --target`: away from the interpreter's own packages, found by PYTHONPATH alone."""
    for file in wheel.files:
        source = Path(wheel.locate_file(file))
        if source.is_file() and ".." not in file.parts:
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, tmp_path / file)
    program = """
import spanbridge.auto, spanbridge, sqlite3
print(spanbridge.__file__)
sqlite3.connect(":memory:").execute("SELECT 1")
print({row.name: str(row.state) for row in spanbridge.status()}["sqlite3"])
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(tmp_path), "OTEL_TRACES_EXPORTER": "none"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.split() == [str(tmp_path / "spanbridge" / "__init__.py"), "active"], done.stderr
