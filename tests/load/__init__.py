"""Storms of requests against real servers, each in a process of its own: no span lost, no context in the wrong request.

A program of `programs/` is an ordinary application with three routes; `storm` runs it, and `check` reads what it wrote:
every span, and the number of every request that reached a handler. Requests carry their number in the path, and every
other one a trace of its own in its headers.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.environments import clean_variables
from tests.servers import HOST, free_port, running, wait_for

if TYPE_CHECKING:
    from collections.abc import Sequence

TREE = Path(__file__).parents[2]

# What request `n` does is `KINDS[n % 5]`: the answer is awaited, it is an exception, the client goes away after the
# first bytes of a long body, or as soon as it has asked (such a request need not reach a handler).
KINDS = ("ok", "ok", "fails", "stream", "left")
PATHS = {"ok": "ok", "fails": "fails", "stream": "stream", "left": "ok"}


class Storm(NamedTuple):
    """What a server wrote: its spans, and the numbers of the requests that its handlers saw."""

    count: int
    spans: list[dict[str, Any]]
    handled: list[int]


def storm(directory: Path, program: str, *arguments: str, count: int = 200) -> Storm:
    """Run `tests.load.programs.<program>` and send it `count` requests at once.

    Args:
        directory: for the server's log and records.
        program: the name of the module.
        *arguments: its arguments, such as the server to use.
        count: of requests; a fifth of them leaves at once, a fifth reads half an answer, a fifth raises.
    """
    port, records = free_port(), directory / "records"
    records.touch()
    command = [sys.executable, "-m", f"tests.load.programs.{program}", *arguments]
    env = clean_variables(PORT=str(port), RECORDS=str(records), PYTHONPATH=str(TREE))
    with running(command, port, directory / "log", env):
        asyncio.run(_send(port, count))

        def done() -> bool:
            _, spans, handled = found = _read(count, records)
            return _servers(found).keys() >= {*handled, *_awaited(count)} and len(spans) >= 2 * len(handled)

        with suppress(AssertionError):  # then `check` says what is missing
            wait_for(done, "the last span", 30)
    return _read(count, records)


def _read(count: int, records: Path) -> Storm:
    rows = [json.loads(line) for line in records.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return Storm(count, [row for row in rows if "name" in row], [row["handled"] for row in rows if "handled" in row])


def _number(span: dict[str, Any]) -> int:
    return int(span["attributes"]["url.path"].rpartition("/")[2])


def _servers(found: Storm) -> dict[int, dict[str, Any]]:
    return {_number(span): span for span in found.spans if span["kind"] == "SERVER"}


def _awaited(count: int) -> list[int]:
    return [number for number in range(count) if KINDS[number % 5] != "left"]


def traced(number: int) -> bool:
    """Say whether the request carries a trace: number + 1, below the span of the same id."""
    return number % 2 == 0


async def _send(port: int, count: int) -> None:
    await asyncio.gather(*(_one(port, number) for number in range(count)))


async def _one(port: int, number: int) -> None:
    kind = KINDS[number % 5]
    lines = [f"GET /{PATHS[kind]}/{number} HTTP/1.1", f"Host: {HOST}:{port}", "Connection: close"]
    if traced(number):
        lines.append(f"traceparent: 00-{number + 1:032x}-{number + 1:016x}-01")
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write("\r\n".join([*lines, "\r\n"]).encode())
    await writer.drain()
    if kind == "stream":
        assert await reader.read(1)
    elif kind != "left":
        with suppress(ConnectionError):  # a server may reset the connection of a request that failed
            answer = await reader.read()
            assert kind == "fails" or f"number {number}\n".encode() in answer, answer[:500]
    writer.transport.abort()


def check(found: Storm, *, routes: Sequence[str], exceptions: bool = True) -> None:
    """Check that each request that reached a handler has its one span, and all its work within that span.

    Args:
        found: what the server wrote.
        routes: the names that server spans may have.
        exceptions: whether the exception of a failed request is recorded.
    """
    servers = _servers(found)
    assert Counter(_number(span) for span in found.spans if span["kind"] == "SERVER").most_common(1)[0][1] == 1
    assert sorted(set(_awaited(found.count)) - set(found.handled)) == [], "requests that reached no handler"
    assert sorted(set(found.handled) - servers.keys()) == [], "requests without a span"
    # A request whose client has left may be dropped between the entrance and the handler.
    assert {KINDS[number % 5] for number in servers.keys() - set(found.handled)} <= {"left"}
    assert {span["name"] for span in servers.values()} <= set(routes)
    for number, span in servers.items():
        expected = (number + 1, number + 1) if traced(number) else (span["trace_id"], None)
        assert (span["trace_id"], span["parent_id"]) == expected, f"request {number}: {span}"
        kind = KINDS[number % 5]
        assert span["status"] == ("ERROR" if kind == "fails" else "UNSET"), f"request {number}, {kind}: {span}"
        if exceptions and kind == "fails":
            assert span["exceptions"] == [f"number {number}"], f"request {number}: {span}"
    assert len({span["trace_id"] for span in servers.values()}) == len(servers)
    work = [span for span in found.spans if span["kind"] == "INTERNAL"]
    assert sorted(span["attributes"]["number"] for span in work) == sorted(found.handled)
    for span in work:
        server = servers[span["attributes"]["number"]]
        assert (span["trace_id"], span["parent_id"]) == (server["trace_id"], server["span_id"]), f"{span} of {server}"
    assert len(found.spans) == len(work) + len(servers)
