"""A switch as a plan: its steps, how long each may take, and what undoes it; a value that is shown and carried out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from mountd.settings.units import format_duration

PREFLIGHT_S = 900.0
"""Its names and sizes are loaded, a file of each directory is asked for: as slow as the mount's own deadlines allow."""
WARM_S = 600.0
"""The same names, on a mount that was replaced meanwhile."""
VERIFY_S = 300.0
DATA_S = 6 * 3600.0
"""All its bytes, from a slow bucket."""
DIGESTS_S = 6 * 3600.0
"""Every byte of a version, through a slow bucket."""
FLIP_S = 5.0
SPAWN_S = 100.0
"""A remount that the start waits for, and the start of the process."""
COMMIT_S = 10.0


class Step(StrEnum):
    PREFLIGHT = "preflight"
    WARM = "warm"
    VERIFY = "verify"
    STOP = "stop"
    FLIP = "flip"
    START = "start"
    READY = "ready"
    GATES = "gates"
    WATCH = "watch"
    COMMIT = "commit"


class Undo(StrEnum):
    STOP_NEW = "stop-new"
    FLIP_BACK = "flip-back"
    START_OLD = "start-old"


_LOADS = {
    "metadata": "load them again if the mount was replaced meanwhile",
    "data": "read all its files into the cache, and check those with a sha256",
    "pin": "pin it: a checked copy of all its files on local disk",
}
HARMLESS = (Step.PREFLIGHT, Step.WARM, Step.VERIFY)
"""Steps that change nothing, so nothing has to be undone."""


@dataclass(frozen=True, slots=True)
class AffectedApp:
    """An app that is restarted. `stop_s` and `ready_s`: how long each may take, in seconds.

    `check_s`: how long its preflight may take, a part of `ready_s`; 0: it has none.
    """

    name: str
    stop_s: float
    ready_s: float
    check_s: float = 0.0


@dataclass(frozen=True, slots=True)
class PlannedGate:
    """A gate as text, and how long one answer may take."""

    words: str
    limit_s: float


@dataclass(frozen=True, slots=True)
class SwitchPlan:
    """Points `link` at `target`. Times in seconds.

    `crashes`: how many crashes of an app within `watch_s` after it was ready bring the previous version back.
    """

    kind: str
    model: str
    from_version: str | None
    to_version: str
    link: str
    target: str
    apps: tuple[AffectedApp, ...] = ()
    gates: tuple[PlannedGate, ...] = ()
    watch_s: float = 0.0
    crashes: int = 1
    digests: bool = False
    force: bool = False
    level: str = "metadata"
    """how much of the version is loaded before anything is stopped"""
    is_live: bool = False
    """the version is live already, so there is nothing to do"""
    stopped: tuple[str, ...] = ()
    """apps that a person has stopped: they stay stopped, and no gate is asked without them"""
    override: str | None = None
    """who switches by hand to another version than the source wants: the commit suspends automatic sync"""

    @property
    def steps(self) -> tuple[Step, ...]:
        return () if self.is_live else steps_of(self.apps, self.gates, self.watch_s)

    def limit_of(self, step: Step | Undo) -> float:
        """How long a step may take, in seconds."""
        stop_s = max((app.stop_s for app in self.apps), default=0.0)
        ready_s = max((app.ready_s for app in self.apps), default=0.0)
        check_s = max((app.check_s for app in self.apps), default=0.0)
        gates_s = sum(gate.limit_s for gate in self.gates)
        limits: dict[Step | Undo, float] = {
            Step.PREFLIGHT: PREFLIGHT_S,
            Step.WARM: WARM_S + (0.0 if self.level == "metadata" else DATA_S),
            Step.VERIFY: VERIFY_S + (DIGESTS_S if self.digests else 0.0),
            Step.STOP: stop_s,
            Step.FLIP: FLIP_S,
            Step.START: SPAWN_S + check_s,
            Step.READY: ready_s,
            Step.GATES: gates_s,
            Step.WATCH: self.watch_s + gates_s + self.crashes * (stop_s + SPAWN_S + ready_s),
            Step.COMMIT: COMMIT_S,
            Undo.STOP_NEW: stop_s,
            Undo.FLIP_BACK: FLIP_S,
            Undo.START_OLD: SPAWN_S + ready_s,
        }
        return limits[step]

    @property
    def limit_s(self) -> float:
        """All of it, with the undo."""
        steps: tuple[Step | Undo, ...] = (*self.steps, *undo(self.steps))
        return sum(map(self.limit_of, steps), start=0.0)

    def lines(self) -> list[str]:
        """What will happen, for people: a line for each step."""
        head = f"{self.kind} {self.model} {self.from_version or 'nothing'} → {self.to_version}"
        if not self.steps:
            return [f"{self.model} is at {self.to_version} already: nothing to do"]
        width = max(len(step) for step in Step)
        lines = [head, *(f"  {step:<{width}}  {self.text_of(step)}" for step in self.steps)]
        back = ", ".join(undo(self.steps))
        if self.stopped:
            lines.append(f"{', '.join(self.stopped)} stays stopped, and no gate is asked.")
        return [*lines, f"Whatever fails from {self.steps[len(HARMLESS)]} on is undone: {back}."]

    def text_of(self, step: Step) -> str:
        version, former = self.to_version, self.from_version or "nothing"
        names = " and ".join(app.name for app in self.apps)
        limit = f"at most {format_duration(self.limit_of(step))}"
        unforced = "" if self.force else ", and not in quarantine"
        digests = ", and read every byte for its sha256" if self.digests else ""
        texts = {
            Step.PREFLIGHT: f"load the names and sizes of its files, {limit}; see that {version} is complete{unforced},"
            " and that the link can be placed",
            Step.WARM: f"{_LOADS[self.level]}, {limit}",
            Step.VERIFY: f"see that the mount shows them{digests}, {limit}",
            Step.STOP: f"stop {names}, {limit}",
            Step.FLIP: f"point {self.link} at {self.target}",
            Step.START: f"start {names}{self._checked()}",
            Step.READY: f"wait until {names} {'is' if len(self.apps) == 1 else 'are'} ready, {limit}",
            Step.GATES: "; ".join(gate.words for gate in self.gates),
            Step.WATCH: f"for {format_duration(self.watch_s)}: {self._watched(names)} brings {former} back",
            Step.COMMIT: f"{version} is live for good, and {former} its way back"
            + (", and automatic sync is suspended until `mountd resume`" if self.override else ""),
        }
        return texts[step]

    def _checked(self) -> str:
        names = " and ".join(app.name for app in self.apps if app.check_s)
        limit = format_duration(self.limit_of(Step.START))
        return f" after the preflight of {names}, at most {limit}" if names else ""

    def _watched(self, names: str) -> str:
        crash = f"a crash of {names}" if self.crashes == 1 else f"crash {self.crashes} of {names}"
        return " or ".join([crash] * bool(names) + ["a gate that fails"] * bool(self.gates))


def steps_of(apps: Sequence[AffectedApp], gates: Sequence[PlannedGate], watch_s: float) -> tuple[Step, ...]:
    """The steps that make a version live. Without apps and gates there is nothing to watch."""
    around = (Step.STOP, Step.FLIP, Step.START, Step.READY) if apps else (Step.FLIP,)
    gated = (Step.GATES,) if gates else ()
    watched = (Step.WATCH,) if watch_s > 0 and (apps or gates) else ()
    return (*HARMLESS, *around, *gated, *watched, Step.COMMIT)


def undo(begun: Sequence[Step]) -> tuple[Undo, ...]:
    """What undoes the steps that were begun, of which the last one failed. Empty: nothing had changed.

    A step that was begun may have had a part of its effect, so each undo must work either way.
    """
    steps = []
    if Step.START in begun or Step.STOP in begun:
        steps.append(Undo.STOP_NEW)
    if Step.FLIP in begun:
        steps.append(Undo.FLIP_BACK)
    if Step.STOP in begun:
        steps.append(Undo.START_OLD)
    return tuple(steps)


def changes(step: Step) -> bool:
    """Whether a failure in this step has to be undone."""
    return step not in HARMLESS
