"""Key-value stores: one CLIENT span per command or pipeline; keys are kept, values masked.

https://opentelemetry.io/docs/specs/semconv/database/redis/
"""

from __future__ import annotations

import re
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import SpanKind

from spanbridge.conventions import http
from spanbridge.conventions.commands import WHOLE, redis_command
from spanbridge.conventions.database import text_keys
from spanbridge.core.failure import record_failure
from spanbridge.core.options import Option, boolean
from spanbridge.core.tracing import DATABASE, HTTP, Operation, traced

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from opentelemetry.trace import Span

    from spanbridge.conventions.database import Target
    from spanbridge.core.tracing import Setup, Wrapped

CAPTURE_KEYS = Option("capture_keys", True, "Keep keys in `db.query.text`; false masks them like values.", boolean)


class Command:
    """One command, or several in one go.

    Args:
        target: where it goes.
        verb: the `db.operation.name`; a batch's is the word for the batch.
        text: the command without its values, a line each.
        source: what hooks get after the span, such as (client, args, kwargs).
        extra: further attributes, of plain values where names are not contrib's.
        batch: how many commands; None for a single one.
        name: the span's name, when it is not the verb.
    """

    __slots__ = ("batch", "extra", "name", "source", "target", "text", "verb")

    def __init__(
        self,
        target: Target,
        verb: str,
        text: str,
        source: tuple[Any, ...] = (),
        extra: dict[str, Any] | None = None,
        batch: int | None = None,
        name: str = "",
    ) -> None:
        self.target = target
        self.verb = verb
        self.text = text
        self.source = source
        self.extra = extra
        self.batch = batch
        self.name = name or verb


# Commands of a pipeline that are written out; how many there are is told by `db.operation.batch.size`.
_SHOWN = 100


def redis_single(target: Target, args: Sequence[Any], source: tuple[Any, ...] = (), *, keys: bool) -> Command:
    """Describe one command of Redis by its arguments; a long one, whose text is cut, says how many they are."""
    extra = {"db.redis.args_length": len(args)} if len(args) > WHOLE else None
    verb, text = redis_command(args, keys)
    return Command(target, verb, text, source, extra)


def redis_batch(
    target: Target, commands: Sequence[Sequence[Any]], source: tuple[Any, ...] = (), *, keys: bool
) -> Command | None:
    """Describe a pipeline of Redis by the arguments of its commands; None for an empty one, which sends nothing."""
    if not commands:
        return None
    shown = [redis_command(command, keys) for command in commands[:_SHOWN]]
    verbs = {verb for verb, _ in shown}
    verb = f"PIPELINE {verbs.pop()}" if len(verbs) == 1 and len(commands) <= _SHOWN else "PIPELINE"
    return Command(target, verb, "\n".join(text for _, text in shown), source, batch=len(commands))


# Where messages quote a command: those of Redis, and those that redis-py and redis-py-cluster make of a pipeline's.
_QUOTED = (
    (re.compile(r"(, with args beginning with: ).+"), r"\1?"),
    (re.compile(r"(?s)(Command # \d+ \().*?(\) of pipeline caused error: )"), r"\1?\2"),
)


def _without_arguments(text: str) -> str:
    for pattern, shown in _QUOTED:
        text = pattern.sub(shown, text)
    return text


def _key_found(result: Any) -> int:
    """A key that is not there reads as None, as nothing, or as nothing but None (HMGET)."""
    if isinstance(result, (bytes, str)):
        return 1
    if isinstance(result, (list, tuple, set)):
        return int(any(item is not None for item in result))
    return int(result is not None and result != {})


def _keys_found(result: Any) -> int:
    return sum(item is not None for item in result or ())


_READING_ONE = "GET GETDEL GETEX GETRANGE GETSET HGET HGETALL HKEYS HMGET HRANDFIELD HVALS LINDEX LPOP LRANGE RPOP"
REDIS_FOUND: dict[str, Callable[[Any], int]] = {**dict.fromkeys(_READING_ONE.split(), _key_found), "MGET": _keys_found}
"""How many keys the reading commands of Redis have found, given their answers."""


def call(
    describe: Callable[[Setup], Callable[..., Command | None]],
    *,
    harmless: Callable[[BaseException], bool] = lambda error: False,
    batch: bool = False,
    found: Mapping[str, Callable[[Any], int]] | None = None,
) -> Callable[[Wrapped, Setup], Wrapped]:
    """Make the advice for a method that sends commands.

    Args:
        describe: given what `instrument()` decided, answers the describer of the method's calls.
        harmless: tells exceptions that are answers, not failures.
        batch: whether the method sends what was collected before; `request_hook` sees single commands only.
        found: says, by the command's verb, how many items a result holds (`db.response.returned_rows`).
    """

    def advice(wrapped: Wrapped, setup: Setup) -> Wrapped:
        semconv = setup.semconv
        contrib = semconv.contrib
        keys = text_keys(semconv)
        request_hook = None if batch else http.hooked(setup, "request_hook")
        response_hook = http.hooked(setup, "response_hook")
        counts = {} if contrib or found is None else found

        def attributes(command: Command) -> dict[str, Any]:
            rendered = {**command.target.attributes(semconv), **dict.fromkeys(keys, command.text)}
            if not contrib:
                rendered["db.operation.name"] = command.verb
                if command.batch is not None:
                    rendered["db.operation.batch.size"] = command.batch
            if command.extra is not None:
                rendered.update(command.extra)
            return rendered

        def opened(span: Span, command: Command) -> None:
            if request_hook is not None:
                request_hook(span, *command.source)

        def succeeded(span: Span, command: Command, result: Any) -> None:
            if response_hook is not None:
                response_hook(span, command.source[0], result)
            if (count := counts.get(command.verb)) is not None:
                span.set_attribute("db.response.returned_rows", count(result))

        def failed(span: Span, command: Command, error: BaseException) -> None:
            if harmless(error):
                if response_hook is not None:
                    response_hook(span, command.source[0], None)
            else:
                clean = None if contrib else _without_arguments
                record_failure(span, error, error_type=semconv.database.stable and not contrib, clean=clean)

        operation: Operation[Command] = Operation(
            SpanKind.CLIENT,
            describe(setup),
            attrgetter("name"),
            attributes,
            layer=DATABASE,
            covers=DATABASE | HTTP,
            opened=opened if request_hook else None,
            succeeded=succeeded if response_hook or counts else None,
            failed=failed,
            fresh=True,
            plain=not contrib,
        )
        return traced(wrapped, setup, operation)

    return advice
