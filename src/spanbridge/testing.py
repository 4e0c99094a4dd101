"""For pytest: `pytest_plugins = ["spanbridge.testing"]` in a conftest.py gives the fixtures `spans` and `payload`.

Each test that asks for `spans` has a TracerProvider of its own (which one, SPANBRIDGE_RECORDER says), with span and
trace ids 1, 2, 3 ... and a clock that ticks once per start or end of a span.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from math import isfinite
from typing import TYPE_CHECKING, Annotated, Any, Literal, overload

import msgspec
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator

import spanbridge
from spanbridge.core import guard
from spanbridge.exporters.datadog.encoding import encode_v04
from spanbridge.exporters.datadog.mapping import SpanMapper
from spanbridge.exporters.datadog.settings import Settings
from spanbridge.exporters.datadog.trace import AUTO_KEEP, DEFAULT, TraceState
from spanbridge.recorder import chosen_provider

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, Span
    from opentelemetry.sdk.trace.sampling import Sampler


TracerProvider = chosen_provider()
"""The provider class that SPANBRIDGE_RECORDER names."""


class CountingIds(IdGenerator):
    """Gives traces the ids 1, 2, 3 ..., and spans likewise."""

    def __init__(self) -> None:
        self._traces, self._spans = count(1), count(1)

    def generate_trace_id(self) -> int:
        """Answer the next trace id."""
        return next(self._traces)

    def generate_span_id(self) -> int:
        """Answer the next span id."""
        return next(self._spans)


class _Recorder(SpanProcessor):
    """Keeps spans as they start and end, and when, in ticks."""

    def __init__(self) -> None:
        self.clock = count(1)
        self.started: dict[int, tuple[ReadableSpan, int]] = {}
        self.open: dict[int, ReadableSpan] = {}
        self.ended: list[tuple[ReadableSpan, int]] = []

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        span_id = span.get_span_context().span_id
        self.started[span_id] = (span, next(self.clock))
        self.open[span_id] = span

    def on_end(self, span: ReadableSpan) -> None:
        assert span.context is not None
        del self.open[span.context.span_id]
        self.ended.append((span, next(self.clock)))


class Spans(Sequence[dict[str, Any]]):
    """The finished spans, in the order in which they ended, each a plain dict.

    Keys: `name`, `kind` (such as `CLIENT`), `trace_id`, `span_id`, `parent_id` (None for a root), `parent` (its name;
    None if it is of another process), `scope`, `attributes`, `status` (`UNSET`, `OK`, `ERROR`), `description` (of the
    status), `events` (`name`, `attributes`), `links` (`trace_id`, `span_id`, `attributes`), `start`, `end` (ticks).

    Args:
        sampler: of the provider; by default every span is sampled.

    Attributes:
        provider: the TracerProvider whose spans these are.
    """

    def __init__(self, sampler: Sampler | None = None) -> None:
        self._recorder = _Recorder()
        self.provider = TracerProvider(sampler=sampler, id_generator=CountingIds(), shutdown_on_exit=False)
        self.provider.add_span_processor(self._recorder)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        ended = self._recorder.ended[index]
        return [self._plain(*row) for row in ended] if isinstance(ended, list) else self._plain(*ended)

    def __len__(self) -> int:
        return len(self._recorder.ended)

    def __repr__(self) -> str:
        return repr(list(self))

    @property
    def finished(self) -> list[ReadableSpan]:
        """The same spans as the SDK hands them to exporters."""
        return [span for span, _ in self._recorder.ended]

    @property
    def unfinished(self) -> list[str]:
        """The names of the spans that have started and not ended."""
        return [span.name for span in self._recorder.open.values()]

    def clear(self) -> None:
        """Forget the finished spans; ids and clock go on."""
        self._recorder.ended.clear()

    def _plain(self, span: ReadableSpan, end: int) -> dict[str, Any]:
        context, parent, scope = span.context, span.parent, span.instrumentation_scope
        assert context is not None
        known = self._recorder.started.get(parent.span_id) if parent is not None and not parent.is_remote else None
        return {
            "name": span.name,
            "kind": span.kind.name,
            "trace_id": context.trace_id,
            "span_id": context.span_id,
            "parent_id": parent.span_id if parent else None,
            "parent": known[0].name if known else None,
            "scope": scope.name if scope else "",
            "attributes": dict(span.attributes or {}),
            "status": span.status.status_code.name,
            "description": span.status.description,
            "events": [{"name": event.name, "attributes": dict(event.attributes or {})} for event in span.events],
            "links": [
                {
                    "trace_id": link.context.trace_id,
                    "span_id": link.context.span_id,
                    "attributes": dict(link.attributes or {}),
                }
                for link in span.links
            ],
            "start": self._recorder.started[context.span_id][1],
            "end": end,
        }


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Spans:
    """The finished spans of this test; their provider is the global one as long as the test runs."""
    recorded = Spans()
    # The API lets a process set its provider once; its own test utilities reset this variable in between, too.
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", recorded.provider)
    return recorded


_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=5_000)]
_Id = Annotated[int, msgspec.Meta(gt=0)]
_YEAR_2000 = 946_684_800 * 10**9


class WireSpan(msgspec.Struct, forbid_unknown_fields=True):
    """A span as the Agent reads it from /v0.4/traces (protocol A.2)."""

    service: _Text
    name: _Text
    resource: _Text
    type: str
    trace_id: _Id
    span_id: _Id
    parent_id: Annotated[int, msgspec.Meta(ge=0)]
    start: Annotated[int, msgspec.Meta(ge=_YEAR_2000)]
    duration: Annotated[int, msgspec.Meta(ge=0)]
    error: Literal[0, 1]
    meta: dict[str, str]
    metrics: dict[str, float]
    span_links: list[dict[str, Any]] = []
    span_events: list[dict[str, Any]] = []


def encode(finished: Sequence[ReadableSpan]) -> bytes:
    """Map and encode finished spans as the exporter does, one chunk per local root, in the v0.4 format."""
    known = {span.context.span_id: span for span in finished if span.context}

    def parent_of(span: ReadableSpan) -> ReadableSpan | None:
        return known.get(span.parent.span_id) if span.parent is not None and not span.parent.is_remote else None

    def local_root_of(span: ReadableSpan) -> ReadableSpan:
        parent = parent_of(span)
        return span if parent is None else local_root_of(parent)

    chunks: dict[int, list[ReadableSpan]] = {}
    for span in sorted(finished, key=lambda span: span.start_time or 0):
        chunks.setdefault(id(local_root_of(span)), []).append(span)
    mapper = SpanMapper(Settings.from_environment())
    mapped = []
    for spans in chunks.values():
        chunk = []
        for span in spans:
            parent = parent_of(span)
            top_level = parent is None or mapper.service_of(parent) != mapper.service_of(span)
            chunk.append(mapper.map(span, top_level=top_level, local_root=parent is None))
        chunk.sort(key=lambda row: "_dd.top_level" not in row["metrics"])
        trace = TraceState.new(spans[0].context.trace_id if spans[0].context else 0)
        trace.decide(AUTO_KEEP, DEFAULT)
        mapper.finish_chunk(chunk, trace)
        mapped.append(chunk)
    return encode_v04(mapped)


def validate(body: bytes) -> None:
    """Check a v0.4 payload as strictly as the strictest receiver (protocol A.2, D.4, F).

    Raises:
        msgspec.ValidationError: if a field has not the type or range that the format demands.
        AssertionError: if the spans of a chunk do not belong together, or its first lacks what it must say.
    """
    for chunk in msgspec.msgpack.decode(body, type=list[list[WireSpan]]):
        assert chunk, "a chunk without spans"
        first = chunk[0]
        assert {span.trace_id for span in chunk} == {first.trace_id}, f"several traces in one chunk: {chunk}"
        ids = {span.span_id for span in chunk}
        assert len(ids) == len(chunk), f"the same span twice: {chunk}"
        assert "_sampling_priority_v1" in first.metrics, f"no sampling priority on the first span: {first}"
        assert "_dd.top_level" in first.metrics, f"the first span is not top level: {first}"
        starts = {span.span_id: span.start for span in chunk}
        for span in chunk[1:]:
            assert span.parent_id in ids, f"its parent is not in the chunk: {span}"
            assert span.start >= starts[span.parent_id], f"it starts before its parent: {span}"
            assert "_sampling_priority_v1" not in span.metrics, f"not the first, yet it has a priority: {span}"
        for span in chunk:
            assert all(map(isfinite, span.metrics.values())), f"NaN or infinity: {span}"
            assert "language" in span.meta or span is not first, f"no language: {span}"


Payload = Callable[[], list[list[dict[str, Any]]]]


@pytest.fixture
def payload(spans: Spans) -> Iterator[Payload]:
    """Answers this test's spans as the Agent would get them; at the end of the test, checks that it could read them.

    At the end all spans must have ended, too.
    """
    yield lambda: msgspec.msgpack.decode(encode(spans.finished))
    validate(encode(spans.finished))
    assert spans.unfinished == []


@pytest.fixture(autouse=True)
def _uninstrumented() -> Iterator[None]:
    """Uninstrument everything after each test, and let warnings that come once per process come again.

    A patch that outlives its test records into the provider of that test, which nobody reads any more: the next test
    sees no spans, or another test's options, depending on the order in which they run.
    """
    yield
    spanbridge.uninstrument()
    guard.forget()
