"""Patch rows on toy modules: applied when imported, in place, and taken back to the identical objects."""

from __future__ import annotations

import gc
import importlib
import importlib.util
import pickle
import sys
import textwrap
import threading
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from spanbridge.core.patching import Installation, Library, Patch, patch_object, unpatch_object
from spanbridge.core.status import State
from spanbridge.core.tracing import traced
from tests.core.toys import PLAIN, setup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from spanbridge.testing import Spans

TOY = """
class Base:
    def inherited(self):
        return "inherited"

class Client(Base):
    def send(self, value):
        return value

    @staticmethod
    def make(value):
        return value

    @classmethod
    def of(cls, value):
        return cls, value

    class Inner:
        def run(self):
            return "inner"

def connect():
    return "connected"

dial = connect
"""


@contextmanager
def importable(folder: Path) -> Iterator[Callable[[dict[str, str]], None]]:
    """Write modules below a folder that can be imported from; they, and no others, are forgotten at the end."""

    def write(modules: dict[str, str]) -> None:
        for name, source in modules.items():
            file = folder.joinpath(f"{name}.py")
            file.parent.mkdir(exist_ok=True)
            file.write_text(textwrap.dedent(source))
        importlib.invalidate_caches()

    write({"toylib": TOY})
    yield write
    own = {path.stem for path in folder.iterdir()}
    for name in [name for name in sys.modules if name.partition(".")[0] in own]:
        del sys.modules[name]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[dict[str, str]], None]]:
    monkeypatch.syspath_prepend(str(tmp_path))
    with importable(tmp_path) as write:
        yield write


def test_these_tests_forget_their_own_modules_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a library that is forgotten is imported twice, and who asks `sys.modules` for it gets the wrong half."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "library.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path / "others"))
    with importable(tmp_path):
        import library
        import toylib  # noqa: F401
    assert sys.modules.pop("library") is library
    assert "toylib" not in sys.modules


def advice(original: Any, decided: Any) -> Any:
    return traced(original, decided, PLAIN)


def install(*targets: str, module: str = "toylib", advice: Any = advice, refuse: Any = lambda: "") -> Installation:
    return Installation([Patch(module, target, advice) for target in targets], setup(), refuse)


def states(installation: Installation) -> list[State]:
    return [row.state for row in installation.states.values()]


ALL = ("Client.send", "Client.make", "Client.of", "Client.Inner.run", "connect")


@pytest.mark.parametrize("imported_first", [True, False])
def test_patch_and_undo(package: Any, spans: Spans, *, imported_first: bool) -> None:
    if imported_first:
        importlib.import_module("toylib")
    installation = install(*ALL)
    assert states(installation) == [State.ACTIVE if imported_first else State.WAITING] * 5
    assert imported_first or "toylib" not in sys.modules
    import toylib

    assert states(installation) == [State.ACTIVE] * 5
    client = toylib.Client()
    calls = [
        client.send(1),
        client.make(2),
        toylib.Client.make(3),
        client.Inner().run(),
        toylib.connect(),
        toylib.dial(),
    ]
    assert calls == [1, 2, 3, "inner", "connected", "connected"]
    assert toylib.Client.of(4) == client.of(4) == (toylib.Client, 4)
    assert len(spans) == 8
    installation.close()
    spans.clear()
    assert (client.send(1), client.of(4), toylib.dial()) == (1, (toylib.Client, 4), "connected")
    assert len(spans) == 0


def test_undo_restores_the_identical_objects(package: Any) -> None:
    import toylib

    before = {**vars(toylib), **vars(toylib.Client), **vars(toylib.Client.Inner)}
    installation = install(*ALL)
    assert vars(toylib.Client)["make"] is not before["make"]
    installation.close()
    after = {**vars(toylib), **vars(toylib.Client), **vars(toylib.Client.Inner)}
    assert [key for key in before.keys() | after.keys() if before.get(key) is not after.get(key)] == []


def test_undo_leaves_what_somebody_else_has_put_there(package: Any, spans: Spans) -> None:
    import toylib

    installation = install("Client.send")
    ours = toylib.Client.send

    def theirs(self: Any, value: Any) -> Any:
        return ours(self, value)

    toylib.Client.send = theirs
    installation.close()
    assert toylib.Client.send is theirs
    assert toylib.Client().send(1) == 1
    assert len(spans) == 0


def test_two_installations_undone_in_any_order(package: Any, spans: Spans) -> None:
    import toylib

    original = toylib.Client.send
    first, second = install("Client.send"), install("Client.send")
    second.close()
    first.close()
    assert toylib.Client.send is original
    first, second = install("Client.send"), install("Client.send")
    first.close()
    second.close()
    toylib.Client().send(1)
    assert len(spans) == 0


def test_missing_and_inherited_attributes_are_absent(package: Any, spans: Spans) -> None:
    import toylib

    installation = install("Client.inherited", "Client.gone", "Gone.send", "gone", "connect")
    assert states(installation) == [State.ABSENT] * 4 + [State.ACTIVE]
    assert "inherited" not in vars(toylib.Client)
    installation.close()


def test_a_method_inherited_from_a_class_in_c(package: Any, spans: Spans) -> None:
    package({"toyc": "class Items(list): pass\nclass More(Items): pass"})
    import toyc

    installation = install("Items.copy", "More.clear", "Items.__repr__", "Items.gone", module="toyc")
    assert states(installation) == [State.ACTIVE, State.ACTIVE, State.ACTIVE, State.ABSENT]
    assert toyc.More([1]).copy() == [1]
    assert len(spans) == 1
    installation.close()
    assert not {"copy", "clear", "__repr__"} & vars(toyc.Items).keys() | vars(toyc.More).keys() & {"clear"}
    assert toyc.Items([1]).copy() == [1]
    assert len(spans) == 1


def test_a_second_name_of_what_is_patched(package: Any, spans: Spans) -> None:
    import toylib

    installation = install("connect", "dial")
    assert states(installation) == [State.ACTIVE, State.ABSENT]
    toylib.dial()
    assert len(spans) == 1


ALIASED = """
class Client:
    def set_many(self):
        return "stored"

    set_multi = set_all = set_many
"""


def test_other_names_of_a_method(package: Any, spans: Spans) -> None:
    package({"toyaliases": ALIASED})
    installation = install("Client.set_many", module="toyaliases")
    client = importlib.import_module("toyaliases").Client
    assert client.set_many is client.set_multi is client.set_all
    assert client().set_all() == "stored"
    assert len(spans) == 1
    installation.close()
    assert client.set_many is client.set_multi is client.set_all
    client().set_multi()
    assert len(spans) == 1


@pytest.mark.parametrize("wanted", [True, False])
def test_other_names_with_rows_of_their_own(package: Any, spans: Spans, *, wanted: bool) -> None:
    package({"toyaliases": ALIASED})
    rows = [
        Patch("toyaliases", "Client.set_multi", advice if wanted else lambda original, decided: original),
        Patch("toyaliases", "Client.set_many", advice),
        Patch("toyelsewhere", "Client.set_many", advice),
    ]
    installation = Installation(rows, setup(), lambda: "")
    client = importlib.import_module("toyaliases").Client
    assert (client.set_multi is client.set_many) is not wanted
    client().set_multi()
    client().set_all()
    assert len(spans) == 2
    assert [status.state for status in installation.states.values()] == [
        State.ACTIVE if wanted else State.DISABLED,
        State.ACTIVE,
        State.WAITING,
    ]
    installation.close()
    assert client.set_many is client.set_multi is client.set_all


@pytest.mark.parametrize("imported_first", [True, False])
def test_functions_that_others_hold(package: Any, spans: Spans, *, imported_first: bool) -> None:
    package({"toypack/__init__": "from toypack.impl import connect", "toypack/impl": TOY})
    package({"application": "from toypack import connect as reach"})
    names = ["toypack", "toypack.impl", "application"]
    if imported_first:
        originals = {name: dict(vars(importlib.import_module(name))) for name in names}
    installation = install("connect", module="toypack.impl")
    modules = {name: importlib.import_module(name) for name in names}
    for function in (modules["toypack"].connect, modules["toypack.impl"].dial, modules["application"].reach):
        assert function() == "connected"
    assert len(spans) == 3
    installation.close()
    original = modules["toypack.impl"].connect
    assert not hasattr(original, "__wrapped__")
    assert modules["toypack"].connect is modules["application"].reach is original
    assert not imported_first or original is originals["toypack.impl"]["connect"]


def test_lazy_modules_stay_lazy(package: Any) -> None:
    """Undo and rebinding look through all modules, and must not load those that wait to be used."""
    import toylib

    package({"lazy": "raise AssertionError('has been loaded')"})
    spec = importlib.util.find_spec("lazy")
    loader = importlib.util.LazyLoader(spec.loader)
    spec.loader = loader
    sys.modules["lazy"] = module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    installation = install("connect")
    installation.close()
    assert toylib.connect() == "connected"


def test_modules_that_are_no_modules(package: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Odd:
        def __getattr__(self, name: str) -> Any:
            raise AssertionError(name)

    class OddModule(ModuleType):
        def __getattribute__(self, name: str) -> Any:
            raise AssertionError(name)

        def __setattr__(self, name: str, value: Any) -> None:
            raise AssertionError(name)

    monkeypatch.setitem(sys.modules, "odd", Odd())
    monkeypatch.setitem(sys.modules, "odd_module", OddModule("odd_module"))
    monkeypatch.setitem(sys.modules, "none", None)
    import toylib

    installation = install("connect")
    assert states(installation) == [State.ACTIVE]
    assert toylib.connect() == "connected"
    installation.close()


def test_submodules_are_waited_for_one_by_one(package: Any, spans: Spans) -> None:
    package({"toypack/__init__": "", "toypack/early": TOY, "toypack/late": TOY})
    rows = [Patch(f"toypack.{name}", "connect", advice) for name in ("early", "late", "missing")]
    installation = Installation(rows, setup(), lambda: "")
    importlib.import_module("toypack.early")
    assert states(installation) == [State.ACTIVE, State.WAITING, State.WAITING]
    importlib.import_module("toypack.late")
    assert states(installation) == [State.ACTIVE, State.ACTIVE, State.WAITING]
    assert "toypack.missing" not in sys.modules
    installation.close()


def test_closed_before_the_import(package: Any) -> None:
    installation = install("connect")
    installation.close()
    import toylib

    assert not hasattr(toylib.connect, "__wrapped__")


def test_import_that_fails_and_is_tried_again(package: Any, tmp_path: Path, spans: Spans) -> None:
    package({"toylib": "raise KeyError('not yet')"})
    installation = install("connect")
    with pytest.raises(KeyError, match="not yet"):
        importlib.import_module("toylib")
    assert states(installation) == [State.WAITING]
    package({"toylib": TOY + "\n# another size, for the cache\n"})
    assert importlib.import_module("toylib").connect() == "connected"
    assert len(spans) == 1
    installation.close()


def raising(*args: Any, **kwargs: Any) -> Any:
    raise RuntimeError("ours")


@pytest.mark.parametrize("imported_first", [True, False])
def test_advice_that_raises(package: Any, caplog: pytest.LogCaptureFixture, *, imported_first: bool) -> None:
    if imported_first:
        importlib.import_module("toylib")
    installation = install("connect", "Client.send", advice=raising)
    import toylib

    assert toylib.connect() == "connected"
    assert states(installation) == [State.FAILED] * 2
    assert len(caplog.messages) == 2
    installation.close()


def test_version_check_that_raises_does_not_break_the_import(package: Any, caplog: pytest.LogCaptureFixture) -> None:
    installation = install("connect", refuse=raising)
    import toylib

    assert toylib.connect() == "connected"
    assert len(caplog.messages) == 1
    installation.close()


def test_refused(package: Any) -> None:
    installation = install("connect", refuse=lambda: "toy >= 2 is required, 1 is installed")
    import toylib

    assert not hasattr(toylib.connect, "__wrapped__")
    assert states(installation) == [State.TOO_OLD]
    assert installation.refused
    installation.close()


def test_class_that_cannot_be_patched(caplog: pytest.LogCaptureFixture) -> None:
    installation = install("deque.append", module="collections")
    assert states(installation) == [State.FAILED]
    assert len(caplog.messages) == 1
    installation.close()


def test_waiting_installations_do_not_pile_up(package: Any) -> None:
    def installations() -> int:
        gc.collect()
        # Not `isinstance`: lazy proxies, such as Celery's, would import what they stand for.
        return sum(type(item) is Installation for item in gc.get_objects())

    before = installations()  # others' may still be held by what was made under them
    for _ in range(5):
        install("connect").close()
    assert installations() == before
    import toylib

    assert not hasattr(toylib.connect, "__wrapped__")


def test_import_in_several_threads(package: Any, spans: Spans) -> None:
    installation = install("connect", "Client.send")
    threads = [threading.Thread(target=importlib.import_module, args=("toylib",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    import toylib

    toylib.connect()
    assert len(spans) == 1
    installation.close()


def test_replacements_pickle_by_name(package: Any) -> None:
    import toylib

    client = toylib.Client()
    installation = install("connect", "Client.send")
    for item in (toylib.connect, toylib.Client.send, toylib.Client):
        assert pickle.loads(pickle.dumps(item)) is item
    assert type(pickle.loads(pickle.dumps(client))) is toylib.Client
    installation.close()


# One object.


def test_one_object(package: Any, spans: Spans) -> None:
    import toylib

    rows = [Patch("toylib", "Client.send", advice), Patch("toylib", "connect", advice)]
    one, other = toylib.Client(), toylib.Client()
    assert patch_object(one, rows, setup()) == 1
    assert (one.send(1), other.send(2)) == (1, 2)
    assert len(spans) == 1
    unpatch_object(one, rows)
    assert vars(one) == {}
    one.send(3)
    assert len(spans) == 1


def test_one_object_of_a_subclass(package: Any, spans: Spans) -> None:
    import toylib

    class Mine(toylib.Client):
        pass

    class Overriding(toylib.Client):
        def send(self, value: Any) -> Any:
            return ("mine", super().send(value))

    rows = [Patch("toylib", "Client.send", advice)]
    mine, overriding = Mine(), Overriding()
    assert patch_object(mine, rows, setup()) == 1
    patch_object(overriding, rows, setup())
    assert (mine.send(1), overriding.send(2)) == (1, ("mine", 2))
    assert [span["name"] for span in spans][:1] == ["toy"]


# Libraries.


def test_presence_is_decided_without_importing(package: Any) -> None:
    assert Library("toylib").present()
    assert "toylib" not in sys.modules
    assert not Library("spanbridge_absent").present()


def test_blocked_module_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "toylib", None)
    assert not Library("toylib").present()


def test_module_without_spec(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("toylib")
    monkeypatch.setitem(sys.modules, "toylib", module)
    assert Library("toylib").present()


@pytest.mark.parametrize(
    ("requires", "reason"),
    [
        ((), ""),
        (("pytest >= 1",), ""),
        (("pytest >= 9999",), "pytest>=9999 is required"),
        (("spanbridge-absent >= 9999", "pytest >= 1"), ""),
        (("spanbridge-absent >= 9999",), ""),
    ],
)
def test_too_old(requires: tuple[str, ...], reason: str) -> None:
    assert Library("pytest_absent", requires).too_old().startswith(reason)
    assert bool(Library("pytest_absent", requires).too_old()) is bool(reason)


@pytest.mark.parametrize(
    ("version", "old"),
    [
        ("1.9", True),
        ("2.0", False),
        ("2.1.dev3", False),
        ("2.0rc1", True),
        ("from git", False),
        (None, False),
        (7, False),
    ],
)
def test_version_that_only_the_module_knows(version: Any, old: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("toylib")
    module.__version__ = version
    monkeypatch.setitem(sys.modules, "toylib", module)
    assert bool(Library("toylib", ("spanbridge-absent >= 2.0",)).too_old()) is old
