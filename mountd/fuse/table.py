"""What is mounted where: the text of /proc/self/mountinfo as entries, and questions about them.

Fields are those of proc_pid_mountinfo(5). The kernel escapes space, tab, newline, backslash (and `#` in a source) as
three octal digits; everything else is passed as the bytes it is, so bytes that are no UTF-8 are kept as surrogates.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache

from mountd.errors import Bug

DEVNAME_PREFIX = "mountd"
_ESCAPE = re.compile(rb"\\([0-3][0-7]{2})")


@dataclass(frozen=True, slots=True)
class Entry:
    """One mount. `device` is "major:minor"; `root` is not "/" when only a part of a file system is mounted (bind)."""

    mount_id: int
    parent_id: int
    device: str
    root: str
    mount_point: str
    fs_type: str
    source: str
    peers: int | None = None
    """the group of mounts that get what is mounted below any of them, also in other namespaces (`shared:N`)"""

    @property
    def minor(self) -> int:
        """The device's minor number: for FUSE also the name of its directory in /sys/fs/fuse/connections."""
        return int(self.device.partition(":")[2])

    @property
    def is_fuse(self) -> bool:
        return self.fs_type == "fuse" or self.fs_type.startswith("fuse.")


@lru_cache(maxsize=4)
def parse(text: str, mount_point: str = "") -> tuple[Entry, ...]:
    """Entries in the kernel's order; a line that is not complete (no such is known) raises Bug.

    The last results are kept: the table is read each second and hardly ever another one.

    `text` is mountinfo decoded as UTF-8 with surrogateescape. `mount_point`: what is mounted there is wanted, and
    others may be left out, which takes a tenth of the time.
    """
    wanted = f" {_escape(mount_point)} " if mount_point else ""
    # Not splitlines() and a bare split(): those also split at characters that a path may hold unescaped.
    return tuple(_entry(line) for line in text.split("\n") if line and wanted in line)


def _entry(line: str) -> Entry:
    fields = line.split(" ")
    try:
        dash = fields.index("-", 6)  # any number of optional fields lies before it
        mount_id, parent_id, device, root, mount_point, _ = fields[:6]
        fs_type, source, _ = fields[dash + 1 : dash + 4]
        return Entry(
            mount_id=int(mount_id),
            parent_id=int(parent_id),
            device=device,
            root=unescape(root),
            mount_point=unescape(mount_point),
            fs_type=unescape(fs_type),
            source=unescape(source),
            peers=next((int(each[7:]) for each in fields[6:dash] if each.startswith("shared:")), None),
        )
    except ValueError:
        raise Bug(f"cannot read mountinfo: unknown form of line {line!r}") from None


def unescape(word: str) -> str:
    """`/mnt/my\\040models` → `/mnt/my models`."""
    if "\\" not in word:
        return word
    raw = word.encode("utf-8", "surrogateescape")
    return _ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), raw).decode("utf-8", "surrogateescape")


def _escape(path: str) -> str:
    """The inverse, as the kernel does it for a path."""
    return re.sub(r"[ \t\n\\]", lambda match: f"\\{ord(match[0]):03o}", path)


def at(entries: Iterable[Entry], path: str) -> Entry | None:
    """The mount that is seen at this mount point: of several stacked there, the topmost.

    `path` is absolute and without links, as mountinfo has it; a path inside a mount has no entry.
    """
    path = path.rstrip("/") or "/"
    here = [entry for entry in entries if entry.mount_point == path]
    # A mount on top has the one beneath as its parent; order alone is not enough after `mount --move`.
    covered = {entry.parent_id for entry in here if entry.parent_id != entry.mount_id}
    tops = [entry for entry in here if entry.mount_id not in covered]
    return tops[-1] if tops else None


def devname(instance: str, name: str) -> str:
    """What rclone gets as `--devname`, and what then stands in mountinfo as the source."""
    if not instance or not name or ":" in instance:
        raise Bug(f"cannot name a mount of instance {instance!r}, {name!r}: empty, or a colon in the instance")
    return f"{DEVNAME_PREFIX}:{instance}:{name}"


def of_source(entries: Iterable[Entry], source: str, path: str) -> list[Entry]:
    """This FUSE source's mounts at this mount point, the lowest first; not a part that is bound over it."""
    path = path.rstrip("/") or "/"
    return [
        entry
        for entry in entries
        if entry.is_fuse and entry.source == source and entry.mount_point == path and entry.root == "/"
    ]


def of_instance(entries: Iterable[Entry], instance: str) -> list[Entry]:
    """All FUSE mounts of this instance's rclones, wherever they are: also what others have bound elsewhere."""
    prefix = f"{DEVNAME_PREFIX}:{instance}:"
    return [entry for entry in entries if entry.is_fuse and entry.source.startswith(prefix)]


def made_by(entries: Iterable[Entry], instance: str, places: Collection[str]) -> list[Entry]:
    """What this instance of mountd has mounted itself, and so may unmount: whole, and where it mounts.

    The name of the source says only whose rclone answers. A bind mount has the same one: of a part (`root` is not "/"),
    or of the whole at another place. `places` are the mount points that mountd has used.
    """
    return [each for each in of_instance(entries, instance) if each.root == "/" and each.mount_point in places]


def is_seen_from(path: str, own: Iterable[Entry], other: Iterable[Entry]) -> bool:
    """Whether what is mounted at `path` appears in the namespace of the table `other` too, which may be the same one.

    A service of systemd with ProtectSystem, PrivateTmp and the like has a namespace of its own, whose mounts no other
    process sees; so has a container, but there process 1 is in it.
    """
    entries, others = list(own), list(other)
    if {each.mount_id for each in entries} & {each.mount_id for each in others}:  # no two namespaces have one in common
        return True
    above = [each for each in entries if f"{path}/".startswith(each.mount_point.rstrip("/") + "/")]
    nearest = max(above, key=lambda each: len(each.mount_point), default=None)
    return nearest is not None and nearest.peers is not None and any(each.peers == nearest.peers for each in others)
