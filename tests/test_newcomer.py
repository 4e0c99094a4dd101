"""An integration in ten minutes: what `tests.newcomer` writes passes the contract suite and its own test as it is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

from tests import newcomer

TREE = Path(__file__).resolve().parent.parent
LIBRARY = """
class Toy:
    def play(self, game=lambda: "won"):
        return game()
"""


def test_what_it_writes_passes(tmp_path):
    tree = tmp_path / "tree"
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for root in ("src", "instrumentors", "exporters", "tests"):
        shutil.copytree(TREE / root, tree / root, ignore=ignore)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(TREE / name, tree)
    written = newcomer.write(tree, "toy", "toylib", "Toy.play")
    assert all(path.exists() for path in written)
    site = installed(tree, tmp_path / "site")
    (site / "toylib.py").write_text(LIBRARY)
    tests = ["tests/contract/test_contract.py", "tests/instrumentors/test_toy.py"]
    # Named by its node: `-k toy` would also find what is about other toys.
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *tests, "-k", "toy and not toys", "-p", "no:randomly"],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " skipped" not in done.stdout.splitlines()[-1]
    assert int(done.stdout.splitlines()[-1].split()[0]) > 10


def installed(tree, site):
    """Lay out the three roots and their metadata as an installed wheel, with the entry points of `tree`."""
    package = site / "spanbridge"
    shutil.copytree(tree / "src" / "spanbridge", package)
    shutil.copytree(tree / "instrumentors", package / "instrumentors")
    shutil.copytree(tree / "exporters", package / "exporters")
    metadata = site / "spanbridge-0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: spanbridge\nVersion: 0\n")
    entries = distribution("spanbridge").read_text("entry_points.txt")
    head = "[opentelemetry_instrumentor]\n"
    toy = f"{head}toy = spanbridge.instrumentors.toy:ToyInstrumentor\n"
    (metadata / "entry_points.txt").write_text(entries.replace(head, toy))
    return site
