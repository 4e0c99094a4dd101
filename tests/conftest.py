"""What every test may ask for, and what every test gets: variables of ours cleared, private servers per session."""

from __future__ import annotations

import os
from typing import Any

import hypothesis
import pytest

from tests import servers

for name in [name for name in os.environ if name.startswith(("OTEL_", "DD_", "SPANBRIDGE_"))]:
    if name == "SPANBRIDGE_RECORDER":  # the same tests run with both
        continue
    del os.environ[name]  # before anything of ours is imported: some settings are read once

# How long examples take says nothing on a busy machine.
hypothesis.settings.register_profile(
    "patient",
    hypothesis.settings.default,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("patient")

pytest_plugins = ["spanbridge.testing", *servers.MODULES]


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The settings that a vendor would have translated, empty."""
    from spanbridge.core import options  # once the variables are gone

    values: dict[str, Any] = {}
    monkeypatch.setattr(options, "_settings", values)
    monkeypatch.setattr(options, "_vendors_loaded", True)
    return values
