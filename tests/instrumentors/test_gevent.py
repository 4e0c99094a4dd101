"""gevent: which context greenlets have, each group of tests in a process of its own that gevent has patched or not."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from textwrap import dedent

import pytest

pytest.importorskip("gevent")

PRELUDE = """
    import spanbridge
    from opentelemetry import trace
    from spanbridge.testing import Spans

    def here(*args):
        return trace.get_current_span().get_span_context().span_id

    def span(name):
        return trace.get_tracer("application").start_as_current_span(name)

    def trace_here():
        spans = Spans()
        trace._TRACER_PROVIDER = spans.provider
        return spans
"""
ORDERS = {
    "patched, then instrumented": "from gevent import monkey; monkey.patch_all()\n    spanbridge.instrument()",
    "instrumented, then patched": "spanbridge.instrument()\n    from gevent import monkey; monkey.patch_all()",
    "imported, instrumented, patched": """import gevent, gevent.pool, gevent.threadpool
    spanbridge.instrument()
    from gevent import monkey; monkey.patch_all()""",
    "not patched": "spanbridge.instrument()",
}


def run(program: str, order: str = "") -> str:
    text = dedent(PRELUDE + f"\n    {order}\n    spans = trace_here()\n" + program)
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", text], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("order", ORDERS)
def test_ways_to_start_a_greenlet(order: str) -> None:
    run(
        """
    import gevent, gevent.pool
    from gevent import Greenlet, spawn

    class Worker(Greenlet):
        def _run(self):
            return here()

    outside = [spawn(here), Worker.spawn()]
    assert [greenlet.get() for greenlet in outside] == [0, 0]
    raw = []
    with span("request"):
        expected = here()
        worker = Worker()
        worker.start()
        greenlets = [
            spawn(here), gevent.spawn(here), gevent.spawn_later(0.001, here), Greenlet.spawn(here), worker,
            gevent.pool.Group().spawn(here), gevent.pool.Pool(2).spawn(here), gevent.pool.Pool(2).apply_async(here),
        ]
        gevent.spawn_raw(lambda: raw.append(here()))
    assert [greenlet.get() for greenlet in greenlets] == [expected] * len(greenlets), greenlets
    assert raw == [expected]
    assert isinstance(worker, gevent.Greenlet)
    """,
        ORDERS[order],
    )


@pytest.mark.parametrize("order", ORDERS)
def test_pools_and_the_hubs_threads(order: str) -> None:
    run(
        """
    import gevent, gevent.pool
    from gevent.threadpool import ThreadPool, ThreadPoolExecutor

    pool, threads = gevent.pool.Pool(2), ThreadPool(1)
    with span("request"):
        expected = [here()] * 3
        assert pool.map(here, range(3)) == expected
        assert list(pool.imap(here, range(3))) == expected
        assert list(pool.imap_unordered(here, range(3))) == expected
        assert threads.map(here, range(3)) == expected
        assert gevent.get_hub().threadpool.spawn(here).get() == expected[0]
        with ThreadPoolExecutor(1) as executor:
            assert executor.submit(here).result() == expected[0]
    assert threads.spawn(here).get() == 0
    assert pool.map(here, range(3)) == [0, 0, 0]
    """,
        ORDERS[order],
    )


def test_patched_threads_and_executors() -> None:
    run(
        """
    import threading
    from concurrent.futures import ThreadPoolExecutor

    found = []
    with span("request"):
        thread = threading.Thread(target=lambda: found.append(here()))
        thread.start()
        thread.join()
        with ThreadPoolExecutor(1) as executor:
            assert executor.submit(here).result() == here() == found[0]
    with ThreadPoolExecutor(1) as executor:
        with span("first"):
            executor.submit(here).result()
        assert executor.submit(here).result() == 0
    """,
        ORDERS["patched, then instrumented"],
    )


def test_a_context_that_the_application_has_given_stays() -> None:
    run(
        """
    import contextvars, gevent

    with span("request"):
        greenlet = gevent.Greenlet(here)
        greenlet.gr_context = contextvars.Context()
        greenlet.start()
    assert greenlet.get() == 0
    """,
        ORDERS["not patched"],
    )


def test_taken_back() -> None:
    run(
        """
    import gevent
    plain = gevent.Greenlet, gevent.spawn, gevent.spawn_raw
    spanbridge.instrument()
    from spanbridge.instrumentors.gevent import GeventInstrumentor
    meanwhile = gevent.Greenlet
    assert meanwhile is not plain[0]
    GeventInstrumentor().uninstrument()
    assert (gevent.Greenlet, gevent.spawn, gevent.spawn_raw) == plain
    with span("request"):
        greenlets = [gevent.spawn(here), meanwhile.spawn(here)]
    assert [greenlet.get() for greenlet in greenlets] == [0, 0]
    """
    )


def test_traces_that_begin_in_greenlets_and_in_the_hubs_threads() -> None:
    """What guards the traces' records is nothing that gevent has replaced."""
    program = """
from gevent import monkey; monkey.patch_all()
import sys, time, gevent, spanbridge.auto
from opentelemetry import trace
sys.setswitchinterval(1e-6)
tracer = trace.get_tracer("application")
def work():
    for _ in range(5):
        with tracer.start_as_current_span("root"):
            time.sleep(0)
threads = gevent.get_hub().threadpool
for started in [spawn(work) for _ in range(3000) for spawn in (threads.spawn, gevent.spawn)]:
    started.get()
"""
    variables = {**os.environ, "DD_TRACE_AGENT_URL": "http://127.0.0.1:1"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, env=variables)
    assert done.returncode == 0, done.stderr
    assert "failed" not in done.stderr


def test_a_thousand_at_once() -> None:
    """None sees another's context, and nothing of them stays; `nox -s soak` has ten thousand."""
    command = [sys.executable, "-m", "tests.soak.contexts", "--kind", "gevent", "--count", "1000"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "line", ["from gevent import monkey; monkey.patch_all()", "import gevent.monkey as m; m.patch_all()"]
)
def test_the_launcher_before_monkey_patching(line: str) -> None:
    """Nothing has derived a class from ssl's by then, or gevent would warn, and recurse for ever in requests.

    wrapt imports asyncio, and that ssl, which alone does no harm.
    """
    program = f"""
import sys
assert "spanbridge" in sys.modules
assert not {{"urllib3", "requests", "http.client"}} & set(sys.modules)
{line}
import ssl
assert type(ssl.create_default_context()).__module__.startswith("gevent")
import gevent
from opentelemetry import trace
def here():
    return trace.get_current_span().get_span_context().span_id
with trace.get_tracer("application").start_as_current_span("request"):
    assert gevent.spawn(here).get() == here() != 0
"""
    launcher = Path(sysconfig.get_path("scripts"), "opentelemetry-instrument")
    command = [launcher, sys.executable, "-W", "error::RuntimeWarning", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
