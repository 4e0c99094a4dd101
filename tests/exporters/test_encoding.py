"""Chunks become one payload, and a value that msgpack cannot hold costs itself and nothing else."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanbridge.exporters.datadog.encoding import encode_chunk, encode_v04, join
from tests.exporters.samples import decoded

SPAN = {"name": "a", "span_id": 1, "meta": {"k": "v"}, "metrics": {"n": 1.5}}


def warnings(caplog: pytest.LogCaptureFixture) -> int:
    return sum(record.levelno >= logging.WARNING for record in caplog.records)


@pytest.mark.parametrize("count", [0, 1, 15, 16, 65_535, 65_536, 70_000])
def test_joined_chunks_are_the_payload_of_all(count: int) -> None:
    chunks = [[{"span_id": number}] for number in range(1, count + 1)]
    joined = join([encode_chunk(chunk) for chunk in chunks])
    assert joined == encode_v04(chunks)
    assert decoded(joined) == chunks


@pytest.mark.parametrize("count", [1, 15, 16, 65_536])
def test_a_chunk_of_any_length(count: int) -> None:
    chunk = [{"span_id": number} for number in range(count)]
    assert decoded(join([encode_chunk(chunk)])) == [chunk]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("caf\udce9", "caf?"),
        ("\ud83d", "?"),
        ("naïve 🙂", "naïve 🙂"),
        (None, None),
        (object(), None),
        (1 << 64, None),
        (-(1 << 63) - 1, None),
        (b"bytes", b"bytes"),
        (["a", "\ud800", object(), 1 << 70], ["a", "?"]),
        ({"k\udc00": {"\udc01": "v"}, "o": object()}, {"k?": {"?": "v"}}),
    ],
)
def test_an_odd_value_costs_only_itself(value: object, expected: object) -> None:
    others = [[SPAN], [SPAN | {"odd": value}, SPAN]]
    chunks = decoded(encode_v04(others))  # type: ignore[arg-type]
    assert chunks[0] == [SPAN]
    assert chunks[1][1] == SPAN
    assert chunks[1][0].get("odd") == expected
    assert {key: chunks[1][0][key] for key in SPAN} == SPAN


def test_a_repair_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        encode_chunk([SPAN | {"odd": "\ud800"}])
    assert warnings(caplog) == 1
    encode_chunk([SPAN])
    assert warnings(caplog) == 1


@pytest.mark.parametrize("number", [(1 << 64) - 1, -(1 << 63), 0, 0.1, 5e-324])
def test_numbers_that_fit_arrive_unchanged(number: float) -> None:
    assert decoded(encode_v04([[{"metrics": {"n": number}}]])) == [[{"metrics": {"n": number}}]]


def test_nan_does_not_break_the_rest() -> None:
    """The mapping leaves NaN out; a NaN that comes this far stays a legal float."""
    (((span),),) = decoded(encode_v04([[SPAN | {"metrics": {"nan": math.nan, "n": 1}}]]))
    assert math.isnan(span["metrics"]["nan"])
    assert span["metrics"]["n"] == 1


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)) | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec=None)), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.lists(st.dictionaries(st.text(st.characters(codec=None)), anything, max_size=4), max_size=3)))
def test_anything_is_encoded(chunks: list[list[dict[str, Any]]]) -> None:
    read = decoded(encode_v04(chunks))
    assert [len(chunk) for chunk in read] == [len(chunk) for chunk in chunks]
    assert decoded(join([encode_chunk(chunk) for chunk in chunks])) is not None
