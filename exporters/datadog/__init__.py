"""Spans for the Datadog Agent, under the names that ddtrace's users know.

Names are imported at first use: reading the DD_* variables must not import the SDK.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spanbridge.exporters.datadog.exporter import DatadogSpanExporter
    from spanbridge.exporters.datadog.logs import inject_logs, log_context
    from spanbridge.exporters.datadog.migration import DatadogExportSpanProcessor, DatadogFormat
    from spanbridge.exporters.datadog.processor import DatadogSpanProcessor
    from spanbridge.exporters.datadog.propagator import DatadogPropagator, composite_propagator
    from spanbridge.exporters.datadog.sampler import DatadogSampler, datadog_sampler
    from spanbridge.exporters.datadog.settings import Settings, resource_attributes

__all__ = [
    "DatadogExportSpanProcessor",
    "DatadogFormat",
    "DatadogPropagator",
    "DatadogSampler",
    "DatadogSpanExporter",
    "DatadogSpanProcessor",
    "Settings",
    "composite_propagator",
    "datadog_sampler",
    "inject_logs",
    "log_context",
    "resource_attributes",
]

_MODULES = {
    "DatadogExportSpanProcessor": "migration",
    "DatadogFormat": "migration",
    "DatadogPropagator": "propagator",
    "DatadogSampler": "sampler",
    "DatadogSpanExporter": "exporter",
    "DatadogSpanProcessor": "processor",
    "Settings": "settings",
    "composite_propagator": "propagator",
    "datadog_sampler": "sampler",
    "inject_logs": "logs",
    "log_context": "logs",
    "resource_attributes": "settings",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
