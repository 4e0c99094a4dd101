"""redis: one CLIENT span per command and per pipeline; plain, asyncio and cluster clients.

Within a pipeline the commands sent at once (WATCH and reads after it) have their own spans. Not traced: pub/sub
messages, MONITOR, the set-up of connections. What a cluster client asks its nodes belongs to the command's span.
"""

from __future__ import annotations

from functools import lru_cache
from types import MethodType
from typing import TYPE_CHECKING, Any

from spanbridge.conventions import http, keyvalue
from spanbridge.conventions.commands import key_text, masked
from spanbridge.conventions.database import Target
from spanbridge.conventions.keyvalue import Command
from spanbridge.core.instrumentor import Instrumentor
from spanbridge.core.patching import Library, Patch, patch_object
from spanbridge.version import __version__ as __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.trace import TracerProvider

    from spanbridge.core.semconv import Semconv
    from spanbridge.core.tracing import Setup


@lru_cache(maxsize=128)
def _target(host: str | None, port: int | None, path: str | None, index: int | None, name: Any = None) -> Target:
    """A connection pool's target; remembered, for clients are many and servers few."""
    namespace = None if index is None else str(index)
    more = (("redis.client_name", key_text(name)),) if name else ()
    if path:
        return Target("redis", namespace, host=path, more=more)
    return Target("redis", namespace, host=host, port=port and int(port), more=more)


def _target_of(client: Any) -> Target:
    """Where a client, a pipeline or a cluster client connects to."""
    try:
        settings = client.connection_pool.connection_kwargs.get
    except AttributeError:
        return _cluster_of(client)
    return _target(
        settings("host", "localhost"),
        settings("port", 6379),
        settings("path"),
        settings("db") or 0,
        settings("client_name"),
    )


def _cluster_of(client: Any) -> Target:
    """Where a cluster client connects to first."""
    manager = getattr(client, "nodes_manager", None)
    node = getattr(manager, "default_node", None)
    if node is None:  # before the first command of an asyncio client
        nodes = getattr(manager, "startup_nodes", ())  # a list before 5.0
        node = next(iter(nodes.values() if isinstance(nodes, dict) else nodes), None)
    return _target(getattr(node, "host", None), getattr(node, "port", None), None, 0)


def _single(setup: Setup) -> Callable[..., Command | None]:
    """Compile the describer of `execute_command(*args, **options)`."""
    if setup.semconv.contrib:
        return _contrib_single(setup.semconv)
    keys = setup.options["capture_keys"]

    def describe(client: Any, *args: Any, **options: Any) -> Command | None:
        if not args:
            return None
        return keyvalue.redis_single(_target_of(client), args, (client, args, options), keys=keys)

    return describe


def _stack(pipeline: Any) -> Sequence[Any]:
    """The commands collected so far: redis-py keeps them in four places, depending on version and client."""
    strategy = getattr(pipeline, "_execution_strategy", None)
    for holder, name in ((strategy, "command_queue"), (strategy, "_command_queue"), (pipeline, "command_stack")):
        stack: Sequence[Any] | None = getattr(holder, name, None)
        if stack is not None:
            return stack
    return getattr(pipeline, "_command_stack", ())


def _arguments(command: Any) -> Sequence[Any]:
    """A collected command is an object with `args`, or a tuple that begins with them."""
    args: Sequence[Any] = command.args if hasattr(command, "args") else command[0]
    return args


def _pipeline(setup: Setup) -> Callable[..., Command | None]:
    """Compile the describer of a pipeline's `execute()`."""
    if setup.semconv.contrib:
        return _contrib_pipeline(setup.semconv)
    keys = setup.options["capture_keys"]

    def describe(pipeline: Any, *args: Any, **kwargs: Any) -> Command | None:
        commands = [_arguments(command) for command in _stack(pipeline)]
        return keyvalue.redis_batch(_target_of(pipeline), commands, (pipeline, args, kwargs), keys=keys)

    return describe


# What contrib says, for `contrib` mode: every argument masked; names, lengths and the connection in its own way.

_CONTRIB_NAMES = {"FT.SEARCH": "redis.search", "FT.CREATE": "redis.create_index"}


def _contrib_single(semconv: Semconv) -> Callable[..., Command]:
    def describe(client: Any, *args: Any, **options: Any) -> Command:
        target, extra = _contrib_connection(client, semconv)
        name = _CONTRIB_NAMES.get(args[0], args[0]) if args and args[0] else extra.get("db.redis.database_index", 0)
        extra["db.redis.args_length"] = len(args)
        return Command(target, "", masked(args), (client, args, options), name=str(name), extra=extra)

    return describe


def _contrib_pipeline(semconv: Semconv) -> Callable[..., Command]:
    def describe(pipeline: Any, *args: Any, **kwargs: Any) -> Command:
        target, extra = _contrib_connection(pipeline, semconv)
        commands = [_arguments(command) for command in _stack(pipeline)]
        extra["db.redis.pipeline_length"] = len(commands)
        name = " ".join(str(command[0]) for command in commands) or "redis"
        text = "\n".join(masked(command) for command in commands)
        return Command(target, "", text, (pipeline, args, kwargs), name=name, extra=extra)

    return describe


def _contrib_connection(client: Any, semconv: Semconv) -> tuple[Target, dict[str, Any]]:
    settings = getattr(getattr(client, "connection_pool", None), "connection_kwargs", None)
    if settings is None:
        return _NO_TARGET, {}
    path = settings.get("path")
    extra: dict[str, Any] = {"db.redis.database_index": settings.get("db") or 0} if semconv.database.old else {}
    if semconv.http.old:
        extra["net.transport"] = "other" if path else "ip_tcp"
    if semconv.http.stable:
        extra["network.transport"] = "unix" if path else "tcp"
    return _target(settings.get("host", "localhost"), settings.get("port", 6379), path, None), extra


_NO_TARGET = Target("")


def _watch_error(error: BaseException) -> bool:
    """Say whether somebody else has changed a watched key: the answer that WATCH asks for."""
    return type(error).__name__ == "WatchError"


_command = keyvalue.call(_single, found=keyvalue.REDIS_FOUND)
_execute = keyvalue.call(_pipeline, harmless=_watch_error, batch=True)


def _client_patches(module: str) -> tuple[Patch, ...]:
    return (
        Patch(module, "Redis.execute_command", _command),
        Patch(module, "Pipeline.execute", _execute),
        Patch(module, "Pipeline.immediate_execute_command", _command),
    )


def _cluster_patches(module: str) -> tuple[Patch, ...]:
    return (
        Patch(module, "RedisCluster.execute_command", _command),
        Patch(module, "ClusterPipeline.execute", _execute),
    )


class RedisInstrumentor(Instrumentor):
    """Traces redis-py from 2.6: plain, asyncio and cluster clients, whenever they were made.

    Hooks: `request_hook(span, client, args, kwargs)` for single commands, `response_hook(span, client, response)`.
    """

    library = Library("redis", ("redis >= 2.6",), tested="8.1.0")
    options = (
        *http.optional_hooks(
            ("request_hook", "(span, client, args, kwargs)"), ("response_hook", "(span, client, response)")
        ),
        keyvalue.CAPTURE_KEYS,
    )
    patches = (
        *_client_patches("redis.client"),
        # Before 3.0 the plain client was called StrictRedis, and pipelines shared a base.
        Patch("redis.client", "StrictRedis.execute_command", _command),
        Patch("redis.client", "BasePipeline.execute", _execute),
        Patch("redis.client", "BasePipeline.immediate_execute_command", _command),
        *_client_patches("redis.asyncio.client"),
        *_cluster_patches("redis.cluster"),
        *_cluster_patches("redis.asyncio.cluster"),
    )

    @staticmethod
    def instrument_client(
        client: Any,
        tracer_provider: TracerProvider | None = None,
        request_hook: Callable[..., Any] | None = None,
        response_hook: Callable[..., Any] | None = None,
    ) -> None:
        """Trace this one client, of any kind, and the pipelines it makes.

        Args:
            client: the client.
            tracer_provider: instead of the global one.
            request_hook: called as `(span, client, args, kwargs)` before a command.
            response_hook: called as `(span, client, response)` after one.
        """
        setup = RedisInstrumentor().instrument_object(
            client, tracer_provider=tracer_provider, request_hook=request_hook, response_hook=response_hook
        )
        if setup is None:
            return
        make_pipeline = type(client).pipeline

        def pipeline(self: Any, *args: Any, **kwargs: Any) -> Any:
            made = make_pipeline(self, *args, **kwargs)
            patch_object(made, RedisInstrumentor.patches, setup)
            return made

        client.pipeline = MethodType(pipeline, client)

    @staticmethod
    def uninstrument_client(client: Any) -> None:
        """Trace this one client no more."""
        if RedisInstrumentor().uninstrument_object(client):
            vars(client).pop("pipeline", None)
