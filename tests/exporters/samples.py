"""What the exporter's tests are made of: finished spans of the real SDK, payloads read back, a transport by script."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Any

import msgpack
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags, set_span_in_context

from spanbridge.exporters.datadog.transport import Reply, Request
from spanbridge.testing import TracerProvider

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from opentelemetry.context import Context

HIGH, LOW = 0x6A5B4C3D00000000, 0x1122334455667788
TRACE_ID, PARENT_ID = HIGH << 64 | LOW, 0x99AA

OK = Reply(200, b'{"rate_by_service":{}}')


def remote(trace_id: int = TRACE_ID, span_id: int = PARENT_ID, flags: int = 1) -> Context:
    """A context whose current span is in another process."""
    return set_span_in_context(NonRecordingSpan(SpanContext(trace_id, span_id, True, TraceFlags(flags))))


class _Kept(SpanProcessor):
    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.spans.append(span)


def finished(
    name: str = "work",
    kind: SpanKind = SpanKind.INTERNAL,
    attributes: Mapping[str, Any] | None = None,
    *,
    scope: str = "app",
    resource: Mapping[str, Any] | None = None,
    context: Context | None = None,
    during: Callable[[Any], object] | None = None,
    **start: Any,
) -> ReadableSpan:
    """A span as the SDK hands it to exporters; `during` is called while it is open."""
    kept = _Kept()
    provider = TracerProvider(resource=Resource(dict(resource or {})), shutdown_on_exit=False)
    provider.add_span_processor(kept)
    span = provider.get_tracer(scope, "1.0").start_span(name, context, kind, attributes, **start)
    if during is not None:
        during(span)
    span.end()
    return kept.spans[0]


def decoded(payload: bytes) -> Any:
    return msgpack.unpackb(payload, strict_map_key=False)


class Transport:
    """Answers by script: replies or exceptions, the last one again and again; keeps every payload decoded.

    /info has an answer of its own, `info`.
    """

    url = "http://agent:8126"

    def __init__(self, *script: Reply | OSError) -> None:
        self._script = list(script or (OK,))
        self._lock = Lock()
        self.payloads: list[list[list[dict[str, Any]]]] = []
        self.counts: list[int] = []
        self.timeouts: list[float] = []
        self.closed = 0
        self.info = Reply(404, b"")
        self.requests: list[Request] = []

    def say(self, *script: Reply | OSError) -> None:
        self._script = list(script)

    def send(self, request: Request, timeout: float) -> Reply:
        with self._lock:
            self.requests.append(request)
            if request.path == "/info":
                return self.info
            self.counts.append(int(str(request.headers["X-Datadog-Trace-Count"])))
            self.timeouts.append(timeout)
            answer = self._script[0] if len(self._script) == 1 else self._script.pop(0)
            if isinstance(answer, OSError):
                raise answer
            if 200 <= answer.status < 300:
                self.payloads.append(decoded(request.body))
            return answer

    @property
    def paths(self) -> list[str]:
        return [request.path for request in self.requests]

    def close(self) -> None:
        self.closed += 1

    @property
    def chunks(self) -> list[list[dict[str, Any]]]:
        return [chunk for payload in self.payloads for chunk in payload]

    @property
    def resources(self) -> list[list[str]]:
        return [[span["resource"] for span in chunk] for chunk in self.chunks]


def assert_sendable(spans: Iterable[dict[str, Any]]) -> None:
    """Check what the receivers check: text in meta, numbers in metrics, ids, times (protocol A.2)."""
    for span in spans:
        assert all(type(key) is type(value) is str for key, value in span["meta"].items()), span["meta"]
        for key, value in span["metrics"].items():
            assert type(key) is str
            assert type(value) in {int, float}
            assert value - value == 0
        assert all(type(span[field]) is str and span[field] for field in ("service", "name", "resource"))
        assert type(span["type"]) is str
        assert len(span["resource"]) <= 5_000
        assert 0 < span["trace_id"] < 1 << 64
        assert 0 < span["span_id"] < 1 << 64
        assert 0 <= span["parent_id"] < 1 << 64
        assert span["duration"] >= 0
        assert span["error"] in {0, 1}
