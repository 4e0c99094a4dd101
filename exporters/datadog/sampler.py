"""Head sampling: a decision made upstream is followed, new traces are kept; rejected ones are recorded, not dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import get_current_span

from spanbridge.exporters.datadog.trace import AUTO_KEEP, DEFAULT, state_at_start, traces

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.context import Context
    from opentelemetry.trace import Link, SpanKind, TraceState
    from opentelemetry.util.types import Attributes


class DatadogSampler(Sampler):
    """Decides once per trace, with Datadog's priorities (protocol D.2).

    Rejected traces become RECORD_ONLY, because Datadog counts them and may keep single spans of them. The attributes
    `manual.keep` and `manual.drop` override what was decided.
    """

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """Answer RECORD_AND_SAMPLE or RECORD_ONLY for a span about to start."""
        parent = get_current_span(parent_context).get_span_context()
        state = traces.get_open(trace_id) or state_at_start(trace_id, parent, parent_context)
        if state.priority is None:
            state.decide(AUTO_KEEP, DEFAULT)
        if attributes:
            state.decide_by_attributes(attributes)
        traces.remember(trace_id, state)
        keep = state.priority is not None and state.priority > 0
        return SamplingResult(
            Decision.RECORD_AND_SAMPLE if keep else Decision.RECORD_ONLY,
            attributes,
            parent.trace_state if parent.is_valid else None,
        )

    def get_description(self) -> str:
        """Name the sampler."""
        return type(self).__name__


def datadog_sampler(argument: str | None = None) -> Sampler:
    """Make the sampler that OTEL_TRACES_SAMPLER=datadog means.

    Args:
        argument: OTEL_TRACES_SAMPLER_ARG; has no meaning here.
    """
    return DatadogSampler()
