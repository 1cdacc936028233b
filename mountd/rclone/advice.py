"""An admin's options of a mount → warnings: flags that do nothing there, and flags that do harm."""

from __future__ import annotations

from mountd.settings.schema import Flag, MountSettings
from mountd.settings.units import parse_duration

_WHATEVER_VALUE = {
    "checkers": "has no effect on a mount",
    "transfers": "acts on uploads only: reads from a mount do not use it",
}
_WHEN_ON = {
    "direct-io": "turns off the kernel's page cache, and programs that map model files into memory fail",
    "vfs-used-is-size": "lists the whole bucket each time a program asks for free space",
    "links": "turns names that end in .rclonelink into links and adds nothing on S3",
    "vfs-links": "turns names that end in .rclonelink into links and adds nothing on S3",
    "no-modtime": "gives every file the time of the mount; use-server-modtime costs as little and shows the right one",
    "fast-list": "has no effect on a mount but memory: directories are listed one by one",
    "no-check-certificate": "lets anyone on the network path read the keys and change the models; use ca-cert",
    "vfs-fast-fingerprint": "misses a replaced file of the same size: never change a version in place",
}
HOUR_S = 3600.0


def advise(mount: MountSettings) -> list[tuple[str, str]]:
    """Each option of the mount that is useless or harmful, and why."""
    found = []
    for flag, value in mount.options.items():
        if (
            why := _WHATEVER_VALUE.get(flag)
            or (_WHEN_ON.get(flag) if value in (True, "true") else None)
            or _by_value(flag, value, mount)
        ):
            found.append((flag, why))
    return found


def _by_value(flag: str, value: Flag, mount: MountSettings) -> str | None:
    if flag == "timeout" and (seconds := _seconds(value)) is not None and (seconds >= HOUR_S or seconds == 0):
        return "never notices a stall" if seconds == 0 else "finds a stall an hour late; 60s is enough"
    if flag == "vfs-read-chunk-streams" and isinstance(value, str) and value.isdecimal() and int(value) >= 2:
        return "can hang readers for good after a network error (rclone #9900)"
    if flag == "vfs-cache-max-age" and _seconds(value) == 0:
        return "empties the cache of everything that is not open"
    if flag == "vfs-cache-mode" and mount.profile == "model-hub" and value != "full":
        return "fetches every read from the bucket again; only full keeps what was read"
    return None


def _seconds(value: Flag) -> float | None:
    try:
        return parse_duration(value) if isinstance(value, str) else None
    except ValueError:
        return None
