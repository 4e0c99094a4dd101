"""Headers in, headers out; what peers send may be anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import baggage, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.trace.span import TraceState as W3CTraceState

from spanbridge.exporters.datadog import DatadogPropagator, Settings, composite_propagator, headers
from spanbridge.exporters.datadog.trace import REMOTE_KEY, Remote, TraceState, traces

if TYPE_CHECKING:
    from collections.abc import Iterator

LOW, HIGH = 0x1122334455667788, 0x6A5B4C3D00000000
SPAN = 0x99AA
TRACE = HIGH << 64 | LOW
DATADOG = {
    "x-datadog-trace-id": str(LOW),
    "x-datadog-parent-id": str(SPAN),
    "x-datadog-sampling-priority": "2",
    "x-datadog-origin": "rum",
    "x-datadog-tags": f"_dd.p.dm=-4,_dd.p.tid={HIGH:016x},_dd.p.usr.id=YmI=",
}
W3C = {"traceparent": f"00-{TRACE:032x}-{SPAN:016x}-01"}


@pytest.fixture(autouse=True)
def _no_records() -> Iterator[None]:
    traces.forget()
    yield
    traces.forget()


def current(context: Context) -> SpanContext:
    return trace.get_current_span(context).get_span_context()


def state(context: Context) -> TraceState:
    value = context[REMOTE_KEY]
    assert isinstance(value, Remote)
    return value.state


def links(context: Context) -> list[tuple[int, dict[str, Any]]]:
    value = context[REMOTE_KEY]
    assert isinstance(value, Remote)
    return [(link.context.trace_id, dict(link.attributes or {})) for link in value.links]


def extract(carrier: dict[str, Any], **changed: Any) -> Context:
    return composite_propagator(Settings(**changed)).extract(carrier)


def inject(context: Context, **changed: Any) -> dict[str, str]:
    carrier: dict[str, str] = {}
    composite_propagator(Settings(**changed)).inject(carrier, context)
    return carrier


def local(record: TraceState | None = None, *, flags: int = 1, members: W3CTraceState | None = None) -> Context:
    """A context with a span of this process, and its record."""
    if record is not None:
        traces.hold(TRACE, record)
    span = NonRecordingSpan(SpanContext(TRACE, SPAN, False, TraceFlags(flags), members))
    return set_span_in_context(span, Context())


# --- x-datadog-*


@pytest.mark.parametrize("propagator", [DatadogPropagator(Settings()), composite_propagator(Settings())])
def test_datadog_headers_are_read(propagator: Any) -> None:
    context = propagator.extract(DATADOG)
    span = current(context)
    assert (span.trace_id, span.span_id, span.is_remote, int(span.trace_flags)) == (TRACE, SPAN, True, 1)
    assert state(context) == TraceState(
        priority=2, decision_maker="-4", origin="rum", tags={"_dd.p.tid": f"{HIGH:016x}", "_dd.p.usr.id": "YmI="}
    )


def test_what_came_in_goes_out() -> None:
    carrier: dict[str, str] = {}
    propagator = DatadogPropagator(Settings())
    propagator.inject(carrier, propagator.extract(DATADOG))
    assert carrier == DATADOG
    assert carrier.keys() == propagator.fields


@pytest.mark.parametrize(
    "change",
    [str.upper, str.title, lambda name: "HTTP_" + name.upper().replace("-", "_")],
    ids=["upper", "title", "wsgi"],
)
def test_names_of_headers_have_no_case(change: Any) -> None:
    carrier = {change(name): value for name, value in (DATADOG | W3C).items()}
    assert current(extract(carrier)).trace_id == TRACE
    assert current(DatadogPropagator(Settings()).extract(carrier)).trace_id == TRACE


def test_values_may_be_lists_and_bytes() -> None:
    assert current(extract({"x-datadog-trace-id": [b"7", b"8"], "x-datadog-parent-id": b"9"})).trace_id == 7


def test_getters_of_frameworks_are_used() -> None:
    class Pairs(Getter[list[tuple[bytes, bytes]]]):
        def get(self, carrier: list[tuple[bytes, bytes]], key: str) -> list[str] | None:
            return [value.decode() for name, value in carrier if name.decode().lower() == key] or None

        def keys(self, carrier: list[tuple[bytes, bytes]]) -> list[str]:
            return [name.decode() for name, _ in carrier]

    carrier = [(name.title().encode(), value.encode()) for name, value in DATADOG.items()]
    assert current(composite_propagator(Settings()).extract(carrier, getter=Pairs())).trace_id == TRACE


@pytest.mark.parametrize("raw", ["0", "-1", "1e3", "0x10", "18446744073709551616", "9" * 5000, "١٢", "1_0", "", " "])
def test_bad_trace_ids_mean_no_context(raw: str) -> None:
    before = Context({"mine": 1})
    assert DatadogPropagator(Settings()).extract(DATADOG | {"x-datadog-trace-id": raw}, before) is before


def test_an_unknown_priority_is_undecided_and_lets_foreign_samplers_go_on() -> None:
    for raw in ("", "3", "-2", "x", "9" * 100):
        context = DatadogPropagator(Settings()).extract(DATADOG | {"x-datadog-sampling-priority": raw})
        assert state(context).priority is None
        assert current(context).trace_flags.sampled
        assert "x-datadog-sampling-priority" not in inject(context)


def test_rejected_traces_are_not_sampled() -> None:
    for raw in ("0", "-1"):
        context = extract(DATADOG | {"x-datadog-sampling-priority": raw})
        assert not current(context).trace_flags.sampled
        assert inject(context)["x-datadog-sampling-priority"] == raw


def test_a_trace_without_parent_is_continued_as_its_root() -> None:
    context = extract(DATADOG | {"x-datadog-parent-id": "0"})
    assert current(context).is_valid
    assert current(context).trace_id == TRACE
    assert state(context).absent_parent == current(context).span_id
    forwarded = inject(context)
    assert forwarded["x-datadog-parent-id"] == "0"
    assert "traceparent" not in forwarded


@pytest.mark.parametrize(
    ("raw", "error", "tags", "maker"),
    [
        ("_dd.p.a=b=c,other=1,_dd.p.upstream_services=x", "", {"_dd.p.a": "b=c"}, ""),
        ("_dd.p.a= b ", "", {"_dd.p.a": "b"}, ""),
        ("_dd.p.dm=-255", "", {}, "-255"),
        ("_dd.p.dm=-256,_dd.p.a=b", "decoding_error", {"_dd.p.a": "b"}, ""),
        ("_dd.p.dm=1", "decoding_error", {}, ""),
        ("_dd.p.a", "decoding_error", {}, ""),
        ("_dd.p.a=", "decoding_error", {}, ""),
        ("=b", "decoding_error", {}, ""),
        ("_dd.p.a=\u00fc", "decoding_error", {}, ""),
        ("_dd.p.a=" + "x" * 505, "extract_max_size", {}, ""),
        ("_dd.p.tid=0000000000000000", "malformed_tid 0000000000000000", {}, ""),
        ("_dd.p.tid=ABCDEF0123456789", "malformed_tid ABCDEF0123456789", {}, ""),
        ("_dd.p.tid=12", "malformed_tid 12", {}, ""),
    ],
)
def test_tags(raw: str, error: str, tags: dict[str, str], maker: str) -> None:
    found = state(extract(DATADOG | {"x-datadog-tags": raw}))
    assert (found.error, found.tags, found.decision_maker) == (error, tags, maker)


def test_tags_that_do_not_fit_are_left_out_and_noted() -> None:
    record = TraceState(1, "-0", tags={"_dd.p.long": "x" * 600})
    assert "x-datadog-tags" not in inject(local(record))
    assert record.error == "inject_max_size"


def test_tags_with_foreign_characters_are_left_out_and_noted() -> None:
    record = TraceState(1, "-0", tags={"_dd.p.user": "a,b"})
    assert "x-datadog-tags" not in inject(local(record))
    assert record.error == "encoding_error"


def test_tags_can_be_switched_off() -> None:
    record = TraceState(1, "-0")
    assert "x-datadog-tags" not in inject(local(record), x_datadog_tags_max_length=0)
    assert record.error == "disabled"


@pytest.mark.parametrize("most", [0, 20])
def test_the_limit_concerns_what_is_sent_only(most: int) -> None:
    context = extract(DATADOG, x_datadog_tags_max_length=most)
    assert (current(context).trace_id, state(context).decision_maker, state(context).error) == (TRACE, "-4", "")


def test_broken_tags_are_not_passed_on() -> None:
    context = extract({**DATADOG, "x-datadog-tags": "_dd.p.a"})
    assert "x-datadog-tags" not in inject(context)


# --- W3C


def test_traceparent_alone() -> None:
    context = extract(W3C)
    assert (current(context).trace_id, current(context).span_id) == (TRACE, SPAN)
    assert state(context) == TraceState(1, tags={"_dd.p.tid": f"{HIGH:016x}"})


@pytest.mark.parametrize(
    "raw",
    [
        f"ff-{TRACE:032x}-{SPAN:016x}-01",
        f"00-{0:032x}-{SPAN:016x}-01",
        f"00-{TRACE:032x}-{0:016x}-01",
        f"00-{TRACE:032x}-{SPAN:016x}-01-more",
        f"00-{TRACE:032X}-{SPAN:016x}-01",
        f"00-{TRACE:032x}-{SPAN:016x}",
        "00-" + "1" * 100_000,
        "",
    ],
)
def test_bad_traceparents_mean_no_context(raw: str) -> None:
    assert not current(extract({"traceparent": raw})).is_valid


def test_traceparents_of_later_versions_are_read() -> None:
    assert current(extract({"traceparent": f"cc-{TRACE:032x}-{SPAN:016x}-01-what-the-future-brings"})).trace_id == TRACE


@pytest.mark.parametrize(("flags", "kept"), [("00", 0), ("01", 1), ("02", 2), ("03", 3), ("09", 1)])
def test_sampled_and_random_flags_go_on_others_do_not(flags: str, kept: int) -> None:
    context = extract({"traceparent": f"00-{TRACE:032x}-{SPAN:016x}-{flags}"})
    assert int(current(context).trace_flags) == kept
    assert inject(context)["traceparent"].endswith(f"-{kept:02x}")


@pytest.mark.parametrize(
    ("flags", "member", "priority"),
    [
        ("01", "s:2", 2),
        ("01", "s:0", 1),
        ("01", "s:-1", 1),
        ("01", "", 1),
        ("00", "s:-1", -1),
        ("00", "s:2", 0),
        ("00", "", 0),
        ("01", "o:rum", None),
        ("01", "s:junk", 1),
    ],
)
def test_the_priority_agrees_with_the_sampled_flag(flags: str, member: str, priority: int | None) -> None:
    carrier = {"traceparent": f"00-{TRACE:032x}-{SPAN:016x}-{flags}", "tracestate": f"dd={member}"}
    assert state(extract(carrier)).priority == priority


def test_the_datadog_member_is_read_and_the_others_are_kept() -> None:
    tracestate = "foo=1, dd=p:00000000000000ab;s:2;o:synthetics~web;t.dm:-4;t.usr.id:YmI~;t.tid:bad , bar=2"
    context = extract({**W3C, "tracestate": tracestate})
    assert state(context) == TraceState(
        2,
        "-4",
        origin="synthetics=web",
        tags={"_dd.p.tid": f"{HIGH:016x}", "_dd.p.usr.id": "YmI="},
        last_parent_id="00000000000000ab",
    )
    assert dict(current(context).trace_state) == {"foo": "1", "bar": "2"}


def test_a_forwarded_context_names_the_last_datadog_span_unchanged() -> None:
    context = extract({**W3C, "tracestate": "foo=1,dd=s:2;p:00000000000000ab;t.dm:-4"})
    assert inject(context)["tracestate"] == f"dd=p:00000000000000ab;s:2;t.dm:-4;t.tid:{HIGH:016x},foo=1"


def test_a_span_of_this_process_is_the_last_datadog_span() -> None:
    record = TraceState.new(TRACE)
    record.decide(1, "-0")
    carrier = inject(local(record, members=W3CTraceState([("dd", "p:old"), ("foo", "1")])))
    assert carrier == {
        "x-datadog-trace-id": str(LOW),
        "x-datadog-parent-id": str(SPAN),
        "x-datadog-sampling-priority": "1",
        "x-datadog-tags": f"_dd.p.dm=-0,_dd.p.tid={HIGH:016x}",
        "traceparent": f"00-{TRACE:032x}-{SPAN:016x}-01",
        "tracestate": f"dd=p:{SPAN:016x};s:1;t.dm:-0;t.tid:{HIGH:016x},foo=1",
    }


def test_a_new_decision_is_injected() -> None:
    record = TraceState(1, "-0")
    context = local(record)
    assert inject(context)["x-datadog-sampling-priority"] == "1"
    record.decide_by_attributes({"manual.drop": True})
    carrier = inject(context)
    assert (carrier["x-datadog-sampling-priority"], carrier["x-datadog-tags"]) == ("-1", "_dd.p.dm=-4")
    assert carrier["traceparent"].endswith("-00")
    assert carrier["tracestate"] == f"dd=p:{SPAN:016x};s:-1;t.dm:-4"


def test_a_trace_that_nobody_records_follows_the_sampled_flag() -> None:
    assert inject(local(flags=1))["x-datadog-sampling-priority"] == "1"
    assert inject(local(flags=0))["x-datadog-sampling-priority"] == "0"


def test_no_current_span_means_no_headers() -> None:
    assert inject(Context()) == {}


def test_member_values_are_encoded_and_bounded() -> None:
    record = TraceState(1, "-0", origin="a;b~c=d", tags={"_dd.p.long": "x" * 300, "_dd.p.b": "1", "_dd.p.usr.id": "u="})
    (own, *_) = inject(local(record))["tracestate"].split(",")
    assert own == f"dd=p:{SPAN:016x};s:1;o:a_b_c~d;t.dm:-0;t.usr.id:u~;t.b:1"
    assert len(own) <= 256


def test_tracestate_is_bounded_and_long_members_go_first() -> None:
    others = {f"k{number}": "v" * (200 if number == 1 else 40) for number in range(20)} | {"ot": "th:8"}
    text = headers.write_tracestate("dd=s:1", others)
    assert len(text) <= 512
    members = text.split(",")
    assert members[0] == "dd=s:1"
    assert "ot=th:8" in members
    assert not any(member.startswith("k1=") for member in members)
    assert members[1].startswith("k0=")
    assert len(headers.write_tracestate("dd=s:1", {f"k{n}": "v" for n in range(40)}).split(",")) == 32


def test_broken_members_do_not_spoil_the_others(caplog: pytest.LogCaptureFixture) -> None:
    context = extract({**W3C, "tracestate": "foo=1,,broken,BAD=1,x=" + "y" * 300 + ",foo=2,bar=2"})
    assert dict(current(context).trace_state) == {"foo": "1", "bar": "2"}
    assert not extract({**W3C, "tracestate": "a=" + "b" * 9000}).get("never")
    assert caplog.records == []


# --- combinations


def test_other_traces_become_links() -> None:
    context = extract(DATADOG | {"traceparent": f"00-{7:032x}-{8:016x}-01"})
    assert current(context).trace_id == TRACE
    assert links(context) == [(7, {"reason": "terminated_context", "context_headers": "tracecontext"})]


def test_the_first_style_wins() -> None:
    context = extract(DATADOG | {"traceparent": f"00-{7:032x}-{8:016x}-01"}, styles_extract=("tracecontext", "datadog"))
    assert current(context).trace_id == 7
    assert links(context) == [(TRACE, {"reason": "terminated_context", "context_headers": "datadog"})]


def test_w3c_completes_the_same_trace() -> None:
    carrier = DATADOG | {"traceparent": f"00-{TRACE:032x}-{7:016x}-03", "tracestate": "dd=p:00000000000000ab;s:0,foo=1"}
    context = extract(carrier)
    assert (current(context).trace_id, current(context).span_id, links(context)) == (TRACE, 7, [])
    assert dict(current(context).trace_state) == {"foo": "1"}
    assert int(current(context).trace_flags) == 3
    assert (state(context).priority, state(context).last_parent_id) == (2, "00000000000000ab")


def test_without_a_last_datadog_span_the_datadog_parent_is_it() -> None:
    context = extract(DATADOG | {"traceparent": f"00-{TRACE:032x}-{7:016x}-01"})
    assert state(context).last_parent_id == f"{SPAN:016x}"
    assert state(extract(DATADOG | W3C)).last_parent_id == ""


def test_only_datadogs_headers_name_a_last_datadog_span() -> None:
    carrier = {"b3": f"{TRACE:032x}-{8:016x}-1", "traceparent": f"00-{TRACE:032x}-{7:016x}-01"}
    context = extract(carrier, styles_extract=("b3", "tracecontext"))
    assert (current(context).span_id, state(context).last_parent_id) == (7, "")


def test_links_to_undecided_traces_are_not_marked_as_sampled() -> None:
    for flags, member, sampled in (("00", "o:rum", 0), ("01", "s:1", 1)):
        foreign = {"traceparent": f"00-{7:032x}-{8:016x}-{flags}", "tracestate": f"dd={member}"}
        remote = extract(DATADOG | foreign)[REMOTE_KEY]
        assert isinstance(remote, Remote)
        assert [int(link.context.trace_flags) for link in remote.links] == [sampled]


def test_a_64_bit_peer_does_not_break_a_128_bit_trace() -> None:
    narrow = {name: value for name, value in DATADOG.items() if name != "x-datadog-tags"}
    context = extract(narrow | W3C)
    assert (current(context).trace_id, links(context)) == (TRACE, [])
    assert state(context).tags == {"_dd.p.tid": f"{HIGH:016x}"}
    assert inject(context)["x-datadog-tags"] == f"_dd.p.tid={HIGH:016x}"


def test_extract_first_stops_at_the_first_context() -> None:
    conflicting = DATADOG | {"traceparent": f"00-{7:032x}-{8:016x}-01"}
    assert links(extract(conflicting, extract_first=True)) == []
    assert current(extract(W3C, extract_first=True)).trace_id == TRACE


def test_restart_begins_a_new_trace_with_a_link_and_keeps_baggage() -> None:
    context = extract(DATADOG | {"baggage": "a=1"}, behavior_extract="restart")
    assert not current(context).is_valid
    assert links(context) == [(TRACE, {"reason": "propagation_behavior_extract", "context_headers": "datadog"})]
    assert baggage.get_baggage("a", context) == "1"


def test_ignore_extracts_nothing() -> None:
    before = Context()
    propagator = composite_propagator(Settings(behavior_extract="ignore"))
    assert propagator.extract(DATADOG | {"baggage": "a=1"}, before) is before


def test_styles() -> None:
    context = baggage.set_baggage("a", "1", local(TraceState(1)))
    assert inject(context)["baggage"] == "a=1"
    assert inject(context, styles_inject=("tracecontext",)).keys() == {"traceparent", "tracestate"}
    assert inject(context, styles_inject=()) == {}
    assert not current(extract(DATADOG, styles_extract=("tracecontext",))).is_valid
    assert composite_propagator(Settings(styles_inject=("tracecontext",))).fields == {"traceparent", "tracestate"}


B3_ID = f"{TRACE:032x}-{SPAN:016x}"


@pytest.mark.parametrize(
    ("carrier", "expected"),
    [
        ({"b3": f"{B3_ID}-1"}, (TRACE, SPAN, 1)),
        ({"B3": f"{B3_ID}-d-00000000000000ff"}, (TRACE, SPAN, 2)),
        ({"b3": f"{B3_ID}-0"}, (TRACE, SPAN, 0)),
        ({"b3": B3_ID.upper()}, (TRACE, SPAN, None)),
        ({"b3": f"{LOW:016x}-{SPAN:016x}-1"}, (LOW, SPAN, 1)),
        ({"X-B3-TraceId": f"{TRACE:032x}", "X-B3-SpanId": f"{SPAN:016x}", "X-B3-Sampled": "1"}, (TRACE, SPAN, 1)),
        ({"HTTP_X_B3_TRACEID": f"{TRACE:032x}", "HTTP_X_B3_SPANID": f"{SPAN:016x}", "HTTP_X_B3_FLAGS": "1"},
         (TRACE, SPAN, 2)),
        ({"x-b3-traceid": f"{TRACE:032x}"}, None),
        ({"b3": "0"}, None),
        ({"b3": ""}, None),
        ({"b3": f"{TRACE:032x}-{SPAN:016x}-1"[1:]}, None),
        ({"b3": f"{0:032x}-{SPAN:016x}-1"}, None),
        ({"b3": f"{TRACE:032x}-{0:016x}-1"}, None),
        ({"b3": f"{TRACE:032x}-xyz"}, None),
    ],
)  # fmt: skip
def test_b3_is_read(carrier: dict[str, str], expected: tuple[int, int, int | None] | None) -> None:
    context = extract(carrier, styles_extract=("b3", "b3multi"))
    if expected is None:
        assert not current(context).is_valid
    else:
        assert (current(context).trace_id, current(context).span_id, state(context).priority) == expected


@pytest.mark.parametrize(
    ("priority", "single", "multi"),
    [
        (-1, "-0", {"x-b3-sampled": "0"}), (0, "-0", {"x-b3-sampled": "0"}), (1, "-1", {"x-b3-sampled": "1"}),
        (2, "-d", {"x-b3-flags": "1"}), (None, "", {}),
    ],
)  # fmt: skip
def test_b3_is_written(priority: int | None, single: str, multi: dict[str, str]) -> None:
    context = local(TraceState(priority))
    assert inject(context, styles_inject=("b3",)) == {"b3": B3_ID + single}
    expected = {"x-b3-traceid": f"{TRACE:032x}", "x-b3-spanid": f"{SPAN:016x}", **multi}
    assert inject(context, styles_inject=("b3multi",)) == expected
    fields = composite_propagator(Settings(styles_inject=("b3", "b3multi"))).fields
    assert {"b3", *expected} <= fields


def test_b3_goes_together_with_the_other_styles() -> None:
    context = extract(DATADOG | {"b3": f"{7:032x}-{8:016x}-1"}, styles_extract=("datadog", "b3"))
    assert current(context).trace_id == TRACE
    assert links(context) == [(7, {"reason": "terminated_context", "context_headers": "b3"})]


def test_baggage_is_read_whatever_the_headers_case() -> None:
    for name in ("baggage", "Baggage", "HTTP_BAGGAGE"):
        assert baggage.get_baggage("a", extract({name: "a=1"})) == "1"


@pytest.mark.parametrize(
    ("sent", "items"),
    [
        ("a=1+1,b=x%20y", {"a": "1+1", "b": "x y"}),
        (" a = 1 ,%C3%A9=%2C%3D,c=", {"a": "1", "é": ",=", "c": ""}),
        ("a=1;secret=2", {"a": "1;secret=2"}),
        ("a=1,broken", {}),
        ("=1,a=1", {}),
        (",".join(f"k{i}={i}" for i in range(70)), {f"k{i}": str(i) for i in range(64)}),
        ("a=1,b=" + "x" * 8190 + ",c=3", {"a": "1"}),
    ],
)
def test_baggage_is_read_as_ddtrace_reads_it(sent: str, items: dict[str, str]) -> None:
    assert baggage.get_all(extract({"baggage": sent})) == items


def test_baggage_is_written_so_that_everybody_reads_the_same() -> None:
    context = Context()
    for name, value in {"user.id": "a b+c", "é": "50%,=\ud800", "n": 7}.items():
        context = baggage.set_baggage(name, value, context)
    sent = inject(context)
    assert sent == {"baggage": "user.id=a%20b%2Bc,%C3%A9=50%25%2C%3D?,n=7"}
    items = {"user.id": "a b+c", "é": "50%,=?", "n": "7"}
    assert baggage.get_all(extract(sent)) == items
    assert baggage.get_all(W3CBaggagePropagator().extract(sent)) == items


def test_baggage_is_bounded() -> None:
    many, long = Context(), Context()
    for i in range(70):
        many, long = baggage.set_baggage(f"k{i}", i, many), baggage.set_baggage(f"k{i}", "x" * 1000, long)
    assert inject(many)["baggage"].count("=") == 64
    assert len(inject(long)["baggage"]) <= 8192


def test_goes_together_with_the_stock_propagators() -> None:
    stock = CompositePropagator(
        [DatadogPropagator(Settings()), TraceContextTextMapPropagator(), W3CBaggagePropagator()]
    )
    carrier: dict[str, str] = {}
    stock.inject(carrier, local(TraceState(1, "-0", tags={"_dd.p.tid": f"{HIGH:016x}"})))
    context = stock.extract(carrier)
    assert current(context).trace_id == TRACE
    assert state(context).priority == 1
    other = CompositePropagator([TraceContextTextMapPropagator(), DatadogPropagator(Settings())])
    both = other.extract(DATADOG | W3C | {"tracestate": "foo=1"})
    assert dict(current(both).trace_state) == {"foo": "1"}
    assert state(both).priority == 2


# --- anything at all

names = st.sampled_from([*DATADOG, "traceparent", "tracestate", "baggage", "X-Datadog-Trace-Id"])
pieces = st.sampled_from(
    [
        *DATADOG.values(),
        *W3C.values(),
        "dd=s:2;t.a:b",
        "foo=1",
        ",",
        "=",
        ";",
        ":",
        "~",
        "_dd.p.dm=-1",
        "\x00",
        "\r\n",
        "ü",
    ]
)
values = st.one_of(st.text(), st.lists(pieces).map("".join), st.binary(), st.lists(st.text(), max_size=3), st.none())


@settings(max_examples=300)
@given(st.dictionaries(names, values))
def test_no_header_raises_or_makes_an_invalid_context(carrier: dict[str, Any]) -> None:
    traces.forget()
    for propagator in (composite_propagator(Settings()), DatadogPropagator(Settings())):
        context = propagator.extract(carrier)
        if REMOTE_KEY in context:
            assert current(context).is_valid
        sent: dict[str, str] = {}
        propagator.inject(sent, context)
        for name in set(sent) - {"baggage"}:
            assert sent[name].isascii()
            assert sent[name].isprintable()
            assert len(sent[name]) <= 512


@pytest.mark.parametrize("carrier", [None, 7, [("a", "b")], {1: 2}, {b"x-datadog-trace-id": b"1"}])
def test_carriers_that_are_no_mappings(carrier: Any) -> None:
    before = Context({"mine": 1})
    for propagator in (composite_propagator(Settings()), DatadogPropagator(Settings())):
        assert propagator.extract(carrier, before) == before
