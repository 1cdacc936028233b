"""What makes a daemon's own things its own: a short hash of its state directory, which marks mounts and children."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from mountd.errors import Busy, MountdError
from mountd.process import directories
from mountd.process.orphans import INSTANCE, NAME

log = structlog.get_logger()

# What concerns the daemon alone: a child that had these would talk to systemd in the daemon's name, take its sockets,
# or read its credentials.
PRIVATE = (
    "NOTIFY_SOCKET",
    "LISTEN_",
    "WATCHDOG_",
    "CREDENTIALS_DIRECTORY",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "MAINPID",
)

PRIVATE_DIRECTORY = "private"


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
                cause = (error.strerror or str(error)).lower()
                raise MountdError(f"cannot create the directory {path}: {cause}", hint=hint) from None
        return cls.of(state, runtime)

    @property
    def private(self) -> Path:
        """0700: rclone.conf, rc and notify sockets."""
        return self.runtime / PRIVATE_DIRECTORY

    def marks(self, name: str) -> dict[str, str]:
        """By these a child is recognised after a crash of the daemon."""
        return {INSTANCE: self.id, NAME: name}

    def lock(self, socket: Path) -> int:
        """Takes the state directory for the life of the process; the descriptor holds it.

        `socket` is where this daemon can be asked, for a second one to say. Raises Busy, naming the first.
        """
        path = self.state / "mountd.lock"
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            cause = (error.strerror or str(error)).lower()
            raise MountdError(f"cannot lock {path}: {cause}", hint="make it writable by mountd's user") from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            written = ""
            with contextlib.suppress(OSError):
                written = os.pread(fd, 200, 0).decode(errors="replace")
            os.close(fd)
            pid, _, asked_at = written.strip().partition("\n")
            raise Busy(
                f"cannot start on {self.state}: mountd already runs on it (pid {pid or 'unknown'})",
                hint=f"ask it: mountd --socket {asked_at or socket} status; or give this one a `state:` of its own",
                holder=f"pid {pid or 'unknown'}",
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n{socket}\n".encode(), 0)
        return fd


def _warn_of_everybody(path: Path) -> None:
    if directories.is_anybodys(path):
        hint = f"chmod o-w {path}, unless no other user can reach it, as in a container"
        log.warning("everybody may replace what lies in a directory of mountd", path=str(path), hint=hint)


def without_private(environment: Mapping[str, str], also: tuple[str, ...] = ()) -> dict[str, str]:
    """The environment as a child may see it: without what is the daemon's alone, and without `also`."""
    return {key: value for key, value in environment.items() if not key.startswith(PRIVATE) and key not in also}
