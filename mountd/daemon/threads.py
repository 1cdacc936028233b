"""The threads beside the event loop: one that is stuck on a disk delays neither other work nor the exit of mountd."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import queue
import resource
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

import structlog

from mountd.process import init

log = structlog.get_logger()

P = ParamSpec("P")
T = TypeVar("T")

THREADS = 32
"""Started when needed; a disk that does not answer may hold some of them for any time."""
READY = 3
BESIDE = 8
"""Descriptors that must be free besides, for the reserve to count as full."""
BUSY_S = 2.0
"""Limit for work in progress when all else has stopped: evidence is written, a file replaced."""
LOG_S = 0.2
"""For the thread that writes the log."""
DESCRIPTORS = 32
"""For the children, pipes and reads of the mount table of a stop, and for requests when no others are left."""


class Threads(ThreadPoolExecutor):
    """The event loop's executor. Its shutdown, which asyncio waits for, returns within BUSY_S.

    READY threads are there from the start, and do all the work when no more can be started later on.
    """

    def __init__(self) -> None:
        super().__init__(THREADS, thread_name_prefix="work")
        self._under_way: set[Future[Any]] = set()
        together = threading.Barrier(READY)
        concurrent.futures.wait([self.submit(together.wait) for _ in range(READY)])

    def _adjust_thread_count(self) -> None:
        try:
            super()._adjust_thread_count()
        except RuntimeError:
            if len(self._threads) < READY:
                raise

    def submit(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future = super().submit(work, *args, **kwargs)
        self._under_way.add(future)
        future.add_done_callback(self._under_way.discard)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        super().shutdown(wait=False, cancel_futures=True)
        if wait:
            _, stuck = concurrent.futures.wait(tuple(self._under_way), BUSY_S)
            if stuck:
                log.error("threads are still busy: exiting without them", threads=len(stuck))


def run(work: Coroutine[Any, Any, T]) -> T:
    """As `asyncio.run`, with these threads; which would start one more thread to stop the others."""
    loop, threads = asyncio.new_event_loop(), Threads()
    asyncio.set_event_loop(loop)
    loop.set_default_executor(threads)
    try:
        return loop.run_until_complete(work)
    finally:
        try:
            left = asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
            threads.shutdown()
        finally:
            asyncio.set_event_loop(None)
            loop.close()


class Reserve:
    """What a stop needs, kept from the start: descriptors, and the thread that ends mountd when all else is stuck."""

    def __init__(self) -> None:
        self._descriptors: list[int] = []
        self._limit_s: queue.SimpleQueue[float] = queue.SimpleQueue()
        self._exit_code = 1
        threading.Thread(target=self._exit, name="exit", daemon=True).start()
        self.refill()

    def refill(self) -> bool:
        """Whether the reserve is full, with BESIDE more descriptors free."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = DESCRIPTORS if soft < 0 else min(DESCRIPTORS, soft // 8)
        try:
            while len(self._descriptors) < wanted + BESIDE:
                self._descriptors.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            return False
        for each in self._descriptors[wanted:]:
            os.close(each)
        del self._descriptors[wanted:]
        return True

    def lend(self, count: int = DESCRIPTORS) -> int:
        """Closes up to `count` of the descriptors → how many."""
        given, self._descriptors = self._descriptors[:count], self._descriptors[count:]
        for each in given:
            os.close(each)
        return len(given)

    def end_within(self, limit_s: float, *, exit_code: int = 1) -> None:
        """Ends mountd in `limit_s` seconds, whatever is stuck."""
        self.lend()
        self._exit_code = exit_code
        self._limit_s.put(limit_s)

    def _exit(self) -> None:
        limit_s = self._limit_s.get()
        time.sleep(limit_s)
        log.error("stop takes too long: exiting without what is stuck", limit_s=limit_s)
        time.sleep(LOG_S)
        init.leave(self._exit_code)
