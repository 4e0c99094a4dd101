"""Spans for the Datadog Agent, under the names that ddtrace's users know."""

from __future__ import annotations

from spanbridge.exporters.datadog.exporter import DatadogSpanExporter
from spanbridge.exporters.datadog.processor import DatadogSpanProcessor
from spanbridge.exporters.datadog.propagator import DatadogPropagator, composite_propagator
from spanbridge.exporters.datadog.sampler import DatadogSampler, datadog_sampler
from spanbridge.exporters.datadog.settings import Settings, resource_attributes

__all__ = [
    "DatadogPropagator",
    "DatadogSampler",
    "DatadogSpanExporter",
    "DatadogSpanProcessor",
    "Settings",
    "composite_propagator",
    "datadog_sampler",
    "resource_attributes",
]
