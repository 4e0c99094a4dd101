"""A new integration, ready to be filled in: `python -m tests.newcomer NAME MODULE Class.method [--tree DIR]`.

Writes the instrumentor, its probe for the contract suite, its test, its versions, its entry point and its switch.
What it writes works already: one INTERNAL span per call. Its marks `<...>` are what is to be replaced.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from textwrap import dedent

INSTRUMENTOR = '''
    """{title}: one span per call of `{target}`.

    Not traced: <what deliberately is not>.
    """

    from __future__ import annotations

    from typing import TYPE_CHECKING, Any

    from opentelemetry.trace import SpanKind

    from spanbridge.core.instrumentor import Instrumentor
    from spanbridge.core.patching import Library, Patch
    from spanbridge.core.tracing import Operation, traced
    from spanbridge.version import __version__ as __version__

    if TYPE_CHECKING:
        from spanbridge.core.tracing import Setup, Wrapped


    def _describe(instance: Any, *args: Any, **kwargs: Any) -> str:
        """What the span needs to know of the call: <a record of its arguments>."""
        return type(instance).__name__


    def _call(wrapped: Wrapped, setup: Setup) -> Wrapped:
        operation: Operation[str] = Operation(
            SpanKind.INTERNAL,
            _describe,
            lambda record: "{name}.{method}",
            lambda record: {{"{name}.class": record}},
        )
        return traced(wrapped, setup, operation)


    class {title}Instrumentor(Instrumentor):
        """Traces {title}, whenever its objects were made."""

        library = Library("{top}"{requires})
        patches = (Patch("{module}", "{target}", _call),)
'''
PROBE = """
    from __future__ import annotations

    from typing import Any

    from tests.contract.probes import Probe


    class {title}(Probe):
        def open(self, server: Any) -> Any:
            from {module} import {cls}

            return {cls}()

        def operate(self, target: Any) -> Any:
            return target.{method}()

        def fail(self, target: Any, error: Exception) -> None:
            def broken() -> None:
                raise error

            target.{method}(broken)
"""
TEST = '''
    """{title}: <what is peculiar to it>."""

    from __future__ import annotations

    from {module} import {cls}

    from spanbridge.instrumentors.{name} import {title}Instrumentor
    from spanbridge.testing import Spans


    def test_a_call_is_a_span(spans: Spans) -> None:
        {title}Instrumentor().instrument()
        {cls}().{method}()
        (span,) = spans
        assert (span["name"], span["attributes"]) == ("{name}.{method}", {{"{name}.class": "{cls}"}})
'''


def write(tree: Path, name: str, module: str, target: str) -> list[Path]:
    """Write the files into `tree` and answer them."""
    cls, _, method = target.rpartition(".")
    values = {
        "name": name,
        "title": name.title().replace("_", ""),
        "module": module,
        "top": module.partition(".")[0],
        "target": target,
        "cls": cls,
        "method": method,
        "requires": "",
    }
    files = {
        tree / "instrumentors" / f"{name}.py": INSTRUMENTOR,
        tree / "tests" / "contract" / "probes" / f"{name}.py": PROBE,
        tree / "tests" / "instrumentors" / f"test_{name}.py": TEST,
    }
    for path, template in files.items():
        path.write_text(dedent(template).lstrip().format(**values))
    entry = f'{name} = "spanbridge.instrumentors.{name}:{values["title"]}Instrumentor"'
    _insert(tree / "pyproject.toml", r"\[project\.entry-points\.opentelemetry_instrumentor\]\n", f"{entry}\n")
    _insert(tree / "tests" / "libraries.toml", r"(?=\[library\.)", f"[library.{name}]\n\n")
    settings = tree / "exporters" / "datadog" / "settings.py"
    _insert(settings, r'_SAME_NAME = words\(\n    "', f"{name}, ")
    return list(files)


def _insert(path: Path, before: str, text: str) -> None:
    """Put `text` behind the first match of `before`."""
    source = path.read_text()
    at = re.search(before, source)
    assert at is not None, path
    path.write_text(source[: at.end()] + text + source[at.end() :])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.newcomer", description=__doc__.splitlines()[0])
    parser.add_argument("name", help="of the entry point and the files, such as `bottle`")
    parser.add_argument("module", help="the module that defines the class, such as `bottle`")
    parser.add_argument("target", help="what is traced, such as `Bottle.wsgi`")
    parser.add_argument("--tree", type=Path, default=Path(), help="the working copy to write to")
    arguments = parser.parse_args()
    for path in write(arguments.tree, arguments.name, arguments.module, arguments.target):
        print(path)
    print("next: fill in what is in <...>, put it into exporters/datadog/names.py, and run `nox -s docs`")


if __name__ == "__main__":
    main()
