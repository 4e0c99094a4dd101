"""aiobotocore against moto's server, from 0.12 to the newest; what it shares with botocore is tested there."""

from __future__ import annotations

import asyncio
import json
import urllib.request
import warnings
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace

with warnings.catch_warnings():  # old versions, on today's Python
    warnings.simplefilter("ignore", DeprecationWarning)
    session = pytest.importorskip("aiobotocore.session")

from botocore.exceptions import ClientError, EventStreamError

from spanbridge.instrumentors.botocore import AiobotocoreInstrumentor, BotocoreInstrumentor
from tests.eventstream import converse, fault

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from spanbridge.testing import Payload, Spans
    from tests.servers.moto import Aws

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # old versions keep their connections
]
SESSION = session.get_session()


@pytest.fixture
def run(moto_server: Aws, spans: Spans) -> Iterator[Callable[..., Any]]:
    """Run a coroutine function with a client of a service."""
    reset = urllib.request.Request(f"{moto_server.url}/moto-api/reset", method="POST")
    urllib.request.urlopen(reset).close()

    def with_client(service: str, work: Callable[[Any], Awaitable[Any]]) -> Any:
        async def main() -> Any:
            async with SESSION.create_client(service, **moto_server.client) as client:
                return await work(client)

        return asyncio.run(main())

    AiobotocoreInstrumentor().instrument()
    BotocoreInstrumentor().instrument()
    yield with_client
    BotocoreInstrumentor().uninstrument()
    AiobotocoreInstrumentor().uninstrument()


def test_calls(run: Any, spans: Spans, payload: Payload) -> None:
    async def work(client: Any) -> None:
        with trace.get_tracer("application").start_as_current_span("job") as job:
            await asyncio.gather(*(client.create_queue(QueueName=name) for name in "ab"))
            assert trace.get_current_span() is job

    run("sqs", work)
    *calls, _ = spans
    assert {span["scope"] for span in calls} == {"spanbridge.instrumentors.aiobotocore"}
    assert [(span["name"], span["kind"], span["parent"]) for span in calls] == [
        ("SQS.CreateQueue", "CLIENT", "job")
    ] * 2
    assert {span["attributes"]["messaging.destination.name"] for span in calls} == {"a", "b"}
    mapped = next(row for chunk in payload() for row in chunk if row["name"] == "sqs.command")
    assert (mapped["resource"], mapped["meta"]["aws.agent"]) == ("sqs.createqueue", "aiobotocore")


def test_the_receiver_continues_the_trace(run: Any, spans: Spans) -> None:
    async def work(client: Any) -> Any:
        url = (await client.create_queue(QueueName="jobs"))["QueueUrl"]
        await client.send_message(QueueUrl=url, MessageBody="hello")
        return await client.receive_message(QueueUrl=url)

    assert run("sqs", work)["Messages"][0]["Body"] == "hello"
    _, sent, got = spans
    assert (got["name"], got["parent_id"]) == ("SQS.ReceiveMessage", sent["span_id"])


def test_the_service_says_no(run: Any, spans: Spans) -> None:
    async def work(client: Any) -> None:
        with pytest.raises(ClientError):
            await client.get_object(Bucket="nowhere", Key="k")

    run("s3", work)
    assert [(span["status"], span["attributes"]["http.response.status_code"]) for span in spans] == [("ERROR", 404)]


def test_a_body_is_read_after_the_call(run: Any, spans: Spans) -> None:
    async def work(client: Any) -> bytes:
        await client.create_bucket(Bucket="pictures", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
        await client.put_object(Bucket="pictures", Key="k", Body=b"x" * 100_000)
        answer = await client.get_object(Bucket="pictures", Key="k")
        async with answer["Body"] as stream:
            return await stream.read()

    assert len(run("s3", work)) == 100_000
    assert [span["name"] for span in spans] == ["S3.CreateBucket", "S3.PutObject", "S3.GetObject"]


def test_a_call_that_is_cancelled(run: Any, spans: Spans) -> None:
    async def work(client: Any) -> None:
        url = (await client.create_queue(QueueName="jobs"))["QueueUrl"]
        polling = asyncio.ensure_future(client.receive_message(QueueUrl=url, WaitTimeSeconds=20))
        await asyncio.sleep(0.1)
        polling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await polling

    run("sqs", work)
    assert [(span["name"], span["status"]) for span in spans] == [
        ("SQS.CreateQueue", "UNSET"),
        ("SQS.ReceiveMessage", "UNSET"),
    ]


class Answer:
    """What aiobotocore reads of a response, with a body in pieces."""

    status_code, url = 200, "http://aws.example"

    def __init__(self, content_type: str, *pieces: bytes) -> None:
        self.headers = {"content-type": content_type}
        self.raw = self
        self.content = self
        self.pieces = list(pieces)

    async def read(self, amount: int) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""

    async def iter_chunks(self) -> Any:
        for piece in self.pieces:
            yield piece, True

    def close(self) -> None: ...


@pytest.fixture
def ask(spans: Spans) -> Iterator[Callable[..., Any]]:
    """Run a coroutine function with a client of Bedrock's, which is answered as the test says."""
    if "bedrock-runtime" not in SESSION.get_available_services():
        pytest.skip("this version has no such service yet")

    def with_client(answer: Answer, work: Callable[[Any], Awaitable[Any]]) -> Any:
        async def respond(request: Any, **kwargs: Any) -> Any:
            return answer

        async def main() -> Any:
            keys = {"aws_access_key_id": "AKIAEXAMPLE", "aws_secret_access_key": "x"}
            async with SESSION.create_client("bedrock-runtime", "eu-west-1", **keys) as client:
                client.meta.events.register("before-send.bedrock-runtime", respond)
                return await work(client)

        return asyncio.run(main())

    AiobotocoreInstrumentor().instrument()
    yield with_client
    AiobotocoreInstrumentor().uninstrument()


USED = {"gen_ai.usage.input_tokens": 3, "gen_ai.usage.output_tokens": 4, "gen_ai.response.finish_reasons": ("length",)}


def test_a_models_whole_answer(ask: Any, spans: Spans, payload: Payload) -> None:
    document = {"generation": "hunter2", "prompt_token_count": 3, "generation_token_count": 4, "stop_reason": "length"}
    text = json.dumps(document).encode()

    async def work(client: Any) -> None:
        body = (await client.invoke_model(modelId="meta.llama", body="{}"))["body"]
        assert len(spans) == 0
        assert b"".join([chunk async for chunk in body.iter_chunks(9)]) == text
        assert len(spans) == 1

    ask(Answer("application/json", text[:9], text[9:]), work)
    assert spans[0]["attributes"].items() >= USED.items()


def test_a_models_stream(ask: Any, spans: Spans, payload: Payload) -> None:
    events = (
        {"contentBlockDelta": {"delta": {"text": "hunter2"}, "contentBlockIndex": 0}},
        {"messageStop": {"stopReason": "length"}},
        {"metadata": {"usage": {"inputTokens": 3, "outputTokens": 4, "totalTokens": 7}, "metrics": {"latencyMs": 5}}},
    )

    async def work(client: Any) -> None:
        stream = (await client.converse_stream(modelId="a.model", messages=[]))["stream"]
        assert [kind async for event in stream for kind in event] == [kind for event in events for kind in event]
        assert len(spans) == 1

    ask(Answer("application/vnd.amazon.eventstream", *converse(*events)), work)
    assert spans[0]["attributes"].items() >= USED.items()
    assert "hunter2" not in str(spans[0])


def test_a_models_stream_that_breaks_off(ask: Any, spans: Spans) -> None:
    async def work(client: Any) -> None:
        stream = (await client.converse_stream(modelId="a.model", messages=[]))["stream"]
        with pytest.raises(EventStreamError):
            [event async for event in stream]

    ask(Answer("application/vnd.amazon.eventstream", fault("throttlingException", "not so fast")), work)
    assert [span["status"] for span in spans] == ["ERROR"]
