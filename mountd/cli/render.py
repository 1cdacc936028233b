"""What rclone would be given, for `config render` and `doctor`: rclone.conf with masked secrets, and commands."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mountd.mount import engine
from mountd.process.instance import Instance
from mountd.rclone import binary as binaries
from mountd.rclone.address import RcAddress
from mountd.rclone.binary import Binary
from mountd.rclone.command import MountCommand
from mountd.rclone.conf import render_masked
from mountd.settings.schema import Settings


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
    instance = Instance.of(settings.state, settings.runtime)
    return engine.command_of(
        settings,
        name,
        instance=instance,
        binary=binary,
        conf=conf,
        rc=RcAddress("mountd", "shown-to-nobody", socket=instance.private / f"rc-{name}.sock"),
        cache=engine.cache_size(settings.mounts[name].cache, emulated=not binary.has_min_free_space),
        environment=os.environ,
    )


def nearest(path: Path) -> Path:
    """The path itself or the closest directory above it that exists."""
    while not os.path.exists(path) and path != path.parent:
        path = path.parent
    return path
