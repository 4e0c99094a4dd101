"""Django: one SERVER span per request, WSGI or ASGI, named after the URL pattern, until the response is closed.

No setting is changed, so it does not matter whether settings, handlers or `instrument()` come first. Options that are
off: spans for middleware, views, templates and caches; Django's own view of its databases; the user's id.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from opentelemetry.context import attach, set_value
from opentelemetry.instrumentation.propagators import get_global_response_propagator

from spanbridge.conventions import detail, http, http_server, sqlcommenter
from spanbridge.conventions.http_server import SCOPE_KEY, Body, Server
from spanbridge.core.attributes import checked
from spanbridge.core.instrumentor import Instrumentor
from spanbridge.core.options import Option, boolean
from spanbridge.core.patching import Library, Patch
from spanbridge.core.tracing import observed, traced
from spanbridge.instrumentors import django_detail
from spanbridge.version import __version__ as __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest
    from django.urls import ResolverMatch

    from spanbridge.core.tracing import Scope, Setup, Wrapped


def _environ(request: HttpRequest) -> dict[str, Any]:
    """Answer the WSGI environ (PEP 3333); for ASGI what it would be."""
    found: dict[str, Any] | None = getattr(request, "environ", None)
    if found is not None:
        return found
    scope: dict[str, Any] = getattr(request, "scope", {})
    protocol = f"HTTP/{scope.get('http_version', '1.1')}"
    return {**request.META, "wsgi.url_scheme": scope.get("scheme") or "http", "SERVER_PROTOCOL": protocol}


def scope_of(request: HttpRequest) -> Scope[http_server.Request] | None:
    """Answer the scope of the request: ours, or that of a generic middleware around Django."""
    return http_server.scope_of(request.META) or http_server.scope_of(getattr(request, "scope", {}))


def _entrance(wrapped: Wrapped, setup: Setup) -> Wrapped:
    """All ways into Django lead through `get_response`: servers of both kinds, and the test clients."""
    read, copied = http_server.wsgi_describer(setup), http.copied(setup)
    request_hook = None if _hooked_late(setup) else http.hooked(setup, "request_hook")

    def describe(handler: Any, request: HttpRequest) -> http_server.Request | None:
        if scope_of(request) is not None:
            return None
        record = read(_environ(request))
        if record is not None:
            record.source = record.carrier = request.META
        return record

    def prepare(scope: Scope[http_server.Request]) -> None:
        request, span = scope.args[-1], scope.span
        request.META[SCOPE_KEY] = scope
        if span.is_recording():
            if copied is not None:
                span.set_attributes(copied(request))
            if request_hook is not None:
                request_hook(span, request)

    server = Server(setup, describe, name=_plain_name, request_hook=None, prepare=prepare)
    operation = replace(server.operation, stream=_answering(setup, server))
    return traced(wrapped, setup, operation)


def _plain_name(record: http_server.Request) -> str:
    return http.span_name(record.method)


def _answering(setup: Setup, server: Server) -> Callable[[Scope[http_server.Request], Any], Any]:
    """Compile what notes the response, and follows a streaming one."""
    name_after, user_id, contrib = _namer(setup), setup.options["user_id"], setup.semconv.contrib

    def answered(scope: Scope[http_server.Request], response: Any) -> Any:
        request, span = scope.args[-1], scope.span
        if scope.record.route is None:
            name_after(scope, request.resolver_match or _resolved(request, response))
        request.META.pop(SCOPE_KEY, None)
        server.responded(span, response.status_code, response.items)
        if (propagator := get_global_response_propagator()) is not None:  # type: ignore[no-untyped-call]
            propagator.inject(response)
        if span.is_recording():
            if not contrib:
                span.set_attributes(_classes(request.__class__, response.__class__))
            if (user := _user_of(request)) is not None:
                if not contrib:
                    span.set_attribute("django.user.is_authenticated", _is_authenticated(user))
                if user_id and (key := getattr(user, "pk", None)) is not None:
                    span.set_attribute("user.id", str(key))
            if server.response_hook is not None:
                server.response_hook(span, request, response)
        return _followed(scope, response) if getattr(response, "streaming", False) else None

    return answered


@lru_cache(maxsize=256)
def _classes(request: type, response: type) -> dict[str, Any]:
    """Name the classes of a request and of what was answered."""
    named = {"django.request.class": detail.dotted(request), "django.response.class": detail.dotted(response)}
    return checked(named)


def _resolved(request: HttpRequest, response: Any) -> ResolverMatch | None:
    """Match a request that a middleware has answered before Django came to it."""
    if response.status_code == 404:
        return None
    try:
        from django import urls
    except ImportError:  # before 1.10
        from django.core import urlresolvers as urls
    try:
        return urls.get_resolver(getattr(request, "urlconf", None)).resolve(request.path_info)
    except urls.Resolver404:
        return None


def _followed(scope: Scope[http_server.Request], response: Any) -> Any:
    """Keep the span open until a streaming response is done; the response stays the same object."""
    if getattr(response, "is_async", False):
        response.streaming_content = scope.carry_on(response.streaming_content)
    elif (file := getattr(response, "file_to_stream", None)) is None:
        response.streaming_content = Body(scope, response.streaming_content)
    elif _before_3():
        Body(scope, file).watch()  # servers send files by themselves, and close nothing else
    Body(scope, response).watch()
    return response


def _before_3() -> bool:
    from django import VERSION

    return bool(VERSION < (3,))


def _user_of(request: HttpRequest) -> Any:
    """Answer the user whom the application has looked up, or named itself; never look one up."""
    known = request.__dict__
    user = known.get("user")
    if user is None or hasattr(type(user), "_wrapped"):  # a lazy one, which looks once it is asked for anything
        user = known.get("_cached_user") or known.get("_acached_user")
    return user


def _is_authenticated(user: Any) -> str:
    said = getattr(user, "is_authenticated", False)
    return str(bool(said() if callable(said) else said))  # a method before Django 1.10


def _namer(setup: Setup) -> Callable[[Scope[http_server.Request], ResolverMatch | None], None]:
    """Compile what names a request's span after the pattern that has matched."""
    contrib, handler = setup.semconv.contrib, setup.options["handler"]

    def name_after(scope: Scope[http_server.Request], match: ResolverMatch | None) -> None:
        if match is None:
            return
        route = getattr(match, "route", None)  # since Django 2.2
        if not contrib:
            more = {"django.view": match.view_name}
            if match.namespace:
                more["django.namespace"] = match.namespace
            if match.app_name:
                more["django.app"] = match.app_name
            if handler:
                more |= detail.code(getattr(match.func, "view_class", match.func))
            http_server.matched(scope, (match.view_name if route is None else route) or "/", more)
        elif route or match.url_name:
            http_server.matched(scope, route or None)
            if scope.span.is_recording():
                method = scope.record.method
                scope.span.update_name(http.span_name(method, None if method == "_OTHER" else route or match.url_name))

    return name_after


def _hooked_late(setup: Setup) -> bool:
    """Say whether contrib's middleware would stand behind others, whose work `request_hook` then sees."""
    return bool(setup.options["middleware_position"]) and "resolve_request" in vars(_base_handler())


def _base_handler() -> Any:
    from django.core.handlers.base import BaseHandler

    return BaseHandler


def _routing(wrapped: Wrapped, setup: Setup) -> Wrapped:
    """Django has matched the request, behind all middleware and before the view."""
    name_after, comment = _namer(setup), django_detail.commenter_tags(setup)
    request_hook = http.hooked(setup, "request_hook") if _hooked_late(setup) else None

    def after(match: ResolverMatch, handler: Any, request: HttpRequest) -> None:
        scope = scope_of(request)
        if scope is None:
            return
        name_after(scope, match)
        if request_hook is not None and scope.span.is_recording():
            request_hook(scope.span, request)
        if comment is not None:
            # Ends with the scope: leaving it resets the context to what it was before.
            attach(set_value(sqlcommenter.FRAMEWORK_TAGS, comment(match)))

    return observed(wrapped, setup, after=after)


def _failing(wrapped: Wrapped, setup: Setup) -> Wrapped:
    """Keep the exception that Django is about to answer with a page, for nothing raises it any further."""

    def before(*args: Any, **kwargs: Any) -> None:
        request, _, exc_info = args[-3:]
        if (scope := scope_of(request)) is not None:
            scope.record.error = exc_info[1]

    return observed(wrapped, setup, before=before)


class DjangoInstrumentor(Instrumentor):
    """Traces Django, whenever its settings and handlers are made.

    Hooks: `request_hook(span, request)`, called before the first middleware (behind them all with a
    `middleware_position` other than 0); `response_hook(span, request, response)`.
    """

    library = Library("django", ("django >= 1.8",), tested="6.1.3")
    options = (
        http.EXCLUDED_URLS,
        http.TRACED_REQUEST_ATTRS,
        *http.optional_hooks(("request_hook", "(span, request)"), ("response_hook", "(span, request, response)")),
        Option(
            "middleware_position",
            0,
            "Call `request_hook` behind the middleware, unless 0. (No middleware of ours is added to the settings.)",
            int,
            ("OTEL_PYTHON_DJANGO_MIDDLEWARE_POSITION",),
        ),
        Option("handler", False, "Note the view as `code.function.name`.", boolean),
        Option("user_id", False, "Note the id of the user whom the application has looked up.", boolean),
        *django_detail.OPTIONS,
    )
    patches = (
        Patch("django.core.handlers.base", "BaseHandler.get_response", _entrance),
        Patch("django.core.handlers.base", "BaseHandler.get_response_async", _entrance),
        Patch("django.core.handlers.base", "BaseHandler.resolve_request", _routing),
        Patch("django.core.handlers.exception", "handle_uncaught_exception", _failing),
        Patch("django.core.handlers.base", "BaseHandler.handle_uncaught_exception", _failing),  # before 1.10
        *django_detail.PATCHES,
    )
