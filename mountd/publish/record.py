"""What a run that was interrupted leaves for the next: its id, digests of files, and what was sent. One a destination.

A file of JSON lines to which is only added, so that a run can be killed at any moment; `lock` keeps a second run on
this machine away, and rclone inherits it, so that one that outlived its run does so too.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

from mountd.errors import Busy, MountdError, cause_of
from mountd.process import directories

ID_BYTES = 6
LOCK_PATIENCE_S = 3.0
"""An rclone whose run was killed ends within this time."""
LOCK_POLL_S = 0.1


class FileIdentity(NamedTuple):
    """What changes when a file does: size in bytes, times in ns, inode."""

    size: int
    mtime_ns: int
    ctime_ns: int
    device: int
    inode: int

    @classmethod
    def of(cls, seen: os.stat_result) -> FileIdentity:
        return cls(seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_dev, seen.st_ino)


@dataclass(frozen=True, slots=True)
class FileHashes:
    stat: FileIdentity
    sha256: str
    md5: str


class Record:
    """Of one destination; use `open_record`."""

    def __init__(self, place: Path, root: str, lock: int) -> None:
        self.place = place
        self.lock = lock
        self.id = ""
        self.hashes: dict[str, FileHashes] = {}
        self.sent: dict[str, str] = {}
        """path → sha256 of what rclone said it has sent, under this id"""
        self._root = root
        self._file: IO[str] | None = None

    @property
    def private(self) -> Path:
        """A directory of this run alone, 0700; what a killed run left there is removed by the next."""
        return self.place / "private"

    def begin(self) -> None:
        """Reads what is there, and rewrites it without what is no longer of use. Raises OSError, MountdError."""
        self._read()
        self.id = self.id or secrets.token_hex(ID_BYTES)
        shutil.rmtree(self.private, ignore_errors=True)
        os.mkdir(self.private, 0o700)
        path = self.place / "record.jsonl"
        new = path.with_suffix(".new")
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            self._file = file
            self._add({"id": self.id, "root": self._root})
            for name, known in self.hashes.items():
                self.note_hash(name, known)
            for name, sha256 in self.sent.items():
                self.note_sent(name, sha256)
            file.flush()
            os.fsync(file.fileno())  # the id must outlast the machine, or its own marker becomes a stranger's
        os.replace(new, path)
        self._file = path.open("a", encoding="utf-8")

    def _read(self) -> None:
        with contextlib.suppress(OSError), (self.place / "record.jsonl").open(encoding="utf-8") as file:
            for line in file:
                try:
                    self._take(json.loads(line))
                except (ValueError, TypeError, KeyError):
                    continue  # the last line of a run that was killed

    def _take(self, entry: dict[str, Any]) -> None:
        match entry:
            case {"id": str(name), "root": root}:
                self.id = name
                self._same_root = root == self._root
            case {"hash": [str(path), [*stat], str(sha256), str(md5)]} if self._same_root:
                self.hashes[path] = FileHashes(FileIdentity(*stat), sha256, md5)
            case {"sent": [str(path), str(sha256)]}:
                self.sent[path] = sha256

    _same_root = False

    def note_hash(self, path: str, known: FileHashes) -> None:
        self.hashes[path] = known
        self._add({"hash": [path, list(known.stat), known.sha256, known.md5]})

    def note_sent(self, path: str, sha256: str) -> None:
        self.sent[path] = sha256
        self._add({"sent": [path, sha256]})

    def _add(self, entry: dict[str, object]) -> None:
        """Raises MountdError."""
        assert self._file is not None
        try:
            self._file.write(json.dumps(entry) + "\n")
            self._file.flush()
        except OSError as error:
            raise _cannot_keep(self.place, error) from None

    def forget(self) -> None:
        """The version is published, or nothing of it was begun."""
        shutil.rmtree(self.place, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.unlink(_lock_path(self.place))

    def close(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # it tries again to write what could not be written
                self._file.close()
        shutil.rmtree(self.private, ignore_errors=True)
        os.close(self.lock)


async def open_record(state: Path, destination: str, root: str) -> Record:
    """The record of what is published to `destination` from the directory `root`, locked until `Record.close`.

    Raises Busy when another run on this machine holds it, MountdError when it cannot be kept.
    """
    place = state / "publish" / hashlib.sha256(destination.encode()).hexdigest()[:16]
    try:
        directories.make(state, 0o755)  # not by the caller's umask: it is the daemon's, too
        directories.make(place.parent, 0o700)
        lock = await _lock(_lock_path(place), destination)
        record = Record(place, root, lock)
        try:
            os.makedirs(place, 0o700, exist_ok=True)
            record.begin()
        except BaseException:
            record.close()
            raise
    except OSError as error:
        raise _cannot_keep(place, error) from None
    return record


def _cannot_keep(place: Path, error: OSError) -> MountdError:
    return MountdError(
        f"cannot keep a record of what is sent in {place}: {cause_of(error)}",
        hint="it lies below `state` of the configuration: let this user write there, or free space",
    )


async def _lock(path: Path, destination: str) -> int:
    deadline = time.monotonic() + LOCK_PATIENCE_S
    while True:
        lock = directories.open_private(path)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(path, lock):  # its former holder may have removed it meanwhile
                return lock
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(lock)
                raise Busy(
                    f"cannot publish to {destination}: another run of `mountd publish` on this machine is at it",
                    hint="wait for its end; `pgrep -af 'mountd publish'` shows it",
                    holder="mountd publish",
                ) from None
        os.close(lock)
        await asyncio.sleep(LOCK_POLL_S)


def _lock_path(place: Path) -> Path:
    return place.with_suffix(".lock")


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
