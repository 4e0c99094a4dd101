"""Programs written for the former opentelemetry-exporter-datadog need a new import and nothing else."""

from __future__ import annotations

from typing import Any

from opentelemetry.propagate import get_global_textmap, set_global_textmap

from spanbridge.exporters.datadog import DatadogExportSpanProcessor, DatadogFormat, DatadogSpanExporter
from spanbridge.testing import TracerProvider
from tests.exporters.samples import Transport


def test_a_former_program() -> None:
    transport = Transport()
    exporter = DatadogSpanExporter(
        agent_url="http://agent:8126", service="example", env="test", version="0.0.1", tags="team:infrastructure",
        transport=transport,  # type: ignore[arg-type]
    )  # fmt: skip
    assert exporter.settings.agent_url == "http://agent:8126"
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(DatadogExportSpanProcessor(exporter, schedule_delay_millis=50, max_trace_size=10))
    with provider.get_tracer("app").start_as_current_span("foo"):
        pass
    provider.shutdown()
    ((span,),) = transport.chunks
    assert (span["service"], span["resource"]) == ("example", "foo")
    assert span["meta"].items() >= {"env": "test", "version": "0.0.1", "team": "infrastructure"}.items()
    assert exporter.settings.flush_interval == 0.05


def test_the_former_propagator() -> None:
    before = get_global_textmap()
    set_global_textmap(DatadogFormat())
    try:
        assert DatadogFormat.TRACE_ID_KEY in get_global_textmap().fields
    finally:
        set_global_textmap(before)
    headers: dict[str, Any] = {DatadogFormat.TRACE_ID_KEY: "1", DatadogFormat.PARENT_ID_KEY: "2"}
    assert DatadogFormat().extract(headers)
