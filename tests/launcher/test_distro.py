"""What the distro decides and says, without a subprocess."""

from __future__ import annotations

from importlib.metadata import EntryPoint, EntryPoints

import pytest

from spanbridge.launcher import SpanbridgeDistro, distro

GROUP = "opentelemetry_instrumentor"
OURS = EntryPoint("flask", "spanbridge.instrumentors.flask:FlaskInstrumentor", GROUP)
THEIRS = EntryPoint("flask", "opentelemetry.instrumentation.flask:FlaskInstrumentor", GROUP)
ONLY_THEIRS = EntryPoint("httpx", "opentelemetry.instrumentation.httpx:HTTPXClientInstrumentor", GROUP)


class Absent(EntryPoint):
    """An entry point whose module is not there, as when a wheel was installed by half."""

    def load(self):
        raise ModuleNotFoundError(self.value)


@pytest.fixture
def installed(monkeypatch):
    def install(*entries):
        monkeypatch.setattr(distro, "entry_points", lambda **wanted: EntryPoints(entries).select(**wanted))

    return install


@pytest.fixture(autouse=True)
def _a_new_process(monkeypatch):
    monkeypatch.setattr(SpanbridgeDistro, "initialized", False)
    monkeypatch.setattr(SpanbridgeDistro, "in_charge", False)


@pytest.mark.parametrize(
    ("preference", "passed_over", "said"),
    [
        ("", THEIRS, "flask; spanbridge is loaded (SPANBRIDGE_PREFER=contrib changes that)"),
        ("contrib", OURS, "flask; contrib is loaded (SPANBRIDGE_PREFER=spanbridge changes that)"),
    ],
)
def test_of_two_instrumentors_one_is_passed_over_and_one_line_says_so(
    installed, monkeypatch, caplog, preference, passed_over, said
):
    monkeypatch.setenv("SPANBRIDGE_PREFER", preference)
    installed(OURS, THEIRS, ONLY_THEIRS)
    caplog.set_level("INFO", "spanbridge")
    assert distro._arbitrate() == {passed_over.value}
    assert caplog.messages == [f"instrumented twice over: {said}"]


def test_a_wrong_preference_is_one_warning(installed, monkeypatch, caplog):
    monkeypatch.setenv("SPANBRIDGE_PREFER", "both")
    installed(OURS, THEIRS)
    assert distro._arbitrate() == {THEIRS.value}
    assert "SPANBRIDGE_PREFER='both' is not usable" in caplog.text


def test_nothing_is_said_when_nothing_is_installed_twice(installed, caplog):
    installed(OURS, ONLY_THEIRS)
    caplog.set_level("INFO", "spanbridge")
    assert distro._arbitrate() == set()
    assert caplog.messages == []


def test_one_line_when_another_distro_is_there(installed, monkeypatch, caplog):
    monkeypatch.setattr(SpanbridgeDistro, "in_charge", True)
    monkeypatch.setenv("OTEL_PYTHON_DISTRO", "spanbridge")
    monkeypatch.setenv("OTEL_PYTHON_CONFIGURATOR", "spanbridge")
    theirs = EntryPoint("distro", "other_distro:Distro", "opentelemetry_distro")
    installed(theirs, EntryPoint("configurator", "other_distro:Configurator", "opentelemetry_configurator"))
    caplog.set_level("INFO", "spanbridge")
    distro.before_instrumentors()
    distro.before_instrumentors()
    (line,) = caplog.messages
    assert line.startswith("other_distro is installed beside spanbridge")


def test_a_missing_module_of_ours_is_reported_and_of_others_left_to_the_launcher(caplog):
    SpanbridgeDistro().load_instrumentor(Absent("flask", OURS.value, GROUP))
    assert "instrumentor flask" in caplog.text
    with pytest.raises(ModuleNotFoundError):
        SpanbridgeDistro().load_instrumentor(Absent("flask", THEIRS.value, GROUP))
