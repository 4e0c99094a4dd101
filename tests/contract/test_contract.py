"""What every instrumentor of the registry promises; what varies per library is in `probes`."""

from __future__ import annotations

import gc
import inspect
import json
import os
import pickle
import subprocess
import sys
import warnings
from contextlib import contextmanager
from dataclasses import fields, replace
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest
from opentelemetry import trace
from opentelemetry.context import attach, detach
from opentelemetry.instrumentation.dependencies import DependencyConflictError
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

import spanbridge
from spanbridge import State
from spanbridge.core.options import load_vendor_settings
from spanbridge.core.patching import Installation
from spanbridge.core.tracing import Operation, Scope, TracerSource
from spanbridge.exporters.datadog.settings import INTEGRATIONS
from spanbridge.testing import Spans
from tests.contract import probes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spanbridge.core.instrumentor import Instrumentor
    from tests.servers import Server

TREE = Path(__file__).parents[2]
ENTRIES = {
    entry.name.replace("-", "_"): entry
    for entry in entry_points(group="opentelemetry_instrumentor")
    if entry.value.startswith("spanbridge.")
}
# All of them on the main Python; elsewhere those that the run names, one of each kind.
CHOSEN = set(os.environ.get("CONTRACT_ENTRIES", "").split()) or set(ENTRIES)


@pytest.fixture(params=sorted(CHOSEN))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def instrumentor(name: str) -> Instrumentor:
    return ENTRIES[name].load()()


@contextmanager
def library_warnings() -> Iterator[None]:
    """Allow libraries to import what Python and setuptools have deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Trial:
    """An instrumentor's probe, with its server."""

    def __init__(self, probe: probes.Probe, server: Server | None) -> None:
        self.probe = probe
        self.server = server

    @contextmanager
    def opened(self) -> Iterator[Any]:
        with library_warnings():
            target = self.probe.open(self.server)
        try:
            yield target
        finally:
            self.probe.close(target)

    def operate(self) -> Any:
        with self.opened() as target:
            return self.probe.operate(target)

    def fail(self, error: Exception) -> None:
        with self.opened() as target:
            self.probe.fail(target, error)


@pytest.fixture
def trial(name: str, instrumentor: Instrumentor, request: pytest.FixtureRequest) -> Trial:
    probe = probes.load(name)  # none is a failure, an absent library a skip
    with library_warnings():
        pytest.importorskip(instrumentor.library.module)
    return Trial(probe, request.getfixturevalue(probe.server) if probe.server else None)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level("INFO", "spanbridge")
    return caplog


def state_of(name: str) -> State:
    return next(row.state for row in spanbridge.status() if row.name == name)


# Presence and versions.


@pytest.mark.parametrize("keywords", [{}, {"skip_dep_check": True}], ids=["in code", "launcher"])
def test_absent_library(
    name: str, instrumentor: Instrumentor, keywords: Any, monkeypatch: pytest.MonkeyPatch, log: Any
) -> None:
    monkeypatch.setattr(
        type(instrumentor), "library", replace(instrumentor.library, module="spanbridge_absent", others=())
    )
    instrumentor.instrument(**keywords)
    assert not instrumentor.is_instrumented_by_opentelemetry
    assert state_of(name) is State.NOT_INSTALLED
    # The launcher tries all of them; only those who ask for one by name are to hear that it is missing.
    assert len(log.messages) == (0 if keywords else 1)


def test_absent_library_for_those_who_want_an_exception(
    instrumentor: Instrumentor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        type(instrumentor), "library", replace(instrumentor.library, module="spanbridge_absent", others=())
    )
    with pytest.raises(DependencyConflictError):
        instrumentor.instrument(raise_exception_on_conflict=True)


@pytest.mark.parametrize("keywords", [{}, {"skip_dep_check": True}], ids=["in code", "launcher"])
def test_library_too_old(
    name: str, instrumentor: Instrumentor, trial: Trial, keywords: Any, monkeypatch: pytest.MonkeyPatch, spans: Spans
) -> None:
    plain = trial.operate()
    monkeypatch.setattr(type(instrumentor), "library", replace(instrumentor.library, requires=("pytest >= 9999",)))
    instrumentor.instrument(**keywords)
    assert trial.operate() == plain
    assert len(spans) == 0
    assert state_of(name) is State.TOO_OLD


def test_a_version_that_cannot_be_read_is_not_too_old(
    instrumentor: Instrumentor, monkeypatch: pytest.MonkeyPatch
) -> None:
    requires = ("spanbridge-no-such-distribution >= 1",)
    library = replace(instrumentor.library, module="spanbridge_odd", requires=requires)
    odd = ModuleType("spanbridge_odd")
    odd.__version__ = "unknown (built from source)"
    monkeypatch.setitem(sys.modules, "spanbridge_odd", odd)
    monkeypatch.setattr(type(instrumentor), "library", library)
    instrumentor.instrument()
    assert instrumentor.is_instrumented_by_opentelemetry
    assert instrumentor.status().state is not State.TOO_OLD


# Patching and undo.


def snapshot(modules: list[ModuleType]) -> dict[tuple[str, ...], Any]:
    """Collect every attribute of modules, and of the classes defined in them."""
    found: dict[tuple[str, ...], Any] = {}
    for module in modules:
        for key, value in list(vars(module).items()):
            if not isinstance(value, ModuleType):
                found[module.__name__, key] = value
            if isinstance(value, type) and value.__module__ == module.__name__:
                found.update({(module.__name__, key, *[member]): item for member, item in vars(value).items()})
    return found


def changes(before: dict[tuple[str, ...], Any], after: dict[tuple[str, ...], Any]) -> dict[tuple[str, ...], Any]:
    missing = object()
    return {
        key: (before.get(key), after.get(key))
        for key in before.keys() | after.keys()
        if before.get(key, missing) is not after.get(key, missing)
    }


@pytest.fixture
def loaded(trial: Trial) -> list[ModuleType]:
    """All modules that are loaded once the library has been used, less ours and the test's own."""
    trial.operate()
    own = {"spanbridge", "tests", "pytest", "_pytest", "hypothesis"}
    return [
        module
        for name, module in sorted(sys.modules.items())
        if type(module) is ModuleType and name.partition(".")[0] not in own
    ]


def test_undo_restores_the_identical_objects(
    instrumentor: Instrumentor, loaded: list[ModuleType], spans: Spans
) -> None:
    before = snapshot(loaded)
    instrumentor.instrument()
    assert changes(before, snapshot(loaded))
    instrumentor.uninstrument()
    assert changes(before, snapshot(loaded)) == {}


def test_functions_held_by_earlier_imports_are_replaced_and_restored(
    instrumentor: Instrumentor, loaded: list[ModuleType], monkeypatch: pytest.MonkeyPatch, spans: Spans
) -> None:
    before = snapshot(loaded)
    instrumentor.instrument()
    functions = {
        "_".join(key): old
        for key, (old, _) in changes(before, snapshot(loaded)).items()
        if inspect.isroutine(old) and len(key) == 2
    }
    instrumentor.uninstrument()
    application = ModuleType("application")
    vars(application).update(functions)
    monkeypatch.setitem(sys.modules, "application", application)
    instrumentor.instrument()
    assert [key for key, old in functions.items() if vars(application)[key] is old] == []
    instrumentor.uninstrument()
    assert {key: vars(application)[key] for key in functions} == functions


def test_functions_that_a_test_has_replaced(
    instrumentor: Instrumentor, trial: Trial, monkeypatch: pytest.MonkeyPatch, log: Any
) -> None:
    trial.operate()  # the library's modules are imported now
    for patch in instrumentor.patches:
        module = sys.modules.get(patch.module)
        if inspect.isfunction(function := getattr(module, patch.target, None)):
            monkeypatch.setattr(module, patch.target, Mock(wraps=function))
    instrumentor.instrument()
    assert not [record for record in log.records if record.levelname == "WARNING"]
    instrumentor.uninstrument()


def test_replacements_look_like_the_originals(
    instrumentor: Instrumentor, loaded: list[ModuleType], spans: Spans
) -> None:
    before = snapshot(loaded)
    instrumentor.instrument()
    changed = changes(before, snapshot(loaded))
    # A class that is replaced as a whole is looked at as a whole: it inherits its members.
    replaced = {
        key: pair for key, pair in changed.items() if callable(pair[0]) and (key[:2] not in changed or len(key) == 2)
    }
    seen = {key: [appearance(item) for item in pair] for key, pair in replaced.items()}
    pickled = {key: pickles(new) for key, (_, new) in replaced.items()}
    instrumentor.uninstrument()
    assert {key: new for key, (_, new) in seen.items()} == {key: old for key, (old, _) in seen.items()}
    assert pickled == {key: pickles(old) for key, (old, _) in replaced.items()}


def appearance(item: Any) -> dict[str, Any]:
    if type(item) in {staticmethod, classmethod}:
        return {"kind": type(item), **appearance(item.__func__)}
    try:
        signature = str(inspect.signature(item))
    except (TypeError, ValueError):
        signature = ""
    names = ("__name__", "__qualname__", "__doc__", *(() if isinstance(item, type) else ("__module__",)))
    return {
        "signature": signature,
        "class": isinstance(item, type),
        "coroutine": inspect.iscoroutinefunction(item),
        # Not whether it is a generator function: ours has to look at the context in the call, not at the first step.
        **{attribute: getattr(item, attribute, None) for attribute in names},
    }


def pickles(item: Any) -> bool:
    if type(item) in {staticmethod, classmethod}:
        item = item.__func__
    try:
        return pickle.loads(pickle.dumps(item)) is item
    except Exception:
        return False


def test_instrumenting_twice_warns_once_and_changes_nothing(
    instrumentor: Instrumentor, loaded: list[ModuleType], spans: Spans, log: Any
) -> None:
    instrumentor.instrument()
    log.clear()
    once = snapshot(loaded)
    instrumentor.instrument()
    assert changes(once, snapshot(loaded)) == {}
    assert len(log.messages) == 1


def test_cycles_do_not_leak(instrumentor: Instrumentor, trial: Trial, spans: Spans) -> None:
    def ours() -> int:
        gc.collect()
        return sum(issubclass(type(item), (Installation, TracerSource)) for item in gc.get_objects())

    def cycle() -> None:
        instrumentor.instrument(tracer_provider=Spans().provider)
        trial.operate()
        instrumentor.uninstrument()

    cycle()
    after_one = ours()
    for _ in range(5):
        cycle()
    assert ours() == after_one


# The application sees nothing of us.


def test_nothing_waits_for_the_collector(instrumentor: Instrumentor, trial: Trial, spans: Spans) -> None:
    instrumentor.instrument()
    with trial.opened() as target:
        trial.probe.operate(target)
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            for _ in range(3):
                trial.probe.operate(target)
            gc.collect()
            left = [item for item in gc.garbage if isinstance(item, Scope)]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
    assert (len(spans) > 0) == trial.probe.makes_spans
    assert left == []


def test_operation_makes_spans_and_answers_the_same(
    name: str, instrumentor: Instrumentor, trial: Trial, spans: Spans, payload: Any, log: Any
) -> None:
    plain = trial.operate()
    instrumentor.instrument()
    assert trial.operate() == plain
    assert bool(spans) is trial.probe.makes_spans
    assert {span["scope"] for span in spans} <= {instrumentor.scope or type(instrumentor).__module__}
    assert {span["status"] for span in spans} <= {"UNSET"}
    assert state_of(name) is State.ACTIVE
    assert log.messages == []
    instrumentor.uninstrument()
    spans.clear()
    assert trial.operate() == plain
    assert len(spans) == 0


def test_exception_passes_as_the_same_object(
    instrumentor: Instrumentor, trial: Trial, spans: Spans, payload: Any, log: Any
) -> None:
    instrumentor.instrument()
    cause, error = KeyError("cause"), ValueError("of the application")
    error.__cause__ = cause
    with pytest.raises(ValueError) as raised:
        trial.fail(error)
    assert raised.value is error
    assert error.__cause__ is cause
    failed = [span for span in spans if span["status"] == "ERROR"]
    assert bool(failed) is trial.probe.makes_spans
    for span in failed[:1]:
        assert [event["name"] for event in span["events"]] == ["exception"]
        assert span["attributes"]["error.type"] == "ValueError"
    assert log.messages == []


def test_suppressed(instrumentor: Instrumentor, trial: Trial, spans: Spans) -> None:
    plain = trial.operate()
    instrumentor.instrument()
    with suppress_instrumentation():
        assert trial.operate() == plain
        with pytest.raises(ValueError):
            trial.fail(ValueError())
    assert len(spans) == 0


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """Count the calls of every function of every operation that is compiled meanwhile."""
    calls: dict[str, int] = {}

    def watch(field: str, function: Any) -> Any:
        def counting(*args: Any, **kwargs: Any) -> Any:
            calls[field] = calls.get(field, 0) + 1
            return function(*args, **kwargs)

        return counting

    with monkeypatch.context() as patch:
        altered_operations(patch, watch)
        yield calls


def altered_operations(monkeypatch: pytest.MonkeyPatch, alter: Any) -> None:
    """Pass every function of every operation that is made from now on through `alter`."""
    original = Operation.__init__

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        given = dict(zip([field.name for field in fields(Operation)], args, strict=False)) | kwargs
        original(self, **{key: alter(key, value) if callable(value) else value for key, value in given.items()})

    monkeypatch.setattr(Operation, "__init__", init)


def test_unsampled_root(
    instrumentor: Instrumentor, trial: Trial, spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = trial.operate()
    dropping = Spans(ALWAYS_OFF)
    with counted(monkeypatch) as calls:
        instrumentor.instrument(tracer_provider=dropping.provider)
        with trial.opened() as target:
            assert trial.probe.operate(target) == plain
            sent = trial.probe.sent(target)
    assert len(dropping) == len(spans) == 0
    # Samplers see the start attributes, so these are computed; nothing is once the sampler has said no.
    assert not calls.keys() & {"opened", "succeeded"}
    if sent is not None:
        assert sent["traceparent"].endswith("-00")


def test_beneath_an_unsampled_parent_no_attribute_is_computed(
    instrumentor: Instrumentor, trial: Trial, spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = trial.operate()
    parent = NonRecordingSpan(SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=TraceFlags.get_default()))
    with counted(monkeypatch) as calls:
        instrumentor.instrument()
        token = attach(set_span_in_context(parent))
        try:
            with trial.opened() as target:
                assert trial.probe.operate(target) == plain
                sent = trial.probe.sent(target)
        finally:
            detach(token)
    if not trial.probe.nested:
        assert [span["parent_id"] for span in spans] == [None]
        return
    assert len(spans) == 0
    assert not calls.keys() & {"attributes", "opened", "succeeded"}
    if sent is not None:
        assert sent["traceparent"].startswith(f"00-{0xABC:032x}-")
        assert sent["traceparent"].endswith("-00")


def test_context_is_propagated(instrumentor: Instrumentor, trial: Trial, spans: Spans) -> None:
    instrumentor.instrument()
    with trial.opened() as target:
        trial.probe.operate(target)
        sent = trial.probe.sent(target)
    if sent is not None:
        [span] = spans
        assert sent["traceparent"] == f"00-{span['trace_id']:032x}-{span['span_id']:016x}-01"


def test_no_provider_and_one_that_comes_late(
    instrumentor: Instrumentor, trial: Trial, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
    plain = trial.operate()
    with counted(monkeypatch) as calls:
        instrumentor.instrument()
        assert trial.operate() == plain
        with pytest.raises(ValueError):
            trial.fail(ValueError())
        assert calls == {}
        spans = request.getfixturevalue("spans")
        assert trial.operate() == plain
    assert bool(spans) is trial.probe.makes_spans


def test_objects_made_before(instrumentor: Instrumentor, trial: Trial, spans: Spans, payload: Any) -> None:
    with trial.opened() as target:
        instrumentor.instrument()
        trial.probe.operate(target)
        assert bool(spans) is (trial.probe.makes_spans and trial.probe.outlives)
        instrumentor.uninstrument()
        spans.clear()
        trial.probe.operate(target)
        assert len(spans) == 0


def test_objects_made_meanwhile_fall_silent(instrumentor: Instrumentor, trial: Trial, spans: Spans) -> None:
    instrumentor.instrument()
    with trial.opened() as target:
        expected = trial.probe.operate(target)
        instrumentor.uninstrument()
        spans.clear()
        assert trial.probe.operate(target) == expected
        assert len(spans) == 0


def test_all_instrumentors_make_no_more_spans_than_one(
    instrumentor: Instrumentor, trial: Trial, spans: Spans, payload: Any
) -> None:
    def names() -> list[tuple[str, str]]:
        spans.clear()
        trial.operate()
        return [(span["scope"], span["name"]) for span in spans]

    instrumentor.instrument()
    alone = names()
    instrumentor.uninstrument()
    spanbridge.instrument()
    # What makes no spans of its own may stand within a framework that does.
    assert [row for row in names() if trial.probe.makes_spans or row[0] == type(instrumentor).__module__] == alone


# Faults: the user's, and ours.


def test_hooks_are_called(instrumentor: Instrumentor, trial: Trial, spans: Spans, log: Any) -> None:
    called: list[str] = []
    hooks = {name: hook_of(name, called) for name in hooks_of(instrumentor)}
    instrumentor.instrument(**hooks)
    trial.operate()
    assert set(called) == hooks.keys() - trial.probe.uncalled
    assert log.messages == []


def hooks_of(instrumentor: Instrumentor) -> list[str]:
    """Name the hooks that a successful operation calls."""
    return [option.name for option in instrumentor.options if "hook" in option.name and "failed" not in option.name]


def hook_of(name: str, called: list[str]) -> Any:
    def hook(span: trace.Span, *args: Any, **kwargs: Any) -> None:
        assert span.is_recording()
        called.append(name)

    return hook


def test_hooks_that_raise(instrumentor: Instrumentor, trial: Trial, spans: Spans, payload: Any, log: Any) -> None:
    plain = trial.operate()
    for hook in sorted(set(hooks_of(instrumentor)) - trial.probe.uncalled):
        instrumentor.instrument(**{hook: raising})
        log.clear()
        spans.clear()
        assert trial.operate() == plain
        assert trial.operate() == plain
        assert len(spans) >= 2
        assert [message for message in log.messages if hook in message] == log.messages
        assert len(log.messages) == 1
        instrumentor.uninstrument()


class FaultError(Exception):
    """A fault of ours."""


def raising(*args: Any, **kwargs: Any) -> Any:
    raise FaultError


@pytest.mark.parametrize("field", [field.name for field in fields(Operation)])
def test_our_own_faults_stay_here(
    instrumentor: Instrumentor,
    trial: Trial,
    spans: Spans,
    payload: Any,
    field: str,
    monkeypatch: pytest.MonkeyPatch,
    log: Any,
) -> None:
    plain = trial.operate()
    with monkeypatch.context() as patch:
        altered_operations(patch, lambda key, function: raising if key == field else function)
        instrumentor.instrument()
        assert trial.operate() == plain
        assert trial.operate() == plain
        error = ValueError("of the application")
        for _ in range(2):
            with pytest.raises(ValueError) as raised:
                trial.fail(error)
            assert raised.value is error
    assert len(log.messages) == len(set(log.messages))
    assert all("FaultError" in message for message in log.messages)
    assert log.messages or not trial.probe.makes_spans or field not in {"describe", "name", "attributes"}


def test_arguments_that_no_describer_knows(instrumentor: Instrumentor, spans: Spans) -> None:
    """Future versions of a library call its own functions with arguments that we have never seen."""
    setup = instrumentor.setup(tracer_provider=spans.provider)
    pytest.importorskip(instrumentor.library.module)
    for patch in instrumentor.patches:
        answer, error = object(), ValueError()

        def original(*args: Any, _answer: Any = answer, **kwargs: Any) -> Any:
            return _answer

        def broken(*args: Any, _error: Any = error, **kwargs: Any) -> Any:
            raise _error

        hostile = [((), {}), ((None,), {}), ((object(),) * 7, {}), ((object(),), {"unknown": object()})]
        for args, kwargs in hostile:
            assert patch.advice(original, setup)(*args, **kwargs) is answer
            with pytest.raises(ValueError) as raised:
                patch.advice(broken, setup)(*args, **kwargs)
            assert raised.value is error
    assert spans.unfinished == []


# Switches and options.


@pytest.mark.parametrize(
    "variable",
    [
        "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS={name}",
        "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=*",
        "SPANBRIDGE_DISABLED=other, {name}",
        "SPANBRIDGE_ENABLED=other",
        "SPANBRIDGE_{NAME}_ENABLED=false",
        "DD_TRACE_{DATADOG}_ENABLED=false",
    ],
)
def test_switches(
    name: str, instrumentor: Instrumentor, variable: str, spans: Spans, monkeypatch: pytest.MonkeyPatch, log: Any
) -> None:
    pytest.importorskip(instrumentor.library.module)
    datadog = [theirs for theirs, ours in INTEGRATIONS.items() if name in ours]
    assert datadog, f"DD_TRACE_..._ENABLED has no name for {name}"
    for theirs in datadog:
        key, _, value = variable.format(name=name, NAME=name.upper(), DATADOG=theirs.upper()).partition("=")
        with monkeypatch.context() as patch:
            patch.setenv(key, value)
            load_vendor_settings()
            instrumentor.instrument()
        load_vendor_settings()
        assert not instrumentor.is_instrumented_by_opentelemetry
        assert instrumentor.status().state is State.DISABLED
        assert key in instrumentor.status().reason or key.startswith("DD_")
    assert log.messages == []


def test_unknown_keyword(instrumentor: Instrumentor, spans: Spans, log: Any) -> None:
    pytest.importorskip(instrumentor.library.module)
    instrumentor.instrument(tracer_provder=spans.provider)
    assert instrumentor.is_instrumented_by_opentelemetry
    [message] = log.messages
    assert "'tracer_provder'" in message
    assert "'tracer_provider'" in message


def test_wrong_values_in_the_environment(
    instrumentor: Instrumentor, spans: Spans, monkeypatch: pytest.MonkeyPatch, log: Any
) -> None:
    pytest.importorskip(instrumentor.library.module)
    for option in instrumentor.options:
        for variable in option.variables_for(instrumentor.name):
            try:
                option.convert("maybe")
            except ValueError:
                pass
            else:
                continue  # any text will do
            monkeypatch.setenv(variable, "maybe")
            for _ in range(2):
                instrumentor.instrument()
                instrumentor.uninstrument()
            [message] = log.messages
            assert variable in message
            assert "'maybe'" in message
            assert repr(option.default) in message
            log.clear()
            monkeypatch.delenv(variable)


# All of them together.


def test_status_lists_all(spans: Spans) -> None:
    assert [row.name for row in spanbridge.status()] == sorted(ENTRIES)
    spanbridge.instrument()
    assert [row.name for row in spanbridge.status()] == sorted(ENTRIES)
    for row in spanbridge.status():
        assert row.state is State.ACTIVE or row.reason


def test_status_and_the_launcher_survive_anything(
    name: str, instrumentor: Instrumentor, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def __getattr__(self, attribute: str) -> Any:
            raise FaultError

    monkeypatch.setattr(type(instrumentor), "library", Broken())
    instrumentor.instrument(skip_dep_check=True)
    assert state_of(name) is State.FAILED


ALL_ON = """
import json, sys
import opentelemetry.instrumentation.instrumentor, opentelemetry.util._importlib_metadata, packaging.requirements, wrapt
before = set(sys.modules)
import spanbridge
spanbridge.instrument()
spanbridge.status()
print(json.dumps(sorted(set(sys.modules) - before)))
"""

INSTRUMENT_FIRST = """
import sys, warnings
from importlib.metadata import entry_points
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.contract import probes
from tests.servers import Server

name, host, port = sys.argv[1:]
exporter, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
entries = entry_points(group="opentelemetry_instrumentor")
entry = next(entry for entry in entries if entry.name.replace("-", "_") == name)
instrumentor = entry.load()()
instrumentor.instrument(tracer_provider=provider)
probe = probes.load(name)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    target = probe.open(Server(host, int(port)) if host else None)
probe.operate(target)
print(len(exporter.get_finished_spans()))
instrumentor.uninstrument()
exporter.clear()
probe.operate(target)
probe.close(target)
print(len(exporter.get_finished_spans()))
"""


def run(program: str, *arguments: object) -> str:
    command = [sys.executable, "-W", "error", "-c", program, *map(str, arguments)]
    done = subprocess.run(command, cwd=TREE, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_instrument_first_then_import(name: str, trial: Trial) -> None:
    first, last = run(INSTRUMENT_FIRST, name, *(trial.server or ("", 0))).split()
    assert bool(int(first)) is trial.probe.makes_spans
    assert int(last) == 0


def test_nothing_imports_a_target_library() -> None:
    imported = set(json.loads(run(ALL_ON)))
    targets = {entry.load().library.module for entry in ENTRIES.values()}
    assert imported & (targets | {"ssl", "urllib3", "requests", "asyncio"}) == set()
