"""OpenTelemetry spans at a fraction of the SDK's cost: a TracerProvider that is the SDK's, with spans of ours."""

from __future__ import annotations

from opentelemetry.sdk import trace as _sdk

from spanbridge.core.options import from_environment as _from_environment
from spanbridge.recorder.provider import TracerProvider, adopt

__all__ = ["TracerProvider", "adopt", "chosen_provider"]

_PROVIDERS: dict[str, type[_sdk.TracerProvider]] = {"spanbridge": TracerProvider, "sdk": _sdk.TracerProvider}


def chosen_provider() -> type[_sdk.TracerProvider]:
    """Answer the class that SPANBRIDGE_RECORDER names: ours, or for `sdk` the SDK's own."""
    return _PROVIDERS[_from_environment(["SPANBRIDGE_RECORDER"], _known, "spanbridge")]


def _known(raw: str) -> str:
    name = raw.strip().lower()
    if name not in _PROVIDERS:
        raise ValueError(f"expected {' or '.join(_PROVIDERS)}")
    return name
