"""One variant of tracing in one process: measures every operation and prints microseconds per operation as JSON.

`python worker.py VARIANT [OPERATION ...]` (all, unless named); the driver (`python -m tests.benchmarks`) runs each
variant in turn, in its own environment.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
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


# --- the operations, without any network but for two


def flask_request() -> Callable[[], object]:
    from flask import Flask

    app = Flask("shop")

    @app.route("/items/<int:item_id>")
    def item(item_id: int) -> str:
        return str(item_id)

    return _wsgi(app)


def django_request() -> Callable[[], object]:
    from django.core.wsgi import get_wsgi_application

    return _wsgi(get_wsgi_application())


def falcon_request() -> Callable[[], object]:
    import falcon

    class Item:
        def on_get(self, request: Any, response: Any, item_id: int) -> None:
            response.text = str(item_id)

    app = falcon.App(middleware=[])  # a list of its own: ddtrace puts something into it
    app.add_route("/items/{item_id:int}", Item())
    return _wsgi(app)


def _wsgi(app: Any) -> Callable[[], object]:
    """Return a request to a WSGI application, read to its end."""
    from wsgiref.util import setup_testing_defaults

    environ: dict[str, Any] = {
        "PATH_INFO": "/items/3",
        "QUERY_STRING": "page=1",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "8080",
        "HTTP_HOST": "localhost:8080",
        "HTTP_USER_AGENT": "bench/1",
        "REMOTE_ADDR": "127.0.0.1",
    }
    setup_testing_defaults(environ)

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


def starlette_request() -> Callable[[], object]:
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def item(request: Any) -> Any:
        return PlainTextResponse(str(request.path_params["item_id"]))

    app = Starlette(routes=[Route("/items/{item_id:int}", item)])
    headers = [(b"host", b"localhost:8080"), (b"user-agent", b"bench/1")]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/items/3",
        "raw_path": b"/items/3",
        "query_string": b"page=1",
        "root_path": "",
        "headers": headers,
        "client": ("127.0.0.1", 40000),
        "server": ("127.0.0.1", 8080),
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        pass

    loop = _loop()
    return lambda: loop.run_until_complete(app(scope.copy(), receive, send))


def aiohttp_request() -> Callable[[], object]:
    from aiohttp import web

    async def item(request: web.Request) -> web.Response:
        return web.Response(text=request.match_info["item_id"])

    app = web.Application()
    app.router.add_get("/items/{item_id}", item)
    if "ddtrace" in sys.modules:
        from ddtrace.contrib.aiohttp import trace_app

        trace_app(app)
    loop = _loop()
    runner = web.AppRunner(app, access_log=None)
    loop.run_until_complete(runner.setup())
    transport = _Transport(loop)
    protocol: Any = runner.server()  # type: ignore[misc]
    loop.run_until_complete(transport.connect(protocol))
    request = b"GET /items/3?page=1 HTTP/1.1\r\nHost: localhost:8080\r\nUser-Agent: bench/1\r\n\r\n"
    return lambda: loop.run_until_complete(transport.exchange(protocol, request))


class _Transport(asyncio.Transport):
    """A connection on which one request is answered after the other."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__({"peername": ("127.0.0.1", 40000), "sockname": ("127.0.0.1", 8080)})
        self._loop = loop
        self._answered = loop.create_future()

    async def connect(self, protocol: Any) -> None:
        protocol.connection_made(self)
        await asyncio.sleep(0)

    async def exchange(self, protocol: Any, request: bytes) -> None:
        self._answered = self._loop.create_future()
        protocol.data_received(request)
        await self._answered

    def write(self, data: Any) -> None:
        if not self._answered.done():
            self._answered.set_result(None)

    def writelines(self, chunks: Any) -> None:
        self.write(chunks)

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        pass


def tornado_request() -> Callable[[], object]:
    from tornado.httputil import HTTPHeaders, HTTPServerRequest, RequestStartLine
    from tornado.web import Application, RequestHandler

    class Item(RequestHandler):
        def get(self, item_id: str) -> None:
            self.write(item_id)

    class Context:
        remote_ip, protocol, address = "127.0.0.1", "http", ("127.0.0.1", 40000)

    class Connection:
        """What a handler needs of a connection; nobody is at its other end."""

        context = Context()
        no_keep_alive = False

        def __init__(self) -> None:
            self.finished = loop.create_future()

        def set_close_callback(self, callback: Any) -> None:
            pass

        def write_headers(self, *_: Any, **__: Any) -> Any:
            return written

        def finish(self) -> None:
            self.finished.set_result(None)

    loop = _loop()
    written = loop.create_future()
    written.set_result(None)
    application = Application([(r"/items/([0-9]+)", Item)], log_function=lambda handler: None)
    headers = HTTPHeaders({"Host": "localhost:8080", "User-Agent": "bench/1"})
    line = RequestStartLine("GET", "/items/3?page=1", "HTTP/1.1")

    async def exchange() -> None:
        connection: Any = Connection()
        application(HTTPServerRequest(start_line=line, headers=headers, connection=connection))
        await connection.finished

    return lambda: loop.run_until_complete(exchange())


def _loop() -> asyncio.AbstractEventLoop:
    """Return the loop that all requests of this process run on."""
    global _running
    _running = _running or asyncio.new_event_loop()
    asyncio.set_event_loop(_running)
    return _running


_running: asyncio.AbstractEventLoop | None = None


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


def pymemcache_get() -> Callable[[], object]:
    from pymemcache.client.base import Client

    class Socket:
        """Answers every command with one value."""

        def recv(self, size: int) -> bytes:
            return b"VALUE key 0 1\r\nv\r\nEND\r\n"

        def __getattr__(self, name: str) -> Any:
            return lambda *_, **__: None

    class SocketModule:
        """In the place of the module `socket`."""

        AF_UNSPEC, SOCK_STREAM, IPPROTO_TCP, TCP_NODELAY = 0, 1, 6, 1
        error = OSError

        def socket(self, *_: object) -> Socket:
            return Socket()

        def getaddrinfo(self, host: str, port: int, *_: object) -> Any:
            return [(2, 1, 6, "", (host, port))]

    client = Client(("localhost", 11211), socket_module=SocketModule())
    return lambda: client.get("key")


# Connections of these drivers need a server: one round trip, the same under every variant.


def psycopg2_select() -> Callable[[], object]:
    import psycopg2

    cursor = psycopg2.connect(os.environ["POSTGRES"]).cursor()
    return lambda: cursor.execute("select %s", (1,))


def psycopg_select() -> Callable[[], object]:
    import psycopg

    cursor = psycopg.connect(os.environ["POSTGRES"]).cursor()
    return lambda: cursor.execute("select %s::int", (1,))


def sqlalchemy_select() -> Callable[[], object]:
    import sqlalchemy

    connection = sqlalchemy.create_engine("sqlite://").connect()
    return lambda: connection.exec_driver_sql("select ?", (1,)).scalar()


def celery_apply() -> Callable[[], object]:
    from celery import Celery

    app = Celery("shop", broker="memory://localhost")

    @app.task(name="shop.add", ignore_result=True)
    def add(x: int, y: int) -> int:
        return x + y

    producer = app.producer_pool.acquire()
    producer.publish = lambda *_, **__: None
    return lambda: add.apply_async((1, 2), producer=producer)


def grpc_unary() -> Callable[[], object]:
    import grpc
    from grpc import _channel

    def answered(*_: object, **__: object) -> tuple[Any, None]:
        """In the place of what talks to the C core: the state of a call that has ended."""
        state = _channel._RPCState((), (), (), grpc.StatusCode.OK, b"")
        state.response = b"answer"
        return state, None

    _channel._UnaryUnaryMultiCallable._blocking = answered
    call = grpc.insecure_channel("localhost:50051").unary_unary("/shop.Prices/Get")
    return lambda: call(b"3")


def jinja2_render() -> Callable[[], object]:
    from jinja2 import DictLoader, Environment

    environment = Environment(loader=DictLoader({"item.html": "<p>{{ name }}</p>"}), autoescape=True)
    template = environment.get_template("item.html")
    return lambda: template.render(name="chair")


def botocore_call() -> Callable[[], object]:
    import botocore.session
    from botocore.awsrequest import AWSResponse

    session = botocore.session.Session()
    session.set_credentials("id", "key")
    client = session.create_client("sqs", region_name="eu-west-1", endpoint_url="http://localhost:4566")
    http = AWSResponse("http://localhost:4566", 200, {}, None)
    metadata = {"RequestId": "7", "HTTPStatusCode": 200, "RetryAttempts": 0}
    client._endpoint.make_request = lambda *_: (http, {"MessageId": "7", "ResponseMetadata": metadata})
    return lambda: client.send_message(QueueUrl="http://localhost:4566/1/orders", MessageBody="3")


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


SERVERS = {
    "flask": flask_request,
    "django": django_request,
    "falcon": falcon_request,
    "starlette": starlette_request,
    "aiohttp_server": aiohttp_request,
    "tornado": tornado_request,
}
OPERATIONS = {
    **SERVERS,
    "requests": requests_call,
    "sqlite3": sqlite3_select,
    "redis": redis_get,
    "pymemcache": pymemcache_get,
    "psycopg2": psycopg2_select,
    "psycopg": psycopg_select,
    "sqlalchemy": sqlalchemy_select,
    "celery": celery_apply,
    "grpc": grpc_unary,
    "jinja2": jinja2_render,
    "botocore": botocore_call,
    "futures": executor_submit,
}
WITH_SPANS = tuple(name for name in OPERATIONS if name != "futures")
ENCODED = ("flask", "requests", "sqlite3", "redis", "celery")  # a request and what it calls


# --- the variants: each returns how to open a parent span


class _Drop:
    """An exporter that drops, and remembers the last span of each instrumentor."""

    def __init__(self) -> None:
        self.last: dict[str, Any] = {}

    def export(self, spans: Any) -> Any:
        from opentelemetry.sdk.trace.export import SpanExportResult

        for span in spans:
            parts = span.instrumentation_scope.name.split(".")  # contrib's for AWS end with the service
            self.last.update((part, span) for part in parts if part in OPERATIONS)
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
        "django": "DjangoInstrumentor",
        "falcon": "FalconInstrumentor",
        "starlette": "StarletteInstrumentor",
        "aiohttp_server": "AioHttpServerInstrumentor",
        "tornado": "TornadoInstrumentor",
        "requests": "RequestsInstrumentor",
        "sqlite3": "SQLite3Instrumentor",
        "redis": "RedisInstrumentor",
        "pymemcache": "PymemcacheInstrumentor",
        "psycopg2": "Psycopg2Instrumentor",
        "psycopg": "PsycopgInstrumentor",
        "sqlalchemy": "SQLAlchemyInstrumentor",
        "celery": "CeleryInstrumentor",
        "grpc": "GrpcInstrumentorClient",
        "jinja2": "Jinja2Instrumentor",
        "botocore": "BotocoreInstrumentor",
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


def by_hand(recorder: str = "sdk") -> Callable[[], Any]:
    from importlib import import_module

    from opentelemetry import trace

    parent = _otel_provider(_batch(), recorder)
    hand, tracer = import_module("by_hand"), trace.get_tracer("by hand")
    for library in OPERATIONS:
        getattr(hand, f"trace_{library}")(tracer)
    return parent


def by_hand_on_recorder() -> Callable[[], Any]:
    return by_hand("spanbridge")


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
        *(plain, by_hand, by_hand_on_recorder, contrib, contrib_idle, ddtrace),
        *(spanbridge_on_sdk, spanbridge_on_recorder, spanbridge_datadog, spanbridge_idle),
    )
}


# --- measuring


def measure(operation: Callable[[], object], parent: Callable[[], Any]) -> tuple[float, float]:
    """Return microseconds per operation: the lower quartile of the batches in this thread's own time (the hot path,
    without what else the machine did), and the mean by the clock (with what the tracer's own threads took from the
    program).
    """
    batches, by_the_clock = [], []
    for number in range(WARM_UP_BATCHES + BATCHES):
        with parent():
            clock, start = time.perf_counter_ns(), time.thread_time_ns()
            for _ in range(OPERATIONS_PER_BATCH):
                operation()
            spent, waited = time.thread_time_ns() - start, time.perf_counter_ns() - clock
        if number >= WARM_UP_BATCHES:
            batches.append(spent / OPERATIONS_PER_BATCH / 1000)
            by_the_clock.append(waited / OPERATIONS_PER_BATCH / 1000)
    return quantiles(batches, n=4)[0], mean(by_the_clock)


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

    exporter, state, size = DatadogSpanExporter(), TraceState(priority=1, decision_maker="-0"), len(ENCODED)
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
    seen = [_dropped.last[library] for library in ENCODED]
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
            traces.append([span for span in trace if span.name != "parent"])  # which is no operation

    aggregator.user_processors = [*aggregator.user_processors, Keep()]
    requests = SPANS_TO_ENCODE // len(run)
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
    return fastest / sum(map(len, traces)), fastest / (requests * len(run))


def main() -> None:
    variant, *names = sys.argv[1:]
    names = names or list(OPERATIONS)
    parent = VARIANTS[variant]()
    run = {name: OPERATIONS[name]() for name in names}
    figures = {}
    for name, operation in run.items():
        around = contextlib.nullcontext if name in SERVERS else parent
        figures[name], figures[f"{name}, mean"] = measure(operation, around)
    if variant in {"contrib", "spanbridge_on_sdk", "spanbridge_on_recorder"}:
        from opentelemetry import trace
        from opentelemetry.instrumentation.utils import suppress_instrumentation

        for name in names:
            with suppress_instrumentation():
                again = OPERATIONS[name]()  # a server's connection keeps the context that it began in
                figures[f"suppressed {name}"], _ = measure(again, contextlib.nullcontext)
        trace.get_tracer_provider().force_flush()  # type: ignore[attr-defined]
        for name in names:
            if name in WITH_SPANS:
                around = contextlib.nullcontext if name in SERVERS else parent
                figures[f"alone {name}"], _ = measure(_alone(name), around)
    if variant == "spanbridge_on_recorder" and set(names) >= set(ENCODED):
        for recorder in ("sdk", "spanbridge"):
            figures[f"nine attributes, {recorder}"], _ = measure(_nine_attributes(recorder), parent)
            figures[f"live span, {recorder}"] = _live_span(recorder)
            spans = _otel_spans(recorder)
            figures[f"encoding as otlp, {recorder}"] = _microseconds_per_span(_otlp(), spans)
            figures[f"encoding as datadog, {recorder}"] = _microseconds_per_span(_datadog(spans), spans)
    if variant == "ddtrace" and set(names) >= set(ENCODED):
        per_span, per_operation = _ddtrace_encoding({name: run[name] for name in ENCODED})
        figures["encoding ddtrace"], figures["encoding ddtrace, per operation"] = per_span, per_operation
    libraries = (*(name.removesuffix("_server") for name in SERVERS), "requests", "redis", "celery")
    libraries = (*libraries, "grpcio", "jinja2", "botocore", "pymemcache", "psycopg2-binary", "psycopg", "sqlalchemy")
    versions = {name: version(name) for name in libraries}
    print(json.dumps({"figures": figures, "versions": versions}))


if __name__ == "__main__":
    main()
