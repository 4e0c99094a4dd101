"""`spanbridge demo`: two small services, traced by the launcher, seen by a real Datadog receiver on this machine."""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from spanbridge.demo.processes import (
    CHECKS,
    HOST,
    SERVICES,
    DemoError,
    Receiver,
    free_port,
    request,
    require,
    running,
    script,
    wait_until,
)
from spanbridge.demo.terminal import Terminal
from spanbridge.demo.tree import Expected, Node, draw, missing, roots

if TYPE_CHECKING:
    from collections.abc import Iterator


class Request(NamedTuple):
    """A request of the demo, and the trace that it must leave."""

    title: str
    method: str
    path: str
    status: int
    resource: str
    trace: Expected


def requests(*, with_redis: bool) -> tuple[Request, ...]:
    """List the demo's requests with what Datadog must see of each."""
    query = Expected("sqlite.query")
    cache = (Expected("redis.command"),) if with_redis else ()
    levels = Expected("flask.request", "stock", children=(query, *cache))
    level = Expected("flask.request", "stock", children=cache or (query,))
    refused = Expected("flask.request", "stock", error=True, children=(query,))
    return (
        Request(
            "a success that crosses both services", "GET", "/", 200, "GET /",
            Expected("flask.request", "shop", children=(query, Expected("requests.request", children=(levels,)))),
        ),
        Request(
            "a route with a parameter", "GET", "/items/2", 200, "GET /items/<int:item_id>",
            Expected("flask.request", "shop", children=(query, Expected("requests.request", children=(level,)))),
        ),
        Request(
            "an item that is not there", "GET", "/items/99", 404, "GET /items/<int:item_id>",
            Expected("flask.request", "shop", children=(query,)),
        ),
        Request(
            "a failure in the service behind", "POST", "/orders/3", 500, "POST /orders/<int:item_id>",
            Expected(
                "flask.request", "shop", error=True,
                children=(Expected("requests.request", error=True, children=(refused,)),),
            ),
        ),
    )  # fmt: skip


def run(*, once: bool = False, keep: bool = False) -> int:
    """Run the demo.

    Args:
        once: end after the last trace, instead of waiting for Ctrl-C; also when nobody sits at the terminal.
        keep: leave logs and databases, and say where.

    Returns:
        0 when every expected span arrived below its parent, 1 when not, 2 when the demo could not run.
    """
    terminal = Terminal()
    stay = not once and terminal.interactive and sys.stdin.isatty()
    previous = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    directory = Path(tempfile.mkdtemp(prefix="spanbridge-demo-"))
    try:
        return _demo(terminal, directory, stay=stay)
    except DemoError as error:
        terminal.line(f"\n{terminal.red(str(error))}")
        return 2
    except KeyboardInterrupt:
        terminal.line()
        return 130
    finally:
        signal.signal(signal.SIGTERM, previous)
        if keep:
            terminal.line(f"logs and databases are in {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)


def _demo(terminal: Terminal, directory: Path, *, stay: bool) -> int:
    require("flask", "jinja2", "requests")
    receiver = Receiver()
    terminal.line(terminal.bold("spanbridge demo: two services, one Datadog receiver, nothing leaves this machine"))
    terminal.line()
    with ExitStack() as stack:
        shop, with_redis = _start(terminal, stack, receiver, directory)
        terminal.line()
        wrong: list[str] = []
        for wanted in requests(with_redis=with_redis):
            wrong += _show(terminal, receiver, shop, wanted)
        if failures := receiver.failed_checks():
            wrong.append(f"the receiver's checks failed: {failures}")
        for problem in wrong:
            terminal.line(terminal.red(f"{terminal.cross} {problem}"))
        if not wrong:
            terminal.line(terminal.green(f"{terminal.tick} every expected span arrived, below its parent"))
        if stay:
            terminal.line(
                f"\nthe shop is at {terminal.bold(shop)}, the traces at http://{HOST}:{receiver.page}/requests"
            )
            terminal.line("Ctrl-C ends the demo")
            _wait_for_ctrl_c()
        terminal.line(terminal.dim("ending the services and the receiver"))
    return 1 if wrong else 0


def _start(terminal: Terminal, stack: ExitStack, receiver: Receiver, directory: Path) -> tuple[str, bool]:
    """Start everything; answers the shop's address, and whether there is a Redis."""
    with terminal.step("receiver: ddapm-test-agent, all its checks on") as step:
        log = directory / "receiver.log"
        stack.enter_context(running(receiver.command(directory), receiver.port, log, step.dot, **CHECKS))
    stock, shop = free_port(), free_port()
    variables = {"STOCK_DATABASE": str(directory / "stock.db")}
    redis = shutil.which("redis-server")
    if redis:
        port = free_port()
        with terminal.step("redis: a private server") as step:
            command = [redis, "--bind", HOST, "--port", str(port), "--save", "", "--dir", str(directory)]
            stack.enter_context(running(command, port, directory / "redis.log", step.dot))
        variables["REDIS_PORT"] = str(port)
    else:
        terminal.line("  redis: redis-server is not on PATH, so the stock service goes without")
    for name, port, own in (
        ("stock", stock, variables),
        ("shop", shop, {"SHOP_DATABASE": str(directory / "shop.db"), "STOCK_URL": f"http://{HOST}:{stock}"}),
    ):
        with terminal.step(f"{name}: DD_SERVICE={name} opentelemetry-instrument python {name}.py") as step:
            command = [script("opentelemetry-instrument"), sys.executable, str(SERVICES / f"{name}.py")]
            own |= {"PORT": str(port), "DD_SERVICE": name, "DD_ENV": "demo", "DD_TRACE_AGENT_URL": receiver.url}
            stack.enter_context(running(command, port, directory / f"{name}.log", step.dot, **own))
    return f"http://{HOST}:{shop}", bool(redis)


def _show(terminal: Terminal, receiver: Receiver, shop: str, wanted: Request) -> Iterator[str]:
    """Send one request, wait for its trace and draw it; yields what is missing."""
    name = f"{wanted.method} {wanted.path}"
    with terminal.step(f"{terminal.bold(name)}  {wanted.title}") as step:
        status, _ = request(wanted.method, shop + wanted.path)
        step.done = wait_until(lambda: not _faults(_find(receiver, wanted), wanted), 15, step.dot)
    root = _find(receiver, wanted)
    if root is not None:
        for row in draw(root, terminal):
            terminal.line(f"    {row}")
        terminal.line(terminal.dim(f"    {receiver.trace_page(root.span['trace_id'])}"))
    terminal.line()
    if status != wanted.status:
        yield f"{name} was answered with {status or 'nothing'}, not {wanted.status}"
    for fault in _faults(root, wanted):
        yield f"{name}: {fault}"


def _find(receiver: Receiver, wanted: Request) -> Node | None:
    """Find the trace of a request by the resource and status of its root."""
    for root in roots(receiver.spans()):
        span = root.span
        if (span["name"], span["resource"], root.status) == ("flask.request", wanted.resource, str(wanted.status)):
            return root
    return None


def _faults(root: Node | None, wanted: Request) -> list[str]:
    if root is None:
        return [f"no trace with resource {wanted.resource!r} and status {wanted.status} arrived"]
    return list(missing(root, wanted.trace))


def _wait_for_ctrl_c() -> None:
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        sys.stdout.write("\n")
