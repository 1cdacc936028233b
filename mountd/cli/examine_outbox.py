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
from mountd.i18n import M_, N_, Message
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
    where, place = M_("directory of {name}", name=name), str(outbox.directory)
    patterns = json.dumps({"include": outbox.include, "exclude": outbox.exclude})
    argv = [sys.executable, "-I", "-S", "-X", "utf8", outbox_probe.__file__, place, patterns]
    try:
        outcome = await tool.run(argv, timeout_s=LOOK_S)
        found = json.loads(outcome.output.rpartition("\n")[2])
    except CommandTimeout:
        text = M_("no answer in {limit:g} s from the disk of {place}", limit=LOOK_S, place=place)
        hint = M_("look at the disk, or at the server that it is on; the rest of mountd does not wait for it")
        return [Check(where, "fail", text, hint)]
    except MountdError as error:
        return [Check(where, "fail", error.text, error.hint)]
    except ValueError:
        last = outcome.output.rpartition("\n")[2] or M_("the check failed")
        return [Check(where, "warn", M_("{place} was not checked: {cause}", place=place, cause=last))]
    if "error" in found:
        return [_unusable(where, found["error"])]
    can_go = not math.isinf(outbox.keep)
    first = _missing(where, place, found) if "missing" in found else _rights(where, outbox, found, can_go=can_go)
    return [first, *disk(name, outbox, found, read_table())]


_UNUSABLE = {
    "is not a directory": N_("{place} is not a directory"),
    "is a link, which is not followed": N_("{place} is a link, which is not followed"),
    "is a link that leads nowhere": N_("{place} is a link that leads nowhere"),
}
"""What the probe says of a directory → as a sentence; else it cannot be read."""


def _unusable(where: str, error: Mapping[str, Any]) -> Check:
    place, said = _shown(error["place"]), error["text"]
    if said in _UNUSABLE:
        text = M_(_UNUSABLE[said], place=place)
        hint = M_("move it away, or name a directory without a link: mountd must not read what lies behind one")
    else:
        text = M_("{place} cannot be read: {cause}", place=place, cause=said.removeprefix("cannot be read: "))
        hint = M_("let {user} read and enter it, or run doctor as that user", user=_own_user())
    return Check(where, "fail", text, hint)


def _own_user() -> Message:
    return M_("mountd's user (here uid {uid})", uid=os.geteuid())


def _shown(path: str) -> str:
    return storable(printable(path), MOST_SHOWN)


def _missing(where: str, place: str, found: Mapping[str, Any]) -> Check:
    if found["makes"]:
        return Check(where, "ok", M_("{place} is not there yet, and can be created: the app creates it", place=place))
    facts = {"place": place, "uid": os.geteuid(), "above": found["nearest"]}
    text = M_("{place} is not there, and uid {uid} cannot create it in {above}", **facts)
    return Check(where, "warn", text, M_("create it for the app: install -d -o USER {place}", place=place))


def _rights(where: str, outbox: OutboxSettings, found: Mapping[str, Any], *, can_go: bool) -> Check:
    """`can_go`: mountd is to remove files there."""
    place, user = str(outbox.directory), _own_user()
    if not found["enters"]:
        hint = M_("let {user} enter it: chmod o+x, or its group", user=user)
        return Check(where, "fail", M_("{place} cannot be entered", place=place), hint)
    kept = "" if math.isinf(outbox.keep) else f"keep: {format_duration(outbox.keep)}"
    if can_go and not found["removes"]:
        text = M_("files cannot be removed from {place}, as {setting} asks for", place=place, setting=kept)
        hint = M_("let {user} write to it, or keep: forever, and remove them by other means", user=user)
        return Check(where, "fail", text, hint)
    if found["unread"]:
        path = f"{place}/{_shown(found['unread'])}"
        hint = M_("let {user} read it: see umask and group of the app", user=user)
        return Check(where, "warn", M_("{path} cannot be read, and is not uploaded", path=path), hint)
    if can_go and found["stays"]:
        path = f"{place}/{_shown(found['stays'])}"
        text = M_("{path} cannot be removed, as {setting} asks for", path=path, setting=kept)
        hint = M_(
            "let {user} write to the directory that it is in, or keep: forever, and remove them by other means",
            user=user,
        )
        return Check(where, "warn", text, hint)
    if can_go:
        return Check(where, "ok", M_("{place} can be read, and files removed from it", place=place))
    return Check(where, "ok", M_("{place} can be read", place=place))


def disk(name: str, outbox: OutboxSettings, found: Mapping[str, Any], table: Iterable[Entry]) -> Iterator[Check]:
    """What it lies on, by `mount`, `free` and `total` of `found`."""
    where, place = M_("disk of {name}", name=name), outbox.directory
    entry = next((each for each in table if each.mount_id == found["mount"]), None)
    if entry is not None and (entry.is_fuse or entry.fs_type in ELSEWHERE):
        text = M_(
            "{place} lies on {type} ({source}): it may hang, and not show who has a file open there",
            place=place,
            type=entry.fs_type,
            source=entry.source,
        )
        hint = M_("name a directory on a local disk; else let the app write a.wav.tmp, and rename it when it is done")
        yield Check(where, "warn", text, hint)
    room, keep = M_("{place}: {size} free", place=place, size=size(found["free"])), outbox.min_free.of(found["total"])
    if found["free"] < keep:
        text = M_("{room}, less than min_free {least} ({size})", room=room, least=outbox.min_free, size=size(keep))
        yield Check(where, "warn", text, M_("free some space there, shorten `keep`, or lower min_free"))
    else:
        yield Check(where, "ok", room)


# -- the bucket -------------------------------------------------------------------------------------------------------


def question(settings: Settings, name: str, binary: Binary, conf: Path) -> BucketQuestion:
    return BucketQuestion(upload_command_of(settings, name, binary, conf), binary, conf)


async def bucket(settings: Settings, name: str, binary: Binary, conf: Path) -> list[Check]:
    """Whether the place that its files go to answers a listing. The keys need no right to list."""
    place, where = settings.outbox[name].remote, M_("bucket of {name}", name=name)
    remote, ask = settings.remotes[settings.outbox[name].remote_name], question(settings, name, binary, conf)
    try:
        entries = await ask.list(source(place))
    except RemoteError as error:
        signature = examine_rights.signature_check(M_("signature of {name}", name=name), error)
        if signature is not None and signature.result == "ok":
            text = M_(
                "the keys may not list {place}, and need not; `mountd doctor --try-write` tries whether they write",
                place=place,
            )
            return [Check(where, "ok", text), signature]
        if error.code == "bucket-missing" and not _is_of_buckets(settings, name):
            text = M_("{place} does not exist yet: the first upload makes it", place=place)
            return [Check(where, "warn", text, M_("nothing has to be done if the name is right"))]
        return await examine_rights.refused(name, remote, place, ask, error)
    if not entries and (style := await examine_rights.style_check(name, remote, place, ask)):
        return [style]
    return [*examine_rights.accepted(name, remote, place), Check(where, "ok", M_("{place} can be listed", place=place))]


def _is_of_buckets(settings: Settings, name: str) -> bool:
    """Whether its place is in a bucket, which no upload makes."""
    beneath = settings.beneath(settings.outbox[name].remote_name)
    return any(settings.remotes[each].type == "s3" for each in beneath)
