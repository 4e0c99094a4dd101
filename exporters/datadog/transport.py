"""One HTTP/1.1 request to the Agent over TCP, TLS or a unix socket, under one deadline.

Written on a plain socket, so that `ssl`, `http.client` and friends are never imported before somebody needs https,
and gevent may still patch the process after this module was imported.
"""

from __future__ import annotations

import os
import platform
from threading import Lock
from time import monotonic
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, urlsplit

from spanbridge.exporters.datadog.container import container_headers
from spanbridge.version import __version__

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

CONNECT_SECONDS = 1.0  # an Agent is local: one that needs longer to accept is not there
_MOST_HEAD = 64 << 10
_MOST_BODY = 1 << 20


class Request(NamedTuple):
    """What the receiver is asked.

    Args:
        path: the endpoint.
        body: the payload; a request without one is a GET.
        headers: those of this request alone.
    """

    path: str
    body: bytes = b""
    headers: Mapping[str, object] = MappingProxyType({})


class Reply(NamedTuple):
    """What the receiver answered; names of headers are in lower case."""

    status: int
    body: bytes
    headers: Mapping[str, str] = MappingProxyType({})


class _StaleError(ConnectionError):
    """A kept connection that the receiver had closed before it read the request."""


def client_headers(external_env: str = "") -> dict[str, str]:
    """Give the headers that are the same for every request of this process (protocol A.4).

    Args:
        external_env: the value of DD_EXTERNAL_ENV.
    """
    headers = {
        "Content-Type": "application/msgpack",
        "Datadog-Meta-Lang": "python",
        "Datadog-Meta-Lang-Version": platform.python_version(),
        "Datadog-Meta-Lang-Interpreter": platform.python_implementation(),
        "Datadog-Meta-Tracer-Version": __version__,
        "Datadog-Client-Computed-Top-Level": "true",
        "Datadog-Send-Real-Http-Status": "1",
        **container_headers(),
    }
    if external_env and external_env.isascii() and external_env.isprintable():
        headers["Datadog-External-Env"] = external_env
    return headers


class Transport:
    """Sends requests to one address and keeps the connection; threads take turns.

    Args:
        url: `http://host:port[/prefix]`, `https://...` or `unix:///path/of/socket`.
        headers: headers of every request.
    """

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        parts = urlsplit(url)
        self.url = url
        self._tls = parts.scheme == "https"
        self._unix_path = unquote(parts.path) if parts.scheme == "unix" else ""
        self._address = (parts.hostname or "localhost", parts.port or (443 if self._tls else 80))
        self._prefix = "" if self._unix_path else parts.path.rstrip("/")
        host = "localhost" if self._unix_path else parts.netloc.rpartition("@")[2]
        self._head = " HTTP/1.1\r\n" + "".join(map(_line, ("Host", *headers), (host, *headers.values())))
        self._socket: socket.socket | None = None
        self._begin_process()

    def _begin_process(self) -> None:
        self._pid = os.getpid()
        self._turn = Lock()
        self.close()

    def send(self, request: Request, timeout: float) -> Reply:
        """Send one request and read the answer.

        Args:
            request: what to send.
            timeout: seconds for everything: connecting, sending, and the whole answer.

        Raises:
            OSError: the receiver cannot be reached, does not answer in time, or does not speak HTTP.
        """
        deadline = monotonic() + timeout
        if self._pid != os.getpid():
            # A forked child shares its parent's connection; both writing to it would garble the requests.
            self._begin_process()
        if not self._turn.acquire(timeout=timeout):
            raise TimeoutError("other threads are sending")
        try:
            return self._send(self._encoded(request), deadline)
        finally:
            self._turn.release()

    def _encoded(self, request: Request) -> bytes:
        path, body, headers = request
        method = "POST" if body else "GET"
        own = "".join(map(_line, (*headers, "Content-Length"), (*headers.values(), len(body))))
        return f"{method} {self._prefix}{path}{self._head}{own}\r\n".encode("latin-1", "replace") + body

    def _send(self, request: bytes, deadline: float) -> Reply:
        if self._socket is not None:
            try:
                return self._exchange(self._socket, request, deadline)
            except _StaleError:
                pass
        return self._exchange(self._connect(deadline), request, deadline)

    def close(self) -> None:
        """Close the kept connection; the next `send` opens a new one."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connect(self, deadline: float) -> socket.socket:
        import socket

        seconds = min(CONNECT_SECONDS, _remaining(deadline))
        if self._unix_path:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connection.settimeout(seconds)
                connection.connect(self._unix_path)
            except OSError:
                connection.close()
                raise
            return connection
        try:
            connection = socket.create_connection(self._address, seconds)
        except UnicodeError as error:  # a name that cannot be one
            raise OSError(f"{self._address[0]!r} is no host name") from error
        if self._tls:
            import ssl

            try:
                connection.settimeout(_remaining(deadline))
                return ssl.create_default_context().wrap_socket(connection, server_hostname=self._address[0])
            except OSError:
                connection.close()
                raise
        return connection

    def _exchange(self, connection: socket.socket, request: bytes, deadline: float) -> Reply:
        """Send `request` and read its answer; the connection is kept only after a complete answer that allows it."""
        kept, self._socket = connection is self._socket, None
        answer = _Answer(connection, deadline)
        keep = False
        try:
            try:
                connection.settimeout(_remaining(deadline))
                connection.sendall(request)
            except ConnectionError:
                # A receiver may refuse a large body (413) and hang up while it is still being sent.
                if kept:
                    raise
            reply, keep = answer.read()
        except ConnectionError as error:
            if kept and not answer.begun:
                raise _StaleError from error
            raise
        finally:
            if keep:
                self._socket = connection
            else:
                connection.close()
        return reply


def _line(name: str, value: object) -> str:
    return f"{name}: {value}\r\n"


def _remaining(deadline: float) -> float:
    seconds = deadline - monotonic()
    if seconds <= 0:
        raise TimeoutError("no complete answer in time")
    return seconds


class _Answer:
    """One HTTP/1.x answer on its way in."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline
        self._data = bytearray()
        self._ended = False

    @property
    def begun(self) -> bool:
        return bool(self._data)

    def read(self) -> tuple[Reply, bool]:
        """Read the whole answer; the second value says whether the connection may be used again."""
        status = 100
        while 100 <= status < 200:  # interim answers announce the real one
            version, status, fields = self._head()
        tokens = {token.strip().lower() for token in fields.get("connection", "").split(",")}
        keep = version != "HTTP/1.0" and "close" not in tokens
        if status in {204, 304}:
            return Reply(status, b"", fields), keep
        if fields.get("transfer-encoding", "").lower().endswith("chunked"):
            return Reply(status, self._chunked(), fields), keep
        length = fields.get("content-length", "")
        if length.isascii() and length.isdigit() and len(length) < 10:
            if int(length) > _MOST_BODY:
                return Reply(status, self._take(_MOST_BODY), fields), False
            return Reply(status, self._take(int(length)), fields), keep
        while not self._ended and len(self._data) < _MOST_BODY:
            self._more(may_end=True)
        return Reply(status, bytes(self._data), fields), False

    def _head(self) -> tuple[str, int, dict[str, str]]:
        while (end := self._data.find(b"\r\n\r\n")) < 0:
            if len(self._data) > _MOST_HEAD:
                raise ConnectionError("the answer's headers do not end")
            self._more()
        first, *lines = self._take(end + 4)[:-4].decode("latin-1").split("\r\n")
        version, _, rest = first.partition(" ")
        if not version.startswith("HTTP/1.") or not (rest[:3].isascii() and rest[:3].isdigit() and len(rest) >= 3):
            raise ConnectionError("the answer is not HTTP")
        pairs = (line.partition(":") for line in lines)
        return version, int(rest[:3]), {name.strip().lower(): value.strip() for name, _, value in pairs}

    def _chunked(self) -> bytes:
        body = bytearray()
        while True:
            while (end := self._data.find(b"\r\n")) < 0:
                if len(self._data) > _MOST_HEAD:
                    raise ConnectionError("the answer's chunk has no size")
                self._more()
            digits = self._take(end + 2).split(b";")[0].strip()
            try:
                size = int(digits[:8], 16)
            except ValueError:
                raise ConnectionError("the answer's chunk has no size") from None
            if size < 0 or len(body) + size > _MOST_BODY:
                raise ConnectionError("the answer is too long")
            if size == 0:
                # Trailers are not expected; the empty line that ends them belongs to this answer.
                self._take(2)
                return bytes(body)
            body += self._take(size + 2)[:-2]

    def _take(self, count: int) -> bytes:
        while len(self._data) < count:
            self._more()
        taken = bytes(self._data[:count])
        del self._data[:count]
        return taken

    def _more(self, *, may_end: bool = False) -> None:
        self._connection.settimeout(_remaining(self._deadline))
        received = self._connection.recv(65536)
        if received:
            self._data += received
        elif may_end:
            self._ended = True
        else:
            raise ConnectionResetError("the connection was closed without an answer")


def describe(error: OSError) -> str:
    """Say in a few words why a receiver could not be reached."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    return error.strerror or str(error) or type(error).__name__
