# /// script
# dependencies = ["typing-inspect==0.6.0"]
# [tool.parity]
# alone = ["molten==1.0.2"]  # it asks for typing-extensions older than OpenTelemetry's
# ///
"""Molten over WSGI: routes, includes, errors, streams. Handlers need types, not their names."""

import io
from typing import Any

import molten
from _wsgi import send


class Handled(Exception):
    pass


def home() -> str:
    return "home"


def show(item: int) -> str:
    return f"item {item}"


def broken() -> str:
    raise ValueError("fault")


def handled() -> str:
    raise Handled("answered by a handler")


def refused() -> str:
    raise molten.HTTPError(molten.HTTP_403, {"error": "refused"})


def unavailable() -> molten.Response:
    return molten.Response("503 Service Unavailable", content="later")


def moved() -> Any:
    return molten.redirect("/")


def stream() -> molten.Response:
    return molten.Response(molten.HTTP_200, stream=io.BytesIO(b"contents"))


class App(molten.App):
    def handle_exception(self, exception: BaseException) -> molten.Response:
        if isinstance(exception, Handled):
            return molten.Response("422 Unprocessable Entity", content="sorry")
        return super().handle_exception(exception)


send(
    App(
        [
            molten.Route("/", home),
            molten.Route("/items/{item}", show),
            molten.Route("/items/{item}", show, name="add", method="POST"),
            molten.Route("/broken", broken),
            molten.Route("/handled", handled),
            molten.Route("/refused", refused),
            molten.Route("/unavailable", unavailable),
            molten.Route("/moved", moved),
            molten.Route("/stream", stream),
            molten.Include("/v1", [molten.Route("/things/{item}", show, name="thing")]),
        ]
    ),
    """
GET /
GET /?q=1
GET /items/3
POST /items/3
PUT /items/3
HEAD /items/3
OPTIONS /items/3
GET /items/x
GET /nowhere/3
POST /nowhere
GET /broken
GET /handled
GET /refused
GET /unavailable
GET /moved
GET /stream
GET /v1/things/3
GET /v1/nowhere
""",
)
