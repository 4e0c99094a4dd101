# /// script
# dependencies = ["starlette==1.10.0", "uvicorn", "websockets"]
# [[tool.parity.differences]]
# reason = "a resource of low cardinality: ddtrace puts the raw path of a websocket there, we its route"
# side = "ddtrace"
# pattern = "websocket /rooms/3"
# replacement = "websocket /rooms/{room}"
# [[tool.parity.differences]]
# reason = "the handshake is a GET, answered with 101 or 403"
# side = "spanbridge"
# pattern = "(websocket /.* \\| web \\| server \\|) \\d+"
# replacement = "\\1 -"
# [[tool.parity.differences]]
# reason = "one span per handshake: messages of a websocket are no operations of ours"
# side = "ddtrace"
# pattern = "\\| websocket\\.(receive|send|close|disconnect) \\|"
# [[tool.parity.differences]]
# reason = "an application mounted in another is the same request: ddtrace makes a second span"
# side = "ddtrace"
# pattern = "starlette\\.request \\| GET /v1/inner/things/3 "
# ///
"""Starlette under uvicorn: routes, mounts, hosts, errors, bodies, websockets."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import uvicorn
from _http import HOST, ask, free_port, shake, wait_for
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, RedirectResponse, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def show(request: Any) -> Any:
    return PlainTextResponse("ok")


def show_in_a_thread(request: Any) -> Any:
    return PlainTextResponse("ok")


async def broken(request: Any) -> Any:
    raise ValueError("a fault of the endpoint")


async def refused(request: Any) -> Any:
    raise HTTPException(request.path_params["code"])


async def handled(request: Any) -> Any:
    raise KeyError("answered by a handler")


async def sorry(request: Any, error: Exception) -> Any:
    return PlainTextResponse("sorry", 422)


async def moved(request: Any) -> Any:
    return RedirectResponse("/items/1")


async def stream(request: Any) -> Any:
    async def chunks() -> AsyncIterator[str]:
        for number in range(3):
            yield str(number)

    return StreamingResponse(chunks())


async def later(request: Any) -> Any:
    return PlainTextResponse("ok", background=BackgroundTask(lambda: None))


async def chat(socket: Any) -> None:
    await socket.accept()
    await socket.close()


async def closed(socket: Any) -> None:
    await socket.close()


app = Starlette(
    routes=[
        Route("/", show),
        Route("/items/{item:int}", show, methods=["GET", "POST"]),
        Route("/files/{name:path}", show),
        Route("/thread", show_in_a_thread),
        Route("/broken", broken),
        Route("/handled", handled),
        Route("/refused/{code:int}", refused),
        Route("/moved", moved),
        Route("/stream", stream),
        Route("/later", later),
        Mount(
            "/v1",
            routes=[
                Route("/users/{user}", show),
                Mount("/inner", app=Starlette(routes=[Route("/things/{name}", show)])),
            ],
        ),
        WebSocketRoute("/rooms/{room}", chat),
        WebSocketRoute("/closed", closed),
    ],
    exception_handlers={KeyError: sorry},
)
REQUESTS = (
    "GET /",
    "GET /?token=abc&q=1",
    "GET /items/3",
    "POST /items/3",
    "PUT /items/3",
    "HEAD /items/3",
    "OPTIONS /items/3",
    "GET /items/x",
    "GET /files/a/b.txt",
    "GET /thread",
    "GET /broken",
    "GET /handled",
    "GET /refused/404",
    "GET /refused/401",
    "GET /refused/500",
    "GET /refused/503",
    "GET /moved",
    "GET /stream",
    "GET /later",
    "GET /v1/users/3",
    "POST /v1/users/3",
    "GET /v1/users/",
    "GET /v1/inner/things/3",
    "GET /v1/nowhere",
    "GET /nowhere/3",
    "GET /thread/",
)
port = free_port()
server = uvicorn.Server(uvicorn.Config(app, host=HOST, port=port, log_level="critical"))
thread = threading.Thread(target=server.run)
thread.start()
wait_for(port)
for request in REQUESTS:
    print(request, ask(port, *request.split(" ")))
for path in ("/rooms/3", "/closed"):
    print("websocket", path, shake(port, path))
server.should_exit = True
thread.join()
