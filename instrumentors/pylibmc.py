"""pylibmc: one CLIENT span per call of a client, with its keys and without its values; clones and pools as well.

The methods are C functions that `pylibmc.Client` inherits; patched, it has its own. Of several servers, spans name the
first. Not traced: behaviours, closing.
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

# Methods by the name of the argument that holds the keys.
_METHODS = {
    "key": "add append cas decr delete get gets incr prepend replace set touch",
    "keys": "delete_multi get_multi incr_multi",
    "mapping": "add_multi set_multi",
    "": "flush_all get_stats",
}

# How many items a reading method's result holds.
_FOUND: dict[str, Callable[[Any], int]] = {
    "get": lambda value: int(value is not None),
    "gets": lambda pair: int(pair[0] is not None),
    "get_multi": len,
}


@lru_cache(maxsize=128)
def _target(address: Any) -> Target:
    from pylibmc.client import translate_server_spec  # type: ignore[import-untyped]

    _, host, port, *_ = translate_server_spec(address) if isinstance(address, str) else address
    return Target("memcached", host=host, port=port)


def _describer(method: str, argument: str) -> Callable[[Setup], Callable[..., Command]]:
    def compiled(setup: Setup) -> Callable[..., Command]:
        keys = setup.options["capture_keys"]

        def describe(client: Any, *args: Any, **kwargs: Any) -> Command:
            items = (args[0] if args else kwargs.get(argument, ())) if argument else ()
            return Command(_target(client.addresses[0]), method, memcached_command(method, items, keys=keys))

        return describe

    return compiled


def _call(method: str, argument: str) -> Advice:
    return keyvalue.call(_describer(method, argument), found=_FOUND if method in _FOUND else None)


class PylibmcInstrumentor(Instrumentor):
    """Traces pylibmc: every client, whenever it was made."""

    library = Library("pylibmc", ("pylibmc >= 1.4",), tested="1.6.3")
    options = (keyvalue.CAPTURE_KEYS,)
    patches = tuple(
        Patch("pylibmc.client", f"Client.{method}", _call(method, argument))
        for argument, methods in _METHODS.items()
        for method in methods.split()
    )
