"""A million operations under `tracemalloc`, Agent up and Agent down: `python -m tests.soak.operations`.

An operation is a WSGI request or the query in it; no two have the same path or statement. Prints how much memory was
in use after each tenth, and exits with 1 if it grows once the first three are over.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import multiprocessing
import os
import sqlite3
import subprocess
import sys
import time
import tracemalloc
from typing import TYPE_CHECKING, Any

from opentelemetry import trace

from tests.servers import HOST, free_port, wait_for
from tests.soak.million_spans import receive

if TYPE_CHECKING:
    from collections.abc import Iterable

STEPS = 10
WARM = 3  # steps until caches are full, and for an absent Agent the buffer
MOST_GROWTH = 128 << 10  # bytes; a third of a byte per operation in a full run would be more
BUFFER = 1 << 20  # bytes that are kept for an absent Agent
EVERY = 500  # requests between two flushes, which let the worker keep up


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak.operations", description=__doc__)
    parser.add_argument("--operations", type=int, default=1_000_000)
    parser.add_argument("--agent", choices=("up", "down"), help="one of them, in this process")
    arguments = parser.parse_args()
    if arguments.agent is None:
        return max(_run_alone(arguments.operations, agent) for agent in ("up", "down"))
    figures = soak(arguments.operations, agent=arguments.agent)
    print(json.dumps(figures))
    return int(figures["growth"] > MOST_GROWTH or figures["received"] not in {0, figures["operations"]})


def _run_alone(operations: int, agent: str) -> int:
    command = [sys.executable, "-m", "tests.soak.operations", "--operations", str(operations), "--agent", agent]
    return subprocess.run(command, check=False).returncode


def soak(operations: int, *, agent: str) -> dict[str, Any]:
    """Do the operations with everything instrumented, and answer the figures."""
    port = free_port()
    context = multiprocessing.get_context("spawn")
    seen = context.Value("q", 0)
    if agent == "up":
        started = context.Event()
        receiver = context.Process(target=receive, args=(port, seen, started), daemon=True)
        receiver.start()
        started.wait(30)
    os.environ["DD_TRACE_AGENT_URL"] = f"http://{HOST}:{port}"
    os.environ["DD_TRACE_WRITER_BUFFER_SIZE_BYTES"] = str(BUFFER)
    logging.disable()  # the one warning that the Agent is down

    import spanbridge.auto
    from spanbridge.instrumentors.wsgi import OpenTelemetryMiddleware

    connection = sqlite3.connect(":memory:")

    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        connection.execute(f"SELECT {environ['PATH_INFO'][7:]}").fetchone()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"ok"]

    def settle() -> None:
        """Let the worker deliver what is queued; with nobody there, put it into the buffer, or give it up."""
        if agent == "up":
            spanbridge.flush(60_000)
            return
        processor = trace.get_tracer_provider()._active_span_processor._span_processors[0]
        wait_for(lambda: not processor._queue, "the worker", 60)

    serve = OpenTelemetryMiddleware(application)
    began, samples = time.perf_counter(), []
    tracemalloc.start()
    requests = operations // 2
    for number in range(requests):
        environ = {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": f"/items/{number}",
            "SERVER_NAME": "shop",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "HTTP_X_DATADOG_TRACE_ID": str(number + 1),
            "HTTP_X_DATADOG_PARENT_ID": "7",
            "wsgi.url_scheme": "http",
        }
        b"".join(serve(environ, lambda status, headers, exc_info=None: None))
        step = (number + 1) % (requests // STEPS) == 0
        if (number + 1) % EVERY == 0 or step:
            settle()
        if step:
            gc.collect()
            samples.append(tracemalloc.get_traced_memory()[0])
    return {
        "agent": agent,
        "operations": requests * 2,
        "received": seen.value,
        "seconds": round(time.perf_counter() - began, 1),
        "memory": samples,
        # The least of three, for a payload may be under way; what leaks is in all of them.
        "growth": min(samples[-3:]) - min(samples[WARM : WARM + 3]),
    }


if __name__ == "__main__":
    raise SystemExit(main())
