"""What rclone would get, for `config render` and `doctor`: its files with masked secrets, and commands."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from mountd.api.documents.commands import CommandDocument
from mountd.fuse import table
from mountd.mount import engine
from mountd.process.instance import Instance
from mountd.rclone import binary as binaries
from mountd.rclone import credentials
from mountd.rclone.binary import Binary
from mountd.rclone.command import Launch, MountCommand, RcAddress, UploadLaunch, mount_command, upload_command
from mountd.rclone.conf import render_masked, shown
from mountd.rclone.conf_file import ConfFile, record_path
from mountd.settings import masking
from mountd.settings.schema import Settings


def render(settings: Settings) -> tuple[dict[str, str], dict[str, CommandDocument]]:
    """The text of each file by its path, rclone.conf first, and for each mount `{argv, warnings}`.

    Raises CannotStart (no rclone), ConfigError.
    """
    found = binaries.find(settings.rclone.binary)
    remotes = {name: {"type": remote.type, **remote.options} for name, remote in settings.remotes.items()}
    conf = Instance.of(settings.state, settings.runtime).private / "rclone.conf"
    commands = {name: command_of(settings, name, found, conf) for name in settings.mounts}
    plain = {
        name: CommandDocument(argv=masking.command(each.argv), warnings=list(each.warnings))
        for name, each in commands.items()
    }
    split = credentials.split(remotes, conf.parent)
    files = {conf: render_masked(split.remotes, found.password_options)}
    if split.keys:
        files[conf.with_name(credentials.CONFIG_NAME)] = credentials.render_config(split.keys, conf.parent)
        files[conf.with_name(credentials.SCRIPT_NAME)] = credentials.SCRIPT
    for name, keys in split.keys.items():
        masked = {option: shown(option, value) for option, value in keys.items()}
        files[conf.with_name(credentials.keys_name(name))] = credentials.render_keys(masked)
    return {str(path): text for path, text in files.items()}, plain


def command_of(settings: Settings, name: str, binary: Binary, conf: Path) -> MountCommand:
    """As the daemon would start the mount `name`; the password of its remote control is random at each start."""
    instance = Instance.of(settings.state, settings.runtime)
    mount = settings.mounts[name]
    launch = Launch(
        binary=binary,
        conf=conf,
        devname=table.devname(instance.id, name),
        allow_other=settings.allows_other(mount, root=os.geteuid() == 0),
        rc=RcAddress("mountd", "shown-to-nobody", instance.private / f"rc-{name}.sock"),
        cache=engine.cache_size(mount.cache),
    )
    return mount_command(settings, name, launch, os.environ)


def upload_command_of(settings: Settings, name: str, binary: Binary, conf: Path) -> MountCommand:
    """As the daemon would start the rclone of the outbox `name`; its password as with `command_of`."""
    instance, outbox = Instance.of(settings.state, settings.runtime), settings.outbox[name]
    rc = RcAddress("mountd", "shown-to-nobody", instance.private / f"out-{name}.sock")
    return upload_command(settings, outbox.remote, UploadLaunch(binary, conf, rc, outbox.limit), os.environ)


async def write_conf(settings: Settings, binary: Binary, directory: Path) -> ConfFile:
    """An rclone.conf of our own in this private directory. Raises CannotStart, UsageError."""
    with contextlib.suppress(OSError):  # tokens that rclone renewed; a copy, as the record is the daemon's
        shutil.copy(record_path(settings.state), directory)
    file = ConfFile(directory / "rclone.conf", binary)
    await file.write(settings)
    return file


def nearest(path: Path) -> Path:
    """The path itself or the closest directory above it that exists."""
    while not os.path.exists(path) and path != path.parent:
        path = path.parent
    return path
