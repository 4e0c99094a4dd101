"""Pylons 1.0.3 is written for Python 2: `python -m tests.pylons_port` makes it run on the Python that runs this.

It rewrites the packages in the environment's own site-packages with lib2to3 (which Python 3.13 has no more), and puts
in what they import and nobody has any longer. Only for tests; a package cache that the files are linked to stays whole.
"""

from __future__ import annotations

import sysconfig
import warnings
from pathlib import Path

from tests import old_python

SITE = Path(sysconfig.get_path("purelib"))
PACKAGES = ("pylons", "weberror", "webhelpers")

# What lib2to3 cannot know: in each file, texts and what stands in their place.
EDITS = {
    "pylons/wsgiapp.py": (  # what WebOb takes no longer
        ("unicode_errors=req_options['errors'],", ""),
        ("decode_param_names=req_options['decode_param_names']", ""),
    ),
    "pylons/controllers/util.py": (  # WebOb's responses are exceptions themselves, and their headers are text
        ("raise exc.exception", "raise exc"),
        ("raise exc(location=url).exception", "raise exc(location=url)"),
        ("location=url.encode('utf-8')", "location=url"),
    ),
    "pylons/controllers/core.py": (
        ("'im_func'", "'__func__'"),
        ("if isinstance(response, str)", "if isinstance(response, bytes)"),
    ),
}


def main() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from lib2to3.refactor import RefactoringTool, get_fixers_from_package
    tool = RefactoringTool(get_fixers_from_package("lib2to3.fixes"))
    for package in PACKAGES:
        for path in sorted((SITE / package).rglob("*.py")):
            _rewrite(path, tool)
    old_python.main()


def _rewrite(path: Path, tool: object) -> None:
    text = path.read_text(encoding="utf-8", errors="replace")
    ported = str(tool.refactor_string(text if text.endswith("\n") else f"{text}\n", str(path)))  # type: ignore[attr-defined]
    for old, new in EDITS.get(path.relative_to(SITE).as_posix(), ()):
        ported = ported.replace(old, new, 1)
    path.unlink()  # it may be a link to the package cache
    path.write_text(ported, encoding="utf-8")


if __name__ == "__main__":
    main()
