"""Pytest plugin: what contrib's tests import as `opentelemetry.instrumentation.<library>` is ours."""

from __future__ import annotations

import importlib
import sys
import unittest
from contextlib import suppress
from types import ModuleType
from typing import TYPE_CHECKING, Any
from unittest import mock

import opentelemetry.instrumentation
import pytest
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor
from scope import LIBRARY_AS_GLOBAL, MODULES, PRIVATE_NAMES, PRIVATE_SUBMODULES

from spanbridge.conventions.dbapi import Promise
from spanbridge.core import guard

if TYPE_CHECKING:
    from collections.abc import Iterator

_CONTRIB = "opentelemetry.instrumentation"
_OURS = "spanbridge.instrumentors"


class _ContextManager(Promise):
    """What aiopg's functions answer; contrib's tests build theirs with contrib's."""

    def __init__(self, coroutine: Any) -> None:
        super().__init__(coroutine, lambda yielded: yielded)


class _PoolAcquireContextManager(_ContextManager):
    def __init__(self, coroutine: Any, pool: Any) -> None:
        super().__init__(coroutine)
        self._pool = pool

    async def __aexit__(self, *error: object) -> None:
        await self._pool.release(self._yielded)


_LENT = {"_ContextManager": _ContextManager, "_PoolAcquireContextManager": _PoolAcquireContextManager}
"""What the suites take from contrib to build their mocks with."""


def _module_of(suite: str) -> str:
    return f"{_OURS}.{MODULES.get(suite, suite.replace('-', '_'))}"


def _put_ours_in_place() -> None:
    for suite, private_names in PRIVATE_NAMES.items():
        library = suite.replace("-", "_")
        try:
            module = importlib.import_module(_module_of(suite))
        except ImportError as error:  # its own suite fails at the collection then, the others tell something still
            print(f"{library}: {error}", file=sys.stderr)
            continue
        for name in private_names:
            if not hasattr(module, name):
                setattr(module, name, mock.MagicMock(name=name))
        if suite in LIBRARY_AS_GLOBAL:
            with suppress(ImportError):
                setattr(module, LIBRARY_AS_GLOBAL[suite], importlib.import_module(LIBRARY_AS_GLOBAL[suite]))
        sys.modules[f"{_CONTRIB}.{library}"] = module
        setattr(opentelemetry.instrumentation, library, module)
    for path, names in PRIVATE_SUBMODULES.items():
        stand_in = ModuleType(f"{_CONTRIB}.{path}")
        ours = sys.modules.get(f"{_CONTRIB}.{path.partition('.')[0]}")
        vars(stand_in).update({name: getattr(ours, name, _LENT.get(name, mock.MagicMock(name=name))) for name in names})
        sys.modules[stand_in.__name__] = stand_in
        parent, _, name = stand_in.__name__.rpartition(".")
        if parent in sys.modules:
            setattr(sys.modules[parent], name, stand_in)


def _translate_logger_names() -> None:
    """Our modules log to one logger; a test that waits for contrib's per-module logger means that one."""
    original = unittest.TestCase.assertLogs

    def assert_logs(self: unittest.TestCase, logger: Any = None, level: Any = None) -> Any:
        ours = isinstance(logger, str) and logger.startswith(f"{_CONTRIB}.")
        return original(self, guard.logger if ours else logger, level)

    unittest.TestCase.assertLogs = assert_logs  # type: ignore[method-assign,assignment]


def _translate_scope_names() -> None:
    """An instrumentation's scope is its module: a test that expects contrib's means ours."""
    original = unittest.TestCase.assertEqual

    def assert_equal(self: unittest.TestCase, first: Any, second: Any, msg: Any = None) -> None:
        if isinstance(first, str) and isinstance(second, str) and first.startswith(f"{_OURS}."):
            second = second.replace(_CONTRIB, _OURS, 1)
        original(self, first, second, msg)

    unittest.TestCase.assertEqual = assert_equal  # type: ignore[method-assign]


def _wait_longer() -> None:
    """Contrib's ASGI tests leave an application 10 ms for each message: too little on a machine that is busy."""
    try:
        from opentelemetry.test.asgitestutil import AsyncAsgiTestBase
    except ImportError:  # the environment of another suite, without asgiref
        return
    for method in (AsyncAsgiTestBase.get_output, AsyncAsgiTestBase.get_all_output):
        method.__defaults__ = (0.25,)


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """Let each test start as in a new process: faults are logged again, no failed test leaves us switched on."""
    guard.forget()
    yield
    for suite in PRIVATE_NAMES:
        name = _module_of(suite)
        for instrumentor in vars(sys.modules.get(name, object)).values():
            ours = isinstance(instrumentor, type) and instrumentor.__module__ == name
            if ours and issubclass(instrumentor, BaseInstrumentor) and instrumentor().is_instrumented_by_opentelemetry:
                instrumentor().uninstrument()


_put_ours_in_place()
_translate_logger_names()
_translate_scope_names()
_wait_longer()
