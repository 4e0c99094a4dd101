"""boto 2 against moto's server, from 2.32.1 to the last; on Python 3.10 and 3.11, beyond which it does not run."""

from __future__ import annotations

import urllib.request
import warnings
from typing import TYPE_CHECKING, Any

import pytest

with warnings.catch_warnings():  # it imports `imp`, and leaves an importer of the old kind before all later imports
    warnings.simplefilter("ignore")
    pytest.importorskip("boto")
    import boto.dynamodb2
    import boto.ec2
    import boto.s3.connection
    from boto.exception import S3ResponseError

    from spanbridge.instrumentors.boto import BotoInstrumentor
    from spanbridge.instrumentors.httplib import HttplibInstrumentor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spanbridge.testing import Payload, Spans
    from tests.servers.moto import Aws

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ImportWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture
def aws(moto_server: Aws, spans: Spans) -> Iterator[dict[str, Any]]:
    urllib.request.urlopen(urllib.request.Request(f"{moto_server.url}/moto-api/reset", method="POST")).close()
    BotoInstrumentor().instrument()
    HttplibInstrumentor().instrument()
    yield {
        "aws_access_key_id": "AKIAEXAMPLE",
        "aws_secret_access_key": "hunter2",
        "is_secure": False,
        "port": moto_server.port,
    }
    HttplibInstrumentor().uninstrument()
    BotoInstrumentor().uninstrument()


def s3(aws: dict[str, Any]) -> Any:
    style = boto.s3.connection.OrdinaryCallingFormat()
    return boto.s3.connection.S3Connection(host="127.0.0.1", calling_format=style, **aws)


def test_s3(aws: dict[str, Any], spans: Spans, payload: Payload) -> None:
    bucket = s3(aws).create_bucket("pictures")
    (span,) = spans
    assert (span["name"], span["kind"], span["status"]) == ("127.PUT", "CLIENT", "UNSET")
    assert span["attributes"] == {
        "rpc.system": "aws-api",
        "rpc.service": "127",
        "rpc.method": "PUT",
        "aws.endpoint_prefix": "127",
        "aws.operation": "create_bucket",
        "server.address": "127.0.0.1",
        "server.port": aws["port"],
        "http.request.method": "PUT",
        "http.response.status_code": 200,
    }
    ((mapped,),) = payload()
    assert (mapped["service"], mapped["name"], mapped["resource"]) == ("aws.127", "127.command", "127.put")
    assert (mapped["meta"]["aws.operation"], mapped["meta"]["aws.agent"]) == ("create_bucket", "boto")
    key = bucket.new_key("k")
    key.set_contents_from_string("hunter2")
    assert key.get_contents_as_string() == b"hunter2"
    assert "hunter2" not in repr(list(spans))


def test_a_query_service(aws: dict[str, Any], spans: Spans, payload: Payload) -> None:
    region = boto.ec2.regioninfo.RegionInfo(name="eu-west-1", endpoint="127.0.0.1")
    connection = boto.ec2.connection.EC2Connection(region=region, **aws)
    # What moto looks for in the signature, and boto in the host's name.
    connection.auth_service_name, connection.auth_region_name = "ec2", "eu-west-1"
    connection.get_all_reservations()
    (span,) = spans
    assert span["attributes"]["aws.operation"] == span["attributes"]["rpc.method"] == "DescribeInstances"
    ((mapped,),) = payload()
    assert (mapped["resource"], mapped["meta"]["region"]) == ("127.describeinstances", "eu-west-1")
    assert mapped["meta"]["aws.partition"] == "aws"


def test_a_service_that_speaks_json(aws: dict[str, Any], spans: Spans, payload: Payload) -> None:
    proxy = {**aws, "port": 80, "proxy": "127.0.0.1", "proxy_port": aws["port"]}
    assert boto.dynamodb2.connect_to_region("eu-west-1", **proxy).list_tables() == {"TableNames": []}
    ((mapped,),) = payload()
    assert (mapped["service"], mapped["resource"]) == ("aws.dynamodb", "dynamodb.listtables")
    assert (mapped["meta"]["aws.operation"], mapped["meta"]["region"]) == ("ListTables", "eu-west-1")


def test_the_service_says_no(aws: dict[str, Any], spans: Spans, payload: Payload) -> None:
    with pytest.raises(S3ResponseError):
        s3(aws).get_bucket("nowhere")
    assert (spans[0]["status"], spans[0]["attributes"]["http.response.status_code"]) == ("ERROR", 404)
    assert [row["error"] for chunk in payload() for row in chunk] == [0] * len(spans)


def test_contrib(aws: dict[str, Any], spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    BotoInstrumentor().uninstrument()
    monkeypatch.setenv("SPANBRIDGE_SEMCONV", "contrib")
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "http")  # which contrib's does not heed
    BotoInstrumentor().instrument()
    s3(aws).create_bucket("pictures")
    (span,) = spans
    assert (span["name"], span["kind"]) == ("127.command", "CONSUMER")
    assert span["attributes"]["aws.agent"] == "boto"
    assert (span["attributes"]["http.method"], span["attributes"]["http.status_code"]) == ("PUT", 200)
