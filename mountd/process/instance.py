"""What makes a daemon's own things its own: a short hash of its state directory, which marks mounts and children."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from mountd import container
from mountd.errors import Busy, MountdError, cause_of
from mountd.process import directories
from mountd.process.orphans import INSTANCE, NAME

log = structlog.get_logger()

PRIVATE_DIRECTORY = "private"
LOCK_NAME = "mountd.lock"
FORMER_NAME = "instances.json"
FORMER_KEPT = 8
MOUNTS_NAME = "mount-points.json"


@dataclass(frozen=True, slots=True)
class Instance:
    """One daemon on one state directory."""

    id: str
    state: Path
    runtime: Path

    @classmethod
    def of(cls, state: Path, runtime: Path) -> Instance:
        """By the identity of the state directory, not by its name: a container's /var/lib/mountd is another one."""
        try:
            found = os.stat(state)
            identity = f"{found.st_dev}:{found.st_ino}"
        except OSError:
            identity = os.path.abspath(state)  # not there yet: only for show
        return cls(hashlib.sha256(identity.encode()).hexdigest()[:8], state, runtime)

    @classmethod
    def create(cls, state: Path, runtime: Path) -> Instance:
        """With its directories. Raises MountdError, also when they are somebody else's."""
        private = runtime / PRIVATE_DIRECTORY
        for path in (runtime, private, state):
            try:
                if path is private:
                    directories.make_private(path)
                else:
                    directories.make(path, 0o755)
                    _warn_of_everybody(path)
            except OSError as error:
                hint = f"create it, writable by the user that runs mountd (uid {os.geteuid()}), or set another path"
                volume, lacking = ("mountd-state", state) if path is state else ("", runtime)
                hint = container.for_directory(lacking, error, volume=volume) or hint
                cause = cause_of(error)
                raise MountdError(f"cannot create the directory {path}: {cause}", hint=hint) from None
        return cls.of(state, runtime)

    @property
    def private(self) -> Path:
        """0700: rclone.conf, rc and notify sockets."""
        return self.runtime / PRIVATE_DIRECTORY

    def clear_private(self) -> None:
        """At the end, when no rclone is left that reads them: keys outlive neither mountd nor a start that failed."""
        with contextlib.suppress(OSError):
            for path in self.private.iterdir():
                if path.name not in (LOCK_NAME, FORMER_NAME):
                    with contextlib.suppress(OSError):
                        path.unlink()

    def former(self) -> list[str]:
        """Instances that were on this path and used this runtime directory before the state directory was made again.

        Under the lock on both nobody of them lives: what carries their mark is a leftover of ours.
        """
        known = _read_list(self.private / FORMER_NAME)
        prefix = f"{os.path.abspath(self.state)}\0"
        return [each.removeprefix(prefix) for each in known if each.startswith(prefix) and each != prefix + self.id]

    def remember(self, former: Iterable[str]) -> None:
        """For `former` of a later start; those of `former` that could not be cleared with it."""
        path = os.path.abspath(self.state)
        _write_list(self.private / FORMER_NAME, [f"{path}\0{each}" for each in (self.id, *former)][:FORMER_KEPT])

    def mount_points(self) -> frozenset[str]:
        """Where this instance may have mounted something since the last `keep_mount_points`."""
        return frozenset(_read_list(self._mount_points))

    def add_mount_point(self, path: str) -> None:
        """Before a mount is made there. Blocks, on the disk of the state directory."""
        known = self.mount_points()
        if path not in known:
            self.keep_mount_points(known | {path})

    def keep_mount_points(self, paths: Iterable[str]) -> None:
        _write_list(self._mount_points, sorted(paths))

    @property
    def _mount_points(self) -> Path:
        return self.state / PRIVATE_DIRECTORY / MOUNTS_NAME

    def marks(self, name: str) -> dict[str, str]:
        """By these a child is recognised after a crash of the daemon."""
        return {INSTANCE: self.id, NAME: name}

    def lock(self, socket: Path) -> tuple[int, ...]:
        """Takes the state and the runtime directory for the life of the process; the descriptors hold them.

        `socket` is where this daemon can be asked, for a second one to say. Raises Busy, naming the first.
        """
        held: list[int] = []
        try:
            for directory, path in ((self.state, self.state), (self.runtime, self.private)):
                held.append(_lock(path / LOCK_NAME, directory, socket))
        except BaseException:
            for fd in held:
                os.close(fd)
            raise
        return tuple(held)


def _lock(path: Path, directory: Path, socket: Path) -> int:
    try:
        fd = directories.open_private(path)
    except OSError as error:
        hint = container.for_directory(directory, error) or "make it writable by mountd's user"
        raise MountdError(f"cannot lock {path}: {cause_of(error)}", hint=hint) from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        written = ""
        with contextlib.suppress(OSError):
            written = os.pread(fd, 200, 0).decode(errors="replace")
        os.close(fd)
        pid, _, asked_at = written.strip().partition("\n")
        raise Busy(
            f"cannot start on {directory}: mountd already runs on it (pid {pid or 'unknown'})",
            hint=f"ask it: mountd --socket {asked_at or socket} status; or give this one a `state:` of its own",
            holder=f"pid {pid or 'unknown'}",
        ) from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n{socket}\n".encode(), 0)
    return fd


def _read_list(path: Path) -> list[str]:
    """Of a file that is not there, or was half written by another program, nothing."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []


def _write_list(path: Path, texts: Sequence[str]) -> None:
    new = path.with_name(f".{path.name}.new")
    try:
        directories.make_private(path.parent)
        fd = directories.open_private(new)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.truncate(0)
            json.dump(list(texts), file)
            file.flush()
            os.fsync(fd)
        os.replace(new, path)
    except (OSError, MountdError) as error:
        # Only a help for the next start.
        log.warning("cannot remember what is mountd's own", path=str(path), cause=str(error))


def _warn_of_everybody(path: Path) -> None:
    if directories.is_anybodys(path):
        hint = f"chmod o-w {path}, unless no other user can reach it, as in a container"
        log.warning("everybody may replace what lies in a directory of mountd", path=str(path), hint=hint)
