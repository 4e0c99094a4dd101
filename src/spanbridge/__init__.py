"""OpenTelemetry instrumentation for Python services on Datadog.

`instrument()` patches every installed library, `status()` says what is traced and why not, `flush()` sends what is
finished, before a process ends by `os._exit`.
"""

from __future__ import annotations

from opentelemetry import trace

from spanbridge.core.guard import report
from spanbridge.core.status import IntegrationStatus, PatchStatus, State, registry, status
from spanbridge.version import __version__

__all__ = [
    "IntegrationStatus",
    "PatchStatus",
    "State",
    "__version__",
    "flush",
    "instrument",
    "status",
    "uninstrument",
]


def instrument(*names: str) -> None:
    """Instrument every integration of ours, or those of `names` (entry-point names); imports no library."""
    for name, instrumentor in registry():
        wanted = not names or name in names
        if wanted and not isinstance(instrumentor, Exception) and not instrumentor.is_instrumented_by_opentelemetry:
            instrumentor.instrument(skip_dep_check=not names)


def uninstrument(*names: str) -> None:
    """Take the patches of every integration of ours, or of those of `names`, back."""
    for name, instrumentor in registry():
        wanted = not names or name in names
        if wanted and not isinstance(instrumentor, Exception) and instrumentor.is_instrumented_by_opentelemetry:
            instrumentor.uninstrument()


def flush(timeout_millis: int = 5_000) -> bool:
    """Send the finished spans now.

    Args:
        timeout_millis: the longest to wait, in milliseconds.

    Returns:
        True if all were sent in time, or there was nothing to send.
    """
    force_flush = getattr(trace.get_tracer_provider(), "force_flush", None)
    if force_flush is None:
        return True
    try:
        return bool(force_flush(timeout_millis))
    except Exception as error:
        report("flush()", error)
        return False
