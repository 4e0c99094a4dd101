from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from pyramid.config import Configurator
from pyramid.response import Response

from tests.load.programs import CHUNK, CHUNKS, serve, work

if TYPE_CHECKING:
    from collections.abc import Iterator


def ok(request: Any) -> Any:
    with work(int(request.matchdict["number"])) as text:
        time.sleep(0.01)
        return Response(text)


def fails(request: Any) -> Any:
    with work(int(request.matchdict["number"])) as text:
        raise ValueError(text.strip())


def stream(request: Any) -> Any:
    def chunks() -> Iterator[bytes]:
        for _ in range(CHUNKS):
            yield CHUNK

    with work(int(request.matchdict["number"])):
        return Response(app_iter=chunks())


config = Configurator()
for view in (ok, fails, stream):
    config.add_route(view.__name__, f"/{view.__name__}/{{number}}")
    config.add_view(view, route_name=view.__name__)

if __name__ == "__main__":
    serve(config.make_wsgi_app())
