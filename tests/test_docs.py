"""What the README and libraries.toml say is true."""

from __future__ import annotations

import re

import pytest

import spanbridge
from tests import readme


def test_the_table_of_integrations_is_as_the_registry_has_it():
    text = readme.README.read_text()
    assert readme.with_table(text) == text, "run `nox -s docs`"


def test_the_page_of_integrations_is_as_the_instrumentors_are():
    assert readme.PAGE.read_text() == readme.page(), "run `nox -s docs`"


def test_every_integration_of_the_design_has_a_row():
    rows = re.findall(r"^\| \w* ?\| [\w-]+ \|", readme.table(), flags=re.MULTILINE)
    assert len(rows) == 1 + 41


def test_an_instrumentor_and_the_version_table_name_the_same_newest_version():
    libraries = readme.tomllib.loads((readme.TREE / "tests" / "libraries.toml").read_text())["library"]
    for row in spanbridge.status():
        assert row.tested == readme.versions(libraries, row.name).get("newest", ""), row.name


@pytest.mark.parametrize("variable", sorted(set(re.findall(r"\bSPANBRIDGE_\w+", readme.README.read_text()))))
def test_every_variable_that_the_readme_names_exists(variable):
    roots = ("src", "instrumentors", "exporters")
    sources = [path.read_text() for root in roots for path in (readme.TREE / root).rglob("*.py")]
    generic = variable.startswith("SPANBRIDGE_REDIS_")  # built from an option's name
    assert generic or any(variable in source for source in sources)
