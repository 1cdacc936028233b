"""Processes that read through a link all the time, and what they saw of it in sum."""

from __future__ import annotations

import hashlib
import json
import mmap
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support import dies_with_us
from tests.support.wait import until

READERS = 8
SCRIPT = Path(__file__).with_name("link_reader.py")
BEGIN_S, END_S = 60.0, 60.0


@dataclass(frozen=True, slots=True)
class Report:
    """`rounds`: directory handles opened; `files`: files read whole; `moved`: handles that saw the link change.

    `versions` counts rounds; `wrong` counts all that was, `reported` has the first of it in words.
    """

    rounds: int
    files: int
    moved: int
    versions: Counter[str]
    wrong: int
    reported: tuple[str, ...]
    fewest: int
    """rounds of the reader that did least"""


class LinkReaders:
    """Read inside a `with`; `sources` are the versions' own directories, `roots` where they are read through.

    A root's value is the version that it must hold, None for a link that may lead to any.
    """

    def __init__(
        self,
        roots: Mapping[Path, str | None],
        sources: Mapping[str, Path],
        files: Sequence[str],
        *,
        count: int = READERS,
        pause_s: float = 0.0,
    ) -> None:
        self._count = count
        self._stack = ExitStack()
        self._processes: list[subprocess.Popen[str]] = []
        digests = {file: {_digest(source / file): name for name, source in sources.items()} for file in files}
        for file, found in digests.items():
            assert len(found) == len(sources), f"{file} is alike in two versions: no mix could be seen"
        self._plan = {
            "roots": {str(root): only for root, only in roots.items()},
            "digests": digests,
            "pause_s": pause_s,
        }

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mountd-t-")))
            counters = stack.enter_context((root / "counters").open("w+b"))
            counters.truncate(8 * self._count)
            self._counters = stack.enter_context(mmap.mmap(counters.fileno(), 0))
            (root / "plan").write_text(json.dumps({**self._plan, "counters": str(root / "counters")}))
            stack.callback(self._kill)
            for slot in range(self._count):
                argv = [sys.executable, "-I", "-S", str(SCRIPT), str(root / "plan"), str(slot)]
                self._processes.append(
                    subprocess.Popen(
                        dies_with_us(argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, cwd="/"
                    )
                )
            until(lambda: all(self.rounds), BEGIN_S, "every reader to have read")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._stack.close()

    def _kill(self) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()

    @property
    def rounds(self) -> list[int]:
        """Of each reader, until now."""
        return [int.from_bytes(self._counters[8 * slot : 8 * slot + 8], "little") for slot in range(self._count)]

    def until_more(self, since: int) -> int:
        """The sum of all rounds, as soon as it is over `since`. Raises AssertionError when nobody reads."""
        return until(lambda: found if (found := sum(self.rounds)) > since else 0, END_S, "readers to go on", 0.0005)

    def end(self) -> Report:
        """Asks all of them to end. Raises AssertionError when one does not, or broke."""
        for process in self._processes:
            process.terminate()
        said = []
        for process in self._processes:
            out, _ = process.communicate(timeout=END_S)
            assert process.returncode == 0, f"a reader ended with {process.returncode}"
            said.append(json.loads(out))
        return Report(
            rounds=sum(each["rounds"] for each in said),
            files=sum(each["files"] for each in said),
            moved=sum(each["moved"] for each in said),
            versions=sum((Counter(each["versions"]) for each in said), Counter()),
            wrong=sum(each["wrong"] for each in said),
            reported=tuple(text for each in said for text in each["reported"]),
            fewest=min(each["rounds"] for each in said),
        )


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
