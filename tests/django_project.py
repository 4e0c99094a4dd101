"""One Django for the whole test run: its settings can be configured once in a process."""

from __future__ import annotations

import re
import sys
import warnings
from importlib import import_module
from importlib.util import find_spec, spec_from_loader
from types import ModuleType
from typing import Any

with warnings.catch_warnings():  # old Django imports what Python has deprecated since
    warnings.simplefilter("ignore")
    for name in ("core.handlers.wsgi", "http", "template", "test", "conf.urls", "views"):
        import_module(f"django.{name}")

for finder in sys.meta_path:
    # That of old Django's six, which lacks what newer ones have.
    if hasattr(finder, "known_modules") and not hasattr(finder, "find_spec"):
        known: Any = finder
        known.find_spec = lambda name, *_, of=known: spec_from_loader(name, of) if name in of.known_modules else None
        known.create_module = lambda spec, of=known: of.load_module(spec.name)
        known.exec_module = lambda module: None

import django  # noqa: E402
from django.conf import settings  # noqa: E402

if django.VERSION >= (2,):
    from django.urls import include, path, re_path
else:
    from django.conf.urls import include as _include
    from django.conf.urls import url as re_path

    _CONVERTERS = {"int": "[0-9]+", "slug": "[-a-zA-Z0-9_]+", "str": "[^/]+"}

    def include(target: Any, namespace: str | None = None) -> Any:
        patterns, app = target if isinstance(target, tuple) else (target, None)
        return _include(patterns, namespace=namespace, app_name=app)

    def path(template: str, view: Any, name: str | None = None) -> Any:
        """Make the pattern that newer ones make of a template; what it has no name for is named as it is there."""
        regex = re.sub("<([a-z]+):([a-z]+)>", lambda found: f"(?P<{found[2]}>{_CONVERTERS[found[1]]})", template)
        end = "" if isinstance(view, (tuple, list)) else "$"
        return re_path(f"^{regex}{end}", view, name=name or template or "/")


DATABASE = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}


def configure() -> None:
    """Configure Django, unless another test has."""
    if settings.configured:
        return
    apps = [f"django.contrib.{name}" for name in ("admin", "auth", "contenttypes", "messages", "sessions")]
    settings.configure(
        SECRET_KEY="secret",
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=urls(),
        DATABASES={"default": DATABASE, "other": DATABASE},
        CACHES={"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}},
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
        INSTALLED_APPS=[*apps, "rest_framework"] if find_spec("rest_framework") else apps,
        LOGGING_CONFIG=None,
        STATIC_URL="/static/",
        USE_TZ=True,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        django.setup()
        if "rest_framework" in settings.INSTALLED_APPS:
            for name in ("decorators", "routers", "test", "viewsets"):
                import_module(f"rest_framework.{name}")


def urls(*patterns: Any) -> ModuleType:
    """Make a URL configuration of patterns."""
    module = ModuleType("urls")
    module.urlpatterns = list(patterns)
    return module
