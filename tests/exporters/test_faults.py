"""Programs whose receiver fails, or that end in odd ways: each in a process of its own, exit handlers and all."""

from __future__ import annotations

import signal
import time
from collections import Counter

import pytest

from tests import servers
from tests.exporters import receivers
from tests.exporters.programs import interrupt_at, run

pytestmark = pytest.mark.slow

SPANS = 60
# What the end may take longer than that of the same program without us (seconds).
BUDGET = 1.0
# What a busy machine may add: we wait 0.8 s at most, and docs/endings.md has 1.3 to 1.5 s for that on two busy cores.
# CI runs two lanes on two. A wait without a deadline, as others have, takes 4 to 22 s there.
LOADED = 1.5
ENDING = """
print("done")
print("mistake", file=sys.stderr)
mark()
sys.exit(3)
"""
PROGRAM = f"work({SPANS}){ENDING}"
# Lives on as long as the test wants.
LIVING = f"""
work({SPANS // 2})
wait("go on")
work({SPANS // 2})
wait("end")
{ENDING}"""


def run_both(program, directory, url, **more):
    """Run a program plain, then traced; check that its output, its exit code and its time to end are the same."""
    (directory / "plain").mkdir()
    for name in ("go on", "end"):
        (directory / "plain" / name).touch()
    plain = run(program, directory / "plain", traced=False)
    ended = run(program, directory / "traced", DD_TRACE_AGENT_URL=url, **more)
    assert (ended.code, ended.out, ended.err) == (plain.code, plain.out, plain.err) == (3, "done\n", "mistake\n")
    over = ended.seconds - plain.seconds
    print(f"exit: {over:.2f} s over plain, lost {ended.lost}")
    assert over < BUDGET + LOADED
    return ended


def log_of(program):
    log = program / "log"
    return log.read_text() if log.exists() else ""


def assert_all_there(spans, lost=0):
    """Check that every span has arrived once, or was counted as lost."""
    assert set(Counter(span["span_id"] for span in spans).values()) <= {1}
    assert len(spans) + lost == SPANS


# What a fault says at most: warnings, informations.
SILENT, WARNED = (0, 0), (1, 1)


@pytest.mark.parametrize(
    ("script", "delivered", "said"),
    [
        pytest.param(None, False, WARNED, id="refused port"),
        pytest.param(receivers.never_answers, False, WARNED, id="black hole"),
        pytest.param(receivers.resets, False, WARNED, id="reset"),
        pytest.param(receivers.drips, False, WARNED, id="a byte per second"),
        pytest.param(receivers.speaks_gibberish, False, WARNED, id="not HTTP"),
        pytest.param(receivers.answers(500), False, WARNED, id="500"),
        pytest.param(receivers.answers(404), False, WARNED, id="404"),
        pytest.param(receivers.answers(400), False, WARNED, id="400"),
        pytest.param(receivers.answers(415), False, WARNED, id="415"),
        pytest.param(receivers.answers(408, 200), True, WARNED, id="408 then 200"),
        pytest.param(receivers.slow, True, SILENT, id="slow"),
        pytest.param(receivers.answers(429, 200), True, WARNED, id="429 then 200"),
        pytest.param(receivers.answers(503, 503, 200), True, WARNED, id="503 twice then 200"),
        pytest.param(receivers.takes_at_most(SPANS // 4), True, SILENT, id="413"),
        pytest.param(receivers.takes_at_most(0), False, WARNED, id="413 always"),
        pytest.param(receivers.answers(200, body=b"\xff{junk"), True, SILENT, id="200 with junk"),
        pytest.param(receivers.answers(200), True, SILENT, id="healthy"),
    ],
)
def test_receivers(receiver, tmp_path, script, delivered, said):
    faulty = receiver(script, now=script is not None)
    ended = run_both(PROGRAM, tmp_path, faulty.url)
    assert_all_there(faulty.accepted, ended.lost)
    assert ended.lost == (0 if delivered else SPANS)
    warnings, informations = ended.logged("WARNING"), ended.logged("INFO")
    assert len(warnings) <= said[0], ended.log
    assert len(informations) <= said[1], ended.log
    assert bool(warnings) == bool(said[0]), ended.log


@pytest.mark.parametrize("address", ["tcp", "unix"])
def test_a_receiver_that_dies_and_comes_back(receiver, tmp_path, address):
    faulty = receiver(receivers.answers(200), path=tmp_path / "socket" if address == "unix" else None)
    program = tmp_path / "traced"

    def meanwhile(process):
        servers.wait_for(lambda: len(faulty.accepted) == SPANS // 2, "the first spans")
        faulty.stop()
        (program / "go on").touch()
        servers.wait_for(lambda: "WARNING" in log_of(program), "the warning")
        time.sleep(0.5)
        faulty.start()
        servers.wait_for(lambda: len(faulty.accepted) == SPANS, "the other spans")
        (program / "end").touch()

    ended = run_both(LIVING, tmp_path, faulty.url, meanwhile=meanwhile)
    assert_all_there(faulty.accepted, ended.lost)
    assert ended.lost == 0
    assert [len(ended.logged("WARNING")), len(ended.logged("INFO"))] == [1, 1], ended.log


def test_a_receiver_that_starts_late(receiver, tmp_path):
    faulty = receiver(receivers.answers(200), now=False)

    def meanwhile(process):
        (tmp_path / "traced" / "go on").touch()
        servers.wait_for(lambda: "WARNING" in log_of(tmp_path / "traced"), "the warning")
        faulty.start()
        servers.wait_for(lambda: len(faulty.accepted) == SPANS, "all spans")
        (tmp_path / "traced" / "end").touch()

    ended = run_both(LIVING, tmp_path, faulty.url, meanwhile=meanwhile)
    assert_all_there(faulty.accepted, ended.lost)
    assert ended.lost == 0
    assert [len(ended.logged("WARNING")), len(ended.logged("INFO"))] == [1, 1], ended.log


def test_a_place_where_a_receiver_takes_over_later(receiver, tmp_path):
    """Something else listens there at first, and answers 404: what it gets is lost, what comes after is not."""
    faulty = receiver(receivers.answers(404, 200))
    program = tmp_path / "traced"

    def meanwhile(process):
        servers.wait_for(lambda: "WARNING" in log_of(program), "the warning")
        (program / "go on").touch()
        servers.wait_for(lambda: faulty.accepted, "the other spans")
        (program / "end").touch()

    ended = run_both(LIVING, tmp_path, faulty.url, meanwhile=meanwhile)
    assert_all_there(faulty.accepted, ended.lost)
    assert 0 < ended.lost < SPANS
    assert [len(ended.logged("WARNING")), len(ended.logged("INFO"))] == [1, 1], ended.log
    assert f"{ended.lost} spans were lost" in ended.log


@pytest.mark.parametrize("url", ["http://[::1", "http://localhost:99999", "ftp://agent", "agent:8126", "http://:8126"])
def test_an_address_that_cannot_be_used(receiver, tmp_path, url):
    healthy = receiver(receivers.answers(200))
    ended = run_both(PROGRAM, tmp_path, url, DD_AGENT_PORT=str(healthy.port))
    assert_all_there(healthy.accepted)
    assert ended.lost == 0
    (warning,) = ended.log.splitlines()
    assert warning.startswith("WARNING ")
    assert "DD_TRACE_AGENT_URL" in warning
    assert url in warning


# --- endings ---

ENDINGS = {
    "end of the program": (f"work({SPANS})", 0),
    "sys.exit": (f"work({SPANS})\nsys.exit(3)", 3),
    "unhandled exception": (f"work({SPANS})\nraise ValueError('on purpose')", 1),
    "thread pool": (
        f"""
        from concurrent.futures import ThreadPoolExecutor
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, [1] * {SPANS}))
        """,
        0,
    ),
    "sys.exit in a thread": (
        f"""
        from threading import Thread
        def end():
            work({SPANS})
            sys.exit(3)
        thread = Thread(target=end)
        thread.start()
        thread.join()
        """,
        0,
    ),
    "os._exit": (f"work({SPANS})\nos._exit(4)", 4),
    "os._exit after a flush": (f"import spanbridge\nwork({SPANS})\nspanbridge.flush()\nos._exit(4)", 4),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_endings(receiver, tmp_path, ending):
    program, code = ENDINGS[ending]
    healthy = receiver(receivers.answers(200))
    ended = run(program, tmp_path, DD_TRACE_AGENT_URL=healthy.url)
    assert ended.code == code
    assert ended.err.count("Error: ") == (ending == "unhandled exception"), ended.err
    assert_all_there(healthy.accepted)
    assert ended.lost == (None if "_exit" in ending else 0), "os._exit runs no exit handlers, so nobody counts"
    assert ended.log == ""


def test_sigterm_under_its_default_action(receiver, tmp_path):
    healthy = receiver(receivers.answers(200))
    program = f"work({SPANS})\nmark()\ntime.sleep(20)"
    ended = run(
        program, tmp_path, meanwhile=interrupt_at(tmp_path / "mark", signal.SIGTERM), DD_TRACE_AGENT_URL=healthy.url
    )
    assert ended.code == -signal.SIGTERM, "it still ends by the signal"
    assert (ended.out, ended.err, ended.log) == ("", "", "")
    assert_all_there(healthy.accepted)


def test_sigterm_with_nobody_at_the_agents_address(tmp_path):
    url = f"http://{servers.HOST}:{servers.free_port()}"
    program = f"work({SPANS})\nmark()\ntime.sleep(20)"
    ended = run(program, tmp_path, meanwhile=interrupt_at(tmp_path / "mark", signal.SIGTERM), DD_TRACE_AGENT_URL=url)
    assert ended.code == -signal.SIGTERM
    assert ended.seconds < BUDGET + LOADED
    assert [len(ended.logged("WARNING")), len(ended.logged("INFO"))] == [1, 1], ended.log


@pytest.mark.parametrize("when", ["before", "after"])
def test_sigterm_with_a_handler_of_the_application(receiver, tmp_path, when):
    healthy = receiver(receivers.answers(200))
    handler = """
import signal, sys
def handle(number, frame):
    print("handled")
    sys.exit(7)
signal.signal(signal.SIGTERM, handle)
"""
    # What precedes a program loads spanbridge; "before" takes ours out and sets it up anew.
    again = "from spanbridge.launcher import endings\nendings.watch(lambda: print('ours'))\n"
    setting_up = handler + again if when == "before" else handler
    program = f"{setting_up}\nwork({SPANS})\nmark()\ntime.sleep(20)"
    ended = run(
        program, tmp_path, meanwhile=interrupt_at(tmp_path / "mark", signal.SIGTERM), DD_TRACE_AGENT_URL=healthy.url
    )
    assert (ended.code, ended.out) == (7, "handled\n")
    assert_all_there(healthy.accepted)


def test_sigterm_left_alone_on_request(receiver, tmp_path):
    healthy = receiver(receivers.answers(200))
    program = "import signal\nprint(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)"
    assert run(program, tmp_path, DD_TRACE_AGENT_URL=healthy.url, SPANBRIDGE_SIGTERM="false").out == "True\n"


def test_an_interrupt(receiver, tmp_path):
    healthy = receiver(receivers.answers(200))
    program = f"work({SPANS})\nmark()\ntime.sleep(20)"
    ended = run(program, tmp_path, meanwhile=interrupt_at(tmp_path / "mark"), DD_TRACE_AGENT_URL=healthy.url)
    assert ended.code == -2
    assert ended.err.rstrip().endswith("KeyboardInterrupt")
    assert_all_there(healthy.accepted)
    assert ended.log == ""


# --- children ---

CHILDREN = {
    "fork, child returns": f"""
        work({SPANS // 3})
        if os.fork():
            os.wait()
            work({SPANS // 3})
        else:
            work({SPANS // 3})
        """,
    "fork, child ends in os._exit": f"""
        work({SPANS // 3})
        if os.fork():
            os.wait()
            work({SPANS // 3})
        else:
            work({SPANS // 3})
            os._exit(0)
        """,
    "fork, child ends in os._exit after a flush": f"""
        import spanbridge
        work({SPANS // 3})
        if os.fork():
            os.wait()
            work({SPANS // 3})
        else:
            work({SPANS // 3})
            assert spanbridge.flush()
            os._exit(0)
        """,
    "parent forks and goes on": f"""
        work({SPANS // 2})
        child = os.fork()
        if not child:
            os._exit(0)
        work({SPANS // 2})
        os.waitpid(child, 0)
        """,
    "fork, child is terminated": f"""
        import signal
        child = os.fork()
        work({SPANS // 2})
        if child:
            wait("ready")
            os.kill(child, signal.SIGTERM)
            assert os.waitpid(child, 0)[1] == signal.SIGTERM
        else:
            open("ready", "w").close()
            time.sleep(20)
        """,
    "a pool that is terminated": f"""
        import multiprocessing
        if __name__ == "__main__":
            with multiprocessing.get_context("fork").Pool(2) as pool:
                pool.map(work, [{SPANS // 6}] * 6, chunksize=1)
        """,
    "fork while spans are open": f"""
        from opentelemetry import trace
        with trace.get_tracer("app").start_as_current_span("parent's"):
            pid = os.fork()
            work({SPANS // 2 - 1})
            if not pid:
                work(1)
        if pid:
            os.wait()
        """,
    # The SDK's fork hook uses a thread pool, whose lock has to be freed before it.
    "fork of a fork, with thread pools": f"""
        import concurrent.futures.thread
        for _ in range(2):
            work({SPANS // 3})
            if os.fork():
                os.wait()
                break
        else:
            work({SPANS // 3})
        """,
    "multiprocessing, fork": "fork",
    "multiprocessing, spawn": "spawn",
    "multiprocessing, forkserver": "forkserver",
    "process pool": "pool",
}
WORKERS = """
import multiprocessing
if __name__ == "__main__":
    context = multiprocessing.get_context("{method}")
    work({half})
    workers = [context.Process(target=work, args=({quarter},)) for _ in range(2)]
    for worker in workers: worker.start()
    for worker in workers: worker.join()
"""
POOL = """
import concurrent.futures, multiprocessing
if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    work({half})
    with concurrent.futures.ProcessPoolExecutor(2, context) as pool:
        list(pool.map(work, [{tenth}] * 5))
"""


@pytest.mark.parametrize("children", CHILDREN)
def test_children(receiver, tmp_path, children):
    program = CHILDREN[children]
    sizes = {"half": SPANS // 2, "quarter": SPANS // 4, "tenth": SPANS // 10}
    if program == "pool":
        program = POOL.format(**sizes)
    elif "work" not in program:
        program = WORKERS.format(method=program, **sizes)
    healthy = receiver(receivers.answers(200))
    ended = run(program, tmp_path, DD_TRACE_AGENT_URL=healthy.url)
    assert (ended.code, ended.out, ended.err, ended.log) == (0, "", "", "")
    assert_all_there(healthy.accepted)
