"""The programs of the load tests: each is one framework's application, under the server that its argument names.

Importing this package switches tracing on, as the launcher does, and makes every span a line of the file RECORDS.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

from tests.servers import HOST

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

PORT = int(os.environ["PORT"])
_records = os.open(os.environ["RECORDS"], os.O_WRONLY | os.O_APPEND)

# A long body: more than any server and both sockets buffer, so that the server notices that its client is gone.
CHUNKS, CHUNK = 400, b"." * 65_536


def _record(**row: Any) -> None:
    os.write(_records, json.dumps(row).encode() + b"\n")


class _Records(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        for span in spans:
            assert span.context is not None
            _record(
                name=span.name,
                kind=span.kind.name,
                trace_id=span.context.trace_id,
                span_id=span.context.span_id,
                parent_id=span.parent.span_id if span.parent else None,
                status=span.status.status_code.name,
                attributes=dict(span.attributes or {}),
                exceptions=[(event.attributes or {})["exception.message"] for event in span.events],
            )
        return SpanExportResult.SUCCESS


_provider = TracerProvider()
_provider.add_span_processor(SimpleSpanProcessor(_Records()))
trace.set_tracer_provider(_provider)
for _entry in entry_points(group="opentelemetry_instrumentor"):
    if _entry.value.startswith("spanbridge."):
        _entry.load()().instrument(skip_dep_check=True)
_tracer = trace.get_tracer("work")


@contextmanager
def work(number: int) -> Iterator[str]:
    """Do what a handler does: note the request, open a span of the application's; answer the text to send."""
    _record(handled=number)
    with _tracer.start_as_current_span("work", attributes={"number": number}, record_exception=False):
        yield f"number {number}\n"


# Servers, for the programs to choose from.


def uvicorn(app: Any) -> None:
    import uvicorn

    uvicorn.run(app, host=HOST, port=PORT, log_level="warning", backlog=512)


def waitress(app: Any) -> None:
    import waitress

    waitress.serve(app, host=HOST, port=PORT, threads=8)


def gunicorn(app: Any) -> None:
    from gunicorn.app.base import BaseApplication

    class Application(BaseApplication):
        def load_config(self) -> None:
            for name, value in {"bind": f"{HOST}:{PORT}", "workers": 2, "threads": 8, "timeout": 120}.items():
                self.cfg.set(name, value)

        def load(self) -> Any:
            return app

    Application().run()


def wsgiref(app: Any) -> None:
    """The server that frameworks bring for development, a thread per request."""
    from socketserver import ThreadingMixIn
    from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

    class Server(ThreadingMixIn, WSGIServer):
        request_queue_size = 512
        daemon_threads = True

    class Handler(WSGIRequestHandler):
        def log_request(self, *args: Any) -> None:
            pass

    make_server(HOST, PORT, app, Server, Handler).serve_forever()


SERVERS = {"wsgiref": wsgiref, "uvicorn": uvicorn, "waitress": waitress, "gunicorn": gunicorn}


# Whether the server speaks ASGI, for frameworks that speak both.
ASYNC = sys.argv[1:2] == ["uvicorn"]


def serve(app: Any) -> None:
    """Serve `app` with the server that the program's argument names."""
    SERVERS[sys.argv[1]](app)
