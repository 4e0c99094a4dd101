# /// script
# dependencies = ["requests==2.34.2"]
# ///
"""Requests from pools, threads, timers and tasks: who is whose parent."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import requests


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(204)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


def main() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    root = f"http://127.0.0.1:{server.server_address[1]}"

    def get(name: str) -> None:
        requests.get(f"{root}/{name}", timeout=60)

    with ThreadPoolExecutor(2) as pool:
        pool.submit(get, "submitted").result()
        list(pool.map(get, ["mapped"]))
    thread = threading.Thread(target=get, args=("thread",))
    thread.start()
    thread.join()

    async def work() -> None:
        await asyncio.to_thread(get, "to_thread")
        await asyncio.get_running_loop().run_in_executor(None, get, "in_executor")

    asyncio.run(work())
    server.shutdown()


main()
