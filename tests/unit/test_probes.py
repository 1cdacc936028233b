"""The loops of the probes, with stand-ins for what they ask: which facts they report, and how soon they ask again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, Unpack, cast

import pytest
from structlog.testing import capture_logs

from mountd.errors import DiskError, DiskTimeout, MountdError, ProbeNotSent, RemoteError, Unavailable
from mountd.files.client import Files
from mountd.fuse.table import Entry
from mountd.mount import bucket, liveness
from mountd.mount.bucket import BucketProbe, SecretsProbe
from mountd.mount.engine import Engine
from mountd.mount.health import BucketAnswers, FactChanges, Facts, Liveness
from mountd.mount.liveness import LivenessProbe, MountTableProbe
from mountd.rclone.conf_file import SecretChange
from mountd.settings.schema import HealthSettings
from tests.support.wait import until_async

SOON_S = 30.0


class Reported:
    """The facts, as the monitor keeps them, and each of them over time."""

    def __init__(self) -> None:
        self.facts = Facts()
        self.all: list[Facts] = []

    def __call__(self, **changes: Unpack[FactChanges]) -> Facts:
        self.facts = replace(self.facts, **changes)
        if changes:
            self.all.append(self.facts)
        return self.facts


async def until_reported(run: Callable[[Reported], Any], seen: Callable[[Reported], object]) -> Reported:
    """Runs a probe until `seen`."""
    reported = Reported()
    running = asyncio.ensure_future(run(reported))
    try:
        await until_async(lambda: seen(reported) or running.done(), SOON_S, "the report")
        if running.done():
            running.result()
    finally:
        running.cancel()
        await asyncio.wait({running})
    return reported


# -- liveness ---------------------------------------------------------------------------------------------------------


class FakeFiles:
    """A worker that answers a `statfs` with each of these once, with the last one for ever."""

    def __init__(self, *answers: DiskError | None) -> None:
        self._answers = list(answers)

    async def statfs(self, path: str, timeout_s: float) -> None:
        await asyncio.sleep(0)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if answer is not None:
            raise answer


class FakeBucket:
    def __init__(self, *, asked_for_room: bool = False, responsive: bool = True) -> None:
        self.is_asked_for_room = asked_for_room
        self.answers = BucketAnswers(5.0, 7.0)
        self.hurried = 0
        self._responsive = responsive

    def hurry(self) -> None:
        self.hurried += 1

    async def rclone_answers(self, timeout_s: float) -> bool:
        return self._responsive


def probe_of(
    monkeypatch: pytest.MonkeyPatch, files: FakeFiles, bucket: FakeBucket | None = None, *, mounted: bool = True
) -> LivenessProbe:
    table = [Entry(1, 0, "0:7", "/", "/m", "fuse.rclone", "mountd:x:m")] if mounted else []
    monkeypatch.setattr(liveness, "known_table", lambda **_: table)
    settings = HealthSettings.model_construct(interval=0.0, timeout=0.0, failures=2, backend=15.0)
    return LivenessProbe(
        "/m", "mountd:x:m", cast(Files, files), cast(BucketProbe, bucket or FakeBucket()), lambda: settings
    )


async def test_missed_probes_are_counted_until_one_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = DiskTimeout("no answer")
    probe = probe_of(monkeypatch, FakeFiles(None, silent, silent, None))
    reported = await until_reported(probe.run, lambda it: len(it.all) >= 4)
    assert [facts.liveness.missed for facts in reported.all[:4]] == [0, 1, 2, 0]
    assert reported.all[1].liveness.since == reported.all[2].liveness.since, "since the first one was sent"
    assert probe.meters.missed_probes == 2
    assert sum(probe.meters.probe.counts) >= 2
    assert reported.facts.answers == BucketAnswers(5.0, 7.0)


@pytest.mark.parametrize(
    ("answer", "mounted", "expected"),
    [
        (DiskError("not connected", errno=107), True, "not connected"),
        (DiskError("connection aborted", errno=103), True, "connection aborted"),
        (DiskError("input/output error", errno=5), True, "input/output error"),
        (DiskError("not there", errno=2), True, "not there"),
        (None, False, "/m "),
    ],
)
async def test_an_error_means_that_nothing_serves(
    monkeypatch: pytest.MonkeyPatch, answer: DiskError | None, mounted: bool, expected: str
) -> None:
    probe = probe_of(monkeypatch, FakeFiles(answer), mounted=mounted)
    reported = await until_reported(probe.run, lambda it: it.all)
    assert reported.facts.liveness.gone.startswith(expected)


async def test_a_probe_that_was_not_sent_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    silent, unsent = DiskTimeout("no answer"), ProbeNotSent("no worker")
    probe = probe_of(monkeypatch, FakeFiles(unsent, silent, unsent, DiskError("no memory", errno=12), silent))
    reported = await until_reported(probe.run, lambda it: len(it.all) >= 5)
    assert [facts.liveness.missed for facts in reported.all[:5]] == [0, 1, 1, 1, 2]


@pytest.mark.parametrize("responsive", [True, False])
async def test_a_late_answer_that_may_be_the_buckets(monkeypatch: pytest.MonkeyPatch, responsive: bool) -> None:
    bucket = FakeBucket(asked_for_room=True, responsive=responsive)
    probe = probe_of(monkeypatch, FakeFiles(DiskTimeout("no answer")), bucket)
    reported = await until_reported(probe.run, lambda it: len(it.all) >= 2)
    assert reported.facts.liveness.responsive is responsive
    assert bucket.hurried >= 2, "the bucket is probed at once"


async def test_after_a_missed_probe_the_next_one_comes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = probe_of(monkeypatch, FakeFiles(DiskTimeout("no answer"), DiskTimeout("no answer"), None))
    cast(Any, probe).health = lambda: HealthSettings.model_construct(interval=60.0, timeout=0.0)
    reported = await until_reported(probe.run, lambda it: len(it.all) >= 3)
    await asyncio.sleep(0.001)
    assert [facts.liveness.missed for facts in reported.all] == [1, 2, 0], "then after the interval"


async def test_the_time_of_a_missed_probe_counts_for_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has waited for its whole timeout, 20 s here."""
    now, slept = 100.0, list[float]()

    class Late(FakeFiles):
        async def statfs(self, *_: object, **__: object) -> None:
            nonlocal now
            now += 20.0
            raise DiskTimeout("no answer")

    async def sleep(pause_s: float) -> None:
        slept.append(pause_s)
        if len(slept) == 2:
            raise asyncio.CancelledError

    probe = probe_of(monkeypatch, Late(None))
    cast(Any, probe).health = lambda: HealthSettings.model_construct(interval=60.0, timeout=20.0)
    monkeypatch.setattr(liveness, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(liveness, "asyncio", SimpleNamespace(sleep=sleep))
    with pytest.raises(asyncio.CancelledError):
        await probe.run(Reported())
    assert slept == [0.0, 0.0]


async def test_an_answer_in_time_needs_no_look_at_the_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    late = FakeBucket(asked_for_room=False)
    probe = probe_of(monkeypatch, FakeFiles(DiskTimeout("no answer")), late)
    await until_reported(probe.run, lambda it: len(it.all) >= 2)
    assert late.hurried == 0, "this kind of store is not asked for room"
    well = FakeBucket(asked_for_room=True)
    probe = probe_of(monkeypatch, FakeFiles(None), well)
    cast(Any, probe).health = lambda: HealthSettings.model_construct(interval=0.0, timeout=20.0)
    reported = await until_reported(probe.run, lambda it: len(it.all) >= 2)
    assert (well.hurried, reported.facts.liveness.responsive) == (0, False)


async def test_that_no_probe_can_be_sent_is_logged_once_until_one_can(monkeypatch: pytest.MonkeyPatch) -> None:
    unsent = ProbeNotSent("no worker")
    probe = probe_of(monkeypatch, FakeFiles(unsent, unsent, None, unsent, unsent))
    with capture_logs() as logs:
        for _ in range(5):
            await probe.ask(Liveness())
    assert len(logs) == 2


async def test_a_table_of_mounts_that_cannot_be_read_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = probe_of(monkeypatch, FakeFiles(None))

    def fail(**_: str) -> None:
        raise OSError(24, "too many open files")

    monkeypatch.setattr(liveness, "known_table", fail)
    assert await probe.ask(Liveness(missed=1)) == Liveness(missed=1)


@pytest.mark.parametrize("number", [23, 12])
async def test_what_the_machine_is_short_of_says_nothing(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    probe = probe_of(monkeypatch, FakeFiles(DiskError("too many", errno=number)))
    assert await probe.ask(Liveness(missed=1)) == Liveness(missed=1)


async def test_an_error_that_nobody_knows_is_a_missed_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = probe_of(monkeypatch, FakeFiles(DiskError("permission denied", errno=13)))
    assert await probe.ask(Liveness(missed=1)) == Liveness(missed=2)


@pytest.mark.parametrize(
    ("source", "root", "ours"), [("mountd:x:m", "/", True), ("mountd:x:m", "/part", False), ("mountd:y:m", "/", False)]
)
async def test_what_is_our_own_mount(monkeypatch: pytest.MonkeyPatch, source: str, root: str, ours: bool) -> None:
    probe = probe_of(monkeypatch, FakeFiles(None))
    assert (probe.entry([Entry(1, 0, "0:7", root, "/m", "fuse.rclone", source)]) is not None) is ours


async def test_an_unmount_by_somebody_else_is_seen_in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = probe_of(monkeypatch, FakeFiles(None))
    entry = Entry(1, 0, "0:7", "/", "/m", "fuse.rclone", "mountd:x:m")
    seen: list[int] = []

    async def tables(_: str) -> AsyncGenerator[tuple[Entry, ...], None]:
        for table in ((entry,), (entry,), ()):
            seen.append(len(table))
            yield table

    monkeypatch.setattr(liveness, "tables", tables)
    reported = Reported()
    await MountTableProbe(probe).run(reported)
    assert seen == [1, 1, 0]
    assert "/m" in reported.facts.liveness.gone


# -- bucket and secrets -----------------------------------------------------------------------------------------------


class FakeEngine:
    name = "m"

    def __init__(self, *, error: MountdError | None = None, stale: bool = False, old_secret: bool = False) -> None:
        self.mount = SimpleNamespace(remote="s:bkt", health=SimpleNamespace(backend=15.0))
        self.rc = self
        self.trouble = asyncio.Event()
        self.error = error
        self.change = SecretChange.NOTHING
        self.asked = self.refreshed = 0
        self._stale = stale
        self._old_secret = old_secret

    async def features(self, fs: str, timeout_s: float) -> Any:
        return SimpleNamespace(has_buckets=False, reports_room=False)

    async def probe_bucket(self, fs: str, timeout_s: float, directory: str) -> list[object]:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return []

    async def has_stale_secrets(self) -> bool:
        return self._stale

    def signs_with_old_secret(self, *, usable: bool) -> bool:
        return usable and self._old_secret

    async def refresh_secrets(self) -> SecretChange:
        self.refreshed += 1
        return self.change


def bucket_probe(engine: FakeEngine) -> BucketProbe:
    return BucketProbe(cast(Engine, engine), lambda change: None)


REFUSED, AWAY = RemoteError("no", code="access-denied"), RemoteError("away", code="bucket-unreachable")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWAY_INTERVAL_S", "TROUBLE_INTERVAL_S", "SECRETS_INTERVAL_S"):
        monkeypatch.setattr(bucket, name, 0.001)
    for name in ("SLOT_S", "SLOW_S"):  # what answers here does so at once, as soon as the machine lets it
        monkeypatch.setattr(bucket, name, SOON_S)


async def test_an_answer_is_a_fact() -> None:
    reported = await until_reported(bucket_probe(FakeEngine()).run, lambda it: it.all)
    assert reported.facts.answers.quick_at > 0
    assert reported.facts.restart == ""


@pytest.mark.parametrize(
    ("engine", "restarts"),
    [
        (FakeEngine(error=REFUSED, stale=True), True),
        (FakeEngine(old_secret=True), True),
        (FakeEngine(error=REFUSED), False),
        (FakeEngine(error=AWAY, stale=True, old_secret=True), False),
        (FakeEngine(error=Unavailable("rclone does not answer"), stale=True), False),
    ],
)
async def test_secrets_that_need_a_new_rclone(engine: FakeEngine, restarts: bool) -> None:
    reported = await until_reported(bucket_probe(engine).run, lambda it: it.facts.restart or engine.asked >= 3 or None)
    assert bool(reported.facts.restart) is restarts


async def test_one_that_is_away_is_probed_soon_and_one_that_is_well_when_it_is_due() -> None:
    away, well = FakeEngine(error=AWAY), FakeEngine()
    await until_reported(bucket_probe(away).run, lambda it: away.asked >= 5)
    probe = bucket_probe(well)
    reported = await until_reported(probe.run, lambda it: it.all)
    assert well.asked == 1

    def seen(it: Reported) -> bool:
        well.trouble.set()  # rclone logs errors
        return well.asked >= 3

    reported = await until_reported(probe.run, seen)
    assert reported.all


async def test_each_request_takes_the_slot_of_a_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket, "SLOT_PATIENCE", 1000)  # however long this machine lets the loop wait
    engine = FakeEngine()
    engine.mount.health.backend = 0.05
    probe = bucket_probe(engine)

    async def ask() -> None:
        async with probe.slot.take():
            asked.append(engine.asked)

    asked: list[int] = []
    asking = [asyncio.create_task(ask()) for _ in range(2)]
    await until_reported(probe.run, lambda it: engine.asked >= 2)
    await asyncio.gather(*asking)
    assert asked == [1, 1], "after the first probe, before the second"


async def test_a_secret_that_only_a_new_rclone_reads_waits_for_the_bucket() -> None:
    engine = FakeEngine(error=AWAY)
    engine.change = SecretChange.REMOUNT
    of_bucket = bucket_probe(engine)
    await of_bucket.probe(1.0)
    probe = SecretsProbe(cast(Engine, engine), of_bucket)
    waiting = asyncio.create_task(until_reported(probe.run, lambda it: it.facts.restart))
    await until_async(lambda: engine.refreshed >= 3 or None, SOON_S, "the secrets to be looked at")
    assert not waiting.done()
    engine.error = None
    assert await of_bucket.probe(1.0)
    assert (await waiting).facts.restart
