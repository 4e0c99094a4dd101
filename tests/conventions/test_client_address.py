"""The client behind proxies: the first public address that they name, and nothing that is no address."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanbridge.conventions.client_address import behind_proxies

WANTED = ("x-forwarded-for", "forwarded", "x-real-ip")


@pytest.mark.parametrize(
    ("headers", "peer", "client"),
    [
        ({}, "10.0.0.1", "10.0.0.1"),
        ({}, None, None),
        ({"X-Forwarded-For": "8.8.8.8"}, "10.0.0.1", "8.8.8.8"),
        ({"X_FORWARDED_FOR": "10.1.1.1, 8.8.8.8:4711, 9.9.9.9"}, "10.0.0.1", "8.8.8.8"),
        ({"X-Forwarded-For": "10.1.1.1, 192.168.1.1"}, "10.0.0.1", "10.1.1.1"),
        ({"X-Forwarded-For": "10.1.1.1"}, "9.9.9.9", "9.9.9.9"),
        ({"X-Forwarded-For": "10.1.1.1"}, "a socket", "10.1.1.1"),
        ({"X-Forwarded-For": "unknown"}, "10.0.0.1", "10.0.0.1"),
        ({"Forwarded": 'by=9.9.9.9;For="[2606:4700::1]:80", for=8.8.4.4'}, None, "2606:4700::1"),
        ({"X-Real-IP": "9.9.9.9", "Forwarded": "For=8.8.8.8:80"}, None, "8.8.8.8"),
        ({"X-Forwarded-For": "2606:4700::1111"}, "10.0.0.1", "2606:4700::1111"),
        ({"X-Forwarded-For": "", "X-Real-IP": "8.8.8.8"}, "10.0.0.1", "8.8.8.8"),
        ({"X-Client-IP": "8.8.8.8"}, "10.0.0.1", "10.0.0.1"),
        ({"X-Forwarded-For": "256.1.1.1, 1.2.3, 8.8.8.8"}, "10.0.0.1", "8.8.8.8"),
        ({"X-Forwarded-For": b"8.8.8.8"}, "10.0.0.1", "8.8.8.8"),
    ],
)  # fmt: skip
def test_the_client_is_found(headers: dict[str, str], peer: str | None, client: str | None) -> None:
    assert behind_proxies(headers.items(), WANTED, peer) == client


@given(st.text(), st.none() | st.text())
def test_no_header_can_break_it(value: str, peer: str | None) -> None:
    assert isinstance(behind_proxies([("x-forwarded-for", value)], WANTED, peer), str | None)
