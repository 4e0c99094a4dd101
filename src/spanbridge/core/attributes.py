"""Attributes that need no second look: any provider keeps them as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opentelemetry.trace import Span

PLAIN = frozenset((str, int, bool, float))
"""The classes of values that every version of the SDK takes as they are."""

_BASES: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
)

_TEXT = frozenset((str,))


class Checked(dict[str, Any]):
    """Attributes made once for many spans, whose keys are texts and whose values are `PLAIN`; never changed."""

    __slots__ = ()


def plain(attributes: Mapping[str, Any]) -> bool:
    """Say whether the SDK would keep these attributes as they are, if no limit is reached."""
    return (
        type(attributes) is dict
        and PLAIN.issuperset(map(type, attributes.values()))
        and _TEXT.issuperset(map(type, attributes))
        and "" not in attributes
    )


def plain_values(attributes: Mapping[str, Any]) -> bool:
    """Say whether the values alone are such."""
    return PLAIN.issuperset(map(type, attributes.values()))


def checked(attributes: dict[str, Any]) -> dict[str, Any]:
    """Answer these attributes as `Checked`, if they are."""
    return Checked(attributes) if plain(attributes) else attributes


def plain_value(value: Any) -> Any:
    """Answer a value as one of a `PLAIN` class, without what a subclass makes of it; None for anything else."""
    if type(value) in PLAIN:
        return value
    return next((convert(value) for base, convert in _BASES if isinstance(value, base)), None)


def has_attribute(span: Span, key: str) -> bool:
    """Say whether a span of any provider has an attribute, as far as it tells."""
    ask = getattr(span, "has_attribute", None)
    return bool(ask(key)) if ask is not None else key in (getattr(span, "attributes", None) or ())
