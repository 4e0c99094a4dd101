"""Names the current trace and span on log records, so that Datadog shows logs beside their trace (protocol G.1).

Also what the DD_* variables say about this package's own log.
"""

from __future__ import annotations

import json
import logging
import sys
from copy import copy
from dataclasses import fields
from functools import cache
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import get_current_span
from wrapt import wrap_function_wrapper

from spanbridge.core.guard import logger, report
from spanbridge.exporters.datadog.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_installed: dict[str, str] | None = None


def log_context() -> dict[str, str]:
    """Answer `dd.trace_id`, `dd.span_id`, `dd.service`, `dd.env` and `dd.version` of this moment, for any logger."""
    try:
        context = get_current_span().get_span_context()
        trace_id = context.trace_id
        return {
            "dd.trace_id": f"{trace_id:032x}" if trace_id >> 64 else str(trace_id),
            "dd.span_id": str(context.span_id),
            **(_installed or _application()),
        }
    except Exception as error:
        report("naming the trace for a logger", error)
        return {}


@cache
def _application() -> dict[str, str]:
    return _of(Settings.from_environment())


def _of(settings: Settings) -> dict[str, str]:
    from spanbridge.exporters.datadog.mapping import inferred_service

    service = settings.service or inferred_service()
    return {"dd.service": service, "dd.env": settings.env, "dd.version": settings.version}


def inject_logs(settings: Settings | None = None) -> None:
    """Name trace and span on every record that `logging` makes from now on; further calls change nothing.

    What the application itself puts under these names stays. `%(dd.trace_id)s` and `{dd.trace_id}` both work.

    Args:
        settings: read from the environment when not given.
    """
    global _installed  # noqa: PLW0603
    if _installed is None:
        _installed = _of(settings or Settings.from_environment())
        wrap_function_wrapper(logging.Logger, "makeRecord", _make_record)
        wrap_function_wrapper(logging.StrFormatStyle, "_format", _format)


def _make_record(wrapped: Callable[..., Any], instance: Any, args: Any, kwargs: Any) -> Any:
    record = wrapped(*args, **kwargs)
    try:
        record.__dict__ |= log_context() | record.__dict__
    except Exception as error:
        report("naming the trace on log records", error)
    return record


class _Dotted:
    """Lets `{dd.trace_id}` find the attribute `dd.trace_id`."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self.__dict__.update({name[3:]: value for name, value in fields.items() if name.startswith("dd.")})


def _format(wrapped: Callable[..., Any], instance: Any, args: Any, kwargs: Any) -> Any:
    record = args[0] if args else kwargs["record"]
    try:
        if "dd" not in record.__dict__:
            record = copy(record)
            record.dd = _Dotted(record.__dict__)
    except Exception as error:
        report("formatting log records", error)
    return wrapped(record)


def set_up_own_log(settings: Settings) -> None:
    """Do what DD_TRACE_DEBUG, DD_TRACE_LOG_FILE and DD_TRACE_STARTUP_LOGS say."""
    handler: logging.Handler | None = None
    if settings.log_file:
        try:
            handler = logging.FileHandler(settings.log_file, delay=False)
        except OSError as error:
            logger.warning("DD_TRACE_LOG_FILE=%r cannot be written: %s", settings.log_file, error)
    elif (settings.debug or settings.startup_logs) and not logger.hasHandlers():
        handler = logging.StreamHandler(sys.stderr)
    if handler is not None:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logger.addHandler(handler)
    if settings.debug:
        logger.setLevel(logging.DEBUG)
    elif settings.startup_logs or settings.log_file:
        logger.setLevel(min(logger.getEffectiveLevel(), logging.INFO))
    if settings.startup_logs:
        values = {row.name: getattr(settings, row.name) for row in fields(settings)}
        logger.info("settings: %s", json.dumps(values, default=_plain))


def _plain(value: object) -> object:
    return sorted(value) if isinstance(value, (set, frozenset)) else str(value)
