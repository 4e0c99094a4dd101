"""One Django for the whole test run: its settings can be configured once in a process."""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

with warnings.catch_warnings():  # old Django imports what Python has deprecated since
    warnings.simplefilter("ignore")
    for name in ("core.handlers.wsgi", "http", "template", "test", "urls", "views"):
        import_module(f"django.{name}")
sys.meta_path[:] = [finder for finder in sys.meta_path if hasattr(finder, "find_spec")]  # its six has one without

from django.conf import settings  # noqa: E402

DATABASE = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}


def configure() -> None:
    """Configure Django, unless another test has."""
    if settings.configured:
        return
    import django

    apps = ["django.contrib.contenttypes", "django.contrib.auth"]
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


def urls(*patterns: Any) -> ModuleType:
    """Make a URL configuration of patterns."""
    module = ModuleType("urls")
    module.urlpatterns = list(patterns)
    return module
