"""botocore, and so boto3: one CLIENT span per API call, whatever it takes in requests and retries.

Messages carry the context: SQS, SNS, Kinesis, EventBridge, Step Functions, Lambda. Not traced: signing, presigned URLs.
"""

from __future__ import annotations

from spanbridge.conventions import aws, bedrock
from spanbridge.core.instrumentor import Instrumentor
from spanbridge.core.patching import Library, Patch
from spanbridge.instrumentors.aiobotocore import AiobotocoreInstrumentor as AiobotocoreInstrumentor
from spanbridge.version import __version__ as __version__


class BotocoreInstrumentor(Instrumentor):
    """Traces the AWS SDK botocore, whenever its clients were made.

    Hooks: `request_hook(span, service_name, operation_name, api_params)`,
    `response_hook(span, service_name, operation_name, result)`.
    """

    library = Library("botocore", ("botocore >= 1.4.51",), tested="1.44.8")
    options = aws.OPTIONS
    patches = (
        Patch("botocore.client", "BaseClient._make_api_call", aws.call),
        Patch("botocore.endpoint", "Endpoint.prepare_request", aws.sign),
        Patch("botocore.eventstream", "EventStream.__iter__", bedrock.events),
        Patch("botocore.eventstream", "EventStream.close", bedrock.closing),
        Patch("botocore.response", "StreamingBody.read", bedrock.reading),
    )
