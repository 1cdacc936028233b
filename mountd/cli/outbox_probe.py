"""Looks at the directory of an outbox for doctor: `outbox_probe.py DIRECTORY '{"include": …, "exclude": …}'` prints one
line of JSON.

    {"mount": 31, "free": 1, "total": 2, "enters": true, "removes": true, "unread": "", "stays": ""}
    {"missing": true, "nearest": "/srv", "makes": true, "mount": 31, "free": 1, "total": 2}
    {"error": {"errno": 13, "text": "cannot be read: …", "place": "/srv/outputs"}}

`mount`: its number in mountinfo. `unread`, `stays`: the first path below that this user cannot read, or cannot remove.
`nearest`: the closest directory above that exists; `makes`: this user could make the next one. `place`: the step of the
way that it fails for.

A process of its own because the directory may lie on a disk that hangs. It makes and changes nothing.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import sys
from collections.abc import Sequence
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, __file__.removesuffix("/mountd/cli/outbox_probe.py"))

from mountd.outbox import tree
from mountd.outbox.settling import belongs, enters

MOST_ENTRIES = 2000
"""Files and directories that are looked at: what one app writes has the same owner and mode."""


def look(directory: str, include: Sequence[str], exclude: Sequence[str]) -> dict[str, Any]:
    try:
        root = tree.open_root(directory)
    except FileNotFoundError:
        return _missing(directory)
    except OSError as error:
        return _failed(error, _place_of(directory, error))
    try:
        enters_it, removes = _may(root, os.X_OK), _may(root, os.W_OK | os.X_OK)
        unread, stays = _below(root, include, exclude) if enters_it else ("", "")
        return {**_disk(root), "enters": enters_it, "removes": removes, "unread": unread, "stays": stays}
    finally:
        os.close(root)


def _missing(directory: str) -> dict[str, Any]:
    nearest = directory
    while not os.path.lexists(nearest):
        nearest = os.path.dirname(nearest)
    try:
        above = tree.open_root(f"{nearest}/.")  # it may be a link, as the directory itself may not
    except OSError as error:
        return _failed(error, _place_of(nearest, error))
    try:
        makes = _may(above, os.W_OK | os.X_OK)
        return {"missing": True, "nearest": nearest, "makes": makes, **_disk(above)}
    finally:
        os.close(above)


def _disk(directory: int) -> dict[str, Any]:
    with open(f"/proc/self/fdinfo/{directory}", encoding="utf-8") as file:
        facts = dict(line.split(":", 1) for line in file.read().splitlines() if ":" in line)
    room = os.fstatvfs(directory)
    return {
        "mount": int(facts["mnt_id"]),
        "free": room.f_bavail * room.f_frsize,
        "total": room.f_blocks * room.f_frsize,
    }


def _may(directory: int, mode: int) -> bool:
    return os.access(f"/proc/self/fd/{directory}", mode, effective_ids=True)


def _below(root: int, include: Sequence[str], exclude: Sequence[str]) -> tuple[str, str]:
    """The first path that cannot be read, and the first one that cannot be removed; "" for none."""
    device, left = os.fstat(root).st_dev, MOST_ENTRIES
    unread, stays, waiting = "", "", [""]
    while waiting and left > 0 and not (unread and stays):
        directory = waiting.pop()
        try:
            with tree.opened_directory(root, directory) as here, os.scandir(here) as entries:
                about = os.fstat(here)
                if about.st_dev != device:
                    continue
                is_writable = _may(here, os.W_OK | os.X_OK)
                for entry in entries:
                    left -= 1
                    if left < 0:
                        break
                    path = f"{directory}/{entry.name}" if directory else entry.name
                    if entry.is_dir(follow_symlinks=False):
                        waiting += [path] if enters(path, exclude) else []
                    elif entry.is_file(follow_symlinks=False) and belongs(path, include, exclude):
                        if not (is_writable and _is_removable(about, entry)):
                            stays = stays or path
                        unread = unread or ("" if _can_read(root, path) else path)
        except PermissionError:
            unread = unread or directory
        except OSError as error:
            if error.errno not in tree.GONE:
                raise
    return unread, stays


def _is_removable(directory: os.stat_result, entry: os.DirEntry[str]) -> bool:
    """As far as a sticky directory decides it."""
    uid = os.geteuid()
    if not directory.st_mode & stat.S_ISVTX or uid in (0, directory.st_uid):
        return True
    with contextlib.suppress(FileNotFoundError):
        return entry.stat(follow_symlinks=False).st_uid == uid
    return True


def _can_read(root: int, path: str) -> bool:
    """As the outbox itself opens it. Raises OSError for anything but rights."""
    try:
        os.close(tree.open_file(root, path))
    except PermissionError:
        return False
    except OSError as error:
        if error.errno not in tree.GONE:
            raise
    return True


def _place_of(directory: str, error: OSError) -> str:
    """The first step of the way that is the reason; the directory itself where none is found."""
    at = ""
    for part in filter(None, directory.split("/")):
        at = f"{at}/{part}"
        try:
            seen = os.lstat(at)
        except OSError:
            break
        if error.errno in (errno.EACCES, errno.EPERM):
            if not os.access(at, os.R_OK | os.X_OK, effective_ids=True):
                return at
        elif stat.S_ISLNK(seen.st_mode):
            if at == directory or seen.st_uid not in (0, os.geteuid()):
                return at
        elif not stat.S_ISDIR(seen.st_mode):
            return at
    return directory


def _failed(error: OSError, place: str) -> dict[str, Any]:
    number = error.errno or errno.EIO
    text = f"cannot be read: {(error.strerror or os.strerror(number)).lower()}"
    if number in tree.GONE and os.path.islink(place):
        text = "is a link, which is not followed" if os.path.exists(place) else "is a link that leads nowhere"
    elif number == errno.ENOTDIR:
        text = "is not a directory"
    return {"error": {"errno": number, "text": text, "place": place}}


def main(directory: str, patterns: str) -> dict[str, Any]:
    given = json.loads(patterns)
    try:
        return look(directory, given["include"], given["exclude"])
    except OSError as error:
        return _failed(error, directory)


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
