from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import flask

from tests.load.programs import CHUNK, CHUNKS, serve, work

if TYPE_CHECKING:
    from collections.abc import Iterator

app, blueprint = flask.Flask("load"), flask.Blueprint("inner", "inner")


@app.route("/ok/<int:number>")
def ok(number: int) -> str:
    with work(number) as text:
        time.sleep(0.01)
        return text


@blueprint.route("/<int:number>")
def fails(number: int) -> str:
    with work(number) as text:
        raise ValueError(text.strip())


@app.route("/stream/<int:number>")
def stream(number: int) -> Any:
    def chunks() -> Iterator[bytes]:
        for _ in range(CHUNKS):
            yield CHUNK

    with work(number):
        return flask.Response(chunks())


app.register_blueprint(blueprint, url_prefix="/fails")

if __name__ == "__main__":
    serve(app)
