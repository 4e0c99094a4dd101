"""Log records name their trace, whatever the formatter; and our own log goes where it is sent."""

from __future__ import annotations

import io
import json
import logging
import re
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.trace import NonRecordingSpan, SpanContext, use_span

from spanbridge.exporters.datadog import Settings, inject_logs, log_context, logs
from tests.environments import TREE, clean_variables

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SETTINGS = Settings(service="shop", env="prod", version="3", service_mapping={"shop": "store"})
APPLICATION = {"dd.service": "shop", "dd.env": "prod", "dd.version": "3"}
SPAN_TRACE = 0xABC << 64 | 7
SPAN = NonRecordingSpan(SpanContext(SPAN_TRACE, 8, is_remote=False))


@pytest.fixture
def injected(monkeypatch: pytest.MonkeyPatch) -> None:
    for owner, name in ((logging.Logger, "makeRecord"), (logging.StrFormatStyle, "_format")):
        monkeypatch.setattr(owner, name, getattr(owner, name))  # puts it back in the end
    monkeypatch.setattr(logs, "_installed", None)
    inject_logs(SETTINGS)


@pytest.fixture
def log() -> Callable[..., str]:
    """Log one message with a format, and answer what was written."""
    logger = logging.getLogger("spanbridge-tests-application")

    def write(template: str, style: Any = "%", **options: Any) -> str:
        stream = io.StringIO()
        handler = logging.StreamHandler(stream)
        handler.setFormatter(logging.Formatter(template, style=style, validate=False))
        logger.handlers[:] = [handler]
        logger.warning("hello", **options)
        return stream.getvalue().rstrip("\n")

    return write


@pytest.mark.usefixtures("injected")
@pytest.mark.parametrize(
    ("template", "style"),
    [
        ("%(dd.trace_id)s %(dd.span_id)s %(dd.service)s %(dd.env)s %(dd.version)s %(message)s", "%"),
        ("{dd.trace_id} {dd.span_id} {dd.service} {dd.env} {dd.version} {message}", "{"),
    ],
)
def test_records_name_their_trace(log: Any, template: str, style: str) -> None:
    assert log(template, style) == "0 0 shop prod 3 hello"
    with use_span(SPAN):
        assert log(template, style) == f"{0xABC << 64 | 7:032x} 8 shop prod 3 hello"


@pytest.mark.usefixtures("injected")
def test_narrow_trace_ids_are_decimal() -> None:
    with use_span(NonRecordingSpan(SpanContext(7, 8, is_remote=False))):
        assert log_context() == {"dd.trace_id": "7", "dd.span_id": "8", **APPLICATION}


@pytest.mark.usefixtures("injected")
def test_the_applications_own_values_stay(log: Any) -> None:
    assert log("%(dd.trace_id)s %(dd.span_id)s", extra={"dd.trace_id": "mine"}) == "mine 0"
    assert log("{dd}", "{", extra={"dd": "mine"}) == "mine"


@pytest.mark.usefixtures("injected")
def test_it_is_installed_once_and_leaves_nothing_behind(log: Any) -> None:
    inject_logs(SETTINGS)
    assert not hasattr(logging.Logger.makeRecord.__wrapped__, "__wrapped__")
    record = logging.getLogger("x").makeRecord("x", 20, "f", 1, "m", (), None)
    assert record.__dict__.items() >= {"dd.trace_id": "0", **APPLICATION}.items()
    logging.Formatter("{dd.trace_id}", style="{", validate=False).format(record)
    assert "dd" not in record.__dict__


def test_without_it_the_context_is_there_for_other_loggers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DD_SERVICE", "shop")
    logs._application.cache_clear()
    with use_span(SPAN):
        assert log_context()["dd.span_id"] == "8"
        assert log_context()["dd.service"] == "shop"
    logs._application.cache_clear()


PROGRAM = """
import logging, spanbridge.auto
from opentelemetry import trace
logging.basicConfig(format="%(message)s %(dd.service)s %(dd.trace_id)s")
with trace.get_tracer("app").start_as_current_span("work") as span:
    logging.warning("hello")
    print(f"{span.get_span_context().trace_id:032x}")
"""


WORK = """
from opentelemetry import trace
trace.get_tracer("app").start_span("work").end()
"""


def run(program: str, directory: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=clean_variables(DD_SERVICE="shop", DD_TRACE_AGENT_URL="http://127.0.0.1:1", **variables),
        cwd=directory,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )


def test_a_launched_program(tmp_path: Path) -> None:
    done = run(PROGRAM, tmp_path)
    assert done.stderr.splitlines()[0] == f"hello shop {done.stdout.strip()}"
    assert "KeyError" in run(PROGRAM, tmp_path, DD_LOGS_INJECTION="false").stderr


def test_our_own_log(tmp_path: Path) -> None:
    program = "import spanbridge.auto"
    assert run(program, tmp_path).stderr == ""
    started = run(program, tmp_path, DD_TRACE_STARTUP_LOGS="true").stderr
    assert json.loads(started.partition("settings: ")[2].splitlines()[0])["service"] == "shop"
    for variable, value in (("DD_TRACE_DEBUG", "true"), ("OTEL_LOG_LEVEL", "debug")):
        assert "WARNING spanbridge: spans cannot be sent" in run(program + WORK, tmp_path, **{variable: value}).stderr
    done = run(program, tmp_path, DD_TRACE_LOG_FILE="own.log", DD_TRACE_STARTUP_LOGS="1")
    assert done.stderr == ""
    assert "settings: " in (tmp_path / "own.log").read_text()
    missing = run(program, tmp_path, DD_TRACE_LOG_FILE="no/such/directory").stderr
    assert "DD_TRACE_LOG_FILE" in missing


def test_other_loggers_as_the_documentation_shows_them(capsys: pytest.CaptureFixture[str]) -> None:
    structlog, loguru = pytest.importorskip("structlog"), pytest.importorskip("loguru")
    blocks = re.findall(r"^```text\n(.*?)^```$", (TREE / "docs" / "datadog.md").read_text(), re.MULTILINE | re.DOTALL)
    (recipe,) = (block for block in blocks if "structlog" in block)
    written: list[str] = []
    try:
        exec(recipe, {})
        loguru.logger.remove()
        loguru.logger.add(written.append, serialize=True)
        with use_span(SPAN):
            structlog.get_logger().info("hello")
            loguru.logger.info("hello")
        loguru_says = json.loads(written[0])["record"]["extra"]
        structlog_says = json.loads(capsys.readouterr().out)
    finally:
        structlog.reset_defaults()
        loguru.logger.configure(patcher=lambda record: None)
        loguru.logger.remove()
    assert structlog_says.pop("event") == "hello"
    assert structlog_says == loguru_says == log_context() | {"dd.trace_id": f"{SPAN_TRACE:032x}", "dd.span_id": "8"}
