"""rediscluster (redis-py-cluster): one CLIENT span per command and per pipeline, as the application asked for it.

What goes to single nodes, redirections and retries included, belongs to that span. A command that the client takes
apart (MSET, MGET) has a span for each part. Not traced: pub/sub. redis from 4.1 on has a cluster client: see there.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from spanbridge.conventions import keyvalue
from spanbridge.conventions.database import Target
from spanbridge.core.instrumentor import Instrumentor
from spanbridge.core.patching import Library, Patch
from spanbridge.version import __version__ as __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    from spanbridge.conventions.keyvalue import Command
    from spanbridge.core.tracing import Setup


@lru_cache(maxsize=128)
def _target(host: str | None, port: int | None) -> Target:
    return Target("redis", "0", host=host, port=port)  # a cluster has but one database


def _target_of(client: Any) -> Target:
    """Answer the first of the nodes that a client was given."""
    nodes: Any = getattr(getattr(client.connection_pool, "nodes", None), "startup_nodes", None) or ({},)
    port = nodes[0].get("port")
    return _target(nodes[0].get("host"), port and int(port))


def _single(setup: Setup) -> Callable[..., Command | None]:
    """Compile the describer of `execute_command(*args, **options)`."""
    keys = setup.options["capture_keys"]

    def describe(client: Any, *args: Any, **options: Any) -> Command | None:
        return keyvalue.redis_single(_target_of(client), args, keys=keys) if args else None

    return describe


def _pipeline(setup: Setup) -> Callable[..., Command | None]:
    """Compile the describer of a pipeline's `execute()`."""
    keys = setup.options["capture_keys"]

    def describe(pipeline: Any, *args: Any, **kwargs: Any) -> Command | None:
        commands = [command.args for command in pipeline.command_stack]
        return keyvalue.redis_batch(_target_of(pipeline), commands, keys=keys)

    return describe


_command = keyvalue.call(_single, found=keyvalue.REDIS_FOUND)
_execute = keyvalue.call(_pipeline, batch=True)


class RedisClusterInstrumentor(Instrumentor):
    """Traces redis-py-cluster from 1.3.5: every client, whenever it was made."""

    library = Library("rediscluster", ("redis-py-cluster >= 1.3.5",), tested="2.1.3")
    options = (keyvalue.CAPTURE_KEYS,)
    patches = (
        Patch("rediscluster.client", "RedisCluster.execute_command", _command),
        Patch("rediscluster.pipeline", "ClusterPipeline.execute", _execute),
        # Before 2.0 the classes were called otherwise.
        Patch("rediscluster.client", "StrictRedisCluster.execute_command", _command),
        Patch("rediscluster.pipeline", "StrictClusterPipeline.execute", _execute),
    )
