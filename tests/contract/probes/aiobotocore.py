from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.contract.probes import Probe
from tests.contract.probes.botocore import QUEUE


class Aiobotocore(Probe):
    outlives = True

    def open(self, server: Any) -> Any:
        from aiobotocore.session import get_session

        self.loop = asyncio.new_event_loop()
        client = get_session().create_client(
            "sqs", "eu-west-1", endpoint_url="http://aws.example", aws_access_key_id="x", aws_secret_access_key="x"
        )
        entered = self.loop.run_until_complete(client.__aenter__())
        self.error: Exception | None = None

        async def answer(request: Any, **kwargs: Any) -> Any:
            self.body = request.body
            if self.error is not None:
                raise self.error
            return Answer(request.url)

        entered.meta.events.register("before-send.sqs", answer)
        return entered

    def close(self, client: Any) -> None:
        self.loop.run_until_complete(client.__aexit__(None, None, None))
        self.loop.close()

    def operate(self, client: Any) -> Any:
        return self.loop.run_until_complete(client.send_message(QueueUrl=QUEUE, MessageBody="hello"))

    def fail(self, client: Any, error: Exception) -> None:
        self.error = error
        self.operate(client)

    def sent(self, client: Any) -> Any:
        attributes = json.loads(self.body)["MessageAttributes"]
        return json.loads(attributes["_datadog"]["StringValue"])


class Answer:
    """What aiobotocore reads of a response."""

    status_code = 200
    raw = None

    def __init__(self, url: str) -> None:
        self.url = url
        self.headers = {"content-type": "application/x-amz-json-1.0", "x-amzn-requestid": "r-1"}

    @property
    def content(self) -> Any:
        async def read() -> bytes:
            return b'{"MessageId": "m-1"}'

        return read()
