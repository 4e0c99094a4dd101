"""Breaks lines of ours, one at a time: whatever line raises, the application may not notice."""

from __future__ import annotations

import ast
import os
import sys
import threading
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import CodeType, FrameType

HOMES = tuple(
    str(Path(str(import_module(name).__file__)).parent)
    for name in ("spanbridge", "spanbridge.instrumentors", "spanbridge.exporters")
)
# What stands between the application and our guards: it calls, attaches and detaches, and does nothing that can fail.
# The first are whole files, the others functions, each of a few lines.
GLUE_FILES = ("core/tracing.py", "core/guard.py", "core/patching.py", "core/context.py", "testing.py")
GLUE = {
    ("aiohttp_client.py", "on_request_start"),  # awaited by aiohttp; calls what is guarded
    ("aiohttp_client.py", "on_request_end"),
    ("aiohttp_client.py", "on_request_exception"),
    ("asgi.py", "enter"),  # awaits the traced application
    ("asgi.py", "watched_send"),  # awaits the server's `send`; what it notes is guarded
    ("aws.py", "call_plain"),  # calls one of two replacements
    ("aws.py", "call_async"),
    ("aws_receiving.py", "receives"),  # compares a name
    ("carry.py", "__init__"),  # keeps its two arguments
    ("carry.py", "__call__"),  # runs the function that was handed over, in its context
    ("carry.py", "context_to_carry"),  # asks for the current context
    ("database.py", "adopt"),  # all of it is guarded but the last answer
    ("drivers.py", "call"),  # calls the driver
    ("drivers.py", "call_async"),
    ("elasticsearch.py", "_named"),  # the client's own span, entered
    ("futures.py", "run_once"),  # runs the thread's own `run`
    ("futures.py", "put_back"),
    ("gevent.py", "start"),  # calls the greenlet's own
    ("gevent.py", "start_later"),
    ("futures.py", "_is_shared"),  # reads attributes
    ("grpc.py", "intercept_service"),  # awaits grpc, and calls what is guarded
    ("http_server.py", "answered"),  # asks and closes the scope; what it describes is guarded
    ("http_server.py", "__iter__"),  # a body on its way: takes the application's chunks, and ends the scope
    ("http_server.py", "__next__"),
    ("http_server.py", "close"),
    ("http_server.py", "_end"),
    ("http_server.py", "__del__"),
    ("httplib.py", "before"),  # completes the scope
    ("httplib.py", "_taken"),  # takes an attribute off
    ("psycopg2.py", "make_cursor"),  # calls the driver
    ("psycopg2.py", "trace"),  # asks `adopt`; the rest is guarded
    ("rpc_calls.py", "serve"),  # calls the handler
    ("rpc_calls.py", "serve_async"),
    ("rpc_calls.py", "serve_stream_async"),
    ("rpc_calls.py", "_serve"),
    ("rpc_calls.py", "_serve_async"),
    ("rpc_calls.py", "_serve_stream"),
    ("rpc_calls.py", "_serve_stream_async"),
    ("rpc_calls.py", "_at_once"),  # runs the coroutine that it is given
    ("sqlalchemy_events.py", "_before"),  # all of it is guarded but the last answer
    ("sqlite3.py", "cursor"),
    ("sqlite3.py", "backup"),
    ("transport.py", "send"),  # takes and gives back its turn; the request is made below it
    ("worker.py", "_run"),  # goes on until it is stopped, whatever was raised
}
# What replacements call the original: their own lines are glue as well, what they call must be guarded.
ORIGINALS = {"wrapped", "original", "opened"}

# How many lines one test breaks in CI.
SAMPLE = 25


class Line(NamedTuple):
    """A line of a function: that of a lambda is another one than that of the call which it is an argument of."""

    file: str
    number: int
    function: str


class ChaosError(Exception):
    """What no application expects."""


def is_ours(filename: str) -> bool:
    """Say whether a file is of the package."""
    return filename.startswith(HOMES) and not filename.endswith(GLUE_FILES)


@cache
def _wrappers(filename: str) -> frozenset[tuple[str, int]]:
    """The functions of a file, by name and first line, that call an original."""
    found = set()
    for node in ast.walk(ast.parse(Path(filename).read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            own = [part for statement in node.body for part in _walk_own(statement)]
            calls = {part.func.id for part in own if isinstance(part, ast.Call) and isinstance(part.func, ast.Name)}
            if calls & ORIGINALS:
                found.add((node.name, min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])))
    return frozenset(found)


@cache
def _guards(filename: str) -> frozenset[int]:
    """The lines of a file that say no more than `try:`; they cannot raise, though tracing counts them."""
    return frozenset(
        node.lineno for node in ast.walk(ast.parse(Path(filename).read_text())) if isinstance(node, ast.Try)
    )


def _walk_own(node: ast.AST) -> Iterator[ast.AST]:
    """A statement and what it is made of, without the functions defined in it."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)):
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _walk_own(child)


def is_breakable(code: CodeType) -> bool:
    """Say whether the lines of some code may raise: it is ours, and no glue."""
    path = code.co_filename
    return (
        is_ours(path)
        and (Path(path).name, code.co_name) not in GLUE
        and (code.co_name, code.co_firstlineno) not in _wrappers(path)
    )


@contextmanager
def traced(at_line: Callable[[Line], None], wanted: Callable[[CodeType], bool] = is_breakable) -> Iterator[None]:
    """Call `at_line` before each line of `wanted` code that runs, in this thread and in those that start meanwhile."""
    # Looked at in every call of any function; by identity, for the hash of code is made anew each time.
    verdicts: dict[int, tuple[CodeType, bool]] = {}

    def local(frame: FrameType, event: str, argument: object) -> object:
        if event == "line" and frame.f_lineno not in _guards(frame.f_code.co_filename):
            at_line(Line(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name))
        return local

    def every(frame: FrameType, event: str, argument: object) -> object:
        code = frame.f_code
        known = verdicts.get(id(code))
        if known is None:
            known = verdicts[id(code)] = (code, wanted(code))
        return local if known[1] else None

    def go_on(frame: FrameType, event: str, argument: object) -> None:
        # Python takes a trace function that has raised off its thread.
        if sys.gettrace() is None:
            sys.settrace(every)  # type: ignore[arg-type]

    before, profile = sys.gettrace(), sys.getprofile()
    threading.settrace(every)  # type: ignore[arg-type]
    threading.setprofile(go_on)
    sys.settrace(every)  # type: ignore[arg-type]
    sys.setprofile(go_on)
    try:
        yield
    finally:
        sys.setprofile(profile)
        sys.settrace(before)
        threading.setprofile(profile)  # type: ignore[arg-type]
        threading.settrace(before)  # type: ignore[arg-type]


@contextmanager
def broken(line: Line) -> Iterator[list[Line]]:
    """Let one line raise, every time; answers the list of times that it did."""
    hits: list[Line] = []
    armed = True  # a thread that starts meanwhile is traced until it ends

    def at_line(here: Line) -> None:
        if armed and here == line:
            hits.append(here)
            raise ChaosError(shown(here))

    def has_it(code: CodeType) -> bool:
        return (code.co_filename, code.co_name) == (line.file, line.function) and is_breakable(code)

    with traced(at_line, has_it):
        yield hits
    armed = False


def lines_of(work: Callable[[], object]) -> list[Line]:
    """Every line of ours that `work` runs through, in order."""
    lines: dict[Line, None] = {}
    with traced(lambda line: lines.setdefault(line)):
        work()
    return list(lines)


def sample(lines: list[Line]) -> list[Line]:
    """The lines that this run breaks: CHAOS=all breaks every one of them, in half an hour; else some of them.

    Which ones depends on the lines alone, so that a run that fails fails again.
    """
    if os.environ.get("CHAOS") == "all" or len(lines) <= SAMPLE:
        return lines
    return sorted(Random(len(lines)).sample(lines, SAMPLE))


def shown(line: Line) -> str:
    """A line as a person would name it."""
    return f"{Path(line.file).name}:{line.number} {line.function}"
