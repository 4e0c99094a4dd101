"""Input that means harm: no parser raises, hangs or keeps it, and nothing of it is evaluated."""

from __future__ import annotations

import ast
import json
import logging
import os
import signal
import tracemalloc
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import spanbridge
from spanbridge.conventions import commands, http, sql
from spanbridge.core import guard, semconv
from spanbridge.exporters.datadog import Settings, composite_propagator, rules
from spanbridge.exporters.datadog import settings as datadog
from spanbridge.exporters.datadog.trace import traces

if TYPE_CHECKING:
    from collections.abc import Iterator

STABLE = semconv.Semconv(semconv.Names.STABLE, semconv.Names.STABLE)
HUGE = 200_000
# Linear work is done with this at once; quadratic work takes minutes, exponential work never ends.
SECONDS = 20
SEEDS = [
    "a",
    "'",
    '"',
    "\\",
    "(",
    "((",
    "/*",
    "--",
    "$a$",
    "$$",
    "0x",
    "*",
    "?*",
    "%",
    "%41",
    ",",
    "=",
    ";",
    "a=b,",
    "a:b,",
]
SEEDS += [
    "dd=s:1;",
    "k=v,",
    "é",
    "\x00",
    " ",
    "\t",
    "[[",
    '{"a":',
    "1.",
    "e1",
    "'', ",
    "(?, ",
    "@",
    "://",
    "x.y.",
    "-1",
]


@contextmanager
def in_time() -> Iterator[None]:
    """Interrupt what does not end."""

    def give_up(number: int, frame: object) -> None:
        raise AssertionError(f"not done in {SECONDS} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(autouse=True)
def quiet():
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    yield
    logging.getLogger("opentelemetry").setLevel(logging.NOTSET)
    guard.forget()
    traces.forget()


def extract(header: str, value: str) -> None:
    whole = {"x-datadog-trace-id": "7", "x-datadog-parent-id": "8", "x-datadog-sampling-priority": "1"}
    whole["traceparent"] = "00-000000000000000000000000000000a7-0000000000000008-01"
    propagator = composite_propagator(Settings())
    context = propagator.extract({**whole, header: value})
    sent: dict[str, str] = {}
    propagator.inject(sent, context)
    assert sum(len(name) + len(text) for name, text in sent.items()) < 20_000, "what goes on stays small"


def read_rule(raw: str) -> None:
    """The rules come from whoever runs the service, and are short; what they are compared with comes from anybody."""
    pattern = raw[:100]
    quoted = json.dumps([{"sample_rate": 0.5, "service": pattern, "resource": pattern, "tags": {"a": pattern}}])
    for text in (pattern, quoted):
        for rule in (*rules.trace_rules(text, None), *rules.span_rules(text)):
            rule.fits({"service": raw, "name": raw, "resource": raw, "meta": {"a": raw}, "metrics": {}})


def read_environment(raw: str) -> None:
    variables = ("DD_TAGS", "DD_SERVICE_MAPPING", "DD_TRACE_HEADER_TAGS", "DD_TRACE_AGENT_URL", "DD_TRACE_SAMPLE_RATE")
    variables += ("DD_TRACE_HTTP_SERVER_ERROR_STATUSES", "DD_TRACE_PROPAGATION_STYLE", "OTEL_RESOURCE_ATTRIBUTES")
    with mock.patch.dict(os.environ, dict.fromkeys(variables, raw.replace("\x00", "0")[:100_000])):
        Settings.from_environment()
        datadog.neutral_settings()


# Whatever takes text from outside: from a caller, from the application, from the environment.
PARSERS = {
    **{f"header {name}": lambda raw, name=name: extract(name, raw) for name in (
        "x-datadog-trace-id", "x-datadog-tags", "x-datadog-origin", "traceparent", "tracestate", "baggage",
    )},
    "sql": lambda raw: [sql.sanitize(raw, sql.dialect_of(system)) for system in ("postgresql", "mysql", "sqlite")],
    "sql verb": sql.operation_name,
    "redis": lambda raw: commands.redis_command(["SET", raw, raw])[1],
    "memcached": lambda raw: commands.memcached_command("get", [raw]),
    "url": http.url_cleaner(STABLE),
    "host": http.host_and_port,
    "query": http.query_cleaner(STABLE, client=False),
    "method": http.normal_method,
    "rules": read_rule,
    "environment": read_environment,
}  # fmt: skip


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize("seed", SEEDS)
def test_work_is_linear(parser, seed):
    with in_time():
        PARSERS[parser]("a" + seed * (HUGE // len(seed)) + "!")


@pytest.mark.parametrize("parser", PARSERS)
@given(raw=st.text() | st.lists(st.sampled_from(SEEDS)).map("".join))
@settings(max_examples=150, suppress_health_check=list(HealthCheck))
def test_no_text_raises(parser, raw):
    PARSERS[parser](raw)


def test_headers_are_not_kept():
    extract("tracestate", "dd=s:1")
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(30):
            for header in ("x-datadog-tags", "x-datadog-origin", "tracestate", "baggage"):
                extract(header, f"k{number}=v," * 50_000)
        kept = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert kept < 300_000, f"{kept} bytes of 30 MB of headers"


EVALUATORS = {"eval", "exec", "compile", "__import__"}


def test_nothing_is_evaluated():
    found = []
    for path in Path(spanbridge.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in EVALUATORS:
                found.append(f"{path.name}:{node.lineno}: {node.func.id}")
            if isinstance(node, ast.Import) and {alias.name for alias in node.names} & {"pickle", "marshal", "shelve"}:
                found.append(f"{path.name}:{node.lineno}: pickle")
    assert not found
