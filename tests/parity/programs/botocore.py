# /// script
# dependencies = ["botocore==1.44.8"]
# [[tool.parity.differences]]
# reason = "the answer of Step Functions has a status, too"
# side = "ddtrace"
# pattern = "(states\\.startexecution.*) \\| - \\| -$"
# replacement = "\\1 | 200 | -"
# ///
"""Calls of several services whose answers are made here: names, tags, failures, and messages that carry the context."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import botocore.session
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ClientError

SESSION = botocore.session.Session()
SESSION.set_credentials("id", "key")


def client(service: str, status: int = 200, **answer: Any) -> Any:
    made = SESSION.create_client(service, region_name="eu-west-1")
    answer["ResponseMetadata"] = {"RequestId": "7", "HTTPStatusCode": status, "RetryAttempts": 0}
    made._endpoint.make_request = lambda *_: (AWSResponse("", status, {}, None), answer)
    return made


URL = "https://sqs.eu-west-1.amazonaws.com/123456789012/jobs"
TOPIC = "arn:aws:sns:eu-west-1:123456789012:news"
sqs, sns, s3, dynamodb = client("sqs"), client("sns"), client("s3"), client("dynamodb")
sqs.send_message(QueueUrl=URL, MessageBody="x")
sqs.send_message_batch(QueueUrl=URL, Entries=[{"Id": "1", "MessageBody": "x"}])
sqs.delete_message(QueueUrl=URL, ReceiptHandle="x")
sns.publish(TopicArn=TOPIC, Message="x")
s3.list_buckets()
s3.get_object(Bucket="shop", Key="x")
dynamodb.get_item(TableName="users", Key={"id": {"S": "x"}})
client("kinesis").put_record(StreamName="clicks", Data=b'{"a": 1}', PartitionKey="x")
client("events").put_events(Entries=[{"Source": "x", "DetailType": "x", "Detail": "{}"}])
client("stepfunctions").start_execution(stateMachineArn="arn:aws:states:eu-west-1:1:stateMachine:m", input="{}")
client("lambda").invoke(FunctionName="resize", Payload=b"{}")
client("ec2").describe_instances()
with suppress(ClientError):
    client("s3", 404, Error={"Code": "NoSuchKey", "Message": "x"}).get_object(Bucket="shop", Key="x")
with suppress(ClientError):
    client("sqs", 500, Error={"Code": "Internal", "Message": "x"}).send_message(QueueUrl=URL, MessageBody="x")
