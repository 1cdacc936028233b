"""What `doctor` checks that shows only in production: disks that fill up together, limits of the kernel, shared users.

Reads /proc; files are only made beside a cache, by a child with a deadline that removes them.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mountd.cli.examine import Check
from mountd.cli.render import nearest
from mountd.errors import MountdError
from mountd.i18n import M_
from mountd.process import tool
from mountd.settings.schema import Settings
from mountd.status.snapshot import size

TRY_S = 10.0
SPARSE_BYTES = 16 * 1024 * 1024
# Prints the bytes that the file takes on disk, and where its first hole begins.
_TRY_SPARSE = """
import json, os, sys, tempfile
with tempfile.TemporaryFile(dir=sys.argv[1], prefix=".mountd-doctor-") as file:
    size = int(sys.argv[2])
    os.pwrite(file.fileno(), b"x" * 4096, size - 4096)
    os.fsync(file.fileno())
    try:
        hole = os.lseek(file.fileno(), 0, os.SEEK_HOLE)
    except OSError:
        hole = size
    print(json.dumps([os.fstat(file.fileno()).st_blocks * 512, hole]))
"""
FREE_INSTANCES, FREE_WATCHES = 8, 512
"""What mountd may need: for its configuration, its links, and each directory of a version that an app opens."""
DESCRIPTORS = 4096
"""rclone has one for each connection and each open file of the cache."""
STATE_BYTES = 256 * 1024 * 1024
"""For the journal, the evidence of 20 incidents, and rclone's tokens."""
LEAST_MEMORY = 256 * 1024 * 1024
LEAST_ENTROPY = 64
"""Bits; below it a start may wait for random numbers. Kernels since 5.6 do not."""
MOUNTS_OF_USERS = 1000
"""mount_max of fuse.conf where it is not set."""


async def checks(settings: Settings) -> list[Check]:
    found = [*disks(settings), *await sparse(settings), *users(settings)]
    return [*found, *inotify(), descriptors(), *memory(), *entropy(), *fuse_conf(os.geteuid())]


# -- disks ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Claims:
    """What may come to lie on one file system, in bytes. `unlimited`: caches without max_size."""

    total: int
    caches: Mapping[str, int]
    unlimited: tuple[str, ...]
    keep: int
    pinned: int
    places: tuple[str, ...]


def disks(settings: Settings) -> Iterator[Check]:
    """A line for each file system with caches or pinned versions; and one for the state directory's."""
    for claims in _claims(settings):
        yield arithmetic(claims)
    usage = os.statvfs(nearest(settings.state))
    free = usage.f_bavail * usage.f_frsize
    where, text = M_("disk of state"), M_("{place}: {size} free", place=settings.state, size=size(free))
    if free < STATE_BYTES:
        hint = M_(
            "keep {size} there, or set `state` to a larger disk: without room nothing is journaled",
            size=size(STATE_BYTES),
        )
        yield Check(where, "warn", text, hint)
    else:
        yield Check(where, "ok", text)


def arithmetic(claims: Claims) -> Check:
    """Whether caches, pinned versions and what is to stay free fit together on one file system."""
    names = claims.places[0]
    for each in claims.places[1:]:
        names = M_("{names}, {other}", names=names, other=each)
    where = M_("disk of {name}", name=names)
    limits = sum(claims.caches.values())
    text = M_("{size} kept free, of {total}", size=size(claims.keep), total=size(claims.total))
    if claims.pinned:
        text = M_("pinned {size}, {others}", size=size(claims.pinned), others=text)
    if claims.caches:
        text = M_("caches up to {size}, {others}", size=size(limits), others=text)
    if limits + claims.pinned + claims.keep > claims.total:
        hint = M_("set cache.max_size or keep to less, or put one of them on another disk")
        return Check(where, "warn", M_("does not fit together: {sizes}", sizes=text), hint)
    if claims.unlimited and (claims.pinned or len(claims.caches) + len(claims.unlimited) > 1):
        names = ", ".join(claims.unlimited)
        hint = M_(
            "set cache.max_size of {names}: each takes all that is free, until the other cannot write", names=names
        )
        text = M_("the cache of {names} has no limit beside others on this disk: {sizes}", names=names, sizes=text)
        return Check(where, "warn", text, hint)
    return Check(where, "ok", text)


def _claims(settings: Settings) -> Iterator[Claims]:
    devices: dict[int, list[tuple[str, str, Path]]] = {}
    for name, mount in settings.mounts.items():
        place = nearest(mount.cache.dir)
        devices.setdefault(os.stat(place).st_dev, []).append(("cache", name, place))
    pins = settings.state / "pins"
    has_pins = any(model.warm.level == "pin" for model in settings.models.values())
    if has_pins or pins.is_dir():
        place = nearest(pins)
        devices.setdefault(os.stat(place).st_dev, []).append(("pins", M_("pinned versions"), place))
    for found in devices.values():
        usage = os.statvfs(found[0][2])
        total = usage.f_blocks * usage.f_frsize
        mounts = [settings.mounts[name] for kind, name, _ in found if kind == "cache"]
        names = [name for kind, name, _ in found if kind == "cache"]
        limits = {
            name: mount.cache.max_size.of(total)
            for name, mount in zip(names, mounts, strict=True)
            if mount.cache.max_size
        }
        yield Claims(
            total,
            limits,
            tuple(name for name in names if name not in limits),
            max((mount.cache.min_free.of(total) for mount in mounts), default=0),
            _taken(pins) if any(kind == "pins" for kind, _, _ in found) else 0,
            tuple(name for _, name, _ in found),
        )


def _taken(directory: Path) -> int:
    """Bytes on disk; files with several names count once."""
    seen: dict[int, int] = {}
    for base, _, files in os.walk(directory):
        for name in files:
            with contextlib.suppress(OSError):
                info = os.lstat(os.path.join(base, name))
                seen[info.st_ino] = info.st_blocks * 512
    return sum(seen.values())


async def sparse(settings: Settings) -> list[Check]:
    """Whether a file with a hole takes no room for the hole: rclone's cache of a partly read file is such a file."""
    found = []
    for name, mount in settings.mounts.items():
        place = nearest(mount.cache.dir)
        if not os.access(place, os.W_OK | os.X_OK):
            continue  # another check reports it
        argv = [sys.executable, "-I", "-S", "-c", _TRY_SPARSE, str(place), str(SPARSE_BYTES)]
        try:
            outcome = await tool.run(argv, timeout_s=TRY_S)
            taken, hole = json.loads(outcome.output)
        except (MountdError, ValueError, TypeError):
            continue  # a disk that is full or does not answer: other checks report that
        found.append(sparse_check(M_("holes of cache of {name}", name=name), str(place), taken, hole))
    return found


def sparse_check(where: str, place: str, taken: int, hole: int) -> Check:
    """`taken`: bytes on disk of a file of SPARSE_BYTES that is all hole but its end; `hole`: where a hole begins."""
    if taken > SPARSE_BYTES // 2:
        text = M_("{place} has no sparse files: a partly read file takes its whole size", place=place)
        hint = M_("set cache.dir to ext4, xfs, btrfs or another file system with sparse files")
        return Check(where, "warn", text, hint)
    if hole >= SPARSE_BYTES:
        hint = M_("nothing has to be done; on ext4, xfs or btrfs mountd can repair the index of partly read files")
        text = M_("{place} has sparse files, and does not report their holes: {hint}", place=place, hint=hint)
        return Check(where, "ok", text)
    return Check(where, "ok", M_("{place} has sparse files, and reports their holes", place=place))


# -- users ------------------------------------------------------------------------------------------------------------


def users(settings: Settings) -> Iterator[Check]:
    """Apps that run as mountd's own user: such a program can read what mountd can, and end it."""
    uid = os.geteuid()
    for name, app in settings.apps.items():
        where = M_("user of {name}", name=name)
        if app.user is not None:
            yield Check(where, "ok", M_("{name} runs as {user}", name=name, user=app.user))
            continue
        who = "root" if uid == 0 else M_("the user of mountd (uid {uid})", uid=uid)
        text = M_(
            "{name} runs as {user}, as mountd does: it can read mountd's secrets, and end it", name=name, user=who
        )
        hint = M_("run mountd as root with apps.{name}.user", name=name)
        yield Check(
            where, "warn", text, M_("set apps.{name}.user to a user of its own", name=name) if uid == 0 else hint
        )


# -- limits of the kernel ---------------------------------------------------------------------------------------------


def inotify() -> Iterator[Check]:
    """Instances and watches of this user, against the limits of the kernel."""
    instances, watches = _inotify_used(os.geteuid())
    for what, used, needed in (("instances", instances, FREE_INSTANCES), ("watches", watches, FREE_WATCHES)):
        limit = _number(f"/proc/sys/fs/inotify/max_user_{what}")
        if limit is not None:
            yield inotify_check(what, used, limit, needed)


def inotify_check(what: str, used: int, limit: int, needed: int) -> Check:
    where, text = f"inotify {what}", M_("{used} of {limit} are used by this user", used=used, limit=limit)
    if used + needed > limit:
        command = f"sysctl -w fs.inotify.max_user_{what}={max(2 * limit, used + 4 * needed)}"
        hint = M_("{command}, and in /etc/sysctl.d", command=command)
        return Check(where, "warn", M_("{text}: mountd notices changed files late", text=text), hint)
    return Check(where, "ok", text)


def _inotify_used(uid: int) -> tuple[int, int]:
    """Of all processes of that user that may be looked at."""
    instances = watches = 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if os.stat(f"/proc/{pid}").st_uid != uid:
                continue
            for fd in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    # The name alone is read: what a descriptor leads to is not touched.
                    if os.readlink(f"/proc/{pid}/fd/{fd}") == "anon_inode:inotify":
                        instances += 1
                        watches += Path(f"/proc/{pid}/fdinfo/{fd}").read_text("utf-8").count("inotify wd:")
    return instances, watches


def descriptors() -> Check:
    """Of this user's session; the unit has limits of its own."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    where = M_("descriptors")
    if hard == resource.RLIM_INFINITY:
        return Check(where, "ok", M_("a process may have any number of descriptors"))
    text = M_("a process may have {count} descriptors", count=hard)
    if hard < DESCRIPTORS:
        hint = M_("raise it: LimitNOFILE= of the unit, or ulimit -Hn {count}", count=DESCRIPTORS)
        return Check(where, "warn", text, hint)
    return Check(where, "ok", text)


def memory() -> Iterator[Check]:
    with contextlib.suppress(OSError, ValueError):
        pairs = (line.split(":") for line in Path("/proc/meminfo").read_text("ascii").splitlines())
        found = {name: int(value.split()[0]) * 1024 for name, value in pairs}
        yield memory_check(found)
    if _number("/proc/sys/vm/overcommit_memory") == 2:
        text = M_("the kernel gives no memory that may never be used (vm.overcommit_memory=2)")
        hint = M_("sysctl -w vm.overcommit_memory=0: rclone and apps on a GPU reserve far more than they use")
        yield Check("overcommit", "warn", text, hint)
    else:
        yield Check("overcommit", "ok", M_("the kernel lets programs reserve more memory than they use"))


def memory_check(found: Mapping[str, int]) -> Check:
    """`found`: of /proc/meminfo, in bytes."""
    available, total = found.get("MemAvailable", 0), found.get("MemTotal", 0)
    swap, left = found.get("SwapTotal", 0), found.get("SwapFree", 0)
    where, sizes = M_("memory"), {"available": size(available), "total": size(total)}
    text = M_("{available} of {total} available; no swap", **sizes)
    if swap:
        sizes |= {"left": size(left), "swap": size(swap)}
        text = M_("{available} of {total} available; {left} of {swap} swap free", **sizes)
    if available < LEAST_MEMORY:
        hint = M_("see what uses it; on a small machine write profile: small")
        return Check(where, "warn", M_("{text}: the kernel may kill rclone or the app", text=text), hint)
    if swap and left < swap // 10:
        hint = M_("see what uses the memory; a model in swap answers late")
        return Check(where, "warn", M_("{text}: the machine swaps", text=text), hint)
    return Check(where, "ok", text)


def entropy() -> Iterator[Check]:
    bits = _number("/proc/sys/kernel/random/entropy_avail")
    if bits is None:
        return
    if bits < LEAST_ENTROPY:
        text = M_("{count} bits: TLS and a start may wait for random numbers", count=bits)
        hint = M_("install rng-tools or haveged, or give the virtual machine a virtio-rng device")
        yield Check(M_("entropy"), "warn", text, hint)
    else:
        yield Check(M_("entropy"), "ok", M_("{count} bits", count=bits))


def fuse_conf(uid: int, conf: Path = Path("/etc/fuse.conf"), mounts: int | None = None) -> Iterator[Check]:
    """How many FUSE mounts users may have together; root has no limit. `mounts`: as many there are, by default."""
    if uid == 0:
        return
    limit = MOUNTS_OF_USERS
    with contextlib.suppress(OSError, ValueError):
        for line in conf.read_text("utf-8", "replace").splitlines():
            name, _, value = line.partition("#")[0].partition("=")
            if name.strip() == "mount_max":
                limit = int(value)
    used = mounts if mounts is not None else Path("/proc/self/mountinfo").read_bytes().count(b" - fuse.")
    where, facts = M_("fuse mounts"), {"used": used, "limit": limit, "file": conf}
    text = M_("{used} of {limit} mounts of users are there (mount_max of {file})", **facts)
    if limit >= 0 and used + 1 >= limit:
        yield Check(where, "warn", text, M_("set mount_max to more in {file}", file=conf))
    else:
        yield Check(where, "ok", text)


def _number(path: str) -> int | None:
    try:
        return int(Path(path).read_text("ascii"))
    except (OSError, ValueError):
        return None
