"""Receivers, and programs that are traced from their first line to their end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from spanbridge.exporters.datadog.sampler import agent_rates
from tests.exporters import receivers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def _no_rates() -> Iterator[None]:
    """No rates that the agent of another test has answered."""
    agent_rates.clear()
    yield
    agent_rates.clear()


@pytest.fixture(scope="session")
def agent_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[receivers.TestAgent]:
    with receivers.test_agent(tmp_path_factory.mktemp("agent")) as agent:
        yield agent


@pytest.fixture
def test_agent(agent_process: receivers.TestAgent) -> receivers.TestAgent:
    """Datadog's test agent, which has received nothing yet."""
    agent_process.clear()
    return agent_process


@pytest.fixture(scope="session")
def mini_agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[receivers.MiniAgent]:
    """Datadog's mini agent."""
    with receivers.mini_agent(tmp_path_factory.mktemp("mini-agent")) as agent:
        yield agent


@pytest.fixture
def receiver() -> Iterator[Callable[..., receivers.Faulty]]:
    """Start a faulty receiver: `receiver(script)`, or on a unix socket `receiver(script, path=...)`."""
    started: list[receivers.Faulty] = []

    def start(script: Callable[..., None], *, now: bool = True, path: Path | None = None) -> receivers.Faulty:
        faulty = receivers.Faulty(script, path)
        if now:
            faulty.start()
            started.append(faulty)
        return faulty

    yield start
    for faulty in started:
        faulty.stop()
