"""What a reader process saw of the mount, and small children that each read something once."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support import dies_with_us

REMEMBERED = 100_000
LOOK_S = 0.005
SCRIPTS = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Read:
    """Seconds on the monotonic clock; `outcome` is "ok" or the name of an errno."""

    began: float
    ended: float
    outcome: str
    wrong_bytes: int


class Reads:
    """A reader of one file that goes on whatever happens, from now on until the end of a `with`."""

    def __init__(self, path: Path, source: Path, pause_s: float) -> None:
        argv = [sys.executable, "-I", "-S", str(SCRIPTS / "reader.py"), str(path), str(source), str(pause_s)]
        self._process = subprocess.Popen(dies_with_us(argv), stdout=subprocess.PIPE, text=True, cwd="/")
        self._reads: deque[Read] = deque(maxlen=REMEMBERED)
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._drain, daemon=True)
        self._thread.start()

    def _drain(self) -> None:
        for line in self._process.stdout or ():
            began, ended, outcome, wrong = line.split()
            with self._lock:
                self._reads.append(Read(float(began), float(ended), outcome, int(wrong)))

    def since(self, moment: float) -> list[Read]:
        """Those that began after `moment`, oldest first."""
        with self._lock:
            found = list(takewhile(lambda read: read.began >= moment, reversed(self._reads)))
        return found[::-1]

    def failed(self, since: float, until: float) -> int:
        """How many that began in this time ended with an error, by `until`."""
        return sum(read.outcome != "ok" for read in self.since(since) if read.began < until)

    def wrong_bytes(self, since: float) -> int:
        return sum(read.wrong_bytes for read in self.since(since))

    def first_good(self, after: float, timeout_s: float) -> float:
        """When the first whole and right read that began after `after` ended. Raises AssertionError."""
        deadline = time.monotonic() + timeout_s
        while True:
            for read in self.since(after):
                if read.outcome == "ok" and not read.wrong_bytes:
                    return read.ended
            assert time.monotonic() < deadline, f"nothing could be read for {timeout_s:g} s"
            time.sleep(LOOK_S)

    def close(self) -> None:
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)  # one that is stuck ends with its mount
        self._thread.join(5)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Copied:
    """`errors` were answered to reads that were then tried again."""

    files: int
    wrong_bytes: int
    errors: int


class Copying:
    """A child that reads every file of `source` below `mounted`, and compares; again for `patience_s` after errors."""

    def __init__(self, source: Path, mounted: Path, patience_s: float) -> None:
        argv = [sys.executable, "-I", "-S", str(SCRIPTS / "copier.py"), str(source), str(mounted), str(patience_s)]
        self._process = subprocess.Popen(dies_with_us(argv), stdout=subprocess.PIPE, text=True, cwd="/")

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def result(self, timeout_s: float) -> Copied:
        """Raises AssertionError when it is not done in time, or could not read a file at all."""
        try:
            said, _ = self._process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise AssertionError(f"a read did not end within {timeout_s:g} s") from None
        document = json.loads(said)
        assert not document["unread"], f"could not be read: {document['unread']}"
        return Copied(document["files"], document["wrong_bytes"], document["errors"])

    def close(self) -> None:
        self._process.kill()
