"""What `doctor` checks on this machine: what mounting needs, directories, sockets, ports, links, apps.

Nothing of the settings is created or changed. What may lie on a mount is only touched by a process with a deadline.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from mountd.cache import guard
from mountd.cli.render import nearest
from mountd.errors import CommandTimeout, DiskError, MountdError, cause_of
from mountd.files.client import Files, NoStat
from mountd.fuse import table
from mountd.fuse.watch import read_table
from mountd.i18n import M_
from mountd.mount import preflight
from mountd.process import tool
from mountd.process.child import User
from mountd.process.instance import Instance
from mountd.settings.schema import AppSettings, Settings

TOUCH_TIMEOUT_S = 5.0
ACCESS_TIMEOUT_S = 10.0
# A directory that cannot be entered is named; the last one is read as well. A child may hang on a mount: it is killed.
_ENTER = """
for each in "$@"; do cd -- "$each" 2>/dev/null || { printf 'enter %s' "$each"; exit 1; }; done
ls . >/dev/null 2>&1 || { printf 'read %s' "$each"; exit 1; }
"""
_NO_DIRECTORY, _NO_PROGRAM = 3, 4
_LOOK_FOR_APP = f"""
import os, shutil, sys
directory, program, *path = sys.argv[1:]
if not os.path.isdir(directory):
    sys.exit({_NO_DIRECTORY})
found = shutil.which(os.path.join(directory, program) if "/" in program else program, path=path[0] if path else None)
if found is None:
    sys.exit({_NO_PROGRAM})
print(found)
"""


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the doctor: what was checked, the result, and how to fix it; in English, texts of ours by `M_()`."""

    name: str
    result: Literal["ok", "warn", "fail"]
    text: str
    hint: str = ""


def tried(name: str, well: str, check: Callable[[], object]) -> Check:
    """`check` as a line: ok with the text `well`, or what it raised."""
    try:
        check()
    except MountdError as error:
        return Check(name, "fail", error.text, error.hint)
    return Check(name, "ok", well)


def machine(settings: Settings | None) -> Iterator[Check]:
    yield tried("fuse", M_("/dev/fuse can be opened"), preflight.check_fuse)
    yield tried("fusermount", M_("fusermount3 is there"), preflight.check_fusermount)
    root = os.geteuid() == 0
    yield tried("mtab", M_("mounts can be unmounted again"), lambda: preflight.check_mtab(root=root))
    if settings and is_for_others(settings):
        text = M_("other users may be let in")
        text = M_("{text} (root needs no permission)", text=text) if root else text
        yield tried("allow_other", text, lambda: preflight.check_allow_other(allow_other=True, root=root))


def is_for_others(settings: Settings) -> bool:
    """Whether a mount is to let other users in."""
    return any(settings.allows_other(mount, root=os.geteuid() == 0) for mount in settings.mounts.values())


def directories(settings: Settings) -> Iterator[Check]:
    yield _writable(M_("state"), settings.state)
    yield _writable(M_("runtime"), settings.runtime)
    for name, mount in settings.mounts.items():
        where = M_("cache of {name}", name=name)
        check = _writable(where, mount.cache.dir)
        if check.result != "ok":
            yield check
            continue
        usage = os.statvfs(nearest(mount.cache.dir))
        free, total = usage.f_bavail * usage.f_frsize, usage.f_blocks * usage.f_frsize
        keep = mount.cache.min_free.of(total)
        room = M_("{place}: {free:.1f} GiB free", place=mount.cache.dir, free=free / 1024**3)
        if free < keep + guard.MIN_FREE_BYTES:
            kept = {"least": mount.cache.min_free, "keep": keep / 1024**3}
            text = M_("{room}, and {least} ({keep:.1f} GiB) is to be kept", room=room, **kept)
            yield Check(where, "fail", text, M_("free some space there, or set cache.dir to a larger disk"))
        elif mount.cache.max_size and mount.cache.max_size.of(total) > free + _used(mount.cache.dir):
            text = M_("{room}, less than cache.max_size {size}", room=room, size=mount.cache.max_size)
            yield Check(where, "warn", text, M_("set cache.max_size to less, or cache.dir to a larger disk"))
        else:
            yield Check(where, "ok", room)


def _used(directory: Path) -> int:
    return sum(
        info.st_blocks * 512
        for base, _, files in os.walk(directory)
        for name in files
        if (info := _lstat(os.path.join(base, name)))
    )


def _writable(name: str, path: Path) -> Check:
    """Whether this user can write there, or create it."""
    found = nearest(path)
    if not stat.S_ISDIR(os.stat(found).st_mode):
        text = M_("{place} is not a directory", place=found)
        return Check(name, "fail", text, M_("move it away, or set another path"))
    if not os.access(found, os.W_OK | os.X_OK):
        hint = M_("make it writable for mountd's user (here uid {uid}), or run doctor as that user", uid=os.geteuid())
        return Check(name, "fail", M_("{place} cannot be written", place=found), hint)
    well = M_("{place} can be written", place=path) if found == path else M_("{place} can be created", place=path)
    return Check(name, "ok", well)


def _lstat(path: str | Path) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except OSError:
        return None


async def mount_points(settings: Settings) -> list[Check]:
    instance = Instance.of(settings.state, settings.runtime)
    files = Files("doctor", {})
    try:
        return [
            await _mount_point(
                M_("mount point of {name}", name=name), str(mount.path), table.devname(instance.id, name), files
            )
            for name, mount in settings.mounts.items()
        ]
    finally:
        await files.close()


async def _mount_point(name: str, path: str, source: str, files: Files) -> Check:
    try:
        if preflight.occupant(read_table(), path, source):
            await files.statfs(path, timeout_s=TOUCH_TIMEOUT_S)
            return Check(name, "ok", M_("{place} is mounted by mountd", place=path))
        await preflight.check_real_path(path, files)
        (found,) = await files.stat([path], timeout_s=TOUCH_TIMEOUT_S)
        if isinstance(found, NoStat) and found.errno == errno.ENOENT:
            return _writable(name, Path(path))
        if isinstance(found, NoStat):
            return Check(name, "fail", f"{path}: {found.error.lower()}", M_("look at the directory above it"))
        if found.type != "directory":
            text = M_("{place} is not a directory", place=path)
            return Check(name, "fail", text, M_("move it away, or choose another path"))
        listing = await files.list(path, limit=3, timeout_s=TOUCH_TIMEOUT_S)
    except DiskError as error:
        hint = M_("`mountd restart` the mount, or when no mountd runs: umount --lazy {place}", place=path)
        return Check(name, "fail", M_("{place} does not answer: {cause}", place=path, cause=error.text), hint)
    except MountdError as error:
        return Check(name, "fail", error.text, error.hint)
    if listing.items:
        names = ", ".join(item.name for item in listing.items)
        text = M_("{place} is not empty ({names})", place=path, names=names)
        return Check(name, "fail", text, M_("a mount would hide these files: move them away, or choose another path"))
    return Check(name, "ok", M_("{place} is an empty directory", place=path))


def links(settings: Settings) -> Iterator[Check]:
    for name, model in settings.models.items():
        where, info = M_("link of {name}", name=name), _lstat(model.link)
        if info is not None and not stat.S_ISLNK(info.st_mode):
            text = M_("{link} is not a link, and mountd never deletes what is there", link=model.link)
            yield Check(where, "fail", text, M_("move it away, or choose another link"))
        elif (check := _writable(where, model.link.parent)).result != "ok":
            yield check
        elif info is None:
            yield Check(where, "ok", M_("{link} can be made", link=model.link))
        else:
            yield Check(where, "ok", f"{model.link} → {os.readlink(model.link)}")


async def control(settings: Settings, *, how_to_start: str) -> tuple[list[Check], bool]:
    """The lines about the daemon, and whether one answers at the control socket."""
    from mountd.client.api import get

    path = str(settings.control.socket)
    there = _lstat(path)
    if there is not None and not stat.S_ISSOCK(there.st_mode):
        text = M_("{place} is not a socket, and mountd never deletes what is there", place=path)
        hint = M_("move it away, or set control.socket to another path")
        return [Check(M_("daemon"), "fail", text, hint)], False
    try:
        status = await asyncio.to_thread(get, path, "/api/v1/status", timeout_s=TOUCH_TIMEOUT_S)
    except MountdError as error:
        if _lstat(path) is None or "connection refused" in error.text:
            return [Check(M_("daemon"), "warn", M_("not running"), how_to_start)], False
        return [Check(M_("daemon"), "fail", error.text, error.hint)], True
    ready = bool(status.get("ready"))
    if ready:
        checks = [Check(M_("daemon"), "ok", M_("answers at {place}, ready", place=path))]
    else:
        text = M_("answers at {place}, not ready", place=path)
        checks = [Check(M_("daemon"), "warn", text, M_("`mountd status` shows why"))]
    apart = [each for each in status.get("reasons", ()) if each.get("code") == preflight.NOT_VISIBLE]
    return [*checks, *(Check(M_("namespace"), "fail", each["text"], each["hint"]) for each in apart)], True


def ports(settings: Settings) -> Iterator[Check]:
    """Only while no daemon runs: else the ports are in use, by it and its apps."""
    yield _port("http", *settings.http.address)
    for name, app in settings.apps.items():
        if app.ready and app.ready.http:
            parts = urlsplit(app.ready.http)
            yield _port(M_("port of {name}", name=name), parts.hostname or "127.0.0.1", parts.port or 80)


def _port(name: str, host: str, port: int) -> Check:
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
    except OSError as error:
        text = M_("port {port} cannot be used: {cause}", port=port, cause=cause_of(error))
        return Check(name, "fail", text, M_("find the process: ss -ltnp 'sport = :{port}'", port=port))
    return Check(name, "ok", M_("port {port} is free", port=port))


async def apps(settings: Settings) -> list[Check]:
    return [await _app(M_("app {name}", name=name), app) for name, app in settings.apps.items()]


async def _app(name: str, app: AppSettings) -> Check:
    """Its directory and PATH may lie on a hung mount: only a child with a deadline touches them."""
    program = app.command[0]
    path = app.environment.get("PATH")
    words = [str(app.directory), program, *([path] if isinstance(path, str) else [])]
    try:
        looked = await tool.run([sys.executable, "-I", "-S", "-c", _LOOK_FOR_APP, *words], timeout_s=TOUCH_TIMEOUT_S)
        if looked.code == _NO_DIRECTORY:
            text = M_("its directory {place} does not exist", place=app.directory)
            return Check(name, "fail", text, M_("create it, or correct `directory`"))
        if app.user is not None:
            user = await tool.find_user(app.user, timeout_s=TOUCH_TIMEOUT_S)
            if user is None:
                text = M_("there is no user {user}", user=app.user)
                return Check(name, "fail", text, M_("create it: useradd --system {user}", user=app.user))
            if os.geteuid() not in {0, user.uid}:
                text = M_("only root can run it as {user}", user=app.user)
                return Check(name, "fail", text, M_("run mountd as root, or leave out `user`"))
    except CommandTimeout:
        hint = M_("`mountd restart` the mount that it lies on, or when no mountd runs: umount --lazy its path")
        asked = {"program": program, "place": app.directory}
        text = M_("no answer in {limit:g} s to where {program} is, from {place}", limit=TOUCH_TIMEOUT_S, **asked)
        return Check(name, "fail", text, hint)
    except MountdError as error:
        return Check(name, "fail", error.text, error.hint)
    if looked.code == _NO_PROGRAM:
        text = M_("{program} was not found", program=program)
        return Check(name, "fail", text, M_("install it, or write its whole path in `command`"))
    if looked.code != 0:
        cause = looked.output.rpartition(chr(10))[2] or M_("the check failed")
        return Check(name, "warn", M_("was not checked: {cause}", cause=cause))
    return Check(name, "ok", looked.output)


async def access(settings: Settings, *, running: bool) -> list[Check]:
    """Whether each app with a `user` can reach what it needs, and read there: tried as that user.

    Through mounts and links only while they are there.
    """
    checks = []
    for name, app in settings.apps.items():
        if app.user is None:
            continue
        try:
            user = await tool.find_user(app.user, timeout_s=ACCESS_TIMEOUT_S)
            if user is None or os.geteuid() not in (0, user.uid):
                continue  # another check reports it
            checks.append(await _access(name, user, _ways(settings, app, running=running)))
        except MountdError as error:
            checks.append(Check(M_("access of {name}", name=name), "fail", error.text, error.hint))
    return checks


def _ways(settings: Settings, app: AppSettings, *, running: bool) -> list[list[str]]:
    ways = [_way(app.directory, itself=True)]
    for need in app.needs:
        model = settings.models.get(need)
        mount = settings.mounts[model.mount if model else need]
        ways.append(_way(mount.path, itself=running))
        if model is not None:
            ways.append(_way(model.link, itself=running and os.path.islink(model.link)))
    return ways


def _way(path: Path, *, itself: bool) -> list[str]:
    """The directories from the root to `path`; without `itself` those above it, as far as they are there.

    With `itself` nothing on the way is touched here, only by the child: it may lie on a mount that hangs. What lies
    above a mount point or a link is on local disk.
    """
    above = [str(each) for each in reversed(path.parents) if itself or os.path.lexists(each)]
    return [*above, str(path)] if itself else above


async def _access(name: str, user: User, ways: Sequence[Sequence[str]]) -> Check:
    where = M_("access of {name}", name=name)
    own = user if user.uid != os.geteuid() else None
    for way in ways:
        outcome = await tool.run(["/bin/sh", "-c", _ENTER, "sh", *way], timeout_s=ACCESS_TIMEOUT_S, user=own)
        if outcome.code != 0:
            hint = M_("allow that user to enter it (chmod o+x), or for a mount set allow_other, umask, uid or gid")
            return Check(where, "fail", _refused(user.name, outcome.output), hint)
    places = ", ".join(way[-1] for way in ways if way)
    return Check(where, "ok", M_("user {user} can reach {places}", user=user.name, places=places))


def _refused(user: str, output: str) -> str:
    """`output`: what _ENTER prints, empty where it could not even be started."""
    verb, _, place = output.partition(" ")
    if verb == "enter":
        return M_("user {user} cannot enter {place}", user=user, place=place)
    if verb == "read":
        return M_("user {user} cannot read {place}", user=user, place=place)
    return M_("user {user} cannot {what}", user=user, what=output or M_("look there"))
