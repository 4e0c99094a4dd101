"""botocore against moto's server, from 1.13.45 to the newest: attributes, failures, and contexts that come through."""

from __future__ import annotations

import base64
import json
import urllib.request
import warnings
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.utils import suppress_http_instrumentation
from opentelemetry.propagate import extract

with warnings.catch_warnings():  # old versions, on today's Python
    warnings.simplefilter("ignore", DeprecationWarning)
    pytest.importorskip("botocore.session")

import botocore.session
from botocore.exceptions import ClientError, EndpointConnectionError, ParamValidationError

from spanbridge.core.options import load_vendor_settings
from spanbridge.instrumentors.botocore import BotocoreInstrumentor
from spanbridge.instrumentors.httplib import HttplibInstrumentor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spanbridge.testing import Payload, Spans
    from tests.servers.moto import Aws

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),  # old versions keep their connections
]
ACCOUNT = "123456789012"
SESSION = botocore.session.Session()  # remembers the services' models, which take long to read


class Clients:
    """Clients of the stand-in, made on demand."""

    def __init__(self, server: Aws) -> None:
        self.server = server

    def __call__(self, service: str, **options: Any) -> Any:
        return SESSION.create_client(service, **{**self.server.client, **options})


@pytest.fixture
def aws(moto_server: Aws, spans: Spans) -> Iterator[Clients]:
    reset = urllib.request.Request(f"{moto_server.url}/moto-api/reset", method="POST")
    urllib.request.urlopen(reset).close()
    clients = Clients(moto_server)
    BotocoreInstrumentor().instrument()
    HttplibInstrumentor().instrument()
    yield clients
    HttplibInstrumentor().uninstrument()
    BotocoreInstrumentor().uninstrument()


@pytest.fixture
def queue(aws: Clients, spans: Spans) -> tuple[Any, str]:
    client = aws("sqs")
    url = client.create_queue(QueueName="jobs")["QueueUrl"]
    spans.clear()
    return client, url


def attributes_of(spans: Spans, *prefixes: str) -> dict[str, Any]:
    return {key: value for key, value in spans[-1]["attributes"].items() if key.startswith(prefixes)}


def test_a_call(aws: Clients, spans: Spans, payload: Payload) -> None:
    location = {"LocationConstraint": "eu-west-1"}
    answer = aws("s3").create_bucket(Bucket="pictures", CreateBucketConfiguration=location)
    (span,) = spans
    assert (span["name"], span["kind"], span["status"]) == ("S3.CreateBucket", "CLIENT", "UNSET")
    assert span["attributes"] == {
        "rpc.system": "aws-api",
        "rpc.service": "S3",
        "rpc.method": "CreateBucket",
        "cloud.region": "eu-west-1",
        "server.address": "127.0.0.1",
        "server.port": aws.server.port,
        "aws.endpoint_prefix": "s3",
        "aws.s3.bucket": "pictures",
        "aws.request_id": answer["ResponseMetadata"]["HTTPHeaders"]["x-amzn-requestid"],
        "retry_attempts": 0,
        "http.response.status_code": 200,
    }
    ((mapped,),) = payload()
    assert (mapped["service"], mapped["name"], mapped["resource"], mapped["type"]) == (
        "aws.s3",
        "s3.command",
        "s3.createbucket",
        "http",
    )
    expected = {
        "aws_service": "s3",
        "aws.agent": "botocore",
        "aws.operation": "CreateBucket",
        "aws.region": "eu-west-1",
        "region": "eu-west-1",
        "aws.partition": "aws",
        "aws.requestid": span["attributes"]["aws.request_id"],
        "bucketname": "pictures",
        "aws.s3.bucket_name": "pictures",
        "http.status_code": "200",
    }
    assert {key: mapped["meta"].get(key) for key in expected} == expected
    assert mapped["metrics"]["retry_attempts"] == 0


def test_transport_is_part_of_the_call(aws: Clients, spans: Spans) -> None:
    with suppress_http_instrumentation():  # meant for what is below, not for the call
        aws("sts").get_caller_identity()
    aws("sts").get_caller_identity()
    assert [span["name"] for span in spans] == ["STS.GetCallerIdentity"] * 2


def test_the_service_says_no(aws: Clients, spans: Spans, payload: Payload) -> None:
    with pytest.raises(ClientError) as raised:
        aws("s3").get_object(Bucket="nowhere", Key="secret-key")
    (span,) = spans
    assert span["status"] == "ERROR"
    assert span["attributes"]["error.type"] == type(raised.value).__name__
    assert span["attributes"]["http.response.status_code"] == 404
    assert [event["name"] for event in span["events"]] == ["exception"]
    assert "secret-key" not in repr(span)
    ((mapped,),) = payload()
    assert mapped["error"] == 0  # ddtrace: an answer below 500 is none


def test_the_call_is_wrong(aws: Clients, spans: Spans, payload: Payload) -> None:
    with pytest.raises(ParamValidationError):
        aws("s3").get_object(Key="k")
    assert (spans[0]["name"], spans[0]["status"]) == ("S3.GetObject", "ERROR")
    ((mapped,),) = payload()
    assert mapped["error"] == 1


def test_nobody_there(aws: Clients, spans: Spans) -> None:
    from botocore.config import Config

    client = aws("sqs", endpoint_url="http://127.0.0.1:1", config=Config(retries={"max_attempts": 1}))
    with pytest.raises(EndpointConnectionError):
        client.list_queues()
    assert [(span["name"], span["status"]) for span in spans] == [("SQS.ListQueues", "ERROR")]


def test_not_modified_is_no_failure(aws: Clients, spans: Spans) -> None:
    client = aws("s3", region_name="us-east-1")
    client.create_bucket(Bucket="pictures")
    etag = client.put_object(Bucket="pictures", Key="k", Body=b"x")["ETag"]
    with pytest.raises(ClientError):
        client.get_object(Bucket="pictures", Key="k", IfNoneMatch=etag)
    assert (spans[-1]["attributes"]["http.response.status_code"], spans[-1]["status"]) == (304, "UNSET")


def test_a_queue(queue: Any, spans: Spans, payload: Payload) -> None:
    client, url = queue
    client.send_message(QueueUrl=url, MessageBody="hunter2")
    message_id = spans[0]["attributes"]["messaging.message.id"]
    assert attributes_of(spans, "messaging", "aws.sqs") == {
        "messaging.system": "aws_sqs",
        "messaging.destination.name": "jobs",
        "messaging.message.id": message_id,
        "aws.sqs.queue.url": url,
    }
    assert "hunter2" not in repr(spans[0])
    ((mapped,),) = payload()
    assert (mapped["meta"]["queuename"], mapped["meta"]["aws_account"]) == ("jobs", ACCOUNT)


def test_the_receiver_continues_the_trace(queue: Any, spans: Spans) -> None:
    client, url = queue
    given = {"kind": {"DataType": "String", "StringValue": "thumbnail"}}
    client.send_message(QueueUrl=url, MessageBody="hello", MessageAttributes=given)
    received = client.receive_message(QueueUrl=url, MessageAttributeNames=["kind"])
    assert list(given) == ["kind"]  # the application's own mapping stays as it was
    sent, got = spans
    assert (got["name"], got["kind"]) == ("SQS.ReceiveMessage", "CLIENT")
    assert (got["trace_id"], got["parent_id"], got["links"]) == (sent["trace_id"], sent["span_id"], [])
    message = received["Messages"][0]
    carrier = json.loads(message["MessageAttributes"]["_datadog"]["StringValue"])
    context = trace.get_current_span(extract(carrier)).get_span_context()
    assert (context.trace_id, context.span_id) == (sent["trace_id"], sent["span_id"])


def test_messages_of_several_traces_are_linked_to(queue: Any, spans: Spans) -> None:
    client, url = queue
    client.send_message(QueueUrl=url, MessageBody="1")
    client.send_message_batch(QueueUrl=url, Entries=[{"Id": name, "MessageBody": name} for name in "ab"])
    received = client.receive_message(QueueUrl=url, MaxNumberOfMessages=10)
    assert len(received["Messages"]) == 3
    first, second, got = spans
    assert got["parent_id"] is None
    assert sorted(link["span_id"] for link in got["links"]) == sorted([first["span_id"], second["span_id"]])


def test_a_receiver_within_a_span_links(queue: Any, spans: Spans) -> None:
    client, url = queue
    client.send_message(QueueUrl=url, MessageBody="1")
    with trace.get_tracer("application").start_as_current_span("job"):
        client.receive_message(QueueUrl=url)
    sent, got, _ = spans
    assert got["parent"] == "job"
    assert [link["span_id"] for link in got["links"]] == [sent["span_id"]]


@pytest.mark.parametrize(
    ("variables", "continued", "linked", "polls"),
    [
        ({"DD_BOTOCORE_PROPAGATION_ENABLED": "true"}, True, False, True),
        ({"DD_BOTOCORE_PROPAGATION_ENABLED": "false"}, False, True, True),
        ({"DD_BOTOCORE_DISTRIBUTED_TRACING": "false"}, False, False, True),
        ({"DD_BOTOCORE_EMPTY_POLL_ENABLED": "false"}, True, False, False),
    ],
)
def test_switches(
    queue: Any,
    spans: Spans,
    variables: dict[str, str],
    continued: bool,
    linked: bool,
    polls: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client, url = queue
    BotocoreInstrumentor().uninstrument()
    with monkeypatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        load_vendor_settings()
        BotocoreInstrumentor().instrument()
    load_vendor_settings()
    client.send_message(QueueUrl=url, MessageBody="1")
    client.receive_message(QueueUrl=url)
    sent, got = spans
    assert (got["parent_id"] == sent["span_id"], len(got["links"]) == 1) == (continued, linked)
    client.receive_message(QueueUrl=url, WaitTimeSeconds=0)
    assert len(spans) == 2 + polls


def test_a_message_full_of_attributes_travels_alone(queue: Any, spans: Spans, caplog: pytest.LogCaptureFixture) -> None:
    client, url = queue
    given = {f"a{number}": {"DataType": "String", "StringValue": "x"} for number in range(10)}
    for _ in range(2):
        client.send_message(QueueUrl=url, MessageBody="1", MessageAttributes=given)
    assert "_datadog" not in client.receive_message(QueueUrl=url)["Messages"][0].get("MessageAttributes", {})
    assert len([message for message in caplog.messages if "does not travel" in message]) == 1


def test_a_topic_to_a_queue(queue: Any, aws: Clients, spans: Spans, payload: Payload) -> None:
    client, url = queue
    sns = aws("sns")
    topic = sns.create_topic(Name="news")["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=f"arn:aws:sqs:eu-west-1:{ACCOUNT}:jobs")
    spans.clear()
    sns.publish(TopicArn=topic, Message="m")
    client.receive_message(QueueUrl=url)
    sent, got = spans
    assert (sent["name"], sent["attributes"]["aws.sns.topic.arn"]) == ("SNS.Publish", topic)
    assert got["parent_id"] == sent["span_id"]
    mapped = payload()[0][0]
    assert (mapped["meta"]["topicname"], mapped["meta"]["aws.sns.topic_arn"]) == ("news", topic)


@pytest.mark.parametrize("encode", [str, str.encode, lambda text: base64.b64encode(text.encode())])
def test_a_stream(aws: Clients, spans: Spans, encode: Any) -> None:
    kinesis = aws("kinesis")
    kinesis.create_stream(StreamName="clicks", ShardCount=1)
    spans.clear()
    kinesis.put_record(StreamName="clicks", Data=encode('{"page": 1}'), PartitionKey="p")
    kinesis.put_records(StreamName="clicks", Records=[{"Data": b"no JSON", "PartitionKey": "p"}])
    iterator = kinesis.get_shard_iterator(
        StreamName="clicks", ShardId="shardId-000000000000", ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]
    records = kinesis.get_records(ShardIterator=iterator)["Records"]
    assert json.loads(records[0]["Data"])["page"] == 1
    assert records[1]["Data"] == b"no JSON"
    assert spans[0]["attributes"]["aws.kinesis.stream_name"] == "clicks"
    assert spans[-1]["parent_id"] == spans[0]["span_id"]


class Recorded:
    """Calls that end before the network, and what they would have sent."""

    def __init__(self, client: Any) -> None:
        self.sent: dict[str, Any] = {}
        client.meta.events.register("before-parameter-build", self._note)

    def _note(self, params: dict[str, Any], **kwargs: Any) -> None:
        self.sent.update(params)
        raise ConnectionAbortedError


def sent(aws: Clients, service: str, method: str, **params: Any) -> dict[str, Any]:
    client = aws(service)
    recorded = Recorded(client)
    with pytest.raises(ConnectionAbortedError):
        getattr(client, method)(**params)
    return recorded.sent


def context_in(spans: Spans, carrier: Any) -> bool:
    return f"{spans[-1]['span_id']:016x}" in carrier["traceparent"]


def test_an_event(aws: Clients, spans: Spans) -> None:
    given = [{"Source": "s", "Detail": '{"a": 1}'}, {"Source": "s"}, {"Source": "s", "Detail": "no JSON"}]
    entries = sent(aws, "events", "put_events", Entries=given)["Entries"]
    first, second = (json.loads(entry["Detail"]) for entry in entries[:2])
    assert (first["a"], entries[2]["Detail"], given[0]["Detail"]) == (1, "no JSON", '{"a": 1}')
    assert context_in(spans, first["_datadog"])
    assert context_in(spans, second["_datadog"])
    large = json.dumps({"a": "x" * (256 << 10)})
    assert sent(aws, "events", "put_events", Entries=[{"Detail": large}])["Entries"] == [{"Detail": large}]


def test_a_state_machine(aws: Clients, spans: Spans) -> None:
    machine = f"arn:aws:states:eu-west-1:{ACCOUNT}:stateMachine:orders"
    started = sent(aws, "stepfunctions", "start_execution", stateMachineArn=machine, input='{"a": 1}')
    assert context_in(spans, json.loads(started["input"])["_datadog"])
    assert spans[-1]["attributes"]["aws.step_functions.state_machine.arn"] == machine
    assert sent(aws, "stepfunctions", "start_execution", stateMachineArn=machine, input="[1]")["input"] == "[1]"


@pytest.mark.parametrize("name", ["resize", "resize:3", f"arn:aws:lambda:eu-west-1:{ACCOUNT}:function:resize:PROD"])
def test_a_function(aws: Clients, spans: Spans, name: str) -> None:
    given = base64.b64encode(b'{"client": {"app": "x"}, "custom": {"k": "v"}}').decode()
    invoked = sent(aws, "lambda", "invoke", FunctionName=name, Payload=b'{"a": 1}', ClientContext=given)
    context = json.loads(base64.b64decode(invoked["ClientContext"]))
    assert (context["client"], context["custom"]["k"], invoked["Payload"]) == ({"app": "x"}, "v", b'{"a": 1}')
    assert context_in(spans, context["custom"])
    assert attributes_of(spans, "faas") == {"faas.invoked_name": "resize", "faas.invoked_provider": "aws"}


def test_a_table(aws: Clients, spans: Spans, payload: Payload) -> None:
    client = aws("dynamodb")
    client.create_table(
        TableName="users",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        ProvisionedThroughput={"ReadCapacityUnits": 5, "WriteCapacityUnits": 7},
    )
    created = attributes_of(spans, "aws.dynamodb")
    assert created["aws.dynamodb.provisioned_write_capacity"] == 7
    client.put_item(TableName="users", Item={"id": {"S": "hunter2"}})
    client.query(
        TableName="users",
        KeyConditionExpression="id = :id",
        ExpressionAttributeValues={":id": {"S": "hunter2"}},
        Limit=3,
        ReturnConsumedCapacity="TOTAL",
    )
    found = attributes_of(spans, "aws.dynamodb", "db.")
    assert json.loads(found.pop("aws.dynamodb.consumed_capacity")[0])["TableName"] == "users"
    assert found == {
        "db.system.name": "aws.dynamodb",
        "aws.dynamodb.table_names": ("users",),
        "aws.dynamodb.limit": 3,
        "aws.dynamodb.count": 1,
        "aws.dynamodb.scanned_count": 1,
    }
    assert "hunter2" not in repr(list(spans))
    assert {row["meta"]["tablename"] for chunk in payload() for row in chunk} == {"users"}


def test_secrets_stay_secret(aws: Clients, spans: Spans) -> None:
    client = aws("secretsmanager")
    arn = client.create_secret(Name="database", SecretString="hunter2")["ARN"]
    assert client.get_secret_value(SecretId="database")["SecretString"] == "hunter2"
    assert [span["attributes"]["aws.secretsmanager.secret.arn"] for span in spans] == [arn, arn]
    assert "hunter2" not in repr(list(spans))


@pytest.mark.parametrize(
    ("service", "method", "resource"),
    [
        ("cloudwatch", "list_metrics", "monitoring.listmetrics"),
        ("logs", "describe_log_groups", "logs.describeloggroups"),
        ("ses", "list_identities", "email.listidentities"),
        ("stepfunctions", "list_state_machines", "states.liststatemachines"),
        ("elbv2", "describe_load_balancers", "elasticloadbalancing.describeloadbalancers"),
    ],
)
def test_services_go_by_their_endpoints(
    aws: Clients, spans: Spans, payload: Payload, service: str, method: str, resource: str
) -> None:
    getattr(aws(service), method)()
    ((mapped,),) = payload()
    prefix = resource.partition(".")[0]
    assert (mapped["service"], mapped["name"], mapped["resource"]) == (f"aws.{prefix}", f"{prefix}.command", resource)


def test_pages_are_calls(queue: Any, spans: Spans, aws: Clients) -> None:
    for name in "abc":
        aws("sqs").create_queue(QueueName=name)
    spans.clear()
    s3 = aws("s3", region_name="us-east-1")
    s3.create_bucket(Bucket="pictures")
    for key in "abc":
        s3.put_object(Bucket="pictures", Key=key, Body=b"")
    spans.clear()
    pages = list(s3.get_paginator("list_objects").paginate(Bucket="pictures", PaginationConfig={"PageSize": 2}))
    assert len(pages) == len(spans) == 2


def test_a_presigned_url_is_no_call(aws: Clients, spans: Spans) -> None:
    aws("s3").generate_presigned_url("get_object", Params={"Bucket": "b", "Key": "k"})
    assert len(spans) == 0


def test_hooks_and_a_propagator(queue: Any, spans: Spans) -> None:
    client, url = queue
    BotocoreInstrumentor().uninstrument()
    seen: dict[str, Any] = {}

    class Marker:
        def inject(self, headers: Any) -> None:
            headers["X-Marker"] = "here"

    BotocoreInstrumentor().instrument(
        request_hook=lambda span, service, operation, params: seen.update(request=(service, operation, params)),
        response_hook=lambda span, service, operation, result: seen.update(response=(service, operation, result)),
        propagator=Marker(),
    )
    client.meta.events.register("before-send.sqs", lambda request, **kwargs: seen.update(headers=dict(request.headers)))
    answer = client.receive_message(QueueUrl=url)
    assert seen["request"][:2] == seen["response"][:2] == ("sqs", "ReceiveMessage")
    assert seen["request"][2]["QueueUrl"] == url
    assert seen["response"][2] is answer
    assert seen["headers"]["X-Marker"] in {"here", b"here"}


@pytest.mark.parametrize(
    ("semconv", "opt_in", "found"),
    [
        ("stable", "http/dup", {"http.status_code", "http.response.status_code"}),
        ("contrib", "", {"http.status_code"}),
        ("contrib", "http", {"http.status_code"}),  # contrib's botocore does not heed it
    ],
)
def test_names_of_the_status(
    aws: Clients, spans: Spans, semconv: str, opt_in: str, found: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    BotocoreInstrumentor().uninstrument()
    monkeypatch.setenv("SPANBRIDGE_SEMCONV", semconv)
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", opt_in)
    BotocoreInstrumentor().instrument()
    aws("sts").get_caller_identity()
    assert attributes_of(spans, "http.").keys() == found
