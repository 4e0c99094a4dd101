"""What spans of AWS calls say beyond the call itself: which parameters and results become which attributes, as tables.

Only names of things (queues, tables, buckets) and counts; no content, and no secret.
https://opentelemetry.io/docs/specs/semconv/cloud-providers/aws-sdk/
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from spanbridge.conventions import bedrock

if TYPE_CHECKING:
    from collections.abc import Callable

    from spanbridge.conventions.fields import Field


def _one(value: Any) -> list[Any]:
    return [value]


def _as_json(value: Any) -> str:
    return json.dumps(value, default=str)


def _all_as_json(value: Any) -> list[str]:
    return [_as_json(item) for item in (value if isinstance(value, list) else [value])]


def _last(separator: str) -> Callable[[Any], str]:
    return lambda value: str(value).rpartition(separator)[2]


def _first_id(entries: Any) -> Any:
    return entries[0].get("MessageId") if entries else None


def function_name(value: Any) -> str:
    """Cut the function's name out of what Lambda accepts: a name, a partial or a whole ARN, each with a version.

    https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html
    """
    parts = str(value).rpartition("function:")[2].split(":")
    return parts[1] if parts[0].isdecimal() and len(parts) > 1 else parts[0]


def _secret_arn(value: Any) -> str | None:
    """The parameter may be a name, which some applications take for a secret as well."""
    return value if str(value).startswith("arn:aws:secretsmanager:") else None


_STATES: tuple[Field, ...] = (
    ("aws.step_functions.activity.arn", "activityArn", None),
    ("aws.step_functions.state_machine.arn", "stateMachineArn", None),
)
_MESSAGE_IDS: tuple[Field, ...] = (
    ("messaging.message.id", "MessageId", None),
    ("messaging.message.id", "Successful", _first_id),
    ("messaging.message.id", "Messages", _first_id),
)
_TABLES: tuple[Field, ...] = (
    ("aws.dynamodb.table_names", "TableName", _one),
    ("aws.dynamodb.table_names", "RequestItems", list),
    ("aws.dynamodb.attribute_definitions", "AttributeDefinitions", _all_as_json),
    ("aws.dynamodb.attributes_to_get", "AttributesToGet", None),
    ("aws.dynamodb.consistent_read", "ConsistentRead", None),
    ("aws.dynamodb.exclusive_start_table", "ExclusiveStartTableName", None),
    ("aws.dynamodb.global_secondary_index_updates", "GlobalSecondaryIndexUpdates", _all_as_json),
    ("aws.dynamodb.global_secondary_indexes", "GlobalSecondaryIndexes", _all_as_json),
    ("aws.dynamodb.index_name", "IndexName", None),
    ("aws.dynamodb.limit", "Limit", None),
    ("aws.dynamodb.local_secondary_indexes", "LocalSecondaryIndexes", _all_as_json),
    ("aws.dynamodb.projection", "ProjectionExpression", None),
    ("aws.dynamodb.provisioned_read_capacity", "ProvisionedThroughput.ReadCapacityUnits", None),
    ("aws.dynamodb.provisioned_write_capacity", "ProvisionedThroughput.WriteCapacityUnits", None),
    ("aws.dynamodb.scan_forward", "ScanIndexForward", None),
    ("aws.dynamodb.segment", "Segment", None),
    ("aws.dynamodb.select", "Select", None),
    ("aws.dynamodb.total_segments", "TotalSegments", None),
)

REQUEST: dict[str, tuple[Field, ...]] = {
    "dynamodb": _TABLES,
    "events": (("aws.events.rule.name", "Name", None),),
    "kinesis": (
        ("aws.kinesis.stream_name", "StreamARN", _last("/")),
        ("aws.kinesis.stream_name", "StreamName", None),
    ),
    "lambda": (("faas.invoked_name", "FunctionName", function_name),),
    "s3": (("aws.s3.bucket", "Bucket", None),),
    "secretsmanager": (("aws.secretsmanager.secret.arn", "SecretId", _secret_arn),),
    "sns": (
        ("aws.sns.topic.arn", "TargetArn", None),
        ("aws.sns.topic.arn", "TopicArn", None),
        ("messaging.destination.name", "TargetArn", _last(":")),
        ("messaging.destination.name", "TopicArn", _last(":")),
    ),
    "sqs": (
        ("messaging.destination.name", "QueueName", None),
        ("messaging.destination.name", "QueueUrl", _last("/")),
        ("aws.sqs.queue.url", "QueueUrl", None),
    ),
    "stepfunctions": _STATES,
}
RESPONSE: dict[str, tuple[Field, ...]] = {
    "bedrock-runtime": bedrock.ANSWERED,
    "dynamodb": (
        ("aws.dynamodb.consumed_capacity", "ConsumedCapacity", _all_as_json),
        ("aws.dynamodb.item_collection_metrics", "ItemCollectionMetrics", _as_json),
        ("aws.dynamodb.table_count", "TableNames", len),
        ("aws.dynamodb.count", "Count", None),
        ("aws.dynamodb.scanned_count", "ScannedCount", None),
    ),
    "secretsmanager": (("aws.secretsmanager.secret.arn", "ARN", None),),
    "sns": (("aws.sns.topic.arn", "TopicArn", None), *_MESSAGE_IDS),
    "sqs": _MESSAGE_IDS,
    "stepfunctions": _STATES,
}
# What all calls of a service, or one operation, have in common.
CONSTANT: dict[str, dict[str, Any]] = {
    "bedrock-runtime": {"gen_ai.provider.name": "aws.bedrock"},
    "dynamodb": {"db.system.name": "aws.dynamodb"},
    "lambda": {"faas.invoked_provider": "aws"},
    "sns": {"messaging.system": "aws.sns"},
    "sqs": {"messaging.system": "aws_sqs"},
}

# contrib's own ways, for `contrib` mode.
CONTRIB_REQUEST: dict[str, tuple[Field, ...]] = {
    "dynamodb": _TABLES,
    "secretsmanager": REQUEST["secretsmanager"],
    "sns": (("aws.sns.topic.arn", "TopicArn", None),),
    "sqs": (
        ("aws.queue_url", "QueueUrl", None),
        ("messaging.system", "QueueUrl", lambda url: "aws.sqs"),
        ("messaging.url", "QueueUrl", None),
        ("messaging.destination", "QueueUrl", _last("/")),
    ),
    "stepfunctions": _STATES,
}
CONTRIB_RESPONSE: dict[str, tuple[Field, ...]] = RESPONSE | {"sns": RESPONSE["sns"][:1]}
CONTRIB_CONSTANT: dict[str, dict[str, Any]] = {
    "bedrock-runtime": {"gen_ai.system": "aws.bedrock"},
    "dynamodb": {"db.system": "dynamodb"},
    "sns": {"messaging.system": "aws.sns"},
}
