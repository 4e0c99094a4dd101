"""The ends of a process that skip Python's exit handlers: SIGTERM under its default action, and `os._exit`.

Both go on as before, after the finished spans were sent, or the receiver has taken nothing for a moment.
"""

from __future__ import annotations

import os
import signal
import threading
from functools import wraps
from typing import TYPE_CHECKING, Any

from spanbridge.core.guard import report
from spanbridge.core.options import boolean, from_environment

if TYPE_CHECKING:
    from collections.abc import Callable


def watch(send_rest: Callable[[], object]) -> None:
    """Have the rest sent at those ends too.

    Args:
        send_rest: sends what is left in this process, under a deadline of its own; does nothing when nothing is.
    """
    before_exit(send_rest)
    if from_environment(("SPANBRIDGE_SIGTERM",), boolean, default=True):
        at_sigterm(send_rest)


def at_sigterm(send_rest: Callable[[], object]) -> None:
    """Stand in for the default action of SIGTERM, not for a handler: whoever sets one later takes ours out."""
    if threading.current_thread() is not threading.main_thread():
        return  # only the main thread may set handlers
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        return

    def end(number: int, frame: Any) -> None:
        _guarded(send_rest)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, end)


def before_exit(send_rest: Callable[[], object]) -> None:
    """Send the rest before `os._exit`, with which forked children end that are not to run their parent's handlers."""
    original = os._exit

    @wraps(original)
    def exit_now(status: int) -> Any:
        _guarded(send_rest)
        original(status)

    os._exit = exit_now


def _guarded(send_rest: Callable[[], object]) -> None:
    try:
        send_rest()
    except Exception as error:
        report("sending the rest at the end", error)
