"""Whether a Datadog Agent answers, and takes a trace."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

_SECONDS = 2.0
_MOST = 1 << 20


@dataclass(frozen=True)
class Answer:
    """What came back from the Agent's address.

    Args:
        url: where it was looked for.
        version: the Agent's version; empty when it did not say.
        endpoints: what it offers.
        problem: why it cannot be reached; empty when it can.
        advice: what to do about that.
        sent: whether it took a test trace; None when none was sent.
    """

    url: str
    version: str = ""
    endpoints: tuple[str, ...] = ()
    problem: str = ""
    advice: str = ""
    sent: bool | None = None


def ask(url: str, *, send: bool = False) -> Answer:
    """Ask the Agent at `url` for its `/info`.

    Args:
        url: `http://host:port[/prefix]`, `https://...` or `unix:///path`.
        send: also send it one trace.
    """
    parts = urlsplit(url)
    try:
        status, body = _get_info(url)
    except FileNotFoundError:
        return Answer(url, problem="there is no such socket", advice=_mount(unquote(parts.path)))
    except ConnectionRefusedError:
        return Answer(url, problem="connection refused", advice=_START)
    except TimeoutError:
        return Answer(url, problem=f"no answer in {_SECONDS:g} s", advice=_START)
    except socket.gaierror:
        return Answer(
            url, problem=f"{parts.hostname!r} has no address", advice="correct DD_AGENT_HOST or DD_TRACE_AGENT_URL"
        )
    except (OSError, ValueError) as error:
        return Answer(url, problem=str(error) or type(error).__name__, advice=_START)
    sent = _send() if send else None
    if status == 404:
        return Answer(url, advice="an Agent of 2021 or later answers at /info: update it", sent=sent)
    try:
        info = json.loads(body)
        version, endpoints = str(info.get("version", "")), tuple(map(str, info.get("endpoints", ())))
    except (ValueError, AttributeError):
        return Answer(url, problem="what answers is no Datadog Agent", advice="correct DD_TRACE_AGENT_URL", sent=sent)
    advice = "" if "/v0.4/traces" in endpoints else "switch apm_config.enabled on in the Agent's datadog.yaml"
    return Answer(url, version, endpoints, advice=advice, sent=sent)


_START = "start the Agent with APM on, or say where it is: DD_AGENT_HOST, or DD_TRACE_AGENT_URL"


def _mount(path: str) -> str:
    folder = Path(path).parent
    return f"mount the Agent's {folder} into this container" if not folder.exists() else _START


def _get_info(url: str) -> tuple[int, bytes]:
    """GET /info; answers the status and the body.

    Raises:
        OSError: it cannot be reached.
        ValueError: what answers does not speak HTTP.
    """
    parts = urlsplit(url)
    prefix = "" if parts.scheme == "unix" else parts.path.rstrip("/")
    host = parts.netloc.rpartition("@")[2] or "localhost"
    with _connect(url) as connection:
        connection.sendall(f"GET {prefix}/info HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
        data = b""
        while len(data) < _MOST and (received := connection.recv(65536)):
            data += received
    head, _, body = data.partition(b"\r\n\r\n")
    words = head.split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        raise ValueError("what answers does not speak HTTP")
    return int(words[1]), body


def _connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    if parts.scheme == "unix":
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(_SECONDS)
        try:
            connection.connect(unquote(parts.path))
        except OSError:
            connection.close()
            raise
        return connection
    tls = parts.scheme == "https"
    host = parts.hostname or "localhost"
    connection = socket.create_connection((host, parts.port or (443 if tls else 80)), _SECONDS)
    if not tls:
        return connection
    import ssl

    return ssl.create_default_context().wrap_socket(connection, server_hostname=host)


def _send() -> bool:
    """Send one trace by the exporter's own way."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

    from spanbridge.exporters.datadog import DatadogSpanProcessor, Settings, resource_attributes

    settings = Settings.from_environment()
    provider = TracerProvider(resource=Resource(dict(resource_attributes(settings))))
    processor = DatadogSpanProcessor(settings=settings)
    provider.add_span_processor(processor)
    provider.get_tracer("spanbridge.doctor").start_span(
        "spanbridge.doctor", attributes={"process.id": os.getpid()}
    ).end()
    return processor.force_flush(round(_SECONDS * 1000)) and processor.dropped == 0
