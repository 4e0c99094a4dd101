"""The base of every instrumentor: presence, versions, switches, idempotence, undo and status, inherited by all."""

from __future__ import annotations

from logging import DEBUG, ERROR
from os import environ
from threading import RLock
from typing import TYPE_CHECKING, Any, ClassVar

from opentelemetry.instrumentation.dependencies import DependencyConflict, DependencyConflictError
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]
from packaging.version import InvalidVersion, Version

from spanbridge.core import semconv
from spanbridge.core.guard import first_time, logger, report
from spanbridge.core.options import Option, boolean, from_environment, resolve_all, setting, words
from spanbridge.core.patching import Installation, Library, Patch, patch_object, unpatch_object
from spanbridge.core.status import IntegrationStatus, State
from spanbridge.core.tracing import Setup, TracerSource

if TYPE_CHECKING:
    from collections.abc import Collection

PROVIDERS: tuple[Option[Any], ...] = (
    Option("tracer_provider", None, "The TracerProvider to use instead of the global one."),
    Option("meter_provider", None, "Accepted for compatibility with OpenTelemetry contrib; no metrics are recorded."),
)


# contrib's own name for it, so that the two notice each other: True once instrumented, False once taken out.
MARK = "_is_instrumented_by_opentelemetry"


class Instrumentor(BaseInstrumentor):  # type: ignore[misc]
    """An instrumentor is two facts: where (`patches`) and what (their describers). All else is inherited.

    `instrument()` never raises: under `opentelemetry-instrument` an exception would stop every later instrumentor.
    """

    library: ClassVar[Library]
    patches: ClassVar[tuple[Patch, ...]] = ()
    options: ClassVar[tuple[Option[Any], ...]] = ()
    name: ClassVar[str] = ""
    scope: ClassVar[str] = ""
    """The scope of its spans, except in `contrib` mode; the module's name where a module holds one instrumentor."""

    database_alone: ClassVar[bool] = False
    """Whether the database signal decides about all names, as contrib has it for a few libraries."""

    _is_instrumented_by_opentelemetry: bool = False
    _installation: Installation | None = None
    # One installation at a time: two of the same patches could not be told apart when they are taken back.
    _turn = RLock()
    _state: tuple[State, str] = (State.DISABLED, "instrument() has not been called")

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._instance = None  # one instance per class: BaseInstrumentor would find that of a parent
        cls.name = cls.__dict__.get("name") or cls.__module__.rpartition(".")[2]

    def instrumentation_dependencies(self) -> Collection[str]:
        """Name the distribution that is installed, as a requirement; all that would do, when none is."""
        requirement, found = self.library.installed()
        return (str(requirement),) if requirement is not None and found else self.library.requires

    def instrument(self, **kwargs: Any) -> Any:
        """Patch the library, now or as soon as the application imports it.

        Args:
            **kwargs: `tracer_provider`, `meter_provider`, `skip_dep_check`, `raise_exception_on_conflict`, and the
                options that the class declares.

        Raises:
            DependencyConflictError: only if `raise_exception_on_conflict` asks for it.
        """
        with self._turn:
            return self._instrument_now(**kwargs)

    def uninstrument(self, **kwargs: Any) -> Any:
        """Take the patches back."""
        with self._turn:
            return super().uninstrument(**kwargs)

    def _instrument_now(self, **kwargs: Any) -> Any:
        if self._is_instrumented_by_opentelemetry:
            logger.warning("%s: attempting to instrument while already instrumented", self.name)
            return None
        skip_check = kwargs.pop("skip_dep_check", False)
        raise_conflict = kwargs.pop("raise_exception_on_conflict", False)
        try:
            if off := switched_off(self.name):
                self._state = (State.DISABLED, off)
                return None
            if conflict := self._conflict(check_version=not skip_check):
                if raise_conflict:
                    raise DependencyConflictError(conflict)  # noqa: TRY301
                logger.log(DEBUG if skip_check else ERROR, "%s: %s: %s", self.name, *self._state)
                return None
            result = self._instrument(**kwargs)
            self._is_instrumented_by_opentelemetry = True
        except DependencyConflictError:
            raise
        except Exception as error:
            self._state = (State.FAILED, f"{type(error).__name__}: {error}")
            report(f"{self.name}: instrument()", error)
            return None
        return result

    def _conflict(self, *, check_version: bool) -> DependencyConflict | None:
        """Look for the library; its version costs a file read, so under the launcher it waits for the import."""
        required = self.library.requires[0] if self.library.requires else self.library.module
        if not self.library.present():
            self._state = (State.NOT_INSTALLED, f"no module named {self.library.module!r}")
            return DependencyConflict(required)
        if check_version and (reason := self.library.too_old()):
            self._state = (State.TOO_OLD, reason)
            return DependencyConflict(required, self.library.installed()[1])
        return None

    def setup(self, **kwargs: Any) -> Setup:
        """Decide everything that an `instrument()` call, or a helper for one object, can decide beforehand."""
        options = resolve_all((*PROVIDERS, *self.options), self.name, kwargs)
        names = semconv.from_env().by_database() if self.database_alone else semconv.from_env()
        scope = type(self).__module__ if names.contrib or not self.scope else self.scope
        source = TracerSource(scope, names.schema_url, options["tracer_provider"])
        return Setup(self.name, source, names, options)

    def _instrument(self, **kwargs: Any) -> Any:
        self._installation = Installation(self.patches, self.setup(**kwargs), self._refuse)

    def instrument_object(self, target: Any, **kwargs: Any) -> Setup | None:
        """Trace one object only, such as an application or a client.

        Args:
            target: the object.
            **kwargs: as of `instrument()`.

        Returns:
            What was decided; None if the object is instrumented already.
        """
        if getattr(target, MARK, False):
            logger.warning("%s: attempting to instrument an object while already instrumented", self.name)
            return None
        setup = self.setup(**kwargs)
        self._patch_object(target, setup)
        setattr(target, MARK, True)
        return setup

    def uninstrument_object(self, target: Any) -> bool:
        """Trace one object no more; answer False if that was so already."""
        if getattr(target, MARK, None) is False:
            logger.warning("%s: attempting to uninstrument an object while already uninstrumented", self.name)
            return False
        self._unpatch_object(target)
        setattr(target, MARK, False)
        return True

    def _patch_object(self, target: Any, setup: Setup) -> None:
        patch_object(target, self.patches, setup)

    def _unpatch_object(self, target: Any) -> None:
        unpatch_object(target, self.patches)

    def _refuse(self) -> str:
        """Check the version when the library has been imported; say once if it is newer than the tested ones."""
        if reason := self.library.too_old():
            logger.info("%s is not instrumented: %s", self.name, reason)
            return reason
        if self.library.tested and first_time(f"newer:{self.name}"):
            found = self.library.installed()[1]
            if _newer(found, self.library.tested):
                logger.info("%s: %s is newer than the newest tested, %s", self.name, found, self.library.tested)
        return ""

    def _uninstrument(self, **kwargs: Any) -> None:
        installation, self._installation = self._installation, None
        if installation is not None:
            installation.close()
        self._state = (State.DISABLED, "uninstrument() has been called")

    def status(self) -> IntegrationStatus:
        """Say what this integration is doing, and why; imports nothing."""
        state, reason = self._state
        patches = tuple(self._installation.states.values()) if self._installation else ()
        if self._installation is not None:
            states = {patch.state for patch in patches}
            if State.ACTIVE in states or not states:
                state, reason = State.ACTIVE, ""
            elif self._installation.refused:
                state, reason = State.TOO_OLD, self._installation.refused
            elif State.WAITING in states:
                state, reason = State.WAITING, f"{self.library.module} is not imported"
                if old := self.library.too_old():
                    state, reason = State.TOO_OLD, old
            else:
                state, reason = State.FAILED, "; ".join(f"{row.target}: {row.reason}" for row in patches)
        elif state is State.DISABLED and not self.library.present():
            state, reason = State.NOT_INSTALLED, f"no module named {self.library.module!r}"
        elif state is State.DISABLED:  # perhaps the launcher has not even called us
            reason = switched_off(self.name) or reason
        found = self.library.installed()[1]
        return IntegrationStatus(self.name, state, reason, found, self.library.requires, self.library.tested, patches)


def switched_off(name: str) -> str:
    """Say which setting switches the integration `name` off, or answer an empty string."""
    disabled = words(environ.get("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "").replace("-", "_"))
    if name in disabled or "*" in disabled:
        return "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS names it"
    if name in words(environ.get("SPANBRIDGE_DISABLED", "")):
        return "SPANBRIDGE_DISABLED names it"
    enabled = words(environ.get("SPANBRIDGE_ENABLED", ""))
    if enabled and name not in enabled:
        return "SPANBRIDGE_ENABLED does not name it"
    for_contrib = f"OTEL_PYTHON_{name.upper()}_INSTRUMENT"  # contrib has it for Django
    if environ.get(for_contrib, "").strip().lower() == "false":
        return f"{for_contrib} is false"
    default = setting(f"integrations.{name}.enabled", default=True)
    variable = f"SPANBRIDGE_{name.upper()}_ENABLED"
    if from_environment((variable,), boolean, default):
        return ""
    return f"{variable} is false" if default else setting(f"integrations.{name}.disabled_by", "a vendor's setting")


def _newer(found: str, tested: str) -> bool:
    try:
        return Version(found) > Version(tested)
    except InvalidVersion:
        return False
