"""One program under ddtrace and under spanbridge, compared by the operations that reach a Datadog receiver.

`python -m tests.parity [--cache DIR] [--show] [--tags] [--self] [name ...]`: `services` is two services that call each
other, every other name a script of programs/. Exit 1 on a difference that is not declared.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.environments import environment
from tests.parity import scripts, services
from tests.parity.differences import OF_DDTRACE, OF_SPANBRIDGE, adjust
from tests.parity.operations import difference, trees
from tests.parity.receiver import Launcher

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.parity.receiver import Span

_OURS = ("opentelemetry-sdk", "opentelemetry-instrumentation", "msgspec")


def main() -> int:
    names = ["services", *scripts.names()]
    parser = argparse.ArgumentParser(
        prog="python -m tests.parity", description="the same program, two tracers, one diff"
    )
    parser.add_argument("--cache", type=Path, default=Path(".nox", "parity"), help="where the environments live")
    parser.add_argument("--tags", action="store_true", help="also list, per operation name, the tags that differ")
    parser.add_argument(
        "--self", action="store_true", dest="itself", help="ddtrace against ddtrace: proves the harness"
    )
    parser.add_argument("--show", action="store_true", help="print both sides' trees")
    parser.add_argument("names", nargs="*", default=names, help=f"of {', '.join(names)}")
    arguments = parser.parse_args()
    return max([_judge(name, arguments) for name in arguments.names], default=0)


def _judge(name: str, arguments: argparse.Namespace) -> int:
    """Run one program under both tracers and print what differs."""
    print(f"--- {name}", flush=True)
    agent = environment(arguments.cache / "agent", "ddapm-test-agent>=1.69")
    script = None if name == "services" else scripts.read(name)
    libraries = services.LIBRARIES if script is None else script.dependencies
    more: dict[str, Any] = {} if script is None else {"alone": script.alone, "prepare": script.prepare}
    release = "4.16.0" if script is None else script.ddtrace
    python = environment(arguments.cache / f"ddtrace-{name}", f"ddtrace=={release}", *libraries, **more)
    ddtrace = ours = Launcher(python, "ddtrace-run")
    if not arguments.itself:
        cache = arguments.cache / f"spanbridge-{name}"
        python = environment(cache, *_OURS, *libraries, **more, with_spanbridge=True)
        ours = Launcher(python, "opentelemetry-instrument")
    run = services.run if script is None else script.run
    theirs, expected = run(ddtrace, agent)
    mine, got = run(ours, agent)
    roots = trees(theirs, every_span=False), trees(mine, every_span=not arguments.itself)
    if arguments.show:
        for side, title in zip(roots, ("ddtrace", "spanbridge"), strict=True):
            print(title, *(line for root in side for line in root.lines(1)), sep="\n")
    if arguments.tags:
        _compare_tags(theirs, mine)
    if script is not None:
        return script.compare(*roots, answers=difference(expected, got))
    return services.compare(
        adjust(roots[0], OF_DDTRACE),
        adjust(roots[1], OF_DDTRACE if arguments.itself else OF_SPANBRIDGE),
        answers=difference(expected, got),
    )


def _compare_tags(theirs: Iterable[Span], mine: Iterable[Span]) -> None:
    """Print per operation name which meta and metrics keys only one side ever has (information, not judged)."""
    keys: list[dict[str, set[str]]] = [{}, {}]
    for side, spans in enumerate((theirs, mine)):
        for span in spans:
            keys[side].setdefault(span["name"], set()).update(span.get("meta") or (), span.get("metrics") or ())
    for name in sorted(keys[0].keys() & keys[1].keys()):
        theirs_alone, ours_alone = sorted(keys[0][name] - keys[1][name]), sorted(keys[1][name] - keys[0][name])
        print(f"{name}: only ddtrace {theirs_alone}, only spanbridge {ours_alone}")


if __name__ == "__main__":
    sys.exit(main())
