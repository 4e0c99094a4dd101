"""flask_cache (Flask-Cache, Flask-Caching): one INTERNAL span per call of a `Cache`, with its keys and no values.

What the cache asks its store (Redis, memcached) has its own span below. `cached` and `memoize` go through these calls
since Flask-Caching 2.0; before, and in Flask-Cache, they go past them and are not traced.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import SpanKind

from spanbridge.conventions import keyvalue
from spanbridge.conventions.commands import key_text
from spanbridge.core.instrumentor import Instrumentor
from spanbridge.core.patching import Library, Patch
from spanbridge.core.tracing import Operation, traced
from spanbridge.version import __version__ as __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from opentelemetry.trace import Span

    from spanbridge.core.patching import Advice
    from spanbridge.core.tracing import Setup, Wrapped

_SHOWN = 100  # keys of one call

# Where the backends of both libraries keep their clients.
_CLIENTS = ("_client", "_write_client", "_read_client", "_read_clients")


@dataclass(frozen=True)
class Call:
    """One call of a cache.

    Args:
        keys: what it is about.
        cache: the cache.
    """

    keys: tuple[Any, ...]
    cache: Any


def _one(cache: Any, key: Any = None, *args: Any, **kwargs: Any) -> Call:
    return Call(() if key is None else (key,), cache)


def _many(cache: Any, *keys: Any, **kwargs: Any) -> Call:
    return Call(keys, cache)


def _mapping(cache: Any, mapping: Any = (), *args: Any, **kwargs: Any) -> Call:
    return Call(tuple(islice(mapping, _SHOWN)) if hasattr(mapping, "keys") else (), cache)


_METHODS: dict[Callable[..., Call], str] = {
    _one: "get has set add delete clear",
    _many: "get_many get_dict delete_many unlink",
    _mapping: "set_many",
}

# How many items a reading method's result holds.
_FOUND: dict[str, Callable[[Any], int]] = {
    "get": lambda value: int(value is not None),
    "get_many": lambda values: sum(value is not None for value in values),
    "get_dict": lambda values: sum(value is not None for value in values.values()),
}


def _address(client: Any) -> tuple[Any, Any, Any]:
    """Answer where a store's client connects to (host, port, database): redis-py, python-memcached, pylibmc."""
    settings = getattr(getattr(client, "connection_pool", None), "connection_kwargs", None)
    if settings is not None:
        return settings.get("host"), settings.get("port"), str(settings.get("db") or 0)
    servers: Iterable[Any] = getattr(client, "servers", None) or ()
    for server in servers:
        address = getattr(server, "address", None)
        host, port = address if isinstance(address, tuple) else (address, None)
        return host, port, None
    for text in getattr(client, "addresses", None) or ():
        host, _, port = str(text).partition(":")
        return host, int(port) if port.isdecimal() else None, None
    return None, None, None


def _attributes(setup: Setup) -> Callable[[Call], dict[str, Any]]:
    shows_keys = setup.options["capture_keys"]

    def attributes(call: Call) -> dict[str, Any]:
        rendered: dict[str, Any] = {}
        try:
            backend = call.cache.cache
        except Exception:  # it has no application, which the call is about to say
            backend = None
        # Without a configuration of its own it has the application's, where others may change it later.
        kind = (call.cache.config or {}).get("CACHE_TYPE") or (None if backend is None else type(backend))
        if kind is not None:
            rendered["flask_cache.backend"] = kind if isinstance(kind, str) else getattr(kind, "__name__", str(kind))
        if call.keys and shows_keys:
            shown = [key_text(key) for key in call.keys[:_SHOWN]]
            rendered["flask_cache.key"] = shown[0] if len(shown) == 1 else shown
        client = next(filter(None, (getattr(backend, name, None) for name in _CLIENTS)), None)
        where = zip(("server.address", "server.port", "db.namespace"), _address(client), strict=True)
        rendered.update((key, value) for key, value in where if value)
        return rendered

    return attributes


def _call(method: str, describe: Callable[..., Call]) -> Advice:
    count = _FOUND.get(method)

    def succeeded(span: Span, call: Call, result: Any) -> None:
        if count is not None:
            span.set_attribute("db.response.returned_rows", count(result))

    def advice(wrapped: Wrapped, setup: Setup) -> Wrapped:
        operation = Operation(
            SpanKind.INTERNAL,
            describe,
            lambda call: method,
            _attributes(setup),
            succeeded=succeeded if count is not None else None,
        )
        return traced(wrapped, setup, operation)

    return advice


class FlaskCacheInstrumentor(Instrumentor):
    """Traces the `Cache` objects of Flask-Caching and of Flask-Cache, whenever they were made."""

    library = Library(
        "flask_caching", ("Flask-Caching >= 1.0", "Flask-Cache >= 0.12"), tested="2.5.1", others=("flask_cache",)
    )
    options = (keyvalue.CAPTURE_KEYS,)
    patches = tuple(
        Patch(module, f"Cache.{method}", _call(method, describe))
        for module in ("flask_caching", "flask_cache")
        for describe, methods in _METHODS.items()
        for method in methods.split()
    )
