"""The start-up of a mount, stage by stage, with stand-ins for rclone, the mount and the bucket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mountd.errors import CannotStart, DiskError, RemoteError, Unavailable
from mountd.fuse.table import Entry
from mountd.mount import startup
from mountd.mount.health import Liveness, MountVerdict, Replace
from mountd.mount.startup import PROOF_TRIES, StartUp
from mountd.process.child import Child
from mountd.rclone.rc import RcClient
from mountd.rclone.stats import DiskCacheStats, VfsStats
from mountd.settings.schema import CacheSettings, MountSettings
from mountd.status.snapshot import Health, MountStage, MountStatus, Reason, RemoteStatus

SOON_S = 30.0
STATS = VfsStats(DiskCacheStats(0, 0, 0, "/cache/vfsMeta/s/bkt"))
HANGS = Replace(MountVerdict.HUNG, "mount m is hung")
AWAY = RemoteStatus(Health.DEGRADED, Reason("bucket-unreachable", "away"))
REFUSING = RemoteStatus(Health.DEGRADED, Reason("access-denied", "no"))


class FakeRc:
    """Its remote control: each answer to `vfs/stats` once, the last one for ever."""

    def __init__(self) -> None:
        self.answers: list[VfsStats | Exception] = [STATS]

    async def vfs_stats(self, timeout_s: float) -> VfsStats:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


class FakeEngine:
    name = "m"

    def __init__(self) -> None:
        self.mount = MountSettings(remote="s:bkt", path=Path("/mnt/m"), cache=CacheSettings(dir=Path("/cache")))
        self.fake_rc = FakeRc()
        self.mounts = True
        self.stale_secrets = False
        self.spawned = 0

    @property
    def rc(self) -> RcClient:
        return cast(RcClient, self.fake_rc)

    async def spawn(self) -> Child:
        self.spawned += 1
        return cast(Child, FakeChild())

    async def wait_mounted(self) -> None:
        if not self.mounts:
            await asyncio.Event().wait()

    async def has_stale_secrets(self) -> bool:
        return self.stale_secrets


class FakeChild:
    pid = 7


class FakeMount:
    """What is asked of the mount itself: each answer once, the last one for ever."""

    def __init__(self) -> None:
        self.answers = [Liveness()]

    def entry(self) -> Entry | None:
        return cast(Entry, object())

    async def ask(self, before: Liveness) -> Liveness:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


class FakeBucket:
    """Each of its states once, the last one for ever."""

    is_asked_for_room = True

    def __init__(self) -> None:
        self.states = [RemoteStatus(Health.HEALTHY)]
        self.status = self.states[0]
        self.probes = 0

    @property
    def is_refusing(self) -> bool:
        return self.status == REFUSING

    async def probe(self, timeout_s: float) -> bool:
        self.probes += 1
        self.status = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        return self.status.reason is None


class Start:
    """A start-up of stand-ins with which all is well, and what it has published."""

    def __init__(self) -> None:
        self.engine, self.mount, self.bucket = FakeEngine(), FakeMount(), FakeBucket()
        self.accepted: list[VfsStats] = []
        self.proofs: list[Exception | None] = [None]
        self.proven = 0
        self.refused: Exception | None = None
        self.hangs: Replace | None = None
        self.status = MountStatus("/mnt/m", "s:bkt")
        self.stages: list[MountStage] = []
        self.startup = StartUp(
            self.engine,
            self.mount,
            self.bucket,
            prepare=self._prepare,
            accept=self._accept,
            prove=self._prove,
            guard=self._guard,
            publish=self._publish,
        )

    async def _prepare(self) -> None:
        if self.refused is not None:
            raise self.refused

    async def _accept(self, stats: VfsStats) -> None:
        self.accepted.append(stats)

    async def _prove(self) -> None:
        self.proven += 1
        error = self.proofs.pop(0) if len(self.proofs) > 1 else self.proofs[0]
        if error is not None:
            raise error

    async def _guard(self, work: Coroutine[Any, Any, None]) -> Replace | None:
        if self.hangs is not None:
            work.close()
            return self.hangs
        await work
        return None

    def _publish(self, change: Callable[[MountStatus], MountStatus]) -> None:
        before, self.status = self.status.stage, change(self.status)
        if self.status.stage is not before:
            self.stages.append(self.status.stage)

    async def run(self) -> Replace | None:
        async with asyncio.timeout(SOON_S):
            return await self.startup.run(lambda child: None)

    async def refusal(self) -> CannotStart:
        with pytest.raises(CannotStart) as caught:
            await self.run()
        return caught.value


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PROOF_INTERVAL_S", "AWAY_INTERVAL_S"):
        monkeypatch.setattr(startup, name, 0.0)
    for name in ("MOUNTED_TIMEOUT_S", "ANSWERING_TIMEOUT_S"):
        monkeypatch.setattr(startup, name, SOON_S)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MOUNTED_TIMEOUT_S", "ANSWERING_TIMEOUT_S"):
        monkeypatch.setattr(startup, name, 0.15)


ALL = [MountStage.SPAWNED, MountStage.MOUNTED, MountStage.ANSWERING, MountStage.READY]


async def test_each_stage_in_order() -> None:
    start, children = Start(), list[Child]()
    assert await start.startup.run(children.append) is None
    assert (start.stages, start.status.pid) == (ALL, 7)
    assert len(children) == 1
    assert (len(start.accepted), start.proven) == (1, 1)


async def test_what_preflight_refuses_starts_no_rclone() -> None:
    start = Start()
    start.refused = CannotStart("cannot mount: no FUSE", code="no-fuse")
    assert (await start.refusal()).code == "no-fuse"
    assert (start.engine.spawned, start.stages) == (0, [])


@pytest.mark.usefixtures("impatient")
async def test_an_rclone_that_does_not_mount_in_time() -> None:
    start = Start()
    start.engine.mounts = False
    refused = await start.refusal()
    assert "mountd logs m" in refused.hint
    assert start.stages == ALL[:1]


async def test_a_mount_that_answers_late() -> None:
    start = Start()
    start.bucket.is_asked_for_room = False
    start.mount.answers = [Liveness(missed=1), Liveness(missed=1), Liveness()]
    start.engine.fake_rc.answers = [Unavailable("not yet"), STATS]
    assert await start.run() is None
    assert start.stages == ALL


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("answer", "cause"),
    [(Liveness(missed=1), "statfs"), (Liveness(gone="not connected"), "not connected")],
)
async def test_a_mount_that_does_not_answer(answer: Liveness, cause: str) -> None:
    start = Start()
    start.mount.answers = [answer]
    assert cause in (await start.refusal()).text
    assert start.stages == ALL[:2]
    assert start.accepted == []


@pytest.mark.usefixtures("impatient")
async def test_an_rclone_that_does_not_answer() -> None:
    start = Start()
    start.engine.fake_rc.answers = [Unavailable("closed")]
    assert "closed" in (await start.refusal()).text


@pytest.mark.usefixtures("impatient")
async def test_a_statfs_that_waits_for_a_bucket_that_is_away_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    class LateMount(FakeMount):
        """Each answer takes 0.1 s: five take more than the deadline."""

        async def ask(self, before: Liveness) -> Liveness:
            nonlocal now
            now += 0.1
            return await super().ask(before)

    monkeypatch.setattr(startup, "time", SimpleNamespace(monotonic=lambda: now))
    start = Start()
    start.startup.liveness = start.mount = LateMount()
    start.mount.answers = [Liveness(missed=1)] * 5 + [Liveness()]
    start.bucket.states = [AWAY] * 5 + [RemoteStatus(Health.HEALTHY)]
    assert await start.run() is None
    start = Start()
    start.startup.liveness = start.mount = LateMount()
    start.mount.answers = [Liveness(missed=1)] * 5 + [Liveness()]
    start.bucket.states = [AWAY]
    start.bucket.is_asked_for_room = False
    await start.refusal()


async def test_what_is_wrong_with_the_cache_ends_it() -> None:
    start = Start()

    async def refuse(stats: VfsStats) -> None:
        raise CannotStart("rclone runs without its disk cache", code="cache-off")

    start.startup.accept = refuse
    assert (await start.refusal()).code == "cache-off"
    assert start.stages == ALL[:2]


async def test_a_bucket_that_is_away_is_waited_for() -> None:
    start = Start()
    start.bucket.states = [AWAY] * 20 + [RemoteStatus(Health.HEALTHY)]
    assert await start.run() is None
    assert (start.bucket.probes, start.proven) == (21, 1)


async def test_a_bucket_that_refuses_old_credentials() -> None:
    start = Start()
    start.bucket.states, start.engine.stale_secrets = [AWAY, REFUSING], True
    refused = await start.refusal()
    assert refused.retry_s == 0.0
    assert start.bucket.probes == 2, "one that is away needs no new ones"


async def test_a_bucket_that_refuses_the_newest_credentials_is_waited_for() -> None:
    start = Start()
    start.bucket.states = [REFUSING] * 3 + [RemoteStatus(Health.HEALTHY)]
    assert await start.run() is None
    assert start.stages == ALL


@pytest.mark.parametrize(
    "error",
    [DiskError("cannot trust /mnt/m"), RemoteError("no", code="bucket-error"), Unavailable("rclone does not answer")],
)
async def test_a_mount_that_cannot_be_proven(error: Exception) -> None:
    start = Start()
    start.proofs = [error]
    assert (await start.refusal()).code == "mount-not-proven"
    assert start.proven == PROOF_TRIES
    assert start.status.reason is not None
    assert start.status.reason.code == "mount-not-proven"


async def test_a_mount_that_is_proven_at_last() -> None:
    start = Start()
    start.proofs = [DiskError("cannot trust /mnt/m")] * (PROOF_TRIES - 1) + [None]
    assert await start.run() is None
    assert start.stages == ALL


async def test_a_mount_is_not_given_up_while_the_bucket_is_away() -> None:
    start = Start()
    start.proofs = [DiskError("cannot trust /mnt/m")] * PROOF_TRIES + [None]
    start.bucket.states = [RemoteStatus(Health.HEALTHY)] * PROOF_TRIES + [AWAY, RemoteStatus(Health.HEALTHY)]
    assert await start.run() is None


async def test_what_the_bucket_refuses_to_everybody_is_no_fault_of_the_mount() -> None:
    start = Start()
    start.proofs = [RemoteError("archived", code="object-archived")] * (3 * PROOF_TRIES) + [None]
    assert await start.run() is None


async def test_a_proof_that_needs_another_start() -> None:
    start = Start()
    start.proofs = [CannotStart("the disk does not answer", code="cache-silent")]
    assert (await start.refusal()).code == "cache-silent"
    assert start.proven == 1


async def test_a_mount_that_hangs_meanwhile_is_not_ready() -> None:
    start = Start()
    start.hangs = HANGS
    assert await start.run() is HANGS
    assert start.stages == ALL[:3]


async def test_cancelled_while_it_waits() -> None:
    start = Start()
    start.bucket.states = [AWAY]
    running = asyncio.create_task(start.startup.run(lambda child: None))
    while start.bucket.probes < 3:
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait({running})
    assert running.cancelled()
    assert start.stages == ALL[:3]


async def test_a_mount_is_waited_for_until_it_is_in_the_table() -> None:
    start, seen = Start(), list[Entry | None]([None, None, cast(Entry, object())])
    start.mount.entry = lambda: seen.pop(0)  # type: ignore[method-assign]
    assert await start.run() is None
    assert seen == []


async def test_each_start_begins_with_its_first_stage() -> None:
    start = Start()
    start.status = MountStatus("/mnt/m", "s:bkt", stage=MountStage.READY)
    start.refused = CannotStart("cannot mount: no FUSE", code="no-fuse")
    await start.refusal()
    assert start.status.stage is MountStage.PREFLIGHT
