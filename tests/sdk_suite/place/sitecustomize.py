"""Puts our TracerProvider in the place of the SDK's, in every process of the suite, and again after each reload."""

from __future__ import annotations

import importlib
import sys

from opentelemetry.sdk import trace

_OURS = [f"spanbridge.recorder.{name}" for name in ("span", "tracer", "trial", "provider")]
_reload = importlib.reload


def _put_ours_in_place() -> None:
    trace.TracerProvider = importlib.import_module("spanbridge.recorder.provider").TracerProvider  # type: ignore[misc]


def _reload_with_ours(module):  # type: ignore[no-untyped-def]
    """Reload ours after the SDK's: the tests do that to the SDK, and expect instances of the new classes."""
    reloaded = _reload(module)
    if module is trace:
        for name in _OURS:
            _reload(sys.modules[name])
        _put_ours_in_place()
    return reloaded


importlib.reload = _reload_with_ours
_put_ours_in_place()
