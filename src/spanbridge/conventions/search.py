"""Search engines over HTTP (Elasticsearch, OpenSearch): one CLIENT span per request, named as the clients name it.

https://opentelemetry.io/docs/specs/semconv/database/elasticsearch/
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from opentelemetry.trace import SpanKind, Status, StatusCode

from spanbridge.conventions import http
from spanbridge.conventions.database import Target, text_keys
from spanbridge.core.failure import record_failure
from spanbridge.core.options import Option
from spanbridge.core.tracing import DATABASE, HTTP, Operation

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from spanbridge.core.tracing import Setup

# Operations by method where the path does not name one; elsewhere it does, behind an underscore.
_ROOT = {"GET": "info", "HEAD": "ping"}
_INDEX = {"GET": "indices.get", "PUT": "indices.create", "DELETE": "indices.delete", "HEAD": "indices.exists"}
_DOCUMENT = {"GET": "get", "PUT": "index", "POST": "index", "DELETE": "delete", "HEAD": "exists"}
_AREAS = frozenset({"cat", "cluster", "ml", "security"})


@lru_cache(maxsize=1024)
def operation_name(method: str, path: str) -> str:
    """Name a request as Elastic's clients do (`search`, `indices.create`), from its path alone."""
    parts = [part for part in path.split("/") if part]
    if not parts:
        return _ROOT.get(method, method.lower())
    number, area = next(((n, part[1:]) for n, part in enumerate(parts) if part.startswith("_")), (0, ""))
    if area in {"doc", "source"}:
        return _DOCUMENT.get(method, area)
    if area in _AREAS and len(parts) > number + 1:
        return f"{area}.{parts[number + 1]}"
    if area:
        return area
    return (_INDEX if len(parts) == 1 else _DOCUMENT).get(method, method.lower())


class Request:
    """One request on its way: its arguments, and what they tell."""

    __slots__ = ("arguments", "body", "endpoint", "method", "path", "query", "target", "url")

    def __init__(self, transport: Any, method: str, url: str, *args: Any, **kwargs: Any) -> None:
        self.arguments = kwargs
        self.method, self.url = method, url
        self.path, _, self.query = url.partition("?")
        params = kwargs.get("params")
        if isinstance(params, Mapping) and params:
            self.query = urlencode({name: value for name, value in params.items() if not name.startswith("__")})
        self.body = kwargs.get("body")
        self.target = _target(_system(type(transport).__mro__), *_first_node(transport))
        self.endpoint = getattr(kwargs.get("otel_span"), "endpoint_id", None)


@lru_cache(maxsize=128)
def _target(system: str, host: str | None, port: int | None) -> Target:
    return Target(system, host=host, port=port)


@lru_cache(maxsize=32)
def _system(transport: tuple[type, ...]) -> str:
    names = {cls.__module__.partition(".")[0] for cls in transport}
    return "opensearch" if "opensearchpy" in names else "elasticsearch"


def _first_node(transport: Any) -> tuple[str | None, int | None]:
    """Answer where the first of a client's nodes is; which one gets the request is decided on its way."""
    pool = getattr(transport, "node_pool", None)
    if pool is not None:
        for node in pool.all():
            return node.host, node.port
        return None, None
    pool = transport.connection_pool
    for connection in getattr(pool, "connections", None) or filter(None, [getattr(pool, "connection", None)]):
        return http.host_and_port(connection.host)
    # An asyncio client makes its connections with its first request.
    for host in getattr(transport, "hosts", None) or ():
        return host.get("host"), host.get("port")
    return None, None


_SEARCHED = re.compile(r"(^|&)(q=)[^&]*")


def _index(path: str) -> str:
    """Answer the index, or the list of them, that a request is about."""
    first = path.lstrip("/").partition("/")[0]
    return "" if first.startswith("_") else first


def sanitize_body(body: Any) -> str:
    """Write a body, a document or its JSON, with every value replaced by `?`, as contrib does."""
    return str(_masked(json.loads(body) if isinstance(body, str) else body))


def _masked(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _masked(item) for key, item in value.items()}
    return [_masked(item) for item in value] if isinstance(value, list) else "?"


def _shown_body(how: str, body: Any) -> str:
    """Write a body as the option says; `masked` shows nothing of what is no document, such as a bulk's lines."""
    if how == "masked":
        return json.dumps(_masked(body)) if isinstance(body, Mapping) else ""
    return body if isinstance(body, str) else json.dumps(body, default=str)


def _body_option(raw: str) -> str:
    word = raw.strip().lower()
    if word not in {"omit", "masked", "raw"}:
        raise ValueError("expected `omit`, `masked` or `raw`")
    return word


OPTIONS = (
    *http.optional_hooks(("request_hook", "(span, method, url, kwargs)"), ("response_hook", "(span, body)")),
    Option(
        "capture_body",
        "omit",
        "`omit`, `masked` (documents without their values) or `raw`.",
        _body_option,
        ("OTEL_PYTHON_INSTRUMENTATION_ELASTICSEARCH_CAPTURE_SEARCH_QUERY",),
    ),
    Option(
        "span_name_prefix",
        "Elasticsearch",
        "How span names begin where they are contrib's.",
        str,
        ("OTEL_PYTHON_ELASTICSEARCH_NAME_PREFIX",),
    ),
)


def _answer(result: Any) -> tuple[int | None, Any]:
    """Answer status and body of a result: an object since 8.0, the body alone since 2.4, before that a pair."""
    if hasattr(result, "meta"):
        return result.meta.status, result.body
    return result if isinstance(result, tuple) and len(result) == 2 else (None, result)


def operation(setup: Setup) -> Operation[Request]:
    """Compile the requests of a transport's `perform_request(method, url, ...)`."""
    if setup.semconv.contrib:
        return _contrib_operation(setup)
    semconv = setup.semconv
    keys = text_keys(semconv)
    clean = http.query_cleaner(semconv, client=True)
    body_shown = setup.options["capture_body"]
    request_hook, response_hook = http.hooked(setup, "request_hook"), http.hooked(setup, "response_hook")

    def attributes(request: Request) -> dict[str, Any]:
        rendered = dict(request.target.attributes(semconv))
        rendered["db.operation.name"] = request.endpoint or operation_name(request.method, request.path)
        rendered["http.request.method"] = request.method
        rendered["url.path"] = request.path
        if request.query:
            rendered["url.query"] = clean(_SEARCHED.sub(r"\1\2?", request.query))
        if index := _index(request.path):
            rendered["db.collection.name"] = index
        if body_shown != "omit" and request.body and (shown := _shown_body(body_shown, request.body)):
            rendered.update(dict.fromkeys(keys, shown))
        return rendered

    def opened(span: Span, request: Request) -> None:
        if request_hook is not None:
            request_hook(span, request.method, request.url, request.arguments)

    def succeeded(span: Span, request: Request, result: Any) -> None:
        status, body = _answer(result)
        if isinstance(body, Mapping) and isinstance(took := body.get("took"), int):
            span.set_attribute("elasticsearch.took", took)
        if status is not None:
            span.set_attribute("http.response.status_code", status)
            # An exception is raised above the transport, except where the status is the answer.
            if status >= 400 and not (request.method == "HEAD" and status == 404):
                span.set_attribute("db.response.status_code", str(status))
                span.set_attribute("error.type", str(status))
                span.set_status(Status(StatusCode.ERROR))
        if response_hook is not None:
            response_hook(span, body)

    def failed(span: Span, request: Request, error: BaseException) -> None:
        code = getattr(error, "status_code", None)
        if request.method == "HEAD" and code == 404:
            return  # an answer, which clients before 2.0 make out above the transport
        record_failure(span, error)
        if isinstance(code, int):
            span.set_attribute("db.response.status_code", str(code))

    return Operation(
        SpanKind.CLIENT,
        Request,
        lambda request: request.endpoint or operation_name(request.method, request.path),
        attributes,
        layer=DATABASE,
        covers=DATABASE | HTTP,
        opened=opened if request_hook else None,
        succeeded=succeeded,
        failed=failed,
    )


# What contrib says, for `contrib` mode.

_CONTRIB_ID = re.compile(r"/_doc/([^/]+)")
_CONTRIB_TARGET = re.compile(r"/([^/]+)/_search[/]?")


def _contrib_operation(setup: Setup) -> Operation[Request]:
    prefix: str = setup.options["span_name_prefix"].strip()
    request_hook, response_hook = http.hooked(setup, "request_hook"), http.hooked(setup, "response_hook")

    def describe(transport: Any, method: str, url: str, *args: Any, **kwargs: Any) -> Request | None:
        if getattr(kwargs.get("otel_span"), "otel_span", None):
            warnings.warn("Instrumentation disabled, relying on elasticsearch native OTel support", stacklevel=5)
            return None
        return Request(transport, method, url, *args, **kwargs)

    def name(request: Request) -> str:
        if _CONTRIB_TARGET.search(request.url):
            return f"{prefix}/<target>/_search"
        return prefix + _CONTRIB_ID.sub("/_doc/:id", request.url, count=1)

    def attributes(request: Request) -> dict[str, Any]:
        rendered = {
            "db.system": "elasticsearch",
            "elasticsearch.url": request.url,
            "elasticsearch.method": request.method,
        }
        if isinstance(request.body, dict) and request.body:
            rendered["db.statement"] = sanitize_body(request.body)
        if params := request.arguments.get("params"):
            rendered["elasticsearch.params"] = str(params)
        if match := _CONTRIB_ID.search(request.url):
            rendered["elasticsearch.id"] = match[1]
        if match := _CONTRIB_TARGET.search(request.url):
            rendered["elasticsearch.target"] = match[1]
        return rendered

    def opened(span: Span, request: Request) -> None:
        if request_hook is not None:
            request_hook(span, request.method, request.url, dict(map(_plain, request.arguments.items())))

    def succeeded(span: Span, request: Request, result: Any) -> None:
        status, body = _answer(result)
        if isinstance(body, dict):
            for member in ("found", "timed_out", "took"):
                if member in body:
                    span.set_attribute(f"elasticsearch.{member}", str(body[member]))
        if status is not None and not 200 <= status < 299 and not (request.method == "HEAD" and status == 404):
            span.set_status(Status(StatusCode.ERROR, _contrib_description(status, body)))
        if response_hook is not None:
            response_hook(span, body)

    return Operation(
        SpanKind.CLIENT,
        describe,
        name,
        attributes,
        layer=DATABASE,
        covers=DATABASE | HTTP,
        opened=opened if request_hook else None,
        succeeded=succeeded,
        failed=lambda span, request, error: record_failure(span, error, error_type=False),
    )


def _plain(argument: tuple[str, Any]) -> tuple[str, Any]:
    """Answer an argument of `perform_request` as contrib's hooks get it."""
    name, value = argument
    if name == "otel_span":
        return name, None
    kind = type(value).__name__
    return name, str(value) if kind == "DefaultType" else dict(value) if kind == "HttpHeaders" else value


def _contrib_description(status: int, body: Any) -> str:
    from elasticsearch.exceptions import HTTP_EXCEPTIONS, ApiError

    message = str(body)
    if isinstance(body, dict):
        error = body.get("error", message)
        message = error["type"] if isinstance(error, dict) and "type" in error else error
    return f"{HTTP_EXCEPTIONS.get(status, ApiError).__name__}: {message}"
