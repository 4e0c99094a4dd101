"""Hook of mkdocs: writes the generated parts of the site from the code and from what the tests have recorded."""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mkdocs.structure.files import File

TREE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TREE))

from spanbridge.exporters.datadog import names  # noqa: E402
from tests import readme  # noqa: E402

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

EXAMPLES = json.loads((TREE / "docs" / "examples.json").read_text())


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page per integration; the one page that the repository keeps becomes the list of them."""
    for name, instrumentor in readme.instrumentors().items():
        files.append(File.generated(config, f"integrations/{name}.md", content=integration(name, instrumentor)))
    return files


def on_page_markdown(markdown: str, page: Page, **kwargs: Any) -> str:
    """Fill in what is generated."""
    if page.file.src_uri == "integrations.md":
        return integrations()
    if page.file.src_uri == "performance.md":
        return with_chart(markdown)
    for marker, write in MARKERS.items():
        if marker in markdown:
            markdown = markdown.replace(marker, write())
    return markdown


def integration(name: str, instrumentor: Any) -> str:
    """Write the page of one integration."""
    return "\n".join([f"# {name}", "", *readme.section(name, instrumentor), *examples(name)])


def examples(name: str) -> list[str]:
    """Write the spans that the contract's operation makes."""
    lines = ["", "## Spans", ""]
    if not EXAMPLES.get(name):
        return [*lines, "None by default: it carries the context."]
    for example in EXAMPLES[name]:
        datadog = example["datadog"]
        lines += [f"`{example['span']}`, for instance:", "", "| attribute | value |", "| --- | --- |"]
        lines += [f"| `{key}` | {_cell(value)} |" for key, value in example["attributes"].items()]
        lines += [
            "",
            "In Datadog: " + ", ".join(f"{key} {_cell(value)}" for key, value in datadog.items() if value),
            "",
        ]
    return lines


def integrations() -> str:
    """Write the list of integrations, each with a link to its page."""
    lines = readme.table().splitlines()
    registry = readme.instrumentors()
    linked = []
    for line in lines:
        cells = line.split(" | ")
        entries = readme.entries(cells[1]) if len(cells) > 2 else []
        pages = [f"[{entry}](integrations/{entry}.md)" for entry in entries if entry in registry]
        if pages:
            cells[1] = ", ".join(pages)
        linked.append(" | ".join(cells))
    return "\n".join(["# Integrations", "", *linked])


def operations() -> str:
    """Write names.py's table."""
    lines = ["| library | operation | resource | service | type |", "| --- | --- | --- | --- | --- |"]
    for library, row in names.CLASSIC.items():
        cells = [_said(row.operation), _said(row.resource), _said(row.service) or "the application's", row.type or "-"]
        lines.append(f"| {library} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _said(rule: Any) -> str:
    """A name as it is, a rule by its docstring; rules made from a name say which."""
    if isinstance(rule, str):
        return f"`{rule}`" if rule else ""
    return (
        (inspect.getdoc(rule) or inspect.getdoc(names.constant) or "")
        .partition("\n")[0]
        .rstrip(".")
        .replace("|", "\\|")
    )


def findings() -> str:
    """Write what the doctor may find: every message that its source has."""
    lines = ["| the doctor says | fix |", "| --- | --- |"]
    for module, called in (("findings", "Finding"), ("agent", "Answer")):
        source = (TREE / "src" / "spanbridge" / "doctor" / f"{module}.py").read_text()
        tree = ast.parse(source)
        known = {ast.unparse(node.targets[0]): node.value for node in tree.body if isinstance(node, ast.Assign)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == called:
                given = node.args[1:]
                given += [keyword.value for keyword in node.keywords if keyword.arg in {"problem", "advice"}]
                words = [_words(known.get(ast.unparse(value), value)) for value in given]
                if any(word.strip("… ") for word in words):
                    lines.append(f"| {words[0]} | {words[1] if len(words) > 1 else '-'} |")
    return "\n".join(lines)


def _words(node: ast.expr) -> str:
    """A message with its variable parts as dots."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return "…"


def with_chart(markdown: str) -> str:
    """Draw the page's first table as bars before it: what each tracer adds, as a share of the most expensive one."""
    first = re.search(r"(?:^\|.*\n)+", markdown, re.MULTILINE)
    assert first is not None
    head, _, *rows = [
        [cell.replace("*", "").strip() for cell in line.split("|")[1:-1]] for line in first[0].splitlines()
    ]
    chart = "<table>"
    for column, operation in enumerate(head[1:], 1):
        figures = {row[0]: figure for row in rows if (figure := _number(row[column])) is not None}
        chart += f"<tr><th colspan=2>{operation}</th></tr>"
        for name, figure in figures.items():
            width = max(1, round(100 * figure / max(figures.values())))
            colour = "#b39ddb" if name.startswith("spanbridge") else "#cfd8dc"
            style = f"background:{colour};color:#000;width:{width}%;padding-left:4px;white-space:nowrap"
            cells = (
                f'<td style="white-space:nowrap;padding:2px 8px">{name}</td><td style="min-width:26em;padding:2px 8px">'
            )
            chart += f'<tr>{cells}<div style="{style}">{figure:g}</div></td></tr>'
    start = first.start()
    return f"{markdown[:start]}{chart}</table>\n\n{markdown[start:]}"


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _cell(value: Any) -> str:
    if value in ("", None):
        return "-"
    return "`" + str(value).replace("\n", " ").replace("|", "\\|").replace("`", "'") + "`"


MARKERS = {"<!-- names -->": operations, "<!-- findings -->": findings}
