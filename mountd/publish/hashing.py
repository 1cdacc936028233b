"""A local directory → its files, and their digests: read in parallel, and not again while they stay the same."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import stat
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from mountd.errors import MountdError, cause_of
from mountd.model import manifest
from mountd.publish.plan import File
from mountd.publish.record import FileHashes, FileIdentity, Record

BLOCK_BYTES = 1024 * 1024
REPORT_S = 0.5
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
    if len(tree.files) > manifest.MAX_FILES:
        tree.problems.append(_too_many())
    return tree


def _scan(tree: Tree, base: str, above: tuple[str, ...]) -> None:
    """`above`: the real paths of the directory at `base` and of those above it, so that a circle of links ends."""
    with os.scandir(os.path.join(tree.root, base)) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        if len(tree.files) + len(tree.problems) > manifest.MAX_FILES:
            tree.problems.append(_too_many())
            return
        path = f"{base}/{entry.name}" if base else entry.name
        real = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(above[-1], entry.name)
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
            tree.files[path] = FileIdentity.of(real, seen)
        else:
            tree.problems.append(f"{path!r} is no file: a socket, a pipe or a device")


def _too_many() -> str:
    return f"there are more than {manifest.MAX_FILES} files"


async def digests(tree: Tree, record: Record, jobs: int, report: Callable[[int, int], None]) -> dict[str, File]:
    """Each file with its digests; `report` gets how many bytes of how many are read.

    rclone hashes as well, but one kind a pass, without progress, and it keeps nothing for the next run that a change
    with the old mtime would make void. Raises MountdError for a file that cannot be read, or that changes meanwhile.
    """
    unread = {seen for seen in tree.files.values() if seen not in record.digests}  # a file with several names once
    total = sum(seen.size for seen in unread)
    done = dict.fromkeys(unread, 0)
    stop = threading.Event()
    with ThreadPoolExecutor(jobs, thread_name_prefix="hash") as pool:
        tasks = [  # the largest first, so that none of them is left for one thread at the end
            asyncio.wrap_future(pool.submit(_read, seen, done, stop)) for seen in sorted(unread, reverse=True)
        ]
        waiting = set(tasks)
        try:
            while waiting:
                read, waiting = await asyncio.wait(waiting, timeout=REPORT_S, return_when=asyncio.FIRST_EXCEPTION)
                for task in read:
                    record.note_digests(*task.result())
                report(sum(done.values()), total)
        finally:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            await asyncio.gather(*tasks, return_exceptions=True)
    return {path: File(seen.size, *record.digests[seen]) for path, seen in sorted(tree.files.items())}


def _read(seen: FileIdentity, done: dict[FileIdentity, int], stop: threading.Event) -> tuple[FileIdentity, FileHashes]:
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    try:
        with open(seen.path, "rb") as file:
            while block := file.read(BLOCK_BYTES):
                if stop.is_set():
                    raise MountdError("cannot go on: interrupted")
                sha256.update(block)
                md5.update(block)
                done[seen] += len(block)
            now = FileIdentity.of(seen.path, os.fstat(file.fileno()))
    except OSError as error:
        raise MountdError(f"cannot read {seen.path}: {cause_of(error)}") from None
    if now != seen:
        raise MountdError(f"cannot publish {seen.path}: it changed while it was read", hint=CHANGED_HINT)
    return seen, FileHashes(sha256.hexdigest(), md5.hexdigest())


def unchanged(tree: Tree, path: str) -> bool:
    """Whether the file is still as it was when it was hashed. Blocks."""
    try:
        real = os.path.realpath(os.path.join(tree.root, path))
        return FileIdentity.of(real, os.stat(real)) == tree.files[path]
    except OSError:
        return False
