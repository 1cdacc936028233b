"""A mount, its profile and the features of the binary → argv and environment of `rclone mount`, and what is unwise.

Each layer of flags replaces the ones before it: mountd's defaults, the profile, the admin's options, and what mountd
must set itself. Tried with rclone 1.75.2.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mountd.errors import ConfigError, Problem
from mountd.rclone import credentials, keys
from mountd.settings import environment as inherited
from mountd.settings import profiles
from mountd.settings.remotes import RemoteSettings
from mountd.settings.schema import MODEL_PROFILES, Flag, MountSettings, Settings
from mountd.settings.units import parse_duration
from mountd.settings.words import MAX_PROBLEMS, did_you_mean

if TYPE_CHECKING:
    from mountd.rclone.binary import Binary

_CA_BUNDLE = "AWS_CA_BUNDLE"
_NEVER = ("daemon", "daemon-wait", "daemon-timeout", "rc-no-auth", "allow-non-empty", "log-file")
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
_OF_THE_CONNECTION = ("ca-cert", "no-check-certificate", "s3-")
_OF_UPLOADS = {
    # A key that may only write results may not look whether there is a bucket, and shall not make one.
    "RCLONE_S3_NO_CHECK_BUCKET": "true",
    # mountd compares what has arrived: not all keys may look at it, and not all ETags are what rclone takes them for.
    "RCLONE_S3_NO_HEAD": "true",
    "RCLONE_S3_USE_MULTIPART_ETAG": "false",
}


@dataclass(frozen=True, slots=True)
class RcAddress:
    """Of rclone's remote control: a Unix socket, which every user of this machine may connect to, so it asks for user
    and password. `authorization` is the HTTP header."""

    user: str
    password: str = field(repr=False)
    socket: Path

    @property
    def authorization(self) -> str:
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


@dataclass(frozen=True, slots=True)
class CacheSize:
    """Limits in bytes: of what the cache holds, and of what stays free on its file system."""

    max_bytes: int | None = None
    min_free_bytes: int = 0


@dataclass(frozen=True, slots=True)
class MountCommand:
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:  # the environment holds the password of the remote control
        return f"MountCommand(argv={self.argv!r}, warnings={self.warnings!r})"


@dataclass(frozen=True, slots=True)
class Launch:
    """What a start of rclone needs beside the settings. Without a `cache`, whatever the profile says, rclone keeps
    nothing on local disk."""

    binary: Binary
    conf: Path
    devname: str
    allow_other: bool
    rc: RcAddress
    cache: CacheSize | None
    notify_socket: Path | None = None


@dataclass(frozen=True, slots=True)
class UploadLaunch:
    """`limit`: bytes a second."""

    binary: Binary
    conf: Path
    rc: RcAddress
    limit: int | None = None


def mount_command(settings: Settings, name: str, launch: Launch, environment: Mapping[str, str]) -> MountCommand:
    """What to spawn for the mount `name`; `environment` is mountd's own.

    Raises ConfigError, with every unknown flag, when the admin's options name flags that this binary does not have.
    """
    mount, binary = settings.mounts[name], launch.binary
    remotes = [settings.remotes[each] for each in settings.beneath(mount.remote_name)]  # its own first
    refuse_unknown(name, mount, binary)
    warnings = [f"mounts.{name}.options.{flag} {why}" for flag, why in advise(mount)]
    profile = profiles.flags(mount.profile, remotes[0].type)
    known = {flag: value for flag, value in profile.items() if flag not in profiles.MAY_LACK or flag in binary.flags}
    flags = _defaults(mount, environment) | known | mount.options | _own(mount, launch)
    argv = [str(binary.path), "mount", source(mount.remote), str(mount.path)]
    for flag, value in flags.items():
        if flag in binary.flags:
            argv += _spelled(flag, value)
        else:
            warnings.append(f"mounts.{name}: {binary} does not know --{flag}; mountd goes on without it")
    child = _environment(environment, remotes, settings.secret_variables())
    rc = {"RCLONE_RC_USER": launch.rc.user, "RCLONE_RC_PASS": launch.rc.password}  # in argv everybody could read them
    notify = {"NOTIFY_SOCKET": str(launch.notify_socket)} if launch.notify_socket is not None else {}
    tuned = profiles.ENVIRONMENT.get(mount.profile, {})
    return MountCommand(tuple(argv), tuned | child | rc | notify, tuple(warnings))


def upload_command(
    settings: Settings, remote: str, launch: UploadLaunch, environment: Mapping[str, str]
) -> MountCommand:
    """What to spawn for an rclone that uploads single files to `remote` (`name:bucket/prefix`) when it is asked to.

    How it gets to the store is what the first mount on the same remote says. `environment` is mountd's own.
    """
    name, binary = remote.partition(":")[0], launch.binary
    remotes = [settings.remotes[each] for each in settings.beneath(name)]
    options = next((each.options for each in settings.mounts.values() if each.remote_name == name), {})
    bundle = environment.get(_CA_BUNDLE)
    flags: dict[str, Flag] = {"ca-cert": bundle} if bundle else {}
    flags |= {flag: value for flag, value in options.items() if flag.startswith(_OF_THE_CONNECTION)}
    flags |= {
        "config": str(launch.conf),
        "rc-addr": f"unix://{launch.rc.socket}",
        "use-json-log": True,
        "log-level": "NOTICE",
        "contimeout": "15s",
        "timeout": "60s",
        "retries": "1",
        "low-level-retries": "3",
        "ask-password": False,
        # An upload is one call: after rclone's hour the answer of one that takes longer never comes.
        "rc-server-read-timeout": "0",
        "rc-server-write-timeout": "0",
    }
    if launch.limit is not None:
        flags["bwlimit"] = f"{launch.limit}B"
    argv = [str(binary.path), "rcd"]
    for flag, value in flags.items():
        if flag in binary.flags or flag == "rc-addr":
            argv += _spelled(flag, value)
    child = _environment(environment, remotes, settings.secret_variables())
    own = {"RCLONE_RC_USER": launch.rc.user, "RCLONE_RC_PASS": launch.rc.password}
    return MountCommand(tuple(argv), child | _OF_UPLOADS | own)


def source(remote: str) -> str:
    """`remote:bucket/prefix` → the same with a trailing slash.

    Without it rclone asks whether the prefix is a file, and since 1.74.4 takes the silence of a store that is down for
    a yes: "is a file not a directory".
    """
    prefix, separator, path = remote.partition(":")
    if "/" in path.strip("/") or path.startswith("/"):
        path = path.rstrip("/") + "/"
    return f"{prefix}{separator}{path}"


def _defaults(mount: MountSettings, environment: Mapping[str, str]) -> dict[str, Flag]:
    """What an admin's option replaces."""
    flags: dict[str, Flag] = {}
    if not mount.options.keys() & {"verbose", "quiet"}:  # rclone refuses both together
        flags["log-level"] = "INFO"
    if bundle := environment.get(_CA_BUNDLE):
        # The variable itself makes some versions fail with env_auth.
        flags["ca-cert"] = bundle
    return flags


def _own(mount: MountSettings, launch: Launch) -> dict[str, Flag]:
    flags: dict[str, Flag] = {
        "config": str(launch.conf),
        "devname": launch.devname,
        "use-json-log": True,
        "rc": True,
        "rc-addr": f"unix://{launch.rc.socket}",
        "rc-serve": True,  # a byte of one object can be asked for, past the mount
        "exclude": [*keys.EXCLUDED, *keys.patterns(mount.options.get("exclude"))],
        "allow-other": launch.allow_other,
    }
    if mount.uid is not None:
        flags["uid"] = str(mount.uid)
    if mount.gid is not None:
        flags["gid"] = str(mount.gid)
    if mount.umask is not None:
        flags["umask"] = f"{mount.umask:04o}"
    cache = launch.cache
    if cache is None:
        return flags | {"vfs-cache-mode": "off"}
    flags["cache-dir"] = str(mount.cache.dir)
    if cache.min_free_bytes:
        flags["vfs-cache-min-free-space"] = f"{cache.min_free_bytes}B"  # a number without a unit would mean KiB
    if cache.max_bytes is not None:
        flags["vfs-cache-max-size"] = f"{cache.max_bytes}B"
    return flags


def refuse_unknown(name: str, mount: MountSettings, binary: Binary) -> None:
    """Raises ConfigError for each option of the mount that this rclone does not have."""
    problems: list[Problem] = []
    for flag in mount.options:
        if len(problems) == MAX_PROBLEMS:
            break
        place = f"mounts.{name}.options.{flag}"
        if flag in _NEVER:
            problems.append(Problem(place, 0, "cannot be set here: mountd decides it"))
        elif flag not in binary.flags:
            meant = did_you_mean(flag, sorted(binary.flags))
            problems.append(Problem(place, 0, f"{binary} has no flag --{flag}{meant}"))
    if problems:
        raise ConfigError(
            f"the options of mounts.{name}",
            problems,
            hint=f"`{binary.path} help flags` and `{binary.path} mount --help` list the flags",
        )


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
    if flag == "vfs-cache-mode" and mount.profile in MODEL_PROFILES and value != "full":
        return "fetches every read from the bucket again; only full keeps what was read"
    return None


def _seconds(value: Flag) -> float | None:
    try:
        return parse_duration(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _spelled(flag: str, value: Flag) -> list[str]:
    """Always `--flag=value`, so that a value that starts with a dash stays one."""
    if value is True:
        return [f"--{flag}"]
    if value is False:
        return [f"--{flag}=false"]
    if isinstance(value, list):
        return [f"--{flag}={each}" for each in value]
    return [f"--{flag}={value}"]


def _environment(
    given: Mapping[str, str], remotes: Collection[RemoteSettings], secret_variables: Collection[str]
) -> dict[str, str]:
    """AWS_* are for a remote that asks for them (env_auth) alone: rclone must not find keys of others."""
    asking = [each for each in remotes if credentials.takes_environment(each.options)]
    env_auth = bool(asking)
    # Else the SDK reads ~/.aws/credentials as well.
    alone = any(each.type == "s3" for each in remotes) and not env_auth
    child = {"AWS_SHARED_CREDENTIALS_FILE": "/dev/null"} if alone else {}
    return child | {
        variable: value
        for variable, value in inherited.of_rclone(given, [each.type for each in asking]).items()
        if (variable not in secret_variables or (env_auth and variable in credentials.VARIABLES))
        and variable != _CA_BUNDLE
    }
