"""Sampling rules: what they fit, what is kept, and what a broken one costs."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

import pytest

from spanbridge.exporters.datadog import rules as module
from spanbridge.exporters.datadog.rules import Glob, Limiter, Rule, keeps, span_rules, trace_rules

# protocol D.2: trace id, kept at .1, .5, .7
VECTORS = [
    (1, "TTT"), (10, "FFT"), (100, "TTT"), (1000, "FTT"), ((1 << 64) - 1, "FFF"), (1 << 63, "FTT"),
    (12078589664685934330, "FFF"), (13794769880582338323, "FTT"), (1882305164521835798, "FTT"),
    (5198373796167680436, "FFT"), (6272545487220484606, "FTT"),
]  # fmt: skip


@pytest.mark.parametrize(("identifier", "expected"), VECTORS)
def test_every_tracer_decides_alike(identifier: int, expected: str) -> None:
    assert "".join("FT"[keeps(identifier, rate)] for rate in (0.1, 0.5, 0.7)) == expected
    assert keeps(identifier, 1.0)
    assert not keeps(identifier, 0.0)


@pytest.mark.parametrize(
    ("pattern", "fits", "fits_not"),
    [
        ("*", ["", "any\nthing"], []),
        ("?", ["a"], ["", "ab"]),
        ("shop", ["shop", "SHOP"], ["shops", "ashop"]),
        ("GET /*", ["get /", "GET /a/b"], ["POST /"]),
        ("*-db", ["users-db"], ["users-db2"]),
        ("a?c*e", ["abcde", "abcdde"], ["acde", "abcd"]),
        ("a[bc]", ["a[bc]"], ["ab", "ac"]),
        ("a.c", ["a.c"], ["abc"]),
        ("!x{y}\\", ["!x{y}\\"], ["x"]),
        ("", [""], ["a"]),
    ],
)
def test_globs(pattern: str, fits: list[str], fits_not: list[str]) -> None:
    glob = Glob(pattern)
    assert [text for text in (*fits, *fits_not) if glob.matches(text)] == fits


def test_a_glob_takes_no_longer_than_the_text_is_long() -> None:
    began = time.monotonic()
    assert not Glob("*a" * 30 + "b").matches("a" * 5_000)
    assert time.monotonic() - began < 5


def span(**fields: Any) -> dict[str, Any]:
    return {"service": "shop", "name": "flask.request", "resource": "GET /", "meta": {}, "metrics": {}} | fields


@pytest.mark.parametrize(
    ("patterns", "fits"),
    [
        ({}, True),
        ({"service": "sh*"}, True),
        ({"service": "SHOP", "name": "flask.*", "resource": "GET ?"}, True),
        ({"service": "shop", "name": "django.*"}, False),
        ({"tags": {"env": "prod"}}, True),
        ({"tags": {"env": "dev"}}, False),
        ({"tags": {"absent": "*"}}, False),
        ({"tags": {"whole": "5"}}, True),
        ({"tags": {"whole": 5}}, True),
        ({"tags": {"part": "0.*"}}, False),
        ({"tags": {"part": "*"}}, True),
        ({"tags": {"part": "???"}}, True),
        ({"tags": {"env": "prod", "whole": "6"}}, False),
    ],
)
def test_what_a_rule_fits(patterns: dict[str, Any], fits: bool) -> None:
    (rule,) = trace_rules(json.dumps([{"sample_rate": 0.5, **patterns}]), None)
    assert rule.fits(span(meta={"env": "prod"}, metrics={"whole": 5.0, "part": 0.5})) == fits
    assert rule.is_general == (patterns == {})


def test_rules_keep_their_order_within_their_provenance() -> None:
    raw = json.dumps(
        [
            {"sample_rate": 0.1, "service": "a"},
            {"sample_rate": 0.2, "provenance": "dynamic", "discard": True},
            {"sample_rate": 0.3, "provenance": "customer"},
            {"sample_rate": 0.4},
        ]
    )
    rules = trace_rules(raw, 0.5)
    assert [(rule.rate, rule.decision_maker) for rule in rules] == [
        (0.3, "-11"), (0.2, "-12"), (0.1, "-3"), (0.4, "-3"), (0.5, "-3"),
    ]  # fmt: skip
    assert [rule.discard for rule in rules] == [False, True, False, False, False]


@pytest.mark.parametrize("rate", [0, 1, 0.5, "0.5", 7, -3])
def test_rates_are_kept_within_bounds(rate: Any) -> None:
    (rule,) = trace_rules(json.dumps([{"sample_rate": rate}]), None)
    assert rule.rate == min(1.0, max(0.0, float(rate)))


@pytest.mark.parametrize(
    "broken",
    [
        {}, {"service": "x"}, {"sample_rate": "much"}, {"sample_rate": None}, {"sample_rate": True},
        {"sample_rate": [1]}, {"sample_rate": "nan"}, {"sample_rate": 1, "service": 5},
        {"sample_rate": 1, "tags": ["a"]}, {"sample_rate": 1, "provenance": "me"},
        {"sample_rate": 1, "discard": "yes"}, "rule", None, 5, [],
    ],
)  # fmt: skip
def test_a_broken_rule_is_one_warning_that_quotes_it_and_the_others_work(
    broken: Any, caplog: pytest.LogCaptureFixture
) -> None:
    raw = json.dumps([{"sample_rate": 0.1, "service": "a"}, broken, {"sample_rate": 0.2}])
    for _ in range(2):
        assert [rule.rate for rule in trace_rules(raw, None)] == [0.1, 0.2]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "DD_TRACE_SAMPLING_RULES" in record.getMessage()
    assert json.dumps(broken) in record.getMessage()


def test_an_unknown_key_costs_itself(caplog: pytest.LogCaptureFixture) -> None:
    (rule,) = trace_rules('[{"sample_rate": 0.5, "resources": "/health", "name": null}]', None)
    assert (rule.rate, rule.is_general) == (0.5, True)
    (record,) = caplog.records
    assert "resources" in record.getMessage()


@pytest.mark.parametrize("raw", ["notjson", "{}", "5", "[" * 100_000, '[{"sample_rate": 1}'])
def test_rules_that_are_no_list(raw: str, caplog: pytest.LogCaptureFixture) -> None:
    assert [rule.rate for rule in trace_rules(raw, 0.5)] == [0.5]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING


def test_span_rules(caplog: pytest.LogCaptureFixture) -> None:
    raw = json.dumps(
        [
            {"service": "shop", "max_per_second": 2},
            {"name": "flask.*", "sample_rate": 0.5},
            {"sample_rate": 1},
            {"name": "x", "max_per_second": "few"},
        ]
    )
    first, second = span_rules(raw)
    assert (first.rate, first.per_second, second.rate, second.per_second) == (1.0, 2.0, 0.5, None)
    assert len(caplog.records) == 2


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "monotonic", clock)
    return clock


def test_a_limiter_lets_so_many_through_at_once_and_per_second(clock: Clock) -> None:
    limiter = Limiter(2)
    assert [limiter.allows() for _ in range(3)] == [True, True, False]
    assert limiter.effective_rate == pytest.approx(2 / 3)
    clock.now += 0.5
    assert [limiter.allows() for _ in range(2)] == [True, False]
    clock.now += 0.6  # another window: the rate is the mean of two
    assert limiter.allows()
    assert limiter.effective_rate == pytest.approx((3 / 5 + 1) / 2)
    clock.now += 3600
    assert [limiter.allows() for _ in range(3)] == [True, True, False]


def test_limits_that_are_none(clock: Clock) -> None:
    assert not Limiter(0).allows()
    assert all(Limiter(-1).allows() for _ in range(1000))
    slow = Limiter(0.5)
    assert [slow.allows(), slow.allows()] == [True, False]
    clock.now += 2
    assert slow.allows()


def test_a_rule_for_all() -> None:
    assert Rule(1.0).fits(span())
