"""Whether a Datadog Agent answers, and takes a trace."""

from __future__ import annotations

import json
import os
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from socket import gaierror
from urllib.parse import unquote, urlsplit

from spanbridge.exporters.datadog.transport import Request, Transport, describe

_SECONDS = 2.0


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
        with closing(Transport(url, {})) as transport:
            status, body, _ = transport.send(Request("/info"), _SECONDS)
    except FileNotFoundError:
        return Answer(url, problem="there is no such socket", advice=_mount(unquote(parts.path)))
    except gaierror:
        return Answer(url, problem=f"{parts.hostname!r} has no address", advice=_CORRECT)
    except OSError as error:
        return Answer(url, problem=describe(error), advice=_START)
    except ValueError as error:
        return Answer(url, problem=str(error), advice=_CORRECT)
    sent = _send() if send else None
    if status == 404:
        return Answer(url, advice="an Agent of 2021 or later answers at /info: update it", sent=sent)
    try:
        info = json.loads(body)
        version, endpoints = str(info.get("version", "")), tuple(map(str, info.get("endpoints", ())))
    except (ValueError, AttributeError):
        return Answer(url, problem="what answers is no Datadog Agent", advice=_CORRECT, sent=sent)
    advice = "" if "/v0.4/traces" in endpoints else "switch apm_config.enabled on in the Agent's datadog.yaml"
    return Answer(url, version, endpoints, advice=advice, sent=sent)


_CORRECT = "correct DD_AGENT_HOST or DD_TRACE_AGENT_URL"
_START = "start the Agent with APM on, or say where it is: DD_AGENT_HOST, or DD_TRACE_AGENT_URL"


def _mount(path: str) -> str:
    folder = Path(path).parent
    return f"mount the Agent's {folder} into this container" if not folder.exists() else _START


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
