"""A user's program, for type checkers: `nox -s types` runs mypy --strict and pyright on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Flask
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

import spanbridge
from spanbridge.exporters.datadog import DatadogSpanExporter, DatadogSpanProcessor
from spanbridge.instrumentors.flask import FlaskInstrumentor
from spanbridge.instrumentors.sqlite3 import SQLite3Instrumentor

if TYPE_CHECKING:
    from opentelemetry.trace import Span

provider = TracerProvider()
provider.add_span_processor(DatadogSpanProcessor(DatadogSpanExporter()))
trace.set_tracer_provider(provider)


def name_it(span: Span, environ: dict[str, object]) -> None:
    span.update_name("request")


app = Flask("shop")
FlaskInstrumentor().instrument_app(app, request_hook=name_it, excluded_urls="health")
SQLite3Instrumentor().instrument(tracer_provider=provider)
active: list[str] = [row.name for row in spanbridge.status() if row.state is spanbridge.State.ACTIVE]
delivered: bool = spanbridge.flush(timeout_millis=100)
