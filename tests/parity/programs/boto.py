# /// script
# dependencies = ["boto==2.49.0"]
# [tool.parity]
# servers = ["moto"]
# [[tool.parity.differences]]
# reason = "ddtrace does not see an action that is passed by name, as boto's newer services do"
# side = "spanbridge"
# pattern = "\\| sns\\.(?!command)\\w+"
# replacement = "| sns"
# [[tool.parity.differences]]
# reason = "services that speak JSON are traced as well"
# side = "spanbridge"
# pattern = "kinesis|dynamodb"
# ///
"""boto 2, with moto's server as the proxy before AWS: services told by action and by method, and their refusals."""

from __future__ import annotations

import os

import boto
import boto.dynamodb2
import boto.ec2
import boto.ec2.cloudwatch
import boto.exception
import boto.iam
import boto.kinesis
import boto.s3
import boto.sns
import boto.sts

REGION = "eu-west-1"
PROXY = {
    "aws_access_key_id": "AKIAEXAMPLE",
    "aws_secret_access_key": "x",
    "is_secure": False,
    "proxy": "127.0.0.1",
    "proxy_port": int(os.environ["MOTO_PORT"]),
}
boto.config.add_section("Boto")
boto.config.set("Boto", "num_retries", "0")

s3 = boto.s3.connect_to_region(REGION, **PROXY)
bucket = s3.create_bucket("pictures", location=REGION)
key = bucket.new_key("k")
key.set_contents_from_string("content")
print(key.get_contents_as_string(), [found.name for found in bucket.list()], len(s3.get_all_buckets()))
key.delete()
try:
    s3.get_bucket("nowhere")
except boto.exception.S3ResponseError as error:
    print(error.status)

sns = boto.sns.connect_to_region(REGION, **PROXY)
topic = sns.create_topic("news")["CreateTopicResponse"]["CreateTopicResult"]["TopicArn"]
sns.publish(topic, "x")
try:
    sns.publish(f"arn:aws:sns:{REGION}:123456789012:nowhere", "x")
except boto.exception.BotoServerError as error:
    print(error.status)

print(boto.ec2.connect_to_region(REGION, **PROXY).get_all_reservations())
print(boto.sts.connect_to_region(REGION, **PROXY).get_session_token().access_key != "")
print(boto.kinesis.connect_to_region(REGION, **PROXY).list_streams()["StreamNames"])
print(boto.dynamodb2.connect_to_region(REGION, **PROXY).list_tables())
iam = boto.iam.connect_to_region("universal", **PROXY)
iam.create_user("reader")
try:
    iam.get_user("nobody")
except boto.exception.BotoServerError as error:
    print(error.status)
try:
    boto.ec2.cloudwatch.connect_to_region(REGION, **PROXY).list_metrics()  # a protocol that moto no longer speaks
except boto.exception.BotoServerError as error:
    print(error.status)
try:
    boto.sts.connect_to_region(REGION, **{**PROXY, "proxy_port": 1}).get_session_token(force_new=True)
except OSError as error:
    print(type(error).__name__)
