"""What `doctor` checks with rclone: is it there, can each bucket be listed, and which versions it holds."""

from __future__ import annotations

import asyncio
import re
import tempfile
from pathlib import Path

from mountd.cli.examine import Check
from mountd.cli.render import command_of, write_conf
from mountd.errors import MountdError, Unavailable
from mountd.model.layout import Layout
from mountd.process import tool
from mountd.rclone import binary as binaries
from mountd.rclone import keys
from mountd.rclone.binary import Binary
from mountd.rclone.command import MountCommand, source
from mountd.rclone.failures import classify
from mountd.rclone.keys import BucketEntry
from mountd.settings.schema import Settings

DEADLINE_S = 15.0
SHOWN_VERSIONS = 8
_LOG_PREFIX = re.compile(r"^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d [A-Z]+ *: ", re.MULTILINE)
_PATIENCE = ("--contimeout=5s", "--timeout=10s", "--retries=1", "--low-level-retries=1", "--log-level=ERROR")
_OF_THE_CONNECTION = ("--ca-cert=", "--no-check-certificate", "--s3-")


async def rclone(settings: Settings) -> tuple[Binary | None, Check]:
    try:
        found = await asyncio.to_thread(binaries.find, settings.rclone.binary)
    except MountdError as error:
        return None, Check("rclone", "fail", error.text, error.hint)
    passed_over = "".join(f"; passed over: {each}" for each in found.passed_over)
    return found, Check("rclone", "ok", f"{found} at {found.path}{passed_over}")


async def buckets(settings: Settings, binary: Binary) -> list[Check]:
    """One line for each mount's bucket and, where it can be listed, one for each model; all at the same time."""
    with tempfile.TemporaryDirectory(prefix="mountd-doctor-") as directory:  # 0700, for its file of secrets
        try:
            conf = (await write_conf(settings, binary, Path(directory))).path
        except MountdError as error:
            return [Check("rclone.conf", "fail", error.text, error.hint)]
        found = await asyncio.gather(*(_bucket(settings, name, binary, conf) for name in settings.mounts))
        return [check for checks in found for check in checks]


async def _bucket(settings: Settings, name: str, binary: Binary, conf: Path) -> list[Check]:
    mount = settings.mounts[name]
    where = f"bucket of {name}"
    try:
        command = command_of(settings, name, binary, conf)
    except MountdError as error:
        return [Check(f"mount {name}", "fail", error.text, error.hint)]
    checks = [Check(f"mount {name}", "warn", warning) for warning in command.warnings]
    try:
        entries = await _list(command, binary, conf, source(mount.remote))
    except MountdError as error:
        return [*checks, Check(where, "fail", error.text, error.hint)]
    if not entries:
        text = f"{mount.remote} can be listed, and is empty"
        return [
            *checks,
            Check(where, "warn", text, "upload a version: mountd goes live by itself when one is complete"),
        ]
    checks.append(Check(where, "ok", f"{mount.remote} can be listed"))
    if left_out := keys.describe(keys.unusable([_item(entry) for entry in entries])):
        text = f"objects that cannot be paths are left out: {'; '.join(left_out)}"
        checks.append(Check(where, "warn", text, "rename or delete them; nothing else is affected"))
    for model_name, model in settings.models.items():
        if model.mount != name:
            continue
        layout = Layout(model.directory)
        try:
            inside = source(f"{mount.remote.rstrip('/')}/{layout.parent}")
            names = await _list(command, binary, conf, inside) if layout.parent else entries
        except MountdError as error:
            checks.append(Check(f"versions of {model_name}", "fail", error.text, error.hint))
            continue
        versions = [layout.version_of(entry[:-1]) for entry in names if entry.endswith("/")]
        checks.append(_versions(model_name, model.version, [version for version in versions if version]))
    return checks


def _item(entry: str) -> BucketEntry:
    """Of a line of lsf, which ends a directory with a slash."""
    path = entry.removesuffix("/")
    return BucketEntry(path, path, -1, is_dir=path != entry)


def _versions(model: str, wanted: str, found: list[str]) -> Check:
    where = f"versions of {model}"
    shown = ", ".join(found[:SHOWN_VERSIONS]) + (
        f" and {len(found) - SHOWN_VERSIONS} more" if found[SHOWN_VERSIONS:] else ""
    )
    if not found:
        return Check(
            where, "fail", "there is none in the bucket", "compare models.*.directory with what the bucket holds"
        )
    if wanted not in found:
        hint = "upload it, or correct `version`"
        return Check(where, "warn", f"{wanted}, wanted at first start, is not among {shown}", hint)
    return Check(where, "ok", shown)


async def _list(command: MountCommand, binary: Binary, conf: Path, remote: str) -> list[str]:
    """Names at the root of `remote`, directories with a slash. Raises Unavailable with what rclone's answer means."""
    connection = [flag for flag in command.argv if flag.startswith(_OF_THE_CONNECTION)]
    environment = {name: value for name, value in command.environment.items() if not name.startswith("RCLONE_RC_")}
    argv = [str(binary.path), f"--config={conf}", *connection, *_PATIENCE, "lsf", remote]
    try:
        outcome = await tool.run(argv, timeout_s=DEADLINE_S, environment=environment)
    except Unavailable:
        raise Unavailable(
            f"{remote} did not answer within {DEADLINE_S:g} s", hint="check the network and the endpoint"
        ) from None
    if outcome.code != 0:
        failure = classify(_LOG_PREFIX.sub("", outcome.output))
        raise Unavailable(f"cannot list {remote}: {failure.text}", hint=failure.hint)
    return outcome.output.splitlines()
