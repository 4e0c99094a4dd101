"""Propagation between services: x-datadog-* alone, or together with W3C trace context and baggage as ddtrace does it.

What came in is kept in the context (priority, origin, tags) until the local root starts; see `trace.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from opentelemetry import baggage
from opentelemetry.context import Context, set_value
from opentelemetry.propagators.textmap import DefaultGetter, TextMapPropagator, default_getter, default_setter
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, TraceFlags, get_current_span, set_span_in_context

from spanbridge.core.guard import report
from spanbridge.exporters.datadog import headers
from spanbridge.exporters.datadog.mapping import attributes_of
from spanbridge.exporters.datadog.settings import Settings
from spanbridge.exporters.datadog.trace import LOW_64, REMOTE_KEY, Remote, TraceState, remote_in, traces

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.propagators.textmap import CarrierT, Getter, Setter

    from spanbridge.exporters.datadog.headers import Found, Values


_FIELDS = {
    "datadog": (headers.TRACE_ID, headers.PARENT_ID, headers.PRIORITY, headers.ORIGIN, headers.TAGS),
    "tracecontext": (headers.TRACEPARENT, headers.TRACESTATE),
    "b3": (headers.B3,),
    "b3multi": (headers.B3_TRACE_ID, headers.B3_SPAN_ID, headers.B3_SAMPLED, headers.B3_FLAGS),
    "baggage": (headers.BAGGAGE,),
}


def _fold(name: str) -> str:
    return name.lower().replace("_", "-").removeprefix("http-")


def _values(carrier: Any, getter: Getter[Any]) -> Values:
    """Return a look-up of header values by lower-case name.

    OpenTelemetry's default getter is case-sensitive, so a plain mapping is searched by folded names where needed
    (also WSGI's); getters of frameworks know their carriers.
    """
    if not (isinstance(getter, DefaultGetter) and isinstance(carrier, Mapping)):
        return lambda name: [_text(value) for value in found] if (found := getter.get(carrier, name)) else ()
    folded: dict[str, Any] = {}

    def values(name: str) -> Sequence[str]:
        found = carrier.get(name)
        if found is None:
            if not folded:
                folded.update({"": None}, **{_fold(key): carrier[key] for key in carrier if isinstance(key, str)})
            found = folded.get(name)
        if found is None:
            return []
        return [_text(found)] if isinstance(found, str | bytes) else [_text(value) for value in found]

    return values


def _text(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _span_context(found: Found) -> SpanContext:
    priority = found.state.priority
    # Nobody has decided yet: "sampled" lets foreign samplers go on; ours looks at the record first.
    sampled = headers.SAMPLED if priority is None or priority > 0 else 0
    flags = TraceFlags(sampled | found.flags & headers.RANDOM)
    return SpanContext(found.trace_id, found.span_id, True, flags, found.members)


def _with_remote(found: Found, links: tuple[Link, ...], context: Context) -> Context:
    context = set_value(REMOTE_KEY, Remote(found.trace_id, found.state, links), context)
    return set_span_in_context(NonRecordingSpan(_span_context(found)), context)


def _state(span: Any, span_context: SpanContext, context: Context | None) -> TraceState:
    """Find the record of the current trace, and decide now at the latest: what is sent is binding.

    The record of a trace that nobody has recorded is made from the sampled flag.
    """
    trace_id = span_context.trace_id
    if (state := traces.get(trace_id)) is not None:
        if not isinstance(span, NonRecordingSpan):
            try:
                state.look_around()
                if not state.watched:  # no processor of ours has seen it begin
                    state.decide_by_attributes(attributes_of(span))
                state.settle(span)
            except Exception as error:
                report("deciding about a trace", error)
        return state
    if (remote := remote_in(context, trace_id)) is not None:
        return remote.state
    state = TraceState.new(trace_id)
    state.priority = int(span_context.trace_flags & headers.SAMPLED)
    return state


def _inject_datadog(
    carrier: Any, span_context: SpanContext, state: TraceState, setter: Setter[Any], most_tags: int
) -> None:
    if state.headers is None:
        state.headers = headers.write_datadog(span_context.trace_id, state, most_tags)
    for name, value in state.headers:
        setter.set(carrier, name, value)
    span_id = span_context.span_id
    setter.set(carrier, headers.PARENT_ID, "0" if span_id == state.absent_parent else str(span_id))


def _inject_b3(
    write: Callable[[int, int, int | None], Mapping[str, str]],
    carrier: Any,
    span_context: SpanContext,
    state: TraceState,
    setter: Setter[Any],
) -> None:
    if span_context.span_id != state.absent_parent:
        for name, value in write(span_context.trace_id, span_context.span_id, state.priority).items():
            setter.set(carrier, name, value)


def _inject_w3c(carrier: Any, span_context: SpanContext, state: TraceState, setter: Setter[Any]) -> None:
    trace_id, span_id, remote, flags, members, _ = span_context
    if span_id == state.absent_parent:
        return
    sampled = flags & headers.SAMPLED if state.priority is None else state.priority > 0
    setter.set(
        carrier, headers.TRACEPARENT, f"00-{trace_id:032x}-{span_id:016x}-{flags & headers.RANDOM | sampled:02x}"
    )
    if state.member is None:
        state.member = headers.write_member(state)
    # Only spans that are sent to Datadog may be named as the last one.
    last = state.last_parent_id if remote else f"{span_id:016x}"
    own = f"dd=p:{last}{state.member}" if last else f"dd={state.member[1:]}"
    setter.set(carrier, headers.TRACESTATE, headers.write_tracestate(own, members) if members else own)


def _inject_baggage(carrier: Any, context: Context | None, setter: Setter[Any]) -> None:
    if items := headers.write_baggage(baggage.get_all(context)):
        setter.set(carrier, headers.BAGGAGE, items)


class DatadogPropagator(TextMapPropagator):
    """Reads and writes x-datadog-* headers only; goes together with OpenTelemetry's `tracecontext` and `baggage`.

    This is what OTEL_PROPAGATORS=datadog means. `composite_propagator` is the better choice where nothing else
    propagates, because it also resolves conflicts between the formats.

    Args:
        settings: read from the environment when not given.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self._most_tags = (settings or Settings.from_environment()).x_datadog_tags_max_length

    def extract(
        self,
        carrier: CarrierT,
        context: Context | None = None,
        getter: Getter[CarrierT] = default_getter,
    ) -> Context:
        """Return `context` with the remote parent that the carrier names, if it names one."""
        try:
            context = Context() if context is None else context
            found = headers.read_datadog(_values(carrier, getter))
            if found is None:
                return context
            before = get_current_span(context).get_span_context()
            if before.is_remote and before.trace_id == found.trace_id:
                found = found._replace(flags=before.trace_flags, members=before.trace_state)
            return _with_remote(found, (), context)
        except Exception as error:
            report("extracting x-datadog headers", error)
            return Context() if context is None else context

    def inject(
        self,
        carrier: CarrierT,
        context: Context | None = None,
        setter: Setter[CarrierT] = default_setter,
    ) -> None:
        """Write the current span's headers into the carrier."""
        try:
            span = get_current_span(context)
            span_context = span.get_span_context()
            if span_context.is_valid:
                _inject_datadog(carrier, span_context, _state(span, span_context, context), setter, self._most_tags)
        except Exception as error:
            report("injecting x-datadog headers", error)

    @property
    def fields(self) -> set[str]:
        """The headers that `inject` may write."""
        return set(_FIELDS["datadog"])


def composite_propagator(settings: Settings | None = None) -> TextMapPropagator:
    """Make the propagator that DD_TRACE_PROPAGATION_STYLE(_EXTRACT, _INJECT) asks for (protocol C.3).

    Args:
        settings: read from the environment when not given.
    """
    return _CompositePropagator(settings or Settings.from_environment())


class _CompositePropagator(TextMapPropagator):
    """Several formats at once: the first context found is continued, contradicting ones become links."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        most_tags = settings.x_datadog_tags_max_length
        readers: dict[str, Callable[[Values], Found | None]] = {
            "datadog": headers.read_datadog,
            "tracecontext": headers.read_w3c,
            "b3": headers.read_b3,
            "b3multi": headers.read_b3_multi,
        }
        writers: dict[str, Callable[[Any, SpanContext, TraceState, Setter[Any]], None]] = {
            "datadog": partial(_inject_datadog, most_tags=most_tags),
            "tracecontext": _inject_w3c,
            "b3": partial(_inject_b3, headers.write_b3),
            "b3multi": partial(_inject_b3, headers.write_b3_multi),
        }
        self._readers = [(style, readers[style]) for style in settings.styles_extract if style in readers]
        self._writers = [writers[style] for style in settings.styles_inject if style in writers]

    def extract(
        self,
        carrier: CarrierT,
        context: Context | None = None,
        getter: Getter[CarrierT] = default_getter,
    ) -> Context:
        """Return `context` with the remote parent and the baggage that the carrier holds."""
        try:
            context = Context() if context is None else context
            if self._settings.behavior_extract == "ignore":
                return context
            values = _values(carrier, getter)
            context = self._extract_parent(values, context)
            if "baggage" in self._settings.styles_extract:
                for name, value in headers.read_baggage(values).items():
                    context = baggage.set_baggage(name, value, context)
            return context  # noqa: TRY300 - guarded like all else
        except Exception as error:
            report("extracting trace context", error)
            return Context() if context is None else context

    def _extract_parent(self, values: Values, context: Context) -> Context:
        primary: Found | None = None
        primary_style = ""
        links: list[Link] = []
        for style, read in self._readers:
            found = read(values)
            if found is None:
                continue
            if primary is None:
                primary, primary_style = found, style
                if self._settings.extract_first:
                    break
            elif _same_trace(primary, found):
                if style == "tracecontext":
                    primary = _merge(primary, found, from_datadog=primary_style == "datadog")
            else:
                links.append(_link(found, "terminated_context", style))
        if primary is None:
            return context
        if self._settings.behavior_extract == "restart":
            link = _link(primary, "propagation_behavior_extract", primary_style)
            return set_value(REMOTE_KEY, Remote(0, TraceState(), (link,)), context)
        return _with_remote(primary, tuple(links), context)

    def inject(
        self,
        carrier: CarrierT,
        context: Context | None = None,
        setter: Setter[CarrierT] = default_setter,
    ) -> None:
        """Write the current span and the baggage into the carrier, in every style."""
        try:
            span = get_current_span(context)
            span_context = span.get_span_context()
            if span_context.is_valid:
                state = _state(span, span_context, context)
                for write in self._writers:
                    write(carrier, span_context, state, setter)
            if "baggage" in self._settings.styles_inject:
                _inject_baggage(carrier, context, setter)
        except Exception as error:
            report("injecting trace context", error)

    @property
    def fields(self) -> set[str]:
        """The headers that `inject` may write."""
        return {header for style in self._settings.styles_inject for header in _FIELDS.get(style, ())}


def _same_trace(primary: Found, other: Found) -> bool:
    """Compare trace ids; one side may know the low half only, as 64-bit tracers do."""
    if primary.trace_id == other.trace_id:
        return True
    low = primary.trace_id & LOW_64
    return low == other.trace_id & LOW_64 and low in {primary.trace_id, other.trace_id}


def _merge(primary: Found, w3c: Found, *, from_datadog: bool) -> Found:
    """Let W3C headers of the same trace complete the primary context (protocol C.3)."""
    state = primary.state
    if w3c.trace_id > primary.trace_id:
        state.tags["_dd.p.tid"] = f"{w3c.trace_id >> 64:016x}"
    if w3c.span_id != primary.span_id:
        # A hop without Datadog tracing came last: it is the parent, and the last Datadog span is kept as a tag.
        last = f"{primary.span_id:016x}" if from_datadog and not state.absent_parent else ""
        state.last_parent_id = w3c.state.last_parent_id or last
        state.absent_parent = 0
    return w3c._replace(trace_id=max(w3c.trace_id, primary.trace_id), state=state)


def _link(found: Found, reason: str, style: str) -> Link:
    # Here "sampled" is for the reader: it is not set where nobody has decided.
    sampled = headers.SAMPLED if (found.state.priority or 0) > 0 else 0
    context = SpanContext(found.trace_id, found.span_id, True, TraceFlags(sampled), found.members)
    return Link(context, {"reason": reason, "context_headers": style})
