# /// script
# dependencies = ["django==5.2.19"]
# [[tool.parity.differences]]
# reason = "methods that no RFC knows are HTTP, or clients could make any number of resources"
# side = "ddtrace"
# pattern = "BREW "
# replacement = "HTTP "
# ///
"""Django over WSGI: patterns, includes, class-based views, errors, streams."""

from __future__ import annotations

import io
import sys
from typing import Any

from django.conf import settings

settings.configure(
    SECRET_KEY="x",
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["*"],
    LOGGING_CONFIG=None,
    MIDDLEWARE=["django.middleware.common.CommonMiddleware", f"{__name__}.refuse"],
)

import django  # noqa: E402

django.setup()

from django.core.exceptions import PermissionDenied, SuspiciousOperation  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.http import FileResponse, Http404, HttpResponse, HttpResponseRedirect, StreamingHttpResponse  # noqa: E402
from django.test import RequestFactory  # noqa: E402
from django.urls import include, path, re_path  # noqa: E402
from django.views import View  # noqa: E402


def ok(request: Any, **more: Any) -> HttpResponse:
    return HttpResponse(f"ok {sorted(more.items())}")


def refuse(get_response: Any) -> Any:
    return lambda request: HttpResponse(status=401) if "refused" in request.GET else get_response(request)


def fails(error: Exception) -> Any:
    def view(request: Any) -> None:
        raise error

    return view


class Thing(View):
    def get(self, request: Any) -> HttpResponse:
        return HttpResponse("thing")


inner = [path("", ok), path("<slug:name>/", ok), re_path(r"^(?P<year>[0-9]{4})/archive/$", ok)]
urlpatterns = [
    path("", ok),
    path("items/<int:item_id>", ok),
    path("files/<path:name>", ok),
    path("thing", Thing.as_view()),
    path("shop/", include((inner, "shop"), namespace="v1")),
    re_path(r"^old/", include(inner)),
    path("slash/", ok),
    path("moved", lambda request: HttpResponseRedirect("/")),
    path("returns/404", lambda request: HttpResponse(status=404)),
    path("returns/503", lambda request: HttpResponse(status=503)),
    path("raises/fault", fails(ValueError("fault"))),
    path("raises/404", fails(Http404())),
    path("raises/403", fails(PermissionDenied())),
    path("raises/400", fails(SuspiciousOperation())),
    path("stream", lambda request: StreamingHttpResponse(iter([b"a", b"b"]))),
    path("file", lambda request: FileResponse(io.BytesIO(b"contents"))),
]

REQUESTS = """
GET /
GET /items/3
HEAD /items/3
OPTIONS /thing
POST /thing
BREW /items/3
GET /items/x
POST /nowhere/123
GET /files/a/b%20c.txt
GET /shop/
GET /shop/lamp/
GET /shop/2020/archive/
GET /old/2020/archive/
GET /slash
GET /moved
GET /items/4?refused=1
GET /returns/404
GET /returns/503
GET /raises/fault
GET /raises/404
GET /raises/403
GET /raises/400
GET /stream
GET /file
"""


def main() -> None:
    application, factory = get_wsgi_application(), RequestFactory()
    for line in REQUESTS.split("\n")[1:-1]:
        method, target = line.split()
        answer: list[str] = []
        environ = factory.generic(method, target).environ
        body = application(environ, lambda status, headers, answer=answer: answer.append(status))
        print(line, *answer, b"".join(body) if answer[0].startswith("200") else "")
        body.close()


if __name__ == "__main__":
    sys.exit(main())
