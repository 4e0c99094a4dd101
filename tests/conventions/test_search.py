"""Requests to search engines, named from their paths."""

from __future__ import annotations

import pytest

from spanbridge.conventions.search import operation_name, sanitize_body


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("GET", "/", "info"),
        ("HEAD", "/", "ping"),
        ("PUT", "/users", "indices.create"),
        ("HEAD", "/users", "indices.exists"),
        ("GET", "/users/_doc/5", "get"),
        ("PUT", "/users/_doc/5", "index"),
        ("POST", "/users/person", "index"),
        ("DELETE", "/users/person/5", "delete"),
        ("POST", "/users/_search", "search"),
        ("POST", "/_search/scroll", "search"),
        ("PUT", "/_bulk", "bulk"),
        ("POST", "/users/_update/5", "update"),
        ("GET", "/_cluster/health", "cluster.health"),
        ("GET", "/_cat/indices/users", "cat.indices"),
        ("GET", "/_snapshot/name-of-somebody", "snapshot"),
        ("OPTIONS", "/", "options"),
    ],
)
def test_operation_name(method: str, path: str, name: str) -> None:
    assert operation_name(method, path) == name


def test_bodies_keep_their_fields() -> None:
    document = {"query": {"bool": {"must": [{"term": {"mail": "a@b"}}, 5]}}, "size": 10}
    assert sanitize_body(document) == "{'query': {'bool': {'must': [{'term': {'mail': '?'}}, '?']}}, 'size': '?'}"
    assert sanitize_body('{"a": [1, null]}') == "{'a': ['?', '?']}"
