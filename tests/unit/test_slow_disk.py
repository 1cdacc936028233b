"""A disk that may not answer: what waits for its work comes as soon as that is done, and delays nobody longer."""

from __future__ import annotations

import threading

import pytest

from mountd.process.slow_disk import SlowDisk
from tests.support.shelf import until


async def test_what_comes_after_the_work_comes_once_it_is_done_however_late() -> None:
    disk, answers, done = SlowDisk(), threading.Event(), list[str]()
    await disk.settle(lambda: done.append("none yet"), 0.0)
    assert done == ["none yet"]
    with pytest.raises(TimeoutError):
        await disk.run(lambda: answers.wait(600), 0.01)
    await disk.settle(lambda: done.append("later"), 0.01)
    assert done == ["none yet"]
    answers.set()
    await until(lambda: done == ["none yet", "later"], "the end of the work")
    assert await disk.run(lambda: 7, 60.0) == 7
    await disk.settle(lambda: done.append("at once"), 0.0)
    assert done[2:] == ["at once"]
