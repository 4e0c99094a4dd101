"""The README's table, docs/integrations.md and docs/variables.md: `python -m tests.readme [--write]`."""

from __future__ import annotations

import inspect
import sys
from dataclasses import fields
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from spanbridge.core.instrumentor import PROVIDERS
from spanbridge.exporters.datadog import Settings, variables

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TREE = Path(__file__).resolve().parent.parent
README = TREE / "README.md"
PAGE = TREE / "docs" / "integrations.md"
VARIABLES = TREE / "docs" / "variables.md"
BEGIN, END = "<!-- integrations: written by `nox -s docs` -->", "<!-- end of integrations -->"


def table() -> str:
    """Write one row per integration: what is ready says which versions, the rest is planned."""
    libraries = tomllib.loads((TREE / "tests" / "libraries.toml").read_text())
    registry = instrumentors()
    rows = ["| | integration | state | versions | tested with |", "| --- | --- | --- | --- | --- |"]
    ready = 0
    for group, names in libraries["integrations"].items():
        for number, name in enumerate(names):
            entries = [entry for entry in _entries(libraries["library"], name) if entry in registry]
            ready += bool(entries)
            cells = _ready(registry, libraries["library"], entries) if entries else ["planned", "", ""]
            rows.append(f"| {'' if number else group} | {name} | {' | '.join(cells)} |".replace("|  ", "| "))
    total = sum(map(len, libraries["integrations"].values()))
    first = "The first of three tested versions runs on our Pythons once the tests bring back what they have dropped."
    return "\n".join([f"{ready} of {total} are ready. {first}", "", *rows])


def entries(name: str) -> list[str]:
    """Name the entry points of an integration."""
    return _entries(tomllib.loads((TREE / "tests" / "libraries.toml").read_text())["library"], name)


def _entries(tables: dict[str, Any], name: str) -> list[str]:
    return tables.get(name, {}).get("entries", [name])


def versions(tables: dict[str, Any], entry: str) -> dict[str, Any]:
    """Find the table that says which versions an entry point is tested with: its own, or its integration's."""
    if entry in tables and "entries" not in tables[entry]:
        return tables[entry]
    naming = [table for name, table in tables.items() if entry in _entries(tables, name)]
    return next((table for table in naming if "newest" in table), naming[0])


def _ready(registry: dict[str, Any], tables: dict[str, Any], entries: list[str]) -> list[str]:
    requires, tested = [], []
    for entry in entries:
        requires.append(" or ".join(registry[entry].library.requires) or "standard library")
        table = versions(tables, entry)
        versions_ = [table[key] for key in ("first", "oldest", "newest") if key in table]
        tested.append(", ".join(versions_) or "every Python below")
    return ["**ready**", "; ".join(dict.fromkeys(requires)), "; ".join(dict.fromkeys(tested))]


def instrumentors() -> dict[str, Any]:
    """Load every instrumentor class of ours, by entry-point name."""
    return {
        entry.name.replace("-", "_"): entry.load()
        for entry in sorted(entry_points(group="opentelemetry_instrumentor"), key=lambda entry: entry.name)
        if entry.value.startswith("spanbridge.")
    }


def page() -> str:
    """Write what each integration patches and which options it has."""
    lines = ["# Integrations", "", "Written by `nox -s docs` from the instrumentors themselves.", ""]
    for name, instrumentor in instrumentors().items():
        lines += [f"## {name}", "", *section(name, instrumentor)]
    return "\n".join(lines)


def section(name: str, instrumentor: Any) -> list[str]:
    """Write what one integration patches and which options it has."""
    lines = [
        inspect.cleandoc(sys.modules[instrumentor.__module__].__doc__ or ""),
        "",
        inspect.getdoc(instrumentor) or "",
    ]
    lines += [
        "",
        f"`from {instrumentor.__module__} import {instrumentor.__name__}`",
        "",
        "Patched, where it exists:",
        "",
    ]
    lines += [f"- `{patch}`" for patch in instrumentor.patches]
    lines += ["", "| option | variable | default | |", "| --- | --- | --- | --- |"]
    for option in (*PROVIDERS, *instrumentor.options):
        variables = ", ".join(f"`{variable}`" for variable in option.variables_for(name))
        lines.append(f"| `{option.name}` | {variables} | `{option.default}` | {option.doc} |".replace("|  |", "| |"))
    return [*lines, ""]


def variables_page() -> str:
    """Write what every variable of ddtrace's users does here."""
    defaults = {row.metadata["variables"][0]: row.metadata["default"] for row in fields(Settings) if row.metadata}
    defaults["DD_TRACE_PROPAGATION_STYLE"] = defaults["DD_TRACE_PROPAGATION_STYLE_EXTRACT"]
    lines = [
        "# Variables",
        "",
        "Written by `nox -s docs`. What the last column names wins where it is set, then the variable itself, then its",
        "old name that begins with `DATADOG_` and not `DD_`, then `DD_TAGS` (for service, environment and version).",
        "A keyword given in code is stronger than all of them. `{NAME}` is an integration in capitals.",
        "",
        "| variable | does | default | stronger |",
        "| --- | --- | --- | --- |",
    ]
    for name, meaning in variables.MEANINGS.items():
        shown = ", ".join(f"`{each}`" for each in (name, *variables.ALIASES.get(name, ())))
        lines.append(
            f"| {shown} | {meaning} | {_default(defaults.get(name))} | {variables.COUNTERPARTS.get(name, '')} |"
        )
    lines += ["", "These are known and do nothing here; one line of information says so where one is set.", ""]
    lines += ["| variable | why |", "| --- | --- |"]
    lines += [f"| `{name}` | {reason} |" for name, reason in variables.IGNORED.items()]
    lines += [
        "",
        "Sampling rules, the first that fits decides; patterns take `*` and `?`:",
        "",
        "```text",
        *_RULES,
        "```",
    ]
    return "\n".join(lines).replace("|  |", "| |").replace("|  |", "| |") + "\n"


_RULES = (
    'DD_TRACE_SAMPLING_RULES=[{"sample_rate": 0, "resource": "GET /health*"},',
    '  {"sample_rate": 0.5, "service": "shop", "name": "flask.*", "tags": {"tier": "free"}}]',
    'DD_SPAN_SAMPLING_RULES=[{"name": "redis.*", "service": "*", "sample_rate": 0.1, "max_per_second": 50}]',
)


def _default(value: object) -> str:
    if value in ("", None) or value == {}:
        return ""
    if isinstance(value, frozenset):
        return f"`{min(value)}-{max(value)}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{','.join(value) if isinstance(value, tuple) else value}`"


def with_table(text: str) -> str:
    """Put the table between the markers of `text`."""
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{table()}\n{END}{tail}"


if __name__ == "__main__":
    if "--write" in sys.argv:
        README.write_text(with_table(README.read_text()))
        PAGE.write_text(page())
        VARIABLES.write_text(variables_page())
    else:
        print(table(), page(), variables_page(), sep="\n\n")
