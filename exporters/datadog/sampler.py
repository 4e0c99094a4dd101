"""Head sampling: what was decided upstream is followed, rules and the Agent's rates decide about new traces.

Rejected traces are recorded, not dropped, for Datadog counts them and may keep single spans of them. Where a decision
looks at names or tags it is made late: before the first outgoing request, or when the trace is sent.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import SpanContext, SpanKind, get_current_span

from spanbridge.core.guard import report
from spanbridge.exporters.datadog.mapping import SpanMapper, inferred_service
from spanbridge.exporters.datadog.rules import Limiter, keeps, trace_rules
from spanbridge.exporters.datadog.settings import Settings
from spanbridge.exporters.datadog.trace import (
    AUTO_KEEP,
    AUTO_REJECT,
    DEFAULT,
    LOW_64,
    USER_KEEP,
    USER_REJECT,
    TraceState,
    state_at_start,
    traces,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opentelemetry.context import Context
    from opentelemetry.trace import Link
    from opentelemetry.trace import TraceState as W3CTraceState
    from opentelemetry.util.types import Attributes

    from spanbridge.exporters.datadog.rules import Rule

_AGENT = "-1"  # the decision maker of the Agent's rates (protocol D.1)
_ANY_SERVICE = "service:,env:"
_NOTHING = Resource.get_empty()


class AgentRates(dict[str, float]):
    """The sampling rates that the Agent last answered with, by `service:...,env:...`; empty while it has none."""

    def update(self, rates: Mapping[str, float]) -> None:  # type: ignore[override]
        """Take the place of the old rates; an empty answer means that they hold on (protocol A.5)."""
        if rates:
            super().update(rates)
            for key in self.keys() - rates.keys():
                self.pop(key, None)

    def of(self, service: str, env: str) -> float | None:
        """Answer the rate for local roots of a service: its own, or the one for services that have none."""
        return self.get(f"service:{service},env:{env}", self.get(_ANY_SERVICE))


agent_rates = AgentRates()


class _Choice(NamedTuple):
    keep: bool
    decision_maker: str = DEFAULT
    rate: float | None = None
    rule: Rule | None = None


class DatadogSampler(Sampler):
    """Decides once per trace, with Datadog's priorities (protocol D.2).

    The attributes `manual.keep` and `manual.drop` override what was decided.

    Args:
        settings: read from the environment when not given.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings = settings or Settings.from_environment()
        self._rules = trace_rules(settings.sampling_rules, settings.sample_rate)
        self._limiter = Limiter(settings.rate_limit)
        self._mapper = SpanMapper(settings)
        self._own = settings.service or inferred_service(), settings.env

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: W3CTraceState | None = None,
    ) -> SamplingResult:
        """Answer RECORD_AND_SAMPLE or RECORD_ONLY for a span about to start.

        The answer for a new trace is what can be said before the span has its tags; its priority may differ.
        """
        parent = get_current_span(parent_context).get_span_context()
        decision = self.quick_decision(parent_context, trace_id, name, kind, attributes, parent)
        return SamplingResult(decision, attributes, parent.trace_state if parent.is_valid else None)

    def quick_decision(
        self,
        context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None,
        attributes: Attributes,
        parent: SpanContext,
    ) -> Decision:
        """Answer the same for a tracer that knows the parent, and that keeps attributes and trace state by itself."""
        try:
            state = traces.get_open(trace_id)
            if state is None and not parent[5]:  # a tuple, whose properties are slower: not valid
                state = traces.begin(trace_id)
            elif state is None:
                state = state_at_start(trace_id, parent, context)
                traces.remember(trace_id, state)
            if attributes and ("manual.keep" in attributes or "manual.drop" in attributes):
                state.decide_by_attributes(attributes)
            if state.priority is None and not self._rules and not agent_rates:
                state.decide(AUTO_KEEP, state.decision_maker or DEFAULT)
            begun, state.sampler = state.sampler is not None, self
            if state.priority is not None:
                keep = state.priority > 0
            elif begun and parent.is_valid and not parent.is_remote:
                keep = parent.trace_flags.sampled
            else:
                keep = self._foresee(trace_id, name, kind, attributes)
            return Decision.RECORD_AND_SAMPLE if keep else Decision.RECORD_ONLY  # noqa: TRY300 - guarded
        except Exception as error:
            report("sampling", error)
            return Decision.RECORD_AND_SAMPLE

    def settle(self, state: TraceState, root: ReadableSpan, mapped: Mapping[str, Any] | None = None) -> None:
        """Decide about a trace, once.

        Args:
            state: the record of the trace.
            root: its local root, which may still be open.
            mapped: the same span, if it has been mapped already.
        """
        with traces.lock:
            if state.priority is not None:
                return
            choice = self._choose(root, mapped)
            metrics, keep = state.metrics, choice.keep
            if choice.rate is not None:
                metrics["_dd.agent_psr" if choice.rule is None else "_dd.rule_psr"] = choice.rate
                state.meta["_dd.p.ksr"] = _short(choice.rate)
            if choice.rule is not None and keep:
                keep = self._limiter.allows()
                metrics["_dd.limit_psr"] = self._limiter.effective_rate
            state.discard = choice.rule is not None and choice.rule.discard and not keep
            levels = (AUTO_REJECT, AUTO_KEEP) if choice.rule is None else (USER_REJECT, USER_KEEP)
            state.decide(levels[keep], state.decision_maker or choice.decision_maker)

    def _choose(self, root: ReadableSpan, mapped: Mapping[str, Any] | None = None) -> _Choice:
        """Look a local root up in the rules, then in the Agent's rates; it is mapped only if they look at it."""
        trace_id = root.context.trace_id & LOW_64 if root.context else 0
        for rule in self._rules:
            if not rule.is_general:
                mapped = mapped or self._map(root)
            if rule.is_general or (mapped and rule.fits(mapped)):
                return _Choice(keeps(trace_id, rule.rate), rule.decision_maker, rule.rate, rule)
        if not agent_rates:
            return _Choice(keep=True)
        named = (mapped["service"], mapped["meta"].get("env", "")) if mapped else self._mapper.service_and_env_of(root)
        rate = agent_rates.of(*named)
        return _Choice(keep=True) if rate is None else _Choice(keeps(trace_id, rate), _AGENT, rate)

    def _map(self, span: ReadableSpan) -> Mapping[str, Any] | None:
        for _ in range(3):
            try:
                return self._mapper.map(span, top_level=True, local_root=True)
            except RuntimeError:  # another thread has added an attribute meanwhile
                continue
            except Exception as error:
                report("mapping a span for its sampling", error)
                break
        return None

    def _foresee(self, trace_id: int, name: str, kind: SpanKind | None, attributes: Attributes) -> bool:
        if not self._rules:  # which is nearly always so, and then the service is nearly always this one
            rate = agent_rates.of(*self._own)
            return rate is None or keeps(trace_id & LOW_64, rate)
        context = SpanContext(trace_id, 1, is_remote=False)
        span = ReadableSpan(name, context, resource=_NOTHING, attributes=attributes, kind=kind or SpanKind.INTERNAL)
        return self._choose(span).keep

    def get_description(self) -> str:
        """Name the sampler."""
        return type(self).__name__


def _short(rate: float) -> str:
    """Write a rate with at most six decimals (protocol C.1, `_dd.p.ksr`)."""
    return f"{math.floor(rate * 1e6 + 0.5) / 1e6:.6f}".rstrip("0").rstrip(".")


def datadog_sampler(argument: str | None = None) -> Sampler:
    """Make the sampler that OTEL_TRACES_SAMPLER=datadog means.

    Args:
        argument: OTEL_TRACES_SAMPLER_ARG; has no meaning here, the DD_* variables say what is kept.
    """
    return DatadogSampler()
