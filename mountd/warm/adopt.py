"""Brings files that lie on this machine already into the store of pinned files: by size and sha256, from anywhere.

A child does it (adopter.py says how), one for each directory: it may lie on a disk that never answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from mountd.errors import Exhausted, Unavailable, cause_of
from mountd.files.worker_process import MINIMAL_ENVIRONMENT
from mountd.fuse.table import DEVNAME_PREFIX
from mountd.fuse.watch import read_table
from mountd.process.child import spawn
from mountd.process.resources import lack
from mountd.process.slow_disk import SlowDisk
from mountd.process.tool import ALL_LINES
from mountd.warm import adopter
from mountd.warm.plan import WantedFile
from mountd.warm.store import PinStore

EXIT_S = 1.0
"""A killed child is waited for so long; one that is stuck in the kernel is left to the reaper."""
LOOK_LIMIT_S = 60.0
TAKE_LIMIT_S = 1800.0
"""Until what was brought is on disk: 12 GB on an SD card that writes 10 MB/s take 1,200 s."""
MOST_NOTES = 100
MOST_SAID = 300
"""Characters of a line that is none of the search: a traceback."""
NOWHERE = "no file of its size and sha256 lies there"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class AdoptLimits:
    """Of each directory: how many names are looked at, how deep, in how many seconds; after how many seconds of silence
    it counts as one that does not answer."""

    entries: int = 200_000
    depth: int = 16
    scan_s: float = 60.0
    silent_s: float = 60.0


@dataclass(frozen=True, slots=True)
class AdoptedFile:
    """`how`: reflink, link or copy (see adopter.py); `source`: below which directory, and its path there, in part when
    it is long."""

    sha256: str
    bytes: int
    how: str
    directory: str
    source: str


@dataclass(slots=True)
class Adoption:
    """`lacking`: of each sha256 that was not found, why; `notes`: what was not looked at, and why."""

    adopted: list[AdoptedFile] = field(default_factory=list)
    lacking: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        if len(self.notes) < MOST_NOTES:
            self.notes.append(text)


async def adopt(
    store: PinStore,
    files: Collection[WantedFile],
    directories: Sequence[str],
    *,
    disk: SlowDisk,
    environment: Mapping[str, str],
    progress: Callable[[int, int], None] = lambda _, __: None,
    excluded: Collection[str] = (),
    limits: AdoptLimits | None = None,
) -> Adoption:
    """Takes those of `files` that `store` lacks into it, as far as they lie in `directories`, which are tried in order.

    `disk` is that of the store. The child gets `environment` besides PATH and LANG: the marker for orphans. `progress`
    gets how many bytes of how many are read. Nothing in `excluded` is looked at, nor any mount of mountd; another mount
    only when it is named in `directories`. A directory that cannot be read is a note. Raises Exhausted when the store
    has no room, Unavailable when its disk does not answer, and what `PinStore` raises; what was taken in before stays.
    """
    adoption, read = Adoption(), 0
    lacking = await _on(disk, lambda: store.lacking(files), LOOK_LIMIT_S)
    for directory in directories:
        if lacking:
            one = _Search(directory, store, disk, adoption, lacking)
            wanted = [(each.path, each.size, str(each.sha256)) for each in files if each.sha256 in lacking]
            order = await _on(disk, partial(one.write_order, wanted, excluded, limits or AdoptLimits()), LOOK_LIMIT_S)
            await one.run(order, environment, partial(_add, progress, read), limits or AdoptLimits())
            await one.take_in()
            read += one.read
    adoption.lacking = {sha256: adoption.lacking.get(sha256, NOWHERE) for sha256 in lacking}
    return adoption


def _add(progress: Callable[[int, int], None], before: int, read: int, total: int) -> None:
    progress(before + read, before + total)


class _Search:
    """What is found in one directory; takes it out of `lacking`."""

    def __init__(
        self, directory: str, store: PinStore, disk: SlowDisk, adoption: Adoption, lacking: dict[str, int]
    ) -> None:
        self.read = 0
        self._directory, self._store, self._disk = directory, store, disk
        self._adoption, self._lacking = adoption, lacking
        self._took: list[AdoptedFile] = []
        self._failure: Exhausted | None = None
        self._ended = False
        self._said = ""

    def write_order(
        self, wanted: Sequence[tuple[str, int, str]], excluded: Collection[str], limits: AdoptLimits
    ) -> str:
        """The path of a file that holds it, which the child removes. Blocks. Raises OSError."""
        table = read_table()
        own = [each.mount_point for each in table if each.source.startswith(f"{DEVNAME_PREFIX}:")]
        scan = {
            "mounts": [each.mount_point for each in table],
            "excluded": [str(self._store.place), *own, *excluded],
            "entries": limits.entries,
            "depth": limits.depth,
            "scan_s": limits.scan_s,
        }
        incoming = str(self._store.incoming)
        order = {"directory": self._directory, "incoming": incoming, "wanted": wanted, "scan": scan}
        # What begins with the sha256 of a wanted file is left alone by a sweep.
        fd, path = tempfile.mkstemp(dir=incoming, prefix=f"{wanted[0][2]}.", suffix=".order")
        with open(fd, "w", encoding="utf-8") as file:
            json.dump(order, file)
        return path

    async def run(
        self, order: str, environment: Mapping[str, str], progress: Callable[[int, int], None], limits: AdoptLimits
    ) -> None:
        """Until the child ends, or has been silent for too long. Raises Exhausted, Unavailable when there is none."""
        argv = [sys.executable, "-I", "-S", "-X", "utf8", adopter.__file__, order]
        loop = asyncio.get_running_loop()
        silence = asyncio.timeout(limits.silent_s)

        def hear(line: str) -> None:
            with contextlib.suppress(RuntimeError):  # it is over
                silence.reschedule(loop.time() + limits.silent_s)
            self._hear(line, progress)

        try:
            child = spawn(argv, {**MINIMAL_ENVIRONMENT, **environment}, hear, flood_lines=ALL_LINES)
        except OSError as error:
            raise lack(error) or Unavailable(f"cannot look for files: {cause_of(error)}") from None
        try:
            async with silence:
                await child.wait()
        except TimeoutError:
            self._note(f"no answer in {limits.silent_s:g} s")
        else:
            if not self._ended:
                self._note(f"the search ended: {self._said or child.exit}")
        finally:
            child.signal(signal.SIGKILL)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EXIT_S):
                    await child.wait()
            child.release()

    def _hear(self, line: str, progress: Callable[[int, int], None]) -> None:
        try:
            said = json.loads(line)
        except ValueError:
            said = None
        match said:
            case {"read": int(read), "total": int(total)}:
                self.read = read
                progress(read, total)
            case {"took": str(sha256), "how": str(how), "source": str(source)} if sha256 in self._lacking:
                size = self._lacking[sha256]
                self._took.append(AdoptedFile(sha256, size, how, self._directory, source))
            case {"failed": str(source), "why": str(why), "sha256": sha256}:
                if isinstance(sha256, str):
                    self._adoption.lacking[sha256] = f"{os.path.join(self._directory, source)}: {why}"
            case {"note": str(text)}:
                self._note(text)
            case {"error": str(text), "errno": number}:
                self._ended = True
                self._note(text)
                if number in adopter.NO_ROOM:
                    self._failure = lack(OSError(number, text)) or Exhausted(f"cannot adopt files: {text}")
            case {"end": True}:
                self._ended = True
            case _:
                self._said = line[-MOST_SAID:]

    def _note(self, text: str) -> None:
        self._adoption.note(f"{self._directory}: {text}")

    async def take_in(self) -> None:
        """What was brought. Raises Exhausted, Unavailable."""
        if self._took:
            taken = {each.sha256: each.bytes for each in self._took}
            await _on(self._disk, partial(self._store.accept_all, taken), TAKE_LIMIT_S)
            self._adoption.adopted += self._took
            for sha256 in taken:
                self._lacking.pop(sha256)
        if self._failure is not None:
            raise self._failure


async def _on(disk: SlowDisk, work: Callable[[], T], limit_s: float) -> T:
    try:
        return await disk.run(work, limit_s)
    except TimeoutError:
        raise Unavailable(
            f"cannot adopt files: the disk of pinned versions has not answered in {limit_s:g} s"
        ) from None
    except OSError as error:
        raise lack(error) or Unavailable(f"cannot adopt files: {cause_of(error)}") from None
