from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.contract.probes import Probe
from tests.sockets import ask


class Tornado(Probe):
    nested = False
    uncalled = frozenset({"client_request_hook", "client_response_hook"})

    def open(self, server: Any) -> Any:
        from tornado.httpserver import HTTPServer
        from tornado.ioloop import IOLoop
        from tornado.netutil import bind_sockets
        from tornado.web import Application, RequestHandler

        seen: dict[str, Exception] = {}

        class Show(RequestHandler):
            def get(self, item: str) -> None:
                self.write("ok")

        class Broken(RequestHandler):
            def get(self) -> None:
                raise seen["error"]

            def log_exception(self, kind: Any, error: Any, traceback: Any) -> None:
                seen["raised"] = error

        loop = IOLoop()
        app = Application([(r"/items/(\d+)", Show), ("/broken", Broken)], log_function=lambda handler: None)
        sockets = bind_sockets(0, "127.0.0.1")

        loop.add_callback(lambda: HTTPServer(app).add_sockets(sockets))
        return loop, sockets[0].getsockname()[1], seen, ThreadPoolExecutor(1)

    def close(self, target: Any) -> None:
        loop, _, _, executor = target
        executor.shutdown()
        loop.close(all_fds=True)

    def operate(self, target: Any) -> Any:
        loop, port, _, executor = target
        return loop.run_sync(lambda: executor.submit(ask, port, "GET", "/items/7"))

    def fail(self, target: Any, error: Exception) -> None:
        loop, port, seen, executor = target
        seen["error"] = error
        loop.run_sync(lambda: executor.submit(ask, port, "GET", "/broken"))
        raise seen["raised"]
