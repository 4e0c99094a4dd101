"""Django through its test clients, over WSGI and over ASGI, with sync and async views, from 1.8 to the newest."""

from __future__ import annotations

import asyncio
import gc
import io
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

django = pytest.importorskip("django")

from tests import django_project  # noqa: E402

django_project.configure()

from django.conf import settings  # noqa: E402
from django.core import signals  # noqa: E402
from django.core.cache import cache  # noqa: E402
from django.core.exceptions import PermissionDenied  # noqa: E402
from django.core.handlers.wsgi import WSGIHandler  # noqa: E402
from django.db import close_old_connections, connection, connections  # noqa: E402
from django.http import FileResponse, Http404, HttpResponse, HttpResponseRedirect, StreamingHttpResponse  # noqa: E402
from django.template import engines  # noqa: E402
from django.test import Client, RequestFactory, override_settings  # noqa: E402
from django.utils.functional import SimpleLazyObject  # noqa: E402
from django.views.generic import View  # noqa: E402

from spanbridge.exporters.datadog.settings import neutral_settings  # noqa: E402
from spanbridge.instrumentors.django import DjangoInstrumentor  # noqa: E402
from spanbridge.instrumentors.sqlite3 import SQLite3Instrumentor  # noqa: E402
from spanbridge.instrumentors.wsgi import OpenTelemetryMiddleware  # noqa: E402
from tests.django_project import include, path, re_path  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from spanbridge.testing import Payload, Spans

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning" if django.VERSION < (4,) else "error"),
    # Django before 4.2 leaves the body of an ASGI request open.
    pytest.mark.filterwarnings(
        "ignore:Unclosed file <tempfile.SpooledTemporaryFile:ResourceWarning" if django.VERSION < (4, 2) else "error"
    ),
]
ASYNC = pytest.mark.skipif(django.VERSION < (3, 1), reason="async views came with Django 3.1")
NAMES_IN_VIEWS = django.VERSION >= (3, 1)
SAYS_ROUTES = django.VERSION >= (2, 2)  # before, the name of the pattern stands for its text
NEW_MIDDLEWARE = django.VERSION >= (1, 10)
ROUTES = pytest.mark.skipif(not SAYS_ROUTES, reason="names of patterns stand for their text before Django 2.2")


def current() -> str:
    return getattr(trace.get_current_span(), "name", "")


def show(request: Any, item: int = 0, **more: Any) -> Any:
    return HttpResponse(f"item {item} in {current()}")


def broken(request: Any) -> None:
    raise ValueError("broken")


def missing(request: Any) -> None:
    raise Http404("missing")


def forbidden(request: Any) -> None:
    raise PermissionDenied


def moved(request: Any) -> Any:
    return HttpResponseRedirect("/items/1")


def failing(request: Any) -> Any:
    return HttpResponse(status=503)


def chunks() -> Iterator[bytes]:
    for number in range(3):
        with trace.get_tracer("shop").start_as_current_span(f"chunk {number}"):
            yield b"x"


def stream(request: Any) -> Any:
    return StreamingHttpResponse(chunks())


def file(request: Any) -> Any:
    return FileResponse(io.BytesIO(b"contents"))


def query(request: Any) -> Any:
    with connections[request.GET.get("alias", "default")].cursor() as cursor:
        cursor.execute("select 'secret', %s", ["parameter"])
        return HttpResponse(str(cursor.fetchall()))


def page(request: Any) -> Any:
    template = engines["django"].from_string("Hello {{ name }}")
    cache.set("greeting", template.render({"name": "you"}))
    return HttpResponse(cache.get("greeting"))


async def show_async(request: Any, item: int = 0) -> Any:
    await asyncio.sleep(0)
    return HttpResponse(f"item {item} in {current()}")


async def broken_async(request: Any) -> None:
    raise ValueError("broken")


async def stream_async(request: Any) -> Any:
    async def parts() -> AsyncIterator[bytes]:
        for number in range(3):
            with trace.get_tracer("shop").start_as_current_span(f"chunk {number}"):
                await asyncio.sleep(0)
            yield b"x"

    return StreamingHttpResponse(parts())


class Things(View):
    def get(self, request: Any, **more: Any) -> Any:
        return HttpResponse("things")


def count_users(get_response: Any) -> Any:
    def middleware(request: Any) -> Any:
        request.seen_by_middleware = True
        return get_response(request)

    return middleware


class Refuse:
    def __init__(self, get_response: Any = None) -> None:  # none before 1.10, where `process_request` is called
        pass

    def __call__(self, request: Any) -> Any:
        return HttpResponse(status=401)

    process_request = __call__


INNER = [path("<slug:name>/", Things.as_view(), name="thing"), re_path(r"^old/(?P<year>[0-9]{4})/$", show)]
URLS = django_project.urls(
    path("", show),
    path("items/<int:item>", show),
    path("broken", broken),
    path("missing", missing),
    path("forbidden", forbidden),
    path("moved", moved),
    path("failing", failing),
    path("stream", stream),
    path("file", file),
    path("query", query),
    path("page", page),
    path("things/", include((INNER, "shop"), namespace="v1")),
    path("async/<int:item>", show_async),
    path("async/broken", broken_async),
    path("async/stream", stream_async),
)


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Let go of the bodies that Django has left open while a test runs, which knows of it."""
    yield
    if django.VERSION < (4, 2):
        gc.collect()


@pytest.fixture(autouse=True)
def project() -> Iterator[None]:
    signals.request_started.disconnect(close_old_connections)
    with override_settings(ROOT_URLCONF=URLS, MIDDLEWARE=[f"{__name__}.count_users"], MIDDLEWARE_CLASSES=[]):
        yield
    for each in connections.all():
        each.close()


@pytest.fixture
def client(spans: Spans) -> Client:
    DjangoInstrumentor().instrument()
    return Client()


def only(spans: Spans) -> dict[str, Any]:
    assert len(spans) == 1, spans
    return spans[0]


def names(spans: Spans) -> list[str]:
    return [span["name"] for span in spans]


def environ_of(path: str, **more: Any) -> dict[str, Any]:
    return RequestFactory()._base_environ(PATH_INFO=path, **more)


def visit(path: str, method: str = "GET") -> int:
    """Send one request over WSGI; answer its status."""
    lines: list[str] = []
    environ = environ_of(path, REQUEST_METHOD=method)
    WSGIHandler()(environ, lambda line, headers: lines.append(line)).close()
    return int(lines[0][:3])


def test_a_request(client: Client, spans: Spans, payload: Payload) -> None:
    response = client.get("/items/3?page=1&password=hunter2", HTTP_USER_AGENT="curl/8")
    seen = "GET items/<int:item>" if NAMES_IN_VIEWS else "GET"
    assert response.content == f"item 3 in {seen}".encode()
    span = only(spans)
    assert (span["name"], span["kind"], span["status"], span["parent_id"]) == (
        "GET items/<int:item>",
        "SERVER",
        "UNSET",
        None,
    )
    expected = {
        "http.request.method": "GET",
        "url.scheme": "http",
        "server.address": "testserver",
        "server.port": 80,
        "url.path": "/items/3",
        "url.query": "page=1&<redacted>",
        "user_agent.original": "curl/8",
        "network.protocol.version": "1.1",
        "http.route": "items/<int:item>",
        "django.view": f"{__name__}.show" if SAYS_ROUTES else "items/<int:item>",
        "http.response.status_code": 200,
    }
    assert {key: span["attributes"].get(key) for key in expected} == expected
    assert "hunter2" not in repr(span)
    assert "user.id" not in span["attributes"]
    (chunk,) = payload()
    assert (chunk[0]["name"], chunk[0]["resource"], chunk[0]["type"]) == (
        "django.request",
        "GET items/<int:item>",
        "web",
    )


def test_the_classes_of_request_and_response(client: Client, spans: Spans) -> None:
    client.get("/moved")
    attributes = only(spans)["attributes"]
    assert attributes["django.request.class"] == "django.core.handlers.wsgi.WSGIRequest"
    assert attributes["django.response.class"] == "django.http.response.HttpResponseRedirect"


@ROUTES
@pytest.mark.parametrize(
    ("variable", "resources"),
    [
        ("DD_DJANGO_USE_HANDLER_RESOURCE_FORMAT", ["GET {}.show", "GET {}.Things", "GET 404"]),
        ("DD_DJANGO_USE_LEGACY_RESOURCE_FORMAT", ["{}.show", "{}.Things", "GET 404"]),
        ("DD_DJANGO_INSTRUMENT_CACHES", ["GET items/<int:item>", "GET things/<slug:name>/", "GET 404"]),
    ],
)
def test_resources_after_the_view(
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    spans: Spans,
    payload: Payload,
    variable: str,
    resources: list[str],
) -> None:
    monkeypatch.setenv(variable, "true")
    settings.update(neutral_settings())
    DjangoInstrumentor().instrument()
    for address in ("/items/3", "/things/lamp/", "/nowhere"):
        Client().get(address)
    DjangoInstrumentor().uninstrument()
    assert [row["resource"] for row, *_ in payload()] == [resource.format(__name__) for resource in resources]


@pytest.mark.parametrize(
    ("method", "path", "name", "resource", "status", "code"),
    [
        ("GET", "/", "GET /", "GET ^/", "UNSET", 200),
        ("GET", "/nowhere/else", "GET", "GET 404", "UNSET", 404),
        ("GET", "/missing", "GET missing", "GET missing", "UNSET", 404),
        ("GET", "/forbidden", "GET forbidden", "GET forbidden", "UNSET", 403),
        ("GET", "/moved", "GET moved", "GET moved", "UNSET", 302),
        ("HEAD", "/items/3", "HEAD items/<int:item>", "HEAD items/<int:item>", "UNSET", 200),
        pytest.param(
            *("POST", "/things/lamp/", "POST things/<slug:name>/", "POST things/<slug:name>/", "UNSET", 405),
            marks=ROUTES,
        ),
        pytest.param(
            *("OPTIONS", "/things/lamp/", "OPTIONS things/<slug:name>/", "OPTIONS things/<slug:name>/", "UNSET", 200),
            marks=ROUTES,
        ),
        pytest.param(
            *("GET", "/things/old/2020/", "GET things/old/(?P<year>[0-9]{4})/$", None, "UNSET", 200), marks=ROUTES
        ),
        ("GET", "/failing", "GET failing", "GET failing", "ERROR", 503),
        ("GET", "/broken", "GET broken", "GET broken", "ERROR", 500),
        ("BREW", "/items/3", "HTTP items/<int:item>", "HTTP items/<int:item>", "UNSET", 200),
    ],
)
def test_answers(
    client: Client,
    spans: Spans,
    payload: Payload,
    method: str,
    path: str,
    name: str,
    resource: str | None,
    status: str,
    code: int,
) -> None:
    assert visit(path, method) == code
    span = only(spans)
    assert (span["name"], span["status"], span["attributes"]["http.response.status_code"]) == (name, status, code)
    assert payload()[0][0]["resource"] == resource or resource is None


def test_an_unhandled_exception_is_recorded_once(client: Client, spans: Spans) -> None:
    visit("/broken")
    span = only(spans)
    assert span["attributes"]["error.type"] == "ValueError"
    assert [event["attributes"]["exception.message"] for event in span["events"]] == ["broken"]


def test_a_propagated_exception_is_the_same_object(client: Client, spans: Spans) -> None:
    with pytest.raises(ValueError, match="broken"):
        client.get("/broken")
    with override_settings(DEBUG_PROPAGATE_EXCEPTIONS=True), pytest.raises(ValueError, match="broken"):
        WSGIHandler()(environ_of("/broken"), lambda *_: None)
    assert [(span["status"], len(span["events"])) for span in spans] == [("ERROR", 1)] * 2


def test_handlers_that_exist_are_traced(spans: Spans) -> None:
    handler = WSGIHandler()
    DjangoInstrumentor().instrument()
    handler(environ_of("/items/1"), lambda *_: None).close()
    assert only(spans)["name"] == "GET items/<int:item>"
    DjangoInstrumentor().uninstrument()
    handler(environ_of("/items/1"), lambda *_: None).close()
    assert len(spans) == 1


def test_names_are_few(client: Client, spans: Spans) -> None:
    for number in range(500):
        client.get(f"/items/{number}")
        client.get(f"/nowhere/{number}")
    assert set(names(spans)) == {"GET items/<int:item>", "GET"}


def test_answers_of_middleware(client: Client, spans: Spans, payload: Payload) -> None:
    with override_settings(MIDDLEWARE=[f"{__name__}.Refuse"], MIDDLEWARE_CLASSES=[f"{__name__}.Refuse"]):
        client.get("/items/3")
        client.get("/nowhere")
    assert names(spans) == ["GET items/<int:item>", "GET"]
    assert [chunk[0]["resource"] for chunk in payload()] == ["GET items/<int:item>", "GET 404"]


def test_namespaces(client: Client, spans: Spans) -> None:
    client.get("/things/lamp/")
    attributes = only(spans)["attributes"]
    found = [attributes[key] for key in ("django.view", "django.namespace", "django.app")]
    assert found == ["v1:thing", "v1", "shop"]


def test_a_streamed_response_is_one_span_until_its_last_byte(client: Client, spans: Spans) -> None:
    body = WSGIHandler()(environ_of("/stream"), lambda *_: None)
    assert len(spans) == 0
    assert list(body) == [b"x"] * 3
    body.close()
    *parts, server = spans
    assert server["name"] == "GET stream"
    assert {part["parent"] for part in parts} == {"GET stream"}
    assert not trace.get_current_span().get_span_context().is_valid


def test_a_streamed_response_through_the_test_client(client: Client, spans: Spans) -> None:
    response = client.get("/stream")
    assert len(spans) == 0
    assert b"".join(response.streaming_content) == b"xxx"
    assert names(spans)[-1] == "GET stream"


def test_a_client_that_goes_away_ends_the_span(client: Client, spans: Spans) -> None:
    body = WSGIHandler()(environ_of("/stream"), lambda *_: None)
    next(iter(body))
    body.close()
    assert [span["name"] for span in spans if span["kind"] == "SERVER"] == ["GET stream"]


def test_a_file_is_left_to_the_server(client: Client, spans: Spans) -> None:
    class Wrapper:
        def __init__(self, file: Any, size: int = 0) -> None:
            self.file, self.close = file, file.close

    body = WSGIHandler()(environ_of("/file", **{"wsgi.file_wrapper": Wrapper}), lambda *_: None)
    assert isinstance(body, Wrapper)
    assert body.file.read() == b"contents"
    assert len(spans) == 0
    body.close()
    assert only(spans)["name"] == "GET file"


def test_the_callers_trace_goes_on(client: Client, spans: Spans) -> None:
    client.get("/items/1", HTTP_TRACEPARENT=f"00-{0xABC:032x}-{0xDEF:016x}-01")
    span = only(spans)
    assert (span["trace_id"], span["parent_id"]) == (0xABC, 0xDEF)


def test_propagation_headers_reach_the_view(client: Client, spans: Spans) -> None:
    carrier: dict[str, str] = {}

    def remember(request: Any) -> Any:
        TraceContextTextMapPropagator().inject(carrier)
        return HttpResponse()

    with override_settings(ROOT_URLCONF=django_project.urls(path("", remember))):
        client.get("/")
    assert f"{only(spans)['span_id']:016x}" in carrier["traceparent"]


def test_hooks(spans: Spans) -> None:
    def request_hook(span: Any, request: Any) -> None:
        span.set_attribute("path", request.path)
        span.set_attribute("late", hasattr(request, "seen_by_middleware"))

    def response_hook(span: Any, request: Any, response: Any) -> None:
        span.set_attribute("code", response.status_code)
        response["X-Hook"] = request.path

    for position in (0, 1):
        DjangoInstrumentor().instrument(
            request_hook=request_hook, response_hook=response_hook, middleware_position=position
        )
        assert Client().get("/items/1")["X-Hook"] == "/items/1"
        DjangoInstrumentor().uninstrument()
    seen = [[span["attributes"][key] for key in ("path", "late", "code")] for span in spans]
    assert seen == [["/items/1", False, 200], ["/items/1", NAMES_IN_VIEWS, 200]]


def test_excluded_urls(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_PYTHON_DJANGO_EXCLUDED_URLS", "items/[0-4],health")
    DjangoInstrumentor().instrument()
    Client().get("/items/3")
    Client().get("/items/7")
    assert only(spans)["attributes"]["url.path"] == "/items/7"


def test_attributes_of_the_request(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_PYTHON_DJANGO_TRACED_REQUEST_ATTRS", "path_info,encoding,no_such_thing")
    DjangoInstrumentor().instrument()
    Client().get("/items/3")
    attributes = only(spans)["attributes"]
    assert attributes["path_info"] == "/items/3"
    assert not attributes.keys() & {"encoding", "no_such_thing"}


def test_captured_headers(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST", "x-.*,authorization")
    monkeypatch.setenv("OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_RESPONSE", "content-type")
    DjangoInstrumentor().instrument()
    Client().get("/items/3", HTTP_X_TENANT="acme", HTTP_AUTHORIZATION="Basic c2VjcmV0")
    attributes = only(spans)["attributes"]
    assert attributes["http.request.header.x-tenant"] == ("acme",)
    assert attributes["http.request.header.authorization"] == ("[REDACTED]",)
    assert attributes["http.response.header.content-type"] == ("text/html; charset=utf-8",)


def test_switched_off_as_contrib_is(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_PYTHON_DJANGO_INSTRUMENT", "False")
    DjangoInstrumentor().instrument()
    Client().get("/items/3")
    assert len(spans) == 0
    assert "OTEL_PYTHON_DJANGO_INSTRUMENT" in DjangoInstrumentor().status().reason


def test_suppressed(client: Client, spans: Spans) -> None:
    with suppress_instrumentation():
        assert client.get("/items/1").status_code == 200
    assert len(spans) == 0


def test_within_a_local_span_it_is_a_part_of_it(client: Client, spans: Spans) -> None:
    with spans.provider.get_tracer("test").start_as_current_span("outer"):
        client.get("/items/1")
    assert (spans[0]["kind"], spans[0]["parent"]) == ("INTERNAL", "outer")


def test_a_generic_middleware_around_gets_the_route(client: Client, spans: Spans) -> None:
    list(OpenTelemetryMiddleware(WSGIHandler())(environ_of("/items/1"), lambda *_: None))
    assert only(spans)["name"] == ("GET items/<int:item>" if NAMES_IN_VIEWS else "GET")


def test_old_names(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPANBRIDGE_SEMCONV", "contrib")
    DjangoInstrumentor().instrument()
    Client().get("/items/1")
    attributes = only(spans)["attributes"]
    assert (attributes["http.method"], attributes.get("http.route"), attributes["http.status_code"]) == (
        "GET",
        "items/<int:item>" if SAYS_ROUTES else None,
        200,
    )
    assert only(spans)["name"] == "GET items/<int:item>"
    assert not attributes.keys() & {"http.request.method", "django.view"}


# The user: never looked up by us, and noted only when asked.


class User:
    pk = 7
    is_authenticated = True


class Nobody:
    def is_authenticated(self) -> bool:  # a method before Django 1.10
        return False


def test_whether_the_user_is_known(client: Client, spans: Spans) -> None:
    users: list[Any] = [User(), Nobody(), None]

    def view(request: Any) -> Any:
        if users[0] is not None:
            request._cached_user = users[0]
        return HttpResponse()

    with override_settings(ROOT_URLCONF=django_project.urls(path("", view))):
        while users:
            client.get("/")
            del users[0]
    assert [span["attributes"].get("django.user.is_authenticated") for span in spans] == ["True", "False", None]


def test_a_user_whom_the_application_names(client: Client, spans: Spans) -> None:
    looked_up: list[User] = []

    def look_up() -> User:
        looked_up.append(User())
        return looked_up[0]

    def view(request: Any) -> Any:
        request.user = users[0]
        return HttpResponse()

    users: list[Any] = [User(), SimpleLazyObject(look_up)]
    with override_settings(ROOT_URLCONF=django_project.urls(path("", view))):
        while users:
            client.get("/")
            del users[0]
    assert [span["attributes"].get("django.user.is_authenticated") for span in spans] == ["True", None]
    assert not looked_up


def test_the_users_id_is_an_option(spans: Spans) -> None:
    def view(request: Any) -> Any:
        request._cached_user = User()  # as django.contrib.auth keeps whom it has looked up
        return HttpResponse()

    with override_settings(ROOT_URLCONF=django_project.urls(path("", view))):
        for wanted in (False, True):
            DjangoInstrumentor().instrument(user_id=wanted)
            Client().get("/")
            DjangoInstrumentor().uninstrument()
    assert [span["attributes"].get("user.id") for span in spans] == [None, "7"]


# SQL comments.


def statements(path: str) -> list[str]:
    """What reaches the database."""
    connection.ensure_connection()
    seen: list[str] = []
    connection.connection.set_trace_callback(seen.append)
    Client().get(path)
    connection.connection.set_trace_callback(None)
    return seen


@pytest.fixture
def _one_connection() -> Iterator[None]:
    signals.request_finished.disconnect(close_old_connections)
    yield
    signals.request_finished.connect(close_old_connections)


@pytest.mark.skipif(django.VERSION < (2,), reason="there is no one place for all statements before Django 2.0")
@pytest.mark.usefixtures("_one_connection")
def test_sql_comments(spans: Spans) -> None:
    DjangoInstrumentor().instrument(is_sql_commentor_enabled=True)
    (statement,) = statements("/query")
    span = only(spans)
    trace_id, span_id = span["trace_id"], span["span_id"]
    route = "route='query'," if NAMES_IN_VIEWS else ""
    assert "select 'secret', 'parameter' /*" in statement
    assert "db_driver='django.db.backends.sqlite3'" in statement
    assert f"framework='django%3A{django.get_version()}'" in statement
    assert f"{route}traceparent='00-{trace_id:032x}-{span_id:016x}-01'*/" in statement
    with override_settings(SQLCOMMENTER_WITH_FRAMEWORK=False):
        assert "framework" not in statements("/query")[0]


@pytest.mark.usefixtures("_one_connection")
def test_no_sql_comments_unless_asked(client: Client, spans: Spans) -> None:
    assert statements("/query") == ["select 'secret', 'parameter'"]


# Details.


def test_details_are_off(client: Client, spans: Spans) -> None:
    client.get("/page")
    client.get("/query")
    assert names(spans) == ["GET page", "GET query"]


def test_details(spans: Spans, payload: Payload) -> None:
    DjangoInstrumentor().instrument(middleware_spans=True, view_spans=True, template_spans=True, cache_spans=True)
    with override_settings(CACHES=dict(settings.CACHES)):  # caches are made anew
        Client().get("/page")
    rows = [(span["name"], span["resource"], span["type"]) for span in payload()[0]]
    assert rows == [
        ("django.request", "GET page", "web"),
        *([("django.middleware", f"{__name__}.count_users.<locals>.middleware", "")] if NEW_MIDDLEWARE else []),
        ("django.view", f"{__name__}.page", ""),
        ("django.template.render", "<memory>", "template"),
        ("django.cache", "django.core.cache.backends.locmem.set", "cache"),
        ("django.cache", "django.core.cache.backends.locmem.get", "cache"),
    ]
    assert len({span["parent"] for span in spans}) == (4 if NEW_MIDDLEWARE else 3)
    assert {span["kind"] for span in spans[:-1]} == {"INTERNAL"}


def test_methods_that_a_cache_inherits_are_named_where_they_are_defined(spans: Spans) -> None:
    DjangoInstrumentor().instrument(cache_spans=True)
    with override_settings(CACHES=dict(settings.CACHES)):  # caches are made anew
        cache.get_many(["a"])
    (attributes,) = (span["attributes"] for span in spans)
    assert attributes["code.function.name"] == "django.core.cache.backends.base.get_many"
    assert attributes["django.cache.backend"] == "django.core.cache.backends.locmem.LocMemCache"


def test_views_that_raise(spans: Spans) -> None:
    DjangoInstrumentor().instrument(view_spans=True)
    for page in ("/broken", "/missing", "/forbidden"):
        visit(page)
    assert [(span["name"], span["status"]) for span in spans] == [
        ("django.view", "ERROR"),
        ("GET broken", "ERROR"),
        ("django.view", "UNSET"),
        ("GET missing", "UNSET"),
        ("django.view", "UNSET"),
        ("GET forbidden", "UNSET"),
    ]


def test_database_spans_take_the_drivers_place(spans: Spans, payload: Payload) -> None:
    connections["other"].ensure_connection()
    SQLite3Instrumentor().instrument()
    DjangoInstrumentor().instrument(database_spans=True)
    Client().get("/query?alias=other")
    (span,) = [span for span in spans if span["kind"] == "CLIENT"]
    expected = {"django.db.alias": "other", "django.db.vendor": "sqlite", "db.system.name": "sqlite"}
    assert {key: span["attributes"].get(key) for key in expected} == expected
    assert "secret" not in repr(span)
    row = payload()[0][1]
    assert (row["name"], row["type"], row["service"]) == ("sqlite.query", "sql", "sqlite")


# ASGI.


async def over_asgi(app: Any, path: str, *, leave_after: int = -1, **headers: str) -> list[dict[str, Any]]:
    """Send one request to an ASGI application; go away after so many messages."""
    sent: list[dict[str, Any]] = []
    gone = asyncio.Event()

    async def receive() -> dict[str, Any]:
        if not received:
            received.append(1)
            return {"type": "http.request", "body": b"", "more_body": False}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)
        if len(sent) == leave_after:
            gone.set()
            await asyncio.sleep(0.05)

    received: list[int] = []
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "2",
        "method": "GET",
        "scheme": "https",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"page=1",
        "headers": [(b"host", b"shop.example"), *((key.encode(), value.encode()) for key, value in headers.items())],
        "client": ("10.0.0.7", 4711),
        "server": ("10.0.0.1", 8443),
    }
    await app(scope, receive, send)
    return sent


def asgi_app() -> Any:
    from django.core.handlers.asgi import ASGIHandler

    return ASGIHandler()


@ASYNC
@pytest.mark.parametrize("path", ["/items/3", "/async/3"])
def test_a_request_over_asgi(client: Client, spans: Spans, path: str) -> None:
    parent = f"00-{0xABC:032x}-{0xDEF:016x}-01"
    _, body, *_ = asyncio.run(over_asgi(asgi_app(), path, traceparent=parent))
    route = path.replace("/3", "/<int:item>")[1:]
    assert body["body"] == f"item 3 in GET {route}".encode()
    span = only(spans)
    assert (span["name"], span["trace_id"], span["parent_id"]) == (f"GET {route}", 0xABC, 0xDEF)
    expected = {
        "url.scheme": "https",
        "server.address": "shop.example",
        "url.path": path,
        "url.query": "page=1",
        "client.address": "10.0.0.7",
        "client.port": 4711,
        "network.protocol.version": "2",
        "http.response.status_code": 200,
    }
    assert {key: span["attributes"].get(key) for key in expected} == expected


@ASYNC
def test_exceptions_over_asgi(client: Client, spans: Spans) -> None:
    for page in ("/async/broken", "/broken", "/missing"):
        asyncio.run(over_asgi(asgi_app(), page))
    found = [(span["name"], span["status"], len(span["events"])) for span in spans]
    assert found == [("GET async/broken", "ERROR", 1), ("GET broken", "ERROR", 1), ("GET missing", "UNSET", 0)]


@ASYNC
def test_the_asynchronous_test_client(client: Client, spans: Spans) -> None:
    from django.test import AsyncClient

    assert asyncio.run(AsyncClient().get("/async/3")).status_code == 200
    assert only(spans)["name"] == "GET async/<int:item>"


@pytest.mark.skipif(django.VERSION < (4, 2), reason="asynchronous streaming came with Django 4.2")
@pytest.mark.parametrize("leave_after", [-1, 2])
def test_streaming_over_asgi(client: Client, spans: Spans, leave_after: int) -> None:
    asyncio.run(over_asgi(asgi_app(), "/async/stream", leave_after=leave_after))
    *parts, server = spans
    assert server["name"] == "GET async/stream"
    assert {part["parent"] for part in parts} == {"GET async/stream"}
    assert len(parts) == 3 or leave_after > 0
    assert spans.unfinished == []


@ASYNC
def test_requests_at_the_same_time_do_not_mix(client: Client, spans: Spans) -> None:
    app = asgi_app()

    async def all_of_them() -> None:
        parents = {number: f"00-{number:032x}-{number:016x}-01" for number in range(1, 41)}
        await asyncio.gather(*(over_asgi(app, f"/async/{number}", traceparent=parents[number]) for number in parents))

    asyncio.run(all_of_them())
    assert {(span["trace_id"], span["attributes"]["url.path"]) for span in spans} == {
        (number, f"/async/{number}") for number in range(1, 41)
    }


@ASYNC
def test_details_of_async_views(spans: Spans) -> None:
    DjangoInstrumentor().instrument(view_spans=True, middleware_spans=True)
    asyncio.run(over_asgi(asgi_app(), "/async/3"))
    assert names(spans) == ["django.view", "django.middleware", "GET async/<int:item>"]
    assert [span["parent"] for span in spans] == ["django.middleware", "GET async/<int:item>", None]
