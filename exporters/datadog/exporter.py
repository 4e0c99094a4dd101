"""A SpanExporter for the Datadog Agent: usable alone behind OpenTelemetry's own processors."""

from __future__ import annotations

import time
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import INVALID_SPAN_CONTEXT

from spanbridge.core.guard import report
from spanbridge.exporters.datadog.chunks import Chunk, Member
from spanbridge.exporters.datadog.encoding import encode_chunk
from spanbridge.exporters.datadog.mapping import SpanMapper
from spanbridge.exporters.datadog.rules import keeps, span_rules
from spanbridge.exporters.datadog.sampler import agent_rates
from spanbridge.exporters.datadog.sender import Encoded, Pending, Sender
from spanbridge.exporters.datadog.settings import Settings, pairs
from spanbridge.exporters.datadog.stats import Concentrator
from spanbridge.exporters.datadog.trace import state_at_start

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

    from spanbridge.exporters.datadog.trace import TraceState
    from spanbridge.exporters.datadog.transport import Transport

# The longest that `export` holds the processor that calls it, in seconds, retries included: with a receiver that has
# taken the last payload, and with another.
EXPORT_SECONDS, PATIENCE = 5.0, 0.8
# What single spans of a rejected trace are kept for.
_OF_THEIR_OWN = frozenset({"_dd.span_sampling.mechanism", "_dd1.sr.eausr"})
SINGLE_SPAN = 8  # the mechanism of a span that is kept although its trace is not (protocol D.1)


class DatadogSpanExporter(SpanExporter):
    """Sends spans to the Agent as chunks of one trace each (protocol A, B, F).

    `DatadogSpanProcessor` is the better customer: it keeps a trace's spans together. Behind a stock processor a trace
    becomes as many chunks as batches it was spread over, and unsampled spans are not seen.

    Args:
        settings: read from the environment when not given.
        agent_url: where the Agent is, instead of what the settings say; so the next four.
        service: the application's service.
        env: the environment.
        version: the application's version.
        tags: tags of every span, as a mapping or as `key:value,...`.
        transport: another way to the Agent than the settings' (tests).
        on_rates: gets the sampling rates that the Agent answers with, by `service:...,env:...`; by default, every
            `DatadogSampler` of this process does.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        agent_url: str | None = None,
        service: str | None = None,
        env: str | None = None,
        version: str | None = None,
        tags: Mapping[str, str] | str | None = None,
        transport: Transport | None = None,
        on_rates: Callable[[Mapping[str, float]], None] | None = None,
    ) -> None:
        given: dict[str, Any] = {
            "agent_url": agent_url,
            "service": service,
            "env": env,
            "version": version,
            "tags": pairs(tags) if isinstance(tags, str) else tags,
        }
        said = {name: value for name, value in given.items() if value is not None}
        self.settings = replace(settings or Settings.from_environment(), **said)
        self.mapper = SpanMapper(self.settings, native_links=self.settings.api_version == "v0.4")
        self._span_rules = span_rules(self.settings.span_sampling_rules)
        # Whoever hands every recorded span over may have them counted here, if the Agent agrees.
        self.sees_every_span = False
        self.concentrator: Concentrator | None = None
        self.sender = Sender(self.settings, transport, on_rates or agent_rates.update)
        self._closed = False
        self._not_before = 0.0

    @property
    def sent(self) -> int:
        """How many spans were delivered by this process."""
        return self.sender.sent

    @property
    def lost(self) -> int:
        """How many spans were given up by this process."""
        return self.sender.lost

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans now; a receiver that was not there a moment ago is not waited for.

        Args:
            spans: finished spans, of any traces.
        """
        try:
            return self._export(spans)
        except Exception as error:
            report("DatadogSpanExporter.export", error)
            return SpanExportResult.FAILURE

    def _export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if self._closed:
            return SpanExportResult.FAILURE
        sender, lost, now = self.sender, self.sender.lost, monotonic()
        if not sender.up and now < self._not_before:
            sender.lose(len(spans))
            return SpanExportResult.FAILURE
        encoded = (self.encode(chunk) for chunk in _by_trace(spans))
        pending = Pending(chunk for chunk in encoded if chunk is not None)
        deadline = now + (EXPORT_SECONDS if sender.up else PATIENCE)
        while pending:
            pause = sender.send(pending, deadline)
            if self._closed or monotonic() + pause >= deadline:
                self._not_before = monotonic() + max(pause, PATIENCE)
                break
            time.sleep(pause)
        sender.lose(pending.spans)
        if sender.learning_is_due and not self._closed:
            self.learn()
        return SpanExportResult.SUCCESS if sender.lost == lost else SpanExportResult.FAILURE

    def begin_process(self) -> None:
        """Start anew in a forked child: counts and connections are its parent's."""
        self.concentrator = None
        self.sender.begin_process()

    def learn(self) -> None:
        """Ask the receiver what it can do."""
        if not self.sender.learn():
            return
        info = self.sender.info
        self.concentrator = None
        if self.sees_every_span and self.settings.stats and info.takes_stats:
            self.concentrator = Concentrator(self.settings, info)
        self.mapper.native_events = self.mapper.native_links and self.sender.takes_native_events

    def encode(self, chunk: Chunk) -> Encoded | None:
        """Map and encode one chunk; a span that cannot be mapped is left out, and reported once."""
        trace = chunk.trace
        mapper = self.mapper
        mapped: list[dict[str, Any]] = []
        for member in chunk.members:
            parent, local_root = member.parent, member.local_root
            try:
                row = mapper.map(member.span, top_level=local_root, local_root=local_root, trace=trace)
                service = member.service = row["service"]
                if local_root:
                    _mark_arrival(row, trace)
                elif parent is not None and service != (parent.service or mapper.service_of(parent.span)):
                    row["metrics"]["_dd.top_level"] = 1
                mapped.append(row)
            except Exception as error:
                self.sender.lose(1)
                report("mapping a span", error)
        if not mapped:
            return None
        try:
            first = chunk.members[0]
            trace.settle(first.span, mapped[0] if first.local_root else None)
            if trace.discard:
                return None
            if self._span_rules and (trace.priority or 0) <= 0:
                self._keep_single_spans(mapped)
            counted = self.concentrator is not None and trace.sampler is not None
            if counted:
                mapped = self._count(mapped, trace)
            if not mapped:
                return None
            self.mapper.finish_chunk(mapped, trace, partial=chunk.partial)
            if trace.error:
                mapped[0]["meta"]["_dd.propagation_error"] = trace.error
            return Encoded(encode_chunk(mapped), len(mapped), counted)
        except Exception as error:
            self.sender.lose(len(mapped))
            report("encoding a chunk", error)
            return None

    def _keep_single_spans(self, mapped: list[dict[str, Any]]) -> None:
        """Mark the spans of a rejected trace that are to be kept nevertheless (protocol D.3)."""
        for span in mapped:
            rule = next((rule for rule in self._span_rules if rule.fits(span)), None)
            if rule is None or not keeps(span["span_id"], rule.rate) or not rule.limiter.allows():
                continue
            span["metrics"]["_dd.span_sampling.mechanism"] = SINGLE_SPAN
            span["metrics"]["_dd.span_sampling.rule_rate"] = rule.rate
            if rule.per_second is not None:
                span["metrics"]["_dd.span_sampling.max_per_second"] = rule.per_second

    def _count(self, mapped: list[dict[str, Any]], trace: TraceState) -> list[dict[str, Any]]:
        """Count the spans of a chunk, and answer those that are still to be sent (protocol E)."""
        assert self.concentrator is not None
        self.concentrator.add(mapped, trace.origin, time.time_ns())
        if trace.priority is None or trace.priority > 0 or any(span["error"] for span in mapped):
            return mapped
        kept = [span for span in mapped if not _OF_THEIR_OWN.isdisjoint(span["metrics"])]
        self.sender.drop_rejected(0 if kept else 1, len(mapped) - len(kept))
        return kept

    def shutdown(self) -> None:
        """Stop sending."""
        try:
            self._closed = True
            self.sender.close()
        except Exception as error:
            report("DatadogSpanExporter.shutdown", error)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Do nothing, for `export` keeps nothing."""
        return True


def _mark_arrival(root: dict[str, Any], trace: TraceState) -> None:
    """Say on a local root what the caller's headers have said about its parent (protocol C.1, C.2)."""
    if trace.absent_parent and root["parent_id"] == trace.absent_parent:
        root["parent_id"] = 0
    if trace.last_parent_id and root["parent_id"]:
        root["meta"]["_dd.parent_id"] = trace.last_parent_id


def _by_trace(spans: Sequence[ReadableSpan]) -> list[Chunk]:
    """Group finished spans by trace."""
    traces: dict[int, list[ReadableSpan]] = {}
    for span in spans:
        traces.setdefault(span.context.trace_id, []).append(span)
    return [_chunk(trace_id, members) for trace_id, members in traces.items()]


def _chunk(trace_id: int, spans: list[ReadableSpan]) -> Chunk:
    spans.sort(key=lambda span: span.start_time or 0)
    members = {span.context.span_id: Member(span, None, False, True) for span in spans}
    for member in members.values():
        parent = member.span.parent
        member.parent = members.get(parent.span_id) if parent is not None and not parent.is_remote else None
        member.local_root = parent is None or parent.is_remote
    state = state_at_start(trace_id, spans[0].context or INVALID_SPAN_CONTEXT, None)
    first_root = sorted(members.values(), key=lambda member: not member.local_root)
    return Chunk(state, first_root, False)
