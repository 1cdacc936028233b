"""A program on a terminal of its own: what stands on its screen, keys that are pressed, another size."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import pyte

from tests.support.wait import until

ON_ITS_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""
ENTERS, LEAVES = b"\x1b[?1049h", b"\x1b[?1049l"
"""The second screen of a terminal."""
SHOWS_CURSOR = b"\x1b[?25h"
LAST = b"\x1b]2;the end\x07"
"""A title, which no program here sets."""


class Terminal:
    """Runs `argv`; `lines` is what can be seen, `raw` all that was written."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str], columns: int = 80, rows: int = 24) -> None:
        self.raw = b""
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        self._lock = threading.Lock()
        self._master, self.slave = pty.openpty()
        self._size(columns, rows)
        self.modes_before = termios.tcgetattr(self.slave)
        self.process = subprocess.Popen(
            [sys.executable, "-c", ON_ITS_TERMINAL, *argv],
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            env={"TERM": "xterm-256color", **environment},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(60)
        os.close(self.slave)
        self._reader.join(30)
        os.close(self._master)

    @property
    def lines(self) -> list[str]:
        with self._lock:
            return [line.rstrip() for line in self._screen.display]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def until_shown(self, *words: str, timeout_s: float = 60.0) -> str:
        """The screen once it shows all of `words`."""

        def shown() -> str | None:
            text = self.text
            return text if all(word in text for word in words) else None

        try:
            return until(shown, timeout_s, f"{words} on the screen")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.text}") from None

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def resize(self, columns: int, rows: int) -> None:
        with self._lock:
            self._screen.resize(rows, columns)
        self._size(columns, rows)

    def ended(self, timeout_s: float = 60.0) -> int:
        """Its exit code, with all of its output read."""
        code = self.process.wait(timeout_s)
        os.write(self.slave, LAST)  # comes after what the program wrote, which the kernel may still have
        until(lambda: LAST in self.raw, timeout_s, "the rest of its output")
        with self._lock:
            self.raw = self.raw.replace(LAST, b"")
        return code

    def modes(self) -> list[Any]:
        return termios.tcgetattr(self.slave)

    def _size(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # once nobody has the other end open
            while data := os.read(self._master, 65536):
                with self._lock:
                    self.raw += data
                    self._stream.feed(data)
