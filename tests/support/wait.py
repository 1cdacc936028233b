"""Waits for a condition instead of sleeping a fixed time."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Generator
from typing import TypeVar

import psutil

T = TypeVar("T")


def until(condition: Callable[[], T | None], timeout_s: float, what: str, every_s: float = 0.1) -> T:
    """The first true value of `condition`, asked every `every_s`; an exception of it counts as "not yet".

    Raises AssertionError at once when the condition does, and after `timeout_s`, with `what` was awaited and the last
    value or exception seen.
    """
    tries = _tries(condition, timeout_s, what)
    while True:
        try:
            next(tries)
        except StopIteration as found:
            value: T = found.value
            return value
        time.sleep(every_s)


async def until_async(condition: Callable[[], T | None], timeout_s: float, what: str, every_s: float = 0.01) -> T:
    """As `until`, while the event loop turns."""
    tries = _tries(condition, timeout_s, what)
    while True:
        try:
            next(tries)
        except StopIteration as found:
            value: T = found.value
            return value
        await asyncio.sleep(every_s)


def _tries(condition: Callable[[], T | None], timeout_s: float, what: str) -> Generator[None, None, T]:
    """Yields before each new try."""
    deadline = time.monotonic() + timeout_s
    while True:
        cause: Exception | None = None
        try:
            value = condition()
            if value:
                return value
            seen = f"last value {value!r}"
        except AssertionError:
            raise  # the condition says that it never will be
        except Exception as error:
            cause, seen = error, f"last error {type(error).__name__}: {error}"
        if time.monotonic() >= deadline:
            raise AssertionError(f"waited {timeout_s:g} s in vain for {what}; {seen}") from cause
        yield


def until_gone(pid: int, timeout_s: float = 60.0) -> None:
    """A process that was killed and is no child of ours, with all its threads: the last one gives its locks back."""

    def is_gone() -> bool:
        try:
            return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE and len(os.listdir(f"/proc/{pid}/task")) == 1
        except (psutil.NoSuchProcess, FileNotFoundError):
            return True

    until(is_gone, timeout_s, f"process {pid} to be gone")
