"""Sampling rules: DD_TRACE_SAMPLING_RULES for traces, DD_SPAN_SAMPLING_RULES for single spans (protocol D.2, D.3).

Rules look at mapped spans, so that they see the same names as the user of Datadog does.
"""

from __future__ import annotations

import fnmatch
import json
import math
import re
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any

from spanbridge.core.guard import first_time, logger
from spanbridge.exporters.datadog.trace import traces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_KNUTH, _MODULO = 1111111111111111111, 1 << 64
_FIELDS = ("service", "name", "resource")
# Who made a rule -> the decision maker; those of the first kind come first (protocol D.1).
PROVENANCES = {"customer": "-11", "dynamic": "-12", "default": "-3"}


def keeps(identifier: int, rate: float) -> bool:
    """Decide by an id, so that every service of a trace decides alike (protocol D.2).

    Args:
        identifier: the low 64 bits of the trace id, or a span id.
        rate: the share to keep, from 0 to 1.
    """
    return rate >= 1 or (rate > 0 and identifier * _KNUTH % _MODULO <= rate * (_MODULO - 1))


class Limiter:
    """A token bucket: so many a second, as many at once; safe to use from several threads.

    Args:
        most: per second; 0 lets nothing through, a number below 0 everything.
    """

    def __init__(self, most: float) -> None:
        self._most = most
        self._tokens = self._size = max(most, 1) if most > 0 else most
        self._filled_at = self._window_began = monotonic()
        self._seen = self._allowed = 0
        self._previous_rate: float | None = None

    def allows(self) -> bool:
        """Take a token, if there is one."""
        with traces.lock:
            now = monotonic()
            self._tokens = min(self._size, self._tokens + (now - self._filled_at) * self._most)
            self._filled_at = now
            if now - self._window_began >= 1:
                self._previous_rate = self._rate()
                self._seen = self._allowed = 0
                self._window_began = now
            allowed = self._most < 0 or self._tokens >= 1
            self._tokens -= allowed
            self._seen += 1
            self._allowed += allowed
            return allowed

    @property
    def effective_rate(self) -> float:
        """The share that was let through, averaged over this second and the one before."""
        rate = self._rate()
        return rate if self._previous_rate is None else (rate + self._previous_rate) / 2

    def _rate(self) -> float:
        return self._allowed / self._seen if self._seen else 1.0


class Glob:
    """A pattern of `*` (any run) and `?` (any one character), for whole texts in any case."""

    def __init__(self, pattern: str) -> None:
        self.is_wild = not pattern.strip("*?")  # fits numbers that are not whole, too
        # The standard library's translation takes no longer than the text is long, whatever the pattern.
        self.matches = re.compile(fnmatch.translate(pattern.replace("[", "[[]")), re.IGNORECASE).match


@dataclass(frozen=True)
class Rule:
    """What is kept of the spans that fit every pattern.

    Args:
        rate: the share to keep.
        fields: patterns for `service`, `name` (the operation) and `resource`.
        tags: patterns for tags; an absent tag fits none.
        decision_maker: what a decision by this rule is called.
        discard: rejected traces are not even counted.
        limiter: bounds what is kept.
        per_second: the limiter's bound, None without one.
    """

    rate: float
    fields: Mapping[str, Glob] = field(default_factory=dict)
    tags: Mapping[str, Glob] = field(default_factory=dict)
    decision_maker: str = PROVENANCES["default"]
    discard: bool = False
    limiter: Limiter = field(default_factory=lambda: Limiter(-1))
    per_second: float | None = None

    @property
    def is_general(self) -> bool:
        """Whether it fits every span."""
        return not self.fields and not self.tags

    def fits(self, span: Mapping[str, Any]) -> bool:
        """Compare a mapped span with the patterns."""
        return all(glob.matches(span[name]) for name, glob in self.fields.items()) and all(
            _fits_tag(glob, span["meta"].get(tag), span["metrics"].get(tag)) for tag, glob in self.tags.items()
        )


def _fits_tag(glob: Glob, text: str | None, number: float | None) -> bool:
    if text is None and number is not None:
        whole = number == int(number)
        text = str(int(number)) if whole else str(number) if glob.is_wild else None
    return text is not None and glob.matches(text) is not None


def trace_rules(raw: str, sample_rate: float | None) -> tuple[Rule, ...]:
    """Read DD_TRACE_SAMPLING_RULES, followed by DD_TRACE_SAMPLE_RATE as the rule for all others.

    Args:
        raw: a list of objects in JSON; what is wrong with one is logged, and the others are used.
        sample_rate: a share, or None.
    """
    rules = [
        (list(PROVENANCES).index(provenance), rule)
        for provenance, rule in _read("DD_TRACE_SAMPLING_RULES", raw, _trace_rule)
    ]
    rules.sort(key=lambda pair: pair[0])
    general = () if sample_rate is None else (Rule(sample_rate),)
    return (*(rule for _, rule in rules), *general)


def span_rules(raw: str) -> tuple[Rule, ...]:
    """Read DD_SPAN_SAMPLING_RULES; what is wrong with one is logged, and the others are used."""
    return tuple(rule for _, rule in _read("DD_SPAN_SAMPLING_RULES", raw, _span_rule))


def _read(variable: str, raw: str, make: Callable[[dict[str, Any]], tuple[str, Rule]]) -> Iterator[tuple[str, Rule]]:
    try:
        items = _list(raw) if raw else []
    except (ValueError, TypeError, RecursionError) as error:
        _complain(variable, raw, f"is ignored: {error}")
        return
    for item in items:
        try:
            rest = _object(item)
            yield make(rest)
        except (ValueError, TypeError, OverflowError) as error:
            _complain(variable, json.dumps(item), f"is ignored: {error}")
        else:
            if rest:
                _complain(variable, json.dumps(item), f"has keys that mean nothing: {', '.join(map(str, rest))}")


def _list(raw: str) -> list[Any]:
    value = json.loads(raw)
    if not isinstance(value, list):
        raise TypeError("expected a list of objects")
    return value


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError("expected an object")
    return dict(value)


def _complain(variable: str, rule: str, what: str) -> None:
    if first_time(f"rules:{variable}:{rule}"):
        logger.warning("%s: %s %s", variable, rule[:500], what)


def _trace_rule(item: dict[str, Any]) -> tuple[str, Rule]:
    if "sample_rate" not in item:
        raise ValueError("it has no sample_rate")
    rate = _rate(item.pop("sample_rate"))
    tags = _object(item.pop("tags", None) or {})
    provenance = item.pop("provenance", "default")
    if provenance not in PROVENANCES:
        raise ValueError(f"provenance is none of {', '.join(PROVENANCES)}")
    discard = item.pop("discard", False)
    if not isinstance(discard, bool):
        raise TypeError("discard is neither true nor false")
    patterns = {name: Glob(value if isinstance(value, str) else json.dumps(value)) for name, value in tags.items()}
    return provenance, Rule(rate, _fields(item), patterns, PROVENANCES[provenance], discard)


def _span_rule(item: dict[str, Any]) -> tuple[str, Rule]:
    rate = _rate(item.pop("sample_rate", 1.0))
    most = item.pop("max_per_second", None)
    fields = _fields(item, "service", "name")
    if not fields:
        raise ValueError("it has neither service nor name")
    if most is None:
        return "", Rule(rate, fields)
    most = float(most)
    return "", Rule(rate, fields, limiter=Limiter(most), per_second=most)


def _rate(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise TypeError("sample_rate is not a number")
    rate = float(value)
    if math.isnan(rate):
        raise ValueError("sample_rate is not a number")
    return min(1.0, max(0.0, rate))


def _fields(item: dict[str, Any], *names: str) -> dict[str, Glob]:
    found = {}
    for name in names or _FIELDS:
        pattern = item.pop(name, None)
        if isinstance(pattern, str):
            found[name] = Glob(pattern)
        elif pattern is not None:
            raise TypeError(f"{name} is not a text")
    return found
