"""What `doctor --try-write` finds out: whether the keys of a mount that only reads may write as well.

A tiny object is sent where nothing of that name is. It is expected to be refused; where it is not, it is deleted again.
"""

from __future__ import annotations

import asyncio
import secrets
import tempfile
from pathlib import Path

from mountd.cli.examine import Check
from mountd.cli.examine_rights import BucketQuestion
from mountd.cli.render import command_of, write_conf
from mountd.errors import MountdError, RemoteError
from mountd.rclone.binary import Binary
from mountd.settings import profiles
from mountd.settings.schema import Settings

PREFIX = ".mountd-doctor-"
CONTENT = "`mountd doctor --try-write` has sent this object to see whether it may; it can be deleted.\n"
_ONCE = ("--s3-no-check-bucket", "--s3-no-head", "--no-check-dest")
"""One request alone: no bucket is made, nothing is looked up."""


async def rights(settings: Settings, binary: Binary) -> list[Check]:
    """A line for each mount that only reads; all at the same time."""
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
            *(try_write(name, settings.mounts[name].remote, marker, ask) for name, ask in asked.items())
        )


async def try_write(name: str, place: str, marker: Path, ask: BucketQuestion) -> Check:
    """`place`: REMOTE:BUCKET…, where a new object with the content of `marker` is tried."""
    where = f"write of {name}"
    target = f"{place.rstrip('/')}{'' if place.endswith(':') else '/'}{PREFIX}{secrets.token_hex(8)}"
    try:
        await ask.run("copyto", *_ONCE, str(marker), target)
    except RemoteError as error:
        if error.code == "access-denied":
            return Check(where, "ok", f"the keys may not write to {place}, and the mount only reads")
        return Check(where, "warn", f"not found out: {error.text}", error.hint)
    text = f"the keys may write to {place}, although the mount only reads"
    hint = (
        "give mountd keys that may list and read alone (s3:ListBucket, s3:GetObject): a stolen key changes nothing then"
    )
    try:
        await ask.run("deletefile", target)
    except RemoteError as error:
        return Check(where, "fail", f"{text}; and {target}, which was tried, cannot be deleted: {error.text}", hint)
    return Check(where, "warn", text, hint)
