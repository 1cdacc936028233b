"""Which daemon a command means: the named one, else the one that answers at a usual place."""

from __future__ import annotations

import json
import os
import stat
import time
from typing import Any

from mountd.client.api import connect, how_to_start

SYSTEM_SOCKET = "/run/mountd/mountd.sock"
CONFIG_DIRECTORY = "/etc/mountd"
PROBE_TIMEOUT_S = 1.0
MAX_ENTRY_BYTES = 64 * 1024


def find(named: str | None, config: str | None) -> str:
    """The path of the control socket.

    Raises Unreachable when none answers, UsageError when two demos run, ConfigError when there is no such file.
    """
    config = config or os.environ.get("MOUNTD_CONFIG")
    if named or (named := os.environ.get("MOUNTD_SOCKET")):
        return named
    if config:
        from pathlib import Path

        from mountd.settings.control_socket import named_in

        if written := named_in(Path(config)) or _instance_socket(config):
            return written
    usual = [path for path in (_unit_socket(), SYSTEM_SOCKET, _user_socket()) if path]
    for path in usual:
        if _answers(path):
            return path
    demos = running_demos()
    if len(demos) > 1:
        demos = [demo for demo in demos if _answers(demo["socket"])] or demos
    if len(demos) > 1:
        from mountd.errors import UsageError

        lines = "".join(f"\n  --socket {demo['socket']}    {demo.get('directory', '')}" for demo in demos)
        raise UsageError(f"{len(demos)} demos are running; say which one is meant:{lines}")
    if demos:
        return str(demos[0]["socket"])
    from mountd.errors import Unreachable

    raise Unreachable(
        f"cannot reach mountd: no daemon answers at {', '.join(usual)}, and no demo runs",
        hint=f"start it (`{how_to_start()}`), or try `mountd demo`; --socket names another place",
    )


def demo_directories() -> list[str]:
    """Where the demos of this user are registered, whether or not they exist; the first one is for new entries."""
    name = f"mountd-demos-{os.getuid()}"
    temporary = os.environ.get("TMPDIR", "")
    bases = [os.environ.get("XDG_RUNTIME_DIR"), temporary if temporary.startswith("/") else "/tmp"]  # noqa: S108
    return [os.path.join(base, name) for base in bases if base]


def running_demos() -> list[dict[str, Any]]:
    """`{pid, socket, directory, started}` of each registered demo whose process lives, the oldest first."""
    found: dict[str, dict[str, Any]] = {}
    for directory in demo_directories():
        if not _is_ours(directory, 0o077):
            continue
        for name in os.listdir(directory):
            entry = _read_entry(os.path.join(directory, name)) if name.endswith(".json") else None
            if entry and _lives(entry["pid"]):
                found[entry["socket"]] = entry
    return sorted(found.values(), key=lambda entry: str(entry.get("started", "")))


def _instance_socket(config: str) -> str:
    """That of the unit mountd@NAME, whose file is /etc/mountd/NAME.yaml; "" when systemd made it no directory."""
    directory, file = os.path.split(os.path.abspath(config))
    name, extension = os.path.splitext(file)
    if directory != CONFIG_DIRECTORY or extension != ".yaml" or name == "mountd":
        return ""
    runtime = os.path.join(os.path.dirname(os.path.dirname(SYSTEM_SOCKET)), f"mountd-{name}")
    return os.path.join(runtime, "mountd.sock") if os.path.isdir(runtime) else ""


def _unit_socket() -> str:
    """For a command that runs in the daemon's own systemd unit, as ExecReload= does; else ""."""
    directory = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    return os.path.join(directory, "mountd.sock") if directory.startswith("/") else ""


def _user_socket() -> str:
    """The socket of a daemon that this user runs, "" where another user could have put one."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        return os.path.join(runtime, "mountd", "mountd.sock")
    directory = f"/tmp/mountd-{os.getuid()}"  # noqa: S108
    return os.path.join(directory, "mountd.sock") if _is_ours(directory, 0o022) else ""


def _answers(path: str) -> bool:
    """Whether something listens there; also True without permission, so that the command can say so."""
    try:
        connect(path, time.monotonic() + PROBE_TIMEOUT_S).close()
    except (PermissionError, TimeoutError):
        return True
    except OSError:
        return False
    return True


def _is_ours(directory: str, forbidden_mode: int) -> bool:
    try:
        info = os.lstat(directory)
    except OSError:
        return False
    return stat.S_ISDIR(info.st_mode) and info.st_uid == os.getuid() and not info.st_mode & forbidden_mode


def _read_entry(path: str) -> dict[str, Any] | None:
    try:
        with open(path, "rb") as file:
            entry = json.loads(file.read(MAX_ENTRY_BYTES))
    except (OSError, ValueError):
        return None
    wanted = isinstance(entry, dict) and isinstance(entry.get("pid"), int) and isinstance(entry.get("socket"), str)
    return entry if wanted and entry["pid"] > 0 else None


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:  # also for another user's process, which is not our demo
        return False
    return True
