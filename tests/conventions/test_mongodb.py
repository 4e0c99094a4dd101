"""Filters without their values, whatever they look like."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanbridge.conventions.mongodb import normalised, sought


@pytest.mark.parametrize(
    ("document", "shown"),
    [
        ({}, {}),
        ({"age": 5}, {"age": "?"}),
        ({"age": {"$gt": 5, "$in": [1, 2]}}, {"age": {"$gt": "?", "$in": "?"}}),
        ({"age": {"$nin": {"a": 1}}}, {"age": {"$nin": "?"}}),
        ({"$or": [{"a": 1}, {"b": {"c": None}}]}, {"$or": [{"a": "?"}, {"b": {"c": "?"}}]}),
        ({"tags": ["secret", 5]}, {"tags": [{}, {}]}),
        ({5: "secret"}, {"5": "?"}),
        ([{"$match": {"a": 1}}], [{"$match": {"a": "?"}}]),
        (None, {}),
    ],
)
def test_values_are_masked(document: Any, shown: Any) -> None:
    assert normalised(document) == shown


SECRET = "secret"
VALUES = st.recursive(
    st.sampled_from([SECRET, SECRET.encode(), None]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "$in", "$or", "b.c"]), inner),
)


@given(st.dictionaries(st.sampled_from(["a", "$and", "$in", "d"]), VALUES))
def test_no_value_survives(document: Any) -> None:
    assert SECRET not in json.dumps(normalised(document))


def test_large_and_deep_documents_are_cut() -> None:
    deep: Any = {}
    for _ in range(10_000):
        deep = {"a": deep}
    assert json.dumps(normalised(deep)).count("a") < 100
    assert len(normalised({str(number): 1 for number in range(100_000)})) == 100
    assert len(normalised([{}] * 100_000)) == 100


@pytest.mark.parametrize(
    ("name", "command", "found"),
    [
        ("find", {"find": "c", "filter": {"a": 1}}, {"a": 1}),
        ("find", {"find": "c", "filter": {"a": 1}, "sort": {"a": 1}}, {"$query": {"a": 1}, "$orderby": {"a": 1}}),
        ("find", {"find": "c"}, None),
        ("update", {"updates": [{"q": {"a": 1}, "u": {}}]}, {"a": 1}),
        ("update", {"updates": [{"q": {"a": 1}}, {"q": {"a": 2}}]}, None),
        ("delete", {"deletes": [{"q": {"a": 1}}]}, {"a": 1}),
        ("delete", {}, None),
        ("aggregate", {"pipeline": [{"$match": {}}]}, [{"$match": {}}]),
        ("distinct", {"query": {"a": 1}}, {"a": 1}),
        ("insert", {"documents": [{"a": 1}]}, None),
        ("ping", {"ping": 1}, None),
        (123, {}, None),
    ],
)
def test_what_a_command_looks_for(name: Any, command: Any, found: Any) -> None:
    assert sought(name, command) == found
