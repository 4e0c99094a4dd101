"""What the demo writes: steps with visible progress, colours on a terminal only, plain ASCII where that is all."""

from __future__ import annotations

import os
import shutil
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO
from zlib import crc32

if TYPE_CHECKING:
    from collections.abc import Iterator

_HUES = (36, 33, 35, 34, 32)


class Step:
    """What the block of `Terminal.step` says while it works; `done` False means that it failed."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.done = True

    def dot(self) -> None:
        """Show that it is still working."""
        self._stream.write(".")
        self._stream.flush()


class Terminal:
    """A stream of lines.

    Args:
        stream: where they go.
    """

    def __init__(self, stream: TextIO = sys.stdout) -> None:
        self._stream = stream
        self.interactive = stream.isatty()
        self._coloured = self.interactive and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        self.width = min(max(shutil.get_terminal_size((100, 24)).columns, 60), 140)
        try:
            "├─└─│✗✓…".encode(stream.encoding or "ascii")
        except (UnicodeError, LookupError):
            self.tee, self.elbow, self.rail, self.cross, self.tick, self.ellipsis = "+-", "`-", "| ", "x", "ok", "~"
        else:
            self.tee, self.elbow, self.rail, self.cross, self.tick, self.ellipsis = "├─", "└─", "│ ", "✗", "✓", "…"

    def line(self, text: str = "") -> None:
        """Write one line now."""
        self._stream.write(text + "\n")
        self._stream.flush()

    @contextmanager
    def step(self, what: str) -> Iterator[Step]:
        """Show that `what` is under way, and at the end how it went and how long it took."""
        started = time.monotonic()
        self._stream.write(f"  {what} ")
        self._stream.flush()
        step = Step(self._stream)
        try:
            yield step
        except BaseException:
            step.done = False
            raise
        finally:
            mark = self.green(self.tick) if step.done else self.red(self.cross)
            self.line(f" {mark} {self.dim(f'{time.monotonic() - started:.1f} s')}")

    def bold(self, text: str) -> str:
        """Render `text` bold."""
        return self._paint(text, 1)

    def dim(self, text: str) -> str:
        """Render `text` dim."""
        return self._paint(text, 2)

    def red(self, text: str) -> str:
        """Render `text` red."""
        return self._paint(text, 31)

    def green(self, text: str) -> str:
        """Render `text` green."""
        return self._paint(text, 32)

    def hue(self, text: str) -> str:
        """Render `text` in a colour of its own, the same each time."""
        return self._paint(text, _HUES[crc32(text.encode()) % len(_HUES)])

    def _paint(self, text: str, code: int) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._coloured and text else text
