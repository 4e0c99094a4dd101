"""boto 2: one CLIENT span per API call, by `make_request` of its two kinds of connections; what is below is folded in.

Query services (EC2, SQS ...) tell the action; for the others (S3, Lambda ...) it is the HTTP method, and who called;
those that speak JSON (DynamoDB, Kinesis ...) send by themselves, with the action in a header.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import SpanKind, Status, StatusCode

from spanbridge.conventions.aws import http_keys
from spanbridge.core.instrumentor import Instrumentor
from spanbridge.core.patching import Library, Patch
from spanbridge.core.tracing import HTTP, Operation, traced
from spanbridge.version import __version__ as __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.context import Context
    from opentelemetry.trace import Span

    from spanbridge.core.tracing import Setup, Wrapped


class Call:
    """One request to a service; `word` is what it is called by, `operation` what the application asked for."""

    __slots__ = ("endpoint", "extra", "host", "operation", "port", "region", "word")

    def __init__(self, connection: Any, word: str | None, operation: str | None, extra: dict[str, Any]) -> None:
        self.host = str(connection.host)
        self.port = connection.port
        self.endpoint = self.host.partition(".")[0]
        region = getattr(connection, "region", None)
        self.region = region.partition(":")[2] if isinstance(region, str) else getattr(region, "name", None)
        self.word = word
        self.operation = operation
        self.extra = extra


def _query(
    connection: Any,
    action: str | None = None,
    params: Any = None,
    path: str = "/",
    verb: str = "GET",
    *_: Any,
    **__: Any,
) -> Call:
    given = {f"params.{key}": str(value) for key, value in (params or {}).items()}
    return Call(connection, action, action, {"operation_name": action, **given, "path": path})


def _auth(connection: Any, method: str, path: str, *args: Any, **kwargs: Any) -> Call:
    return Call(connection, method, _caller(), {"path": path})


def _json(connection: Any, request: Any, *args: Any, **kwargs: Any) -> Call | None:
    target = request.headers.get("X-Amz-Target")
    action = target and str(target).rpartition(".")[2]
    return Call(connection, action, action, {}) if action else None


def _caller() -> str | None:
    """Name the function that called the service's own `make_request`."""
    frame: Any = sys._getframe(2)  # noqa: SLF001 - there is no other way to know
    while frame is not None and frame.f_code.co_name != "make_request":
        frame = frame.f_back
    return None if frame is None or frame.f_back is None else frame.f_back.f_code.co_name


def _request(describe: Callable[..., Call | None], *, layer: int = 0) -> Callable[[Wrapped, Setup], Wrapped]:
    def advice(wrapped: Wrapped, setup: Setup) -> Wrapped:
        contrib = setup.semconv.contrib
        if contrib and describe is _json:
            return wrapped
        status_keys = http_keys(setup.semconv, "http.status_code", "http.response.status_code")
        method_keys = http_keys(setup.semconv, "http.method", "http.request.method")

        def attributes(call: Call) -> dict[str, Any]:
            found: dict[str, Any]
            if contrib:
                found = {"endpoint": call.endpoint, "http_method": (call.word or "").lower(), **call.extra}
            else:
                found = {
                    "rpc.system": "aws-api",
                    "rpc.service": call.endpoint,
                    "rpc.method": call.word,
                    "aws.endpoint_prefix": call.endpoint,
                    "server.address": call.host,
                    "server.port": call.port,
                    "cloud.region": call.region,
                }
            found["aws.operation"] = call.operation
            if contrib:
                found.update({"aws.agent": "boto", "aws.region": call.region})
            return {key: value for key, value in found.items() if value is not None}

        def succeeded(span: Span, call: Call, response: Any) -> None:
            code = getattr(response, "status", None)
            if isinstance(code, int):
                span.set_attributes(dict.fromkeys(status_keys, code))
                if code >= 400 and not contrib:
                    span.set_attribute("error.type", str(code))
                    span.set_status(Status(StatusCode.ERROR))
            method = getattr(response, "_method", None)
            if isinstance(method, str):
                span.set_attributes(dict.fromkeys(method_keys, method))

        def contrib_kind(call: Call, context: Context) -> tuple[Context, SpanKind]:
            return context, SpanKind.CONSUMER

        operation: Operation[Call] = Operation(
            SpanKind.CLIENT,
            describe,
            lambda call: f"{call.endpoint}.command" if contrib else f"{call.endpoint}.{call.word}",
            attributes,
            layer=layer,
            covers=HTTP,
            parent=contrib_kind if contrib else None,
            succeeded=succeeded,
        )
        return traced(wrapped, setup, operation)

    return advice


class BotoInstrumentor(Instrumentor):
    """Traces boto 2, whenever its connections were made."""

    library = Library("boto", ("boto >= 2.29",), tested="2.49.0")
    patches = (
        Patch("boto.connection", "AWSQueryConnection.make_request", _request(_query)),
        Patch("boto.connection", "AWSAuthConnection.make_request", _request(_auth)),
        # In the same layer as what it covers: within one of the former's spans it makes none.
        Patch("boto.connection", "AWSAuthConnection._mexe", _request(_json, layer=HTTP)),
    )
