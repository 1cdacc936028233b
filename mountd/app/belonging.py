"""What belongs to an app: its process and all descendants, also detached ones.

Who answers on its port is asked of the same set that ends with it. A cgroup holds all of it, where one can be made.
Elsewhere it is what came of its process as long as that could be seen, what carries its mark, and what the daemon's
parent took in while nothing else could have left it there.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from mountd.process import cgroup, family, init, tool
from mountd.process.instance import Instance


class Belonging:
    def __init__(self, instance: Instance, name: str) -> None:
        self._instance = instance
        self._name = name
        self._cgroup: Path | None = None
        self._entered = False
        """something of its present process was seen in the cgroup: the launcher may be unable to enter it"""
        self._seen: set[tuple[int, int]] = set()

    def begin(self) -> Path | None:
        """The cgroup that its next process is to be in; None where none can be made."""
        self._cgroup, self._entered = cgroup.make(self._instance.id, self._name), False
        return self._cgroup

    def began(self, pid: int) -> None:
        self._seen = family.of(pid)

    def look(self) -> list[int]:
        """Those that can be seen without waiting for anything; what comes loose later is remembered by it."""
        held = cgroup.members(self._cgroup) if self._cgroup is not None else []
        if held:
            self._entered = True
            return held
        with contextlib.suppress(OSError):  # the machine is short of something
            self._seen = family.descendants(self._seen, family.table())
        return [pid for pid, _ in self._seen]

    async def find(self, uid: int | None) -> list[int]:
        """Also those that have come loose and are known by their marks; `uid` as in `end`. Raises Unavailable."""
        lines = await tool.end_orphans(self._instance.id, self._name, ["list", *self._words(uid, alone=False)])
        return [*self.look(), *(int(line.partition(" ")[0]) for line in lines)]

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
