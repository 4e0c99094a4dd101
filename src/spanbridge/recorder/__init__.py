"""OpenTelemetry spans at a fraction of the SDK's cost: a TracerProvider for programs, and for our configurator."""

from spanbridge.recorder.provider import TracerProvider

__all__ = ["TracerProvider"]
