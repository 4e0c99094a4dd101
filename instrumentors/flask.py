"""Flask: one SERVER span per request, named after the URL rule, from the entrance to the last byte of the body.

Not traced by default: hooks, view functions, template rendering (jinja2 has its own instrumentor).
"""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from opentelemetry.context import attach, set_value

from spanbridge.conventions import detail, http, http_server
from spanbridge.core.attributes import PLAIN
from spanbridge.core.instrumentor import MARK, Instrumentor
from spanbridge.core.options import Option, boolean
from spanbridge.core.patching import Library, Patch
from spanbridge.core.tracing import observed
from spanbridge.version import __version__ as __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flask import Flask, Request, Response
    from opentelemetry.trace import TracerProvider

    from spanbridge.core.tracing import Scope, Setup, Wrapped

# Where SQL commenters (ours and contrib's) look for what the framework knows.
_COMMENTER_KEY = "SQLCOMMENTER_ORM_TAGS_AND_VALUES"


def _hooks(method: str) -> Callable[[Wrapped, Setup], Wrapped]:
    """Make the advice for a method that runs the application's functions of one kind."""
    return detail.detail(f"flask.{method}", "lifecycle_spans", lambda *args, **kwargs: {})


def _view(app: Flask, *args: Any, **kwargs: Any) -> dict[str, Any]:
    from flask import request

    view = app.view_functions.get(request.endpoint or "")
    return {} if view is None else detail.code(getattr(view, "view_class", view))


def _template(*args: Any) -> dict[str, Any]:
    template = next(arg for arg in args if hasattr(arg, "root_render_func"))  # where it stands depends on the version
    return {"template.name": template.name or "<memory>"}


def _finder() -> Callable[[], tuple[Scope[http_server.Request] | None, Request]]:
    """Compile what finds the scope of the request that Flask is working on, and Flask's request without its proxy."""
    from flask.globals import request

    current: Callable[[], Request] = request._get_current_object  # type: ignore[attr-defined]  # noqa: SLF001

    def find() -> tuple[Scope[http_server.Request] | None, Request]:
        found = current()
        return found.environ.get(http_server.SCOPE_KEY), found

    return find


def _routing(wrapped: Wrapped, setup: Setup) -> Wrapped:
    """Flask has matched the request: name the span, hand it to the user's hook."""
    request_hook = http.hooked(setup, "request_hook")
    contrib = setup.semconv.contrib
    find, comment = _finder(), _commenter(setup)

    def before(*args: Any, **kwargs: Any) -> None:
        scope, request = find()
        if scope is None:
            return
        rule = request.url_rule
        if rule is not None:
            http_server.matched(scope, rule.rule, {} if contrib else _found(rule, request.view_args))
        if request_hook is not None:
            request_hook(scope.span, request.environ)
        if comment is not None:
            # Ends with the scope: leaving it resets the context to what it was before.
            endpoint, route = (None, None) if rule is None else (rule.endpoint, rule.rule)
            attach(set_value(_COMMENTER_KEY, comment(endpoint, route)))

    return observed(_hooks("preprocess_request")(wrapped, setup), setup, before=before)


def _found(rule: Any, arguments: Mapping[str, Any] | None) -> dict[str, Any]:
    """Name what the request was matched with: the endpoint, and the values in the path."""
    found = {"flask.endpoint": rule.endpoint}
    for name, value in (arguments or {}).items():
        if type(value) in PLAIN:
            found[f"flask.view_args.{name}"] = value
        else:  # of a converter of the application's
            with suppress(Exception):
                found[f"flask.view_args.{name}"] = str(value)
    return found


def _commenter(setup: Setup) -> Callable[[str | None, str | None], dict[str, str]] | None:
    """Compile what tells SQL commenters about a route; made once per route."""
    enabled = setup.options["enable_commenter"]
    if not (setup.semconv.contrib if enabled is None else enabled):
        return None
    wanted = dict(setup.options["commenter_options"] or {})
    framework = f"flask:{version('flask')}"

    @lru_cache(maxsize=1024)
    def comment(endpoint: str | None, route: str | None) -> dict[str, str]:
        values = {"framework": framework, "controller": endpoint, "route": route}
        return {key: value for key, value in values.items() if value and wanted.get(key, True)}

    return comment


def _answering(wrapped: Wrapped, setup: Setup) -> Wrapped:
    """Note whether the response is all there, so that its span ends with the call and not with the body."""
    find = _finder()

    def after(response: Response, app: Flask, answer: Any) -> None:
        scope, _ = find()
        if scope is not None:
            # An HTTPException becomes an iterator, though its page is complete.
            scope.record.complete = response.is_sequence or hasattr(answer, "get_response")

    return observed(wrapped, setup, after=after)


def _failing(wrapped: Wrapped, setup: Setup) -> Wrapped:
    """Keep the exception that Flask is about to answer with a page, for nothing raises it to the WSGI entrance."""
    find = _finder()

    def before(app: Flask, *args: Any, **kwargs: Any) -> None:
        scope, _ = find()
        if scope is not None:
            scope.record.error = args[-1]

    return observed(wrapped, setup, before=before)


def _taken_out(app: Flask) -> bool:
    return getattr(app, MARK, None) is False


_entrance = http_server.wsgi(hook_at_start=False, response_hook_environ=False, untraced=_taken_out)


class FlaskInstrumentor(Instrumentor):
    """Traces Flask applications, whenever they were made.

    Hooks: `request_hook(span, environ)`, called when the request is matched, within Flask's request context;
    `response_hook(span, status, headers)`.
    """

    library = Library("flask", ("flask >= 0.10",), tested="3.1.3")
    options = (
        http.EXCLUDED_URLS,
        *http.optional_hooks(("request_hook", "(span, environ)"), ("response_hook", "(span, status, headers)")),
        Option(
            "enable_commenter",
            None,
            "Tell SQL commenters the framework, controller and route; unless said otherwise only in `contrib` mode.",
            boolean,
        ),
        detail.option("lifecycle_spans", "the functions before, after and at the end of a request, one each"),
        detail.option("view_spans", "the view function"),
        detail.option("template_spans", "each rendering by `render_template` and the like"),
        Option("commenter_options", None, "Which of framework, controller and route, each True unless said otherwise."),
    )
    patches = (
        # Both entrances: `app(environ, ...)`, and `app.wsgi_app` where middleware holds it. The inner one stays silent.
        Patch("flask.app", "Flask.__call__", _entrance),
        Patch("flask.app", "Flask.wsgi_app", _entrance),
        Patch("flask.app", "Flask.preprocess_request", _routing),
        Patch("flask.app", "Flask.make_response", _answering),
        Patch("flask.app", "Flask.dispatch_request", detail.detail("flask.dispatch_request", "view_spans", _view)),
        Patch("flask.app", "Flask.process_response", _hooks("process_response")),
        Patch("flask.app", "Flask.do_teardown_request", _hooks("do_teardown_request")),
        Patch("flask.templating", "_render", detail.detail("flask.render_template", "template_spans", _template)),
        Patch("flask.app", "Flask.handle_exception", _failing),
    )

    @staticmethod
    def instrument_app(
        app: Flask,
        request_hook: Any = None,
        response_hook: Any = None,
        tracer_provider: TracerProvider | None = None,
        excluded_urls: str | None = None,
        enable_commenter: bool | None = None,
        commenter_options: Mapping[str, Any] | None = None,
        meter_provider: Any = None,
    ) -> None:
        """Trace this one application.

        Args:
            app: the application.
            request_hook: called as `(span, environ)` when a request is matched.
            response_hook: called as `(span, status, headers)` when the response starts.
            tracer_provider: instead of the global one.
            excluded_urls: comma list of regular expressions.
            enable_commenter: whether SQL commenters get the framework, controller and route.
            commenter_options: which of them.
            meter_provider: accepted, unused.
        """
        FlaskInstrumentor().instrument_object(
            app,
            request_hook=request_hook,
            response_hook=response_hook,
            tracer_provider=tracer_provider,
            excluded_urls=excluded_urls,
            enable_commenter=enable_commenter,
            commenter_options=commenter_options,
            meter_provider=meter_provider,
        )

    @staticmethod
    def uninstrument_app(app: Flask) -> None:
        """Trace this one application no more, whether `instrument_app` or `instrument` had begun it."""
        FlaskInstrumentor().uninstrument_object(app)
