"""Options: declared once, set by keyword, by environment, or by a vendor's variables; wrong values get one warning."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from os import environ
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from spanbridge.core.guard import first_time, logger, report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

T = TypeVar("T")


def boolean(raw: str) -> bool:
    """Read `true`/`1`/`yes`/`on` or `false`/`0`/`no`/`off`, in any case.

    Raises:
        ValueError: for anything else.
    """
    word = raw.strip().lower()
    if word in {"true", "1", "yes", "on"}:
        return True
    if word in {"false", "0", "no", "off", ""}:
        return False
    raise ValueError("expected true or false")


def words(raw: str) -> tuple[str, ...]:
    """Split a comma-separated list; blanks around items and empty items are dropped."""
    return tuple(word for part in raw.split(",") if (word := part.strip()))


def from_environment(names: Iterable[str], convert: Callable[[str], T], default: T) -> T:
    """Read the first variable of `names` that is set to something other than blanks.

    Args:
        names: environment variables, the strongest first.
        convert: turns the text into a value; a ValueError means that the text is wrong.
        default: what is used when none is set, or when the text is wrong (then one warning says so).
    """
    for name in names:
        raw = environ.get(name)
        if raw is None or not raw.strip():
            continue
        try:
            return convert(raw)
        except ValueError as error:
            if first_time(f"environment:{name}={raw}"):
                logger.warning("%s=%r is not usable (%s); using %r instead", name, raw, error, default)
            return default
    return default


@dataclass(frozen=True)
class Option(Generic[T]):
    """One option of an integration: the keyword of `instrument()`, its environment twin, its row in the docs.

    Args:
        name: the keyword; SPANBRIDGE_<INTEGRATION>_<NAME> is its variable.
        default: the value when nobody says otherwise.
        doc: one sentence for the documentation.
        convert: reads the variable's text; None for options that only code can set, such as hooks.
        variables: further variables, in order of strength; `{NAME}` stands for the integration's name in capitals.
        setting: the key below which a vendor's settings may carry it (`name` by default).
    """

    name: str
    default: T
    doc: str
    convert: Callable[[str], T] | None = None
    variables: tuple[str, ...] = ()
    setting: str = ""

    def variables_for(self, integration: str) -> tuple[str, ...]:
        """Name the variables that set this option for `integration`, the strongest first."""
        if self.convert is None:
            return ()
        capital = integration.upper()
        own = f"SPANBRIDGE_{capital}_{self.name.upper()}"
        return (own, *(variable.replace("{NAME}", capital) for variable in self.variables))

    def resolve(self, integration: str, keywords: Mapping[str, Any]) -> T:
        """Answer the value for `integration`: keyword, then environment, then vendor settings, then the default."""
        value = keywords.get(self.name)
        if value is not None:
            return value  # type: ignore[no-any-return]
        default = setting(f"integrations.{integration}.{self.setting or self.name}", self.default)
        if self.convert is None:
            return default
        return from_environment(self.variables_for(integration), self.convert, default)


def hook(signature: str, name: str = "request_hook") -> Option[Callable[..., Any] | None]:
    """Declare a user's callback, called guarded with `signature`; only code can set it."""
    return Option(name, None, f"Called as `{name}{signature}`; what it raises is logged and swallowed.")


def resolve_all(options: Iterable[Option[Any]], integration: str, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Resolve every option; a keyword that no option answers to gets one warning with the nearest name."""
    values = {option.name: option.resolve(integration, keywords) for option in options}
    for name in keywords:
        if name not in values:
            near = get_close_matches(name, values, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            logger.warning("%s: unknown option %r is ignored%s", integration, name, hint)
    return values


_settings: dict[str, Any] = {}
_vendors_loaded = False


def setting(key: str, default: T) -> T:
    """Answer a process-wide setting under its neutral key, such as `http.header_tags`."""
    if not _vendors_loaded:
        load_vendor_settings()
    return _settings.get(key, default)  # type: ignore[no-any-return]


def apply_settings(settings: Mapping[str, Any]) -> None:
    """Replace the process-wide settings (the launcher and tests call this)."""
    global _vendors_loaded  # noqa: PLW0603
    _settings.clear()
    _settings.update(settings)
    _vendors_loaded = True


def load_vendor_settings() -> None:
    """Read the settings that installed vendors translate from their own variables (group `spanbridge_settings`)."""
    from opentelemetry.util._importlib_metadata import entry_points

    settings: dict[str, Any] = {}
    for entry_point in entry_points(group="spanbridge_settings"):
        try:
            settings.update(entry_point.load()())
        except Exception as error:
            report(f"settings of {entry_point.name}", error)
    apply_settings(settings)
