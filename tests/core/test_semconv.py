"""Which generation of names the environment asks for."""

from __future__ import annotations

from enum import Enum
from typing import Any

import pytest

from spanbridge.core.semconv import Names, Semconv, from_env, of_mode, pick

OLD, STABLE, BOTH = Names.OLD, Names.STABLE, Names.BOTH


class Mode(Enum):
    """As contrib's."""

    HTTP = "http"


@pytest.mark.parametrize(
    ("contrib", "opted", "http", "database"),
    [
        ("", "", STABLE, STABLE),
        ("stable", "", STABLE, STABLE),
        ("contrib", "", OLD, OLD),
        (" Contrib ", "http", STABLE, OLD),
        ("contrib", "database", OLD, STABLE),
        ("contrib", "http/dup, database", BOTH, STABLE),
        ("contrib", "HTTP,http/dup", BOTH, OLD),
        ("", "http/dup", BOTH, STABLE),
        ("", "database/dup", STABLE, BOTH),
        ("", "rpc, nonsense", STABLE, STABLE),
    ],
)
def test_from_env(contrib: str, opted: str, http: Names, database: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPANBRIDGE_SEMCONV", contrib)
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", opted)
    assert from_env() == Semconv(http, database, contrib=contrib.strip().lower() == "contrib")


def test_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    assert from_env() == Semconv(STABLE, STABLE, contrib=False)


def test_wrong_value(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("SPANBRIDGE_SEMCONV", "datadog")
    assert from_env() == from_env() == Semconv(STABLE, STABLE)
    [message] = caplog.messages
    assert message.startswith("SPANBRIDGE_SEMCONV='datadog' is not usable")


@pytest.mark.parametrize(
    ("http", "database", "version"),
    [(OLD, OLD, "1.11.0"), (STABLE, OLD, "1.21.0"), (STABLE, STABLE, "1.25.0"), (BOTH, OLD, "1.21.0")],
)
def test_schema_url(http: Names, database: Names, version: str) -> None:
    assert Semconv(http, database).schema_url == f"https://opentelemetry.io/schemas/{version}"


@pytest.mark.parametrize(
    ("contrib", "mode", "expected"),
    [
        ("", None, Semconv(BOTH, STABLE)),
        ("contrib", None, Semconv(OLD, OLD, contrib=True)),  # contrib's functions do not read the variable
        ("", "default", Semconv(OLD, OLD, contrib=True)),
        ("contrib", Mode.HTTP, Semconv(STABLE, OLD, contrib=True)),
        ("contrib", "database/dup", Semconv(OLD, BOTH, contrib=True)),
    ],
)
def test_of_mode(contrib: str, mode: Any, expected: Semconv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPANBRIDGE_SEMCONV", contrib)
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "http/dup")
    assert of_mode(mode) == expected


def test_pick() -> None:
    rows = ((("old", "field"),), (("stable", "field"),))
    assert pick(OLD, *rows) == (("old", "field"),)
    assert pick(STABLE, *rows) == (("stable", "field"),)
    assert pick(BOTH, *rows) == (("old", "field"), ("stable", "field"))


def test_the_database_signal_alone_decides_about_the_schema_too() -> None:
    decided = Semconv(STABLE, OLD, contrib=True).by_database()
    assert decided == Semconv(OLD, OLD, contrib=True)
    assert decided.schema_url.endswith("/1.11.0")
