"""Toy operations for the engine's tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from opentelemetry.trace import SpanKind

from spanbridge.core.semconv import Names, Semconv
from spanbridge.core.tracing import Operation, Setup, TracerSource

STABLE = Semconv(Names.STABLE, Names.STABLE)


def setup(provider: Any = None, **options: Any) -> Setup:
    """Make what an `instrument()` call decides."""
    return Setup("toy", TracerSource("toys", STABLE.schema_url, provider), STABLE, options)


def describe(*args: Any, **kwargs: Any) -> dict[str, Any]:
    """Take any call."""
    return {"toy.arguments": len(args) + len(kwargs)}


PLAIN: Operation[Any] = Operation(SpanKind.INTERNAL, describe, lambda record: "toy", lambda record: record)


def operation(**fields: Any) -> Operation[Any]:
    """Make a kind of call that differs from the plain one in `fields`."""
    return replace(PLAIN, **fields)
