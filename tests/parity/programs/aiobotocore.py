# /// script
# dependencies = ["aiobotocore==3.10.0"]
# [tool.parity]
# servers = ["moto"]
# variables = { DD_TRACE_AIOBOTOCORE_ENABLED = "1", DD_AIOBOTOCORE_DISTRIBUTED_TRACING = "0" }  # ddtrace cannot
# [[tool.parity.differences]]
# reason = "a refusal tells its status"
# side = "spanbridge"
# pattern = "404 \\| ERROR"
# replacement = "- | ERROR"
# ///
"""aiobotocore against moto's server: calls one by one and at once, refusals, pages, and nobody there."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import ClientError, EndpointConnectionError, ParamValidationError

SESSION = get_session()
URL = f"http://127.0.0.1:{os.environ['MOTO_PORT']}"


def client(service: str, url: str = URL) -> Any:
    return SESSION.create_client(
        service,
        region_name="eu-west-1",
        endpoint_url=url,
        aws_access_key_id="AKIAEXAMPLE",
        aws_secret_access_key="x",
        config=AioConfig(retries={"max_attempts": 1}),
    )


async def main() -> None:
    async with client("s3") as s3:
        await s3.create_bucket(Bucket="pictures", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
        for key in "abc":
            await s3.put_object(Bucket="pictures", Key=key, Body=b"content")
        answer = await s3.get_object(Bucket="pictures", Key="a")
        async with answer["Body"] as body:
            print(await body.read())
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket="pictures", PaginationConfig={"PageSize": 2})
        print([len(page["Contents"]) async for page in pages])
        try:
            await s3.get_object(Bucket="pictures", Key="nothing")
        except ClientError as error:
            print(error.response["Error"]["Code"])
        try:
            await s3.get_object(Key="no bucket")
        except ParamValidationError as error:
            print(type(error).__name__)
    async with client("sqs") as sqs:
        queue = (await sqs.create_queue(QueueName="jobs"))["QueueUrl"]
        await sqs.send_message(QueueUrl=queue, MessageBody="x")
        print([message["Body"] for message in (await sqs.receive_message(QueueUrl=queue))["Messages"]])
        await sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=0)
    async with client("sns") as sns:
        topic = (await sns.create_topic(Name="news"))["TopicArn"]
        await sns.publish(TopicArn=topic, Message="x")
    async with client("dynamodb") as dynamodb:
        await dynamodb.create_table(
            TableName="users",
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        await dynamodb.put_item(TableName="users", Item={"id": {"S": "x"}})
        found = await asyncio.gather(*(dynamodb.get_item(TableName="users", Key={"id": {"S": "x"}}) for _ in range(2)))
        print([row["Item"]["id"] for row in found])
    async with client("sts", "http://127.0.0.1:1") as sts:
        try:
            await sts.get_caller_identity()
        except EndpointConnectionError as error:
            print(type(error).__name__)


asyncio.run(main())
