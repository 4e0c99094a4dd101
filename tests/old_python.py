"""What Python has dropped since the first versions of libraries: `python -m tests.old_python` brings it back.

It copies itself into the environment's site-packages, and a `.pth` line there has every process bring it back: the
launcher's own `sitecustomize` would hide another one. Only for tests.
"""

from __future__ import annotations

import builtins
import collections
import collections.abc
import gettext
import html
import html.parser
import inspect
import re
import shutil
import sys
import sysconfig
import types
from functools import wraps
from pathlib import Path
from typing import Any

ArgSpec = collections.namedtuple("ArgSpec", "args varargs keywords defaults")  # noqa: PYI024


def getargspec(function: Any) -> ArgSpec:
    return ArgSpec(*inspect.getfullargspec(function)[:4])


def formatargspec(
    args: Any, varargs: Any = None, varkw: Any = None, defaults: Any = None, *_: Any, formatvalue: Any = "={!r}".format
) -> str:
    """Answer `(a, b=1, *args, **kwargs)`: what Python 2 could say of a function."""
    defaults = defaults or ()
    plain = len(args) - len(defaults)
    parts = [*args[:plain], *(name + formatvalue(value) for name, value in zip(args[plain:], defaults, strict=True))]
    parts += [stars + name for stars, name in (("*", varargs), ("**", varkw)) if name]
    return f"({', '.join(parts)})"


def _without_universal_newlines(wrapped: Any) -> Any:
    """Let `open` take the mode "U", which says what it does anyway."""

    @wraps(wrapped)
    def opened(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        return wrapped(file, mode.replace("U", "") or "r", *args, **kwargs)

    return opened


def _without_inner_flags(wrapped: Any) -> Any:
    """Let `re.compile` take `(?u)` amid a pattern, which says what it does anyway."""

    @wraps(wrapped)
    def compiled(pattern: Any, flags: Any = 0) -> Any:
        return wrapped(pattern.replace("(?u)", "") if isinstance(pattern, str) else pattern, flags)

    return compiled


def _without_codeset(wrapped: Any) -> Any:
    @wraps(wrapped)
    def translation(*args: Any, codeset: Any = None, **kwargs: Any) -> Any:
        return wrapped(*args, **kwargs)

    return translation


def bring_back() -> None:
    restored: dict[Any, dict[str, Any]] = {
        collections: {name: getattr(collections.abc, name) for name in collections.abc.__all__},
        inspect: {"getargspec": getargspec, "formatargspec": formatargspec},
        html: {"cgi_escape": html.escape},  # as lib2to3 names cgi.escape
        html.parser: {"HTMLParseError": type("HTMLParseError", (Exception,), {})},
        gettext: {"translation": _without_codeset(gettext.translation)},
        gettext.NullTranslations: {"set_output_charset": lambda self, charset: None},
        re: {"compile": _without_inner_flags(re.compile)},
        builtins: {"open": _without_universal_newlines(open)},
    }
    for holder, names in restored.items():
        for name, value in names.items():
            setattr(holder, name, value)
    user_dict: Any = types.ModuleType("UserDict")
    user_dict.DictMixin, user_dict.UserDict = collections.abc.MutableMapping, collections.UserDict
    sys.modules["UserDict"] = user_dict


def main() -> None:
    site = Path(sysconfig.get_path("purelib"))
    shutil.copy(__file__, site / "old_python.py")
    (site / "old_python.pth").write_text("import old_python; old_python.bring_back()\n")


if __name__ == "__main__":
    main()
