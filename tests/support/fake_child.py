"""A child that is no process."""

from __future__ import annotations

import asyncio
import signal

from mountd.process.child import Child, Exit


class FakeChild(Child):
    """Ends on each signal but those that it ignores."""

    def __init__(self, *ignored: signal.Signals) -> None:
        self.pid = 4711
        self.exit: Exit | None = None
        self.signals: list[signal.Signals] = []
        self._ignored = ignored
        self._ended = asyncio.Event()

    def signal(self, number: signal.Signals) -> None:
        self.signals.append(number)
        if number not in self._ignored:
            self.end(-number)

    def end(self, code: int) -> None:
        self.exit = self.exit or Exit(code)
        self._ended.set()

    def release(self) -> None: ...
