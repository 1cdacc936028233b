"""Which piece of which file is read next, by how many readers at once, and when what failed is tried again.

Times are seconds of a monotonic clock that the caller reads. Nothing here reads anything.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from mountd.cache.reindex import Ranges, merged, without

MIB = 1024 * 1024
ALIGNED_BYTES = MIB
"""Pieces are cut at multiples of it, and so never inside a block of a file system."""
MOST_OPEN = 64
"""Files that are open at once: 32 readers of small files, and as many that wait for their digest."""
FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 5.0
HOPELESS_FAILURES = 8
"""A file that failed so often in a row, over 18 s, while others were read, is at fault itself."""


@dataclass(frozen=True, slots=True)
class WantedFile:
    """`path` is relative to the version's directory, `size` in bytes, `sha256` in hex where it is known."""

    path: str
    size: int
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class PieceSizes:
    """Bytes: what a reader is given at once, and what is worth another reader when no more than that is left."""

    most: int
    least: int


FROM_RC = PieceSizes(16 * MIB, 4 * MIB)
"""A piece costs a HEAD and a GET, 60 ms of the 0.9 s that 16 MiB take at 20 MB/s; other readers use the line meanwhile.
Larger ones would make a preferred file wait longer for a free reader. A piece that is split has asked for all of it:
what is on its way then comes in vain. With 2 MiB as the least that is worth another reader that was 4 MB more of 350,
and no faster."""
THROUGH_MOUNT = PieceSizes(64 * MIB, 8 * MIB)
"""A download of rclone (1.75.2) that runs into what is there already has fetched 1 MiB of it, and what its buffer
holds, in vain: with a buffer of 16 MiB and pieces of 32 MiB 17 % of the bytes came twice, with these 6 %, and with a
buffer of 1 MiB 5 %."""


@dataclass(frozen=True, slots=True)
class Opening:
    """The file `index` is to be opened, which finds out what of it is there."""

    index: int


@dataclass(slots=True, eq=False)
class Piece:
    """Bytes of the file `index` from `begin` up to, not including, `end`; those before `at` have been read."""

    id: int
    index: int
    begin: int
    end: int
    at: int
    splitting: bool = False

    @property
    def left(self) -> int:
        return self.end - self.at


@dataclass(frozen=True, slots=True)
class Splitting:
    """The reader of the piece `id` is to stop at `end`, if it is not beyond, and leaves the rest to another one."""

    id: int
    end: int


class _Stage(Enum):
    WAITING = auto()
    OPENING = auto()
    OPEN = auto()
    FINISHED = auto()


@dataclass(slots=True, eq=False)
class _Work:
    """What is known of one file: `done` is there, `gaps` are for no reader yet, in order."""

    size: int
    stage: _Stage = _Stage.WAITING
    is_fresh: bool = True
    """it has not been opened yet"""
    done: Ranges = ()
    gaps: list[tuple[int, int]] = field(default_factory=list)
    failures: int = 0
    not_before: float = 0.0
    successes_before: int = 0
    """of the plan, when its failures began"""


def pause_s(failures: int) -> float:
    """Before the next try after so many failures in a row."""
    return min(FIRST_PAUSE_S * 2 ** min(failures - 1, 10), LONGEST_PAUSE_S) if failures else 0.0


class Plan:
    """All files of one warm, in the order in which they are wanted; files are named by their index in that order.

    The caller asks `take` whenever a reader is free, and reports what came of it. A file leaves the plan by `finish`.
    """

    def __init__(self, files: Sequence[WantedFile], sizes: PieceSizes) -> None:
        self.sizes = sizes
        self.bytes_total = sum(file.size for file in files)
        self.bytes_read = 0
        """by readers of this plan, what they read again included"""
        self.files_done = 0
        self._works = [_Work(file.size) for file in files]
        self._indexes = {file.path: index for index, file in enumerate(files)}
        self._waiting = deque(range(len(files)))
        self._again: list[int] = []
        """files to be opened again, in order"""
        self._ready: list[int] = []
        """files with gaps, in order"""
        self._preferred: tuple[int, ...] = ()
        self._pieces: dict[int, Piece] = {}
        self._last_id = 0
        self._opened = 0
        self._bytes_done = 0
        self._bytes_lost = 0
        """of files that were given up"""
        self._successes = 0
        self._failures = 0
        """in a row, of all files"""
        self._quiet_until = 0.0

    @property
    def is_finished(self) -> bool:
        return self.files_done == len(self._works)

    @property
    def bytes_done(self) -> int:
        """Those of pieces that are still being read included."""
        return self._bytes_done + sum(piece.at - piece.begin for piece in self._pieces.values())

    @property
    def is_failing(self) -> bool:
        """Whether something has failed since the last byte came."""
        return self._failures > 0

    @property
    def bytes_left(self) -> int:
        return self.bytes_total - self._bytes_lost - self.bytes_done

    def done(self, index: int) -> Ranges:
        return self._works[index].done

    def is_wanted(self, index: int) -> bool:
        """Whether the file has not been finished yet."""
        return self._works[index].stage is not _Stage.FINISHED

    def file_of(self, piece_id: int) -> int:
        """KeyError when nobody reads this piece."""
        return self._pieces[piece_id].index

    def prefer(self, paths: Iterable[str]) -> None:
        """What is left of these files goes first, in this order, instead of those named before; others are ignored."""
        found = (self._indexes.get(path) for path in paths)
        self._preferred = tuple(dict.fromkeys(index for index in found if index is not None))

    # -- what is next ---------------------------------------------------------------------------------------------

    def take(self, readers: int, now: float) -> Opening | Piece | Splitting | None:
        """The next thing to do; None: nothing now. `readers`: among so many what is left is divided."""
        if now < self._quiet_until:
            return None
        for index in self._candidates():
            work = self._works[index]
            if now < work.not_before:
                continue
            if work.gaps:
                return self._cut(index, readers)
            if work.stage is _Stage.WAITING and self._opened < MOST_OPEN:
                return self._open(index)
        return self._split() if not self._ready and not self._again else None

    def _candidates(self) -> Iterator[int]:
        yield from self._preferred
        yield from self._ready
        yield from self._again
        while self._waiting:
            first = self._works[self._waiting[0]]
            if first.is_fresh and first.stage is _Stage.WAITING:
                yield self._waiting[0]
                return
            self._waiting.popleft()

    def _open(self, index: int) -> Opening:
        work = self._works[index]
        work.stage, work.is_fresh = _Stage.OPENING, False
        self._opened += 1
        if index in self._again:
            self._again.remove(index)
        return Opening(index)

    def _cut(self, index: int, readers: int) -> Piece:
        """The first gap of the file, or its first part: when little is left, each reader gets an equal share of it."""
        work = self._works[index]
        begin, end = work.gaps.pop(0)
        share = -(-self.bytes_left // max(readers, 1))
        size = max(self.sizes.least, min(self.sizes.most, share))
        if end - begin > size + size // 2:
            cut = _aligned(begin + size)
            work.gaps.insert(0, (cut, end))
            end = cut
        if not work.gaps:
            self._ready.remove(index)
        self._last_id += 1
        piece = self._pieces[self._last_id] = Piece(self._last_id, index, begin, end, begin)
        return piece

    def _split(self) -> Splitting | None:
        """Half of what is left of the piece of which most is left: so no slow reader holds up the end."""
        whole = [piece for piece in self._pieces.values() if not piece.splitting]
        piece = max(whole, key=lambda each: each.left, default=None)
        if piece is None or piece.left < 2 * self.sizes.least:
            return None
        piece.splitting = True
        return Splitting(piece.id, _aligned(piece.at + piece.left // 2))

    # -- what came of it ------------------------------------------------------------------------------------------

    def opened(self, index: int, there: Iterable[tuple[int, int]]) -> None:
        """`there`: what of the file need not be read any more."""
        work = self._works[index]
        if work.stage is not _Stage.OPENING:
            return  # it was given up meanwhile
        work.stage = _Stage.OPEN
        self._set_done(work, merged(there))
        self._add_gaps(index, without(((0, work.size),) if work.size else (), work.done))

    def progress(self, piece_id: int, at: int) -> None:
        piece = self._pieces.get(piece_id)
        if piece is not None and piece.at < at:
            self.bytes_read += min(at, piece.end) - piece.at
            piece.at = min(at, piece.end)
            self._succeed(self._works[piece.index])

    def trimmed(self, piece_id: int, end: int) -> None:
        """The reader of this piece stops at `end`."""
        piece = self._pieces.get(piece_id)
        if piece is not None:
            piece.splitting = False
            if end < piece.end:
                self._add_gaps(piece.index, ((end, piece.end),))
                piece.end = end

    def read(self, piece_id: int, end: int) -> None:
        """All of this piece, which ended at `end`."""
        self.progress(piece_id, end)
        self._drop(piece_id, end)

    def failed(self, index: int, now: float, piece_id: int | None = None, at: int = 0) -> None:
        """The file could not be opened, or its piece not be read from `at` on: it is tried again after a pause."""
        if piece_id is not None:
            self.progress(piece_id, at)
            self._drop(piece_id, at)
        work = self._works[index]
        if work.stage is _Stage.FINISHED:
            return
        if work.stage is _Stage.OPENING:
            self._wait_again(index)
        if not work.failures:
            work.successes_before = self._successes
        # What fails during a pause was begun before it, and fails for the same reason.
        if now >= work.not_before:
            work.failures += 1
            work.not_before = now + pause_s(work.failures)
        # One failure may be that of a file; after a second one, with no success in between, all of them wait.
        if now >= self._quiet_until:
            self._failures += 1
            self._quiet_until = now + pause_s(self._failures - 1)

    def failures(self, index: int) -> int:
        """In a row."""
        return self._works[index].failures

    def is_hopeless(self, index: int) -> bool:
        work = self._works[index]
        return work.failures >= HOPELESS_FAILURES and self._successes > work.successes_before

    def finish(self, index: int) -> None:
        """The file is as it should be, or is given up."""
        work = self._works[index]
        if work.stage is _Stage.FINISHED:
            return
        self._close(index)
        if index in self._again:
            self._again.remove(index)
        work.stage = _Stage.FINISHED
        self.files_done += 1
        self._bytes_lost += work.size - sum(end - begin for begin, end in work.done)

    def discard(self, index: int) -> None:
        """Nothing of the file can be used: it is opened again, and read from its beginning."""
        self._set_done(self._works[index], ())
        self._wait_again(index)

    def restart(self) -> None:
        """Nobody reads any more, and no file is open; what has been read is there."""
        for piece in list(self._pieces.values()):
            self._drop(piece.id, piece.at)
        for index, work in enumerate(self._works):
            if work.stage in (_Stage.OPENING, _Stage.OPEN):
                self._wait_again(index)

    def _wait_again(self, index: int) -> None:
        self._close(index)
        self._works[index].stage = _Stage.WAITING
        insort(self._again, index)

    def _close(self, index: int) -> None:
        work = self._works[index]
        if work.stage in (_Stage.OPENING, _Stage.OPEN):
            self._opened -= 1
        work.gaps.clear()
        if index in self._ready:
            self._ready.remove(index)

    def _drop(self, piece_id: int, at: int) -> None:
        """Nobody reads this piece any more: what lies before `at` is done, the rest is for another reader."""
        piece = self._pieces.pop(piece_id, None)
        if piece is None:
            return
        work = self._works[piece.index]
        if work.stage is _Stage.OPEN:
            self._set_done(work, merged([*work.done, (piece.begin, at)]))
        self._add_gaps(piece.index, ((at, piece.end),))

    def _add_gaps(self, index: int, gaps: Iterable[tuple[int, int]]) -> None:
        work = self._works[index]
        if work.stage is not _Stage.OPEN:
            return
        work.gaps = sorted([*work.gaps, *(gap for gap in gaps if gap[0] < gap[1])])
        if work.gaps and index not in self._ready:
            insort(self._ready, index)

    def _set_done(self, work: _Work, done: Ranges) -> None:
        self._bytes_done += sum(end - begin for begin, end in done) - sum(end - begin for begin, end in work.done)
        work.done = done

    def _succeed(self, work: _Work) -> None:
        work.failures, work.not_before = 0, 0.0
        self._successes += 1
        self._failures, self._quiet_until = 0, 0.0


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNED_BYTES) * ALIGNED_BYTES
