"""mountd killed around every journaled step of a switch, a rollback and their undoing: what the next run finds."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mountd.errors import Unreachable
from mountd.operation import plan
from mountd.operation.plan import AffectedApp, PlannedGate, Step, Undo
from mountd.operation.rules import Recovery, after_crash
from tests.support import killing_journal
from tests.support.daemon import Daemon
from tests.support.killing_journal import KILL_AT, Moment, Whom
from tests.support.s3 import RcloneS3
from tests.support.versioned import MODEL, Versioned
from tests.support.wait import until

pytestmark = [pytest.mark.fuse, pytest.mark.slow, pytest.mark.timeout(300)]

MOUNTD = (sys.executable, "-m", "mountd")
KILLING = (sys.executable, str(killing_journal.__file__))
FORWARD = plan.steps_of([AffectedApp("webui", 1, 1)], [PlannedGate("command", 1)], 1)
BACK = plan.undo(FORWARD[:-1])
OTHER = {"v22": "v23", "v23": "v22"}
RESULTS = {Recovery.NOTHING: "interrupted", Recovery.UNDO: "rolled-back", Recovery.FINISH: "committed"}


# Between the end of a step and the beginning of the next one nothing is done and nothing journaled, so that these two
# moments find what the others have found, and a rollback does what a switch does. They are gone through all the same
# when there is time.
LONG = (Moment.BEGINNING, Moment.ENDED)
CASES = [
    pytest.param(
        kind,
        moment,
        marks=[pytest.mark.long] if moment in LONG or (kind, moment) == ("rollback", Moment.DONE) else [],
    )
    for kind in ("switch", "rollback")
    for moment in Moment
]


@dataclass(frozen=True, slots=True)
class Point:
    """Where mountd is killed. `before`: the steps that were begun before this one."""

    before: tuple[Step | Undo, ...]
    step: Step | Undo
    moment: Moment

    @property
    def begun(self) -> tuple[Step | Undo, ...]:
        return self.before if self.moment is Moment.BEGINNING else (*self.before, self.step)

    @property
    def committed(self) -> bool:
        return self.step is Step.COMMIT and self.moment in (Moment.DONE, Moment.ENDED)

    @property
    def rule(self) -> Recovery:
        return after_crash((self.begun or FORWARD[:1])[-1], committed=self.committed)


def points(steps: Sequence[Step | Undo], moment: Moment, after: Sequence[Step | Undo] = ()) -> Iterator[Point]:
    for number, step in enumerate(steps):
        yield Point((*after, *steps[:number]), step, moment)


@dataclass
class Bench:
    """A daemon that can be killed at points, and what is live in it."""

    at: Versioned
    kill_at: Path
    live: str = "v23"
    previous: str | None = None
    desired: str = "v23"

    @property
    def daemon(self) -> Daemon:
        return self.at.daemon

    @property
    def to(self) -> str:
        return OTHER[self.live]

    def ask(self, kind: str) -> None:
        # By force: a version that was found bad before the kill is in quarantine.
        self.at.ask(kind, force=True, **({"version": self.to} if kind == "switch" else {}))

    def commit(self, kind: str) -> dict[str, Any]:
        """From its beginning to its good end."""
        self.ask(kind)
        ended = self.at.until_finished()
        assert (ended["result"], ended["to"]) == ("committed", self.to), ended
        self.live, self.previous, self.desired = self.to, self.live, self.to
        return ended

    def die(self, kind: str, point: Point, whom: Whom) -> None:
        self.kill_at.write_text(f"{point.step} {point.moment} {whom}")
        with contextlib.suppress(Unreachable):  # it may be killed before it answers
            self.ask(kind)
        assert self.daemon.wait_exit() == (-9 if whom is Whom.BOTH else 128 + 9), f"not killed at {point}"
        assert not self.kill_at.exists()
        assert self.at.linked() in (self.live, self.to), "also while nobody is there to put it right"

    def check_recovered(self, kind: str, point: Point) -> None:
        former = self.live
        wanted = self.to
        if point.committed:
            self.live, self.previous, self.desired = wanted, former, wanted
        self.daemon.until_ready()
        self.at.check_agrees(self.live)
        model = self.at.model()
        assert (model["previous"], model["desired"]) == (self.previous, self.desired)

        shown = self.at.newest()
        assert shown is not None
        assert shown["finished"]
        assert (shown["kind"], shown["from"], shown["to"], shown["result"]) == (
            kind,
            former,
            wanted,
            RESULTS[point.rule],
        )
        assert (shown["result"] == "committed") == (self.live == wanted)
        steps = self.at.steps(shown["id"])
        assert tuple(step["step"] for step in steps[: len(point.begun)]) == point.begun
        assert all(step["ended"] for step in steps), "what was cut off is reported as such"
        outcomes = [step["outcome"] for step in steps[: len(point.begun)]]
        if point.moment in (Moment.BEGUN, Moment.DONE) and not point.committed:
            assert outcomes.pop() == "interrupted"
        if point.step in BACK:
            outcomes.remove("failed")
        assert set(outcomes) <= {"done"}, steps
        if point.step in BACK:
            assert "gate 1" in shown["cause"], "why it failed"
        if point.step is Undo.START_OLD and point.moment in (Moment.DONE, Moment.ENDED):
            assert self.is_quarantined(wanted), "what was found out is not lost with the crash"

    def is_quarantined(self, version: str) -> bool:
        rows = {row["version"]: row for row in self.at.get("versions")["versions"]}
        return bool(rows[version]["quarantined"])


@pytest.fixture
def bench(make_daemon: Callable[..., Daemon], store: RcloneS3) -> Bench:
    daemon = make_daemon(program=KILLING)
    kill_at = daemon.root / "kill-at"
    daemon.environment = {KILL_AT: str(kill_at)}
    return Bench(Versioned(daemon, store.directory, ready="60s"), kill_at)


def kill_at_each(bench: Bench, kind: str, where: Sequence[Point], *, from_: int) -> None:
    """One after the other; nothing but the point's file makes the daemon another than `mountd run`."""
    for number, point in enumerate(where, start=from_):
        whom = list(Whom)[number % len(Whom)]
        bench.die(kind, point, whom)
        bench.daemon.start()
        try:
            bench.check_recovered(kind, point)
        except AssertionError as error:
            raise AssertionError(f"after {kind} was killed at {point}, {whom}: {error}") from error


def end_as_mountd(bench: Bench, kind: str) -> None:
    """The last run is the very program of the product, and can do what the others could not."""
    assert bench.daemon.stop() == 0
    bench.daemon.program = MOUNTD
    bench.daemon.start_ready()
    bench.at.check_agrees(bench.live)
    ended = bench.commit(kind)
    assert tuple(step["step"] for step in bench.at.steps(ended["id"])) == FORWARD, "the points are all there are"
    bench.at.check_agrees(bench.live)


@pytest.mark.shown_by("switch-begun")
@pytest.mark.parametrize(("kind", "moment"), CASES)
def test_killed_around_each_step(bench: Bench, kind: str, moment: Moment) -> None:
    bench.daemon.start_ready()
    if kind == "rollback":
        bench.commit("switch")
    kill_at_each(bench, kind, list(points(FORWARD, moment)), from_=list(Moment).index(moment))
    end_as_mountd(bench, kind)


@pytest.mark.thorough
@pytest.mark.parametrize(("kind", "moment"), CASES)
def test_killed_around_each_step_of_the_undoing(bench: Bench, kind: str, moment: Moment) -> None:
    """Provoked by a gate, the last step of all that can fail by the version's own fault at once."""
    at = bench.at
    bench.daemon.start_ready()
    if kind == "rollback":
        bench.commit("switch")
    behind_gates = FORWARD[: FORWARD.index(Step.GATES) + 1]
    at.close_gate(bench.to)
    kill_at_each(bench, kind, list(points(BACK, moment, after=behind_gates)), from_=list(Moment).index(moment))
    at.open_gate(bench.to)
    end_as_mountd(bench, kind)


@pytest.mark.thorough
def test_what_the_file_asks_for_outlives_a_switch_by_hand_that_was_killed(bench: Bench) -> None:
    """As it outlives one that fails: it is still what is desired, and asked for again."""
    daemon, at = bench.daemon, bench.at
    daemon.start_ready()
    daemon.config["models"][MODEL]["version"] = "v99"
    daemon.write_config()
    at.ask("reload")
    until(lambda: (at.newest() or {}).get("finished"), 60, "the refusal of what the file asks for")
    assert at.model()["desired"] == "v99"

    bench.die("switch", Point(FORWARD[:4], Step.FLIP, Moment.DONE), Whom.DAEMON)
    daemon.start()
    daemon.until_ready()
    at.check_agrees("v23")
    assert at.model()["desired"] == "v99"
    until(lambda: (at.newest() or {})["source"] == "config", 60, "the file's version to be asked for again")
    newest = at.until_finished()
    assert (newest["source"], newest["to"], newest["result"]) == ("config", "v99", "refused")


def are_given_up(at: Versioned, count: int) -> bool:
    return len(at.get("events", code="switch-given-up")["events"]) == count


@pytest.mark.thorough
def test_a_version_in_whose_switches_mountd_dies_again_and_again_is_given_up(bench: Bench) -> None:
    daemon, at = bench.daemon, bench.at
    limit = 2
    model = daemon.config["models"][MODEL]
    model["sync"] = {"retry": {"limit": limit}}
    daemon.start_ready()

    def arm() -> None:
        bench.kill_at.write_text(f"{Step.START} {Moment.BEGUN} {Whom.DAEMON}")

    arm()
    model["version"] = "v22"
    daemon.write_config()  # mountd reads it by itself
    for _ in range(limit):
        assert daemon.wait_exit() == 128 + 9
        arm()
        daemon.start()
    assert daemon.wait_exit() == 128 + 9, "it was begun again each time"

    arm()
    for start in range(1, 3):
        daemon.start_ready()
        reasons = until(
            lambda: [each for each in daemon.status()["reasons"] if each["code"] == "switch-failed"],
            60,
            "the wanted version to be given up",
        )
        assert "mountd switch v22" in reasons[0]["hint"]
        assert (at.model()["sync"], at.model()["health"], at.model()["desired"]) == ("OutOfSync", "Degraded", "v22")
        at.check_agrees("v23")
        until(partial(are_given_up, at, start), 60, "the event")
        assert len(at.get("history", limit=20)["history"]) == limit + 1
        assert daemon.stop() == 0

    bench.kill_at.unlink()
    daemon.start_ready()
    at.ask("switch", version="v22")
    assert at.until_finished()["result"] == "committed"
    at.check_agrees("v22")
