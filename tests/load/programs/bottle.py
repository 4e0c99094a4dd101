from __future__ import annotations

import time
from typing import TYPE_CHECKING

import bottle

from tests.load.programs import CHUNK, CHUNKS, serve, work

if TYPE_CHECKING:
    from collections.abc import Iterator

app, mounted = bottle.Bottle(), bottle.Bottle()


@app.route("/ok/<number:int>")
def ok(number: int) -> str:
    with work(number) as text:
        time.sleep(0.01)
        return text


@mounted.route("/<number:int>")
def fails(number: int) -> str:
    with work(number) as text:
        raise ValueError(text.strip())


@app.route("/stream/<number:int>")
def stream(number: int) -> Iterator[bytes]:
    with work(number):
        pass
    for _ in range(CHUNKS):
        yield CHUNK


app.mount("/fails/", mounted)

if __name__ == "__main__":
    serve(app)
