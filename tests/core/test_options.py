"""Options: the order of their sources, and what happens to wrong values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from spanbridge.core import options
from spanbridge.core.options import Option, apply_settings, boolean, from_environment, hook, resolve_all, setting, words

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _no_vendor() -> Iterator[None]:
    apply_settings({})
    yield
    options.load_vendor_settings()


@pytest.mark.parametrize("raw", ["true", "True", " 1 ", "yes", "ON"])
def test_true(raw: str) -> None:
    assert boolean(raw) is True


@pytest.mark.parametrize("raw", ["false", "FALSE", "0", "no", " off"])
def test_false(raw: str) -> None:
    assert boolean(raw) is False


@pytest.mark.parametrize("raw", ["maybe", "2", "truee", "\x00"])
def test_neither(raw: str) -> None:
    with pytest.raises(ValueError):
        boolean(raw)


def test_words() -> None:
    assert words(" a, b ,,c,") == ("a", "b", "c")
    assert words("") == ()


def test_first_variable_that_is_set_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("TOY_STRONG", "TOY_WEAK")
    assert from_environment(names, int, 3) == 3
    monkeypatch.setenv("TOY_WEAK", "5")
    assert from_environment(names, int, 3) == 5
    monkeypatch.setenv("TOY_STRONG", "  ")
    assert from_environment(names, int, 3) == 5
    monkeypatch.setenv("TOY_STRONG", "4")
    assert from_environment(names, int, 3) == 4


def test_wrong_value_is_warned_about_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("TOY", "many")
    assert [from_environment(("TOY",), int, 3) for _ in range(3)] == [3, 3, 3]
    [message] = caplog.messages
    assert message.startswith("TOY='many' is not usable")
    assert message.endswith("using 3 instead")
    monkeypatch.setenv("TOY", "few")
    from_environment(("TOY",), int, 3)
    assert len(caplog.messages) == 2


LIMIT: Option[int] = Option("limit", 10, "How many.", int, variables=("OTEL_PYTHON_{NAME}_LIMIT", "OTEL_LIMIT"))


def test_variables_of_an_option() -> None:
    assert LIMIT.variables_for("toy") == ("SPANBRIDGE_TOY_LIMIT", "OTEL_PYTHON_TOY_LIMIT", "OTEL_LIMIT")
    assert hook("(span)").variables_for("toy") == ()


def test_sources_of_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    assert LIMIT.resolve("toy", {}) == 10
    apply_settings({"integrations.toy.limit": 20, "integrations.other.limit": 99})
    assert LIMIT.resolve("toy", {}) == 20
    monkeypatch.setenv("OTEL_LIMIT", "30")
    assert LIMIT.resolve("toy", {}) == 30
    monkeypatch.setenv("OTEL_PYTHON_TOY_LIMIT", "40")
    assert LIMIT.resolve("toy", {}) == 40
    monkeypatch.setenv("SPANBRIDGE_TOY_LIMIT", "50")
    assert LIMIT.resolve("toy", {}) == 50
    assert LIMIT.resolve("toy", {"limit": 0}) == 0
    assert LIMIT.resolve("toy", {"limit": None}) == 50
    assert LIMIT.resolve("third", {}) == 30


def test_wrong_value_falls_back_on_the_vendors(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    apply_settings({"integrations.toy.limit": 20})
    monkeypatch.setenv("SPANBRIDGE_TOY_LIMIT", "many")
    assert LIMIT.resolve("toy", {}) == 20
    assert "using 20 instead" in caplog.text


def test_setting_under_another_key() -> None:
    apply_settings({"integrations.toy.fetches": True})
    assert Option("capture_fetches", False, "", boolean, setting="fetches").resolve("toy", {}) is True


@pytest.mark.parametrize(
    ("given", "near"), [("limt", "; did you mean 'limit'?"), ("tracer_provder", ""), ("xyz", ""), ("", "")]
)
def test_unknown_keyword(given: str, near: str, caplog: pytest.LogCaptureFixture) -> None:
    assert resolve_all((LIMIT, hook("(span)")), "toy", {given: 1}) == {"limit": 10, "request_hook": None}
    assert caplog.messages == [f"toy: unknown option {given!r} is ignored{near}"]


def test_vendor_that_raises(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    class Entry:
        name = "toy"

        def __init__(self, settings: Any) -> None:
            self.settings = settings

        def load(self) -> Any:
            return self.settings

    def broken() -> dict[str, Any]:
        raise OSError("no file")

    monkeypatch.setattr(
        "opentelemetry.util._importlib_metadata.entry_points",
        lambda **kwargs: [Entry(broken), Entry(lambda: {"http.toy": 1})],
    )
    options.load_vendor_settings()
    assert setting("http.toy", 0) == 1
    assert setting("http.other", "default") == "default"
    assert len(caplog.messages) == 1
