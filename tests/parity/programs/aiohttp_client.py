# /// script
# dependencies = ["aiohttp==3.14.5"]
# [[tool.parity.differences]]
# reason = "connecting is a detail, made on request"
# side = "ddtrace"
# pattern = "TCPConnector\\.connect"
# [[tool.parity.differences]]
# reason = "an exception raised for a status tells that status"
# side = "spanbridge"
# pattern = "404 \\| ERROR"
# replacement = "- | ERROR"
# ///
"""aiohttp's client against a server on a bare socket."""

from __future__ import annotations

import asyncio
import contextlib

import aiohttp

STATUS = {"/items/3": b"200 OK", "/absent": b"404 Not Found", "/broken": b"503 Service Unavailable"}


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    path = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1].decode().partition("?")[0]
    if path == "/moved":
        writer.write(b"HTTP/1.1 302 Found\r\nLocation: /items/3\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    elif path in STATUS:
        writer.write(b"HTTP/1.1 " + STATUS[path] + b"\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
    await writer.drain()
    writer.close()


async def main() -> None:
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with aiohttp.ClientSession() as session:
        for method, path in (
            ("GET", "/items/3?token=abc"),
            ("POST", "/items/3"),
            ("GET", "/absent"),
            ("GET", "/broken"),
            ("GET", "/moved"),
        ):
            async with session.request(method, url + path) as response:
                print(method, path, response.status, len(await response.read()))
        with contextlib.suppress(aiohttp.ClientError):
            await session.get(f"{url}/nothing")
        with contextlib.suppress(aiohttp.ClientError):
            await session.get("http://127.0.0.1:1/refused")
        with contextlib.suppress(aiohttp.ClientResponseError):
            await session.get(f"{url}/absent", raise_for_status=True)
    server.close()


asyncio.run(main())
