"""What rclone would be given, for `config render` and `doctor`: rclone.conf with masked secrets, and commands."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..mount import table
from ..process.instance import Instance
from ..rclone import binary as binaries
from ..rclone.address import RcAddress
from ..rclone.binary import Binary
from ..rclone.command import CacheSize, MountCommand, mount_command
from ..rclone.conf import render_masked
from ..settings.schema import Settings


def render(settings: Settings) -> tuple[str, dict[str, dict[str, Any]]]:
    """The text of rclone.conf, and for each mount `{argv, warnings}`. Raises CannotStart (no rclone), ConfigError."""
    found = binaries.find(settings.rclone.binary)
    remotes = {name: {"type": remote.type, **remote.options} for name, remote in settings.remotes.items()}
    conf = Instance.of(settings.state, settings.runtime).private / "rclone.conf"
    commands = {name: command_of(settings, name, found, conf) for name in settings.mounts}
    plain = {name: {"argv": list(each.argv), "warnings": list(each.warnings)} for name, each in commands.items()}
    return render_masked(remotes, found.password_options), plain


def command_of(settings: Settings, name: str, binary: Binary, conf: Path) -> MountCommand:
    """As the daemon would start the mount `name`; the password of its remote control is made up anew at each start."""
    mount = settings.mounts[name]
    instance = Instance.of(settings.state, settings.runtime)
    usage = os.statvfs(nearest(mount.cache.dir))
    total = usage.f_blocks * usage.f_frsize
    max_size = mount.cache.max_size
    return mount_command(
        name,
        mount,
        settings.remotes[mount.remote_name],
        binary=binary,
        conf=conf,
        devname=table.devname(instance.id, name),
        allow_other=settings.allows_other(mount, root=os.geteuid() == 0),
        rc=RcAddress("mountd", "shown-to-nobody", socket=instance.private / f"rc-{name}.sock"),
        cache=CacheSize(
            max_bytes=max_size.of(total) if max_size else None,
            min_free_bytes=mount.cache.min_free.of(total),
            room_bytes=usage.f_bavail * usage.f_frsize,
        ),
        environment=os.environ,
        secret_variables=settings.secret_variables(),
    )


def nearest(path: Path) -> Path:
    """The path itself or the closest directory above it that exists."""
    while not os.path.exists(path) and path != path.parent:
        path = path.parent
    return path
