# /// script
# dependencies = ["fastapi", "starlette==1.10.0", "uvicorn"]
# [[tool.parity.differences]]
# reason = "an application mounted in another is the same request: ddtrace makes a second span"
# side = "ddtrace"
# pattern = "fastapi\\.request \\| GET /mounted/things/3 "
# [[tool.parity.differences]]
# reason = "what happens inside a request has no spans of its own"
# side = "ddtrace"
# pattern = "\\| (fastapi\\.serialize_response|(fastapi|starlette)\\.background_task) \\|"
# ///
"""FastAPI under uvicorn: routers, a mounted application, validation, errors, bodies, background tasks."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import uvicorn
from _http import HOST, ask, free_port, wait_for
from fastapi import APIRouter, BackgroundTasks, FastAPI, HTTPException
from fastapi.responses import RedirectResponse, StreamingResponse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

app, mounted, router = FastAPI(), FastAPI(), APIRouter(prefix="/users")


@app.get("/items/{item}")
async def show(item: int) -> int:
    return item


@app.get("/thread")
def show_in_a_thread() -> str:
    return "ok"


@app.get("/broken")
async def broken() -> None:
    raise ValueError("a fault of the endpoint")


@app.get("/refused/{code}")
async def refused(code: int) -> None:
    raise HTTPException(code)


@app.get("/moved")
async def moved() -> RedirectResponse:
    return RedirectResponse("/items/1")


@app.get("/stream")
async def stream() -> StreamingResponse:
    async def chunks() -> AsyncIterator[str]:
        for number in range(3):
            yield str(number)

    return StreamingResponse(chunks())


@app.get("/later")
async def later(tasks: BackgroundTasks) -> str:
    tasks.add_task(lambda: None)
    return "ok"


@router.get("/{user}")
@mounted.get("/things/{user}")
async def show_user(user: str) -> str:
    return user


app.include_router(router, prefix="/v1")
app.mount("/mounted", mounted)
REQUESTS = (
    "GET /items/3",
    "GET /items/3?token=abc&q=1",
    "GET /items/x",
    "PUT /items/3",
    "HEAD /items/3",
    "OPTIONS /items/3",
    "GET /thread",
    "GET /broken",
    "GET /refused/404",
    "GET /refused/503",
    "GET /moved",
    "GET /stream",
    "GET /later",
    "GET /v1/users/3",
    "POST /v1/users/3",
    "GET /mounted/things/3",
    "GET /nowhere/3",
    "GET /thread/",
    "GET /docs",
)
port = free_port()
server = uvicorn.Server(uvicorn.Config(app, host=HOST, port=port, log_level="critical"))
thread = threading.Thread(target=server.run)
thread.start()
wait_for(port)
for request in REQUESTS:
    print(request, ask(port, *request.split(" ")))
server.should_exit = True
thread.join()
