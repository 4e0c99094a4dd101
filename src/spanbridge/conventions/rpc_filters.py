"""Filters of gRPC calls: each takes a call's details (`full_method` or `method`) and says whether it is traced.

Names are those of OpenTelemetry contrib's module `filters`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Condition = Callable[[Any], bool]


def _full_method(details: Any) -> str:
    method = getattr(details, "full_method", None) or getattr(details, "method", "")
    return method.decode() if isinstance(method, bytes) else str(method)


def _split(details: Any) -> tuple[str, str]:
    service, _, method = _full_method(details).lstrip("/").rpartition("/")
    return service, method


def all_of(*args: Condition) -> Condition:
    """Pass what every one of `args` passes."""
    return lambda details: all(condition(details) for condition in args)


def any_of(*args: Condition) -> Condition:
    """Pass what any of `args` passes."""
    return lambda details: any(condition(details) for condition in args)


def negate(func: Condition) -> Condition:
    """Pass what `func` does not."""
    return lambda details: not func(details)


def method_name(name: str) -> Condition:
    """Pass calls of the method `name`, of whatever service."""
    return lambda details: _split(details)[1] == name


def method_prefix(prefix: str) -> Condition:
    """Pass calls of methods whose names begin with `prefix`."""
    return lambda details: _split(details)[1].startswith(prefix)


def full_method_name(name: str) -> Condition:
    """Pass calls of `/package.Service/Method`."""
    return lambda details: _full_method(details) == name


def service_name(name: str) -> Condition:
    """Pass calls of the service `package.Service`."""
    return lambda details: _split(details)[0] == name


def service_prefix(prefix: str) -> Condition:
    """Pass calls of services whose names begin with `prefix`."""
    return lambda details: _split(details)[0].startswith(prefix)


def health_check() -> Condition:
    """Pass health checks (https://github.com/grpc/grpc/blob/master/doc/health-checking.md)."""
    return service_prefix("grpc.health.v1.Health")
