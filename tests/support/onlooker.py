"""Looks at a daemon all through a fault: what it said and when, and that everything it runs stayed as it was."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mountd.client.api import get
from mountd.errors import MountdError
from tests.support.daemon import Daemon

EVERY_S = 0.1
ANSWER_S = 30.0
JOIN_S = 60.0
LATE = "mount-silent"


@dataclass(frozen=True, slots=True)
class Seen:
    """One answer: `at` is when it was asked (monotonic), `codes` why it is not Healthy.

    A single late liveness probe, which a busy machine has now and then, is left out of `codes` and `health`.
    """

    at: float
    took_s: float
    status: dict[str, Any]

    @property
    def codes(self) -> tuple[str, ...]:
        return tuple(code for code in self._codes if code != LATE)

    @property
    def health(self) -> str:
        return "Healthy" if set(self._codes) == {LATE} else str(self.status["health"])

    @property
    def _codes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(reason["code"] for reason in self.status["reasons"]))

    @property
    def lives(self) -> dict[str, tuple[int | None, int]]:
        """Each mount and app: its process, and how often it was restarted."""
        things = {**self.status["mounts"], **self.status["apps"]}
        return {name: (thing["pid"], thing["restarts"]) for name, thing in things.items()}


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:120]
    except OSError:
        return "gone"


class Onlooker:
    """Asks the status over the socket ten times a second, from now until the end of a `with`."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self.seen: list[Seen] = []
        self.unanswered: list[str] = []
        self.processes: list[int] = []
        """how many of the instance there were, once a second"""
        self._most: list[str] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="onlooker", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join(JOIN_S)
        if error is not None:
            print(f"--- what was seen of {self._daemon.root}\n{self.story()}")

    def _run(self) -> None:
        counted = 0.0
        while not self._ended.is_set():
            at = time.monotonic()
            try:
                status = get(str(self._daemon.socket), "/api/v1/status", timeout_s=ANSWER_S)
                self.seen.append(Seen(at, time.monotonic() - at, status))
            except MountdError as error:
                self.unanswered.append(f"{at:.1f}: {error}")
            if at - counted >= 1:
                counted = at
                self._count()
            self._ended.wait(EVERY_S)

    def _count(self) -> None:
        pids = self._daemon.processes()
        if len(pids) > max(self.processes, default=0):
            self._most = [command_of(pid) for pid in pids]
        self.processes.append(len(pids))

    # -- what was seen --------------------------------------------------------------------------------------------

    def since(self, at: float) -> list[Seen]:
        return [each for each in self.seen if each.at >= at]

    def codes(self, since: float = 0.0) -> list[str]:
        """Every reason, in the order of its first appearance."""
        return list(dict.fromkeys(code for each in self.since(since) for code in each.codes))

    def healths(self, since: float = 0.0) -> list[str]:
        """One entry for each time that it changed: a status that flaps makes a long list."""
        found: list[str] = []
        for each in self.since(since):
            if found[-1:] != [each.health]:
                found.append(each.health)
        return found

    def first(self, *, well: bool, since: float) -> float:
        """Seconds from `since` to the first answer that is Healthy, or is not. Raises AssertionError without one."""
        for each in self.since(since):
            if (each.health == "Healthy") is well:
                return each.at + each.took_s - since
        raise AssertionError(f"never {'well' if well else 'ill'}:\n{self.story(since)}")

    def slowest_s(self) -> float:
        return max(each.took_s for each in self.seen)

    def measured(self, began: float, lifted: float) -> str:
        """In words, of a fault from `began` to `lifted` (monotonic)."""
        ill, well = self.first(well=False, since=began), self.first(well=True, since=lifted)
        slowest_ms, processes = self.slowest_s() * 1000, f"{min(self.processes)} to {max(self.processes)} processes"
        return (
            f"seen after {ill:.1f} s, Healthy {well:.1f} s after its end; answers in {slowest_ms:.0f} ms, {processes}"
        )

    def story(self, since: float = 0.0) -> str:
        """One line for each change."""
        lines, last, began = list(self.unanswered), "", self.seen[0].at if self.seen else 0.0
        for each in self.since(since):
            now = f"{each.health} ready={each.status['ready']} {' '.join(each.codes)} {each.lives}"
            if now != last:
                lines.append(f"{each.at - began:6.1f} s {now}")
                last = now
        return "\n".join(lines)

    # -- what must hold -------------------------------------------------------------------------------------------

    def assert_nothing_adds_up(self, more: int) -> None:
        """For a moment there may be one that asks something and ends; never two looks in a row, a second apart."""
        lasting = max(map(min, pairwise(self.processes)))
        assert lasting <= self.processes[0] + more, self._most

    def assert_steady(self) -> None:
        """It answered at once all the time, nothing was restarted, and it never stopped being ready."""
        assert self.unanswered == []
        assert self.slowest_s() < ANSWER_S
        for each in self.seen:
            assert each.lives == self.seen[0].lives, self.story()
            assert each.status["ready"], self.story()

    def assert_kept(self, mount: str = "storage") -> None:
        """What the cache holds never became less."""
        used = [each.status["mounts"][mount]["cache"]["bytes_used"] for each in self.seen]
        assert all(after >= before for before, after in pairwise(used)), _steps(used)


def _steps(values: Iterable[int]) -> list[int]:
    found: list[int] = []
    for value in values:
        if found[-1:] != [value]:
            found.append(value)
    return found


def cached_bytes(cache: Path) -> int:
    """What lies in rclone's cache of file content, on disk."""
    return sum(path.stat().st_blocks * 512 for path in (cache / "vfs").rglob("*") if path.is_file())
