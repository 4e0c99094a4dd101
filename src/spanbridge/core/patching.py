"""Where a library does the thing: patch rows, applied lazily after import, taken back to the identical objects."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from threading import Lock
from types import BuiltinFunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

from packaging.requirements import Requirement
from packaging.version import InvalidVersion, Version
from wrapt import register_post_import_hook

from spanbridge.core.guard import report
from spanbridge.core.status import PatchStatus, State

if TYPE_CHECKING:
    from collections.abc import Iterable

    from spanbridge.core.tracing import Setup

Advice = Callable[[Any, "Setup"], Any]
"""Given the original and what `instrument()` decided, an advice answers the replacement, or the original itself."""


@dataclass(frozen=True)
class Patch:
    """One patch point.

    Args:
        module: the module whose import it waits for; never imported by us.
        target: `Class.method` or `function` within it. A method is patched only on the class that defines it, under
            all its names there (`set_multi = set_many`) that have no rows of their own; one that a class in C defines,
            on the class named. A function is also replaced wherever else a module holds it (re-exports, earlier
            from-imports).
        advice: makes the replacement.
    """

    module: str
    target: str
    advice: Advice

    def __str__(self) -> str:
        return f"{self.module}:{self.target}"


@dataclass(frozen=True)
class Library:
    """What an integration instruments.

    Args:
        module: the top-level module whose presence decides; other modules of the patches may be missing.
        requires: requirement strings, one per distribution that provides the module; none for the standard library.
        tested: the newest version that the tests run.
        others: modules any of which will do as well: other names of the same library.
    """

    module: str
    requires: tuple[str, ...] = ()
    tested: str = ""
    others: tuple[str, ...] = ()

    def present(self) -> bool:
        """Say whether the module can be imported, without importing it."""
        return any(map(_importable, (self.module, *self.others)))

    def installed(self) -> tuple[Requirement | None, str]:
        """Answer which requirement is installed and its version: (None, "") when no distribution says."""
        for text in self.requires:
            requirement = Requirement(text)
            try:
                return requirement, version(requirement.name)
            except PackageNotFoundError:
                continue
        module = sys.modules.get(self.module)
        found = getattr(module, "__version__", "")
        first = Requirement(self.requires[0]) if self.requires and isinstance(found, str) and found else None
        return first, found if isinstance(found, str) else ""

    def too_old(self) -> str:
        """Say why the installed version cannot be instrumented, or answer an empty string.

        Newer is never too new: there are no upper caps. A version that cannot be read counts as usable.
        """
        requirement, found = self.installed()
        try:
            if requirement is None or requirement.specifier.contains(Version(found), prereleases=True):
                return ""
        except InvalidVersion:
            return ""
        return f"{requirement} is required, {found} is installed"


# A class in C cannot be changed: a method that it defines is put in front of it, and taken out again.
_INHERITED = object()


def _importable(name: str) -> bool:
    if name in sys.modules:
        return sys.modules[name] is not None
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False


@dataclass(eq=False)
class Applied:
    """One replacement in place; `original` is `_INHERITED` where the holder itself had nothing."""

    holder: Any
    name: str
    original: Any
    replacement: Any

    def undo(self) -> None:
        """Put the identical original back, except where somebody has since put another object."""
        if vars(self.holder).get(self.name) is self.replacement:
            if self.original is _INHERITED:
                delattr(self.holder, self.name)
            else:
                setattr(self.holder, self.name, self.original)
        if isinstance(self.holder, ModuleType):
            _rebind(self.replacement, self.original)


# Who waits for which module. wrapt takes no hook back, so there is one for each module, whoever waits.
_waiting: dict[str, list[Installation]] = {}
_lock = Lock()


def _notify(name: str, module: ModuleType) -> None:
    with _lock:
        waiting = _waiting.pop(name, ())
    for installation in waiting:
        installation.imported(name, module)


class Installation:
    """The patches of one `instrument()` call, from waiting for import to taken back."""

    def __init__(self, patches: Iterable[Patch], setup: Setup, refuse: Callable[[], str]) -> None:
        self.setup = setup
        self.refused = ""
        self.states: dict[Patch, PatchStatus] = {
            patch: PatchStatus(str(patch), State.WAITING, f"{patch.module} is not imported") for patch in patches
        }
        self._refuse = refuse
        self._applied: list[Applied] = []
        self._closed = False
        for module in dict.fromkeys(patch.module for patch in self.states):
            with _lock:
                first = module not in _waiting
                _waiting.setdefault(module, []).append(self)
            self._earlier = module in sys.modules
            if first:
                register_post_import_hook(partial(_notify, module), module)
        self._earlier = False

    def imported(self, name: str, module: ModuleType) -> None:
        """Apply the patches of the module `name`; total, for an exception would break the application's import."""
        if self._closed:
            return
        try:
            self.refused = self.refused or self._refuse()
            for patch in self.states:
                if patch.module == name:
                    self.states[patch] = self._apply(patch, module)
        except Exception as error:
            report(f"{self.setup.integration}: patching {name}", error)

    def _apply(self, patch: Patch, module: ModuleType) -> PatchStatus:
        if self.refused:
            return PatchStatus(str(patch), State.TOO_OLD, self.refused)
        try:
            *path, name = patch.target.split(".")
            holder: Any = module
            for step in path:
                holder = getattr(holder, step)
            before = vars(holder).get(name, _INHERITED)
            original = _defined_in_c(holder, name) if before is _INHERITED else before
        except (AttributeError, KeyError):
            return PatchStatus(str(patch), State.ABSENT, "the library has no such attribute, or inherits it")
        if any(applied.replacement is original for applied in self._applied):
            return PatchStatus(str(patch), State.ABSENT, "another name of what is patched already")
        try:
            replacement = _replace(original, patch.advice, self.setup)
            if replacement is original:
                return PatchStatus(str(patch), State.DISABLED, "an option switches it off")
            if isinstance(original, BuiltinFunctionType):
                replacement = _Unbound(replacement)
            names = [name] if holder is module or before is _INHERITED else self._names(patch, holder, original)
            for key in names:
                setattr(holder, key, replacement)
                self._applied.append(Applied(holder, key, before, replacement))
        except Exception as error:
            report(f"{self.setup.integration}: patching {patch}", error)
            return PatchStatus(str(patch), State.FAILED, f"{type(error).__name__}: {error}")
        if holder is module:
            _rebind(original, replacement, "" if self._earlier else patch.module)
        return PatchStatus(str(patch), State.ACTIVE)

    def _names(self, patch: Patch, holder: Any, original: Any) -> list[str]:
        """Answer the names that a method has in its class, less those that another row waits for."""
        prefix = patch.target.rpartition(".")[0]
        own = {
            row.target
            for row, status in self.states.items()
            if row.module == patch.module and row != patch and status.state is State.WAITING
        }
        return [key for key, item in vars(holder).items() if item is original and f"{prefix}.{key}" not in own]

    def close(self) -> None:
        """Take all patches back; what cannot be taken back becomes a plain call."""
        self._closed = True
        self.setup.source.close()
        with _lock:
            for waiting in _waiting.values():
                if self in waiting:
                    waiting.remove(self)
        while self._applied:
            applied = self._applied.pop()
            try:
                applied.undo()
            except Exception as error:
                report(f"{self.setup.integration}: restoring {applied.name}", error)


def _defined_in_c(holder: Any, name: str) -> Any:
    """Answer the method that a class inherits directly from one in C.

    Raises:
        KeyError: for any other.
    """
    owner = next((base for base in getattr(holder, "__mro__", ()) if name in vars(base)), object)
    if owner is object or not owner.__flags__ & _IMMUTABLE:
        raise KeyError(name)
    return vars(owner)[name]


_IMMUTABLE = 1 << 8  # Py_TPFLAGS_IMMUTABLETYPE


class _Unbound(staticmethod):  # type: ignore[type-arg]
    """A stand-in for a function in C: as a class attribute, neither is bound to the instance."""

    def __reduce__(self) -> str:
        return self.__name__


def _replace(original: Any, advice: Advice, setup: Setup) -> Any:
    """Make the replacement, keeping the kind of descriptor that stands in the class; the original if it is to stay."""
    if isinstance(original, (staticmethod, classmethod)):
        replacement = advice(original.__func__, setup)
        return original if replacement is original.__func__ else type(original)(replacement)
    return advice(original, setup)


def _rebind(old: Any, new: Any, package: str = "") -> None:
    """Put `new` wherever a loaded module of `package` (of any, if empty) holds `old`."""
    top = package.partition(".")[0]
    for name, module in list(sys.modules.items()):
        home = name.partition(".")[0]
        if isinstance(old, type) and name == old.__module__:
            continue  # extension modules that are imported later look for their base classes there
        if home in {"spanbridge", "wrapt"} or (top and home != top) or not issubclass(type(module), ModuleType):
            continue
        # Not by `vars`: asking a lazy module for an attribute would import what it stands for.
        namespace = object.__getattribute__(module, "__dict__")
        for key, value in list(namespace.items()):
            if value is old:
                namespace[key] = new


def patch_object(target: Any, patches: Iterable[Patch], setup: Setup) -> int:
    """Apply the rows for methods of `target`'s classes to this one object; answer how many fitted."""
    count = 0
    for patch in patches:
        class_name, _, method = patch.target.rpartition(".")
        owner = next((cls for cls in type(target).__mro__ if method in vars(cls)), None)
        if owner is not None and (owner.__module__, owner.__qualname__) == (patch.module, class_name):
            vars(target)[method] = MethodType(_replace(vars(owner)[method], patch.advice, setup), target)
            count += 1
    return count


def unpatch_object(target: Any, patches: Iterable[Patch]) -> None:
    """Take `patch_object` back."""
    for patch in patches:
        method = patch.target.rpartition(".")[2]
        own = vars(target).get(method)
        if isinstance(own, MethodType) and hasattr(own.__func__, "__wrapped__"):
            del vars(target)[method]
