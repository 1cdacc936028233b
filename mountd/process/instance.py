"""What makes a daemon's own things its own: the short hash of its state directory, which marks mounts and children."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mountd.errors import Busy, MountdError
from mountd.process.orphans import INSTANCE, NAME

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


@dataclass(frozen=True, slots=True)
class Instance:
    """One daemon on one state directory."""

    id: str
    state: Path
    runtime: Path

    @classmethod
    def of(cls, state: Path, runtime: Path) -> Instance:
        return cls(hashlib.sha256(os.path.abspath(state).encode()).hexdigest()[:8], state, runtime)

    @property
    def private(self) -> Path:
        """0700: rclone.conf, rc and notify sockets."""
        return self.runtime / "private"

    def marks(self, name: str) -> dict[str, str]:
        """By these a child is recognised after a crash of the daemon."""
        return {INSTANCE: self.id, NAME: name}

    def create_directories(self) -> None:
        """Raises MountdError."""
        for path, mode in ((self.state, 0o755), (self.runtime, 0o755), (self.private, 0o700)):
            try:
                os.makedirs(path, mode=mode, exist_ok=True)
                if path == self.private:
                    os.chmod(path, mode)
            except OSError as error:
                hint = f"create it, writable by the user that runs mountd (uid {os.geteuid()}), or set another path"
                cause = (error.strerror or str(error)).lower()
                raise MountdError(f"cannot create the directory {path}: {cause}", hint=hint) from None

    def lock(self) -> int:
        """Takes the state directory for the life of the process; the descriptor holds it. Raises Busy."""
        path = self.state / "mountd.lock"
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            cause = (error.strerror or str(error)).lower()
            raise MountdError(f"cannot lock {path}: {cause}", hint="make it writable by mountd's user") from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = ""
            with contextlib.suppress(OSError):
                holder = os.pread(fd, 100, 0).decode(errors="replace").strip()
            os.close(fd)
            raise Busy(
                f"cannot start on {self.state}: mountd already runs on it (pid {holder or 'unknown'})",
                hint=f"ask it: mountd --socket {self.runtime}/mountd.sock status; or give this one another `state:`",
                holder=f"pid {holder}",
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        return fd


def without_private(environment: Mapping[str, str], also: tuple[str, ...] = ()) -> dict[str, str]:
    """The environment as a child may see it: without what is the daemon's alone, and without `also`."""
    return {key: value for key, value in environment.items() if not key.startswith(PRIVATE) and key not in also}
