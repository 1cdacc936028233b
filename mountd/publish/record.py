"""What an interrupted run leaves for the next: its id, digests of files, and what it sent. One record a destination.

JSON lines that are only appended, so that a run can be killed at any moment. `lock` keeps a second run on this machine
away; each rclone inherits it, so that one that outlives its run does so too.
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
from pathlib import Path
from typing import Any, NamedTuple

from mountd.errors import Busy, MountdError, cause_of
from mountd.process import directories

ID_BYTES = 6
LOCK_PATIENCE_S = 3.0
"""An rclone whose run was killed stops within this time."""
LOCK_POLL_S = 0.1


class FileIdentity(NamedTuple):
    """Size in bytes, times in ns. Each change of a file's content changes it: nobody can set a ctime.

    With the path, for a file system may give another file the same inode after it was mounted again.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    device: int
    inode: int
    path: str
    """absolute, without links"""

    @classmethod
    def of(cls, path: str, seen: os.stat_result) -> FileIdentity:
        return cls(seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_dev, seen.st_ino, path)


class FileHashes(NamedTuple):
    """Of a file's content, in hex."""

    sha256: str
    md5: str


class Record:
    """Of one destination; use `open_record`."""

    def __init__(self, place: Path, lock: int) -> None:
        """Raises OSError, MountdError."""
        self.place = place
        self.lock = lock
        self.private = place / "private"
        """A directory of this run alone, 0700; the next run removes what a killed run left there."""
        self.id = ""
        self.digests: dict[FileIdentity, FileHashes] = {}
        self.sent: dict[str, str] = {}
        """path → sha256 of what rclone sent under this id"""
        shutil.rmtree(self.private, ignore_errors=True)
        os.mkdir(self.private, 0o700)
        self._file = directories.open_private(place / "record.jsonl")
        for line in (place / "record.jsonl").read_bytes().splitlines():
            with contextlib.suppress(ValueError, TypeError):  # the last line of a run that was killed
                self._take(json.loads(line))
        os.lseek(self._file, 0, os.SEEK_END)
        if not self.id:
            self.id = secrets.token_hex(ID_BYTES)
            self._add({"id": self.id})
            os.fsync(self._file)  # after a power failure this run's own marker must not look like somebody else's

    def _take(self, entry: Any) -> None:
        match entry:
            case {"id": str(name)}:
                self.id = name
            case {"hash": [[*stat], str(sha256), str(md5)]}:
                self.digests[FileIdentity(*stat)] = FileHashes(sha256, md5)
            case {"sent": [str(path), str(sha256)]}:
                self.sent[path] = sha256

    def note_digests(self, seen: FileIdentity, digests: FileHashes) -> None:
        self.digests[seen] = digests
        self._add({"hash": [seen, *digests]})

    def note_sent(self, path: str, sha256: str) -> None:
        self.sent[path] = sha256
        self._add({"sent": [path, sha256]})

    def _add(self, entry: dict[str, object]) -> None:
        """Raises MountdError."""
        # The line end comes first: the line before may be a part of one, which a killed run left.
        data = b"\n" + json.dumps(entry).encode()
        try:
            while data:
                data = data[os.write(self._file, data) :]
        except OSError as error:
            raise _cannot_keep(self.place, error) from None

    def forget(self) -> None:
        """The version is published, or nothing of it was begun."""
        shutil.rmtree(self.place, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.unlink(_lock_path(self.place))

    def close(self) -> None:
        os.close(self._file)
        shutil.rmtree(self.private, ignore_errors=True)
        os.close(self.lock)


async def open_record(state: Path, destination: str) -> Record:
    """The record of what is published to `destination`, locked until `Record.close`.

    Raises Busy when another run on this machine holds it, MountdError when it cannot be kept.
    """
    place = state / "publish" / hashlib.sha256(destination.encode()).hexdigest()[:16]
    try:
        directories.make(state, 0o755)  # not by the caller's umask: it is the daemon's, too
        directories.make(place.parent, 0o700)
        lock = await _lock(_lock_path(place), destination)
        try:
            directories.make(place, 0o700)
            return Record(place, lock)
        except BaseException:
            os.close(lock)
            raise
    except OSError as error:
        raise _cannot_keep(place, error) from None


def _cannot_keep(place: Path, error: OSError) -> MountdError:
    return MountdError(
        f"cannot keep a record of what is sent in {place}: {cause_of(error)}",
        hint="it lies below `state` of the configuration: let this user write there, or free space",
    )


def _lock_path(place: Path) -> Path:
    return place.with_suffix(".lock")


async def _lock(path: Path, destination: str) -> int:
    deadline = time.monotonic() + LOCK_PATIENCE_S
    while True:
        lock = directories.open_private(path)
        with contextlib.suppress(BlockingIOError, FileNotFoundError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.stat(path), os.fstat(lock)):  # its previous holder may have removed it meanwhile
                return lock
        os.close(lock)
        if time.monotonic() > deadline:
            raise Busy(
                f"cannot publish to {destination}: another run of `mountd publish` on this machine is at it",
                hint="wait until it stops; `pgrep -af 'mountd publish'` shows it",
                holder="mountd publish",
            )
        await asyncio.sleep(LOCK_POLL_S)
