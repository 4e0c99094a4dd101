"""What is wrong, or may surprise, each in one line that names the fix."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import entry_points
from os import environ
from typing import TYPE_CHECKING, Any

from spanbridge.core import spelling
from spanbridge.core.status import State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spanbridge.doctor.agent import Answer
    from spanbridge.doctor.report import Report

ERROR, WARNING, NOTE = "error", "warning", "note"


@dataclass(frozen=True)
class Finding:
    """One thing found.

    Args:
        level: `error` (spans are missing or doubled), `warning` (probably not meant), or `note`.
        what: what it is.
        fix: what to do about it; empty when there is nothing to do.
    """

    level: str
    what: str
    fix: str = ""


def of(report: Report, agent: Answer | None = None, *, program: bool = False) -> list[Finding]:
    """Judge a report.

    Args:
        report: what the process said of itself.
        agent: what the Agent answered, if it was asked.
        program: whether the report is of a whole run of the user's program.
    """
    found = [*_provider(report), *_rivals(report), *_integrations(report), *_names()]
    if agent is not None and _goes_to_datadog(report):
        found += _agent(agent)
    if program:
        found += _run(report)
    order = (ERROR, WARNING, NOTE)
    return sorted(found, key=lambda finding: order.index(finding.level))


def _goes_to_datadog(report: Report) -> bool:
    return any("Datadog" in name for name in report["provider"]["processors"])


def _provider(report: Report) -> Iterator[Finding]:
    provider, configuration = report["provider"], {row["name"]: row for row in report["configuration"]}
    if not provider["records"]:
        reason, fix = "no TracerProvider is set", "start the program with `opentelemetry-instrument`"
        if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
            reason, fix = "OTEL_SDK_DISABLED is true", "unset OTEL_SDK_DISABLED"
        elif configuration.get("trace_enabled", {}).get("value") == "False":
            reason, fix = "DD_TRACE_ENABLED is false", "unset DD_TRACE_ENABLED"
        yield Finding(ERROR, f"no spans are made: {reason}", fix)
    elif not provider["processors"]:
        yield Finding(ERROR, "spans are made, but no exporter takes them", "unset OTEL_TRACES_EXPORTER, or name one")
    elif not _goes_to_datadog(report):
        exporters = ", ".join(provider["processors"])
        yield Finding(NOTE, f"spans do not go to a Datadog Agent but to: {exporters}", "unset OTEL_TRACES_EXPORTER")
    service = configuration.get("service", {}).get("value")
    if not service:
        yield Finding(WARNING, "the service has no name", "set DD_SERVICE")


def _rivals(report: Report) -> Iterator[Finding]:
    if "ddtrace" in report["imported"]:
        yield Finding(
            ERROR, "ddtrace is loaded in the same process: operations are traced twice", "start it without ddtrace-run"
        )
    groups = (("distro", "OTEL_PYTHON_DISTRO"), ("configurator", "OTEL_PYTHON_CONFIGURATOR"))
    for group, variable in groups:
        others = sorted(
            entry.name
            for entry in entry_points(group=f"opentelemetry_{group}")
            if not entry.value.startswith("spanbridge.")
        )
        chosen = environ.get(variable, "spanbridge")
        if others and chosen != "spanbridge":
            yield Finding(
                WARNING, f"the {group} in charge is {chosen!r}, as {variable} says", f"set {variable}=spanbridge"
            )
        elif others:
            yield Finding(NOTE, f"another {group} is installed, and not used: {', '.join(others)}")
    names: dict[str, list[str]] = {}
    for entry in entry_points(group="opentelemetry_instrumentor"):
        names.setdefault(entry.name, []).append(entry.value)
    for name, values in sorted(names.items()):
        others = [value for value in values if not value.startswith("spanbridge.")]
        if others and len(others) < len(values):
            ours = environ.get("SPANBRIDGE_PREFER", "").strip().lower() != "contrib"
            used, fix = ("spanbridge's", "contrib") if ours else ("the other one", "spanbridge")
            package = others[0].partition(":")[0].replace(".", "-").replace("_", "-")
            yield Finding(
                NOTE,
                f"{name} has another instrumentor installed ({others[0].partition(':')[0]}); {used} is used",
                f"pip uninstall {package}, or SPANBRIDGE_PREFER={fix} for the other one",
            )
    api, sdk = (report["distributions"].get(f"opentelemetry-{name}") for name in ("api", "sdk"))
    if api != sdk:
        yield Finding(
            WARNING,
            f"opentelemetry-api is {api}, opentelemetry-sdk {sdk}",
            "pip install -U opentelemetry-api opentelemetry-sdk",
        )


def _integrations(report: Report) -> Iterator[Finding]:
    for row in report["integrations"]:
        name, reason = row["name"], row["reason"]
        if row["state"] == State.TOO_OLD.value:
            requires = " or ".join(row["requires"])
            yield Finding(WARNING, f"{name} is not traced: {reason}", f"pip install -U '{requires}'")
        elif row["state"] == State.DISABLED.value:
            yield Finding(WARNING, f"{name} is not traced: {reason}", _enabling(row))
        elif row["state"] == State.FAILED.value:
            yield Finding(ERROR, f"{name} is not traced: {reason}", "report this, with the output of --json")


def _enabling(row: dict[str, Any]) -> str:
    variable = row["reason"].split(" ", 1)[0].partition("=")[0]
    if not variable.isupper():
        return ""
    if "does not name it" in row["reason"]:
        return f"add {row['name']} to {variable}"
    return f"take {row['name']} out of {variable}" if "names it" in row["reason"] else f"unset {variable}"


def _names() -> Iterator[Finding]:
    for message in spelling.misspelt():
        yield Finding(WARNING, message.what, message.fix)


def _agent(agent: Answer) -> Iterator[Finding]:
    if agent.problem:
        yield Finding(ERROR, f"the Datadog Agent at {agent.url} cannot be reached: {agent.problem}", agent.advice)
    elif agent.advice:
        yield Finding(WARNING, f"the receiver at {agent.url} is unusual: {agent.version or 'no version'}", agent.advice)
    if agent.sent is False:
        yield Finding(
            ERROR, f"the test trace was not taken by {agent.url}", "look into the Agent's log (trace-agent.log)"
        )


def _run(report: Report) -> Iterator[Finding]:
    states = {row["state"] for row in report["integrations"]}
    if State.ACTIVE.value not in states:
        yield Finding(
            WARNING, "the program imported none of the libraries that are traced", "see the table of integrations"
        )
    elif not report["spans"]:
        yield Finding(WARNING, "the program made no span: it called none of the patched operations")
