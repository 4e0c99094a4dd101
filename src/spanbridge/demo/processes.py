"""The demo's processes: a Datadog receiver, a Redis where there is one, two services under the launcher."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sysconfig
import time
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HOST = "127.0.0.1"
SERVICES = Path(__file__).parent / "services"
# The checks that the receiver makes of every request, and that it remembers which failed.
CHECKS = {
    "ENABLED_CHECKS": "trace_count_header,meta_tracer_version_header,trace_content_length,trace_stall,"
    "meta_events_is_valid_json,trace_peer_service,trace_dd_service",
    "DD_POOL_TRACE_CHECK_FAILURES": "true",
}
_OURS = ("DD_", "OTEL_", "SPANBRIDGE_", "PORT", "HOST")


class DemoError(Exception):
    """The demo cannot go on; the text says why and what helps."""


class Receiver:
    """Datadog's test agent, listening for traces on one port and showing them on another."""

    def __init__(self) -> None:
        self.port, self.page, self.otlp = free_port(), free_port(), free_port()
        self.url = f"http://{HOST}:{self.port}"

    def command(self, directory: Path) -> list[str]:
        """Build the command that starts it."""
        ports = {
            "port": self.port,
            "web-ui-port": self.page,
            "otlp-http-port": self.otlp,
            "otlp-grpc-port": free_port(),
        }
        options = [word for name, port in ports.items() for word in (f"--{name}", str(port))]
        return [script("ddapm-test-agent"), "--host", HOST, *options, "--snapshot-dir", str(directory)]

    def spans(self) -> list[dict[str, Any]]:
        """Fetch every span received so far.

        Raises:
            DemoError: when it holds a payload that it refuses.
        """
        status, body = request("GET", f"{self.url}/test/session/traces")
        if status != 200:
            raise DemoError(f"the receiver refused a payload: {body}")
        return [span for trace in json.loads(body) for span in trace]

    def failed_checks(self) -> str:
        """Answer what its checks of requests and payloads found wrong, empty when nothing."""
        status, body = request("GET", f"{self.url}/test/trace_check/failures")
        return "" if status == 200 else body

    def trace_page(self, trace_id: int) -> str:
        """Answer the address of the page that shows one trace."""
        return f"http://{HOST}:{self.page}/traces/{trace_id}"


def script(name: str) -> str:
    """Find a command of this environment.

    Raises:
        DemoError: when it is not installed.
    """
    path = shutil.which(name, path=os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")]))
    if path is None:
        raise DemoError(f'{name} is not installed; the demo needs its extra: pip install "spanbridge[demo]"')
    return path


def require(*modules: str) -> None:
    """Check that what the services import is there.

    Raises:
        DemoError: when it is not.
    """
    if absent := [module for module in modules if find_spec(module) is None]:
        raise DemoError(f'{", ".join(absent)} not installed; the demo needs its extra: pip install "spanbridge[demo]"')


def clean_environment(**variables: str) -> dict[str, str]:
    """Copy this process's variables without those that steer tracing or the receiver, plus `variables`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    return {**kept, "PYTHONUNBUFFERED": "1", **variables}


def free_port() -> int:
    """Answer a TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(command: list[str], port: int, log: Path, dot: Callable[[], None], **variables: str) -> Iterator[None]:
    """Run `command` until the block ends; enters once it answers on `port`.

    Raises:
        DemoError: when it ends, or does not answer in 30 seconds; with the end of its log.
    """
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=log.parent,
            env=clean_environment(**variables),
            start_new_session=True,  # Ctrl-C is for the demo, which ends the others in order
        ) as process,
    ):
        try:
            wait_until(lambda: answers(port) or process.poll() is not None, 30, dot)
            if process.poll() is not None or not answers(port):
                raise DemoError(f"{Path(command[-1]).name} did not start:\n{log.read_text(errors='replace')[-2000:]}")
            yield
        finally:
            end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process and whatever it started: politely, and after 3 seconds without asking."""
    for number, patience in ((signal.SIGTERM, 3), (signal.SIGKILL, 3)):
        try:
            os.killpg(process.pid, number)
            process.wait(patience)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
        else:
            return


def wait_until(condition: Callable[[], bool], seconds: float, dot: Callable[[], None]) -> bool:
    """Wait for `condition`, with a dot every half second; answers whether it came true."""
    started = dotted = time.monotonic()
    while not condition():
        now = time.monotonic()
        if now - started > seconds:
            return False
        if now - dotted > 0.5:
            dot()
            dotted = now
        time.sleep(0.05)
    return True


def answers(port: int) -> bool:
    """Say whether something listens on `port`."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0


def request(method: str, url: str) -> tuple[int, str]:
    """Send one request; answers status and body, or 0 and the reason when nobody answered."""
    address = urlsplit(url)
    connection = HTTPConnection(address.netloc, timeout=15)
    try:
        connection.request(method, address.path)
        reply = connection.getresponse()
        return reply.status, reply.read().decode(errors="replace")
    except (OSError, HTTPException) as error:
        return 0, str(error)
    finally:
        connection.close()
