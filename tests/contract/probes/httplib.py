from __future__ import annotations

import io
from typing import Any

from tests.contract.probes import Probe


class Httplib(Probe):
    def open(self, server: Any) -> Any:
        import http.client

        class Canned:
            """A socket whose other end answers, or raises."""

            error: Exception | None = None

            def sendall(self, data: bytes) -> None:
                self.sent = data
                if self.error is not None:
                    raise self.error

            def makefile(self, *args: Any) -> io.BytesIO:
                return io.BytesIO(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")

            def close(self) -> None: ...

        connection = http.client.HTTPConnection("shop")
        connection.sock = Canned()  # type: ignore[assignment]
        return connection

    def close(self, connection: Any) -> None:
        connection.close()

    def operate(self, connection: Any) -> Any:
        self.canned = connection.sock
        connection.request("GET", "/items?page=2", headers={"Accept": "text/plain"})
        response = connection.getresponse()
        body = response.read()
        seen = sorted(vars(connection)), sorted(vars(response))
        return type(response), response.status, body, response.getheaders(), seen

    def fail(self, connection: Any, error: Exception) -> None:
        connection.sock.error = error
        connection.request("GET", "/items")

    def sent(self, connection: Any) -> Any:
        lines = self.canned.sent.decode().split("\r\n")[1:]
        return dict(line.split(": ", 1) for line in lines if line)
