"""The doctor's report for people."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from spanbridge.core.status import State

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from spanbridge.doctor.agent import Answer
    from spanbridge.doctor.findings import Finding
    from spanbridge.doctor.report import Report

_QUIET = State.NOT_INSTALLED.value


def render(report: Report, findings: Sequence[Finding], agent: Answer | None = None, *, program: bool = False) -> str:
    """Answer the whole report as text.

    Args:
        report: what the process said of itself.
        findings: what is to be said about it.
        agent: what the Agent answered, if it was asked.
        program: whether the report is of a whole run of the user's program, so that spans were counted.
    """
    versions = ", ".join(f"{name} {number}" for name, number in report["distributions"].items())
    blocks = [
        [f"spanbridge {report['spanbridge']}, Python {report['python']}, {versions}"],
        ["Integrations", *_indented(_integrations(report, program=program))],
        ["Configuration", *_indented(_configuration(report))],
        *([["Agent", *_indented(_agent(agent))]] if agent is not None else []),
        ["Findings", *_indented(_findings(findings))],
    ]
    return "\n\n".join("\n".join(block) for block in blocks)


def _indented(lines: Iterator[str]) -> Iterator[str]:
    return (f"  {line}".rstrip() for line in lines)


def _table(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Align columns; the last one is as long as it is."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
    for row in rows:
        yield "  ".join([*(f"{cell:{width}}" for cell, width in zip(row, widths, strict=False)), row[-1]])


def _integrations(report: Report, *, program: bool) -> Iterator[str]:
    rows = [("library", "installed", "state", "spans" if program else "tested up to", "why")]
    for row in report["integrations"]:
        if row["state"] == _QUIET:
            continue
        patches = Counter(patch["state"] for patch in row["patches"])
        why = row["reason"]
        if row["state"] == State.ACTIVE.value:
            why = f"{patches[State.ACTIVE.value]} of {len(row['patches'])} patch points"
        fourth = str(row["spans"]) if program else row["tested"] or "-"
        rows.append((row["name"], row["version"] or "-", row["state"], fourth, why))
    yield from _table(rows)
    absent = [row["name"] for row in report["integrations"] if row["state"] == _QUIET]
    if absent:
        yield f"not installed: {', '.join(absent)}"


def _configuration(report: Report) -> Iterator[str]:
    provider = report["provider"]
    yield from _table(
        [
            *((row["name"], row["origin"], row["value"] or "-") for row in report["configuration"]),
            ("provider", "", provider["class"]),
            ("processors", "", ", ".join(provider["processors"]) or "none"),
            ("sampler", "", provider["sampler"]),
            ("propagated headers", "", ", ".join(provider["propagator"])),
        ]
    )


def _agent(agent: Answer) -> Iterator[str]:
    if agent.problem:
        yield f"{agent.url}: {agent.problem}"
        return
    yield f"{agent.url}: Datadog Agent {agent.version or 'of unknown version'}, {len(agent.endpoints)} endpoints"
    if agent.sent is not None:
        yield "a test trace was taken" if agent.sent else "a test trace was not taken"


def _findings(findings: Sequence[Finding]) -> Iterator[str]:
    if not findings:
        yield "nothing is wrong"
    for finding in findings:
        yield f"{finding.level}: {finding.what}" + (f"; fix: {finding.fix}" if finding.fix else "")
