"""The monitor of a mount, with probes that report what a test says: what it decides, and what it publishes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from mountd.errors import CannotStart
from mountd.mount.health import Facts, Liveness, MountVerdict, Replace, Report, RestartRclone, Stall
from mountd.mount.monitor import MountMonitor, Probe
from mountd.process import steady
from mountd.process.lifecycle import Backoff
from mountd.status.snapshot import Health, MountStatus, Reason, State
from tests.support.wait import until_async

SOON_S = 30.0
GONE = Liveness(gone="unmounted")
Act = Callable[[Report], object]


class ActingProbe:
    """Does one thing after the other, then waits; `cancelled` once it was cancelled in that."""

    def __init__(self, *acts: Act) -> None:
        self._acts = acts
        self.starts = 0
        self.waits = asyncio.Event()
        self.cancelled = False

    async def run(self, report: Report) -> None:
        self.starts += 1
        for act in self._acts:
            act(report)
            await asyncio.sleep(0)
        self.waits.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise


class EndingProbe:
    async def run(self, report: Report) -> None:
        """There is nothing to see."""


class Watched:
    """A monitor over the probes, the first of them that of liveness, and what it has published."""

    def __init__(self, *probes: Probe, failures: int = 2, state: State = State.RUNNING) -> None:
        self.status = MountStatus("/mnt", "s:bkt", state)
        self.shown: list[tuple[Health, str]] = []
        self.known: Reason | None = None
        liveness, *others = probes or (ActingProbe(),)
        self.monitor = MountMonitor(
            "m", liveness, others, failures=lambda: failures, known=lambda: self.known, publish=self._publish
        )

    def _publish(self, change: Callable[[MountStatus], MountStatus]) -> None:
        self.status = change(self.status)
        self.shown.append((self.status.health, self.status.reason.code if self.status.reason else ""))

    async def decision(self) -> Replace | RestartRclone:
        async with asyncio.timeout(SOON_S):
            return await self.monitor.run()


def missed(count: int) -> Act:
    return lambda report: report(liveness=Liveness(missed=count))


@pytest.mark.parametrize(
    ("act", "verdict"),
    [
        (missed(2), MountVerdict.HUNG),
        (lambda report: report(liveness=GONE), MountVerdict.DEAD),
        (lambda report: report(misconfigured="its disk cache is off"), MountVerdict.MISCONFIGURED),
        (lambda report: report(stall=Stall(since=-1e9, reads=frozenset({"1/1/7"}))), MountVerdict.HUNG),
    ],
)
async def test_a_fact_of_any_probe_replaces_the_mount(act: Act, verdict: MountVerdict) -> None:
    for probes in ([ActingProbe(act), ActingProbe()], [ActingProbe(), ActingProbe(act)]):
        found = await Watched(*probes).decision()
        assert isinstance(found, Replace)
        assert found.verdict is verdict
        assert [probe.cancelled or not probe.waits.is_set() for probe in probes] == [True, True]


async def test_a_probe_that_needs_a_new_rclone_restarts_it() -> None:
    watched = Watched(ActingProbe(), ActingProbe(lambda report: report(restart="new keys")))
    assert await watched.decision() == RestartRclone("new keys")
    assert watched.shown == [], "nothing is wrong"


async def test_a_mount_to_replace_comes_before_one_to_restart() -> None:
    def both(report: Report) -> None:
        report(restart="new keys")
        report(liveness=GONE)

    found = await Watched(ActingProbe(both)).decision()
    assert isinstance(found, Replace)


async def test_what_was_decided_stays_whatever_is_reported_later() -> None:
    def both(report: Report) -> None:
        report(liveness=Liveness(missed=2))
        report(liveness=Liveness())

    watched = Watched(ActingProbe(both))
    assert isinstance(await watched.decision(), Replace)
    assert watched.shown == []


async def test_probes_share_the_facts() -> None:
    seen: list[Facts] = []
    first = ActingProbe(lambda report: report(liveness=Liveness(missed=1)))
    second = ActingProbe(lambda report: report(), lambda report: seen.append(report(restart="new keys")))
    await Watched(first, second).decision()
    assert (seen[-1].liveness.missed, seen[-1].restart) == (1, "new keys")


async def test_each_run_begins_without_facts() -> None:
    watched = Watched(ActingProbe(lambda report: report(liveness=GONE)))
    assert isinstance(await watched.decision(), Replace)
    assert isinstance(await watched.decision(), Replace)
    facts: list[Facts] = []

    async def work() -> None:
        await asyncio.sleep(0)

    other = Watched(ActingProbe(lambda report: facts.append(report()), missed(1)))
    for _ in range(2):
        assert await other.monitor.guard(work()) is None
    assert facts == [Facts(), Facts()]


async def test_what_is_published_until_then() -> None:
    watched = Watched(
        ActingProbe(missed(1), missed(0), lambda report: report(), missed(1), lambda report: report(liveness=GONE))
    )
    await watched.decision()
    silent = (Health.DEGRADED, "mount-silent")
    assert watched.shown == [silent, (Health.HEALTHY, ""), silent], "each change once"


async def test_a_problem_of_the_cache_is_published_with_the_next_report() -> None:
    probe = ActingProbe()
    watched = Watched(probe, ActingProbe(lambda report: report()))
    watched.known = Reason("cache-full", "it is full")
    watching = asyncio.create_task(watched.monitor.run())
    await until_async(lambda: watched.shown, SOON_S, "the reason to be shown")
    assert watched.shown == [(Health.DEGRADED, "cache-full")]
    watching.cancel()
    await asyncio.wait({watching})


class Lacking:
    """Lacks a resource so many times; then says that rclone should restart once it is asked to."""

    def __init__(self, times: int, error: BaseException) -> None:
        self._times = times
        self._error = error
        self.finish = asyncio.Event()

    async def run(self, report: Report) -> None:
        if self._times:
            self._times -= 1
            raise self._error
        await self.finish.wait()
        report(restart="it works again")


async def test_a_probe_that_lacks_a_resource_is_reported_and_starts_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steady, "AGAIN", Backoff(0.001, 2.0, 0.01))
    monkeypatch.setattr(steady, "STEADY_S", 0.05)
    lacking, liveness = Lacking(3, MemoryError()), ActingProbe()
    watched = Watched(liveness, lacking)
    watching = asyncio.create_task(watched.monitor.run())
    await until_async(lambda: len(watched.shown) == 2, SOON_S, "it to work again")
    assert watched.shown == [(Health.DEGRADED, "no-memory"), (Health.HEALTHY, "")]
    lacking.finish.set()
    assert await watching == RestartRclone("it works again")
    assert liveness.starts == 1, "the others go on"


async def test_a_probe_that_has_nothing_to_see_ends_nothing() -> None:
    probe = ActingProbe()
    watching = asyncio.create_task(Watched(probe, EndingProbe()).monitor.run())
    await probe.waits.wait()
    assert not watching.done()
    watching.cancel()
    await asyncio.wait({watching})


async def test_a_bug_of_a_probe_is_raised() -> None:
    probe = ActingProbe()
    with pytest.raises(KeyError):
        await Watched(probe, Lacking(1, KeyError("a bug"))).decision()
    assert probe.cancelled or not probe.waits.is_set()


async def test_cancelled_it_leaves_no_probe_running() -> None:
    probes = [ActingProbe(), ActingProbe()]
    watching = asyncio.create_task(Watched(*probes).monitor.run())
    for probe in probes:
        await probe.waits.wait()
    watching.cancel()
    await asyncio.wait({watching})
    assert watching.cancelled()
    assert [probe.cancelled for probe in probes] == [True, True]


# -- a mount that starts ----------------------------------------------------------------------------------------------


class Work:
    def __init__(self, error: Exception | None = None, *, waits: bool = False) -> None:
        self._error = error
        self._waits = waits
        self.cancelled = False

    async def run(self) -> None:
        try:
            if self._waits:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        if self._error is not None:
            raise self._error


def started(*acts: Act, others: Sequence[Probe] = ()) -> Watched:
    return Watched(ActingProbe(*acts), *others, state=State.STARTING)


async def test_work_that_finishes() -> None:
    other = ActingProbe(lambda report: report(liveness=GONE))
    assert await started(others=[other]).monitor.guard(Work().run()) is None
    assert other.starts == 0, "only liveness is probed"


async def test_work_that_fails() -> None:
    with pytest.raises(CannotStart):
        await started().monitor.guard(Work(CannotStart("not proven")).run())


async def test_work_on_a_mount_that_hangs_is_cancelled() -> None:
    work, watched = Work(waits=True), started(missed(1), missed(2))
    found = await watched.monitor.guard(work.run())
    assert isinstance(found, Replace)
    assert found.verdict is MountVerdict.HUNG
    assert work.cancelled
    assert watched.shown == [(Health.DEGRADED, "mount-silent")]


async def test_a_decision_comes_before_what_work_raises_at_the_same_time() -> None:
    watched = started()

    async def work() -> None:
        watched.monitor._report(liveness=GONE)
        raise CannotStart("not proven")

    found = await watched.monitor.guard(work())
    assert isinstance(found, Replace)


async def test_work_is_cancelled_with_the_start() -> None:
    work, probe = Work(waits=True), ActingProbe()
    watched = Watched(probe, state=State.STARTING)
    guarding = asyncio.create_task(watched.monitor.guard(work.run()))
    await probe.waits.wait()
    guarding.cancel()
    await asyncio.wait({guarding})
    assert (guarding.cancelled(), work.cancelled, probe.cancelled) == (True, True, True)


async def test_a_mount_that_starts_is_progressing() -> None:
    watched = started(missed(1), missed(0), lambda report: report(liveness=GONE))
    await watched.monitor.guard(Work(waits=True).run())
    assert watched.shown[-1] == (Health.PROGRESSING, "")
