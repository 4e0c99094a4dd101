"""What the README, the documentation and libraries.toml say is true; every code block in them runs."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import spanbridge
from tests import readme

PAGES = [readme.README, readme.TREE / "CONTRIBUTING.md", *sorted((readme.TREE / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_table_of_integrations_is_as_the_registry_has_it():
    text = readme.README.read_text()
    assert readme.with_table(text) == text, "run `nox -s docs`"


def test_the_page_of_integrations_is_as_the_instrumentors_are():
    assert readme.PAGE.read_text() == readme.page(), "run `nox -s docs`"


def test_the_table_of_variables_is_up_to_date():
    assert readme.VARIABLES.read_text() == readme.variables_page(), "run `nox -s docs`"


def test_every_integration_of_the_design_has_a_row():
    rows = re.findall(r"^\| \w* ?\| [\w-]+ \|", readme.table(), flags=re.MULTILINE)
    assert len(rows) == 1 + 41


def test_an_instrumentor_and_the_version_table_name_the_same_newest_version():
    libraries = readme.tomllib.loads((readme.TREE / "tests" / "libraries.toml").read_text())["library"]
    for row in spanbridge.status():
        assert row.tested == readme.versions(libraries, row.name).get("newest", ""), row.name


@pytest.mark.parametrize(
    "variable", sorted(set(re.findall(r"\bSPANBRIDGE_\w+", "".join(p.read_text() for p in PAGES))))
)
def test_every_variable_that_the_documentation_names_exists(variable):
    roots = ("src", "instrumentors", "exporters")
    sources = [path.read_text() for root in roots for path in (readme.TREE / root).rglob("*.py")]
    options = {
        name
        for integration, instrumentor in readme.instrumentors().items()
        for option in instrumentor.options
        for name in option.variables_for(integration)
    }
    assert variable in options or any(variable.removesuffix("_") in source for source in sources)


# --- code blocks


def blocks(language):
    found = {page.name: [text for kind, text in BLOCK.findall(page.read_text()) if kind == language] for page in PAGES}
    return [pytest.param(texts, id=name) for name, texts in found.items() if texts]


def test_every_block_says_its_language():
    kinds = {(page.name, kind) for page in PAGES for kind, _ in BLOCK.findall(page.read_text())}
    assert {kind for _, kind in kinds} <= {"console", "python", "text", "ini", "yaml"}, kinds


@pytest.mark.parametrize("found", blocks("python"))
def test_python_blocks_run(found, tmp_path):
    """One page is one program; examples that set up tracing anew belong to a process of their own."""
    for number, text in enumerate(found):
        program = tmp_path / f"block{number}.py"
        program.write_text(text)
        run([sys.executable, "-W", "error::SyntaxWarning", program.name], tmp_path)


@pytest.mark.parametrize("found", blocks("yaml"))
def test_yaml_blocks_are_yaml(found):
    yaml = pytest.importorskip("yaml")
    for text in found:
        assert isinstance(yaml.safe_load(text), dict)


@pytest.mark.parametrize("found", blocks("ini"))
def test_the_options_of_uwsgi_are_those_that_are_tested(found):
    from tests.launcher.test_servers import SERVERS

    _, command = SERVERS["uWSGI"]
    for text in found:
        parser = configparser.ConfigParser()
        parser.read_string(text)
        assert {f"--{option}" for option in parser["uwsgi"]} <= set(command)


# What shows that a command of the documentation works: it is run here, or named is what runs it.
RUN = "run"
PROOFS = {
    r"pip install spanbridge|pip install \"\.\[demo\]\" && spanbridge demo": "tests/demo/test_demo.py",
    r"pip install \"nox\[uv\]\"( && nox -s tests)?": ".ci/run",
    r"nox -s .*": "noxfile.py",
    r"(DD_SERVICE=[\w-]+ )?(DD_ENV=prod )?opentelemetry-instrument python app.py": RUN,
    r"spanbridge doctor -- python app.py": RUN,
    r"DD_SERVICE=shop .*opentelemetry-instrument (gunicorn|uvicorn) .*": "tests/launcher/test_servers.py",
    r"DD_SERVICE=[\w-]+ opentelemetry-instrument celery .*": "tests/instrumentors/test_celery.py",
    r"python -m tests.newcomer toy.*": "tests/test_newcomer.py",
}


def commands():
    found = {line[2:] for page in PAGES for kind, text in BLOCK.findall(page.read_text()) if kind == "console"
             for line in text.splitlines() if line.startswith("$ ")}  # fmt: skip
    return sorted(line.partition("  #")[0].strip() for line in found)


@pytest.mark.parametrize("command", commands())
def test_commands_work(command, tmp_path):
    proofs = [proof for pattern, proof in PROOFS.items() if re.fullmatch(pattern, command)]
    assert proofs, "nothing shows that this works: run it in this test, or name in PROOFS what does"
    if proofs[0] != RUN:
        assert (readme.TREE / proofs[0]).exists()
        for session in re.findall(r"(?<=nox -s )\w+", command):
            assert re.search(rf"^def {session}\(", (readme.TREE / "noxfile.py").read_text(), re.MULTILINE)
        return
    (tmp_path / "app.py").write_text("import sqlite3\nsqlite3.connect(':memory:').execute('SELECT 1')\n")
    words = shlex.split(command)
    variables = dict(word.split("=", 1) for word in words if re.match(r"[A-Z_]+=", word))
    # 1 is what the doctor answers where no Agent is.
    run([word for word in words if word not in {f"{k}={v}" for k, v in variables.items()}], tmp_path, (0, 1), variables)


def run(command, directory, codes=(0,), variables=None):
    scripts = sysconfig.get_path("scripts")
    environment = {**os.environ, **(variables or {}), "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode in codes, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr


def test_links_between_files_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            beside = page.parent / target
            # The pages of single integrations exist on the site only.
            assert beside.exists() or Path(target).parts[0] == "integrations", f"{page.name}: {target}"
