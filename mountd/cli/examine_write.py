"""What `doctor --try-write` finds out: whether keys may write, those of a mount that only reads, and of an outbox.

A tiny object is sent where nothing of that name is. With a mount's keys it is expected to be refused, with an outbox's
it must not be. What was accepted is deleted again, as far as the keys may.
"""

from __future__ import annotations

import asyncio
import secrets
import tempfile
from pathlib import Path

from mountd.cli import examine_outbox, examine_rights
from mountd.cli.examine import Check
from mountd.cli.examine_rights import BucketQuestion
from mountd.cli.render import command_of, write_conf
from mountd.errors import MountdError, RemoteError
from mountd.i18n import M_
from mountd.rclone.binary import Binary
from mountd.settings import profiles
from mountd.settings.schema import Settings

PREFIX = ".mountd-doctor-"
CONTENT = "`mountd doctor --try-write` has sent this object to see whether it may; it can be deleted.\n"
_ONCE = ("--s3-no-check-bucket", "--s3-no-head", "--no-check-dest")
"""One request alone: no bucket is made, nothing is looked up."""


async def rights(settings: Settings, binary: Binary) -> list[Check]:
    """A line for each mount that only reads, and one for each outbox; all at the same time."""
    reading = [name for name, mount in settings.mounts.items() if profiles.is_read_only(mount)]
    with tempfile.TemporaryDirectory(prefix="mountd-doctor-") as directory:  # 0700, for its file of secrets
        try:
            conf = (await write_conf(settings, binary, Path(directory))).path
            asked = {name: BucketQuestion(command_of(settings, name, binary, conf), binary, conf) for name in reading}
        except MountdError:
            return []  # another check reports it
        marker = Path(directory, "marker")
        await asyncio.to_thread(marker.write_text, CONTENT, "utf-8")
        return await asyncio.gather(
            *(try_write(name, settings.mounts[name].remote, marker, ask) for name, ask in asked.items()),
            *(
                try_send(name, outbox.remote, marker, examine_outbox.question(settings, name, binary, conf))
                for name, outbox in settings.outbox.items()
            ),
        )


def _new_object(place: str) -> tuple[str, str]:
    """Its name, and REMOTE:BUCKET… with it."""
    name = f"{PREFIX}{secrets.token_hex(8)}"
    return name, f"{place.rstrip('/')}{'' if place.endswith(':') else '/'}{name}"


async def try_write(name: str, place: str, marker: Path, ask: BucketQuestion) -> Check:
    """For a mount that only reads. `place`: REMOTE:BUCKET…, where an object with the content of `marker` is tried."""
    where = M_("write of {name}", name=name)
    _, target = _new_object(place)
    try:
        await ask.run("copyto", *_ONCE, str(marker), target)
    except RemoteError as error:
        if error.code == "access-denied":
            return Check(where, "ok", M_("the keys may not write to {place}, and the mount only reads", place=place))
        return Check(where, "warn", M_("not found out: {cause}", cause=error.text), error.hint)
    text = M_("the keys may write to {place}, although the mount only reads", place=place)
    hint = M_(
        "give mountd keys that may list and read alone (s3:ListBucket, s3:GetObject): a stolen key changes nothing then"
    )
    try:
        await ask.run("deletefile", target)
    except RemoteError as error:
        facts = {"text": text, "object": target, "cause": error.text}
        text = M_("{text}; and {object}, which was tried, cannot be deleted: {cause}", **facts)
        return Check(where, "fail", text, hint)
    return Check(where, "warn", text, hint)


async def try_send(name: str, place: str, marker: Path, ask: BucketQuestion) -> Check:
    """For an outbox, whose keys have to write, and to look at what they have written; they need not delete."""
    where = M_("write of {name}", name=name)
    new, target = _new_object(place)
    try:
        await ask.run("copyto", *_ONCE, str(marker), target)
    except RemoteError as error:
        known = examine_rights.signature_check(where, error)
        if known is None or known.result != "ok":  # it is not a right that is refused
            return Check(where, "fail", error.text, error.hint)
        cause = error.text.rpartition(": ")[2]
        text = M_("the keys may not write to {place}: {cause}", place=place, cause=cause)
        hint = M_("allow them to write there: s3:PutObject; deploy/iam has a policy, results-writer")
        return Check(where, "fail", text, hint)
    can_read = await examine_rights.can_read(name, place, new, ask)
    failure: RemoteError | None = None
    try:
        await ask.run("deletefile", target)
    except RemoteError as error:
        failure = error
    if not can_read:
        text = M_("the keys may write to {place}, but not read what they wrote: no upload can be compared", place=place)
        if failure is not None:
            text = M_("{text}; {object} stays there", text=text, object=new)
        hint = M_("allow them to read there: s3:GetObject, with which HEAD is asked as well")
        return Check(where, "fail", text, hint)
    text = M_("the keys may write to {place}, and read what they wrote", place=place)
    if failure is None:
        return Check(where, "ok", text)
    if failure.code == "access-denied":
        text = M_("{text}; {object} stays there: they may not delete it, and need not", text=text, object=new)
        return Check(where, "ok", text)
    text = M_("{text}; {cause}", text=text, cause=failure.text)
    return Check(where, "warn", text, M_("delete {object}", object=target))
