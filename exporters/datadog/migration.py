"""The names of the former opentelemetry-exporter-datadog, so that changing the import is enough.

`DatadogSpanExporter` is in `exporter.py`; it takes the former keywords, too.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from spanbridge.exporters.datadog import headers
from spanbridge.exporters.datadog.processor import DatadogSpanProcessor
from spanbridge.exporters.datadog.propagator import DatadogPropagator

if TYPE_CHECKING:
    from spanbridge.exporters.datadog.exporter import DatadogSpanExporter


class DatadogExportSpanProcessor(DatadogSpanProcessor):
    """`DatadogSpanProcessor` under its former name.

    Args:
        span_exporter: maps and sends.
        schedule_delay_millis: how often spans are sent, in milliseconds.
        max_trace_size: has no meaning any more; a trace of any size is sent in parts.
    """

    def __init__(
        self, span_exporter: DatadogSpanExporter, schedule_delay_millis: float = 5_000, max_trace_size: int = 4_096
    ) -> None:
        settings = span_exporter.settings
        span_exporter.settings = replace(settings, flush_interval=max(schedule_delay_millis, 1) / 1000)
        super().__init__(span_exporter)


class DatadogFormat(DatadogPropagator):
    """`DatadogPropagator` under its former name."""

    TRACE_ID_KEY = headers.TRACE_ID
    PARENT_ID_KEY = headers.PARENT_ID
    SAMPLING_PRIORITY_KEY = headers.PRIORITY
    ORIGIN_KEY = headers.ORIGIN
