"""AWS: one CLIENT span per API call, retries and transport folded in; the context travels with what the call sends.

https://opentelemetry.io/docs/specs/semconv/cloud-providers/aws-sdk/
"""

from __future__ import annotations

from functools import wraps
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import SpanKind, get_current_span

from spanbridge.conventions import aws_messages, aws_services, bedrock, http
from spanbridge.conventions.aws_receiving import received, receives
from spanbridge.conventions.fields import values
from spanbridge.core.failure import record_failure
from spanbridge.core.options import Option, boolean, setting
from spanbridge.core.propagation import inject
from spanbridge.core.semconv import Names, pick
from spanbridge.core.tracing import HTTP, Operation, observed, traced

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.context import Context
    from opentelemetry.trace import Span

    from spanbridge.core.semconv import Semconv
    from spanbridge.core.tracing import Scope, Setup, Wrapped

OPTIONS: tuple[Option[Any], ...] = (
    *http.optional_hooks(
        ("request_hook", "(span, service_name, operation_name, api_params)"),
        ("response_hook", "(span, service_name, operation_name, result)"),
    ),
    Option("propagator", None, "Writes the context into the headers of the HTTP requests, too (`inject(headers)`)."),
    Option("logger_provider", None, "Accepted for compatibility with OpenTelemetry contrib; no logs are recorded."),
    Option(
        "continue_received",
        None,
        "A call that receives messages continues the trace of the first one; unset: only where no span is current "
        "and all are of one trace, else it links to them; false: never.",
        boolean,
        setting="propagation",
    ),
    Option("empty_polls", True, "Calls that receive nothing make spans as well.", boolean),
)


class Call:
    """One API call.

    Args:
        client: botocore's, or aiobotocore's, client.
        operation: such as `GetObject`.
        params: what the operation is given, as the application gave it.
    """

    __slots__ = (
        "client",
        "contexts",
        "generation",
        "host",
        "model",
        "operation",
        "params",
        "port",
        "region",
        "service",
    )

    def __init__(self, client: Any, operation: str, params: Mapping[str, Any]) -> None:
        self.client = client
        self.operation = operation
        self.params = params
        self.contexts: list[Context] = []
        meta = client.meta
        self.model = meta.service_model
        self.service: str = self.model.service_name
        self.generation = bedrock.asked(operation, params) if self.service == "bedrock-runtime" else {}
        self.region: str | None = meta.region_name
        self.host, self.port = http.host_and_port(meta.endpoint_url or "")
        if self.port is None and self.host:
            self.port = 80 if meta.endpoint_url.startswith("http:") else 443

    @property
    def service_id(self) -> str:
        """The name that the service goes by (`SQS`, `EventBridge`); old models do not tell it."""
        try:
            return str(self.model.service_id)
        except Exception:
            return self.service


def _describe(client: Any, operation_name: Any, api_params: Any = None, *args: Any, **kwargs: Any) -> Call | None:
    if not hasattr(client, "meta"):
        return None
    return Call(client, operation_name, api_params if api_params is not None else {})


def http_keys(semconv: Semconv, old: str, stable: str) -> list[str]:
    """Answer the names that an HTTP attribute has on AWS spans; contrib's instrumentations of AWS know no opt-in."""
    names = Names.OLD if semconv.contrib else semconv.http
    return [key for key, _ in pick(names, ((old, ""),), ((stable, ""),))]


class _Convention:
    """What one `instrument()` call decided about the calls' attributes and hooks."""

    def __init__(self, setup: Setup) -> None:
        self.contrib = contrib = setup.semconv.contrib
        self.request = aws_services.CONTRIB_REQUEST if contrib else aws_services.REQUEST
        self.response = aws_services.CONTRIB_RESPONSE if contrib else aws_services.RESPONSE
        self.constant = aws_services.CONTRIB_CONSTANT if contrib else aws_services.CONSTANT
        self.status_keys = http_keys(setup.semconv, "http.status_code", "http.response.status_code")
        self.request_hook = http.hooked(setup, "request_hook")
        self.response_hook = http.hooked(setup, "response_hook")
        self.propagates = setting(f"integrations.{setup.integration}.distributed_tracing", default=True)

    def name(self, call: Call) -> str:
        """`S3.GetObject`; models are asked as `chat MODEL`, and contrib names publishing after the topic."""
        if self.contrib and _publishes(call):
            return f"{_contrib_destination(call)[0]} send"
        if generation := call.generation:
            return f"{generation['gen_ai.operation.name']} {generation['gen_ai.request.model']}"
        return f"{call.service_id}.{call.operation}"

    def attributes(self, call: Call) -> dict[str, Any]:
        rendered = {
            "rpc.system": "aws-api",
            "rpc.service": call.service_id,
            "rpc.method": call.operation,
            "cloud.region": call.region,
            "server.address": call.host,
            "server.port": call.port,
            **self.constant.get(call.service, {}),
        }
        rendered.update(values(self.request.get(call.service, ()), call.params))
        rendered.update(call.generation)
        if not self.contrib:
            rendered["aws.endpoint_prefix"] = call.model.endpoint_prefix
        else:
            rendered.update(_contrib_attributes(call))
        return {key: value for key, value in rendered.items() if value is not None}

    def inject(self, call: Call, context: Context) -> None:
        headers: dict[str, str] = {}
        inject(headers, context)
        call.params = aws_messages.put(call.service, call.operation, call.params, headers, contrib=self.contrib)

    def opened(self, span: Span, call: Call) -> None:
        assert self.request_hook is not None
        self.request_hook(span, call.service, call.operation, call.params)

    def succeeded(self, span: Span, call: Call, result: Any) -> None:
        if isinstance(result, dict):
            self._answered(span, call, result)
        if self.response_hook is not None:
            self.response_hook(span, call.service, call.operation, result)

    def follow(self, scope: Scope[Call], result: Any) -> Any:
        """Describe a model's answer as far as it is there, and let the span go on until all of it has been read."""
        call, span = scope.record, scope.span
        if not call.generation or not span.is_recording() or not bedrock.keep(scope, call.operation, result):
            return None
        self.succeeded(span, call, result)
        return result

    def failed(self, span: Span, call: Call, error: BaseException) -> None:
        """A ClientError carries the service's answer, which may be none of a failure (304 for what is not modified)."""
        answer = getattr(error, "response", None)
        self.succeeded(span, call, answer)
        code = _metadata(answer).get("HTTPStatusCode")
        if code is None or code >= 400:
            record_failure(span, error, error_type=not self.contrib)

    def _answered(self, span: Span, call: Call, result: dict[str, Any]) -> None:
        metadata = _metadata(result)
        found = dict(values(self.response.get(call.service, ()), result))
        if (request_id := _request_id(metadata)) is not None:
            found["aws.request_id"] = request_id
        if (attempts := metadata.get("RetryAttempts")) is not None:
            found["retry_attempts"] = attempts
        if (code := metadata.get("HTTPStatusCode")) is not None:
            found.update(dict.fromkeys(self.status_keys, code))
        span.set_attributes(found)


def _metadata(result: Any) -> dict[str, Any]:
    metadata = result.get("ResponseMetadata") if isinstance(result, dict) else None
    return metadata if isinstance(metadata, dict) else {}


_ID_HEADERS = ("x-amzn-requestid", "x-amzn-RequestId", "x-amz-request-id", "x-amz-id-2")


def _request_id(metadata: dict[str, Any]) -> str | None:
    if request_id := metadata.get("RequestId"):
        return str(request_id)
    headers = metadata.get("HTTPHeaders") or {}
    return next((headers[name] for name in _ID_HEADERS if headers.get(name)), None)


def call(wrapped: Wrapped, setup: Setup) -> Wrapped:
    """The advice for `_make_api_call(client, operation_name, api_params)`, in which every call ends."""
    convention = _Convention(setup)
    operation: Operation[Call] = Operation(
        SpanKind.CLIENT,
        _describe,
        convention.name,
        convention.attributes,
        covers=HTTP,
        parent=_contrib_kind if convention.contrib else None,
        inject=convention.inject if convention.propagates else None,
        opened=convention.opened if convention.request_hook else None,
        prepare=_carry if convention.propagates else None,
        succeeded=convention.succeeded,
        failed=convention.failed,
        fresh=True,
        stream=convention.follow,
    )
    send = traced(wrapped, setup, operation)
    if convention.contrib:
        return send
    receive = received(wrapped, setup, operation, propagates=convention.propagates)
    if iscoroutinefunction(wrapped):

        @wraps(wrapped)
        async def call_async(*args: Any, **kwargs: Any) -> Any:
            return await (receive if receives(*args, **kwargs) else send)(*args, **kwargs)

        return call_async

    @wraps(wrapped)
    def call_plain(*args: Any, **kwargs: Any) -> Any:
        return (receive if receives(*args, **kwargs) else send)(*args, **kwargs)

    return call_plain


def _carry(scope: Scope[Call]) -> None:
    """Hand on the parameters that carry the context."""
    scope.args, scope.kwargs = (scope.record.client, scope.record.operation, scope.record.params), {}


# The HTTP requests' own headers.


def sign(wrapped: Wrapped, setup: Setup) -> Wrapped:
    """The advice for `Endpoint.prepare_request(endpoint, request)`: the propagator that was asked for writes headers.

    They come after the signature, so that a proxy on the way may change them. contrib sends X-Ray's by default.
    """
    propagator = setup.options["propagator"]
    if propagator is None and not setup.semconv.contrib:
        return wrapped

    def before(endpoint: Any, request: Any, *args: Any, **kwargs: Any) -> None:
        if propagator is not None:
            propagator.inject(request.headers)
        elif _XRAY not in request.headers:
            context = get_current_span().get_span_context()
            if context.is_valid:
                trace, sampled = f"{context.trace_id:032x}", int(context.trace_flags.sampled)
                request.headers[_XRAY] = (
                    f"Root=1-{trace[:8]}-{trace[8:]};Parent={context.span_id:016x};Sampled={sampled}"
                )

    return observed(wrapped, setup, before=before)


# https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html#xray-concepts-tracingheader
_XRAY = "X-Amzn-Trace-Id"


# contrib's own ways.


def _publishes(call: Call) -> bool:
    return call.service == "sns" and call.operation in {"Publish", "PublishBatch"}


def _contrib_kind(call: Call, context: Context) -> tuple[Context, SpanKind]:
    return context, SpanKind.PRODUCER if _publishes(call) else SpanKind.CLIENT


def _contrib_destination(call: Call) -> tuple[str, str]:
    """Answer what a message is published to, in short and in full; of a telephone number nothing."""
    arn = call.params.get("TopicArn") or call.params.get("TargetArn")
    if arn:
        return arn.rpartition(":")[2], arn
    if call.params.get("PhoneNumber"):
        return "phone_number", "phone_number:**"
    return "unknown", "unknown"


def _contrib_attributes(call: Call) -> dict[str, Any]:
    if _publishes(call):
        _, destination = _contrib_destination(call)
        return {
            "messaging.destination_kind": "topic",
            "messaging.destination": destination,
            "messaging.destination.name": destination,
        }
    if call.service == "dynamodb":
        netloc = (call.client.meta.endpoint_url or "").partition("://")[2].partition("/")[0]
        return {"db.operation": call.operation, "net.peer.name": netloc}
    if (call.service, call.operation) == ("lambda", "Invoke"):
        name = aws_services.function_name(call.params.get("FunctionName"))
        return {"faas.invoked_provider": "aws", "faas.invoked_name": name, "faas.invoked_region": call.region}
    return {}
