"""The address of a client behind proxies, from the headers that they add; read only where the user asks for it.

Anybody can send such a header: what it says is a hint, no proof.
https://opentelemetry.io/docs/specs/semconv/registry/attributes/client/ (`client.address`)
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from spanbridge.conventions.http import text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_MOST_HOPS = 32


def behind_proxies(headers: Iterable[tuple[str, str]], wanted: Sequence[str], peer: str | None) -> str | None:
    """Answer the first public address that a request's headers name, else the peer's, else a private one.

    Args:
        headers: of the request.
        wanted: the headers' names in lower case with dashes, the strongest first; the first one present is read.
        peer: who holds the other end of the connection.
    """
    found = {name.lower().replace("_", "-"): value for name, value in headers}
    value = next((text(found[name]) for name in wanted if found.get(name)), "")
    hops = [hop for item in value.split(",", _MOST_HOPS)[:_MOST_HOPS] if (hop := _address(item))]
    if public := next((hop for hop in hops if ip_address(hop).is_global), None):
        return public
    if hops and not (peer and (direct := _address(peer)) and ip_address(direct).is_global):
        return hops[0]
    return peer


def _address(item: str) -> str | None:
    """Read `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`, or `for=` one of them (RFC 7239)."""
    for part in item.split(";"):
        key, _, node = part.strip().rpartition("=")
        if key.strip().lower() not in {"", "for"}:
            continue
        node = node.strip(' "')
        if node.startswith("["):
            node = node[1:].partition("]")[0]
        elif node.count(":") == 1:
            node = node.partition(":")[0]
        try:
            ip_address(node)
        except ValueError:
            continue
        return node
    return None
