"""One pass over a cache that no rclone uses: its index is repaired, or what rclone left is stamped."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from mountd.cache import digests, extents, stamps
from mountd.cache.layout import GONE, META, data_of, is_dirty, raises, records, write_record
from mountd.cache.reindex import CachedFile, IndexAction, IndexPlan, Origin, Ranges, decide, merged, ranges, without
from mountd.cache.stamps import Stamp, Stamps
from mountd.cache.upload_state import NAMES
from mountd.process.resources import lack
from mountd.rclone.private_file import sync
from mountd.text import storable

T = TypeVar("T")
U = TypeVar("U")

HASH_S = 60.0
"""So long a start goes on comparing digests: some 60 GB from memory, a tenth of it from a slow disk."""
NOTE_S = 0.5
"""Between two notes of what is on disk; 10,000 files are noted in some 50 ms."""
PIECE_BYTES = 1024 * 1024


@dataclass(slots=True)
class RepairedIndex:
    """Names are relative to the metadata; the first few."""

    extended: int = 0
    verified: int = 0
    hashed_bytes: int = 0
    wrong: list[str] = field(default_factory=list)
    """their bytes are not those of the manifest"""
    unproven: list[str] = field(default_factory=list)
    """nothing shows that they are right: they were changed, lost power, or there was no time to compare them"""


@dataclass(frozen=True, slots=True)
class _File:
    name: str
    meta: str
    data: str
    record: dict[str, Any]
    stamp: Stamp
    used_at: float

    @property
    def size(self) -> int:
        return self.stamp.size


class Stopped(Exception):
    """The caller no longer waits for the repair."""


class _Repair:
    """One pass over a cache that no rclone uses. Blocks. Raises OSError."""

    def __init__(
        self, cache: Path, writes_back: bool, may_guess: bool, is_stopped: Callable[[], bool], *, lenient: bool
    ) -> None:
        self._cache = cache
        self._writes_back, self._is_stopped, self._unreadable = writes_back, is_stopped, _handler(lenient)
        self._before, self._boot = self._read_stamps(), stamps.boot_id()
        self._digests = digests.read(cache, self._unreadable)
        if self._before is None:
            self._digests |= self._of_cached_manifests()
        self._block_bytes = extents.finest(cache)
        self._may_guess = may_guess and self._block_bytes <= extents.BLOCK
        self._stamps: dict[str, Stamp] = {}
        self.done = RepairedIndex()

    def run(self) -> RepairedIndex:
        later: list[tuple[_File, IndexPlan]] = []
        for file in _clean_files(self._cache, self._unreadable):
            self._check()
            plan = self._decide(file)
            if plan.action in (IndexAction.VERIFY, IndexAction.EXTEND):
                later.append((file, plan))
            elif plan.action is IndexAction.DROP:
                self._drop(file, self.done.unproven)
        if not self._note_guesses([file for file, plan in later if plan.action is IndexAction.EXTEND]):
            later = [each for each in later if each[1].action is not IndexAction.EXTEND]
        deadline = time.monotonic() + HASH_S
        for file, plan in sorted(later, key=lambda each: each[0].used_at, reverse=True):
            self._check()
            (self._verify if plan.action is IndexAction.VERIFY else self._extend)(file, plan, deadline)
        self._check()
        # Without room for it, what there was of before is no longer right, and seen to be.
        found = Stamps(self._boot, running=True, files=self._stamps)
        _if_room(lambda: stamps.write(self._cache, found, durable=self._before is None))
        return self.done

    def _check(self) -> None:
        if self._is_stopped():
            raise Stopped

    def _note_guesses(self, files: list[_File]) -> bool:
        """Before an index is extended, so that it is known also when this pass does not finish.

        Of what a file was known to be nothing changes. False where there is no room for it.
        """
        if not files or self._before is None:
            return True
        noted = dict(self._before.files)
        for file in files:
            before = noted.get(file.name)
            if before is None or before.inode != file.stamp.inode:
                before = file.stamp._replace(size=-1)  # not that of any file
            noted[file.name] = before._replace(is_guessed=True)
        self._check()
        found = replace(self._before, files=noted)
        return _if_room(lambda: stamps.write(self._cache, found, durable=False))

    def _read_stamps(self) -> Stamps | None:
        try:
            return stamps.read(self._cache)
        except OSError as error:
            self._unreadable(error)
            return stamps.NONE

    def _of_cached_manifests(self) -> dict[str, tuple[int, str]]:
        """A mountd that kept no digests has left at least what it read of manifests through the mount: one that is not
        whole cannot be parsed, and what it says is compared with files anyway."""
        found: dict[str, tuple[int, str]] = {}
        for file in _clean_files(self._cache, self._unreadable):
            directory, _, name = file.name.rpartition("/")
            if name == digests.MANIFEST and file.size <= digests.MOST_BYTES:
                content = self._read(file, lambda data: data.read(digests.MOST_BYTES), b"")
                found |= digests.of_manifest(content, directory)
        return found

    def _read(self, file: _File, look: Callable[[io.FileIO], T], otherwise: U) -> T | U:
        """What `look` finds in its data; `otherwise` where it vanishes or is given up as unreadable. Raises OSError."""
        try:
            with open(file.data, "rb", buffering=0) as data:
                return look(data)
        except OSError as error:
            self._unreadable(error)
            return otherwise

    def _decide(self, file: _File) -> IndexPlan:
        index = ranges(file.record, file.size)
        origin, stamp = _stamped(self._before, self._boot, file)
        self._stamps[file.name] = stamp
        has_digest = bool(digests.of(self._digests, file.name, file.size))
        found = CachedFile(
            file.size, index, self._extents(file), origin, has_digest, stamp.is_guessed, proven=stamp.is_proven
        )
        return decide(found, may_guess=self._may_guess, writes_back=self._writes_back)

    def _extents(self, file: _File) -> Ranges | None:
        if not self._block_bytes:
            return None
        return self._read(file, lambda data: extents.extents(data.fileno(), file.size), ())

    def _extend(self, file: _File, plan: IndexPlan, deadline: float) -> None:
        known = ranges(file.record, file.size) or ()
        given = without(plan.index or (), known)
        added = self._read(file, lambda data: extents.filled(data.fileno(), given, deadline, self._check), None)
        if added and self._write(file, merged((*known, *added))):
            self._stamps[file.name] = self._stamps[file.name]._replace(is_guessed=True)
            self.done.extended += 1

    def _verify(self, file: _File, plan: IndexPlan, deadline: float) -> None:
        wanted = digests.of(self._digests, file.name, file.size)
        found = self._read(file, lambda data: self._hash(data, file.stamp, deadline), "")
        if found is None and plan.index is not None:
            # As rclone has it, until there is time for it.
            self._stamps[file.name] = self._stamps[file.name]._replace(is_guessed=True)
        elif not found:
            self._drop(file, self.done.unproven)
        elif found != wanted:
            self._drop(file, self.done.wrong)
        else:
            self.done.verified += 1
            # Read from the disk of a machine that was started meanwhile, it needs no writing any more.
            is_read = self._before is not None and self._before.boot != self._boot
            is_durable = is_read or self._stamps[file.name].is_durable
            self._stamps[file.name] = file.stamp._replace(is_durable=is_durable, is_proven=True)
            whole = ((0, file.size),)
            if ranges(file.record, file.size) != whole and self._write(file, whole):
                self.done.extended += 1

    def _hash(self, data: io.FileIO, before: Stamp, deadline: float) -> str | None:
        """None when it takes too long, and "" for what is being written to. Raises OSError, Stopped."""
        digest, buffer = hashlib.sha256(), bytearray(PIECE_BYTES)
        while size := data.readinto(buffer):
            self._check()
            digest.update(memoryview(buffer)[:size])
            self.done.hashed_bytes += size
            if time.monotonic() > deadline:
                return None
        after = Stamp.of(os.fstat(data.fileno()), before.fingerprint)
        return digest.hexdigest() if before.is_of(after) else ""

    def _drop(self, file: _File, names: list[str]) -> None:
        for path in (file.data, file.meta):
            with contextlib.suppress(*GONE):
                os.unlink(path)
        self._stamps.pop(file.name, None)
        if len(names) < NAMES:
            names.append(storable(file.name))

    def _write(self, file: _File, index: Ranges) -> bool:
        """False where there is no room for it."""
        parts = [{"Pos": begin, "Size": end - begin} for begin, end in index]
        record = {**file.record, "Rs": parts or None}
        return _if_room(lambda: write_record(self._cache / "reindexed.json", file.meta, record, durable=False))


def _handler(lenient: bool) -> Callable[[OSError], None]:
    """For what cannot be read. `lenient`: it is given up; what the machine lacks is waited for all the same."""

    def unreadable(error: OSError) -> None:
        if not lenient or lack(error) is not None:
            raises(error)

    return unreadable


def _if_room(write: Callable[[], None]) -> bool:
    """False where there is no room for it. Raises any other OSError."""
    try:
        write()
    except OSError as error:
        if error.errno not in extents.NO_ROOM:
            raise
        return False
    return True


def _clean_files(cache: Path, unreadable: Callable[[OSError], None]) -> Iterator[_File]:
    above = f"{cache / META}/"
    for meta, record, data in records(cache, cache / META, unreadable=unreadable):
        if isinstance(record, dict) and not is_dirty(record):
            stamp = Stamp.of(data, str(record.get("Fingerprint") or ""))
            with contextlib.suppress(*GONE):
                used_at = os.lstat(meta).st_mtime
                yield _File(meta.removeprefix(above), meta, data_of(cache, meta), record, stamp, used_at)


def _stamped(before: Stamps | None, boot: str, file: _File) -> tuple[Origin, Stamp]:
    """What may have changed it since it was stamped, and its stamp from now on."""
    origin = stamps.origin(before, boot, file.name, file.stamp)
    old = before.files.get(file.name) if before else None
    if old is not None and origin is Origin.UNTOUCHED:
        return origin, old
    guessed = old is not None and old.is_guessed and old.inode == file.stamp.inode
    return origin, file.stamp._replace(is_guessed=guessed)


def repair(
    cache: Path,
    writes_back: bool,
    may_guess: bool,
    is_stopped: Callable[[], bool] = lambda: False,
    *,
    lenient: bool = False,
) -> RepairedIndex:
    """All of a cache that no rclone uses; see `reindex.decide`. Blocks, also for the hashing.

    Raises OSError, also for what cannot be read, which says nothing of it: then repeat it. `lenient`: such a file is
    dropped, if it is data that must be read, and else left alone; what mountd kept of it is as good as lost.
    Raises Stopped once `is_stopped`, which is asked for each file and each piece: then nothing else is changed.
    """
    return _Repair(cache, writes_back, may_guess, is_stopped, lenient=lenient).run()


def stamp(
    cache: Path, durable_s: float | None, is_stopped: Callable[[], bool] = lambda: False, *, lenient: bool = False
) -> None:
    """After an rclone has exited: how it has left each file. Blocks, for some 60 µs a file.

    Raises OSError, also for what cannot be read: what was stamped before stays. `lenient`: that has no stamp then.
    Raises Stopped once `is_stopped`, and then changes nothing else.
    With `durable_s` all of it is on disk afterwards, or as much as can be written in about so many seconds. What is on
    disk is noted every NOTE_S: a write of one large file may take longer than anybody waits.
    """
    before, boot = stamps.read(cache), stamps.boot_id()
    found: dict[str, Stamp] = {}

    def check() -> None:
        if is_stopped():
            raise Stopped

    def note(*, durable: bool) -> None:
        check()
        stamps.write(cache, Stamps(boot, running=False, files=found), durable=durable)

    for file in _clean_files(cache, _handler(lenient)):
        check()
        _, found[file.name] = _stamped(before, boot, file)
    note(durable=False)
    if durable_s is None:
        return
    noted = time.monotonic()
    deadline = noted + durable_s
    for name, each in found.items():
        if each.is_durable:
            continue
        if time.monotonic() >= deadline:
            break
        check()
        meta = str(cache / META / name)
        with contextlib.suppress(OSError):
            sync(Path(data_of(cache, meta)))
            sync(Path(meta))
            found[name] = each._replace(is_durable=True)
        if time.monotonic() >= noted + NOTE_S:
            note(durable=True)
            noted = time.monotonic()
    note(durable=True)
