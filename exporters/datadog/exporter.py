"""A SpanExporter for the Datadog Agent: usable alone behind OpenTelemetry's own processors."""

from __future__ import annotations

from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import INVALID_SPAN_CONTEXT

from spanbridge.core.guard import report
from spanbridge.exporters.datadog.chunks import Chunk, Member
from spanbridge.exporters.datadog.encoding import encode_chunk
from spanbridge.exporters.datadog.mapping import SpanMapper
from spanbridge.exporters.datadog.sender import Encoded, Outcome, Sender
from spanbridge.exporters.datadog.settings import Settings
from spanbridge.exporters.datadog.trace import state_at_start

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.trace import ReadableSpan
    from spanbridge.exporters.datadog.trace import TraceState
    from spanbridge.exporters.datadog.transport import Transport

# The longest that `export` holds the processor that calls it, in seconds, retries included.
EXPORT_SECONDS = 5.0


class DatadogSpanExporter(SpanExporter):
    """Sends spans to the Agent as chunks of one trace each (protocol A, B, F).

    `DatadogSpanProcessor` is the better customer: it keeps a trace's spans together. Behind a stock processor a trace
    becomes as many chunks as batches it was spread over, and unsampled spans are not seen.

    Args:
        settings: read from the environment when not given.
        transport: another way to the Agent than the settings' (tests).
    """

    def __init__(self, settings: Settings | None = None, *, transport: Transport | None = None) -> None:
        self.settings = settings or Settings.from_environment()
        self.mapper = SpanMapper(self.settings)
        self.sender = Sender(self.settings, transport)
        self._closed = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans now.

        Args:
            spans: finished spans, of any traces.
        """
        if self._closed:
            return SpanExportResult.FAILURE
        encoded = [chunk for members in _by_trace(spans) if (chunk := self.encode(members)) is not None]
        if not encoded:
            return SpanExportResult.SUCCESS
        lost, deadline = self.sender.lost, monotonic() + EXPORT_SECONDS
        while self.sender.send(encoded, deadline) is Outcome.RETRY:
            pause = self.sender.pause()
            if self._closed or monotonic() + pause >= deadline:
                self.sender.lose(encoded)
                break
            sleep(pause)
        return SpanExportResult.SUCCESS if self.sender.lost == lost else SpanExportResult.FAILURE

    def encode(self, chunk: Chunk) -> Encoded | None:
        """Map and encode one chunk; a span that cannot be mapped is left out, and reported once."""
        service_of = self.mapper.service_of
        mapped = []
        for member in chunk.members:
            try:
                above = member.parent
                top_level = above is None or service_of(above.span) != service_of(member.span)
                mapped.append(self.mapper.map(member.span, top_level=top_level, local_root=member.local_root))
            except Exception as error:
                self.sender.lost += 1
                report("mapping a span", error)
        if not mapped:
            return None
        try:
            _mark_arrival(mapped[0], chunk.trace)
            self.mapper.finish_chunk(mapped, chunk.trace, partial=chunk.partial)
            return Encoded(encode_chunk(mapped), len(mapped))
        except Exception as error:
            self.sender.lost += len(mapped)
            report("encoding a chunk", error)
            return None

    def shutdown(self) -> None:
        """Stop sending."""
        self._closed = True
        self.sender.close()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Do nothing, for `export` keeps nothing."""
        return True


def _mark_arrival(root: dict[str, Any], trace: TraceState) -> None:
    """Say on the first span what the caller's headers left to say (protocol C.1, C.2)."""
    if trace.absent_parent and root["parent_id"] == trace.absent_parent:
        root["parent_id"] = 0
    if trace.last_parent_id:
        root["meta"]["_dd.parent_id"] = trace.last_parent_id
    if trace.error:
        root["meta"]["_dd.propagation_error"] = trace.error


def _by_trace(spans: Sequence[ReadableSpan]) -> list[Chunk]:
    """Group finished spans by trace."""
    traces: dict[int, list[ReadableSpan]] = {}
    for span in spans:
        traces.setdefault(span.context.trace_id, []).append(span)  # type: ignore[union-attr]
    return [_chunk(trace_id, members) for trace_id, members in traces.items()]


def _chunk(trace_id: int, spans: list[ReadableSpan]) -> Chunk:
    spans.sort(key=lambda span: span.start_time or 0)
    members = {span.context.span_id: Member(span, None, False, True) for span in spans}  # type: ignore[union-attr]
    for member in members.values():
        parent = member.span.parent
        member.parent = members.get(parent.span_id) if parent is not None and not parent.is_remote else None
        member.local_root = parent is None or parent.is_remote
    state = state_at_start(trace_id, spans[0].context or INVALID_SPAN_CONTEXT, None)
    first_root = sorted(members.values(), key=lambda member: not member.local_root)
    return Chunk(state, first_root, False)
