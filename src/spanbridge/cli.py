"""The command `spanbridge`."""

from __future__ import annotations

import argparse
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

    chosen = parser.parse_args(arguments)
    code: int = chosen.run(chosen)
    return code


def _demo(chosen: argparse.Namespace) -> int:
    from spanbridge import demo

    return demo.run(once=chosen.once, keep=chosen.keep)


def _list(chosen: argparse.Namespace) -> int:
    import spanbridge

    rows = spanbridge.status()
    width = max((len(row.name) for row in rows), default=0)
    for row in rows:
        requires = " or ".join(row.requires) or "standard library"
        print(f"{row.name:{width}}  {requires}" + (f"  (installed: {row.version})" if row.version else ""))
    return 0
