"""200 requests at once against every framework under its servers: successes, exceptions and clients that go away."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.load import check, storm

if TYPE_CHECKING:
    from pathlib import Path


class Case(NamedTuple):
    """One program under one server.

    Args:
        program: of `programs/`.
        server: its argument.
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


CASES = (
    Case("asgi", "uvicorn", ("uvicorn",), ("GET",)),
    Case("starlette", "uvicorn", ("starlette", "uvicorn"), routes("{number:int}")),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.program} under {case.server}")
def test_no_span_is_lost_and_no_context_leaks(case: Case, tmp_path: Path) -> None:
    for module in case.modules:
        pytest.importorskip(module)
    found = storm(tmp_path, case.program, case.server)
    check(found, routes=case.names)
