"""One variant of tracing in one process: measures every operation and prints microseconds per operation as JSON.

`python worker.py VARIANT`; the driver (`python -m tests.benchmarks`) runs each variant in turn, in its own environment.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import time
from importlib.metadata import version
from statistics import mean, quantiles
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


OPERATIONS_PER_BATCH = 50
BATCHES = 160
WARM_UP_BATCHES = 20
SPANS_TO_ENCODE = 1000


# --- the operations, each without any network


def flask_request() -> Callable[[], object]:
    from flask import Flask
    from werkzeug.test import EnvironBuilder

    app = Flask("shop")

    @app.route("/items/<int:item_id>")
    def item(item_id: int) -> str:
        return str(item_id)

    environ = EnvironBuilder(path="/items/3?page=1", headers={"User-Agent": "bench/1"}).get_environ()

    def start_response(
        status: str, headers: list[tuple[str, str]], exc_info: object = None
    ) -> Callable[[bytes], object]:
        return lambda chunk: None

    def operation() -> None:
        body = app(environ.copy(), start_response)
        for _ in body:
            pass
        close = getattr(body, "close", None)
        if close is not None:
            close()

    return operation


def requests_call() -> Callable[[], object]:
    import requests
    from requests.adapters import BaseAdapter

    class Canned(BaseAdapter):
        def send(self, request: requests.PreparedRequest, **_: object) -> requests.Response:  # type: ignore[override]
            response = requests.Response()
            response.status_code, response.reason, response.request = 200, "OK", request
            response.url, response.raw = request.url or "", io.BytesIO(b"ok")
            return response

        def close(self) -> None:
            pass

    session = requests.Session()
    session.trust_env = False
    session.mount("http://", Canned())
    return lambda: session.get("http://prices.example:8080/items/3?page=1")


def sqlite3_select() -> Callable[[], object]:
    import sqlite3

    connection = sqlite3.connect(":memory:")
    cursor = connection.cursor()
    cursor.execute("create table t (a int, b text)")
    cursor.execute("insert into t values (1, 'x')")
    return lambda: cursor.execute("select b from t where a = ?", (1,)).fetchone()


def redis_get() -> Callable[[], object]:
    import redis

    class Canned(redis.Connection):
        def connect(self) -> None:
            pass

        def send_command(self, *arguments: object, **_: object) -> None:
            pass

        def can_read(self, timeout: float = 0) -> bool:
            return False

        def read_response(self, *_: object, **__: object) -> bytes:
            return b"v"

    pool = redis.ConnectionPool(connection_class=Canned, host="localhost", port=6379)
    client = redis.Redis(connection_pool=pool)
    return lambda: client.get("key")


def celery_apply() -> Callable[[], object]:
    from celery import Celery

    app = Celery("shop", broker="memory://localhost")

    @app.task(name="shop.add", ignore_result=True)
    def add(x: int, y: int) -> int:
        return x + y

    producer = app.producer_pool.acquire()
    producer.publish = lambda *_, **__: None
    return lambda: add.apply_async((1, 2), producer=producer)


def executor_submit() -> Callable[[], object]:
    from concurrent.futures import ThreadPoolExecutor

    class AtOnce:
        """In the queue's place: runs what a thread would, without its switching."""

        def put(self, item: Any) -> None:
            item.run()

    class Executor(ThreadPoolExecutor):
        def _adjust_thread_count(self) -> None:
            pass

    executor = Executor(1)
    executor._work_queue = AtOnce()  # type: ignore[assignment]
    return lambda: executor.submit(id, None)


OPERATIONS = {
    "flask": flask_request,
    "requests": requests_call,
    "sqlite3": sqlite3_select,
    "redis": redis_get,
    "celery": celery_apply,
    "futures": executor_submit,
}
WITH_SPANS = tuple(name for name in OPERATIONS if name != "futures")


# --- the variants: each returns how to open a parent span


class _Drop:
    """An exporter that drops, and remembers the last span of each instrumentor."""

    def __init__(self) -> None:
        self.last: dict[str, Any] = {}

    def export(self, spans: Any) -> Any:
        from opentelemetry.sdk.trace.export import SpanExportResult

        for span in spans:
            self.last[span.instrumentation_scope.name.rpartition(".")[2]] = span
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        pass

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return True


_dropped = _Drop()


def _otel_provider(processor: Any, recorder: str = "sdk", **options: Any) -> Callable[[], Any]:
    from opentelemetry import trace

    provider = _provider_class(recorder)(**options)
    provider.add_span_processor(processor)
    trace.set_tracer_provider(provider)
    tracer = trace.get_tracer("bench")
    return lambda: tracer.start_as_current_span("parent")


def _provider_class(recorder: str) -> Any:
    if recorder == "sdk":
        from opentelemetry.sdk.trace import TracerProvider
    else:
        from spanbridge.recorder import TracerProvider
    return TracerProvider


def _batch() -> Any:
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    return BatchSpanProcessor(_dropped)  # type: ignore[arg-type]


def _instrument(package: str) -> None:
    from importlib import import_module

    classes = {
        "flask": "FlaskInstrumentor",
        "requests": "RequestsInstrumentor",
        "sqlite3": "SQLite3Instrumentor",
        "redis": "RedisInstrumentor",
        "celery": "CeleryInstrumentor",
    }
    ours = package.startswith("spanbridge")
    classes |= {"futures": "FuturesInstrumentor"} if ours else {"threading": "ThreadingInstrumentor"}
    for module, name in classes.items():
        getattr(import_module(f"{package}.{module}"), name)().instrument()


def plain() -> Callable[[], Any]:
    return contextlib.nullcontext


def contrib() -> Callable[[], Any]:
    parent = _otel_provider(_batch())
    _instrument("opentelemetry.instrumentation")
    return parent


def contrib_idle() -> Callable[[], Any]:
    _instrument("opentelemetry.instrumentation")
    return contextlib.nullcontext


def ddtrace() -> Callable[[], Any]:
    import ddtrace.auto  # noqa: F401
    from ddtrace.trace import tracer

    return lambda: tracer.trace("parent")


def by_hand() -> Callable[[], Any]:
    from importlib import import_module

    from opentelemetry import trace

    parent = _otel_provider(_batch())
    hand, tracer = import_module("by_hand"), trace.get_tracer("by hand")
    for library in OPERATIONS:
        getattr(hand, f"trace_{library}")(tracer)
    return parent


def spanbridge_on_sdk() -> Callable[[], Any]:
    parent = _otel_provider(_batch())
    _instrument("spanbridge.instrumentors")
    return parent


def spanbridge_on_recorder() -> Callable[[], Any]:
    parent = _otel_provider(_batch(), "spanbridge")
    _instrument("spanbridge.instrumentors")
    return parent


def spanbridge_datadog() -> Callable[[], Any]:
    """As the launcher sets it up."""
    from spanbridge.exporters.datadog import DatadogSpanProcessor, datadog_sampler

    parent = _otel_provider(DatadogSpanProcessor(), "spanbridge", sampler=datadog_sampler())
    _instrument("spanbridge.instrumentors")
    return parent


def spanbridge_idle() -> Callable[[], Any]:
    _instrument("spanbridge.instrumentors")
    return contextlib.nullcontext


VARIANTS = {
    function.__name__: function
    for function in (
        *(plain, by_hand, contrib, contrib_idle, ddtrace),
        *(spanbridge_on_sdk, spanbridge_on_recorder, spanbridge_datadog, spanbridge_idle),
    )
}


# --- measuring


def measure(operation: Callable[[], object], parent: Callable[[], Any]) -> tuple[float, float]:
    """Return microseconds per operation: the lower quartile of the batches (the hot path, without what else the
    machine did), and the mean (with what the tracer's own threads took from the program).
    """
    batches = []
    for number in range(WARM_UP_BATCHES + BATCHES):
        with parent():
            start = time.perf_counter_ns()
            for _ in range(OPERATIONS_PER_BATCH):
                operation()
            spent = time.perf_counter_ns() - start
        if number >= WARM_UP_BATCHES:
            batches.append(spent / OPERATIONS_PER_BATCH / 1000)
    return quantiles(batches, n=4)[0], mean(batches)


def _alone(library: str) -> Callable[[], object]:
    """Return the span of `library`, with the same name, kind and attributes, around nothing."""
    from opentelemetry import trace

    seen = _dropped.last[library]
    tracer = trace.get_tracer("alone")
    name, kind, attributes = seen.name, seen.kind, dict(seen.attributes)

    def operation() -> None:
        with tracer.start_as_current_span(name, kind=kind, attributes=attributes):
            pass

    return operation


_NINE: dict[str, Any] = {
    "http.request.method": "GET",
    "url.full": "http://prices.example:8080/items/3?page=1",
    "server.address": "prices.example",
    "server.port": 8080,
    "http.response.status_code": 200,
    "user_agent.original": "python-requests/2.32",
    "network.protocol.version": "1.1",
    "url.scheme": "http",
    "network.peer.address": "10.0.0.7",
}


def _nine_attributes(recorder: str) -> Callable[[], object]:
    """Return a span made current, with nine attributes, of a provider that nobody listens to."""
    from opentelemetry.trace import SpanKind

    tracer = _provider_class(recorder)(shutdown_on_exit=False).get_tracer("alone")

    def operation() -> None:
        with tracer.start_as_current_span("GET", kind=SpanKind.CLIENT, attributes=_NINE):
            pass

    return operation


def _live_span(recorder: str) -> float:
    """Return what an open span with nine attributes takes, in bytes."""
    import tracemalloc

    tracer = _provider_class(recorder)(shutdown_on_exit=False).get_tracer("alone")
    tracer.start_span("GET", attributes=_NINE).end()
    tracemalloc.start()
    spans = [tracer.start_span("GET", attributes=_NINE) for _ in range(1000)]
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return taken / len(spans)


def _otlp() -> Callable[[list[Any]], bytes]:
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

    return lambda spans: encode_spans(spans).SerializeToString()


def _datadog(spans: list[Any]) -> Callable[[list[Any]], bytes]:
    """What the exporter's worker does with finished chunks, each a request with its three calls."""
    from spanbridge.exporters.datadog.chunks import Chunk, Member
    from spanbridge.exporters.datadog.encoding import join
    from spanbridge.exporters.datadog.exporter import DatadogSpanExporter
    from spanbridge.exporters.datadog.trace import TraceState

    exporter, state, size = DatadogSpanExporter(), TraceState(priority=1, decision_maker="-0"), len(WITH_SPANS)
    chunks = []
    for first in range(0, len(spans), size):
        *calls, root = spans[first : first + size]
        above = Member(root, None, local_root=True, finished=True)
        below = [Member(call, above, local_root=False, finished=True) for call in calls]
        chunks.append(Chunk(state, [above, *below], partial=False))
    return lambda _: join([exporter.encode(chunk).body for chunk in chunks])  # type: ignore[union-attr]


def _microseconds_per_span(encode: Callable[[Any], object], spans: Any) -> float:
    """Return the fastest of twenty passes, in microseconds per span."""
    passes = []
    for _ in range(20):
        start = time.perf_counter_ns()
        encode(spans)
        passes.append(time.perf_counter_ns() - start)
    return min(passes) / len(spans) / 1000


def _otel_spans(recorder: str) -> list[Any]:
    """Return finished spans as the four instrumentors make them: a request with three calls, again and again."""
    seen = [_dropped.last[library] for library in WITH_SPANS]
    provider = _provider_class(recorder)(shutdown_on_exit=False)
    spans: list[Any] = []
    while len(spans) < SPANS_TO_ENCODE:
        server, *calls = seen
        tracer = provider.get_tracer(server.instrumentation_scope.name, server.instrumentation_scope.version)
        with tracer.start_as_current_span(server.name, kind=server.kind, attributes=dict(server.attributes)) as root:
            for call in calls:
                tracer = provider.get_tracer(call.instrumentation_scope.name, call.instrumentation_scope.version)
                span = tracer.start_span(call.name, kind=call.kind, attributes=dict(call.attributes))
                span.end()
                spans.append(span)
        spans.append(root)
    return spans


def _ddtrace_encoding(run: dict[str, Callable[[], object]]) -> tuple[float, float]:
    """Return what ddtrace's encoder takes for its spans of the same operations: per span, and per operation."""
    from ddtrace.internal.encoding import MsgpackEncoderV04
    from ddtrace.trace import tracer

    traces = []
    aggregator = tracer._span_aggregator

    class Keep:
        def process_trace(self, trace: Any) -> Any:
            traces.append(list(trace))

    aggregator.user_processors = [*aggregator.user_processors, Keep()]
    requests = SPANS_TO_ENCODE // len(OPERATIONS)
    for _ in range(requests):
        with tracer.trace("parent"):
            for operation in run.values():
                operation()
    aggregator.user_processors = aggregator.user_processors[:-1]

    def encode() -> object:
        encoder = MsgpackEncoderV04(1 << 24, 1 << 24)
        for trace in traces:
            encoder.put(trace)
        return encoder.encode()

    passes = []
    for _ in range(20):
        start = time.perf_counter_ns()
        encode()
        passes.append(time.perf_counter_ns() - start)
    fastest = min(passes) / 1000
    return fastest / sum(map(len, traces)), fastest / (requests * len(OPERATIONS))


def main() -> None:
    variant = sys.argv[1]
    parent = VARIANTS[variant]()
    run = {name: make() for name, make in OPERATIONS.items()}
    figures = {}
    for name, operation in run.items():
        around = contextlib.nullcontext if name == "flask" else parent
        figures[name], figures[f"{name}, mean"] = measure(operation, around)
    if variant in {"contrib", "spanbridge_on_sdk", "spanbridge_on_recorder"}:
        from opentelemetry import trace
        from opentelemetry.instrumentation.utils import suppress_instrumentation

        for name, operation in run.items():
            with suppress_instrumentation():
                figures[f"suppressed {name}"], _ = measure(operation, contextlib.nullcontext)
        trace.get_tracer_provider().force_flush()  # type: ignore[attr-defined]
        for name in WITH_SPANS:
            around = contextlib.nullcontext if name == "flask" else parent
            figures[f"alone {name}"], _ = measure(_alone(name), around)
    if variant == "spanbridge_on_recorder":
        for recorder in ("sdk", "spanbridge"):
            figures[f"nine attributes, {recorder}"], _ = measure(_nine_attributes(recorder), parent)
            figures[f"live span, {recorder}"] = _live_span(recorder)
            spans = _otel_spans(recorder)
            figures[f"encoding as otlp, {recorder}"] = _microseconds_per_span(_otlp(), spans)
            figures[f"encoding as datadog, {recorder}"] = _microseconds_per_span(_datadog(spans), spans)
    if variant == "ddtrace":
        per_span, per_operation = _ddtrace_encoding(run)
        figures["encoding ddtrace"], figures["encoding ddtrace, per operation"] = per_span, per_operation
    versions = {name: version(name) for name in ("flask", "requests", "redis", "celery")}
    print(json.dumps({"figures": figures, "versions": versions}))


if __name__ == "__main__":
    main()
