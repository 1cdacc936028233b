"""What rclone moved, from one answer to the next and from one rclone to the next."""

from __future__ import annotations

from typing import cast

from mountd.errors import Unavailable
from mountd.mount.engine import Engine
from mountd.mount.traffic import TrafficCount
from mountd.rclone.stats import CoreStats, Transferred
from mountd.status.meters import MountMeters


class FakeRclone:
    """An rclone, and what it says."""

    def __init__(self) -> None:
        self.ended: list[Transferred] | None = []
        self.stats: CoreStats | None = None
        self.asked = 0

    @property
    def rc(self) -> FakeRclone:
        return self

    async def transferred(self) -> list[Transferred]:
        self.asked += 1
        if self.ended is None:
            raise Unavailable("rclone does not answer")
        return self.ended

    async def core_stats(self, timeout_s: float) -> CoreStats:
        if self.stats is None:
            raise Unavailable("rclone does not answer")
        return self.stats


def counting(*, uploads: bool) -> tuple[FakeRclone, TrafficCount, MountMeters]:
    rclone, meters = FakeRclone(), MountMeters()
    return rclone, TrafficCount(cast(Engine, rclone), meters, lambda: uploads), meters


def moved(count: int, age_s: float) -> CoreStats:
    return CoreStats(count, 0, "", age_s=age_s)


async def test_a_new_rclone_counts_from_zero_again() -> None:
    rclone, count, meters = counting(uploads=False)
    for stats in (moved(100, 5.0), moved(150, 10.0), moved(30, 2.0), moved(200, 7.0)):
        await count.count(stats)
    assert (meters.fetched, meters.uploaded) == (350, 0)
    assert not rclone.asked, "nothing can be uploaded"


async def test_a_count_that_falls_while_it_runs_adds_nothing() -> None:
    _, count, meters = counting(uploads=False)
    for stats in (moved(100, 5.0), moved(90, 10.0), moved(120, 15.0)):
        await count.count(stats)
    assert meters.fetched == 130


async def test_uploads_are_asked_for_only_when_something_moved() -> None:
    rclone, count, meters = counting(uploads=True)
    await count.count(moved(0, 5.0))
    asked = [rclone.asked]
    rclone.ended = [Transferred("a.wav", "t", 30, is_upload=True)]
    await count.count(moved(100, 10.0))
    assert (meters.fetched, meters.uploaded) == (70, 30)
    asked.append(rclone.asked)
    await count.count(moved(100, 15.0))
    assert [*asked, rclone.asked] == [0, 1, 1]
    rclone.ended = None
    await count.count(moved(110, 20.0))
    assert (meters.fetched, meters.uploaded) == (80, 30), "it is not known: most mounts only read"


async def test_the_last_look_before_a_stop() -> None:
    rclone, count, meters = counting(uploads=True)
    await count.look()
    rclone.stats, rclone.ended = moved(40, 5.0), [Transferred("a.wav", "t", 40, is_upload=True)]
    await count.look()
    assert (meters.fetched, meters.uploaded) == (0, 40)
    rclone, count, meters = counting(uploads=False)
    rclone.stats = moved(40, 5.0)
    await count.look()
    assert meters.fetched == 0
