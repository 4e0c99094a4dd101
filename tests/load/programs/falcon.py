from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import falcon

from tests.load.programs import CHUNK, CHUNKS, serve, work

if TYPE_CHECKING:
    from collections.abc import Iterator


class Ok:
    def on_get(self, request: Any, response: Any, number: int) -> None:
        with work(number) as text:
            time.sleep(0.01)
            setattr(response, BODY, text)


class Fails:
    def on_get(self, request: Any, response: Any, number: int) -> None:
        with work(number) as text:
            time.sleep(0.01)
            raise ValueError(text.strip())


class Stream:
    def on_get(self, request: Any, response: Any, number: int) -> None:
        def chunks() -> Iterator[bytes]:
            for _ in range(CHUNKS):
                yield CHUNK

        with work(number):
            response.stream = chunks()


# Before 3.0 both had other names.
App, BODY = (falcon.App, "text") if hasattr(falcon, "App") else (falcon.API, "body")
app = App()
for name, resource in {"ok": Ok(), "fails": Fails(), "stream": Stream()}.items():
    app.add_route(f"/{name}/{{number:int}}", resource)

if __name__ == "__main__":
    serve(app)
