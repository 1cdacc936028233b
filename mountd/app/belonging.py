"""What belongs to an app: its process and all descendants, also detached ones.

Who answers on its port is asked of the same set that ends with it. A cgroup holds all of it, where one can be made.
Elsewhere it is what came of its process as long as that could be seen, what carries its mark, and what the daemon's
parent took in while nothing else could have left it there.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import structlog

from mountd.process import cgroup, cgroup_limits, family, init, tool
from mountd.process.instance import Instance
from mountd.settings.limits import AppLimitSettings

log = structlog.get_logger()


class Belonging:
    def __init__(self, instance: Instance, name: str) -> None:
        self._instance = instance
        self._name = name
        self._cgroup: Path | None = None
        self._entered = False
        """something of its present process was seen in the cgroup: the launcher may be unable to enter it"""
        self._seen: set[tuple[int, int]] = set()
        self._limited = AppLimitSettings()

    def begin(self, limits: AppLimitSettings) -> Path | None:
        """The cgroup that its next process is to be in; None where none can be made."""
        self._cgroup, self._entered = cgroup.make(self._instance.id, self._name), False
        self._limited = AppLimitSettings()
        if self._cgroup is None and limits != self._limited:
            self._warn("no cgroup can be made here; in a unit of systemd Delegate=yes allows it")
        self.limit(limits)
        return self._cgroup

    def limit(self, limits: AppLimitSettings) -> None:
        """What runs now; what is started next has its own by `begin`."""
        if self._cgroup is None or limits == self._limited:
            return
        self._limited = limits
        memory = limits.memory.of(cgroup_limits.machine_memory()) if limits.memory is not None else None
        if why_not := cgroup_limits.apply(self._cgroup, memory_bytes=memory, cpus=limits.cpu):
            self._warn(why_not)

    def _warn(self, cause: str) -> None:
        log.warning("limits of the app are not in effect", app=self._name, cause=cause)

    def ran_out_of_memory(self) -> bool:
        """Its cgroup's, or the machine's."""
        return self._cgroup is not None and cgroup_limits.ran_out_of_memory(self._cgroup)

    def began(self, pid: int) -> None:
        self._seen = family.of(pid)

    async def look(self) -> list[int]:
        """Those that can be seen without waiting for another process; what comes loose later is remembered by it."""
        return self._remember(*await asyncio.to_thread(_look, self._cgroup, self._seen))

    def look_now(self) -> list[int]:
        """As `look`, but blocks: where there is no cgroup, 4 ms for each 100 processes of the machine."""
        return self._remember(*_look(self._cgroup, self._seen))

    def _remember(self, held: list[int], seen: set[tuple[int, int]]) -> list[int]:
        self._entered = self._entered or bool(held)
        self._seen = seen
        return held or [pid for pid, _ in seen]

    async def find(self, uid: int | None) -> list[int]:
        """Also those that have come loose and are known by their marks; `uid` as in `end`. Raises Unavailable."""
        lines = await tool.end_orphans(self._instance.id, self._name, ["list", *self._words(uid, alone=False)])
        return [*await self.look(), *(int(line.partition(" ")[0]) for line in lines)]

    async def end(self, uid: int | None, *, alone: bool) -> list[str]:
        """Ends all of it; `PID COMMAND` of each. Raises Unavailable.

        `uid`: of a user that nobody else below this daemon has now. `alone`: no other app is up.
        """
        ended = []
        if self._cgroup is not None:
            ended = await cgroup.end(self._cgroup)
            self._entered = self._entered or bool(ended)
        return ended + await tool.end_orphans(self._instance.id, self._name, self._words(uid, alone=alone))

    def _words(self, uid: int | None, *, alone: bool) -> list[str]:
        words = [f"{pid}:{started}" for pid, started in self._seen]
        if uid:
            words.append(f"uid={uid}")
        parent = init.subreaper()
        if alone and parent is not None and not self._entered:
            words.append(f"loose={parent}")
        return words


def _look(group: Path | None, seen: set[tuple[int, int]]) -> tuple[list[int], set[tuple[int, int]]]:
    """Who is in the cgroup; if nobody is, what has come of `seen`, each (pid, started). Blocks."""
    held = cgroup.members(group) if group is not None else []
    if not held:
        with contextlib.suppress(OSError):  # the machine is short of something
            seen = family.descendants(seen, family.table())
    return held, seen
