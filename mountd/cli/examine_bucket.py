"""What `doctor` checks with rclone: is it there, can each bucket be listed, and which versions it holds."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from mountd.cli import examine_outbox, examine_rights
from mountd.cli.examine import Check
from mountd.cli.examine_rights import BucketQuestion
from mountd.cli.render import command_of, write_conf
from mountd.errors import MountdError, RemoteError
from mountd.i18n import M_
from mountd.model import manifest
from mountd.model.layout import Layout
from mountd.rclone import binary as binaries
from mountd.rclone import keys
from mountd.rclone.binary import Binary
from mountd.rclone.command import source
from mountd.rclone.keys import BucketEntry
from mountd.settings.schema import Settings

SHOWN_VERSIONS = 8
DEEPEST = 4
"""Directories within those of a version, among which a small file is looked for."""


async def rclone(settings: Settings) -> tuple[Binary | None, Check]:
    try:
        found = await asyncio.to_thread(binaries.find, settings.rclone.binary)
    except MountdError as error:
        return None, Check("rclone", "fail", error.text, error.hint)
    text = M_("{rclone} at {place}", rclone=str(found), place=found.path)
    for each in found.passed_over:
        text = M_("{text}; passed over: {other}", text=text, other=each)
    return found, Check("rclone", "ok", text)


async def buckets(settings: Settings, binary: Binary) -> list[Check]:
    """One line for each mount's bucket and, where it can be listed, one for each model; and one for each outbox's
    bucket; all at the same time."""
    with tempfile.TemporaryDirectory(prefix="mountd-doctor-") as directory:  # 0700, for its file of secrets
        try:
            conf = (await write_conf(settings, binary, Path(directory))).path
        except MountdError as error:
            return [Check("rclone.conf", "fail", error.text, error.hint)]
        found = await asyncio.gather(
            *(_bucket(settings, name, binary, conf) for name in settings.mounts),
            *(examine_outbox.bucket(settings, name, binary, conf) for name in settings.outbox),
        )
        return [check for checks in found for check in checks]


async def _bucket(settings: Settings, name: str, binary: Binary, conf: Path) -> list[Check]:
    mount = settings.mounts[name]
    remote, models = settings.remotes[mount.remote_name], settings.models
    where = M_("bucket of {name}", name=name)
    try:
        command = command_of(settings, name, binary, conf)
    except MountdError as error:
        return [Check(M_("mount {name}", name=name), "fail", error.text, error.hint)]
    checks = [Check(M_("mount {name}", name=name), "warn", warning) for warning in command.warnings]
    ask = BucketQuestion(command, binary, conf)
    own = {model_name: model for model_name, model in models.items() if model.mount == name}
    inside = [Layout(model.directory).directory(model.version) for model in own.values() if model.version is not None]
    try:
        entries = await ask.list(source(mount.remote))
    except RemoteError as error:
        checks += await examine_rights.refused(name, remote, mount.remote, ask, error)
        known = (f"{each}/{manifest.NAME}" for each in inside)
        read = await examine_rights.read_unlisted(name, mount.remote, known, ask) if remote.type == "s3" else None
        return [*checks, *([read] if read else [])]
    if not entries and (style := await examine_rights.style_check(name, remote, mount.remote, ask)):
        return [*checks, style]
    checks += examine_rights.accepted(name, remote, mount.remote)
    if not entries:
        text = M_("{place} can be listed, and is empty", place=mount.remote)
        hint = M_("upload a version: mountd goes live by itself when one is complete")
        return [*checks, Check(where, "warn", text, hint)]
    checks.append(Check(where, "ok", M_("{place} can be listed", place=mount.remote)))
    if left_out := keys.describe(keys.unusable([_item(entry) for entry in entries])):
        text = M_("objects that cannot be paths are left out: {names}", names="; ".join(left_out))
        checks.append(Check(where, "warn", text, M_("rename or delete them; nothing else is affected")))
    held = ""
    for model_name, model in own.items():
        layout = Layout(model.directory)
        try:
            parent = source(f"{mount.remote.rstrip('/')}/{layout.parent}")
            names = await ask.list(parent) if layout.parent else entries
        except RemoteError as error:
            checks.append(Check(M_("versions of {name}", name=model_name), "fail", error.text, error.hint))
            continue
        versions = [each for entry in names if entry.endswith("/") and (each := layout.version_of(entry[:-1]))]
        checks.append(_versions(model_name, model.version, versions))
        if versions:
            held = layout.directory(model.version if model.version in versions else versions[0])
    place = f"{mount.remote.rstrip('/')}/{held}" if held else mount.remote
    read = await examine_rights.read(name, place, ask, depth=DEEPEST if held else 1)
    return [*checks, *([read] if read else [])]


def _item(entry: str) -> BucketEntry:
    """Of a line of lsf, which ends a directory with a slash."""
    path = entry.removesuffix("/")
    return BucketEntry(path, path, -1, is_dir=path != entry)


def _versions(model: str, wanted: str | None, found: list[str]) -> Check:
    """`wanted` None: a source outside says it."""
    where = M_("versions of {name}", name=model)
    if not found:
        hint = M_("compare models.*.directory with what the bucket holds")
        return Check(where, "fail", M_("there is none in the bucket"), hint)
    names, more = ", ".join(found[:SHOWN_VERSIONS]), len(found) - SHOWN_VERSIONS
    listed = M_("{names} and {count} more", names=names, count=more) if more > 0 else names
    if wanted is not None and wanted not in found:
        text = M_("{version}, wanted at first start, is not among {names}", version=wanted, names=listed)
        return Check(where, "warn", text, M_("upload it, or correct `version`"))
    return Check(where, "ok", listed)
