"""What Django's instrumentor does only when asked: SQL comments, and spans for the parts of a request."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import lru_cache, partial, wraps
from importlib.metadata import version
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any

from opentelemetry.context import get_current
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from spanbridge.conventions import database, detail, sqlcommenter
from spanbridge.core.failure import record_failure
from spanbridge.core.guard import report
from spanbridge.core.options import Option, boolean
from spanbridge.core.patching import Patch
from spanbridge.core.tracing import DATABASE, traced

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.urls import ResolverMatch
    from opentelemetry.trace import Span

    from spanbridge.core.tracing import Setup, Wrapped

_CACHE_METHODS = ("get", "get_many", "add", "set", "set_many", "delete", "delete_many", "incr", "decr", "touch")
_SYSTEMS = {"oracle": "oracle.db", "microsoft": "microsoft.sql_server"}
_propagator = TraceContextTextMapPropagator()


# SQL comments: what contrib's middleware does, without one.


def commenter_tags(setup: Setup) -> Callable[[ResolverMatch], dict[str, Any]] | None:
    """Compile what tells SQL comments about a route; None where there are to be none."""
    if not setup.options["is_sql_commentor_enabled"]:
        return None

    def tags(match: ResolverMatch) -> dict[str, Any]:
        found = {"controller": match.view_name, "route": match.route, "app_name": match.app_name or None}
        return {key: value for key, value in found.items() if _wants(key)}

    return tags


def _wants(key: str) -> bool:
    """Ask contrib's Django settings, such as SQLCOMMENTER_WITH_ROUTE."""
    from django.conf import settings

    return bool(getattr(settings, f"SQLCOMMENTER_WITH_{key.upper()}", True))


def _commenting(wrapped: Wrapped, setup: Setup) -> Wrapped:
    if not setup.options["is_sql_commentor_enabled"]:
        return wrapped
    source, framework = setup.source, f"django:{version('django')}"

    def commented(cursor: Any, sql: Any) -> Any:
        tags = {"framework": framework, "db_driver": cursor.db.settings_dict.get("ENGINE", "")}
        found = {key: value for key, value in tags.items() if _wants(key)}
        if _wants("opentelemetry"):
            _propagator.inject(found)
        framework_tags: Any = get_current().get(sqlcommenter.FRAMEWORK_TAGS)
        text = sqlcommenter.comment({**found, **(framework_tags or {})})
        return sqlcommenter.append(sql, text, cursor.cursor)

    @wraps(wrapped)
    def execute(self: Any, sql: Any, *args: Any, **kwargs: Any) -> Any:
        if source.tracer is not None:
            try:
                sql = commented(self, sql)
            except Exception as error:
                report("django: commenting a statement", error)
        return wrapped(self, sql, *args, **kwargs)

    return execute


# Details, each an option.


def _middleware(wrapped: Wrapped, setup: Setup) -> Wrapped:
    """What is made of each middleware, and of the view's end of the chain, when the handler is loaded."""
    if not setup.options["middleware_spans"]:
        return wrapped

    @wraps(wrapped)
    def convert(get_response: Any) -> Any:
        handler = wrapped(get_response)
        if getattr(get_response, "__name__", "") in {"_get_response", "_get_response_async", "_legacy_get_response"}:
            return handler
        attributes = detail.code(get_response, "" if hasattr(get_response, "__qualname__") else "__call__")
        return traced(handler, setup, detail.operation("django.middleware", lambda request: attributes))

    return convert


def _view(wrapped: Wrapped, setup: Setup) -> Wrapped:
    if not setup.options["view_spans"]:
        return wrapped
    from django.core import exceptions
    from django.http import Http404

    answered = tuple(getattr(exceptions, name, Http404) for name in ("PermissionDenied", "SuspiciousOperation"))

    def failed(span: Span, record: Any, error: BaseException) -> None:
        if not isinstance(error, (Http404, *answered)):
            record_failure(span, error)

    def attributes(view: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return detail.code(getattr(view, "view_class", None) or getattr(view, "cls", None) or view)

    operation = detail.operation("django.view", attributes, failed=failed)
    asgiref = sys.modules.get("asgiref.sync")
    is_async = getattr(asgiref, "iscoroutinefunction", iscoroutinefunction)

    def call(view: Any, *args: Any, **kwargs: Any) -> Any:
        return view(*args, **kwargs)

    async def call_async(view: Any, *args: Any, **kwargs: Any) -> Any:
        return await view(*args, **kwargs)

    plain, coroutine = traced(call, setup, operation), traced(call_async, setup, operation)

    @wraps(wrapped)
    def make_view_atomic(self: Any, view: Any) -> Any:
        made = wrapped(self, view)
        return partial(coroutine if is_async(made) else plain, made)

    return make_view_atomic


def _template_name(template: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
    return {"template.name": getattr(template, "name", None) or "<memory>"}


def _cache(wrapped: Wrapped, setup: Setup) -> Wrapped:
    """A cache is made for each thread: trace its methods."""
    if not setup.options["cache_spans"]:
        return wrapped

    @wraps(wrapped)
    def create(*args: Any, **kwargs: Any) -> Any:
        cache = wrapped(*args, **kwargs)
        try:
            for method in _CACHE_METHODS:
                if (original := getattr(cache, method, None)) is not None:
                    attributes = {
                        "code.function.name": f"{original.__module__}.{method}",
                        "django.cache.backend": detail.dotted(type(cache)),
                    }
                    operation = detail.operation("django.cache", lambda *_, found=attributes, **__: found, DATABASE)
                    setattr(cache, method, traced(original, setup, operation))
        except Exception as error:
            report("django: tracing a cache", error)
        return cache

    return create


@lru_cache(maxsize=64)
def _target(vendor: str, name: str, user: str, host: str, port: str) -> database.Target:
    number = int(port) if port.isdigit() else None
    return database.Target(_SYSTEMS.get(vendor, vendor), name or None, user or None, host or None, number)


def _statement(wrapped: Wrapped, setup: Setup) -> Wrapped:
    """Django's cursors stand above the drivers': their spans take the drivers' place."""
    if not setup.options["database_spans"]:
        return wrapped

    def describe(cursor: Any, sql: Any, params: Any = None) -> database.Query:
        connection = cursor.db
        fields = (str(connection.settings_dict.get(key) or "") for key in ("NAME", "USER", "HOST", "PORT"))
        batch = database.batch_size(params) if wrapped.__name__ == "executemany" else None
        target = _target(connection.vendor, *fields)
        text = database.text_of(sql, cursor.cursor)
        return database.Query(target, text, batch=batch, parameters=params, cursor=cursor)

    def opened(span: Span, query: database.Query) -> None:
        connection = query.cursor.db
        span.set_attributes({"django.db.alias": connection.alias, "django.db.vendor": connection.vendor})

    return traced(wrapped, setup, replace(database.operation(setup, describe), opened=opened))


OPTIONS: tuple[Option[Any], ...] = (
    Option("is_sql_commentor_enabled", False, "Append framework, route and trace to SQL statements.", boolean),
    detail.option("middleware_spans", "each middleware, from the next load of the handler"),
    detail.option("view_spans", "each view"),
    detail.option("template_spans", "each rendering of a template"),
    detail.option("cache_spans", "each call of a cache that is made from then on, instead of its client's spans"),
    detail.option("database_spans", "each statement with its alias, instead of the driver's own span"),
)
PATCHES = (
    Patch("django.core.handlers.exception", "convert_exception_to_response", _middleware),
    Patch("django.core.handlers.base", "BaseHandler.make_view_atomic", _view),
    Patch(
        "django.template.base",
        "Template.render",
        detail.detail("django.template.render", "template_spans", _template_name),
    ),
    Patch("django.core.cache", "CacheHandler.create_connection", _cache),
    Patch("django.core.cache", "_create_cache", _cache),  # before 3.2
    Patch("django.db.backends.utils", "CursorWrapper.execute", _statement),
    Patch("django.db.backends.utils", "CursorWrapper.executemany", _statement),
    Patch("django.db.backends.utils", "CursorWrapper._execute", _commenting),
    Patch("django.db.backends.utils", "CursorWrapper._executemany", _commenting),
)
