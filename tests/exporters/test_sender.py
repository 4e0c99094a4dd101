"""What is sent again, split or given up, and what is said about it."""

from __future__ import annotations

import logging
from time import monotonic
from typing import TYPE_CHECKING

import pytest
from opentelemetry.instrumentation.utils import is_instrumentation_enabled

from spanbridge.exporters.datadog import sender as module
from spanbridge.exporters.datadog.encoding import encode_chunk
from spanbridge.exporters.datadog.sender import Encoded, Pending, Sender
from spanbridge.exporters.datadog.settings import Settings
from spanbridge.exporters.datadog.transport import Reply
from tests.exporters.samples import OK, Transport

if TYPE_CHECKING:
    from collections.abc import Mapping

REFUSED, DOWN = Reply(503, b"busy"), ConnectionRefusedError()


def waiting(*resources: str, size: int = 0) -> Pending:
    """Chunks of one span each."""
    return Pending(
        Encoded(encode_chunk([{"resource": resource, "meta": {"fill": "x" * size}}]), 1) for resource in resources
    )


def send(sender: Sender, pending: Pending, *, seconds: float = 5.0) -> list[float]:
    """Send until nothing waits or the sender asks for a pause; answer what it asked for."""
    pauses = []
    while pending:
        pauses.append(sender.send(pending, monotonic() + seconds))
        if pauses[-1]:
            break
    return pauses


def said(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == level]


@pytest.fixture(autouse=True)
def _all_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "spanbridge")


@pytest.fixture
def transport() -> Transport:
    return Transport()


@pytest.fixture
def sender(transport: Transport) -> Sender:
    return Sender(Settings(), transport)  # type: ignore[arg-type]


def test_chunks_leave_in_one_payload_with_their_count(
    sender: Sender, transport: Transport, caplog: pytest.LogCaptureFixture
) -> None:
    pending = waiting("a", "b", "c")
    assert send(sender, pending) == [0.0]
    assert transport.resources == [["a"], ["b"], ["c"]]
    assert transport.counts == [3]
    assert (len(pending), pending.size, sender.sent, sender.lost, sender.up) == (0, 0, 3, 0, True)
    assert caplog.records == []


def test_payloads_have_a_size(monkeypatch: pytest.MonkeyPatch, transport: Transport) -> None:
    sender = Sender(Settings(payload_bytes=500), transport)  # type: ignore[arg-type]
    send(sender, waiting("a", "b", "c", "d", size=200))
    assert transport.counts == [2, 2]
    send(sender, waiting("large", "small", size=600))
    assert transport.counts == [2, 2, 1, 1]


def test_a_payload_that_is_too_large_is_split_and_nothing_is_lost_or_sent_twice(
    sender: Sender, transport: Transport, caplog: pytest.LogCaptureFixture
) -> None:
    transport.say(Reply(413, b""), Reply(413, b""), OK)
    names = [str(number) for number in range(8)]
    pending = waiting(*names, size=100)
    send(sender, pending)
    assert transport.resources == [[name] for name in names]
    assert transport.counts[:2] == [8, 4] or transport.counts[:2] == [8, 3]
    assert (sender.sent, sender.lost) == (8, 0)
    assert caplog.records == []


def test_a_single_chunk_that_is_too_large_is_lost_and_the_next_goes_on(
    sender: Sender, transport: Transport, caplog: pytest.LogCaptureFixture
) -> None:
    transport.say(Reply(413, b"too large"), Reply(413, b"too large"), OK)
    send(sender, waiting("a", "b", size=100))
    assert transport.resources == [["b"]]
    assert (sender.sent, sender.lost) == (1, 1)
    (message,) = said(caplog, logging.WARNING)
    assert "413" in message
    assert "too large" in message


@pytest.mark.parametrize("status", [400, 404, 415])
def test_what_will_never_be_taken_is_lost_with_one_warning(
    sender: Sender, transport: Transport, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    transport.say(Reply(status, b"no \xff" + b"x" * 1000))
    for _ in range(3):
        assert send(sender, waiting("a", "b")) == [0.0]
    assert (sender.sent, sender.lost) == (0, 6)
    (message,) = said(caplog, logging.WARNING)
    assert str(status) in message
    assert len(message) < 400


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_busy_receiver_is_asked_again_and_given_up_in_the_end(
    monkeypatch: pytest.MonkeyPatch, sender: Sender, transport: Transport, status: int
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(module, "monotonic", lambda: clock[0])
    transport.say(Reply(status, b""))
    pending = waiting("a", "b")
    while pending:
        assert clock[0] < 1000 + module.REFUSED_SECONDS + module.LONGEST_PAUSE
        clock[0] += sender.send(pending, clock[0] + 5)
    assert clock[0] >= 1000 + module.REFUSED_SECONDS
    assert (sender.sent, sender.lost) == (0, 2)
    transport.say(REFUSED, OK)
    pending = waiting("c")
    assert sender.send(pending, clock[0] + 5) > 0
    sender.send(pending, clock[0] + 5)
    assert (transport.resources, sender.lost) == ([["c"]], 2)


def test_spans_are_kept_while_nobody_is_there(sender: Sender, transport: Transport) -> None:
    transport.say(DOWN)
    pending = waiting("a")
    pauses = [sender.send(pending, monotonic() + 5) for _ in range(20)]
    assert (len(pending), sender.lost) == (1, 0)
    assert all(0 < pause <= module.LONGEST_PAUSE for pause in pauses)
    assert pauses[0] <= 0.2 < 1 < pauses[-1]
    transport.say(OK)
    assert send(sender, pending) == [0.0]
    assert transport.resources == [["a"]]
    transport.say(DOWN)
    assert sender.send(waiting("b"), monotonic() + 5) <= 0.2


@pytest.mark.parametrize("trouble", [DOWN, REFUSED, TimeoutError(), OSError("odd")])
def test_one_warning_when_it_goes_and_one_information_when_it_is_back(
    sender: Sender, transport: Transport, caplog: pytest.LogCaptureFixture, trouble: Reply | OSError
) -> None:
    pending = waiting("a")
    transport.say(trouble)
    for _ in range(5):
        sender.send(pending, monotonic() + 5)
    sender.lose(7)
    (warning,) = said(caplog, logging.WARNING)
    assert transport.url in warning
    assert sender.up is False
    transport.say(OK)
    send(sender, pending)
    assert said(caplog, logging.INFO) == [f"{transport.url} answers again; 7 spans were lost meanwhile"]
    transport.say(trouble)
    sender.send(waiting("b"), monotonic() + 5)
    transport.say(OK)
    send(sender, waiting("c"))
    assert len(said(caplog, logging.WARNING)) == 2
    assert "; 0 spans" in said(caplog, logging.INFO)[1]


def test_the_deadline_bounds_the_wait(sender: Sender, transport: Transport) -> None:
    send(sender, waiting("a"), seconds=0.5)
    assert 0 < transport.timeouts[0] <= 0.5
    send(sender, waiting("a"), seconds=50)
    assert transport.timeouts[1] == Settings().timeout
    assert sender.send(waiting("a"), monotonic() - 1) > 0
    assert len(transport.timeouts) == 2


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            b'{"rate_by_service":{"service:,env:":0.5,"service:a,env:b":1}}',
            {"service:,env:": 0.5, "service:a,env:b": 1.0},
        ),
        (b'{"rate_by_service":{"a":2,"b":-1,"c":NaN,"d":"0.5"}}', {"d": 0.5}),
        (b'{"rate_by_service":{}}', None),
        (b'{"rate_by_service":null}', None),
        (b'{"rate_by_service":[1]}', None),
        (b'{"rate_by_service":{"a":[]}}', None),
        (b"{}", None),
        (b"OK\n", None),
        (b"", None),
        (b"{", None),
        (b"[]", None),
        (b"5", None),
        (b"\xff\xfe", None),
        (b"[" * 100_000, None),
    ],
)
def test_whatever_stands_in_the_answer_it_was_a_delivery(
    transport: Transport, caplog: pytest.LogCaptureFixture, body: bytes, expected: Mapping[str, float] | None
) -> None:
    rates: list[Mapping[str, float]] = []
    sender = Sender(Settings(), transport, rates.append)  # type: ignore[arg-type]
    transport.say(Reply(200, body))
    assert send(sender, waiting("a")) == [0.0]
    assert (sender.sent, sender.lost, sender.up) == (1, 0, True)
    assert rates == ([] if expected is None else [expected])
    assert caplog.records == []


def test_nobody_suffers_from_a_listener_that_raises(transport: Transport, caplog: pytest.LogCaptureFixture) -> None:
    sender = Sender(Settings(), transport, lambda _: 1 / 0)  # type: ignore[arg-type,return-value]
    transport.say(Reply(200, b'{"rate_by_service":{"a":1}}'))
    send(sender, waiting("a"))
    send(sender, waiting("b"))
    assert sender.sent == 2
    assert len(said(caplog, logging.WARNING)) == 1


def test_our_own_requests_are_not_traced(sender: Sender, transport: Transport) -> None:
    enabled = []
    plain = transport.send

    def watched(body: bytes, chunk_count: int, timeout: float) -> Reply:
        enabled.append(is_instrumentation_enabled())
        return plain(body, chunk_count, timeout)

    transport.send = watched  # type: ignore[method-assign]
    send(sender, waiting("a"))
    assert enabled == [False]
    assert is_instrumentation_enabled()


def test_close_closes_the_connection(sender: Sender, transport: Transport) -> None:
    before = transport.closed
    sender.close()
    assert transport.closed == before + 1
