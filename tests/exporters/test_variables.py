"""Every variable is explained, those that do nothing say so, and an OTEL_* one that wins is named."""

from __future__ import annotations

import logging
import re
from dataclasses import fields
from pathlib import Path

import pytest

from spanbridge.exporters.datadog import Settings, settings, variables

EXPLAINED = {*variables.MEANINGS, *(alias for names in variables.ALIASES.values() for alias in names)}


@pytest.fixture(autouse=True)
def _all_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "spanbridge")


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    return [(record.levelno, record.getMessage()) for record in caplog.records]


def test_every_variable_that_is_read_is_explained() -> None:
    source = Path(settings.__file__).read_text()
    read = {name.replace("{}", "{NAME}") for name in re.findall(r'"((?:DD|SPANBRIDGE)_[A-Z0-9_{}]*[A-Z0-9}])"', source)}
    assert read <= EXPLAINED
    assert {variable for row in fields(Settings) for variable in row.metadata.get("variables", ())} <= EXPLAINED
    assert not EXPLAINED & set(variables.IGNORED)


def test_aliases_and_counterparts_belong_to_a_variable() -> None:
    assert variables.ALIASES.keys() | variables.COUNTERPARTS.keys() <= variables.MEANINGS.keys()


@pytest.mark.parametrize(
    "name",
    [
        *variables.IGNORED, "DATADOG_PRIORITY_SAMPLING", "DD_FLASK_ANALYTICS_ENABLED",
        "DATADOG_REDIS_ANALYTICS_SAMPLE_RATE", "DD_PROFILING_CAPTURE_PCT", "DD_RUNTIME_METRICS_EXPERIMENTAL_ENABLED",
        "DD_DJANGO_CACHE_SERVICE_NAME", "DD_TRACE_CLOUD_PAYLOAD_TAGGING_MAX_DEPTH",
        "DD_DJANGO_INCLUDE_USER_EMAIL", "DD_TRACE_WEBSOCKET_MESSAGES_SEPARATE_TRACES",
        "DD_REDISCLUSTER_CMD_MAX_LENGTH",
    ],
)  # fmt: skip
def test_what_does_nothing_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    monkeypatch.setenv(name, "1")
    for _ in range(2):
        Settings.from_environment()
    ((level, message),) = said(caplog)
    assert level == logging.INFO
    assert message.startswith(f"{name} does nothing here: ")


@pytest.mark.parametrize(
    ("variables", "winner"),
    [
        ({"OTEL_TRACES_SAMPLER": "always_on", "DD_TRACE_SAMPLE_RATE": "0.5"}, "OTEL_TRACES_SAMPLER=always_on"),
        ({"OTEL_PROPAGATORS": "b3", "DD_TRACE_PROPAGATION_STYLE": "datadog"}, "OTEL_PROPAGATORS=b3"),
        ({"OTEL_TRACES_SAMPLER": "datadog", "DD_TRACE_SAMPLE_RATE": "0.5"}, None),
        ({"DD_TRACE_SAMPLE_RATE": "0.5", "DD_SERVICE": "shop", "DD_TRACE_FLASK_ENABLED": "true"}, None),
    ],
)
def test_what_otel_variables_overrule(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, variables: dict[str, str], winner: str | None
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    Settings.from_environment()
    assert [message.partition(": ")[2] for _, message in said(caplog)] == ([f"{winner} is set"] if winner else [])
