"""Takes away a mount of mountd's own that no longer serves, without ever touching what is mounted.

Seen with strace on Linux 6.18 with rclone stopped (SIGSTOP) and killed, fuse 3.14 and util-linux 2.38:

- `fusermount3 -u -z` changes into the parent directory and calls umount2 with UMOUNT_NOFOLLOW: no stat, no hang;
- `umount -c -l` calls umount2 at once; plain `umount` stats the mount point and hangs forever on a stopped rclone.

Both run in a child that is killed at its deadline, because the parent directory may lie on a mount that hangs, too.
Where no child can be started any more, root detaches the mount by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

from mountd.errors import Bug, CommandTimeout, Exhausted, MountdError, Unavailable, cause_of
from mountd.fuse import table
from mountd.fuse.watch import read_table
from mountd.process import tool
from mountd.process.orphans import kill

FUSE_CONNECTIONS = "/sys/fs/fuse/connections"
FUSE_DEVICE = "/dev/fuse"
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8
ABORT_LIMIT_S = 1.0
SHORTEST_TRY_S = 2.0
FIRST_DELAY_S, LONGEST_DELAY_S = 0.05, 0.5


@dataclass(frozen=True, slots=True)
class Cleared:
    """How many mounts were taken away; `killed` are the processes that held a connection that could not be aborted."""

    unmounted: int
    killed: tuple[int, ...] = ()


async def unmount(mount_point: str, *, timeout_s: float) -> None:
    """Unmounts the topmost mount there, lazily: it is detached at once and goes with its last user.

    Raises Unavailable. Does not ask whose mount it is: `clear` does.
    """
    commands = list(_unmount_commands(mount_point))
    if not commands:
        raise Unavailable(f"cannot unmount {mount_point}: no fusermount3 found", hint="install the package fuse3")
    deadline = asyncio.get_running_loop().time() + timeout_s
    cause = ""
    for command in commands:
        left_s = deadline - asyncio.get_running_loop().time()
        try:
            code, said = await _run(command, max(left_s, 0))
        except Exhausted as error:
            if os.geteuid() != 0:
                raise Unavailable(f"cannot unmount {mount_point}: {error.text}", hint=error.hint) from None
            return await _detach(mount_point, max(left_s, SHORTEST_TRY_S))
        except Unavailable as error:
            cause = cause or error.text
            continue
        if code == 0:
            return None
        if code is None:
            raise Unavailable(
                f"cannot unmount {mount_point}: {os.path.basename(command[0])} did not finish in time",
                hint="see whether the directory above the mount point lies on a mount that hangs",
            )
        cause = cause or said or f"exit code {code}"
    raise _refused(mount_point, cause)


def _refused(mount_point: str, cause: str) -> Unavailable:
    return Unavailable(f"cannot unmount {mount_point}: {cause}", hint="see whether mountd may unmount there")


def _unmount_commands(mount_point: str) -> Iterator[list[str]]:
    for name in ("fusermount3", "fusermount"):
        if program := shutil.which(name):
            yield [program, "-u", "-z", "--", mount_point]
            break
    program = shutil.which("umount")
    if program and os.geteuid() == 0:  # for others it does what fusermount3 has already refused
        # -c: it must not canonicalize, and so stat, the path; -i: run no helper, which might.
        yield [program, "-c", "-i", "-l", "--", mount_point]


async def clear(mount_point: str, source: str, *, timeout_s: float) -> Cleared:
    """Takes every mount of `source` (see table.devname) away from this mount point; nothing to do is a success.

    The caller has killed rclone before. Then, for each mount from the topmost down: abort its FUSE connection, which
    frees processes stuck in it, and unmount lazily; until mountinfo shows none. It is aborted where fusectl is
    mounted; elsewhere each process that still holds its other end is killed.
    Raises Unavailable when that is not so after `timeout_s` seconds, or when another file system lies on top.
    """
    if not source.startswith(f"{table.DEVNAME_PREFIX}:"):
        raise Bug(f"cannot clear {mount_point}: {source!r} is not the name of a mount of mountd")
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    delay_s, unmounted, killed = FIRST_DELAY_S, 0, list[int]()
    while True:
        entries = read_table()
        mine = table.of_source(entries, source, mount_point)
        if not mine:
            return Cleared(unmounted, tuple(killed))
        top = table.at(entries, mount_point)
        if top not in mine:
            what = f"{top.source} ({top.fs_type})" if top else "something"
            raise Unavailable(
                f"cannot unmount {mount_point}: {what} is mounted on top of it", hint="unmount that first, by hand"
            )
        if not await abort(top.minor):
            killed += await asyncio.to_thread(_kill_holders, top.minor)
        try:
            # The last try too gets time enough to say why it failed.
            await unmount(mount_point, timeout_s=max(deadline - loop.time(), SHORTEST_TRY_S))
            unmounted += 1
        except Unavailable:
            # Another program that unmounts it meanwhile makes this fail and the next look at the table succeed.
            if loop.time() + delay_s >= deadline:
                if table.of_source(read_table(), source, mount_point):
                    raise
                return Cleared(unmounted, tuple(killed))
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, LONGEST_DELAY_S)


async def abort(minor: int) -> bool:
    """Ends a FUSE connection: all who wait for it get an error at once, killable or not. False where it cannot be done.

    `minor` is the device's, from mountinfo (asking the mount point itself could hang). Usual reasons for False:
    fusectl is not mounted, as in most containers, or the connection belongs to another user.
    """
    switch = f"{FUSE_CONNECTIONS}/{minor}/abort"
    if not os.access(switch, os.W_OK):  # of sysfs and fusectl, never of a mount of ours
        return False
    # The kernel takes the lock that is also held while a FUSE file system is being mounted: so in a child as well.
    try:
        code, _ = await _run(["/bin/sh", "-c", 'echo 1 >"$1"', "sh", switch], ABORT_LIMIT_S)
    except Unavailable:
        return False
    return code == 0


def holders(minor: int) -> tuple[int, ...]:
    """Processes that hold the server's end of this FUSE connection, rclone itself included.

    While one lives the connection does, and those stuck in it stay so: where `abort` cannot be used, kill these. Needs
    a kernel that shows the connection in fdinfo (6.18 does); on one that does not, and for other users' processes, the
    answer is empty. Reads only /proc; about 3 ms for each 100 processes.
    """
    return tuple(sorted(pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _holds(pid, minor)))


def _kill_holders(minor: int) -> list[int]:
    """Kills whom `holders` names, but never mountd itself."""
    killed = []
    for pid in holders(minor):
        with contextlib.suppress(OSError):  # it has exited
            if pid != os.getpid() and kill(pid, lambda pid: _holds(pid, minor)):
                killed.append(pid)
    return killed


def _holds(pid: int, minor: int) -> bool:
    try:
        numbers = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return False  # gone meanwhile, or not ours to look into
    return any(_is_connection(pid, number, minor) for number in numbers)


def _is_connection(pid: int, number: str, minor: int) -> bool:
    try:
        if os.readlink(f"/proc/{pid}/fd/{number}") != FUSE_DEVICE:
            return False
        with open(f"/proc/{pid}/fdinfo/{number}", encoding="ascii") as lines:
            return any(line.split() == ["fuse_connection:", str(minor)] for line in lines)
    except OSError:
        return False  # closed meanwhile, which says nothing of the others


async def _detach(mount_point: str, timeout_s: float) -> None:
    """Without a child; the thread that does it may be stuck where a child could be killed. Raises Unavailable."""

    def work() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.umount2(os.fsencode(mount_point), MNT_DETACH | UMOUNT_NOFOLLOW) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    try:
        async with asyncio.timeout(timeout_s):
            await asyncio.to_thread(work)
    except OSError as error:  # a TimeoutError among them
        raise _refused(mount_point, cause_of(error)) from None


async def _run(command: list[str], timeout_s: float) -> tuple[int | None, str]:
    """A child's exit code and the last line of what it said; the code is None when it did not finish in time.

    Raises Exhausted when there can be no child.
    """
    try:
        outcome = await tool.run(command, timeout_s=timeout_s)
    except CommandTimeout:
        return None, ""
    lines = outcome.output.strip().splitlines()
    return outcome.code, lines[-1] if lines else ""


async def unanswered(minor: int | None, timeout_s: float) -> int | None:
    """How many requests of the kernel the FUSE server of this device number has not answered yet.

    None where fusectl is not mounted, as in containers.
    """
    path = f"{FUSE_CONNECTIONS}/{minor}/waiting"
    if minor is None or not os.access(path, os.R_OK):
        return None
    # In a child: the kernel takes a lock that is also held while a FUSE file system is being mounted.
    with contextlib.suppress(MountdError, ValueError):
        return int((await tool.run(["cat", path], timeout_s=timeout_s)).output)
    return None
