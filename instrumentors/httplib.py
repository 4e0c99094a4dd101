"""http.client: one CLIENT span per request, from the last header sent to the last byte of the body read or given up.

What urllib.request, urllib3 and other clients on top of it send is covered; those that have an instrumentor of their
own (requests, botocore, elasticsearch ...) make the only span. The CONNECT of a proxy's tunnel belongs to the request.
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any

from spanbridge.conventions import http, http_client
from spanbridge.core.instrumentor import Instrumentor
from spanbridge.core.patching import Library, Patch
from spanbridge.core.tracing import observed, opener, site_of
from spanbridge.version import __version__ as __version__

if TYPE_CHECKING:
    from collections.abc import Iterator
    from http.client import HTTPResponse

    from spanbridge.core.tracing import Scope, Setup, Wrapped

# Where a connection keeps the scope of the request under way, and then the response until its body is read.
_SCOPE = "_spanbridge_scope"
_VERSIONS = {10: "1.0", 11: "1.1"}


class _Headers:
    """The header lines that a connection has collected, as the mapping that propagators write to."""

    def __init__(self, connection: Any) -> None:
        self._lines: list[bytes] = connection._buffer  # noqa: SLF001 - the only place where they are

    def items(self) -> Iterator[tuple[str, str]]:
        for line in self._lines[1:]:
            name, _, value = line.partition(b":")
            yield name.decode("latin-1"), value.strip().decode("latin-1")

    def get(self, name: str) -> str | None:
        return next((value for key, value in self.items() if key.lower() == name.lower()), None)

    def __setitem__(self, name: str, value: str) -> None:
        line = f"{name}: {value}".encode("latin-1")
        prefix = line[: len(name) + 1].lower()
        self._lines[1:] = [other for other in self._lines[1:] if not other.lower().startswith(prefix)]
        self._lines.append(line)


def _describe(connection: Any, *args: Any, **kwargs: Any) -> http_client.Request | None:
    """Read the request from what is about to be sent; None when nothing is, which http.client will complain about."""
    lines: list[bytes] = connection._buffer  # noqa: SLF001
    if not lines:
        return None
    method, target, _ = lines[0].decode("latin-1").split(" ", 2)
    if target.startswith("/") or target == "*":
        port = connection.default_port
        scheme = "https" if port == 443 else "http"
        host = connection._tunnel_host or connection.host  # noqa: SLF001
        actual = connection._tunnel_port if connection._tunnel_host else connection.port  # noqa: SLF001
        authority = f"[{host}]" if ":" in host else host
        target = f"{scheme}://{authority}{'' if actual in {None, port} else f':{actual}'}{target}"
    return http_client.Request(method, target, _Headers(connection), connection)  # type: ignore[arg-type]


def _answer(response: HTTPResponse) -> http_client.Response | None:
    return http_client.Response(response.status, response.headers, _VERSIONS.get(response.version, ""))


def _taken(holder: object = None, *args: object) -> Scope[Any] | None:
    """Take the scope off the connection or response that a method was called on."""
    scope: Scope[Any] | None = getattr(holder, "__dict__", {}).pop(_SCOPE, None)
    return scope


def _sending(wrapped: Wrapped, setup: Setup) -> Wrapped:
    """The request line and all headers are there and about to be sent: open the span, which goes on after the call."""
    from http.client import HTTPResponse

    def follow(scope: Scope[Any], response: Any) -> Any:
        # A stand-in of some test tool never says that it is read.
        if not isinstance(response, HTTPResponse) or response.isclosed() or response.length == 0:
            return None
        vars(response)[_SCOPE] = scope
        return response

    operation = http_client.operation(setup, _describe, _answer, lambda error: None, follow)
    begin = opener(setup, operation, site_of(setup, wrapped), wrapped)

    @wraps(wrapped)
    def endheaders(*args: Any, **kwargs: Any) -> Any:
        scope = begin(args, kwargs)
        if scope is None:
            return wrapped(*args, **kwargs)
        try:
            result = wrapped(*args, **kwargs)
        except BaseException as error:
            scope.fail(error)
            raise
        scope.leave()
        vars(args[0])[_SCOPE] = scope
        return result

    return endheaders


def _receiving(wrapped: Wrapped, setup: Setup) -> Wrapped:
    @wraps(wrapped)
    def getresponse(*args: Any, **kwargs: Any) -> Any:
        scope = _taken(*args)
        if scope is None:
            return wrapped(*args, **kwargs)
        try:
            response = wrapped(*args, **kwargs)
        except BaseException as error:
            scope.fail(error)
            raise
        return scope.finish(response)

    return getresponse


def _closing(wrapped: Wrapped, setup: Setup) -> Wrapped:
    """The body has been read, or given up."""

    def before(response: HTTPResponse) -> None:
        if (scope := _taken(response)) is not None:
            scope.complete(response)

    return observed(wrapped, setup, before=before)


class HttplibInstrumentor(Instrumentor):
    """Traces the standard library's http.client, and with it urllib.request and urllib3."""

    library = Library("http.client")
    options = (http.EXCLUDED_URLS,)
    patches = (
        Patch("http.client", "HTTPConnection.endheaders", _sending),
        Patch("http.client", "HTTPConnection.getresponse", _receiving),
        Patch("http.client", "HTTPResponse._close_conn", _closing),
    )
