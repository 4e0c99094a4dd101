"""Delivers encoded chunks: what is retried, split or given up, and what is said about it.

One warning when the receiver goes away, one line of information when it is back, with the count of what was lost.
"""

from __future__ import annotations

import json
from enum import Enum
from random import uniform
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from spanbridge.core.guard import first_time, logger, report
from spanbridge.exporters.datadog.encoding import join
from spanbridge.exporters.datadog.transport import Transport, client_headers, describe

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from spanbridge.exporters.datadog.settings import Settings
    from spanbridge.exporters.datadog.transport import Reply

LONGEST_PAUSE = 5.0
# How often a receiver that answers may refuse the same chunks before they are given up.
MOST_REFUSALS = 5


class Encoded(NamedTuple):
    """One chunk as bytes, and how many spans it holds."""

    body: bytes
    spans: int


class Outcome(Enum):
    """What became of chunks: DONE (delivered, or given up for good) or RETRY."""

    DONE = "done"
    RETRY = "retry"


class Sender:
    """Sends to one receiver; one thread at a time.

    Args:
        settings: where to, and how long to wait.
        transport: another way there than `settings.agent_url` (tests).
        on_rates: gets the sampling rates that the Agent answers with, by `service:...,env:...`.
    """

    def __init__(
        self,
        settings: Settings,
        transport: Transport | None = None,
        on_rates: Callable[[Mapping[str, float]], None] | None = None,
    ) -> None:
        self._transport = transport or Transport(settings.agent_url, client_headers(settings.external_env))
        self._timeout = settings.timeout
        self._on_rates = on_rates
        self._failures = 0
        self._refusals = 0
        self._reported_lost = 0
        self.down = False
        self.sent = 0
        self.lost = 0
        self.last_success = float("-inf")

    @property
    def url(self) -> str:
        """Where the spans go."""
        return self._transport.url

    def pause(self) -> float:
        """Say how many seconds to wait before the next try: longer each time, and never the same for two processes."""
        return min(LONGEST_PAUSE, 0.1 * 2 ** min(self._failures, 10)) * uniform(0.5, 1.0)  # noqa: S311

    def send(self, chunks: Sequence[Encoded], deadline: float) -> Outcome:
        """Send chunks as one payload, or as several when it is too large.

        Args:
            chunks: what to send.
            deadline: when to stop waiting for an answer, by the monotonic clock.
        """
        timeout = min(self._timeout, deadline - monotonic())
        if timeout <= 0:
            return Outcome.RETRY
        try:
            reply = self._transport.send(join([chunk.body for chunk in chunks]), len(chunks), timeout)
        except OSError as error:
            self._failed(describe(error))
            return Outcome.RETRY
        if 200 <= reply.status < 300:
            self._delivered(chunks, reply)
            return Outcome.DONE
        if reply.status == 413 and len(chunks) > 1:
            half = len(chunks) // 2
            first = self.send(chunks[:half], deadline)
            second = self.send(chunks[half:], deadline)
            # What one half has delivered must not be sent again with the other; a half that failed is lost.
            if first is not second:
                self.lose(chunks[:half] if first is Outcome.RETRY else chunks[half:])
                return Outcome.DONE
            return first
        if reply.status in {408, 429} or reply.status >= 500:
            self._refusals += 1
            self._failed(f"it answers {reply.status}")
            if self._refusals < MOST_REFUSALS:
                return Outcome.RETRY
        elif first_time(f"refused:{reply.status}"):
            reason = reply.body[:200].decode("utf-8", "replace").strip()
            logger.warning("%s refused spans with status %d and they are lost: %s", self.url, reply.status, reason)
        self.lose(chunks)
        return Outcome.DONE

    def lose(self, chunks: Sequence[Encoded]) -> None:
        """Count chunks that are given up."""
        self._refusals = 0
        self.lost += sum(chunk.spans for chunk in chunks)

    def close(self) -> None:
        """Close the connection; the next `send` opens a new one."""
        self._transport.close()

    def _delivered(self, chunks: Sequence[Encoded], reply: Reply) -> None:
        self.sent += sum(chunk.spans for chunk in chunks)
        self._failures = self._refusals = 0
        self.last_success = monotonic()
        if self.down:
            self.down = False
            logger.info(
                "%s answers again; %d spans were lost meanwhile", self.url, self.lost - self._reported_lost
            )
            self._reported_lost = self.lost
        if self._on_rates is not None and (rates := _rates(reply.body)):
            self._on_rates(rates)

    def _failed(self, reason: str) -> None:
        self._failures += 1
        if not self.down:
            self.down = True
            logger.warning(
                "spans cannot be sent to %s: %s. They are kept while there is room, and sending goes on. Is the Datadog "
                "Agent running there? DD_TRACE_AGENT_URL names another address",
                self.url,
                reason,
            )
        else:
            logger.debug("spans cannot be sent to %s: %s", self.url, reason)


def _rates(body: bytes) -> dict[str, float]:
    """Read `rate_by_service` from the Agent's answer; whatever else stands there was a delivery, too."""
    if not body.startswith(b"{"):
        return {}
    try:
        answer = json.loads(body)
        rates = answer.get("rate_by_service") or {}
        return {str(key): float(rate) for key, rate in rates.items() if 0 <= float(rate) <= 1}
    except (ValueError, TypeError, AttributeError) as error:
        logger.debug("the Agent's answer cannot be read: %s", error)
    except Exception as error:
        report("reading the Agent's answer", error)
    return {}
