"""What goes wrong on a machine: small, full and read-only disks, stopped processes, mounts taken away by somebody."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from tests.support.wait import until

TIMEOUT_S = 60.0


class Tmpfs:
    """A disk of `mib` MiB at `path` (made when missing) from now on until the end of a `with`; needs root."""

    def __init__(self, path: Path, mib: int) -> None:
        self.path, self._mib = path, mib
        self._filler = path / ".filler"

    def __enter__(self) -> Self:
        self.path.mkdir(parents=True, exist_ok=True)
        _run("mount", "-t", "tmpfs", "-o", f"size={self._mib}m", "mountd-test", str(self.path))
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        if _is_mounted(self.path):  # a test may have unmounted it
            _run("umount", "-l", str(self.path))

    @property
    def free_bytes(self) -> int:
        room = os.statvfs(self.path)
        return room.f_bavail * room.f_frsize

    def fill(self, leave_bytes: int = 0) -> None:
        """Take all but `leave_bytes` of what is free; what frees itself later is not taken.

        Raises AssertionError when it is not done after 20 s.
        """
        descriptor = os.open(self._filler, os.O_RDWR | os.O_CREAT, 0o600)

        def is_full() -> bool:
            """Raises OSError when somebody else has just taken some of it."""
            if (size := self.free_bytes - leave_bytes) > 0:
                os.posix_fallocate(descriptor, os.fstat(descriptor).st_size, size)
            return size <= 0

        try:
            until(is_full, TIMEOUT_S, f"{self.path} to be full", every_s=0.01)
        finally:
            os.close(descriptor)

    def empty(self) -> None:
        """Give back what `fill` took."""
        self._filler.unlink(missing_ok=True)

    def remount_read_only(self) -> None:
        """Waits while files are open for writing, for then the kernel refuses.

        Raises AssertionError when they still are after 20 s.
        """
        until(lambda: self._remount("ro"), TIMEOUT_S, f"no file to be open for writing on {self.path}", every_s=0.1)

    def remount_writable(self) -> None:
        self._remount("rw")

    def _remount(self, mode: str) -> bool:
        _run("mount", "-o", f"remount,{mode}", str(self.path))
        return True


def replace_link_by_directory(link: Path, file: str, text: str) -> None:
    """A directory that holds `file` where a link of mountd's was, who may put it right before the directory is made."""

    def is_placed() -> bool:
        link.unlink(missing_ok=True)
        link.mkdir()  # raises FileExistsError where mountd was faster
        return True

    until(is_placed, TIMEOUT_S, f"a directory at {link}", every_s=0.001)
    (link / file).write_text(text)


@contextlib.contextmanager
def read_only(path: Path) -> Iterator[None]:
    """For processes that open something there within the `with`; what is open for writing stays so. Needs root.

    It is made read-only aside, where nobody can open anything in between: then the kernel would refuse.
    """
    aside = path.with_name(f"{path.name}.aside")
    aside.mkdir()
    with contextlib.ExitStack() as mounted:
        mounted.callback(aside.rmdir)
        _run("mount", "--bind", str(path), str(aside))
        mounted.callback(_run, "umount", "-l", str(aside))
        _run("mount", "-o", "remount,bind,ro", str(aside))
        _run("mount", "--bind", str(aside), str(path))
        mounted.callback(_run, "umount", "-l", str(path))
        yield


class Stopped:
    """A process that hangs (SIGSTOP) from now on until `resume` or the end of a `with`, also when the test fails."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._pidfd = -1

    def __enter__(self) -> Self:
        self._pidfd = os.pidfd_open(self.pid)  # the number may be another process's by the time it is resumed
        try:
            signal.pidfd_send_signal(self._pidfd, signal.SIGSTOP)
            until(lambda: state(self.pid) == "T", TIMEOUT_S, f"process {self.pid} to stop")
        except BaseException:
            self.resume()
            raise
        return self

    def resume(self) -> None:
        """Let it go on, if it lives; once more is fine."""
        pidfd, self._pidfd = self._pidfd, -1
        if pidfd < 0:
            return
        try:
            signal.pidfd_send_signal(pidfd, signal.SIGCONT)
        except ProcessLookupError:
            pass  # the one that found it hung has killed it
        finally:
            os.close(pidfd)

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.resume()


def state(pid: int) -> str:
    """The kernel's letter: R runs, S sleeps, D cannot be interrupted, T stopped, Z zombie; "" if it is gone."""
    try:
        return _stat(pid)[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def children(pid: int, *, all_below: bool = False) -> list[int]:
    """The living children of a process, in order of their numbers; `all_below` adds their children and so on."""
    parents: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                letter, parent, *_ = _stat(int(entry))
            except (FileNotFoundError, ProcessLookupError):
                continue
            if letter not in "ZX":
                parents.setdefault(int(parent), []).append(int(entry))
    found, ahead = [], list(parents.get(pid, ()))
    while ahead:
        child = ahead.pop()
        found.append(child)
        if all_below:
            ahead += parents.get(child, ())
    return sorted(found)


def name(pid: int) -> str:
    """What the kernel calls the program, its first 15 bytes; "" if gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().rstrip("\n")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def external_unmount(path: Path, how: Literal["fusermount3", "umount"]) -> None:
    """Take a mount away as somebody on the machine would: `fusermount3 -uz` or `umount -l`.

    Raises RuntimeError when that fails.
    """
    command = {"fusermount3": ("fusermount3", "-uz"), "umount": ("umount", "-l")}[how]
    _run(*command, str(path))


def _stat(pid: int) -> list[str]:
    """What follows the program's name, which may hold anything: state, parent, …"""
    return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()


def _is_mounted(path: Path) -> bool:
    """From the table: the path itself may hang."""
    with open("/proc/self/mountinfo", errors="surrogateescape") as table:
        points = [line.split()[4] for line in table]
    return str(path.absolute()).replace(" ", r"\040") in points


def _run(*argv: str) -> None:
    done = subprocess.run(argv, check=False, timeout=TIMEOUT_S, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip()}")
