"""Which generation of semantic-convention names an `instrument()` call writes: stable, old, or both."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from os import environ
from typing import Any

from spanbridge.core.options import from_environment, words

Rows = tuple[tuple[str, str], ...]


class Names(Enum):
    """The generation of names of one signal."""

    STABLE = "stable"
    OLD = "old"
    BOTH = "dup"

    @property
    def stable(self) -> bool:
        """Say whether the stable names are written."""
        return self is not Names.OLD

    @property
    def old(self) -> bool:
        """Say whether the old names are written."""
        return self is not Names.STABLE


@dataclass(frozen=True)
class Semconv:
    """The names that one `instrument()` call writes.

    Args:
        http: names of the HTTP conventions.
        database: names of the database conventions.
        contrib: True when all else, too, follows the OpenTelemetry contrib instrumentations.
    """

    http: Names
    database: Names
    contrib: bool = False

    @property
    def schema_url(self) -> str:
        """The schema that the written names belong to (https://opentelemetry.io/docs/specs/otel/schemas/)."""
        version = "1.11.0"
        if self.http.stable:
            version = "1.21.0"
        if self.database.stable:
            version = "1.25.0"
        return f"https://opentelemetry.io/schemas/{version}"

    def by_database(self) -> Semconv:
        """Let the database signal decide about all names, the peer's too, which otherwise are HTTP's."""
        return replace(self, http=self.database)


def from_env() -> Semconv:
    """Read SPANBRIDGE_SEMCONV and OTEL_SEMCONV_STABILITY_OPT_IN as they are now.

    The second is a comma list of `http`, `http/dup`, `database`, `database/dup`
    (https://opentelemetry.io/docs/specs/semconv/non-normative/http-migration/).
    """
    contrib = from_environment(("SPANBRIDGE_SEMCONV",), _is_contrib, default=False)
    opted = words(environ.get("OTEL_SEMCONV_STABILITY_OPT_IN", "").lower())
    unset = Names.OLD if contrib else Names.STABLE
    return Semconv(_chosen("http", opted, unset), _chosen("database", opted, unset), contrib)


def of_mode(mode: Any) -> Semconv:
    """Answer the names that a public function of contrib's writes in a mode that its caller gives it.

    Args:
        mode: a member of contrib's enumeration, or its value (`default`, `http/dup`, `database` ...). None is what
            contrib's functions have for a default, the old names, in contrib mode; else it reads the environment.
    """
    current = from_env()
    if mode is None and not current.contrib:
        return current
    opted = (str(getattr(mode, "value", mode)),)
    return Semconv(_chosen("http", opted, Names.OLD), _chosen("database", opted, Names.OLD), contrib=True)


def pick(names: Names, old: Rows, stable: Rows) -> Rows:
    """Choose a renderer's rows: pairs of (attribute, field of the neutral record)."""
    return (old if names.old else ()) + (stable if names.stable else ())


def _is_contrib(raw: str) -> bool:
    word = raw.strip().lower()
    if word not in {"contrib", "stable"}:
        raise ValueError("expected `stable` or `contrib`")
    return word == "contrib"


def _chosen(signal: str, opted: tuple[str, ...], unset: Names) -> Names:
    if f"{signal}/dup" in opted:
        return Names.BOTH
    return Names.STABLE if signal in opted else unset
