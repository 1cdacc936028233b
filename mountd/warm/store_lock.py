"""One change of the store at a time, and what its disk answers in the words of those who ask for one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from mountd.errors import Busy, Exhausted, Unavailable, cause_of
from mountd.process import directories
from mountd.process.resources import lack

GONE = (FileNotFoundError, NotADirectoryError)
TURN_LIMIT_S = 600.0
"""How long one change waits for another of this process, such as one that syncs many large files."""
PATIENCE_S = 3.0
"""A process that was killed gives its lock back within this time."""
POLL_S = 0.05
_HINT = "the store lies below `state` of the configuration: let mountd's user write there, on a local disk"


class StoreLock:
    """`work` is what the changes of one store make and remove things in: the next one empties it."""

    def __init__(self, path: Path, work: Path) -> None:
        self._path, self._work = path, work
        self._turn = threading.Lock()

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Blocks. Raises Busy when another process changes the store, OSError."""
        if not self._turn.acquire(timeout=TURN_LIMIT_S):
            raise Busy("cannot change pinned versions: another change is not finished")
        try:
            fd = directories.open_private(self._path)
            try:
                _take(fd)
                self.empty_work()
                yield
            finally:
                os.close(fd)
        finally:
            self._turn.release()

    def empty_work(self) -> None:
        """Only inside `changing`. Raises OSError."""
        for name, seen in entries(self._work):
            if stat.S_ISDIR(seen.st_mode):
                shutil.rmtree(self._work / name)
            else:
                os.unlink(self._work / name)


def _take(fd: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise Busy("cannot change pinned versions: another process does so") from None
        time.sleep(POLL_S)


def entries(directory: Path) -> list[tuple[str, os.stat_result]]:
    """Names with what they stand for, links not followed; what vanishes meanwhile is left out. Raises OSError."""
    found = []
    with contextlib.suppress(*GONE), os.scandir(directory) as listed:
        for each in listed:
            with contextlib.suppress(*GONE):
                found.append((each.name, each.stat(follow_symlinks=False)))
    return found


@contextlib.contextmanager
def expected(what: str) -> Iterator[None]:
    """Inside, an OSError becomes Exhausted or Unavailable, "cannot …: cause"."""
    try:
        yield
    except OSError as error:
        place = f": {os.fsdecode(error.filename)}" if isinstance(error.filename, str | bytes) else ""
        text = f"cannot {what}: {cause_of(error)}{place}"
        if (found := lack(error)) is not None:
            raise Exhausted(text, code=found.code, hint=found.hint) from error
        raise Unavailable(text, hint=_HINT) from error
