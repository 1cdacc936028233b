"""The probe of stalled reads: what it reports of what it finds, how soon it looks again, and how it reads /proc."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Unpack, cast

import pytest

from mountd.errors import DiskError, Unavailable
from mountd.files.client import Files
from mountd.mount import stalls
from mountd.mount.bucket import BucketProbe
from mountd.mount.engine import Engine
from mountd.mount.health import FactChanges, Facts, Stall
from mountd.mount.stalls import StalledReads, StallProbe, stalled_reads
from mountd.mount.traffic import TrafficCount
from mountd.rclone.stats import CoreStats
from mountd.status.meters import MountMeters
from mountd.status.snapshot import Health, RemoteStatus
from tests.support.wait import until_async
from tests.unit.test_probes import Reported

SOON_S = 30.0
C, A, P, U = (frozenset({key}) for key in "capu")
OF_A_READ = "vfs reader: failed to write to cache file"


class World:
    """What the probe of a mount with one app finds: it says so at each look."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.found = StalledReads()
        self.unanswered: int | None = None
        self.stats: CoreStats | None = CoreStats(100, 0, "")
        self.status = RemoteStatus(Health.HEALTHY)
        self.looks = self.hurried = self.listed = 0
        self.stuck = False
        self.pid = 77
        self.list_error = False
        self.meters = MountMeters()
        self.mount = SimpleNamespace(health=SimpleNamespace(backend=0.0, timeout=1.0))
        monkeypatch.setattr(stalls, "stalled_reads", self._stalled_reads)
        monkeypatch.setattr(stalls, "unanswered", self._unanswered)
        own = cast(Any, self)
        self.probe = StallProbe(
            *("/m", cast(Engine, own), cast(BucketProbe, own), cast(Files, own)),
            pids=lambda: [11],
            minor=lambda: 7,
            traffic=TrafficCount(cast(Engine, own), self.meters, lambda: False),
        )

    def _stalled_reads(self, roots: list[int], path: str) -> StalledReads:
        assert (roots, path) == ([11], "/m")
        self.looks += 1
        return self.found

    async def _unanswered(self, minor: int | None, timeout_s: float) -> int | None:
        assert minor == 7
        return self.unanswered

    @property
    def rc(self) -> World:
        return self

    async def core_stats(self, timeout_s: float) -> CoreStats:
        if self.stats is None:
            raise Unavailable("rclone does not answer")
        return self.stats

    def hurry(self) -> None:
        self.hurried += 1

    async def list(self, path: str, *, limit: int, timeout_s: float) -> None:
        self.listed += 1
        if self.list_error:
            raise DiskError("no answer")

    async def look(self, reported: Reported) -> Facts:
        await self.probe._look(reported)
        return reported.facts


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


# -- one look ---------------------------------------------------------------------------------------------------------


async def test_each_kind_of_wait_is_a_fact_of_its_own(world: World) -> None:
    world.found = StalledReads(C, A, P, U)
    facts = await world.look(Reported())
    assert (facts.stall.reads, facts.listing.reads, facts.possible_stall.reads) == (C, A | P, U)
    world.unanswered = 3
    facts = await world.look(Reported())
    assert (facts.stall.reads, facts.listing.reads, facts.possible_stall.reads) == (C | P | U, A, frozenset())
    world.unanswered = 0
    assert (await world.look(Reported())).stall.reads == frozenset()


async def test_its_own_listing_that_does_not_end_is_a_listing(world: World) -> None:
    world.stuck = True
    assert (await world.look(Reported())).listing.reads == {"look/77"}
    assert world.hurried == 1, "the bucket is asked, as it may be the reason"
    world.stuck = False
    assert (await world.look(Reported())).listing.reads == frozenset()
    assert world.hurried == 1


async def test_time_counts_only_while_the_bucket_is_quick_and_rclone_moves_nothing(world: World) -> None:
    world.found = StalledReads(C)
    reported = Reported()
    first = (await world.look(reported)).stall
    assert (await world.look(reported)).stall.since == first.since
    world.stats = CoreStats(101, 0, "")
    moved = (await world.look(reported)).stall
    assert moved.since > first.since
    world.stats = CoreStats(101, 1, "")
    failed = (await world.look(reported)).stall
    assert failed.since > moved.since
    world.status = RemoteStatus(Health.DEGRADED)
    slow = (await world.look(reported)).stall
    assert slow.since > failed.since


async def test_reads_that_fail_are_counted_and_other_errors_are_not(world: World) -> None:
    reported = Reported()
    await world.look(reported)
    for errors, cause, begun in ((1, "upload failed", False), (2, f"a: {OF_A_READ}", True)):
        world.stats = CoreStats(100, errors, cause)
        assert (await world.look(reported)).failed_reads.have_begun is begun
        await world.look(reported)
    world.stats = None
    assert not (await world.look(reported)).failed_reads.have_begun, "rclone does not say"


# -- look after look --------------------------------------------------------------------------------------------------


async def run_until(world: World, seen: Callable[[], object], reported: Reported | None = None) -> Reported:
    it = reported or Reported()

    def report(**changes: Unpack[FactChanges]) -> Facts:
        return it(**changes)

    running = asyncio.create_task(world.probe.run(report))
    await until_async(lambda: seen() or running.done(), SOON_S, "the looks")
    running.cancel()
    await asyncio.wait({running})
    assert running.cancelled()
    return it


async def test_the_first_look_only_counts_the_errors_of_before(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stalls, "INTERVAL_S", 60.0)
    world.found, world.stats = StalledReads(C), CoreStats(100, 5, OF_A_READ)
    reported = await run_until(world, lambda: world.looks == 1)
    await asyncio.sleep(0)
    assert reported.facts.stall == Stall()
    assert not reported.facts.failed_reads.have_begun


async def test_the_root_is_listed_unless_the_last_listing_is_stuck(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stalls, "INTERVAL_S", 0.001)
    world.list_error = True
    await run_until(world, lambda: world.listed >= 2)
    world.stuck, before, looks = True, world.listed, world.looks
    await run_until(world, lambda: world.looks >= looks + 4)
    assert world.listed == before
    world.stuck = False
    world.mount.health.backend = 60.0
    looks = world.looks
    await run_until(world, lambda: world.looks >= looks + 4)
    assert world.listed == before + 1, "no more often than the bucket is asked"


async def test_reads_that_have_begun_to_fail_are_looked_at_soon(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stalls, "INTERVAL_S", 60.0)
    monkeypatch.setattr(stalls, "FAILING_INTERVAL_S", 0.001)
    reported = Reported()
    await world.look(reported)
    world.stats = CoreStats(100, 1, OF_A_READ)
    await world.look(reported)
    looks = world.looks
    await run_until(world, lambda: world.looks >= looks + 3, reported)


# -- /proc ------------------------------------------------------------------------------------------------------------


def test_which_open_files_are_of_the_mount(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "a").touch()
    (tmp_path / "mm").touch()
    opened = {
        "file": os.open(tmp_path / "m" / "a", os.O_RDONLY),
        "path": os.open(tmp_path / "m" / "a", os.O_PATH),
        "other": os.open(tmp_path / "mm", os.O_RDONLY),
    }
    pid, mount = os.getpid(), str(tmp_path / "m")
    try:
        found = {name: stalls._is_file_below(pid, hex(fd), mount) for name, fd in opened.items()}
        assert found == {"file": True, "path": False, "other": False}
        assert not stalls._is_file_below(pid, "0x7ffffffff", mount)
        assert not stalls._is_file_below(pid, "running", mount)
        assert (stalls._uses(pid, mount), stalls._uses(pid, str(tmp_path / "x"))) == (True, False)
    finally:
        for fd in opened.values():
            os.close(fd)
    assert not stalls._uses(pid, mount)


def test_the_children_of_an_app_are_looked_at_each_once() -> None:
    child = subprocess.Popen(["sleep", "60"])
    try:
        found = [*stalls._tree([os.getpid(), os.getpid()])]
        assert found.count(os.getpid()) == 1
        assert child.pid in found
        assert [*stalls._tree([child.pid])] == [child.pid]
    finally:
        child.kill()
        child.wait()


THREAD: Mapping[str, str] = {
    "stat": "5 (a) b) D 1 2 3",
    "wchan": "folio_wait_bit_common",
    "syscall": "0 0x3 0x7f00",
    "status": "Name:\ta\nvoluntary_ctxt_switches:\t40\nnonvoluntary_ctxt_switches:\t2\n",
}


@pytest.mark.parametrize(
    ("changed", "on_file", "expected"),
    [
        ({}, True, StalledReads(content=frozenset({"5/5/42"}))),
        ({}, False, StalledReads(page=frozenset({"5/5/42"}))),
        ({"stat": "5 (a) R 1"}, True, StalledReads()),
        ({"stat": "5 (a) Z 1"}, True, StalledReads()),
        ({"stat": "5 (a) S 1"}, True, StalledReads()),
        ({"stat": "5 (a) S 1", "wchan": "request_wait_answer"}, True, StalledReads(content=frozenset({"5/5/42"}))),
        ({"stat": "5 (a) S 1", "wchan": "request_wait_answer"}, False, StalledReads(answer=frozenset({"5/5/42"}))),
        ({"syscall": "-1 0x7f"}, False, StalledReads(page=frozenset({"5/5/42"}))),
        ({"syscall": "running"}, True, StalledReads(page=frozenset({"5/5/42"}))),
        ({"wchan": "0"}, False, StalledReads(unknown=frozenset({"5/5/42"}))),
        ({"wchan": "rpc_wait"}, True, StalledReads()),
        ({"stat": ""}, True, StalledReads()),
    ],
)
def test_a_thread_as_proc_shows_it(
    monkeypatch: pytest.MonkeyPatch, changed: dict[str, str], on_file: bool, expected: StalledReads
) -> None:
    files = {**THREAD, **changed}

    def read(path: str) -> str:
        return files.get(os.path.basename(path), "")

    monkeypatch.setattr(stalls, "_read", read)
    monkeypatch.setattr(stalls, "_threads", lambda pid: [pid])
    monkeypatch.setattr(stalls, "_is_file_below", lambda pid, argument, path: on_file and argument == "0x3")
    monkeypatch.setattr(stalls, "_uses", lambda pid, path: pid == 5)
    assert stalled_reads([5], "/m") == expected
    assert stalled_reads([6], "/m") == StalledReads(), "it uses another mount"


@pytest.mark.parametrize(
    ("release", "call"), [("5.6.0", []), ("5.7.0-rc1", ["0", "0x3"]), ("6.18", ["0", "0x3"]), ("x", [])]
)
def test_a_system_call_is_not_asked_for_where_that_may_hang(
    monkeypatch: pytest.MonkeyPatch, release: str, call: list[str]
) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(release=release))
    monkeypatch.setattr(stalls, "_read", lambda _: "0 0x3")
    assert stalls._call("/proc/5/task/5") == call
