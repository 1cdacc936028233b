"""What `doctor` checks of outboxes: the directory that an app writes its results to, and the bucket that they go to."""

from __future__ import annotations

import asyncio
import json
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mountd.cli import examine_rights, outbox_probe
from mountd.cli.examine import Check
from mountd.cli.examine_rights import BucketQuestion
from mountd.cli.render import upload_command_of
from mountd.errors import CommandTimeout, MountdError, RemoteError
from mountd.fuse.table import Entry
from mountd.fuse.watch import read_table
from mountd.process import tool
from mountd.rclone.binary import Binary
from mountd.rclone.command import source
from mountd.settings.outbox import OutboxSettings
from mountd.settings.schema import Settings
from mountd.settings.units import format_duration
from mountd.status.snapshot import size
from mountd.text import printable, storable

LOOK_S = 10.0
MOST_SHOWN = 100
"""Characters of a name, which an app has chosen."""
ELSEWHERE = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb3", "9p", "virtiofs", "afs", "coda"),
        *("ceph", "lustre", "gpfs", "beegfs", "glusterfs", "pvfs2", "ocfs2", "gfs2"),
    }
)
"""File systems whose disk is not this machine's own; and FUSE."""


# -- the directory ----------------------------------------------------------------------------------------------------


async def directories(settings: Settings) -> list[Check]:
    """Two lines for each outbox, one where its directory cannot be used; all at the same time."""
    found = await asyncio.gather(*(_directory(name, outbox) for name, outbox in settings.outbox.items()))
    return [check for checks in found for check in checks]


async def _directory(name: str, outbox: OutboxSettings) -> list[Check]:
    """Only a child with a deadline touches it: it may lie on a disk that hangs."""
    where, place = f"directory of {name}", str(outbox.directory)
    patterns = json.dumps({"include": outbox.include, "exclude": outbox.exclude})
    argv = [sys.executable, "-I", "-S", "-X", "utf8", outbox_probe.__file__, place, patterns]
    try:
        outcome = await tool.run(argv, timeout_s=LOOK_S)
        found = json.loads(outcome.output.rpartition("\n")[2])
    except CommandTimeout:
        hint = "look at the disk, or at the server that it is on; the rest of mountd does not wait for it"
        return [Check(where, "fail", f"no answer in {LOOK_S:g} s from the disk of {place}", hint)]
    except MountdError as error:
        return [Check(where, "fail", error.text, error.hint)]
    except ValueError:
        last = outcome.output.rpartition("\n")[2]
        return [Check(where, "warn", f"{place} was not checked: {last or 'the check failed'}")]
    if "error" in found:
        return [_unusable(where, found["error"])]
    can_go = not math.isinf(outbox.keep)
    first = _missing(where, place, found) if "missing" in found else _rights(where, outbox, found, can_go=can_go)
    return [first, *disk(name, outbox, found, read_table())]


def _unusable(where: str, error: Mapping[str, Any]) -> Check:
    if error["text"].startswith("is "):
        hint = "move it away, or name a directory without a link: mountd must not read what lies behind one"
    else:
        hint = f"let mountd's user (here uid {os.geteuid()}) read and enter it, or run doctor as that user"
    return Check(where, "fail", f"{_shown(error['place'])} {error['text']}", hint)


def _shown(path: str) -> str:
    return storable(printable(path), MOST_SHOWN)


def _missing(where: str, place: str, found: Mapping[str, Any]) -> Check:
    if found["makes"]:
        return Check(where, "ok", f"{place} is not there yet, and can be created: the app creates it")
    text = f"{place} is not there, and uid {os.geteuid()} cannot create it in {found['nearest']}"
    return Check(where, "warn", text, f"create it for the app: install -d -o USER {place}")


def _rights(where: str, outbox: OutboxSettings, found: Mapping[str, Any], *, can_go: bool) -> Check:
    """`can_go`: mountd is to remove files there."""
    place, user = str(outbox.directory), f"mountd's user (here uid {os.geteuid()})"
    if not found["enters"]:
        return Check(where, "fail", f"{place} cannot be entered", f"let {user} enter it: chmod o+x, or its group")
    kept = "" if math.isinf(outbox.keep) else f"keep: {format_duration(outbox.keep)}"
    alone = "or keep: forever, and remove them by other means"
    if can_go and not found["removes"]:
        text = f"files cannot be removed from {place}, as {kept} asks for"
        return Check(where, "fail", text, f"let {user} write to it, {alone}")
    if found["unread"]:
        hint = f"let {user} read it: see umask and group of the app"
        return Check(where, "warn", f"{place}/{_shown(found['unread'])} cannot be read, and is not uploaded", hint)
    if can_go and found["stays"]:
        text = f"{place}/{_shown(found['stays'])} cannot be removed, as {kept} asks for"
        return Check(where, "warn", text, f"let {user} write to the directory that it is in, {alone}")
    return Check(where, "ok", f"{place} can be read{', and files removed from it' if can_go else ''}")


def disk(name: str, outbox: OutboxSettings, found: Mapping[str, Any], table: Iterable[Entry]) -> Iterator[Check]:
    """What it lies on, by `mount`, `free` and `total` of `found`."""
    where, place = f"disk of {name}", outbox.directory
    entry = next((each for each in table if each.mount_id == found["mount"]), None)
    if entry is not None and (entry.is_fuse or entry.fs_type in ELSEWHERE):
        text = f"{place} lies on {entry.fs_type} ({entry.source}): it may hang, and not show who has a file open there"
        hint = "name a directory on a local disk; else let the app write a.wav.tmp, and rename it when it is done"
        yield Check(where, "warn", text, hint)
    room, keep = f"{place}: {size(found['free'])} free", outbox.min_free.of(found["total"])
    if found["free"] < keep:
        text = f"{room}, less than min_free {outbox.min_free} ({size(keep)})"
        yield Check(where, "warn", text, "free some space there, shorten `keep`, or lower min_free")
    else:
        yield Check(where, "ok", room)


# -- the bucket -------------------------------------------------------------------------------------------------------


def question(settings: Settings, name: str, binary: Binary, conf: Path) -> BucketQuestion:
    return BucketQuestion(upload_command_of(settings, name, binary, conf), binary, conf)


async def bucket(settings: Settings, name: str, binary: Binary, conf: Path) -> list[Check]:
    """Whether the place that its files go to answers a listing. The keys need no right to list."""
    place, where = settings.outbox[name].remote, f"bucket of {name}"
    remote, ask = settings.remotes[settings.outbox[name].remote_name], question(settings, name, binary, conf)
    try:
        entries = await ask.list(source(place))
    except RemoteError as error:
        signature = examine_rights.signature_check(f"signature of {name}", error)
        if signature is not None and signature.result == "ok":
            text = f"the keys may not list {place}, and need not; `mountd doctor --try-write` tries whether they write"
            return [Check(where, "ok", text), signature]
        if error.code == "bucket-missing" and not _is_of_buckets(settings, name):
            hint = "nothing has to be done if the name is right"
            return [Check(where, "warn", f"{place} does not exist yet: the first upload makes it", hint)]
        return await examine_rights.refused(name, remote, place, ask, error)
    if not entries and (style := await examine_rights.style_check(f"style of {name}", remote, place, ask)):
        return [style]
    return [*examine_rights.accepted(name, remote, place), Check(where, "ok", f"{place} can be listed")]


def _is_of_buckets(settings: Settings, name: str) -> bool:
    """Whether its place is in a bucket, which no upload makes."""
    beneath = settings.beneath(settings.outbox[name].remote_name)
    return any(settings.remotes[each].type == "s3" for each in beneath)
