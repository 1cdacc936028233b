"""The way to a place: no link on it that somebody else can change, no directory on it that somebody else can move.

What mountd makes, replaces or mounts as root would otherwise end up where a local user wants it. Who may write in a
directory can move what lies in it, also what he does not own; but for a sticky one, such as /tmp, where the owner of
the entry decides. A link is followed where nobody else can change it: the administrator has made it.

As a script, `way.py [--make] [--lax] PATH…`: looks at the way to each, strictly but for --lax, and prints a line of
JSON for each that is not safe, `[PATH, TEXT, null]`, or cannot be opened, `[PATH, TEXT, ERRNO]`. Of its own because a
directory may lie on a mount that hangs; only the standard library, for its start.
"""

import errno
import json
import os
import stat
import sys
from collections import deque

MOST_LINKS = 40
NOBODY = 65534
_ACL = "system.posix_acl_access"
_OPEN = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Unsafe(Exception):
    """The text says what somebody else can do."""


def open_directory(path: str, *, strict: bool = False, make: bool = False) -> int:
    """An O_PATH descriptor of the directory. Raises Unsafe for a link that somebody else can change, and, `strict`, for
    a directory that somebody else can move. Missing ones are made with `make`, 0755. Raises OSError."""
    todo = deque(part for part in path.split("/") if part not in ("", "."))
    at, shown, links = os.open("/", _OPEN), "", 0
    try:
        while todo:
            name = todo.popleft()
            found = _look(name, at, make=make)
            who = mover(os.fstat(at), found, at) if name != ".." else None
            if stat.S_ISLNK(found.st_mode):
                if who is None and not _is_trusted(found.st_uid):
                    who = f"uid {found.st_uid}"
                if who is not None:
                    raise Unsafe(f"{shown}/{name} is a link that {who} can change")
                links += 1
                if links > MOST_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                target = os.readlink(name, dir_fd=at)
                todo.extendleft(part for part in reversed(target.split("/")) if part not in ("", "."))
                if target.startswith("/"):
                    os.close(at)
                    at, shown = os.open("/", _OPEN), ""
                continue
            if strict and who is not None:
                raise Unsafe(f"{who} can move {shown}/{name}, and put something else in its place")
            below = os.open(name, _OPEN, dir_fd=at)
            os.close(at)
            at, shown = below, f"{shown}/{name}"
            if name != ".." and not os.path.samestat(os.fstat(at), found):
                raise Unsafe(f"{shown} was exchanged while it was opened")
    except BaseException:
        os.close(at)
        raise
    return at


def _look(name: str, at: int, *, make: bool) -> os.stat_result:
    try:
        return os.stat(name, dir_fd=at, follow_symlinks=False)
    except FileNotFoundError:
        if not make:
            raise
    try:  # noqa: SIM105 (contextlib is not loaded)
        os.mkdir(name, 0o755, dir_fd=at)
    except FileExistsError:
        pass  # somebody was quicker: it is looked at like any other
    return os.stat(name, dir_fd=at, follow_symlinks=False)


def mover(directory: os.stat_result, entry: os.stat_result, at: int) -> "str | None":
    """Who else can put something else in the place of this entry; `at` is a descriptor of the directory."""
    if not _is_trusted(directory.st_uid):
        return f"uid {directory.st_uid}"
    if directory.st_mode & stat.S_ISVTX and _is_trusted(entry.st_uid):
        return None
    if directory.st_mode & stat.S_IWOTH:
        return "every user"
    if directory.st_mode & stat.S_IWGRP:
        if directory.st_gid not in (0, os.getegid()):
            return f"group {directory.st_gid}"
        if _has_acl(at):  # then these bits are the most that it grants to anybody
            return "whom its access control list names"
    return None


def _is_trusted(uid: int) -> bool:
    return uid in (0, os.geteuid()) or (uid == NOBODY and not _knows_everybody())


def _knows_everybody() -> bool:
    """Else this is a user namespace, in which owners from outside are shown as nobody, and nobody inside is one."""
    try:
        with open("/proc/self/uid_map", encoding="ascii") as file:
            return file.read().split() == ["0", "0", "4294967295"]
    except OSError:
        return True


def _has_acl(at: int) -> bool:
    try:
        os.getxattr(f"/proc/self/fd/{at}", _ACL)
    except OSError as error:
        return error.errno not in (errno.ENODATA, errno.EOPNOTSUPP, errno.ENOENT)
    return True


def found(output: str) -> "list[tuple[str, str, int | None]]":
    """What the script has printed, a line each. Raises ValueError for anything else."""
    lines = []
    for line in output.splitlines():
        match json.loads(line):
            case [str(path), str(text), int() | None as number]:
                lines.append((path, text, number))
            case _:
                raise ValueError(line)
    return lines


def main(words: list[str]) -> None:
    make, lax = "--make" in words, "--lax" in words
    for path in (word for word in words if not word.startswith("--")):
        try:
            os.close(open_directory(path, strict=not lax, make=make))
        except Unsafe as unsafe:
            print(json.dumps([path, str(unsafe), None]))
        except OSError as error:
            print(json.dumps([path, (error.strerror or str(error)).lower(), error.errno]))


if __name__ == "__main__":
    main(sys.argv[1:])
