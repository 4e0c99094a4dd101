"""The command `spanbridge`."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from spanbridge.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand and answer the exit code."""
    parser = argparse.ArgumentParser(prog="spanbridge", description="OpenTelemetry instrumentation for Datadog.")
    parser.add_argument("--version", action="version", version=f"spanbridge {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="trace two small services and show what a Datadog receiver gets")
    demo.add_argument("--once", action="store_true", help="end after the last trace; exit 1 when a span is missing")
    demo.add_argument("--keep", action="store_true", help="leave the logs and databases, and say where they are")
    demo.set_defaults(run=_demo)

    listing = commands.add_parser("list", help="list the integrations and what they do in this environment")
    listing.set_defaults(run=_list)

    doctor = commands.add_parser(
        "doctor",
        help="say why nothing is traced, or what is",
        usage="spanbridge doctor [--send] [--json] [--seconds N] [-- COMMAND ...]",
        description="Runs COMMAND (or an empty program) as `opentelemetry-instrument COMMAND` would, and reports:"
        " integrations, conflicts, configuration, the Agent. Exit code 1 when something is wrong.",
    )
    doctor.add_argument("--send", action="store_true", help="send the Agent one trace")
    doctor.add_argument("--json", action="store_true", help="print the report for machines")
    doctor.add_argument("--seconds", type=float, help="interrupt COMMAND after N seconds, such as a server")
    doctor.set_defaults(run=_doctor)

    ours, command = _split(list(sys.argv[1:] if arguments is None else arguments))
    chosen = parser.parse_args(ours)
    chosen.program = command
    if command and chosen.run is not _doctor:
        parser.error(f"unrecognized arguments: {' '.join(command)}")
    code: int = chosen.run(chosen)
    return code


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Part our own arguments from the user's command, which begins after `--`."""
    if "--" not in arguments:
        return arguments, []
    at = arguments.index("--")
    return arguments[:at], arguments[at + 1 :]


def _doctor(chosen: argparse.Namespace) -> int:
    from spanbridge import doctor

    return doctor.run(chosen.program, seconds=chosen.seconds, send=chosen.send, as_json=chosen.json)


def _demo(chosen: argparse.Namespace) -> int:
    from spanbridge import demo

    return demo.run(once=chosen.once, keep=chosen.keep)


def _list(chosen: argparse.Namespace) -> int:
    import spanbridge

    spanbridge.instrument()
    lines = [("integration", "state", "installed", "versions", "tested up to")]
    for row in spanbridge.status():
        requires = " or ".join(row.requires) or "standard library"
        lines.append((row.name, str(row.state), row.version or "-", requires, row.tested or "-"))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())
    return 0
