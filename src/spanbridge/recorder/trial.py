"""Whether the recorder fits the SDK that is installed: both make the same spans once, and what comes out is compared.

The recorder uses names that OpenTelemetry does not promise to keep. Where they have changed, the SDK's spans are used.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from opentelemetry.context import Context
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import DEFAULT_ON
from opentelemetry.sdk.version import __version__
from opentelemetry.trace import Link, SpanContext, SpanKind, StatusCode, set_span_in_context

from spanbridge.core.guard import described, first_time, logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.sdk.trace import ReadableSpan, Span

    from spanbridge.recorder.tracer import Tracer

_SECOND = 10**9


class _Ids(IdGenerator):
    def generate_trace_id(self) -> int:
        return 1

    def generate_span_id(self) -> int:
        return 2


class _Seen(sdk.SpanProcessor):
    """Notes what a processor and an exporter can read."""

    def __init__(self) -> None:
        self.rows: list[Any] = []

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        self.rows.append((span.name, span.kind, span.context, span.parent, span.start_time, span.is_recording()))

    def on_end(self, span: ReadableSpan) -> None:
        row: Any = (
            *(span.to_json(), span.name, span.kind, span.context, span.parent, span.get_span_context()),
            *(span.start_time, span.end_time, dict(span.attributes or {}), span.dropped_attributes),
            *(span.dropped_events, span.dropped_links, span.resource, span.instrumentation_scope),
            *(span.status.status_code, span.status.description),
            [(event.name, event.timestamp, dict(event.attributes or {})) for event in span.events],
            [(link.context, dict(link.attributes or {})) for link in span.links],
        )
        self.rows.append(row)


def _use(tracer: sdk.Tracer) -> None:
    """Use a tracer in all the ways that the recorder does not leave to the SDK entirely."""
    attributes: Any = {"text": "value", "number": 1, "list": ["a", "b"]}
    links = [Link(SpanContext(3, 4, is_remote=True), {"key": 1})]
    root = tracer.start_span("root", Context(), SpanKind.SERVER, {"text": "value"}, links, _SECOND)
    child = tracer.start_span("child", set_span_in_context(root, Context()), attributes=attributes, start_time=_SECOND)
    child.set_attribute("text", "other")
    child.set_attributes({"more": 2.5, "list": [1, 2]})
    child.add_event("event", {"key": True}, 2 * _SECOND)
    child.add_link(SpanContext(5, 6, is_remote=False), {"key": "value"})
    child.update_name("renamed")
    child.set_status(StatusCode.ERROR, "failed")
    child.end(3 * _SECOND)
    root.set_attribute("late", 1)
    root.end(3 * _SECOND)


@cache
def recording() -> Callable[[sdk.Tracer], Tracer] | None:
    """Answer what makes a tracer of the SDK's ours; None, after one warning, if that would not go well."""
    try:
        from spanbridge.recorder.tracer import Tracer

        seen = _Seen()
        provider = sdk.TracerProvider(DEFAULT_ON, Resource({}), shutdown_on_exit=False, id_generator=_Ids())
        provider.add_span_processor(seen)
        tracer: Any = provider.get_tracer("trial", "1", "https://example.org/schema", {"key": "value"})
        _use(tracer)
        expected, seen.rows = seen.rows, []
        _use(Tracer.of(tracer))
        assert seen.rows == expected, "its spans are not the SDK's"
    except Exception as error:
        if first_time("recorder: misfit"):
            logger.warning(
                "spanbridge's recorder does not fit opentelemetry-sdk %s (%s); the SDK's own spans are used",
                __version__,
                described(error),
            )
        return None
    return Tracer.of
