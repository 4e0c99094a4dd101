"""The distro: loads instrumentors so that none stops another, and settles who instruments what."""

from __future__ import annotations

import sys
from os import environ, pathsep
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentelemetry.instrumentation import auto_instrumentation
from opentelemetry.instrumentation.distro import BaseDistro  # type: ignore[attr-defined]
from opentelemetry.util._importlib_metadata import entry_points

from spanbridge.core import spelling
from spanbridge.core.guard import logger, report
from spanbridge.core.options import from_environment

if TYPE_CHECKING:
    from opentelemetry.util._importlib_metadata import EntryPoint

_OURS = "spanbridge"
_THEIRS = "contrib"
_CHOICES = {"opentelemetry_distro": "OTEL_PYTHON_DISTRO", "opentelemetry_configurator": "OTEL_PYTHON_CONFIGURATOR"}


class SpanbridgeDistro(BaseDistro):  # type: ignore[misc]
    """Loads every instrumentor; of two with the same name only one: ours, unless SPANBRIDGE_PREFER=contrib."""

    initialized = False  # instrumentors have been loaded in this process, by whatever distro
    in_charge = False
    _passed_over: frozenset[str] = frozenset()

    def _configure(self, **kwargs: Any) -> None:
        choose_spanbridge()  # without the launcher's parent process, this settles at least the configurator
        SpanbridgeDistro.in_charge = True
        self._passed_over = _arbitrate()

    def load_instrumentor(self, entry_point: EntryPoint, **kwargs: Any) -> None:
        """Load one instrumentor and switch it on; a fault is reported and goes no further.

        Raises:
            ImportError: from the instrumentors of others; the launcher tells an absent library from a broken one.
        """
        if entry_point.value in self._passed_over:
            return
        try:
            entry_point.load()().instrument(**kwargs)
        except Exception as error:
            if isinstance(error, ImportError) and not _is_ours(entry_point):
                raise
            report(f"instrumentor {entry_point.name} ({entry_point.value})", error)


def choose_spanbridge() -> None:
    """Answer OpenTelemetry's question which distro and which configurator to load, where the user has not."""
    for variable in _CHOICES.values():
        environ.setdefault(variable, "spanbridge")


def before_instrumentors() -> None:
    """Report once which distro and configurator are in charge when spanbridge is not the only one installed.

    The launcher calls this (group `opentelemetry_pre_instrument`) whatever distro it has loaded.
    """
    if SpanbridgeDistro.initialized:
        return
    SpanbridgeDistro.initialized = True
    rivals = sorted({_distribution(entry) for group in _CHOICES for entry in entry_points(group=group)} - {_OURS})
    if not rivals:
        return
    chosen = " ".join(f"{variable}={environ.get(variable, '')}" for variable in _CHOICES.values())
    names = ", ".join(rivals)
    if SpanbridgeDistro.in_charge or environ.get("OTEL_PYTHON_DISTRO", _OURS) != _OURS:
        logger.info("%s is installed beside spanbridge; in charge: %s", names, chosen)
    else:
        logger.warning(
            "%s was loaded before spanbridge, so spans may not reach the Agent; "
            "set OTEL_PYTHON_DISTRO=spanbridge and OTEL_PYTHON_CONFIGURATOR=spanbridge",
            names,
        )


def after_instrumentors() -> None:
    """Say what is wrong with the names in the environment, and report on the process when it is asked to.

    The launcher calls this last (group `opentelemetry_post_instrument`), when provider and instrumentors are there.
    """
    try:
        _trace_children()
        spelling.warn_once()
        if "SPANBRIDGE_DEBUG" in environ or "SPANBRIDGE_DOCTOR_FOLDER" in environ:
            from spanbridge.doctor.report import at_start

            at_start()
    except Exception as error:
        report("reporting at the start", error)


def _trace_children() -> None:
    """Have Python processes that this one starts (spawned workers, subprocesses) begin as it did.

    The launcher takes its directory out of PYTHONPATH; only its later versions put it back.
    """
    home = str(Path(auto_instrumentation.__file__).absolute().parent)  # as the launcher writes it
    paths = [path for path in environ.get("PYTHONPATH", "").split(pathsep) if path]
    if home in sys.path and home not in paths:
        environ["PYTHONPATH"] = pathsep.join([home, *paths])


def _arbitrate() -> frozenset[str]:
    """Pick one of every pair of same-named instrumentors; answer the targets of those that are passed over."""
    entries = tuple(entry_points(group="opentelemetry_instrumentor"))
    ours = {entry.name for entry in entries if _is_ours(entry)}
    rivals = {entry.name for entry in entries if not _is_ours(entry)} & ours
    if not rivals:
        return frozenset()
    winner = from_environment(["SPANBRIDGE_PREFER"], _preference, _OURS)
    other = _THEIRS if winner == _OURS else _OURS
    logger.info(
        "instrumented twice over: %s; %s is loaded (SPANBRIDGE_PREFER=%s changes that)",
        ", ".join(sorted(rivals)),
        winner,
        other,
    )
    return frozenset(entry.value for entry in entries if entry.name in rivals and _is_ours(entry) != (winner == _OURS))


def _preference(raw: str) -> str:
    word = raw.strip().lower()
    if word not in {_OURS, _THEIRS}:
        raise ValueError("expected spanbridge or contrib")
    return word


def _is_ours(entry_point: EntryPoint) -> bool:
    return entry_point.value.startswith("spanbridge.")


def _distribution(entry_point: EntryPoint) -> str:
    return entry_point.dist.name if entry_point.dist else entry_point.value.partition(":")[0]
