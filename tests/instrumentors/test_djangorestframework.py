"""Django REST framework within Django: views, view sets, refusals, exception handlers, from 3.4 to the newest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("rest_framework")

from tests import django_project

django_project.configure()

import django  # noqa: E402
from django.core.handlers.wsgi import WSGIHandler  # noqa: E402
from django.test import override_settings  # noqa: E402
from rest_framework import exceptions, routers, viewsets  # noqa: E402
from rest_framework.decorators import api_view  # noqa: E402
from rest_framework.response import Response  # noqa: E402
from rest_framework.test import APIClient  # noqa: E402
from rest_framework.views import APIView  # noqa: E402

from spanbridge.instrumentors.django import DjangoInstrumentor  # noqa: E402
from spanbridge.instrumentors.djangorestframework import DjangoRestFrameworkInstrumentor  # noqa: E402
from tests.django_project import include, path  # noqa: E402
from tests.web import visit  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spanbridge.testing import Payload, Spans

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning" if django.VERSION < (4,) else "error")


def of(pattern: str, name: str) -> str:
    """Answer what stands in a resource: a pattern's text, before Django 2.2 its name."""
    return pattern if django.VERSION >= (2, 2) else name


class Items(viewsets.ViewSet):  # type: ignore[misc]
    def list(self, request: Any) -> Any:
        return Response([])

    def retrieve(self, request: Any, pk: str) -> Any:
        return Response({"pk": pk})


class Thing(APIView):  # type: ignore[misc]
    def get(self, request: Any, name: str) -> Any:
        raise {"refused": exceptions.PermissionDenied(), "broken": ValueError("broken")}[name]


class Answered(APIView):  # type: ignore[misc]
    def get(self, request: Any) -> Any:
        raise KeyError("hidden")

    def get_exception_handler(self) -> Any:
        return lambda error, context: Response({"sorry": True}, status=500)


@api_view(["GET"])
def plain(request: Any) -> Any:
    return Response("plain")


router = routers.SimpleRouter()
router.register("items", Items, "item")
URLS = django_project.urls(
    path("api/", include(router.urls)),
    path("things/<str:name>", Thing.as_view()),
    path("answered", Answered.as_view()),
    path("plain", plain),
)


@pytest.fixture(autouse=True)
def project(spans: Spans) -> Iterator[None]:
    DjangoInstrumentor().instrument()
    DjangoRestFrameworkInstrumentor().instrument()
    with override_settings(ROOT_URLCONF=URLS):
        yield


@pytest.mark.parametrize(
    ("method", "path", "resource", "error", "code"),
    [
        ("GET", "/api/items/", f"GET {of('^api/items/$', 'item-list')}", 0, 200),
        ("GET", "/api/items/7/", f"GET {of('^api/items/(?P<pk>[^/.]+)/$', 'item-detail')}", 0, 200),
        ("DELETE", "/api/items/7/", f"DELETE {of('^api/items/(?P<pk>[^/.]+)/$', 'item-detail')}", 0, 405),
        ("OPTIONS", "/plain", "OPTIONS plain", 0, 200),
        ("GET", "/things/refused", "GET things/<str:name>", 0, 403),
        ("GET", "/things/broken", "GET things/<str:name>", 1, 500),
        ("GET", "/answered", "GET answered", 1, 500),
        ("GET", "/nowhere", "GET 404", 0, 404),
    ],
)
def test_answers(spans: Spans, payload: Payload, method: str, path: str, resource: str, error: int, code: int) -> None:
    assert visit(WSGIHandler(), path, method).status == code
    assert len(spans) == 1
    row = payload()[0][0]
    assert (row["name"], row["resource"].replace("^", ""), row["error"], row["meta"]["http.status_code"]) == (
        "django.request",
        resource.replace("^", ""),
        error,
        str(code),
    )


def test_whether_the_user_is_known(spans: Spans) -> None:
    visit(WSGIHandler(), "/api/items/7/")
    assert spans[0]["attributes"]["django.user.is_authenticated"] == "False"


@pytest.mark.parametrize(("path", "error"), [("/things/broken", "ValueError"), ("/answered", "KeyError")])
def test_the_exception_is_recorded_once(spans: Spans, path: str, error: str) -> None:
    visit(WSGIHandler(), path)
    assert [event["attributes"]["exception.type"] for event in spans[0]["events"]] == [error]


def test_the_frameworks_own_client(spans: Spans) -> None:
    assert APIClient().get("/api/items/7/").data == {"pk": "7"}
    assert [span["kind"] for span in spans] == ["SERVER"]


def test_handlers_are_an_option(spans: Spans, payload: Payload) -> None:
    DjangoRestFrameworkInstrumentor().uninstrument()
    DjangoRestFrameworkInstrumentor().instrument(view_spans=True)
    for page in ("/api/items/7/", "/things/refused", "/plain"):
        visit(WSGIHandler(), page)
    rows = [chunk[1] for chunk in payload()]
    assert [(row["name"], row["resource"], row["error"]) for row in rows] == [
        ("django.view", f"{__name__}.Items.retrieve", 0),
        ("django.view", f"{__name__}.Thing.get", 0),
        ("django.view", f"{plain.cls.__module__}.plain.get", 0),
    ]
