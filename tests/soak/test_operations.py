"""The soak in short: what leaks 32 bytes per operation is seen; `nox -s soak` sees a third of one."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("agent", ["up", "down"])
def test_memory_is_flat(agent: str) -> None:
    command = [sys.executable, "-m", "tests.soak.operations", "--operations", "10000", "--agent", agent]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
