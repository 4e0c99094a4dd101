from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from tests import django_project

django_project.configure()

from django.conf import settings  # noqa: E402
from django.core.asgi import get_asgi_application  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.http import HttpResponse, StreamingHttpResponse  # noqa: E402
from django.urls import include, path  # noqa: E402

from tests.load.programs import ASYNC, CHUNK, CHUNKS, serve, work  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


def ok(request: Any, number: int) -> Any:
    with work(number) as text:
        time.sleep(0.01)
        return HttpResponse(text)


def fails(request: Any, number: int) -> Any:
    with work(number) as text:
        raise ValueError(text.strip())


def stream(request: Any, number: int) -> Any:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(CHUNKS):
            yield CHUNK

    def chunks_in_threads() -> Iterator[bytes]:
        for _ in range(CHUNKS):
            yield CHUNK

    with work(number):
        return StreamingHttpResponse(chunks() if ASYNC else chunks_in_threads())


async def stream_async(request: Any, number: int) -> Any:
    return stream(request, number)


views = [path("fails/<int:number>", fails), path("stream/<int:number>", stream_async if ASYNC else stream)]
settings.ROOT_URLCONF = django_project.urls(path("ok/<int:number>", ok), path("", include(views)))

if __name__ == "__main__":
    serve(get_asgi_application() if ASYNC else get_wsgi_application())
