"""The benchmark's Django project, settings and URLs in one: contrib wants to find it before any request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.http import HttpResponse
from django.urls import path

if TYPE_CHECKING:
    from django.http import HttpRequest

ALLOWED_HOSTS = ["*"]
MIDDLEWARE: list[str] = []
ROOT_URLCONF = __name__
SECRET_KEY = "bench"
USE_TZ = True


def item(request: HttpRequest, item_id: int) -> HttpResponse:
    return HttpResponse(str(item_id))


urlpatterns = [path("items/<int:item_id>", item)]
