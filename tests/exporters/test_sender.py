"""What is sent again, split or given up, and what is said about it."""

from __future__ import annotations

import json
import logging
from hashlib import sha256
from time import monotonic
from typing import TYPE_CHECKING

import pytest
from opentelemetry.instrumentation.utils import is_instrumentation_enabled

from spanbridge.exporters.datadog import sender as module
from spanbridge.exporters.datadog.encoding import encode_chunk
from spanbridge.exporters.datadog.sender import Encoded, Pending, Sender
from spanbridge.exporters.datadog.settings import Settings
from spanbridge.exporters.datadog.transport import Reply, Request
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


def test_a_chunk_that_is_too_large_is_divided(sender: Sender, transport: Transport) -> None:
    spans = [{"resource": str(number), "meta": {}, "metrics": {}} for number in range(5)]
    spans[0] |= {"meta": {"_dd.p.dm": "-1", "a": "b"}, "metrics": {"_sampling_priority_v1": 1, "_dd.top_level": 1}}
    transport.say(Reply(413, b""), OK)
    send(sender, Pending([Encoded(encode_chunk(spans), 5), *waiting("x")._chunks]))
    transport.payloads.clear()
    transport.say(Reply(413, b""), OK)
    pending = Pending([Encoded(encode_chunk(spans), 5)])
    send(sender, pending)
    assert transport.resources == [["0", "1"], ["2", "3", "4"]]
    first, second = (chunk[0] for chunk in transport.chunks)
    assert first == spans[0]
    assert (second["meta"], second["metrics"]) == ({"_dd.p.dm": "-1"}, {"_sampling_priority_v1": 1})
    assert (len(pending), pending.size, sender.sent, sender.lost) == (0, 0, 11, 0)


def test_a_receiver_that_is_none_is_one_warning_and_one_information(
    sender: Sender, transport: Transport, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        transport.say(Reply(404, b"not found"))
        for _ in range(3):
            send(sender, waiting("a"))
        transport.say(OK)
        send(sender, waiting("b"))
    assert len(said(caplog, logging.WARNING)) == 2
    assert said(caplog, logging.INFO) == [f"{transport.url} answers again; 3 spans were lost meanwhile"] * 2


# --- formats, and what the receiver says about itself ---

INFO = {"endpoints": ["/v0.4/traces", "/v0.5/traces"], "span_events": True, "config": {"max_request_bytes": 900}}


def info(**changed: object) -> Reply:
    return Reply(200, json.dumps(INFO | changed).encode())


def state(reply: Reply) -> Reply:
    """A delivery that names the state of the receiver that answers /info with `reply`."""
    return OK._replace(headers={"datadog-agent-state": sha256(reply.body).hexdigest()})


def full(resource: str) -> Encoded:
    span = dict.fromkeys(("trace_id", "span_id", "parent_id", "start", "duration", "error"), 1)
    texts = {"service": "shop", "name": "work", "resource": resource, "type": ""}
    return Encoded(encode_chunk([span | texts | {"meta": {"a": "work"}, "metrics": {"n": 2}}]), 1)


@pytest.mark.parametrize("status", [404, 415])
def test_a_receiver_without_v05_gets_the_same_spans_as_v04(
    transport: Transport, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    sender = Sender(Settings(api_version="v0.5"), transport)  # type: ignore[arg-type]
    transport.say(Reply(status, b""), OK)
    send(sender, Pending([full("a"), full("b")]))
    assert transport.paths == ["/v0.5/traces", "/v0.4/traces"]
    assert transport.resources == [["a"], ["b"]]
    assert (sender.sent, sender.lost) == (2, 0)
    send(sender, Pending([full("c")]))
    assert transport.paths[2:] == ["/v0.4/traces"]
    assert said(caplog, logging.WARNING) == []


def test_v05_has_one_table_of_texts(transport: Transport) -> None:
    sender = Sender(Settings(api_version="v0.5"), transport)  # type: ignore[arg-type]
    send(sender, Pending([full("a"), full("b")]))
    ((table, ((first,), (second,))),) = transport.payloads
    assert table == ["", "shop", "work", "a", "n", "b"]
    assert first == [1, 2, 3, 1, 1, 1, 1, 1, 1, {3: 2}, {4: 2.0}, 0]
    assert second == [1, 2, 5, 1, 1, 1, 1, 1, 1, {3: 2}, {4: 2.0}, 0]


def test_the_receiver_is_asked_what_it_can_do_once_it_has_taken_something(sender: Sender, transport: Transport) -> None:
    assert not sender.learning_is_due
    transport.info = info()
    transport.say(state(info()))
    send(sender, waiting("a"))
    assert sender.learning_is_due
    assert sender.learn()
    assert sender.takes_native_events
    assert sender.info.endpoints == {"/v0.4/traces", "/v0.5/traces"}
    send(sender, waiting("a"))
    assert not sender.learning_is_due
    transport.say(state(info(span_events=False)))
    send(sender, waiting("a"))
    assert sender.learning_is_due


def test_a_receiver_that_names_no_state_is_asked_every_five_minutes(
    monkeypatch: pytest.MonkeyPatch, sender: Sender, transport: Transport
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(module, "monotonic", lambda: clock[0])
    send(sender, waiting("a"), seconds=9999)
    assert sender.learning_is_due
    assert not sender.learn()  # it knows of no /info
    clock[0] += module.INFO_SECONDS - 1
    sender.send(waiting("a"), clock[0] + 5)
    assert not sender.learning_is_due
    clock[0] += 2
    sender.send(waiting("a"), clock[0] + 5)
    assert sender.learning_is_due


def test_what_the_receiver_says_is_followed(transport: Transport) -> None:
    sender = Sender(Settings(api_version="v0.5"), transport)  # type: ignore[arg-type]
    transport.info = info(endpoints=["/v0.4/traces"])
    assert sender.learn()
    assert not sender.learn()
    send(sender, waiting("a", "b", size=600))
    assert transport.paths[2:] == ["/v0.4/traces"] * 2  # no larger than it takes


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"5", b"\xff", b"[" * 100_000, b'{"endpoints":5,"config":[],"peer_tags":{},"span_events":1}'],
)
def test_an_info_that_is_none_changes_nothing(sender: Sender, transport: Transport, body: bytes) -> None:
    transport.info = Reply(200, body)
    sender.learn()
    assert (sender.info.endpoints, sender.info.peer_tags, sender.takes_native_events) == (frozenset(), (), False)
    send(sender, waiting("a"))
    assert sender.sent == 1


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

    def watched(request: Request, timeout: float) -> Reply:
        enabled.append(is_instrumentation_enabled())
        return plain(request, timeout)

    transport.send = watched  # type: ignore[method-assign]
    send(sender, waiting("a"))
    assert enabled == [False]
    assert is_instrumentation_enabled()


def test_close_closes_the_connection(sender: Sender, transport: Transport) -> None:
    before = transport.closed
    sender.close()
    assert transport.closed == before + 1
