from __future__ import annotations

import io
import json
from functools import lru_cache
from typing import Any

from tests.contract.probes import Probe

QUEUE = "http://aws.example/123456789012/jobs"


@lru_cache(maxsize=1)
def session() -> Any:
    import botocore.session

    return botocore.session.Session()


class Raw(io.BytesIO):
    def stream(self, *args: Any, **kwargs: Any) -> Any:
        yield self.read()


class Botocore(Probe):
    def open(self, server: Any) -> Any:
        from botocore.awsrequest import AWSResponse

        client = session().create_client(
            "sqs", "eu-west-1", endpoint_url="http://aws.example", aws_access_key_id="x", aws_secret_access_key="x"
        )
        self.error: Exception | None = None

        def answer(request: Any, **kwargs: Any) -> Any:
            self.body = request.body
            if self.error is not None:
                raise self.error
            headers = {"content-type": "application/x-amz-json-1.0", "x-amzn-requestid": "r-1"}
            return AWSResponse(request.url, 200, headers, Raw(b'{"MessageId": "m-1"}'))

        client.meta.events.register("before-send.sqs", answer)
        return client

    def operate(self, client: Any) -> Any:
        attributes = {"kind": {"DataType": "String", "StringValue": "thumbnail"}}
        answer = client.send_message(QueueUrl=QUEUE, MessageBody="hello", MessageAttributes=attributes)
        return answer, attributes

    def fail(self, client: Any, error: Exception) -> None:
        self.error = error
        client.send_message(QueueUrl=QUEUE, MessageBody="hello")

    def sent(self, client: Any) -> Any:
        attributes = json.loads(self.body)["MessageAttributes"]
        return json.loads(attributes["_datadog"]["StringValue"])
