"""Attributes out of nested mappings: parameters, results and documents, as tables say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

Shape: TypeAlias = "Callable[[Any], Any] | None"
Field: TypeAlias = "tuple[str, str, Shape]"
"""An attribute, where its value is (`ProvisionedThroughput.ReadCapacityUnits`), and what to make of it."""


def values(fields: tuple[Field, ...], source: Any) -> Iterator[tuple[str, Any]]:
    """Yield the attributes that `source` has values for; of several fields for one attribute the last one holds."""
    for attribute, path, shape in fields:
        value = source
        for step in path.split("."):
            value = value.get(step) if isinstance(value, Mapping) else None
        if value is not None and shape is not None:
            value = shape(value)
        if value is not None and value != "":
            yield attribute, value
