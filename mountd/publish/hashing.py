"""A local directory → its files, and their digests: read in parallel, and not again while they stay the same."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import stat
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from mountd.errors import MountdError, cause_of
from mountd.model import manifest
from mountd.publish.plan import File
from mountd.publish.record import FileHashes, FileIdentity, Record

BLOCK_BYTES = 1024 * 1024
TELL_S = 0.5
_BLOB = re.compile(r"(?:.*/)?(?:models|datasets|spaces)--[^/]+/blobs/[^/]+")
"""Of a Hugging Face cache: snapshots/REVISION/NAME is a link to ../../blobs/DIGEST."""
CHANGED_HINT = "let nothing write there, and run the same command again"


@dataclass(slots=True)
class Tree:
    """`files`: what is to be published; `left_out`: what is not, on purpose; `problems`: why it cannot be, in words."""

    root: str
    files: dict[str, FileIdentity] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    _linked: set[str] = field(default_factory=set)


def scan(directory: str) -> Tree:
    """Every file below `directory`, through links that stay inside it. Blocks; raises MountdError."""
    tree = Tree(os.path.realpath(directory))
    try:
        _scan(tree, "", (tree.root,))
    except OSError as error:
        raise MountdError(f"cannot read {error.filename}: {cause_of(error)}") from None
    for path in sorted(tree.files):
        blob = _BLOB.fullmatch(path) and os.path.realpath(os.path.join(tree.root, path)) in tree._linked
        if blob or path == manifest.NAME:
            del tree.files[path]
            tree.left_out.append(path)
    return tree


def _scan(tree: Tree, base: str, above: tuple[str, ...]) -> None:
    """`above`: the real paths of the directory at `base` and of those above it, so that a circle of links ends."""
    with os.scandir(os.path.join(tree.root, base)) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        if len(tree.files) + len(tree.problems) > manifest.MAX_FILES:
            tree.problems.append(f"there are more than {manifest.MAX_FILES} files")
            return
        path = f"{base}/{entry.name}" if base else entry.name
        real = os.path.realpath(entry.path) if entry.is_symlink() else f"{above[-1]}/{entry.name}"
        if entry.is_symlink():
            if real != tree.root and not real.startswith(f"{tree.root.rstrip('/')}/"):
                tree.problems.append(f"{path!r} is a link that leads out of the directory, to {real}")
                continue
            tree._linked.add(real)
        try:
            seen = entry.stat()
        except FileNotFoundError:
            tree.problems.append(f"{path!r} is a link to nothing" if entry.is_symlink() else f"{path!r} has gone away")
            continue
        if stat.S_ISDIR(seen.st_mode):
            if real in above:
                tree.problems.append(f"{path!r} is a link to a directory that it lies in")
            else:
                _scan(tree, path, (*above, real))
        elif stat.S_ISREG(seen.st_mode):
            tree.files[path] = FileIdentity.of(seen)
        else:
            tree.problems.append(f"{path!r} is no file: a socket, a pipe or a device")


async def digests(tree: Tree, record: Record, jobs: int, report: Callable[[int, int], None]) -> dict[str, File]:
    """Each file with its digests; `report` gets the bytes that are read, and the total.

    Raises MountdError for a file that cannot be read, or that changes meanwhile.
    """
    work: dict[FileIdentity, list[str]] = {}
    known: dict[str, FileHashes] = {}
    for path, seen in tree.files.items():
        before = record.hashes.get(path)
        if before is not None and before.stat == seen:
            known[path] = before
        else:
            work.setdefault(seen, []).append(path)  # several names of one file are read once
    total = sum(seen.size for seen in work)
    hasher = _Hasher()
    waiting: dict[asyncio.Future[FileHashes], FileIdentity] = {}
    with ThreadPoolExecutor(jobs, thread_name_prefix="hash") as pool:
        try:
            # The largest first, so that none of them is left for one thread at the end.
            for seen in sorted(work, key=lambda seen: -seen.size):
                task = pool.submit(hasher.read, os.path.join(tree.root, work[seen][0]), seen)
                waiting[asyncio.wrap_future(task)] = seen
            while waiting:
                done, _ = await asyncio.wait(waiting, timeout=TELL_S, return_when=asyncio.FIRST_COMPLETED)
                for future in done:
                    result = future.result()
                    for path in work[waiting.pop(future)]:
                        known[path] = result
                        record.note_hash(path, result)
                report(hasher.bytes, total)
        finally:
            hasher.stop.set()
            for future in waiting:  # what they end with now interests nobody
                if not future.cancel() and not future.cancelled():
                    future.exception()
            pool.shutdown(wait=False, cancel_futures=True)
    return {path: File(known[path].stat.size, known[path].sha256, known[path].md5) for path in sorted(known)}


class _Hasher:
    def __init__(self) -> None:
        self.stop = threading.Event()
        self.bytes = 0
        self._lock = threading.Lock()

    def read(self, path: str, seen: FileIdentity) -> FileHashes:
        sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
        try:
            with open(path, "rb") as file:
                while block := file.read(BLOCK_BYTES):
                    if self.stop.is_set():
                        raise MountdError("cannot go on: interrupted")
                    sha256.update(block)
                    md5.update(block)
                    with self._lock:
                        self.bytes += len(block)
                now = FileIdentity.of(os.fstat(file.fileno()))
        except OSError as error:
            raise MountdError(f"cannot read {path}: {cause_of(error)}") from None
        if now != seen:
            raise MountdError(f"cannot publish {path}: it changed while it was read", hint=CHANGED_HINT)
        return FileHashes(seen, sha256.hexdigest(), md5.hexdigest())


def changed(root: str, files: Mapping[str, FileIdentity]) -> Iterable[str]:
    """Paths of files that are no longer as they were when they were hashed. Blocks."""
    for path, seen in files.items():
        try:
            now = FileIdentity.of(os.stat(os.path.join(root, path)))
        except OSError:
            yield path
            continue
        if now != seen:
            yield path
