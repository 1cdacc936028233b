"""The screen of `status --watch`: asks in a thread of its own, draws at once what is new, leaves at `q` or Ctrl-C.

It uses the terminal's alternate screen, so that what stood there before comes back. A daemon that is away is asked
again until it answers.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.live import Live

from mountd.cli import view
from mountd.cli.options import Options
from mountd.cli.progress import CHANGES
from mountd.cli.view_screen import ScreenData, screen
from mountd.client import api
from mountd.errors import MountdError, NotFound, UsageError

if TYPE_CHECKING:
    from rich.console import Console

STATUS_S = 1.0
OTHER_S = 5.0
"""Between two questions for traffic and events, which change less often."""
ANSWER_S = 5.0
EVENTS = 50
LEAVE = (b"q", b"Q", b"\x04")


class Asker:
    """Asks the daemon repeatedly, in a thread, and writes a byte to `wake` after each answer."""

    def __init__(self, options: Options, wake: int) -> None:
        self._options = options
        self._wake = wake
        self._stop = threading.Event()
        self._has_traffic = True
        self._next_other = 0.0
        self.seen = ScreenData()
        self.broken: Exception | None = None
        """what ends the command"""

    def run(self) -> None:
        while not self._stop.is_set() and self.broken is None:
            try:
                self._ask()
            except UsageError as error:
                self.broken = error
            except MountdError as error:
                self._next_other, self._has_traffic = 0.0, True
                self.seen = replace(self.seen, failure=error.text, hint=error.hint)
            except Exception as error:
                self.broken = error
            with contextlib.suppress(OSError):
                os.write(self._wake, b".")
            self._stop.wait(STATUS_S)

    def stop(self) -> None:
        self._stop.set()

    def _ask(self) -> None:
        path = self._options.find()
        status = api.get(path, "/api/v1/status", timeout_s=ANSWER_S)
        steps = {each["id"]: self._steps(path, each) for each in status.get("operations") or ()}
        self.seen = replace(self.seen, status=status, steps=steps, failure="", hint="", answered=time.time())
        if time.monotonic() < self._next_other:
            return
        self._next_other = time.monotonic() + OTHER_S
        events = api.get(path, "/api/v1/events", timeout_s=ANSWER_S, limit=EVENTS)["events"]
        self.seen = replace(self.seen, events=tuple(events))
        if self._has_traffic:
            try:
                self.seen = replace(self.seen, traffic=api.get(path, "/api/v1/traffic", timeout_s=ANSWER_S))
            except NotFound:  # a daemon that does not measure it
                self._has_traffic = False

    def _steps(self, path: str, operation: api.Document) -> list[str]:
        """Those that it has begun: not each switch has all of them."""
        if operation.get("kind") not in CHANGES:
            return []
        try:
            found = api.get(path, f"/api/v1/history/{operation['id']}", timeout_s=ANSWER_S)
        except NotFound:
            return []
        return [str(each["step"]) for each in found.get("steps") or ()]


def watch(options: Options) -> None:
    """Until `q`, Ctrl-C or a signal. Raises UsageError, and KeyboardInterrupt for Ctrl-C."""
    console = view.console()
    read, write = os.pipe()
    os.set_blocking(write, False)
    asker = Asker(options, write)
    thread = threading.Thread(target=asker.run, name="status", daemon=True)
    try:
        with _signals(write), _keys() as keyboard, Live(console=console, screen=True, auto_refresh=False) as live:
            thread.start()
            while True:
                _draw(live, console, asker.seen)
                if _pressed(read, keyboard):
                    return
                if asker.broken is not None:
                    raise asker.broken
    finally:
        asker.stop()
        thread.join(0.1)
        if not thread.is_alive():  # else it writes there once more, before it ends with the process
            os.close(read)
            os.close(write)


def _draw(live: Live, console: Console, seen: ScreenData) -> None:
    width, height = console.size
    drawn: list[Any] = screen(replace(seen, now=time.time()), width, height)
    live.update(view.Printable(Group(*drawn)), refresh=True)


def _pressed(read: int, keyboard: int | None) -> bool:
    """Waits for an answer, a key, another size, or a second; whether the key is one that leaves."""
    waited = [read] if keyboard is None else [read, keyboard]
    ready, _w, _x = select.select(waited, [], [], STATUS_S)
    if read in ready:
        os.read(read, 4096)
    if keyboard in ready and keyboard is not None:
        keys = os.read(keyboard, 64)
        return not keys or any(key in keys for key in LEAVE)
    return False


@contextlib.contextmanager
def _signals(wake: int) -> Iterator[None]:
    """Another size of the terminal is drawn at once; SIGTERM and SIGHUP leave in order, as Ctrl-C does."""

    def leave(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    def redraw(_number: int, _frame: object) -> None:
        with contextlib.suppress(OSError):
            os.write(wake, b".")

    handlers = {signal.SIGTERM: leave, signal.SIGHUP: leave, signal.SIGWINCH: redraw}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _keys() -> Iterator[int | None]:
    """The descriptor of the keyboard, whose keys come at once and are not shown; None: stdin is no terminal."""
    import termios
    import tty

    if not sys.stdin.isatty():
        yield None
        return
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    tty.setcbreak(keyboard)
    try:
        yield keyboard
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
