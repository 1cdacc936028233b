"""The store of pinned files: each content once, by its sha256, and for each version a tree of hard links to them.

Below its directory, on one local file system:

    objects/ab/SHA256           a whole file that was hashed, 0444
    incoming/SHA256             the same, to be taken in; SHA256.ANYTHING belongs to what is being fetched
    trees/MODEL/VERSION/…       what the app reads: directories, and hard links to objects
    trees/MODEL/.VERSION.json   says that this tree is complete: without it a tree does not count
    trees/MODEL/.VERSION.files  its files, in the lines that the digest of a version is made of
    work/                       what a change makes or removes; the next one empties it
    lock                        held during each change

A kill at any point leaves the state before a step or after it: files and trees are prepared aside, synced, and renamed
into place; what says that a tree counts comes last and goes first. All directories belong to mountd's user, and nobody
else may write in them: no link or other file can be put on the way.

Each method blocks: call it in a thread. Each raises Exhausted when the disk is full, Unavailable when it refuses
something else, and those that change anything Busy while another process does.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from mountd.clock import now_text
from mountd.errors import NotFound, Refused
from mountd.process import directories
from mountd.rclone.private_file import sync
from mountd.settings import names
from mountd.warm import pins
from mountd.warm import tree as trees
from mountd.warm.pins import LIST, RECORD, PinRecord, PinUsage
from mountd.warm.plan import WantedFile
from mountd.warm.store_lock import GONE, StoreLock, entries, expected
from mountd.warm.tree import DamagedPin, PinInterrupted, is_file

MOST_RECORD_BYTES = 64 * 1024
SYNCS = 16
"""Files that are synced at once: a journal takes them together. Of 3,000 small ones on ext4 each waited 3.8 ms alone,
0.2 ms so."""
AT_ONCE = 1000
BLOCK = 512
"""Of `st_blocks`."""

Version = tuple[str, str]
"""The names of a model and of one of its versions."""


@dataclass(frozen=True, slots=True)
class SweptPins:
    """What went: trees, and how many objects of how many `bytes` together."""

    trees: tuple[Version, ...] = ()
    objects: int = 0
    bytes: int = 0


class PinStore:
    def __init__(self, place: Path) -> None:
        """Makes what is missing of it. Raises MountdError also when somebody else could exchange what lies there."""
        self.place = place
        self.incoming = place / "incoming"
        self._objects, self._trees, self._work = place / "objects", place / "trees", place / "work"
        self._lock = StoreLock(place / "lock", self._work)
        with expected(f"use {place} for pinned versions"):
            directories.make(place, trees.PASSABLE)
            for path in (place, self._objects, self._trees):
                trees.make_directory(path)
            for path in (self.incoming, self._work):
                trees.make_directory(path, 0o700)

    # -- objects ------------------------------------------------------------------------------------------------------

    def lacking(self, files: Iterable[WantedFile]) -> dict[str, int]:
        """The size in bytes of each object that is not here, by its sha256, in the order of the files.

        One of another size is not here either. Raises Refused for a file without sha256.
        """
        with expected("look for pinned files"):
            return {
                sha256: size for sha256, size in pins.needed(files).items() if not is_file(self._object(sha256), size)
            }

    def accept(self, sha256: str, size: int, *, rehash: bool = False) -> None:
        """`accept_all` for one."""
        self.accept_all({sha256: size}, rehash=rehash)

    def accept_all(
        self, complete: Mapping[str, int], *, rehash: bool = False, should_stop: Callable[[], bool] = lambda: False
    ) -> None:
        """Takes in `incoming/SHA256` of that size for each, and syncs it; what is here already stays.

        Whoever put it there has hashed it; with `rehash` that is done here. Raises Refused for one of another size or
        digest, which is removed; Unavailable when it is not there; PinInterrupted, with those before it taken in.
        """
        changed: set[Path] = set()
        left = iter(complete.items())
        with expected("take in a pinned file"), self._lock.changing(), ThreadPoolExecutor(SYNCS) as pool:
            try:
                while some := list(islice(left, AT_ONCE)):
                    synced = pool.map(partial(self._sync, should_stop if rehash else None), some)
                    for (sha256, size), _ in zip(some, synced, strict=True):
                        if should_stop():
                            raise PinInterrupted("cannot go on with pinned files: interrupted")
                        changed.add(self._keep(sha256, size))
            finally:
                for directory in changed:
                    sync(directory)

    def _sync(self, should_stop: Callable[[], bool] | None, brought: tuple[str, int]) -> None:
        """Checks a file that was brought, and brings it on disk; its bytes are hashed when there is a `should_stop`."""
        sha256, size = brought
        new = self.incoming / self._object(sha256).name
        fd = os.open(new, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            seen = os.fstat(fd)
            problem = "" if stat.S_ISREG(seen.st_mode) and seen.st_size == size else f"it does not have {size} bytes"
            if not problem and should_stop and trees.digest_of(fd, should_stop=should_stop) != sha256:
                problem = "its bytes have another sha256"
            if problem:
                os.unlink(new)
                raise Refused(f"cannot pin {sha256}: {problem}")
            if stat.S_IMODE(seen.st_mode) != trees.READABLE:
                os.fchmod(fd, trees.READABLE)
            os.fsync(fd)
        finally:
            os.close(fd)

    def _keep(self, sha256: str, size: int) -> Path:
        """Returns the directory that is to be synced."""
        kept, new = self._object(sha256), self.incoming / sha256
        if is_file(kept, size):
            os.unlink(new)
        else:
            if not kept.parent.exists():
                trees.make_directory(kept.parent)
                sync(self._objects)
            os.rename(new, kept)
        return kept.parent

    def resume(self, files: Iterable[WantedFile], should_stop: Callable[[], bool] = lambda: False) -> dict[str, int]:
        """Takes in what a killed run has left whole in `incoming`, and returns what is lacking then, as `lacking`.

        It is hashed here: it was not synced, and may have lost bytes with the machine. Raises PinInterrupted.
        """
        lacking = self.lacking(files)
        for sha256, size in lacking.items():
            if os.path.lexists(self.incoming / sha256):
                with contextlib.suppress(Refused):
                    self.accept_all({sha256: size}, rehash=True, should_stop=should_stop)
        return {sha256: size for sha256, size in lacking.items() if not is_file(self._object(sha256), size)}

    def drop(self, damaged: Collection[str]) -> None:
        """Removes objects that `verify` has found damaged: then they are lacking. Each tree keeps its own until `build`
        puts the new one in its place."""
        with expected("remove damaged pinned files"), self._lock.changing():
            for sha256 in damaged:
                with contextlib.suppress(*GONE):
                    os.unlink(self._object(sha256))

    def _object(self, sha256: str) -> Path:
        if not pins.SHA256.fullmatch(sha256):
            raise Refused(f"cannot pin {sha256!r}: that is no sha256")
        return self._objects / sha256[:2] / sha256

    # -- trees --------------------------------------------------------------------------------------------------------

    def tree(self, model: str, version: str) -> Path:
        """Where the files of a pinned version lie. Raises Refused for names that cannot be."""
        pins.check_names(model, version)
        return self._trees / model / version

    def version_of(self, path: str) -> Version | None:
        """Whose tree this path is; None for any other path."""
        model, _, version = path.removeprefix(f"{self._trees}/").partition("/")
        with contextlib.suppress(Refused):
            return (model, version) if str(self.tree(model, version)) == path else None
        return None

    def build(self, model: str, version: str, files: Iterable[WantedFile], *, digest: str) -> PinRecord:
        """The tree of a version whose objects are all here; `digest` is that of its manifest.

        In one that is complete already, what is missing or differs from its object is replaced, file by file, while
        the app may read it. Raises Refused for a version that is pinned with other files (the caller, who knows whether
        the app reads them, removes it first) and for a path that would leave the tree, Unavailable when an object is
        lacking.
        """
        wanted = pins.checked(files)
        lines = pins.listing(wanted)
        listed = hashlib.sha256(lines).hexdigest()
        tree, aside = self.tree(model, version), self._work / "file"
        with expected(f"pin {version}"), self._lock.changing():
            record = self.pinned(model, version)
            if record is not None and record.list_sha256 != listed:
                raise Refused(f"cannot pin {version} of {model}: it is pinned already, with other files")
            if record is not None:
                trees.fill(tree, wanted, self._object, aside)
            else:
                self._forget(model, version)
                trees.fill(self._work / "tree", wanted, self._object, aside)
                trees.make_directory(tree.parent)
                if os.path.lexists(tree):  # it does not count
                    os.rename(tree, self._work / "former")
                os.rename(self._work / "tree", tree)
                sync(tree.parent)
                sync(self._trees)
            self._write(tree.parent / pins.beside(version, LIST), lines)
            if record is None or record.digest != digest:
                record = PinRecord(digest, listed, sum(each.size for each in wanted), len(wanted), now_text())
                self._write(tree.parent / pins.beside(version, RECORD), pins.render_record(record))
            self._lock.empty_work()
        return record

    def _write(self, path: Path, content: bytes) -> None:
        new = self._work / "new"
        with open(new, "xb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        os.replace(new, path)
        sync(path.parent)

    def pinned(self, model: str, version: str) -> PinRecord | None:
        """The record of a complete tree; None when there is none. Its files are not looked at: see `verify`."""
        tree = self.tree(model, version)
        with expected(f"look whether {version} is pinned"), contextlib.suppress(*GONE):
            if stat.S_ISDIR(os.lstat(tree).st_mode):
                with open(tree.parent / pins.beside(version, RECORD), "rb") as file:
                    return pins.parse_record(file.read(MOST_RECORD_BYTES))
        return None

    def versions(self) -> dict[Version, PinRecord]:
        """The record of each complete tree."""
        with expected("list pinned versions"):
            found = {each: self.pinned(*each) for each in self._all_trees()}
        return {each: record for each, record in found.items() if record is not None}

    def files(self, model: str, version: str) -> Iterator[WantedFile]:
        """What is pinned of a version, by path; needs no bucket. Raises NotFound when it is not pinned, Refused when
        its list is damaged.

        The list is hashed, then read line by line: it may have 100,000.
        """
        record = self.pinned(model, version)
        if record is None:
            raise NotFound(f"cannot read the files of {version} of {model}: it is not pinned")
        path = self.tree(model, version).parent / pins.beside(version, LIST)
        with expected(f"read the list of {version}"), contextlib.suppress(ValueError, *GONE), open(path, "rb") as file:
            if trees.digest_of(file.fileno()) == record.list_sha256:
                yield from pins.parse_listing(file)
                return
        raise Refused(f"cannot read the list of pinned version {version}: it is damaged")

    def verify(
        self,
        model: str,
        version: str,
        progress: Callable[[int, int], None] = lambda _, __: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> list[DamagedPin]:
        """Hashes the files of a pinned version, each content once; returns those that are not what the list says.

        `progress` gets how many bytes of how many are done. Raises NotFound, Refused as `files`, PinInterrupted.
        """
        record = self.pinned(model, version)
        total, done = record.bytes if record is not None else 0, 0

        def count(more: int) -> None:
            nonlocal done
            done += more
            progress(done, total)

        with expected(f"verify {version}"):
            return trees.compare(self.tree(model, version), self.files(model, version), count, should_stop)

    def remove(self, model: str, version: str) -> None:
        """The tree of a version, if there is one; objects that nothing else uses go with the next `sweep`."""
        with expected(f"remove pinned version {version}"), self._lock.changing():
            self._remove(model, version)

    def _remove(self, model: str, version: str) -> None:
        tree = self.tree(model, version)
        self._forget(model, version)
        with contextlib.suppress(*GONE):
            os.rename(tree, self._work / "former")
            sync(tree.parent)
        self._lock.empty_work()
        with contextlib.suppress(OSError):  # it holds other versions, or was never made
            os.rmdir(tree.parent)

    def _forget(self, model: str, version: str) -> None:
        """The tree no longer counts, whatever becomes of the machine."""
        parent = self.tree(model, version).parent
        for kind in (RECORD, LIST):
            with contextlib.suppress(*GONE):
                os.unlink(parent / pins.beside(version, kind))
                sync(parent)

    # -- all of it ----------------------------------------------------------------------------------------------------

    def sweep(self, keep: Collection[Version], wanted: Collection[str] = ()) -> SweptPins:
        """Removes trees that are not in `keep`, objects without another link, and what is left in `incoming`.

        `wanted` are the sha256 of what is being fetched: their objects and incoming files stay. So does what mountd
        has not made, and an object with a link elsewhere: without it no byte would be free.
        """
        keep, wanted = frozenset(keep), frozenset(wanted)
        with expected("remove pinned files that nothing needs"), self._lock.changing():
            going = [each for each in self._all_trees() if each not in keep]
            for each in going:
                self._remove(*each)
            count = total = 0
            for name, seen in self._all_objects():
                if seen.st_nlink == 1 and name not in wanted:
                    os.unlink(self._object(name))
                    count, total = count + 1, total + seen.st_size
            for name, seen in entries(self.incoming):
                if name.partition(".")[0] not in wanted and not stat.S_ISDIR(seen.st_mode):
                    with contextlib.suppress(*GONE):
                        os.unlink(self.incoming / name)
        return SweptPins(tuple(going), count, total)

    def could_go(self, keep: Collection[Version], wanted: Collection[str] = ()) -> int:
        """How many bytes `sweep` would free, those of `incoming` not counted."""
        keep, wanted = frozenset(keep), frozenset(wanted)
        links: Counter[str] = Counter()
        # As a change: a tree that was not finished holds links to objects until the next one.
        with expected("look at pinned files"), self._lock.changing():
            for each in self._all_trees():
                if each not in keep:
                    with contextlib.suppress(NotFound, Refused):
                        links.update(str(file.sha256) for file in self.files(*each))
            return sum(
                seen.st_size
                for name, seen in self._all_objects()
                if name not in wanted and seen.st_nlink - 1 <= links[name]
            )

    def arrived(self, wanted: Collection[str] | None = None) -> int:
        """Bytes on disk of what is being fetched, or was left of that; of these sha256 only. Sizes are final from the
        start, so they say nothing."""
        with expected("look at pinned files"):
            return sum(
                BLOCK * seen.st_blocks
                for name, seen in entries(self.incoming)
                if wanted is None or name.partition(".")[0] in wanted
            )

    def usage(self) -> PinUsage:
        """What it holds, and the room on its disk."""
        with expected("look at pinned files"):
            count = total = 0
            for _, seen in self._all_objects():
                count, total = count + 1, total + seen.st_size
            disk = os.statvfs(self.place)
        free, whole = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
        return PinUsage(count, total, self.arrived(), free, whole, self.versions())

    def _all_trees(self) -> list[Version]:
        """Complete or not, also when only its record or list is there."""
        found: set[Version] = set()
        for model, above in entries(self._trees):
            if not (stat.S_ISDIR(above.st_mode) and names.NAME.fullmatch(model)):
                continue
            for name, seen in entries(self._trees / model):
                version = name if stat.S_ISDIR(seen.st_mode) else pins.version_beside(name)
                with contextlib.suppress(Refused):
                    pins.check_names(model, version or "")
                    found.add((model, version or ""))
        return sorted(found)

    def _all_objects(self) -> Iterator[tuple[str, os.stat_result]]:
        for directory, above in entries(self._objects):
            if stat.S_ISDIR(above.st_mode):
                for name, seen in entries(self._objects / directory):
                    if stat.S_ISREG(seen.st_mode) and pins.SHA256.fullmatch(name) and name[:2] == directory:
                        yield name, seen
