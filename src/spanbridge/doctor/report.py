"""What a traced process says of itself: its integrations, its configuration, and what it has made so far.

`SPANBRIDGE_DEBUG=1` prints it when the program starts; the doctor has the programs that it runs write it to a folder
(SPANBRIDGE_DOCTOR_FOLDER) when they start and when they end, a file per process.
"""

from __future__ import annotations

import atexit
import json
import os
import platform
import sys
from collections import Counter
from dataclasses import asdict, fields
from importlib.metadata import PackageNotFoundError, version
from os import environ
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentelemetry import propagate, trace
from opentelemetry.sdk.trace import SpanProcessor

from spanbridge.core.guard import report
from spanbridge.core.options import boolean, from_environment
from spanbridge.core.status import status
from spanbridge.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.sdk.trace import ReadableSpan

    from spanbridge.exporters.datadog import Settings

FOLDER = "SPANBRIDGE_DOCTOR_FOLDER"
Report = dict[str, Any]
"""Plain values only: it goes through JSON."""

# What of the configuration is always shown; the rest only where it was set.
_ALWAYS = ("service", "env", "version", "agent_url", "trace_enabled", "names", "sampling_rules", "sample_rate")
_DISTRIBUTIONS = ("opentelemetry-api", "opentelemetry-sdk", "opentelemetry-instrumentation", "ddtrace")
# Fields of the settings that several sources can set, and the OTEL_* ones that win.
_ORIGINS = {
    "service": ("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES", "DD_SERVICE", "DD_SERVICE_NAME", "DD_TAGS"),
    "env": ("OTEL_RESOURCE_ATTRIBUTES", "DD_ENV", "DD_TAGS"),
    "version": ("OTEL_RESOURCE_ATTRIBUTES", "DD_VERSION", "DD_TAGS"),
    "agent_url": (
        "DD_TRACE_AGENT_URL",
        "DD_TRACE_AGENT_HOSTNAME",
        "DD_AGENT_HOST",
        "DD_TRACE_AGENT_PORT",
        "DD_AGENT_PORT",
    ),
}


class _Count(SpanProcessor):
    """Counts the spans of every scope."""

    def __init__(self) -> None:
        self.spans: Counter[str] = Counter()

    def on_end(self, span: ReadableSpan) -> None:
        self.spans[span.instrumentation_scope.name if span.instrumentation_scope else ""] += 1


_count: _Count | None = None


def at_start() -> None:
    """Report on this process, if somebody wants to know (the launcher calls this when it has set everything up)."""
    try:
        if folder := environ.get(FOLDER):
            _watch(Path(folder))
        if from_environment(("SPANBRIDGE_DEBUG",), boolean, default=False):
            from spanbridge.doctor import findings, text

            here = gather()
            print(text.render(here, findings.of(here)), file=sys.stderr)
    except Exception as error:
        report("SPANBRIDGE_DEBUG", error)


def _watch(folder: Path) -> None:
    global _count  # noqa: PLW0603
    provider = trace.get_tracer_provider()
    if hasattr(provider, "add_span_processor"):
        _count = _Count()
        provider.add_span_processor(_count)
    _write(folder)
    atexit.register(_write, folder)


def _write(folder: Path) -> None:
    if folder.is_dir():  # else the doctor is no longer interested
        (folder / f"{os.getpid()}.json").write_text(json.dumps(gather()))


def gather() -> Report:
    """Report on this process as it is now; imports no library."""
    spans = _count.spans if _count is not None else Counter[str]()
    return {
        "spanbridge": __version__,
        "python": platform.python_version(),
        "program": sys.argv[:1],
        "distributions": dict(_versions()),
        "integrations": [{**asdict(row), "spans": _made(spans, row.name)} for row in status()],
        "spans": sum(spans.values()),
        "provider": _provider(),
        "imported": [name for name in ("ddtrace", "gevent") if name in sys.modules],
        "configuration": list(configuration()),
    }


# Scopes of an instrumentor beside the one that is named like it.
_BESIDE = {"starlette": ("fastapi",)}


def _made(spans: Counter[str], integration: str) -> int:
    """Count the spans of one integration."""
    return sum(spans[f"spanbridge.instrumentors.{name}"] for name in (integration, *_BESIDE.get(integration, ())))


def _versions() -> Iterator[tuple[str, str]]:
    for name in _DISTRIBUTIONS:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            continue


def _provider() -> Report:
    provider = trace.get_tracer_provider()
    processors = getattr(getattr(provider, "_active_span_processor", None), "_span_processors", ())
    return {
        "class": f"{type(provider).__module__}.{type(provider).__qualname__}",
        "records": hasattr(provider, "add_span_processor"),
        "processors": [type(processor).__qualname__ for processor in processors if not isinstance(processor, _Count)],
        "sampler": getattr(getattr(provider, "sampler", None), "get_description", str)(),
        "propagator": sorted(propagate.get_global_textmap().fields),
    }


def configuration() -> Iterator[Report]:
    """Yield what is in force, and where each value comes from."""
    from spanbridge.exporters.datadog import Settings

    settings = Settings.from_environment()
    for row in fields(settings):
        variables = _ORIGINS.get(row.name, row.metadata.get("variables", ()))
        origin = next((name for name in variables if environ.get(name, "").strip()), "default")
        if row.name in _ALWAYS or (origin != "default" and variables):
            value = _shown(settings, row.name)
            yield {"name": row.name, "value": value, "origin": origin if value or origin == "default" else "default"}
    for name in sorted(environ):
        if name.startswith(("OTEL_", "SPANBRIDGE_")) and name != FOLDER:
            yield {"name": name, "value": _without_secrets(name), "origin": "environment"}


def _shown(settings: Settings, name: str) -> str:
    value = getattr(settings, name)
    return "" if value is None else value if isinstance(value, str) else str(value)


def _without_secrets(name: str) -> str:
    return "(set)" if name.endswith("_HEADERS") else environ[name]
