"""Who decides about a trace, and what the decision is called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags, set_span_in_context
from opentelemetry.trace.span import TraceState as W3CTraceState

from spanbridge.exporters.datadog import (
    DatadogPropagator,
    DatadogSampler,
    DatadogSpanExporter,
    DatadogSpanProcessor,
    Settings,
    composite_propagator,
    datadog_sampler,
)
from spanbridge.exporters.datadog.sampler import agent_rates
from spanbridge.exporters.datadog.trace import TraceState, traces
from spanbridge.exporters.datadog.transport import Reply
from spanbridge.testing import TracerProvider
from tests.exporters.samples import HIGH, TRACE_ID, Transport, remote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from opentelemetry.context import Context
    from opentelemetry.trace import Tracer

SERVER, CLIENT = SpanKind.SERVER, SpanKind.CLIENT


@pytest.fixture(autouse=True)
def _no_records() -> Iterator[None]:
    traces.forget()
    yield
    traces.forget()


def decide(context: Context | None = None, attributes: dict[str, Any] | None = None) -> Decision:
    return datadog_sampler().should_sample(context, TRACE_ID, "work", attributes=attributes).decision


def record() -> TraceState:
    found = traces.get(TRACE_ID)
    assert found is not None
    return found


def from_headers(priority: str) -> Context:
    headers = {
        "x-datadog-trace-id": str(TRACE_ID & (1 << 64) - 1),
        "x-datadog-parent-id": "7",
        "x-datadog-sampling-priority": priority,
        "x-datadog-tags": f"_dd.p.tid={TRACE_ID >> 64:016x},_dd.p.dm=-3",
    }
    return DatadogPropagator(Settings()).extract(headers)


def test_new_traces_are_kept_by_default() -> None:
    assert decide() is Decision.RECORD_AND_SAMPLE
    assert (record().priority, record().decision_maker) == (1, "-0")
    assert record().tags == {"_dd.p.tid": f"{TRACE_ID >> 64:016x}"}


@pytest.mark.parametrize(
    ("priority", "decision"),
    [
        ("2", Decision.RECORD_AND_SAMPLE),
        ("1", Decision.RECORD_AND_SAMPLE),
        ("0", Decision.RECORD_ONLY),
        ("-1", Decision.RECORD_ONLY),
    ],
)
def test_decisions_made_upstream_are_followed(priority: str, decision: Decision) -> None:
    assert decide(from_headers(priority)) is decision
    assert (record().priority, record().decision_maker) == (int(priority), "-3")


def test_what_upstream_left_open_is_decided_here() -> None:
    assert decide(from_headers("")) is Decision.RECORD_AND_SAMPLE
    assert (record().priority, record().decision_maker) == (1, "-3")


def test_the_sampled_flag_decides_where_nothing_else_is_known() -> None:
    assert decide(remote(flags=1)) is Decision.RECORD_AND_SAMPLE
    traces.forget()
    assert decide(remote(flags=0)) is Decision.RECORD_ONLY
    assert record().priority == 0


def test_the_datadog_member_is_read_where_opentelemetry_has_extracted() -> None:
    members = W3CTraceState([("dd", "s:2;t.dm:-4;o:rum")])
    parent = NonRecordingSpan(SpanContext(TRACE_ID, 7, True, TraceFlags(1), members))
    assert decide(set_span_in_context(parent)) is Decision.RECORD_AND_SAMPLE
    assert (record().priority, record().decision_maker, record().origin) == (2, "-4", "rum")


@pytest.mark.parametrize("value", [True, 1, "1", "true", "yes", ""])
def test_the_application_may_keep(value: object) -> None:
    assert decide(from_headers("-1"), {"manual.keep": value}) is Decision.RECORD_AND_SAMPLE
    assert (record().priority, record().decision_maker) == (2, "-4")


@pytest.mark.parametrize("value", [True, 1, "true"])
def test_the_application_may_drop(value: object) -> None:
    assert decide(None, {"manual.drop": value}) is Decision.RECORD_ONLY
    assert (record().priority, record().decision_maker) == (-1, "-4")


@pytest.mark.parametrize("value", [False, 0, "0", "false", "False"])
def test_false_asks_for_nothing(value: object) -> None:
    assert decide(None, {"manual.drop": value, "manual.keep": value}) is Decision.RECORD_AND_SAMPLE
    assert (record().priority, record().decision_maker) == (1, "-0")


def test_keep_is_stronger_than_drop() -> None:
    assert decide(None, {"manual.drop": True, "manual.keep": True}) is Decision.RECORD_AND_SAMPLE


def test_rejected_spans_are_recorded_and_their_children_follow() -> None:
    tracer = TracerProvider(sampler=DatadogSampler(), shutdown_on_exit=False).get_tracer("app")
    with tracer.start_as_current_span("root", attributes={"manual.drop": True, "kept": 1}) as root:
        child = tracer.start_span("child")
        for span in (root, child):
            assert span.is_recording()
            assert not span.get_span_context().trace_flags.sampled
    assert isinstance(root, ReadableSpan)
    assert root.attributes == {"manual.drop": True, "kept": 1}


def test_the_members_of_other_vendors_stay() -> None:
    members = W3CTraceState([("foo", "1")])
    parent = NonRecordingSpan(SpanContext(TRACE_ID, 7, True, TraceFlags(1), members))
    tracer = TracerProvider(sampler=DatadogSampler(), shutdown_on_exit=False).get_tracer("app")
    assert tracer.start_span("work", set_span_in_context(parent)).get_span_context().trace_state == members


def test_records_of_spans_that_nobody_processes_are_bounded() -> None:
    sampler = DatadogSampler()
    for trace_id in range(1, 5000):
        sampler.should_sample(None, trace_id, "work")
    assert len(traces) == 1024


# --- rules and rates decide late, by what the local root has become ---

FLASK = "spanbridge.instrumentors.flask"
UPPER, LOWER = 6272545487220484606, 10  # kept at .5, kept from .7 (protocol D.2)


class Ids(RandomIdGenerator):
    """Gives the trace ids that the test wants."""

    def __init__(self, *low: int) -> None:
        self.low = list(low)

    def generate_trace_id(self) -> int:
        return HIGH << 64 | self.low.pop(0)


class Setup:
    """A provider with our sampler and processor, and what it has sent."""

    def __init__(self, *ids: int, **settings: Any) -> None:
        given = Settings(**{"service": "shop", "env": "prod", "flush_interval": 60.0} | settings)
        self.transport = Transport()
        self.processor = DatadogSpanProcessor(DatadogSpanExporter(given, transport=self.transport))  # type: ignore[arg-type]
        self.provider = TracerProvider(
            sampler=DatadogSampler(given),
            resource=Resource({"service.name": "shop"}),
            id_generator=Ids(*ids or (UPPER,)),
            shutdown_on_exit=False,
        )
        self.provider.add_span_processor(self.processor)
        self.propagator = composite_propagator(given)

    def tracer(self, scope: str = FLASK) -> Tracer:
        return self.provider.get_tracer(scope)

    def headers(self) -> dict[str, str]:
        carrier: dict[str, str] = {}
        self.propagator.inject(carrier)
        return carrier

    def chunks(self) -> list[list[dict[str, Any]]]:
        assert self.processor.force_flush(5000)
        return self.transport.chunks

    def root(self) -> dict[str, Any]:
        ((root, *_),) = self.chunks()
        return root


@pytest.fixture
def setup() -> Iterator[Callable[..., Setup]]:
    made: list[Setup] = []

    def make(*ids: int, **settings: Any) -> Setup:
        made.append(Setup(*ids, **settings))
        return made[-1]

    yield make
    for each in made:
        each.provider.shutdown()


def decision(span: dict[str, Any]) -> dict[str, Any]:
    keys = ("_sampling_priority_v1", "_dd.p.dm", "_dd.p.ksr", "_dd.rule_psr", "_dd.agent_psr", "_dd.limit_psr")
    tags = span["meta"] | span["metrics"]
    return {key: tags[key] for key in keys if key in tags}


def test_a_rate_for_all(setup: Any) -> None:
    here = setup(UPPER, LOWER, sample_rate=0.5)
    for _ in range(2):
        with here.tracer().start_as_current_span("GET") as span:
            kept = span.get_span_context().trace_flags.sampled
            assert here.headers()["x-datadog-sampling-priority"] == ("2" if kept else "-1")
            assert span.is_recording()
    ((first,), (second,)) = here.chunks()
    assert decision(first) == {
        "_sampling_priority_v1": 2, "_dd.p.dm": "-3", "_dd.p.ksr": "0.5", "_dd.rule_psr": 0.5, "_dd.limit_psr": 1.0,
    }  # fmt: skip
    assert decision(second) == {
        "_sampling_priority_v1": -1, "_dd.p.dm": "-3", "_dd.p.ksr": "0.5", "_dd.rule_psr": 0.5
    }  # fmt: skip


RULES = '[{"sample_rate": 0, "resource": "GET /health"}, {"sample_rate": 1, "tags": {"tier": "gold"}}]'


def test_rules_see_the_route_and_the_tags_that_come_late(setup: Any) -> None:
    here = setup(sampling_rules=RULES)
    with here.tracer().start_as_current_span("GET", kind=SERVER, attributes={"http.request.method": "GET"}) as span:
        span.set_attribute("http.route", "/health")
        assert here.headers()["x-datadog-sampling-priority"] == "-1"
        span.set_attribute("http.route", "/other")  # too late, it has been sent
    assert decision(here.root())["_sampling_priority_v1"] == -1


def test_without_outgoing_requests_rules_see_the_finished_span(setup: Any) -> None:
    here = setup(1, sampling_rules=RULES)
    with here.tracer().start_as_current_span("GET", kind=SERVER) as span:
        span.set_attribute("tier", "gold")
    assert decision(here.root())["_dd.rule_psr"] == 1.0


def test_a_partial_chunk_is_decided_by_the_root_that_goes_on(setup: Any) -> None:
    here = setup(sampling_rules=RULES, partial_flush_min_spans=1)
    with here.tracer().start_as_current_span("GET", kind=SERVER, attributes={"http.request.method": "GET"}) as span:
        span.set_attribute("http.route", "/health")
        with here.tracer().start_as_current_span("child"):
            pass
        assert decision(here.root())["_sampling_priority_v1"] == -1


def test_a_trace_that_fits_no_rule_is_the_agents(setup: Any) -> None:
    here = setup(sampling_rules=RULES)
    with here.tracer().start_as_current_span("GET"):
        pass
    assert decision(here.root()) == {"_sampling_priority_v1": 1, "_dd.p.dm": "-0"}


def test_rejected_traces_may_be_discarded(setup: Any) -> None:
    here = setup(sampling_rules='[{"sample_rate": 0, "name": "flask.*", "discard": true}]')
    with here.tracer().start_as_current_span("GET", attributes={"http.request.method": "GET"}):
        pass
    assert here.chunks() == []
    assert here.processor.dropped == 0


def test_the_limiter_rejects_what_rules_keep(setup: Any) -> None:
    here = setup(1, 2, 3, sample_rate=1.0, rate_limit=1)
    for _ in range(3):
        with here.tracer().start_as_current_span("GET"):
            pass
    first, *others = (decision(chunk[0]) for chunk in here.chunks())
    assert (first["_sampling_priority_v1"], first["_dd.limit_psr"]) == (2, 1.0)
    assert [other["_sampling_priority_v1"] for other in others] == [-1, -1]
    assert [other["_dd.limit_psr"] for other in others] == [1 / 2, 1 / 3]


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ({}, {"_sampling_priority_v1": 1, "_dd.p.dm": "-0"}),
        ({"service:shop,env:prod": 0.1}, {"_sampling_priority_v1": 0, "_dd.p.dm": "-1", "_dd.agent_psr": 0.1}),
        ({"service:shop,env:dev": 0.1}, {"_sampling_priority_v1": 1, "_dd.p.dm": "-0"}),
        (
            {"service:shop,env:prod": 1, "service:,env:": 0.1},
            {"_sampling_priority_v1": 1, "_dd.p.dm": "-1", "_dd.agent_psr": 1},
        ),
        ({"service:,env:": 0.1}, {"_sampling_priority_v1": 0, "_dd.p.dm": "-1", "_dd.agent_psr": 0.1}),
    ],
)
def test_the_agents_rates(setup: Any, rates: dict[str, float], expected: dict[str, Any]) -> None:
    agent_rates.update(rates)
    here = setup()
    with here.tracer().start_as_current_span("GET"):
        assert here.headers()["x-datadog-sampling-priority"] == str(expected["_sampling_priority_v1"])
    found = decision(here.root())
    assert found.pop("_dd.p.ksr", None) == (f"{expected['_dd.agent_psr']:g}" if "_dd.agent_psr" in expected else None)
    assert found == expected


def test_rules_are_stronger_than_the_agents_rates(setup: Any) -> None:
    agent_rates.update({"service:,env:": 0.0})
    here = setup(sample_rate=1.0)
    with here.tracer().start_as_current_span("GET"):
        pass
    assert decision(here.root())["_dd.p.dm"] == "-3"


def test_an_empty_answer_of_the_agent_leaves_its_rates_as_they_are() -> None:
    agent_rates.update({"a": 0.5, "b": 1.0})
    agent_rates.update({})
    assert agent_rates == {"a": 0.5, "b": 1.0}
    agent_rates.update({"b": 0.2})
    assert agent_rates == {"b": 0.2}


def test_the_agents_answer_reaches_the_sampler(setup: Any) -> None:
    here = setup(1, LOWER)
    here.transport.say(Reply(200, b'{"rate_by_service":{"service:shop,env:prod":0.5}}'))
    for _ in range(2):
        with here.tracer().start_as_current_span("GET"):
            pass
        here.chunks()
    assert [decision(chunk[0])["_dd.p.dm"] for chunk in here.chunks()] == ["-0", "-1"]


def test_decisions_from_upstream_are_stronger_than_rules(setup: Any) -> None:
    here = setup(sample_rate=0.0)
    context = from_headers("1")
    with here.tracer().start_as_current_span("GET", context):
        assert here.headers()["x-datadog-sampling-priority"] == "1"
    assert decision(here.root()) == {"_sampling_priority_v1": 1, "_dd.p.dm": "-3"}


def test_a_manual_decision_takes_the_place_of_a_rules(setup: Any) -> None:
    here = setup(LOWER, sample_rate=0.5)
    with here.tracer().start_as_current_span("GET"):
        assert here.headers()["x-datadog-sampling-priority"] == "-1"
        with here.tracer().start_as_current_span("child") as child:
            child.set_attribute("manual.keep", True)
            sent = here.headers()
    assert (sent["x-datadog-sampling-priority"], "_dd.p.dm=-4" in sent["x-datadog-tags"]) == ("2", True)
    assert decision(here.root()) == {"_sampling_priority_v1": 2, "_dd.p.dm": "-4"}


def test_spans_that_fit_a_span_rule_are_kept_of_a_rejected_trace(setup: Any) -> None:
    rules = '[{"name": "redis.*", "max_per_second": 1}, {"service": "shop", "sample_rate": 0}]'
    here = setup(LOWER, sample_rate=0.0, span_sampling_rules=rules)
    with here.tracer().start_as_current_span("GET"):
        for _ in range(2):
            here.tracer("spanbridge.instrumentors.redis").start_span("GET", kind=CLIENT).end()
    ((root, first, second),) = here.chunks()
    kept = {key: value for key, value in first["metrics"].items() if key.startswith("_dd.span_sampling.")}
    assert kept == {
        "_dd.span_sampling.mechanism": 8, "_dd.span_sampling.rule_rate": 1.0, "_dd.span_sampling.max_per_second": 1.0,
    }  # fmt: skip
    for span in (root, second):
        assert "_dd.span_sampling.mechanism" not in span["metrics"]


def test_span_rules_leave_kept_traces_alone(setup: Any) -> None:
    here = setup(span_sampling_rules='[{"name": "*"}]')
    with here.tracer().start_as_current_span("GET"):
        pass
    assert "_dd.span_sampling.mechanism" not in here.root()["metrics"]


@pytest.mark.parametrize(
    ("rules", "kept"),
    [
        ('[{"sample_rate": 0, "service": "shop"}]', False),
        ('[{"sample_rate": 0, "tags": {"a": "b"}}]', False),
        ('[{"sample_rate": 0, "resource": "work"}]', False),
        ('[{"sample_rate": 0, "name": "other"}]', True),
    ],
)
def test_the_sampled_flag_says_what_can_be_said_at_the_start(rules: str, kept: bool) -> None:
    sampler = DatadogSampler(Settings(service="shop", sampling_rules=rules))
    answer = sampler.should_sample(None, TRACE_ID, "work", attributes={"a": "b"})
    assert answer.decision is (Decision.RECORD_AND_SAMPLE if kept else Decision.RECORD_ONLY)


def test_the_factory_takes_what_the_sdk_gives() -> None:
    for argument in (None, "", "0.5"):
        assert datadog_sampler(argument).get_description() == "DatadogSampler"
