"""aiobotocore, and so aioboto3: one CLIENT span per API call, as of botocore; aiohttp below stays silent."""

from __future__ import annotations

from spanbridge.conventions import aws, bedrock
from spanbridge.core.instrumentor import Instrumentor
from spanbridge.core.patching import Library, Patch
from spanbridge.version import __version__ as __version__


class AiobotocoreInstrumentor(Instrumentor):
    """Traces aiobotocore, whenever its clients were made; hooks as of `BotocoreInstrumentor`."""

    library = Library("aiobotocore", ("aiobotocore >= 0.2.3",), tested="3.10.0")
    options = aws.OPTIONS
    patches = (
        Patch("aiobotocore.client", "AioBaseClient._make_api_call", aws.call),
        Patch("botocore.endpoint", "Endpoint.prepare_request", aws.sign),
        Patch("aiobotocore.eventstream", "AioEventStream.__aiter__", bedrock.events),
        Patch("botocore.eventstream", "EventStream.close", bedrock.closing),
        Patch("aiobotocore.response", "StreamingBody.read", bedrock.reading),
    )
