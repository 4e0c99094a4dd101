# /// script
# dependencies = ["bottle==0.13.4"]
# [[tool.parity.differences]]
# reason = "a raised redirect, refusal or other answer below 500 is no error"
# side = "ddtrace"
# pattern = "(\\| [234]\\d\\d \\|) ERROR"
# replacement = "\\1 -"
# [[tool.parity.differences]]
# reason = "requests that no rule matches are requests, too; ddtrace has no span for them"
# side = "spanbridge"
# pattern = "(GET|POST|PUT|HTTP) 40[45] "
# ///
"""Bottle over WSGI: rules, mounts, errors, streams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import bottle
from _wsgi import send

if TYPE_CHECKING:
    from collections.abc import Iterator

app, inner = bottle.Bottle(), bottle.Bottle()


@app.route("/")
@app.route("/items/<item:int>", method=["GET", "POST"])
@app.route("/files/<name:path>")
def ok(**more: Any) -> str:
    return f"ok {more}"


@inner.route("/things/<name>")
def thing(name: str) -> str:
    return name


@app.route("/raises")
def raises() -> None:
    raise ValueError("fault")


@app.route("/abort/<code:int>")
def abort(code: int) -> None:
    bottle.abort(code, "refused")


@app.route("/moved")
def moved() -> None:
    bottle.redirect("/")


@app.route("/accepted")
def accepted() -> None:
    raise bottle.HTTPResponse("later", status=202)


@app.route("/returns/<code:int>")
def returns(code: int) -> Any:
    return bottle.HTTPResponse("body", status=code)


@app.route("/stream")
def stream() -> Iterator[str]:
    yield "a"
    yield "b"


app.mount("/inner/", inner)

send(
    app,
    """
GET /
GET /items/3
POST /items/3
HEAD /items/3
PUT /items/3
BREW /items/3
GET /files/a/b%20c.txt
GET /nowhere/123
POST /nowhere
GET /raises
GET /abort/404
GET /abort/503
GET /moved
GET /accepted
GET /returns/204
GET /returns/404
GET /returns/500
GET /stream
GET /inner/things/lamp
""",
)
