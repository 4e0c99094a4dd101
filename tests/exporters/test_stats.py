"""Client-side stats: which spans count, under which key, and whether Datadog's own concentrator counts the same."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import SpanKind, StatusCode

from spanbridge.demo import processes
from spanbridge.exporters.datadog import DatadogSampler, DatadogSpanExporter, DatadogSpanProcessor, Settings
from spanbridge.exporters.datadog import stats as module
from spanbridge.exporters.datadog.info import AgentInfo
from spanbridge.exporters.datadog.stats import BUCKET_NANOSECONDS, Concentrator, Sketch, without_address
from spanbridge.exporters.datadog.trace import traces
from spanbridge.exporters.datadog.transport import Reply
from spanbridge.testing import TracerProvider
from tests.exporters import receivers
from tests.exporters.samples import Transport, decoded

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW = 1_700_000_005 * 10**9
BUCKET = NOW - NOW % BUCKET_NANOSECONDS
INFO = AgentInfo(peer_tags=("peer.service", "db.name", "out.host"))
SETTINGS = Settings(service="shop", env="prod", version="3", hostname="box")


@pytest.fixture(autouse=True)
def _no_records() -> Iterator[None]:
    traces.forget()
    yield
    traces.forget()


# --- sketches ---


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], "0a1209000000000040f03f110000000000ea944012001a00"),
        ([5_000_000], "0a1209000000000040f03f110000000000ea9440120d1208000000000000f03f18ba241a00"),
        ([1_000], "0a1209000000000040f03f110000000000ea9440120d1208000000000000f03f18f01b1a00"),
        ([0], "0a1209000000000040f03f110000000000ea944012001a0021000000000000f03f"),
    ],
)
def test_sketches_are_libdatadogs_byte_for_byte(values: list[int], expected: str) -> None:
    sketch = Sketch()
    for value in values:
        sketch.add(value)
    assert sketch.encode().hex() == expected


def test_a_sketch_of_everything_has_a_bounded_size() -> None:
    sketch = Sketch()
    for exponent in range(-300, 300):
        sketch.add(10.0**exponent)
    assert len(sketch.encode()) < 17_000


# --- what counts, and under which key ---


def span(**changed: Any) -> dict[str, Any]:
    row = {
        "service": "shop", "name": "flask.request", "resource": "GET /", "type": "web", "parent_id": 0, "error": 0,
        "start": BUCKET, "duration": 1000, "meta": {"span.kind": "server"}, "metrics": {"_dd.top_level": 1},
    }  # fmt: skip
    return row | changed


def counted(*spans: dict[str, Any], info: AgentInfo = INFO, origin: str = "") -> list[dict[str, Any]]:
    concentrator = Concentrator(SETTINGS, info)
    concentrator.add(spans, origin, NOW)
    payload = concentrator.flush(NOW, everything=True)
    return [group for bucket in decoded(payload)["Stats"] for group in bucket["Stats"]] if payload else []


@pytest.mark.parametrize(
    ("changed", "counts"),
    [
        ({}, True),
        ({"meta": {}, "metrics": {}}, False),
        ({"meta": {}, "metrics": {"_dd.measured": 1}}, True),
        ({"meta": {"span.kind": "Client"}, "metrics": {}}, True),
        ({"meta": {"span.kind": "internal"}, "metrics": {}}, False),
    ],
)
def test_which_spans_count(changed: dict[str, Any], counts: bool) -> None:
    assert bool(counted(span(**changed))) == counts


def test_the_agent_may_name_the_kinds() -> None:
    client = span(meta={"span.kind": "client"}, metrics={})
    assert counted(client, info=AgentInfo(span_kinds=("server",))) == []


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"parent_id": 7}, {"IsTraceRoot": 2}),
        ({"meta": {"http.status_code": "404"}}, {"HTTPStatusCode": 404}),
        ({"meta": {"http.status_code": "x"}}, {"HTTPStatusCode": 0}),
        ({"metrics": {"http.status_code": 200.0, "_dd.measured": 1}}, {"HTTPStatusCode": 200, "TopLevelHits": 0}),
        ({"meta": {"http.method": "GET", "http.route": "/a"}}, {"HTTPMethod": "GET", "HTTPEndpoint": "/a"}),
        ({"meta": {"http.endpoint": "/b", "http.route": "/a"}}, {"HTTPEndpoint": "/b"}),
        ({"meta": {"http.endpoint": "", "http.route": "/a"}}, {"HTTPEndpoint": ""}),
        ({"meta": {"_dd.svc_src": "redis"}}, {"srv_src": "redis"}),
        ({"meta": {"span.kind": "client", "out.host": "h", "db.name": "d"}}, {"PeerTags": ["db.name:d", "out.host:h"]}),
        ({"meta": {"span.kind": "server", "out.host": "h"}}, {"PeerTags": []}),
        ({"meta": {"_dd.base_service": "app", "out.host": "h"}}, {"PeerTags": ["_dd.base_service:app"]}),
        ({"meta": {"rpc.grpc.status_code": "5"}}, {"GRPCStatusCode": "5"}),
        ({"meta": {"grpc.status.code": "StatusCode.NOT_FOUND"}}, {"GRPCStatusCode": "5"}),
        ({"meta": {"grpc.status.code": "canceled"}}, {"GRPCStatusCode": "1"}),
        ({"meta": {"grpc.status.code": "?"}}, {"GRPCStatusCode": ""}),
        ({"metrics": {"grpc.code": 5.0, "_dd.measured": 1}}, {"GRPCStatusCode": "5"}),
    ],
)
def test_the_key(changed: dict[str, Any], expected: dict[str, Any]) -> None:
    (group,) = counted(span(**changed))
    assert {name: group[name] for name in expected} == expected


def test_hits_errors_and_durations() -> None:
    (group,) = counted(span(), span(duration=3000), span(error=1, metrics={"_dd.measured": 1}))
    assert [group[name] for name in ("Hits", "Errors", "Duration", "TopLevelHits")] == [3, 1, 5000, 2]
    ok, failed = Sketch(), Sketch()
    ok.add(1000)
    ok.add(3000)
    failed.add(1000)
    assert (group["OkSummary"], group["ErrorSummary"]) == (ok.encode(), failed.encode())


def test_synthetic_traces_are_apart() -> None:
    assert counted(span(), origin="synthetics-browser")[0]["Synthetics"] is True
    assert counted(span(), origin="rum")[0]["Synthetics"] is False


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", ""), ("foo.dog", "foo.dog"), ("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("192.168.1.1", "X"),
        ("192.168.1.1.foo", "X.foo"), ("192.168.1.1.2.3.4.5", "X.2.3.4.5"), ("192_168_1_1", "X"),
        ("192-168-1-1-foo", "X-foo"), ("2001:db8:3c4d:15::1a2f:1a2b", "X"),
        ("[fe80::1ff:fe23:4567:890a]:8080", "X:8080"), ("192.168.1.1:1234", "X:1234"),
        ("dnspoll:///10.21.120.145:6400", "dnspoll:///X:6400"), ("https://10.21.120.145:6400", "https://X:6400"),
        ("192.168.1.1:1,10.23.1.1:53,10.23.1.1,fe80::1:fe23,foo", "X:1,X:53,X,foo"),
        ("ip-10-152-4-129.ec2.internal", "ip-X.ec2.internal"), ("1-2-3-999", "1-2-3-999"), ("1-2-3-foo", "1-2-3-foo"),
        ("1-2-3-4567", "1-2-3-4567"), ("host1:8080", "host1:8080"), ("a,a", "a,a"), ("a1,a1", "a1"),
    ],
)  # fmt: skip
def test_addresses_of_peers(given: str, expected: str) -> None:
    assert without_address(given) == expected.replace("X", "blocked-ip-address")


@pytest.mark.parametrize(
    ("filters", "counts"),
    [
        ({"filter_tags": {"reject": ["env:prod"]}}, False),
        ({"filter_tags": {"reject": ["env"]}}, False),
        ({"filter_tags": {"reject": ["env:dev"]}}, True),
        ({"filter_tags": {"require": ["env:dev"]}}, False),
        ({"filter_tags_regex": {"reject": ["env:^p"]}}, False),
        ({"filter_tags_regex": {"reject": ["env:^d"]}}, True),
        ({"ignore_resources": ["^GET /$"]}, False),
        ({"ignore_resources": ["("]}, True),
        ({"filter_tags": 5}, True),
    ],
)
def test_what_the_agent_does_not_want(filters: dict[str, Any], counts: bool) -> None:
    root = span(meta={"env": "prod"})
    assert bool(counted(root, span(name="child"), info=AgentInfo(filters=filters))) == counts


# --- buckets ---


def test_a_bucket_leaves_when_no_more_spans_are_expected_for_it() -> None:
    concentrator = Concentrator(SETTINGS, INFO)
    concentrator.add([span(start=BUCKET - 1001), span(), span(start=BUCKET + 15 * 10**9)], "", NOW)
    assert concentrator.flush(NOW) is None
    first = concentrator.flush(NOW + BUCKET_NANOSECONDS * 2)
    assert first is not None
    assert [(bucket["Start"], bucket["Stats"][0]["Hits"]) for bucket in decoded(first)["Stats"]] == [(BUCKET, 2)]
    concentrator.add([span()], "", NOW + BUCKET_NANOSECONDS * 2)  # too late: counted in the oldest that is open
    last = concentrator.flush(NOW + BUCKET_NANOSECONDS * 2, everything=True)
    assert last is not None
    assert [bucket["Start"] for bucket in decoded(last)["Stats"]] == [BUCKET + BUCKET_NANOSECONDS]
    assert [decoded(payload)["Sequence"] for payload in (first, last)] == [1, 2]
    assert concentrator.flush(NOW, everything=True) is None


def test_the_payload_says_who_sends() -> None:
    concentrator = Concentrator(SETTINGS, INFO)
    concentrator.add([span()], "", NOW)
    payload = decoded(concentrator.flush(NOW, everything=True) or b"")
    assert {name: payload[name] for name in ("Hostname", "Env", "Version", "Service", "Lang")} == {
        "Hostname": "box", "Env": "prod", "Version": "3", "Service": "shop", "Lang": "python",
    }  # fmt: skip
    assert len(payload["RuntimeID"]) == 32
    assert payload["Stats"][0]["Duration"] == BUCKET_NANOSECONDS


def test_keys_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_KEYS", 1500)
    groups = counted(*(span(resource=f"GET /{number}") for number in range(3000)))
    assert sum(group["Hits"] for group in groups) == 3000
    assert len(groups) == 1024 + 1
    assert groups[-1]["Resource"] == "tracer_blocked_value"
    groups = counted(*(span(name=f"operation {number}") for number in range(3000)))
    assert len(groups) == 1500 + 1
    assert (groups[-1]["Service"], groups[-1]["Hits"]) == ("tracer_blocked_value", 1500)


# --- with an Agent that agrees ---

AGREES = Reply(200, b'{"endpoints":["/v0.4/traces","/v0.6/stats"],"client_drop_p0s":true}')


class Agent(Transport):
    """A transport by script that takes stats, too."""

    def __init__(self) -> None:
        super().__init__()
        self.info = AGREES
        self.stats: list[dict[str, Any]] = []

    def send(self, request: Any, timeout: float) -> Reply:
        if request.path == "/v0.6/stats":
            self.requests.append(request)
            self.stats.append(decoded(request.body))
            return Reply(200, b"")
        return super().send(request, timeout)

    @property
    def hits(self) -> int:
        groups = [group for payload in self.stats for bucket in payload["Stats"] for group in bucket["Stats"]]
        return sum(group["Hits"] for group in groups)


def setup(agent: Any, sampler: Any = None, **settings: Any) -> TracerProvider:
    given = Settings(**{"service": "shop", "stats": True, "flush_interval": 60.0} | settings)
    provider = TracerProvider(
        sampler=sampler or DatadogSampler(given),
        resource=Resource({"service.name": given.service}),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(DatadogSpanProcessor(DatadogSpanExporter(given, transport=agent)))
    return provider


def work(provider: TracerProvider, times: int = 1, **attributes: Any) -> None:
    for _ in range(times):
        provider.get_tracer("app").start_span("work", kind=SpanKind.SERVER, attributes=attributes).end()


def test_who_counts_says_so_and_keeps_rejected_traces_to_himself() -> None:
    agent = Agent()
    provider = setup(agent)
    work(provider, 2)
    work(provider, 3, **{"manual.drop": True})
    assert provider.force_flush()
    work(provider)
    provider.shutdown()
    assert [len(payload) for payload in agent.payloads] == [2, 1]
    assert agent.hits == 6
    traces_requests = [request for request in agent.requests if request.path == "/v0.4/traces"]
    counts = [
        tuple(request.headers.get(f"Datadog-Client-{name}") for name in ("Computed-Stats", "Dropped-P0-Traces"))
        for request in traces_requests
    ]
    assert counts == [("true", 3), ("true", None)]


def test_of_a_rejected_trace_are_sent_failures_and_what_is_kept_for_its_own_sake() -> None:
    agent = Agent()
    provider = setup(agent, sample_rate=0.0, span_sampling_rules='[{"name": "server.request", "service": "kept"}]')
    tracer = provider.get_tracer("app")
    with tracer.start_as_current_span("failed") as failed:
        tracer.start_span("child").end()
        failed.set_status(StatusCode.ERROR)
    with tracer.start_as_current_span("dropped"):
        tracer.start_span("one", kind=SpanKind.SERVER, attributes={"service.name": "kept"}).end()
        tracer.start_span("event", attributes={"analytics.event": True}).end()
    provider.shutdown()
    assert agent.resources == [["failed", "child"], ["one", "event"]]
    assert [chunk[0]["metrics"]["_sampling_priority_v1"] for chunk in agent.chunks] == [-1, -1]


@pytest.mark.parametrize(
    "info",
    [
        Reply(404, b""),
        Reply(200, b'{"endpoints":["/v0.6/stats"],"client_drop_p0s":false}'),
        Reply(200, b'{"endpoints":["/v0.4/traces"],"client_drop_p0s":true}'),
    ],
)
def test_without_the_agents_consent_nothing_is_counted_or_dropped(info: Reply) -> None:
    agent = Agent()
    agent.info = info
    provider = setup(agent)
    work(provider, 3, **{"manual.drop": True})
    provider.shutdown()
    assert (len(agent.chunks), agent.stats) == (3, [])
    assert not any("Datadog-Client-Computed-Stats" in request.headers for request in agent.requests)


def test_traces_of_a_sampler_that_drops_are_left_to_the_agent_to_count() -> None:
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON

    agent = Agent()
    provider = setup(agent, ALWAYS_ON)
    work(provider, 2)
    provider.shutdown()
    assert (len(agent.chunks), agent.stats) == (2, [])


def test_both_of_datadogs_receivers_take_our_counts(mini_agent: Any, test_agent: Any) -> None:
    for url in (mini_agent.url, test_agent.url):
        provider = setup(None, agent_url=url, service="forwarded")
        work(provider, 3)
        work(provider, 2, **{"manual.drop": True})
        provider.shutdown()
    assert sum(group["Hits"] for group in mini_agent.stats("forwarded", 5)) == 5
    status, body = processes.request("GET", f"{test_agent.url}/test/session/stats")
    groups = [group for payload in json.loads(body) for bucket in payload["Stats"] for group in bucket["Stats"]]
    assert (status, sum(group["Hits"] for group in groups)) == (200, 5)
    assert len(test_agent.spans()) == 3
    assert test_agent.failed_checks() == ""


# --- Datadog's concentrator as the oracle ---


def test_datadogs_concentrator_counts_the_same(tmp_path: Any) -> None:
    with receivers.mini_agent(tmp_path, counts=True) as mini_agent:
        settings = Settings(agent_url=mini_agent.url, service="oracle", env="prod")
        exporter = DatadogSpanExporter(settings)
        provider = TracerProvider(
            sampler=DatadogSampler(settings), resource=Resource({"service.name": "oracle"}), shutdown_on_exit=False
        )
        provider.add_span_processor(DatadogSpanProcessor(exporter))
        peer_tags = re.search(rb'"peer_tags":\[([^]]*)\]', exporter.sender._ask(_request(), 2).body)
        assert peer_tags is not None
        info = AgentInfo(peer_tags=tuple(peer_tags[1].decode().replace('"', "").split(",")))
        concentrator = Concentrator(settings, info)
        mapped = exporter.mapper.map

        rows: list[dict[str, Any]] = []

        def watched(span: Any, **options: Any) -> dict[str, Any]:
            rows.append(mapped(span, **options))
            return rows[-1]

        exporter.mapper.map = watched  # type: ignore[method-assign]
        begin = time.time_ns() // BUCKET_NANOSECONDS * BUCKET_NANOSECONDS + 10**9  # all in one bucket
        for number in range(1, 400):
            _varied(provider, number, begin)
        provider.shutdown()
        concentrator.add(rows, "", begin)
        payload = concentrator.flush(time.time_ns(), everything=True)
        ours = [group for bucket in decoded(payload or b"")["Stats"] for group in bucket["Stats"]]
        assert len(ours) > 20
        theirs = mini_agent.stats("oracle", sum(group["Hits"] for group in ours if group["Service"] == "oracle"))
    assert _by_key(theirs) == _by_key([group for group in ours if group["Service"] == "oracle"])


def _request() -> Any:
    from spanbridge.exporters.datadog.transport import Request

    return Request("/info")


def _varied(provider: TracerProvider, number: int, begin: int) -> None:
    kinds = list(SpanKind)
    kind = kinds[number % len(kinds)]
    attributes: dict[str, Any] = {}
    if number % 3 == 0:
        attributes |= {"http.request.method": "GET", "http.response.status_code": 200 + number % 4 * 100}
        attributes |= {"http.route": f"/{number % 2}"}
    if number % 4 == 0:
        attributes |= {"peer.service": "billing", "server.address": "10.0.0.1", "db.namespace": "orders"}
    if number % 5 == 0:
        attributes |= {"rpc.grpc.status_code": number % 17}
    tracer = provider.get_tracer("app")
    root = tracer.start_span(f"work {number % 7}", kind=SpanKind.SERVER, start_time=begin)
    inner = tracer.start_span("inner", trace.set_span_in_context(root), kind, attributes, start_time=begin)
    if number % 6 == 0:
        inner.set_status(StatusCode.ERROR)
    inner.end(begin + number * number * 997)
    root.end(begin + number * number * 1009)


def _by_key(groups: list[dict[str, Any]]) -> dict[Any, Any]:
    names = ("Name", "Resource", "Type", "HTTPStatusCode", "SpanKind", "GRPCStatusCode", "HTTPMethod", "HTTPEndpoint")
    found: dict[Any, Any] = {}
    for group in groups:
        key = (*(group[name] for name in names), int(group["IsTraceRoot"]), tuple(group["PeerTags"]))
        counts = [group[name] for name in ("Hits", "Errors", "Duration", "TopLevelHits")]
        assert key not in found
        found[key] = (*counts, bytes(group["OkSummary"]).hex(), bytes(group["ErrorSummary"]).hex())
    return found
