"""Models of Bedrock behind botocore, whose answers and event streams are made here, byte by byte."""

from __future__ import annotations

import gc
import io
import json
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

pytest.importorskip("botocore.session")

import botocore.session
from botocore.awsrequest import AWSResponse
from botocore.exceptions import EventStreamError, ReadTimeoutError
from urllib3.exceptions import ReadTimeoutError as RawTimeout

from spanbridge.instrumentors.botocore import BotocoreInstrumentor
from spanbridge.testing import Spans
from tests.eventstream import chunks, converse, fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from spanbridge.testing import Payload

SESSION = botocore.session.Session()
JSON = {"content-type": "application/json"}
STREAM = {"content-type": "application/vnd.amazon.eventstream"}


class Raw(io.BytesIO):
    """A body on the wire: `stream` hands it out piece by piece."""

    def __init__(self, *pieces: bytes, error: Exception | None = None) -> None:
        super().__init__(b"".join(pieces))
        self.pieces, self.error = pieces, error

    def read(self, amount: int | None = None) -> bytes:
        if self.error is not None:
            raise self.error
        return super().read(amount)

    def stream(self, *args: Any, **kwargs: Any) -> Iterator[bytes]:
        yield from self.pieces


@pytest.fixture
def client(spans: Spans) -> Iterator[Any]:
    BotocoreInstrumentor().instrument()
    yield SESSION.create_client(
        "bedrock-runtime", "eu-west-1", aws_access_key_id="AKIAEXAMPLE", aws_secret_access_key="x"
    )
    BotocoreInstrumentor().uninstrument()


def answers(client: Any, raw: Raw, headers: dict[str, str]) -> None:
    """Let the next calls be answered with `raw`."""
    client.meta.events.register(
        "before-send.bedrock-runtime", lambda request, **kwargs: AWSResponse(request.url, 200, headers, raw)
    )


def invoke(client: Any, model: str = "a.model", **headers: str) -> Callable[[Any], Any]:
    """Make the function that asks a model and gets a document as the whole answer."""

    def ask(document: Any) -> Any:
        answers(client, Raw(json.dumps(document).encode()), JSON | headers)
        return client.invoke_model(modelId=model, body=json.dumps({"prompt": "hunter2"}))["body"]

    return ask


def told(span: dict[str, Any]) -> dict[str, Any]:
    """What a span says of an answer, in short."""
    found = {key: value for key, value in span["attributes"].items() if key.startswith(("gen_ai.usage", "gen_ai.resp"))}
    return {key.removeprefix("gen_ai.usage.").removeprefix("gen_ai.response."): value for key, value in found.items()}


def used(tokens_in: int, tokens_out: int, *reasons: str) -> dict[str, Any]:
    return {"input_tokens": tokens_in, "output_tokens": tokens_out, "finish_reasons": reasons}


@pytest.mark.parametrize(
    ("params", "name", "asked"),
    [
        (
            {"messages": [{"role": "user", "content": [{"text": "hunter2"}]}], "inferenceConfig": {"maxTokens": 9}},
            "chat amazon.nova",
            {"max_tokens": 9},
        ),
        ({"body": json.dumps({"inputText": "hunter2"})}, "text_completion amazon.nova", {}),
        (
            {"body": json.dumps({"messages": ["hunter2"], "p": 0.5, "stop": ["."], "max_gen_len": 9}).encode()},
            "chat amazon.nova",
            {"top_p": 0.5, "stop_sequences": (".",), "max_tokens": 9},
        ),
        (
            {"body": json.dumps({"textGenerationConfig": {"temperature": 0, "maxTokenCount": 9}})},
            "text_completion amazon.nova",
            {"temperature": 0, "max_tokens": 9},
        ),
        ({"body": "no JSON"}, "text_completion amazon.nova", {}),
    ],
)
def test_a_model_is_asked(
    client: Any, spans: Spans, payload: Payload, params: dict[str, Any], name: str, asked: dict[str, Any]
) -> None:
    """The conversation stays out of the span."""
    usage = {"inputTokens": 3, "outputTokens": 4, "totalTokens": 7}
    answers(client, Raw(json.dumps({"stopReason": "stop", "usage": usage}).encode()), JSON)
    if "body" in params:
        client.invoke_model(modelId="amazon.nova", **params)["body"].read()
    else:
        client.converse(modelId="amazon.nova", **params)
    (span,) = spans
    assert (span["name"], span["kind"]) == (name, "CLIENT")
    assert {key: value for key, value in span["attributes"].items() if key.startswith("gen_ai")} == {
        "gen_ai.provider.name": "aws.bedrock",
        "gen_ai.operation.name": name.partition(" ")[0],
        "gen_ai.request.model": "amazon.nova",
        **{f"gen_ai.request.{key}": value for key, value in asked.items()},
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 4,
    }
    assert "hunter2" not in str(span)
    ((mapped,),) = payload()
    assert mapped["name"] == "bedrock-runtime.command"


ANSWERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "amazon.nova": ({"stopReason": "end_turn", "usage": {"inputTokens": 3, "outputTokens": 4}}, used(3, 4, "end_turn")),
    "amazon.titan-text": (
        {
            "inputTextTokenCount": 3,
            "results": [
                {"tokenCount": 4, "outputText": "hunter2", "completionReason": "FINISH"},
                {"tokenCount": 5, "outputText": "hunter2", "completionReason": "LENGTH"},
            ],
        },
        used(3, 9, "FINISH", "LENGTH"),
    ),
    "amazon.titan-embed-text": ({"embedding": [0.1], "inputTextTokenCount": 3}, {"input_tokens": 3}),
    "anthropic.claude": (
        {
            "content": [{"type": "text", "text": "hunter2"}],
            "stop_reason": "end_turn",
            "usage": {
                "input_tokens": 3,
                "output_tokens": 4,
                "cache_read_input_tokens": 5,
                "cache_creation_input_tokens": 6,
            },
        },
        {**used(3, 4, "end_turn"), "cache_read.input_tokens": 5, "cache_creation.input_tokens": 6},
    ),
    "meta.llama": (
        {"generation": "hunter2", "prompt_token_count": 3, "generation_token_count": 4, "stop_reason": "length"},
        used(3, 4, "length"),
    ),
    "mistral.mistral-7b": (
        {"outputs": [{"text": "hunter2", "stop_reason": "stop"}]},
        {"finish_reasons": ("stop",)},
    ),
    "mistral.pixtral": (
        {"choices": [{"finish_reason": "stop"}], "usage": {"prompt_tokens": 3, "completion_tokens": 4}},
        used(3, 4, "stop"),
    ),
    "cohere.command-r": ({"text": "hunter2", "finish_reason": "COMPLETE"}, {"finish_reasons": ("COMPLETE",)}),
    "cohere.command": (
        {"generations": [{"text": "hunter2", "finish_reason": "COMPLETE"}]},
        {"finish_reasons": ("COMPLETE",)},
    ),
    "of.somebody-else": ({"results": "none", "usage": 7, "stop_reason": {"a": 1}, "choices": [1]}, {}),
}


@pytest.mark.parametrize("model", ANSWERS)
def test_a_whole_answer(client: Any, spans: Spans, payload: Payload, model: str) -> None:
    """The span ends when it has been read."""
    document, expected = ANSWERS[model]
    body = invoke(client, model)(document)
    assert len(spans) == 0
    assert json.load(body) == document
    (span,) = spans
    assert (told(span), span["status"]) == (expected, "UNSET")
    assert (span["attributes"]["http.response.status_code"], span["attributes"]["gen_ai.request.model"]) == (200, model)
    assert "hunter2" not in str(span)


def test_what_bedrock_itself_has_counted(client: Any, spans: Spans) -> None:
    counted = {"x-amzn-bedrock-input-token-count": "7", "x-amzn-bedrock-output-token-count": "8"}
    invoke(client, **counted)({"outputs": [{"stop_reason": "stop"}]}).read()
    assert told(spans[0]) == used(7, 8, "stop")


@pytest.mark.parametrize(
    "read",
    [
        lambda body: b"".join(body.iter_chunks(5)),
        lambda body: b"".join(body.iter_lines(chunk_size=7, keepends=True)),
        lambda body: b"".join(iter(lambda: body.read(9), b"")),
        lambda body: body.read(amt=None),
    ],
)
def test_ways_to_read(client: Any, spans: Spans, read: Any) -> None:
    document, expected = ANSWERS["meta.llama"]
    assert json.loads(read(invoke(client)(document))) == document
    assert told(spans[0]) == expected


def test_an_answer_that_nobody_reads(client: Any, spans: Spans) -> None:
    body = invoke(client)(ANSWERS["meta.llama"][0])
    body.read(3)
    assert len(spans) == 0
    del body
    assert [(span["status"], told(span)) for span in spans] == [("UNSET", {})]


def test_an_answer_that_breaks_off(client: Any, spans: Spans) -> None:
    answers(client, Raw(error=RawTimeout(None, "/", "of the network")), JSON)
    body = client.invoke_model(modelId="a.model", body="{}")["body"]
    with pytest.raises(ReadTimeoutError):
        body.read()
    (span,) = spans
    assert (span["status"], span["attributes"]["error.type"]) == ("ERROR", "ReadTimeoutError")


def test_an_answer_that_is_too_large_to_look_into(client: Any, spans: Spans) -> None:
    document = {"stop_reason": "stop", "image": "x" * (256 << 10)}
    assert json.loads(b"".join(invoke(client)(document).iter_chunks(1 << 16))) == document
    assert told(spans[0]) == {}


def test_an_answer_without_a_body(client: Any, spans: Spans) -> None:
    """As test tools make them."""
    client._endpoint.make_request = lambda *_: (AWSResponse("", 200, {}, None), {"body": b"{}"})
    assert client.invoke_model(modelId="a.model", body="{}") == {"body": b"{}"}
    assert len(spans) == 1


CONVERSATION = converse(
    {"messageStart": {"role": "assistant"}},
    {"contentBlockDelta": {"delta": {"text": "hunter2"}, "contentBlockIndex": 0}},
    {"contentBlockStop": {"contentBlockIndex": 0}},
    {"messageStop": {"stopReason": "end_turn"}},
    {"metadata": {"usage": {"inputTokens": 3, "outputTokens": 4, "totalTokens": 7}, "metrics": {"latencyMs": 5}}},
)
COUNTED = {"amazon-bedrock-invocationMetrics": {"inputTokenCount": 3, "outputTokenCount": 4, "invocationLatency": 5}}
EVENTS: dict[str, list[dict[str, Any]]] = {
    "amazon.nova": [
        {"contentBlockDelta": {"delta": {"text": "hunter2"}}},
        {"messageStop": {"stopReason": "end_turn"}},
        {"metadata": {"usage": {"inputTokens": 3, "outputTokens": 4}}},
    ],
    "amazon.titan-text": [
        {"outputText": "hunter2", "completionReason": None, "totalOutputTextTokenCount": None},
        {"outputText": "hunter2", "completionReason": "end_turn", "inputTextTokenCount": 3} | COUNTED,
    ],
    "anthropic.claude": [
        {"type": "message_start", "message": {"stop_reason": None, "usage": {"input_tokens": 3, "output_tokens": 1}}},
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "hunter2"}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
        {"type": "message_stop"} | COUNTED,
    ],
    "meta.llama": [
        {"generation": "hunter2", "prompt_token_count": 3, "generation_token_count": 1, "stop_reason": None},
        {"generation": "", "prompt_token_count": None, "generation_token_count": 4, "stop_reason": "end_turn"},
    ],
    "mistral.mistral": [
        {"outputs": [{"text": "hunter2", "stop_reason": None}]},
        {"outputs": [{"text": "", "stop_reason": "end_turn"}]} | COUNTED,
    ],
    "cohere.command": [
        {"text": "hunter2", "is_finished": False},
        {"is_finished": True, "finish_reason": "end_turn"} | COUNTED,
    ],
}


def conversation(client: Any, *pieces: bytes) -> Any:
    answers(client, Raw(*pieces), STREAM)
    return client.converse_stream(modelId="a.model", messages=[{"role": "user", "content": [{"text": "hunter2"}]}])


def test_a_conversation(client: Any, spans: Spans, payload: Payload) -> None:
    """The span ends with the stream, and is not current meanwhile."""
    with trace.get_tracer("application").start_as_current_span("request") as request:
        stream = conversation(client, *CONVERSATION)["stream"]
        kinds = []
        for event in stream:
            assert trace.get_current_span() is request
            assert len(spans) == 0
            kinds += event
        assert kinds == ["messageStart", "contentBlockDelta", "contentBlockStop", "messageStop", "metadata"]
        (span,) = spans
    assert (span["name"], span["parent"], span["status"]) == ("chat a.model", "request", "UNSET")
    assert told(span) == used(3, 4, "end_turn")
    assert "hunter2" not in str(span)


@pytest.mark.parametrize("model", EVENTS)
def test_a_stream_of_a_models_own(client: Any, spans: Spans, payload: Payload, model: str) -> None:
    answers(client, Raw(*chunks(EVENTS[model])), STREAM)
    stream = client.invoke_model_with_response_stream(modelId=model, body="{}")["body"]
    assert [json.loads(event["chunk"]["bytes"]) for event in stream] == EVENTS[model]
    (span,) = spans
    assert told(span) == used(3, 4, "end_turn")
    assert "hunter2" not in str(span)


def test_events_of_another_kind(client: Any, spans: Spans) -> None:
    answers(client, Raw(*chunks(["token_count", [1], {"usage": "x"}])), STREAM)
    stream = client.invoke_model_with_response_stream(modelId="a.model", body="{}")["body"]
    assert len(list(stream)) == 3
    assert [told(span) for span in spans] == [{}]


def test_a_stream_that_breaks_off(client: Any, spans: Spans, payload: Payload) -> None:
    stream = conversation(client, CONVERSATION[0], fault("throttlingException", "not so fast"))["stream"]
    with pytest.raises(EventStreamError) as raised:
        list(stream)
    (span,) = spans
    assert (span["status"], span["attributes"]["error.type"]) == ("ERROR", type(raised.value).__name__)


def test_a_loop_that_is_left(client: Any, spans: Spans) -> None:
    """The application has read enough; should it come back, it gets the rest."""
    stream = conversation(client, *CONVERSATION)["stream"]
    for event in stream:
        if "messageStop" in event:
            break
    assert [(span["status"], told(span)) for span in spans] == [("UNSET", {"finish_reasons": ("end_turn",)})]
    assert [kind for event in stream for kind in event] == ["metadata"]
    assert len(spans) == 1


def test_a_stream_that_nobody_reads(client: Any, spans: Spans) -> None:
    stream = conversation(client, *CONVERSATION)["stream"]
    assert len(spans) == 0
    del stream
    gc.collect()  # botocore's streams are held by themselves
    assert len(spans) == 1


def test_a_stream_that_is_closed(client: Any, spans: Spans) -> None:
    stream = conversation(client, *CONVERSATION)["stream"]
    events = iter(stream)
    next(events)
    assert len(spans) == 0
    stream.close()
    assert [span["status"] for span in spans] == ["UNSET"]
    stream.close()
    assert len(spans) == 1


def test_taken_back_meanwhile(client: Any, spans: Spans) -> None:
    stream = conversation(client, *CONVERSATION)["stream"]
    BotocoreInstrumentor().uninstrument()
    assert len(list(stream)) == len(CONVERSATION)
    del stream
    gc.collect()
    assert len(spans) == 1


def test_unsampled(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is looked into."""
    BotocoreInstrumentor().uninstrument()
    unsampled = Spans(sampler=ALWAYS_OFF)
    BotocoreInstrumentor().instrument(tracer_provider=unsampled.provider)
    response = conversation(client, *CONVERSATION)
    assert len(list(response["stream"])) == len(CONVERSATION)
    assert len(unsampled) == 0


def test_hooks_see_the_answer_before_it_is_read(client: Any, spans: Spans) -> None:
    seen: list[Any] = []
    BotocoreInstrumentor().uninstrument()
    BotocoreInstrumentor().instrument(response_hook=lambda span, service, operation, result: seen.append(result))
    response = conversation(client, *CONVERSATION)
    assert seen == [response]
    assert len(list(response["stream"])) == len(CONVERSATION)
    assert len(seen) == 1
