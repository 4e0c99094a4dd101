"""Models of Amazon Bedrock: what they are asked for, how many tokens they use, why they end; nothing of what is said.

Much of it is in the answer's body or in the events of a stream, so the span goes on until the application has read it.
https://opentelemetry.io/docs/specs/semconv/gen-ai/aws-bedrock/
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import wraps
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any

from spanbridge.conventions.fields import Field, values
from spanbridge.core.guard import guarded
from spanbridge.core.tracing import observed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from opentelemetry.trace import Span

    from spanbridge.core.tracing import Scope, Setup, Wrapped


# What a model is asked for: Converse has one way to say it, the models behind InvokeModel have theirs.
# https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html
_ASKED: tuple[Field, ...] = tuple(
    (f"gen_ai.request.{name}", path, shape)
    for name, shape, paths in (
        ("max_tokens", None, ("max_tokens", "max_gen_len", "maxTokenCount", "maxTokens", "max_new_tokens")),
        ("temperature", None, ("temperature",)),
        ("top_p", None, ("p", "top_p", "topP")),
        ("stop_sequences", list, ("stop", "stop_sequences", "stopSequences")),
    )
    for key in paths
    for path in (key, f"textGenerationConfig.{key}", f"inferenceConfig.{key}")
)


def _count(value: Any) -> int | None:
    return int(value) if isinstance(value, int) or (isinstance(value, str) and value.isdecimal()) else None


def _reason(value: Any) -> list[str] | None:
    return [value] if isinstance(value, str) else None


def _of_each(*keys: str) -> Callable[[Any], list[Any]]:
    """Take what is below any of `keys` out of each alternative that a model has answered."""

    def found(alternatives: Any) -> list[Any]:
        mappings = [one for one in alternatives if isinstance(one, Mapping)] if isinstance(alternatives, list) else ()
        return [one[key] for one in mappings for key in keys if one.get(key) is not None]

    return found


def _reasons(alternatives: Any) -> list[str] | None:
    return list(map(str, _of_each("completionReason", "finish_reason", "stop_reason")(alternatives))) or None


def _tokens(alternatives: Any) -> int | None:
    return sum(filter(None, map(_count, _of_each("tokenCount")(alternatives)))) or None


# What a model tells of its answer, in a whole one or in events. Of several the last one holds: Bedrock's own counts.
# Where there are none (Cohere and Mistral count nothing), an estimate would look like one.
_USED = {
    "input_tokens": (
        "usage.inputTokens",  # Converse, Nova
        "usage.input_tokens",  # Anthropic
        "usage.prompt_tokens",  # whoever speaks as OpenAI does
        "message.usage.input_tokens",  # Anthropic's first event
        "metadata.usage.inputTokens",  # an event of Converse, Nova
        "inputTextTokenCount",  # Titan
        "prompt_token_count",  # Llama
        "amazon-bedrock-invocationMetrics.inputTokenCount",  # the last event of any model
        "ResponseMetadata.HTTPHeaders.x-amzn-bedrock-input-token-count",  # any whole answer
    ),
    "output_tokens": (
        "usage.outputTokens",
        "usage.output_tokens",
        "usage.completion_tokens",
        "metadata.usage.outputTokens",
        "totalOutputTextTokenCount",
        "generation_token_count",
        "amazon-bedrock-invocationMetrics.outputTokenCount",
        "ResponseMetadata.HTTPHeaders.x-amzn-bedrock-output-token-count",
    ),
    "cache_read.input_tokens": (
        "usage.cacheReadInputTokens",
        "usage.cache_read_input_tokens",
        "metadata.usage.cacheReadInputTokens",
        "amazon-bedrock-invocationMetrics.cacheReadInputTokenCount",
    ),
    "cache_creation.input_tokens": (
        "usage.cacheWriteInputTokens",
        "usage.cache_creation_input_tokens",
        "metadata.usage.cacheWriteInputTokens",
        "amazon-bedrock-invocationMetrics.cacheWriteInputTokenCount",
    ),
}
_ENDED = (
    ("stopReason", _reason),  # Converse, Nova
    ("messageStop.stopReason", _reason),  # an event of theirs
    ("stop_reason", _reason),  # Anthropic, Llama
    ("delta.stop_reason", _reason),  # an event of Anthropic's
    ("completionReason", _reason),  # an event of Titan's
    ("finish_reason", _reason),  # Cohere
    ("results", _reasons),  # Titan
    ("generations", _reasons),  # Cohere
    ("outputs", _reasons),  # Mistral
    ("choices", _reasons),  # whoever speaks as OpenAI does
)
ANSWERED: tuple[Field, ...] = (
    ("gen_ai.usage.output_tokens", "results", _tokens),  # Titan
    *((f"gen_ai.usage.{name}", path, _count) for name, paths in _USED.items() for path in paths),
    *(("gen_ai.response.finish_reasons", path, shape) for path, shape in _ENDED),
)
# Where the application finds what it has to read.
_READ_FROM = {"InvokeModel": "body", "InvokeModelWithResponseStream": "body", "ConverseStream": "stream"}
# What tells nothing of this is not parsed: most events are parts of what is said.
_TELLING = re.compile(rb"[Rr]eason|[Uu]sage|[Tt]oken_?[Cc]ount")
_LARGEST_DOCUMENT = 256 << 10


def asked(operation: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """Answer the `gen_ai` attributes of a call of Bedrock's runtime."""
    model = params.get("modelId")
    if not model:
        return {}
    request: Any = params
    if operation.startswith("InvokeModel"):
        request = _document(params.get("body"))
        kind = "embeddings" if "embed" in model else "chat" if "messages" in request else "text_completion"
    else:
        kind = "chat"
    return {"gen_ai.operation.name": kind, "gen_ai.request.model": model, **dict(values(_ASKED, request))}


def _document(body: Any) -> dict[str, Any]:
    """Read a JSON object, unless it is too large to read on the way, or a file, which would be read for good."""
    if not isinstance(body, (str, bytes, bytearray)) or len(body) > _LARGEST_DOCUMENT:
        return {}
    try:
        document = json.loads(body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


# The answer, as the application reads it. The scope is kept where it reads from; unread, both go together.

_SCOPE, _READ = "_spanbridge_scope", "_spanbridge_read"


def keep(scope: Scope[Any], operation: str, result: Any) -> bool:
    """Keep the span open until the application has read what the call has answered; False if there is nothing to read.

    Args:
        scope: the call's.
        operation: such as `ConverseStream`.
        result: what the call returned.
    """
    source = result.get(_READ_FROM.get(operation)) if isinstance(result, dict) else None
    if not hasattr(source, "__dict__"):  # a stand-in of some test tool
        return False
    vars(source)[_SCOPE] = scope
    return True


def _kept(source: Any = None, *args: Any, **kwargs: Any) -> Scope[Any] | None:
    """Find the scope of the call that answered with `source`, if it is still open."""
    scope: Scope[Any] | None = getattr(source, _SCOPE, None)
    return None if scope is None or scope.ended else scope


def _tell(span: Span, event: Any) -> None:
    """Add what an event of a stream tells, if it does; events of Converse are plain, those of models JSON."""
    if "chunk" in event:
        text = event["chunk"].get("bytes", b"")
        event = _document(text) if _TELLING.search(text) else {}
    elif "metadata" not in event and "messageStop" not in event:
        return
    if found := dict(values(ANSWERED, event)):
        span.set_attributes(found)


def events(wrapped: Wrapped, setup: Setup) -> Wrapped:
    """The advice for `__iter__` and `__aiter__` of event streams: the span ends with the loop over them."""
    tell = guarded(_tell, f"{setup.integration}: events of a model")

    def noted(scope: Scope[Any], stream: Iterator[Any]) -> Iterator[Any]:
        try:
            for event in stream:
                tell(scope.span, event)
                yield event
        except Exception as error:
            scope.fail(error)
            raise
        finally:
            scope.end()

    async def noted_async(scope: Scope[Any], stream: AsyncIterator[Any]) -> AsyncIterator[Any]:
        try:
            async for event in stream:
                tell(scope.span, event)
                yield event
        except Exception as error:
            scope.fail(error)
            raise
        finally:
            scope.end()

    @wraps(wrapped)
    def iterate(*args: Any, **kwargs: Any) -> Any:
        stream, scope = wrapped(*args, **kwargs), _kept(*args)
        if scope is None:
            return stream
        return noted_async(scope, stream) if hasattr(stream, "__anext__") else noted(scope, stream)

    return iterate


def closing(wrapped: Wrapped, setup: Setup) -> Wrapped:
    """The advice for `close` of event streams: the application has read enough."""

    def before(*args: Any) -> None:
        if (scope := _kept(*args)) is not None:
            scope.end()

    return observed(wrapped, setup, before=before)


def reading(wrapped: Wrapped, setup: Setup) -> Wrapped:
    """The advice for `read(amt=None)` of bodies, plain or `async`: the span ends once all has been read."""

    def read(scope: Scope[Any], chunk: bytes, body: Any, amt: int | None = None) -> None:
        own = vars(body)
        # Enough of it to see that it is too large.
        text = own[_READ] = (own.get(_READ, b"") + chunk)[: _LARGEST_DOCUMENT + 1]
        if amt is None or amt < 0 or (amt > 0 and not chunk):
            del own[_READ]
            try:
                scope.span.set_attributes(dict(values(ANSWERED, _document(text))))
            finally:
                scope.end()

    note = guarded(read, f"{setup.integration}: the answer of a model")

    if iscoroutinefunction(wrapped):

        @wraps(wrapped)
        async def read_async(*args: Any, **kwargs: Any) -> Any:
            scope = _kept(*args)
            if scope is None:
                return await wrapped(*args, **kwargs)
            try:
                chunk = await wrapped(*args, **kwargs)
            except BaseException as error:
                scope.fail(error)
                raise
            note(scope, chunk, *args, **kwargs)
            return chunk

        return read_async

    @wraps(wrapped)
    def read_plain(*args: Any, **kwargs: Any) -> Any:
        scope = _kept(*args)
        if scope is None:
            return wrapped(*args, **kwargs)
        try:
            chunk = wrapped(*args, **kwargs)
        except BaseException as error:
            scope.fail(error)
            raise
        note(scope, chunk, *args, **kwargs)
        return chunk

    return read_plain
