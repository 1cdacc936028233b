"""The threads beside the event loop: what is stuck on a disk keeps neither other work nor the end of mountd waiting."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

import structlog

from mountd.process import init

log = structlog.get_logger()

P = ParamSpec("P")
T = TypeVar("T")

THREADS = 32
"""Made when they are needed; a disk that does not answer holds some of them for as long as it likes."""
END_S = 2.0
"""So long what is under way may go on when all else has ended: evidence is written, a file replaced."""
SAID_S = 0.2


class Threads(ThreadPoolExecutor):
    """The event loop's executor. Its shutdown, which asyncio waits for, ends within END_S."""

    def __init__(self) -> None:
        super().__init__(THREADS, thread_name_prefix="work")
        self._under_way: set[Future[Any]] = set()

    def submit(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future = super().submit(work, *args, **kwargs)
        self._under_way.add(future)
        future.add_done_callback(self._under_way.discard)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        super().shutdown(wait=False, cancel_futures=True)
        if wait:
            _, stuck = concurrent.futures.wait(tuple(self._under_way), END_S)
            if stuck:
                log.error("something does not end: going on without it", threads=len(stuck))


def end_within(limit_s: float) -> None:
    """Ends mountd, whatever is stuck, in so many seconds: the promise that a stop is over then."""

    def end() -> None:
        log.error("the end takes too long: something is stuck, mountd ends without it", limit_s=limit_s)
        time.sleep(SAID_S)  # the log has a thread of its own
        init.leave(1)

    timer = threading.Timer(limit_s, end)
    timer.daemon = True
    timer.start()
