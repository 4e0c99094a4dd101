"""Which spans leave together, and when."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext

from spanbridge.exporters.datadog.chunks import Assembler
from spanbridge.exporters.datadog.trace import TraceState

if TYPE_CHECKING:
    from spanbridge.exporters.datadog.chunks import Chunk

numbers = count(1)


def span(name: str, parent: ReadableSpan | None = None, *, trace_id: int = 7, remote: bool = False) -> ReadableSpan:
    above = parent.context if parent is not None else None
    if remote:
        above = SpanContext(trace_id, 99, is_remote=True)
    return ReadableSpan(name, SpanContext(trace_id, next(numbers), is_remote=False), above)


class Story:
    """An assembler, with starts and ends in the order in which a test tells them."""

    def __init__(self, partial_flush: int = 0) -> None:
        self.assembler = Assembler(partial_flush)
        self.state = TraceState()
        self.now = 0.0

    def start(self, *spans: ReadableSpan) -> None:
        for each in spans:
            self.assembler.started(each, self.state, self.now)

    def end(self, *spans: ReadableSpan) -> list[Chunk]:
        return [chunk for each in spans if (chunk := self.assembler.ended(each, self.now)) is not None]


def names(chunk: Chunk) -> list[str]:
    return [member.span.name for member in chunk.members]


def test_a_trace_leaves_when_its_last_span_ends_the_root_first() -> None:
    story = Story()
    root = span("root")
    child = span("child", root)
    grandchild = span("grandchild", child)
    story.start(root, child, grandchild)
    assert story.end(grandchild, child) == []
    (chunk,) = story.end(root)
    assert names(chunk) == ["root", "child", "grandchild"]
    assert [member.local_root for member in chunk.members] == [True, False, False]
    assert [member.parent for member in chunk.members] == [None, *chunk.members[:2]]
    assert (chunk.partial, chunk.trace) == (False, story.state)
    assert len(story.assembler) == 0


def test_a_child_that_outlives_its_parent_keeps_the_trace_open() -> None:
    story = Story()
    root = span("root")
    child = span("child", root)
    story.start(root, child)
    assert story.end(root) == []
    late = span("late", root)
    story.start(late)
    assert story.end(child) == []
    (chunk,) = story.end(late)
    assert names(chunk) == ["root", "child", "late"]


def test_a_child_that_starts_after_its_trace_has_left_makes_a_chunk_of_its_own() -> None:
    story = Story()
    root = span("root")
    story.start(root)
    story.end(root)
    late = span("late", root)
    story.start(late)
    (chunk,) = story.end(late)
    assert names(chunk) == ["late"]
    assert chunk.members[0].local_root


def test_a_second_local_root_of_the_same_trace_waits_for_the_first() -> None:
    story = Story()
    one, two = span("one", remote=True), span("two", remote=True)
    story.start(one, two)
    assert story.end(two) == []
    (chunk,) = story.end(one)
    assert names(chunk) == ["one", "two"]
    assert [member.local_root for member in chunk.members] == [True, True]


def test_traces_do_not_mix() -> None:
    story = Story()
    one, two = span("one", trace_id=1), span("two", trace_id=2)
    story.start(one, two)
    assert [names(chunk) for chunk in story.end(two, one)] == [["two"], ["one"]]


def test_many_finished_spans_leave_early() -> None:
    story = Story(partial_flush=2)
    root = span("root")
    story.start(root)
    children = [span(f"child {number}", root) for number in range(4)]
    early = []
    for child in children[:3]:
        story.start(child)
        early += story.end(child)
    (chunk,) = early
    assert (names(chunk), chunk.partial) == (["child 0", "child 1"], True)
    assert all(member.parent is not None and member.parent.span is root for member in chunk.members)
    (last,) = story.end(root)
    assert (names(last), last.partial) == (["root", "child 2"], False)


def test_a_child_of_a_span_that_has_left_is_no_local_root() -> None:
    story = Story(partial_flush=1)
    root = span("root")
    middle = span("middle", root)
    story.start(root, middle)
    (early,) = story.end(middle)
    assert names(early) == ["middle"]
    late = span("late", middle)
    story.start(late)
    (chunk,) = story.end(late)
    assert not chunk.members[0].local_root


def test_no_partial_flush() -> None:
    story = Story(partial_flush=0)
    root = span("root")
    story.start(root)
    for number in range(1000):
        child = span(f"{number}", root)
        story.start(child)
        assert story.end(child) == []
    (chunk,) = story.end(root)
    assert len(chunk.members) == 1001


def test_ends_of_spans_that_did_not_start_here_are_ignored() -> None:
    story = Story()
    root, stranger, other = span("root"), span("stranger"), span("other", trace_id=8)
    story.start(root)
    assert story.end(stranger, other) == []
    assert len(story.end(root)) == 1
    assert story.end(root) == []


def test_a_span_that_ends_twice_counts_once() -> None:
    story = Story()
    root = span("root")
    child = span("child", root)
    story.start(root, child)
    assert story.end(child, child) == []
    assert len(story.end(root)) == 1


def test_the_finished_copy_takes_the_place_of_the_live_span() -> None:
    story = Story()
    live = span("live")
    story.start(live)
    copy = ReadableSpan("copy", live.context, live.parent)
    (chunk,) = story.end(copy)
    assert chunk.members[0].span is copy


def test_finished_spans_of_open_traces_on_demand() -> None:
    story = Story()
    root = span("root")
    child = span("child", root)
    idle = span("idle", trace_id=8)
    story.start(root, child, idle)
    story.end(child)
    assert [(names(chunk), chunk.partial) for chunk in story.assembler.finished()] == [(["child"], True)]
    assert list(story.assembler.finished()) == []
    (chunk,) = story.end(root)
    assert names(chunk) == ["root"]


def test_finished_spans_of_idle_traces_do_not_wait_for_the_rest() -> None:
    story = Story()
    root = span("root")
    child = span("child", root)
    story.start(root, child)
    story.end(child)
    lonely = span("lonely", trace_id=8)
    story.start(lonely)
    story.now = 1.0
    busy, done = span("busy", trace_id=9), span("done", trace_id=9)
    story.start(busy, done)
    story.end(done)
    assert [names(chunk) for chunk in story.assembler.finished(0.5)] == [["child"]]
    assert [names(chunk) for chunk in story.end(lonely, root, busy)] == [["lonely"], ["root"], ["busy", "done"]]


def test_a_parent_of_another_process_makes_local_roots() -> None:
    assembler = Assembler(0, forked=True)
    inherited = span("inherited")
    one, two = span("one", inherited), span("two", inherited)
    for each in (one, two):
        assembler.started(each, TraceState(), 0.0)
    assert assembler.ended(one, 0.0) is None
    chunk = assembler.ended(two, 0.0)
    assert chunk is not None
    assert [member.local_root for member in chunk.members] == [True, True]


def test_the_oldest_of_too_many_open_spans_are_given_up() -> None:
    story = Story()
    first = span("first", trace_id=1)
    child = span("child", first, trace_id=1)
    story.start(first, child)
    story.end(child)
    roots = [span(f"{number}", trace_id=number) for number in range(2, 6)]
    story.start(*roots)
    assert list(story.assembler.evict(5)) == []
    evicted = list(story.assembler.evict(3))
    assert [(trace_id, names(chunk)) for trace_id, chunk in evicted] == [(1, ["child"]), (2, [])]
    assert story.assembler.abandoned == 2
    assert [names(chunk) for chunk in story.end(first, *roots)] == [["3"], ["4"], ["5"]]
