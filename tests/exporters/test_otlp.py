"""The same spans through OTLP to an Agent and through our own exporter: the same operations and resources.

The test agent shows what OTLP has brought; the Agent's rules for it (protocol B.1) are written down here once more, as
they read there.
"""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import SpanKind

from spanbridge.demo import processes
from spanbridge.exporters.datadog import DatadogSpanProcessor, Settings
from spanbridge.testing import TracerProvider
from tests.exporters import receivers

if TYPE_CHECKING:
    from tests.exporters.receivers import TestAgent

CLIENT, SERVER, INTERNAL = SpanKind.CLIENT, SpanKind.SERVER, SpanKind.INTERNAL
PRODUCER, CONSUMER = SpanKind.PRODUCER, SpanKind.CONSUMER

HTTP, OLD_HTTP = {"http.request.method": "GET"}, {"http.method": "POST"}
SPANS: list[tuple[SpanKind, dict[str, Any]]] = [
    *((kind, {}) for kind in SpanKind),
    *((kind, HTTP | {"http.route": "/a/{b}", "url.template": "/c"}) for kind in SpanKind),
    (SERVER, OLD_HTTP | {"http.route": "/old", "http.status_code": 200}),
    (CLIENT, {"http.request.method": "_OTHER"}),
    *((kind, {"db.system.name": "postgresql", "db.query.text": "SELECT 1"}) for kind in SpanKind),
    (CLIENT, {"db.system": "My SQL!", "db.statement": "SELECT 2", "db.query.text": "SELECT 3"}),
    (CLIENT, {"db.system": "redis"}),
    *(
        (kind, {"messaging.system": "kafka", "messaging.operation": "publish", "messaging.destination.name": "q"})
        for kind in SpanKind
    ),
    *((kind, {"rpc.system": "grpc", "rpc.service": "p.G", "rpc.method": "M"}) for kind in SpanKind),
    (CLIENT, {"rpc.system": "aws-api", "rpc.service": "S3", "rpc.method": "Get"}),
    (CLIENT, {"rpc.system": "aws-api"}),
    (CLIENT, {"faas.invoked_provider": "aws", "faas.invoked_name": "fn"}),
    (SERVER, {"faas.trigger": "http"}),
    (INTERNAL, {"graphql.operation.type": "query", "graphql.operation.name": "q"}),
    (SERVER, {"network.protocol.name": "amqp"}),
    (CLIENT, {"network.protocol.name": "amqp"}),
    (INTERNAL, {"operation.name": "Mine is It", "resource.name": "and This"}),
]


def agents_names(kind: str, name: str, span: dict[str, Any], resource: dict[str, Any]) -> tuple[str, str]:
    """Answer operation and resource by the Agent's rules; kinds in lower case."""

    def get(*keys: str) -> str:
        return next((str(source[key]) for key in keys for source in (span, resource) if source.get(key)), "")

    def clean(text: str) -> str:
        return re.sub(r"[^a-z0-9:./-]+", "_", text.lower()).strip("_")

    method = get("http.request.method", "http.method")
    database = get("db.system.name", "db.system")
    system, action = get("messaging.system"), get("messaging.operation")
    remote = get("rpc.system")
    outgoing, served = kind == "client", kind == "server"
    protocol = get("network.protocol.name")
    operation = next(
        found
        for condition, found in (
            (get("operation.name"), clean(get("operation.name"))),
            (method and (outgoing or served), f"http.{kind}.request"),
            (database and outgoing, f"{clean(database)}.query"),
            (system and action and kind != "internal", f"{clean(system)}.{clean(action)}"),
            (outgoing and remote == "aws-api", f"aws.{clean(get('rpc.service')) or 'client'}.request"),
            (remote and (outgoing or served), f"{clean(remote)}.{kind}.request"),
            (
                outgoing and get("faas.invoked_provider") and get("faas.invoked_name"),
                f"{clean(get('faas.invoked_provider'))}.{clean(get('faas.invoked_name'))}.invoke",
            ),
            (served and get("faas.trigger"), f"{clean(get('faas.trigger'))}.invoke"),
            (get("graphql.operation.type"), "graphql.server.request"),
            (outgoing or served, f"{protocol}.{kind}.request" if protocol else f"{kind}.request"),
            (True, kind),
        )
        if condition
    )
    template = get("url.template") if outgoing else get("http.route") if served else ""
    shown = next(
        found
        for condition, found in (
            (get("resource.name"), get("resource.name")),
            (method, f"{'HTTP' if method == '_OTHER' else method} {template}".strip()),
            (action, f"{action} {get('messaging.destination', 'messaging.destination.name')}".strip()),
            (get("rpc.method"), f"{get('rpc.method')} {get('rpc.service')}".strip()),
            (
                get("graphql.operation.type"),
                f"{get('graphql.operation.type')} {get('graphql.operation.name')}".strip(),
            ),
            (database and get("db.statement", "db.query.text"), get("db.statement", "db.query.text")),
            (True, name),
        )
        if condition
    )
    return operation, shown


def of_otlp(attributes: list[dict[str, Any]]) -> dict[str, Any]:
    return {item["key"]: next(iter(item["value"].values())) for item in attributes}


def received_by_otlp(agent: TestAgent) -> dict[str, tuple[str, str]]:
    """The names that the Agent gives to what has come through OTLP, by the span's own name."""
    status, body = processes.request("GET", f"http://127.0.0.1:{agent.otlp}/test/session/traces")
    assert status == 200, body
    found = {}
    for payload in json.loads(body):
        for group in payload["resource_spans"]:
            resource = of_otlp(group["resource"].get("attributes", []))
            for span in (span for scope in group["scope_spans"] for span in scope["spans"]):
                kind = str(span["kind"]).removeprefix("SPAN_KIND_").lower()
                found[span["name"]] = agents_names(kind, span["name"], of_otlp(span.get("attributes", [])), resource)
    return found


@pytest.mark.parametrize("resource", [{}, {"db.system": "mysql", "rpc.service": "from.the.Resource"}])
def test_operations_and_resources_are_those_of_otlp(test_agent: TestAgent, resource: dict[str, str]) -> None:
    if find_spec("opentelemetry.exporter.otlp.proto.http") is None:
        receivers.missing("opentelemetry-exporter-otlp-proto-http")
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    provider = TracerProvider(resource=Resource({"service.name": "shop", **resource}), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"http://127.0.0.1:{test_agent.otlp}/v1/traces")))
    provider.add_span_processor(DatadogSpanProcessor(settings=Settings(names="otel", agent_url=test_agent.url)))
    for number, (kind, attributes) in enumerate(SPANS):
        provider.get_tracer("app").start_span(f"span {number}", kind=kind, attributes=attributes).end()
    provider.shutdown()

    expected = received_by_otlp(test_agent)
    ours = sorted(test_agent.spans(), key=lambda span: span["start"])
    assert [(span["name"], span["resource"]) for span in ours] == [expected[f"span {n}"] for n in range(len(SPANS))]
