# /// script
# dependencies = ["django==5.2.19", "djangorestframework==3.18.3"]
# ///
"""Django REST framework: views, view sets, refusals."""

from __future__ import annotations

from typing import Any

from _wsgi import send
from django.conf import settings

settings.configure(
    SECRET_KEY="x",
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["*"],
    LOGGING_CONFIG=None,
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "rest_framework"],
)

import django  # noqa: E402

django.setup()

from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.urls import include, path  # noqa: E402
from rest_framework import exceptions, routers, viewsets  # noqa: E402
from rest_framework.decorators import api_view  # noqa: E402
from rest_framework.response import Response  # noqa: E402


class Items(viewsets.ViewSet):  # type: ignore[misc]
    def list(self, request: Any) -> Any:
        return Response([])

    def retrieve(self, request: Any, pk: str) -> Any:
        return Response({"pk": pk})


@api_view(["GET"])
def raises(request: Any, name: str) -> Any:
    raise {"refused": exceptions.NotAuthenticated(), "fault": ValueError("fault")}[name]


router = routers.SimpleRouter()
router.register("items", Items, basename="item")
urlpatterns = [path("api/", include(router.urls)), path("raises/<str:name>", raises)]

send(
    get_wsgi_application(),
    """
GET /api/items/
GET /api/items/7/
DELETE /api/items/7/
OPTIONS /api/items/
GET /raises/refused
GET /raises/fault
GET /nowhere
""",
)
