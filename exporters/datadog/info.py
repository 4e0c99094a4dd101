"""What the Agent says about itself on /info (protocol A.3): what it takes, and what it wants to be counted how."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from spanbridge.core.guard import logger

if TYPE_CHECKING:
    from collections.abc import Mapping

SPAN_KINDS = ("client", "server", "producer", "consumer")  # those counted where the Agent names none


@dataclass(frozen=True)
class AgentInfo:
    """An Agent's abilities; without arguments those of an Agent that says nothing.

    Args:
        state: the hash that the Agent's answers carry as long as this holds.
        endpoints: the paths that it serves; empty when unknown.
        span_events: it reads events in the span's own field.
        client_drop_p0s: it leaves counting, and dropping what is rejected, to clients that count.
        max_request_bytes: the largest payload; 0 when unknown.
        peer_tags: the tags that tell who was called.
        span_kinds: the kinds of spans that are counted whatever their place in the trace.
        filters: lists of what is not counted, by `filter_tags`, `filter_tags_regex` and `ignore_resources`.
    """

    state: str = ""
    endpoints: frozenset[str] = frozenset()
    span_events: bool = False
    client_drop_p0s: bool = False
    max_request_bytes: int = 0
    peer_tags: tuple[str, ...] = ()
    span_kinds: tuple[str, ...] = SPAN_KINDS
    filters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def takes_stats(self) -> bool:
        """Whether it offers client-side stats (protocol E)."""
        return self.client_drop_p0s and "/v0.6/stats" in self.endpoints


def read_info(body: bytes) -> AgentInfo:
    """Read the answer of /info; what cannot be read counts as not said."""
    from hashlib import sha256  # whose import takes longer than start-up may

    try:
        said = json.loads(body)
    except (ValueError, RecursionError) as error:
        logger.debug("the Agent's /info cannot be read: %s", error)
        said = None
    if not isinstance(said, dict):
        return AgentInfo()
    config = said.get("config")
    most = config.get("max_request_bytes") if isinstance(config, dict) else None
    return AgentInfo(
        state=sha256(body).hexdigest(),
        endpoints=frozenset(_texts(said.get("endpoints"))),
        span_events=said.get("span_events") is True,
        client_drop_p0s=said.get("client_drop_p0s") is True,
        max_request_bytes=most if isinstance(most, int) and most > 0 else 0,
        peer_tags=_texts(said.get("peer_tags")),
        span_kinds=_texts(said.get("span_kinds_stats_computed")) or SPAN_KINDS,
        filters={key: said[key] for key in ("filter_tags", "filter_tags_regex", "ignore_resources") if said.get(key)},
    )


def _texts(value: object) -> tuple[str, ...]:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()
