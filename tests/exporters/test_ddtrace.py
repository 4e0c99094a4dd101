"""A service on ddtrace and one on spanbridge call each other: one trace, one decision, whoever began."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.request import Request, urlopen

import pytest

from tests.environments import TREE, clean_variables, environment
from tests.exporters import receivers
from tests.exporters.samples import HIGH, LOW, PARENT_ID, TRACE_ID
from tests.servers import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.exporters.receivers import TestAgent

pytestmark = pytest.mark.slow

# Calls the addresses of `?next=`, one after the other, each by the one before; knows of no tracer.
SERVICE = """
import flask, requests, sys
from werkzeug.serving import make_server

app = flask.Flask("shop")

def hop():
    here, *rest = flask.request.args.getlist("next") or [None]
    if here:
        requests.get(here, params={"next": rest})
    return "ok"

app.add_url_rule("/kept", view_func=hop, endpoint="kept")
app.add_url_rule("/rejected", view_func=hop, endpoint="rejected")
server = make_server("127.0.0.1", 0, app, threaded=True)
open(sys.argv[1], "w").write(str(server.port))
server.serve_forever()
"""
OURS, THEIRS = "ours", "theirs"
VARIABLES = {
    "DD_TRACE_SAMPLING_RULES": '[{"resource": "GET /rejected", "sample_rate": 0}]',
    "DD_TRACE_WRITER_INTERVAL_SECONDS": "0.2",
    "DD_TRACE_API_VERSION": "v0.4",
    "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
    "DD_REMOTE_CONFIGURATION_ENABLED": "false",
}


@contextmanager
def service(name: str, launcher: list[str | Path], directory: Path, agent: TestAgent, **more: str) -> Iterator[str]:
    (directory / "service.py").write_text(SERVICE)
    port = directory / f"{name}.port"
    with (directory / f"{name}.log").open("w") as log:
        process = subprocess.Popen(
            [*launcher, directory / "service.py", port],
            env=clean_variables(DD_SERVICE=name, DD_TRACE_AGENT_URL=agent.url, **VARIABLES, **more),
            cwd=directory,
            stdout=log,
            stderr=log,
        )
        try:
            wait_for(lambda: port.exists() and port.read_text(), f"the service on {name}", 60)
            yield f"http://127.0.0.1:{port.read_text()}"
        finally:
            process.terminate()
            process.wait(10)


@contextmanager
def both(agent: TestAgent, directory: Path, **more: str) -> Iterator[dict[str, str]]:
    """Run one service on each tracer; answer their addresses."""
    try:
        python = environment(TREE / ".nox" / "interop", "ddtrace==4.16.0", "flask", "requests")
    except subprocess.CalledProcessError:
        receivers.missing("ddtrace==4.16.0")
    ours = [Path(sysconfig.get_path("scripts"), "opentelemetry-instrument"), sys.executable]
    theirs = [python.parent / "ddtrace-run", python]
    with service(OURS, ours, directory, agent, **more) as one, service(THEIRS, theirs, directory, agent, **more) as two:
        yield {OURS: one, THEIRS: two}


@pytest.fixture(scope="module")
def services(agent_process: TestAgent, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Both services, propagating as they do by themselves."""
    with both(agent_process, tmp_path_factory.mktemp("services")) as addresses:
        yield addresses


class Root(NamedTuple):
    """What a service has made of the headers that it got."""

    trace_id: int
    priority: int | None
    decision_maker: str | None
    origin: str | None
    parent_id: int
    last_parent: str | None
    links: list[tuple[int, int]]


def visit(
    services: dict[str, str], agent: TestAgent, first: str, path: str, headers: dict[str, str], *others: str
) -> dict[str, dict[str, Any]]:
    """Call `first`, which calls the others; answer each one's server span, by service."""
    query = "&".join(f"next={services[other]}{path}" for other in others)
    urlopen(Request(f"{services[first]}{path}?{query}", headers=headers), timeout=20).read()

    def found() -> dict[str, dict[str, Any]]:
        return {span["service"]: span for span in agent.spans() if span["meta"].get("span.kind") == "server"}

    wait_for(lambda: {first, *others} <= found().keys(), "the spans", 20)
    assert agent.failed_checks() == ""
    return found()


def root(span: dict[str, Any]) -> Root:
    meta = span["meta"]
    high = int(meta.get("_dd.p.tid", "0"), 16)
    links = span.get("span_links") or []
    return Root(
        high << 64 | span["trace_id"],
        span["metrics"].get("_sampling_priority_v1"),
        meta.get("_dd.p.dm"),
        meta.get("_dd.origin"),
        span.get("parent_id") or 0,
        meta.get("_dd.parent_id"),
        [(link.get("trace_id_high", 0) << 64 | link["trace_id"], link["span_id"]) for link in links],
    )


DATADOG = {"x-datadog-trace-id": str(LOW), "x-datadog-parent-id": str(PARENT_ID)}
TID = f"_dd.p.tid={HIGH:016x}"
W3C = f"00-{TRACE_ID:032x}-{PARENT_ID:016x}"
OTHER = f"00-{7:032x}-{8:016x}-01"
HEADERS: dict[str, dict[str, str]] = {
    "none": {},
    "datadog, kept": DATADOG | {"x-datadog-sampling-priority": "1", "x-datadog-tags": f"{TID},_dd.p.dm=-1"},
    "datadog, kept by the user": DATADOG
    | {"x-datadog-sampling-priority": "2", "x-datadog-tags": f"{TID},_dd.p.dm=-4", "x-datadog-origin": "synthetics"},
    "datadog, rejected": DATADOG | {"x-datadog-sampling-priority": "0", "x-datadog-tags": f"{TID},_dd.p.dm=-1"},
    "datadog, rejected by the user": DATADOG | {"x-datadog-sampling-priority": "-1", "x-datadog-tags": TID},
    "datadog, undecided": DATADOG | {"x-datadog-tags": TID},
    "datadog, 64 bits": DATADOG | {"x-datadog-sampling-priority": "1"},
    "datadog, no parent": {"x-datadog-trace-id": str(LOW), "x-datadog-sampling-priority": "1"},
    "w3c, sampled": {"traceparent": f"{W3C}-01"},
    "w3c, not sampled": {"traceparent": f"{W3C}-00"},
    "w3c, kept by the user": {
        "traceparent": f"{W3C}-01", "tracestate": "dd=s:2;p:00000000000000ab;o:rum;t.dm:-4;t.x:a~b,foo=1",
    },
    "w3c, rejected by the user": {"traceparent": f"{W3C}-00", "tracestate": "dd=s:-1;t.dm:-3"},
    "both, the same": DATADOG
    | {"x-datadog-sampling-priority": "1", "x-datadog-tags": f"{TID},_dd.p.dm=-1", "traceparent": f"{W3C}-01",
       "tracestate": f"dd=s:1;p:{PARENT_ID:016x};t.dm:-1"},
    "both, another parent": DATADOG
    | {"x-datadog-sampling-priority": "2", "x-datadog-tags": TID,
       "traceparent": f"00-{TRACE_ID:032x}-{9:016x}-01", "tracestate": "dd=s:2;p:00000000000000ab"},
    "both, another parent that names none": DATADOG
    | {"x-datadog-sampling-priority": "2", "x-datadog-tags": TID, "traceparent": f"00-{TRACE_ID:032x}-{9:016x}-01"},
    "both, contradicting": DATADOG
    | {"x-datadog-sampling-priority": "1", "x-datadog-tags": TID, "traceparent": OTHER, "tracestate": "dd=s:-1"},
    "broken datadog, w3c": {"x-datadog-trace-id": "xyz", "traceparent": f"{W3C}-01"},
    "broken tags": DATADOG | {"x-datadog-sampling-priority": "1", "x-datadog-tags": "_dd.p.dm=,x"},
    "broken decision maker": DATADOG
    | {"x-datadog-sampling-priority": "1", "x-datadog-tags": f"{TID},_dd.p.dm=-999"},
}  # fmt: skip


@pytest.mark.parametrize("case", HEADERS)
def test_both_understand_the_same(services, test_agent, case):
    headers = HEADERS[case]
    ours, theirs = (root(visit(services, test_agent, name, "/kept", headers)[name]) for name in (OURS, THEIRS))
    if not headers:  # each has begun a trace of its own
        ours, theirs = (each._replace(trace_id=0) for each in (ours, theirs))
    assert ours == theirs


@pytest.mark.parametrize("path", ["/kept", "/rejected"])
@pytest.mark.parametrize("case", ["none", "datadog, kept", "datadog, rejected", "w3c, kept by the user"])
@pytest.mark.parametrize("order", [(OURS, THEIRS), (THEIRS, OURS), (OURS, THEIRS, OURS)], ids="->".join)
def test_one_trace_one_decision(services, test_agent, order, case, path):
    first, *others = order
    visit(services, test_agent, first, path, HEADERS[case], *others)
    spans = test_agent.spans()
    servers = [root(span) for span in spans if span["name"] == "flask.request"]
    assert len(servers) == len(order)
    assert len({each.trace_id for each in servers}) == 1
    # Two visits of one trace to one service may share a chunk, whose first span says what holds for all.
    decided = [each for each in servers if each.priority is not None]
    assert len(decided) >= len(set(order))
    assert len({(each.priority, each.decision_maker, each.origin) for each in decided}) == 1
    by_id = {span["span_id"]: span for span in spans}
    callers = [by_id[each.parent_id]["name"] for each in servers if each.parent_id in by_id]
    assert callers == ["requests.request"] * len(others)
    if case == "none":
        assert decided[0].priority == (1 if path == "/kept" else -1)
        assert decided[0].decision_maker == ("-0" if path == "/kept" else "-3")


@pytest.mark.parametrize("style", ["tracecontext", "datadog", "b3", "b3multi"])
def test_every_style_joins_the_services(test_agent, tmp_path, style):
    with both(test_agent, tmp_path, DD_TRACE_PROPAGATION_STYLE=style) as services:
        for order in ((OURS, THEIRS), (THEIRS, OURS)):
            test_agent.clear()
            found = visit(services, test_agent, order[0], "/rejected", {}, order[1])
            one, other = (root(found[name]) for name in order)
            assert one.trace_id == other.trace_id
            assert (one.priority, other.priority) == (-1, -1 if style in {"tracecontext", "datadog"} else 0)


@pytest.mark.parametrize("behavior", ["restart", "ignore"])
def test_what_may_be_done_with_what_came_in(test_agent, tmp_path, behavior):
    with both(test_agent, tmp_path, DD_TRACE_PROPAGATION_BEHAVIOR_EXTRACT=behavior) as services:
        for case in ("datadog, kept by the user", "w3c, rejected by the user", "both, contradicting"):
            found = [visit(services, test_agent, name, "/kept", HEADERS[case])[name] for name in (OURS, THEIRS)]
            ours, theirs = (root(span)._replace(trace_id=0) for span in found)
            assert ours == theirs
            assert TRACE_ID not in {root(span).trace_id for span in found}
            test_agent.clear()


@pytest.mark.parametrize("schema", ["v0", "v1"])
def test_both_name_the_same(test_agent, tmp_path, schema):
    variables = {"DD_TRACE_SPAN_ATTRIBUTE_SCHEMA": schema, "DD_TRACE_PEER_SERVICE_MAPPING": "127.0.0.1:home"}
    with both(test_agent, tmp_path, **variables) as services:
        for order in ((OURS, THEIRS), (THEIRS, OURS)):
            visit(services, test_agent, order[0], "/kept", {}, order[1])
    named = {OURS: set(), THEIRS: set()}
    for span in test_agent.spans():
        if span["name"] in {"flask.request", "requests.request", "http.server.request", "http.client.request"}:
            meta = span["meta"]
            peer = tuple(
                meta.get(tag) for tag in ("peer.service", "_dd.peer.service.source", "_dd.peer.service.remapped_from")
            )
            # The client of each names the other; its service is its own, or its process's.
            sender = meta.get("_dd.base_service", span["service"])
            service = span["service"].replace(sender, "own")
            named[sender].add((service, span["name"], span["resource"], span["type"], meta["span.kind"], peer))
    assert named[OURS] == named[THEIRS]
    assert len(named[OURS]) == 2
