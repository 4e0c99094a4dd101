"""200 requests at once against every framework under its servers: successes, exceptions and clients that go away."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple
from warnings import catch_warnings, simplefilter

import pytest

from tests.load import check, storm

if TYPE_CHECKING:
    from pathlib import Path


class Case(NamedTuple):
    """One program under one server.

    Args:
        program: of `programs/`.
        server: its argument, if it takes one.
        modules: what must be installed.
        names: of the server spans.
    """

    program: str
    server: str
    modules: tuple[str, ...]
    names: tuple[str, ...]


def routes(template: str) -> tuple[str, ...]:
    """Name the three routes that every program has, in the framework's way of writing a path's parameter."""
    return tuple(f"GET /{kind}/{template}" for kind in ("ok", "fails", "stream"))


DJANGO = tuple(name.replace("GET /", "GET ") for name in routes("<int:number>"))
CASES = (
    Case("aiohttp", "", ("aiohttp",), routes("{number}")),
    Case("asgi", "uvicorn", ("uvicorn",), ("GET",)),
    Case("falcon", "gunicorn", ("falcon", "gunicorn"), routes("{number:int}")),
    Case("falcon", "waitress", ("falcon", "waitress"), routes("{number:int}")),
    Case("falcon_asgi", "uvicorn", ("falcon.asgi", "uvicorn"), routes("{number:int}")),
    Case("starlette", "uvicorn", ("starlette", "uvicorn"), routes("{number:int}")),
    Case("tornado", "", ("tornado",), routes("{number}")),
    Case("bottle", "gunicorn", ("bottle", "gunicorn"), routes("<number:int>")),
    Case("bottle", "waitress", ("bottle", "waitress"), routes("<number:int>")),
    Case("bottle", "wsgiref", ("bottle",), routes("<number:int>")),
    Case("django", "gunicorn", ("django", "gunicorn"), DJANGO),
    Case("django", "waitress", ("django", "waitress"), DJANGO),
    Case("django", "wsgiref", ("django",), DJANGO),
    Case("django", "uvicorn", ("django", "uvicorn"), DJANGO),
    Case("flask", "gunicorn", ("flask", "gunicorn"), routes("<int:number>")),
    Case("flask", "waitress", ("flask", "waitress"), routes("<int:number>")),
    Case("flask", "wsgiref", ("flask",), routes("<int:number>")),
    Case("molten", "gunicorn", ("molten", "gunicorn"), routes("{number}")),
    Case("molten", "waitress", ("molten", "waitress"), routes("{number}")),
    Case("pyramid", "gunicorn", ("pyramid", "gunicorn"), routes("{number}")),
    Case("pyramid", "waitress", ("pyramid", "waitress"), routes("{number}")),
    Case("pyramid", "wsgiref", ("pyramid",), routes("{number}")),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.program} {case.server}".strip())
def test_no_span_is_lost_and_no_context_leaks(case: Case, tmp_path: Path) -> None:
    with catch_warnings():
        simplefilter("ignore")  # to find a module within a package, Python imports the package
        missing = [module for module in case.modules if find_spec(module) is None]
    if missing:
        pytest.skip(f"could not import {missing[0]!r}")
    found = storm(tmp_path, case.program, *case.server.split())
    check(found, routes=case.names)
