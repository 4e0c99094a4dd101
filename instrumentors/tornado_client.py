"""Tornado's HTTP clients: one CLIENT span per `AsyncHTTPClient.fetch`, of the simple client and of curl's.

A followed redirect belongs to the fetch that follows it.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

from spanbridge.conventions import http, http_client
from spanbridge.core.failure import record_failure
from spanbridge.core.tracing import opener

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from spanbridge.core.tracing import Operation, Scope, Setup, Wrapped

# What `fetch` takes for itself; the rest is the request's.
_OF_FETCH = ("callback", "raise_error")
_CONTRIB_CLIENT_OLD = (("http.method", "method"), ("http.url", "url"))
_CONTRIB_CLIENT_STABLE = (
    ("http.request.method", "method"),
    ("http.request.method_original", "method_original"),
    ("url.full", "url"),
)
# What Tornado says where no answer has come.
_NO_ANSWER = 599


class _Request(http_client.Request):
    """A request, and whether its headers came as Tornado's own class, of which `fetch` makes a copy that it checks."""

    __slots__ = ("checked",)
    checked: bool


def _describe_fetch(client: Any, request: Any, *args: Any, **kwargs: Any) -> _Request | None:
    if hasattr(request, "original_request"):  # a redirect, which the client follows
        return None
    httpclient, httputil = sys.modules["tornado.httpclient"], sys.modules["tornado.httputil"]
    if not isinstance(request, httpclient.HTTPRequest):
        request = httpclient.HTTPRequest(request, **{key: kwargs[key] for key in kwargs if key not in _OF_FETCH})
    given = request.headers
    try:
        request.headers = httputil.HTTPHeaders(given)  # the application keeps the headers that it has given
    except httputil.HTTPInputError:  # which it is about to hear of
        return None
    record = _Request(request.method, request.url, request.headers, request)
    record.checked = isinstance(given, httputil.HTTPHeaders)
    return record


def _hand_over(scope: Scope[http_client.Request]) -> None:
    """Let `fetch` have the request with the headers, instead of a URL."""
    record: Any = scope.record
    if not record.checked:
        record.source.headers = dict(record.source.headers)
    client, given, *rest = scope.args
    if given is not scope.record.source:
        scope.kwargs = {key: value for key, value in scope.kwargs.items() if key in _OF_FETCH}
        scope.args = (client, scope.record.source, *rest)


def _answer(response: Any) -> http_client.Response | None:
    return None if response.code == _NO_ANSWER else http_client.Response(response.code, response.headers)


def _fetch(setup: Setup) -> Operation[http_client.Request]:
    """Compile what a fetch is."""
    stable = setup.semconv.http.stable
    options = {"request_hook": setup.options["client_request_hook"], "response_hook": None, "excluded_urls": ""}
    operation = http_client.operation(
        replace(setup, options={**setup.options, **options}), _describe_fetch, _answer, lambda error: None
    )
    described: Any = operation.succeeded

    def succeeded(span: Span, request: http_client.Request, response: Any) -> None:
        described(span, request, response)
        if response.code == _NO_ANSWER and response.error is not None:
            record_failure(span, response.error, error_type=stable, clean=request.clean)

    def failed(span: Span, request: http_client.Request, error: BaseException) -> None:
        response = getattr(error, "response", None)
        if response is not None:  # what the client raises for an answer
            succeeded(span, request, response)
        else:
            record_failure(span, error, error_type=stable, clean=request.clean)

    own = replace(operation, prepare=_hand_over, succeeded=succeeded, failed=failed)
    if not setup.semconv.contrib:
        return own
    return replace(own, attributes=http.renderer(setup.semconv, _CONTRIB_CLIENT_OLD, _CONTRIB_CLIENT_STABLE))


def fetching(wrapped: Wrapped, setup: Setup) -> Wrapped:
    """A request is sent; the span ends when its future is done."""
    begin = opener(setup, _fetch(setup), "tornado: AsyncHTTPClient.fetch", wrapped)
    response_hook = http.hooked(setup, "client_response_hook")

    @wraps(wrapped)
    def fetch(*args: Any, **kwargs: Any) -> Any:
        scope = begin(args, kwargs)
        if scope is None:
            return wrapped(*args, **kwargs)
        try:
            future = wrapped(*scope.args, **scope.kwargs)
        except BaseException as error:
            scope.fail(error)
            raise
        if response_hook is not None and hasattr(future, "add_done_callback"):
            future.add_done_callback(partial(response_hook, scope.span))
        return scope.follow(future)

    return fetch
