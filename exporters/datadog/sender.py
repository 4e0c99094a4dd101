"""Delivers encoded chunks: what is retried, split or given up, and what is said about it.

One warning when the receiver goes away, one line of information when it is back, with the count of what was lost.
"""

from __future__ import annotations

import json
from collections import deque
from random import SystemRandom
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, set_value

from spanbridge.core.context import attached
from spanbridge.core.guard import first_time, logger, report
from spanbridge.exporters.datadog.encoding import halves, join, join_v05
from spanbridge.exporters.datadog.info import AgentInfo, read_info
from spanbridge.exporters.datadog.transport import Request, Transport, client_headers, describe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from spanbridge.exporters.datadog.settings import Settings
    from spanbridge.exporters.datadog.transport import Reply

LONGEST_PAUSE = 5.0
# How many seconds a receiver that answers may refuse the same chunks before they are given up.
REFUSED_SECONDS = 20.0
# Bytes of one payload that are aimed at; the Agent takes 25 MiB, its smaller relatives 10.
PAYLOAD_BYTES = 4 << 20
# The application may have seeded the other, and a fork would have its parent's.
_random = SystemRandom()
_RETRIED = frozenset({408, 429})
_UNKNOWN_FORMAT = frozenset({404, 415})
# A payload's layout -> how it is made of encoded chunks.
_FORMATS = {"v0.4": join, "v0.5": join_v05}
# How many seconds an Agent that does not announce changes is believed (protocol A.3).
INFO_SECONDS = 300.0


class Encoded(NamedTuple):
    """One chunk as bytes, how many spans it holds, and whether we have counted them for the Agent."""

    body: bytes
    spans: int
    counted: bool = False


class Pending:
    """Encoded chunks that wait to be sent, oldest first, and their size in bytes."""

    def __init__(self, chunks: Iterable[Encoded] = ()) -> None:
        self._chunks: deque[Encoded] = deque()
        self.size = 0
        for chunk in chunks:
            self.append(chunk)

    def __len__(self) -> int:
        return len(self._chunks)

    @property
    def spans(self) -> int:
        """How many spans wait."""
        return sum(chunk.spans for chunk in self._chunks)

    def append(self, chunk: Encoded) -> None:
        """Put a chunk at the end."""
        self._chunks.append(chunk)
        self.size += len(chunk.body)

    def put_back(self, chunk: Encoded) -> None:
        """Put a chunk at the beginning."""
        self._chunks.appendleft(chunk)
        self.size += len(chunk.body)

    def pop(self) -> Encoded:
        """Take the oldest chunk out."""
        chunk = self._chunks.popleft()
        self.size -= len(chunk.body)
        return chunk

    def first(self, size: int) -> list[Encoded]:
        """Look at the oldest chunks that together have at most `size` bytes, at least at one; all counted, or none."""
        found: list[Encoded] = []
        for chunk in self._chunks:
            size -= len(chunk.body)
            if found and (size < 0 or chunk.counted != found[0].counted):
                break
            found.append(chunk)
        return found


class Sender:
    """Sends to one receiver; the transport sees to it that threads take turns.

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
        self._payload_bytes = min(PAYLOAD_BYTES, settings.payload_bytes)
        self._asked_format = settings.api_version
        self._on_rates = on_rates
        self.begin_process()

    def begin_process(self) -> None:
        """Start counting anew; an inherited connection is the parent process's."""
        self._transport.close()
        self._failures = 0
        self._refused_since: float | None = None
        self._reported_lost = 0
        self._rejected_chunks = self._rejected_spans = 0
        self._format = self._asked_format
        self._learned_at = float("-inf")
        self.info = AgentInfo()
        self.learning_is_due = False
        self.up: bool | None = None
        self.sent = 0
        self.lost = 0
        self.last_success = float("-inf")

    @property
    def url(self) -> str:
        """Where the spans go."""
        return self._transport.url

    def send(self, pending: Pending, deadline: float) -> float:
        """Send the oldest chunks as one payload; those that are delivered or given up leave `pending`.

        Args:
            pending: what is to be sent.
            deadline: when to stop waiting for an answer, by the monotonic clock.

        Returns:
            Seconds to wait before the next try; 0 when it makes sense to go on at once.
        """
        timeout = min(self._timeout, deadline - monotonic())
        if timeout <= 0:
            return self._pause()
        chunks = pending.first(self._payload_bytes)
        body = _FORMATS[self._format]([chunk.body for chunk in chunks])
        headers = {"X-Datadog-Trace-Count": len(chunks), **self._stats_headers(counted=chunks[0].counted)}
        request = Request(f"/{self._format}/traces", body, headers)
        try:
            reply = self._ask(request, timeout)
        except OSError as error:
            self._failed(describe(error))
            return self._pause()
        if reply.status == 413 and (len(chunks) > 1 or chunks[0].spans > 1):
            self._divide(pending, chunks, len(body))
            return 0.0
        if reply.status in _UNKNOWN_FORMAT and self._format != "v0.4":
            logger.info("%s does not take %s; it gets v0.4", self.url, self._format)
            self._format = "v0.4"
            return 0.0
        if self._is_to_be_retried(reply):
            self._failed(f"it answers {reply.status}")
            return self._pause()
        for _ in chunks:
            pending.pop()
        count = sum(chunk.spans for chunk in chunks)
        if 200 <= reply.status < 300:
            self._delivered(count, reply)
        else:
            self._refused(count, reply)
        return 0.0

    def learn(self, timeout: float = 1.0) -> bool:
        """Ask the receiver for /info, and answer whether it has told something new.

        Args:
            timeout: seconds.
        """
        self.learning_is_due = False
        try:
            reply = self._ask(Request("/info"), min(timeout, self._timeout))
        except OSError as error:
            logger.debug("%s does not say what it can do: %s", self.url, describe(error))
            return False
        self._learned_at = self.last_success = monotonic()
        info = read_info(reply.body) if reply.status == 200 else AgentInfo()
        if info == self.info:
            return False
        self.info = info
        if info.endpoints and f"/{self._format}/traces" not in info.endpoints:
            self._format = "v0.4"
        if info.max_request_bytes:
            self._payload_bytes = min(self._payload_bytes, info.max_request_bytes)
        return True

    @property
    def takes_native_events(self) -> bool:
        """Whether the receiver reads events in the span's own field."""
        return self.info.span_events and self._format == "v0.4"

    def lose(self, spans: int) -> None:
        """Count spans that are given up."""
        self.lost += spans

    def give_up(self, spans: int) -> None:
        """Say, at the end of the process, that spans could not be delivered."""
        self.lose(spans)
        if self.up is not False:
            self._failed("no answer in time")
        logger.info("%d spans were not sent to %s before the end", self.lost - self._reported_lost, self.url)

    def close(self) -> None:
        """Close the connection; the next `send` opens a new one."""
        self._transport.close()

    def drop_rejected(self, chunks: int, spans: int) -> None:
        """Note rejected spans that are counted but not sent; the Agent adjusts its rates by them."""
        self._rejected_chunks += chunks
        self._rejected_spans += spans

    def send_stats(self, payload: bytes, timeout: float) -> None:
        """Send what has been counted, once.

        Args:
            payload: the body for /v0.6/stats.
            timeout: seconds.
        """
        try:
            reply = self._ask(Request("/v0.6/stats", payload), min(timeout, self._timeout))
        except OSError as error:
            logger.debug("counts of spans cannot be sent to %s: %s", self.url, describe(error))
            return
        if reply.status >= 300:
            logger.debug("%s refused counts of spans with status %d", self.url, reply.status)

    def _stats_headers(self, *, counted: bool) -> dict[str, object]:
        headers: dict[str, object] = {"Datadog-Client-Computed-Stats": "true"} if counted else {}
        if self._rejected_chunks:
            headers["Datadog-Client-Dropped-P0-Traces"] = self._rejected_chunks
        if self._rejected_spans:
            headers["Datadog-Client-Dropped-P0-Spans"] = self._rejected_spans
        return headers

    def _divide(self, pending: Pending, chunks: list[Encoded], size: int) -> None:
        """Make the next payload half as large, if need be by dividing its only chunk."""
        if len(chunks) > 1:
            self._payload_bytes = size // 2
            return
        chunk = pending.pop()
        first, second = halves(chunk.body)
        pending.put_back(Encoded(second, chunk.spans - chunk.spans // 2, chunk.counted))
        pending.put_back(Encoded(first, chunk.spans // 2, chunk.counted))

    def _ask(self, request: Request, timeout: float) -> Reply:
        # The plain key is what instrumentations of OpenTelemetry's early days look for.
        context = set_value("suppress_instrumentation", True)
        with attached(set_value(_SUPPRESS_INSTRUMENTATION_KEY, True, context)):
            return self._transport.send(request, timeout)

    def _pause(self) -> float:
        """Wait longer each time, and not in step with other processes."""
        return min(LONGEST_PAUSE, 0.1 * (1 << min(self._failures, 10))) * _random.uniform(0.5, 1.0)

    def _is_to_be_retried(self, reply: Reply) -> bool:
        if reply.status not in _RETRIED and reply.status < 500:
            return False
        now = monotonic()
        if self._refused_since is None:
            self._refused_since = now
        return now - self._refused_since < REFUSED_SECONDS

    def _delivered(self, spans: int, reply: Reply) -> None:
        self.sent += spans
        self._failures = 0
        self._refused_since = None
        self.last_success = monotonic()
        self._rejected_chunks = self._rejected_spans = 0
        if self.up is False:
            logger.info("%s answers again; %d spans were lost meanwhile", self.url, self.lost - self._reported_lost)
            self._reported_lost = self.lost
        self.up = True
        state = reply.headers.get("datadog-agent-state", self.info.state)
        self.learning_is_due = state != self.info.state or monotonic() > self._learned_at + INFO_SECONDS
        rates = _rates(reply.body)
        if rates and self._on_rates is not None:
            try:
                self._on_rates(rates)
            except Exception as error:
                report("using the Agent's sampling rates", error)

    def _refused(self, spans: int, reply: Reply) -> None:
        self._refused_since = None
        self.lose(spans)
        # What one payload is refused for says nothing about the next; all else means that no receiver is there.
        own_fault = reply.status in {400, 413}
        loud = first_time(f"refused:{self.url}:{reply.status}") if own_fault else self.up is not False
        reason = reply.body[:200].decode("utf-8", "replace").strip()
        level = logger.warning if loud else logger.debug
        level("%s refused spans with status %d and they are lost: %s", self.url, reply.status, reason)
        if not own_fault:
            self.up = False

    def _failed(self, reason: str) -> None:
        self._failures += 1
        if self.up is False:
            logger.debug("spans cannot be sent to %s: %s", self.url, reason)
            return
        self.up = False
        logger.warning(
            "spans cannot be sent to %s: %s. They are kept while there is room, and sending goes on. "
            "Is the Datadog Agent running there? DD_TRACE_AGENT_URL names another address",
            self.url,
            reason,
        )


def _rates(body: bytes) -> dict[str, float]:
    """Read `rate_by_service` from the Agent's answer; whatever else stands there was a delivery, too."""
    if not body or body.strip() == b"OK":
        return {}
    try:
        rates = json.loads(body).get("rate_by_service") or {}
        return {str(key): float(rate) for key, rate in rates.items() if 0 <= float(rate) <= 1}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        logger.debug("the Agent's answer cannot be read: %s", error)
        return {}
