"""pymemcache: one CLIENT span per call of a `Client` or `PooledClient`, with its keys and without its values.

A `HashClient` has no span of its own: it sends a call to the servers that its keys belong to, a span each. Not traced:
connecting and closing, which the first call's span covers.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from spanbridge.conventions import keyvalue
from spanbridge.conventions.commands import memcached_command
from spanbridge.conventions.database import Target
from spanbridge.conventions.keyvalue import Command
from spanbridge.core.instrumentor import Instrumentor
from spanbridge.core.patching import Library, Patch
from spanbridge.version import __version__ as __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    from spanbridge.core.patching import Advice
    from spanbridge.core.tracing import Setup

# Methods by the name of the argument that holds the keys. Their other names are the same methods, but for contrib.
_METHODS = {
    "key": "add append cas decr delete get gets incr prepend replace set touch",
    "keys": "delete_many get_many gets_many",
    "values": "set_many",
    "": "cache_memlimit flush_all quit raw_command shutdown stats version",
}
_CONTRIB_METHODS = ("get_multi", "set_multi")

# How many items a reading method's result holds.
_FOUND: dict[str, Callable[[Any], int]] = {
    "get": lambda value: int(value is not None),
    "gets": lambda pair: int(bool(pair) and pair[0] is not None),  # (value, cas), both None or no pair at all
    "get_many": len,
    "gets_many": len,
}


@lru_cache(maxsize=128)
def _target(server: Any) -> Target:
    """A server's target: it is host and port, or a socket's path."""
    host, port = (server, None) if isinstance(server, str) else server
    return Target("memcached", host=host, port=port)


def _target_of(client: Any) -> Target:
    server = client.server
    return _target(tuple(server) if isinstance(server, list) else server)


def _describer(method: str, argument: str) -> Callable[[Setup], Callable[..., Command]]:
    def compiled(setup: Setup) -> Callable[..., Command]:
        if setup.semconv.contrib:
            return _contrib_describer(method, setup)
        keys = setup.options["capture_keys"]

        def describe(client: Any, *args: Any, **kwargs: Any) -> Command:
            items = (args[0] if args else kwargs.get(argument, ())) if argument else ()
            return Command(_target_of(client), method, memcached_command(method, items, keys=keys))

        return describe

    return compiled


def _contrib_describer(method: str, setup: Setup) -> Callable[..., Command]:
    names = setup.semconv.database

    def describe(client: Any, *args: Any, **kwargs: Any) -> Command:
        target = _target_of(client)
        extra = {}
        if names.old:
            extra["net.transport"] = "other" if target.port is None else "ip_tcp"
        if names.stable:
            extra["network.transport"] = "pipe" if target.port is None else "tcp"
        return Command(target, method, memcached_command(method, *args[:1]), extra=extra)

    return describe


def _call(method: str, argument: str) -> Advice:
    return keyvalue.call(_describer(method, argument), found=_FOUND if method in _FOUND else None)


def _contrib_call(method: str) -> Advice:
    advice = _call(method, "")
    return lambda wrapped, setup: advice(wrapped, setup) if setup.semconv.contrib else wrapped


_ROWS = {method: _contrib_call(method) for method in _CONTRIB_METHODS} | {
    method: _call(method, argument) for argument, methods in _METHODS.items() for method in methods.split()
}


class PymemcacheInstrumentor(Instrumentor):
    """Traces pymemcache: every client, whenever it was made, and `HashClient` through those it is made of."""

    library = Library("pymemcache", ("pymemcache >= 1.3",), tested="4.0.0")
    database_alone = True
    options = (keyvalue.CAPTURE_KEYS,)
    patches = tuple(
        Patch("pymemcache.client.base", f"{client}.{method}", advice)
        for client in ("Client", "PooledClient")
        for method, advice in _ROWS.items()
    )
