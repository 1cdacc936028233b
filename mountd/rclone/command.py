"""A mount, its profile and the abilities of the binary → argv and environment of `rclone mount`.

Each layer of flags replaces the ones before it: mountd's defaults, the profile, the admin's options, and what mountd
must set itself. Facts marked [T] were tried with rclone 1.60.1 and 1.75.2.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mountd.errors import ConfigError, Problem
from mountd.rclone import credentials, keys
from mountd.rclone.address import RcAddress
from mountd.rclone.advice import advise
from mountd.settings import environment as inherited
from mountd.settings import profiles
from mountd.settings.schema import Flag, MountSettings, RemoteSettings
from mountd.settings.words import MAX_PROBLEMS, did_you_mean

if TYPE_CHECKING:
    from mountd.rclone.binary import Binary

_CA_BUNDLE = "AWS_CA_BUNDLE"
_NEVER = ("daemon", "daemon-wait", "daemon-timeout", "rc-no-auth", "allow-non-empty", "log-file")


@dataclass(frozen=True, slots=True)
class CacheSize:
    """In bytes; `room_bytes` is what is free on the cache's file system plus what the cache holds, if known."""

    max_bytes: int | None = None
    min_free_bytes: int = 0
    room_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class MountCommand:
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:  # the environment holds the password of the remote control
        return f"MountCommand(argv={self.argv!r}, warnings={self.warnings!r})"


def mount_command(
    name: str,
    mount: MountSettings,
    remote: RemoteSettings,
    *,
    binary: Binary,
    conf: Path,
    devname: str,
    allow_other: bool,
    rc: RcAddress,
    cache: CacheSize | None,
    environment: Mapping[str, str],
    beneath: Collection[RemoteSettings] = (),
    secret_variables: Collection[str] = (),
    notify_socket: str | None = None,
) -> MountCommand:
    """What to spawn for the mount `name`. `environment` is mountd's own, `secret_variables` in it held secrets;
    `beneath` are the remotes that `remote` wraps. Without a `cache`, whatever the profile says, rclone keeps nothing on
    local disk.

    Raises ConfigError, with every unknown flag, when the admin's options name flags that this binary does not have.
    """
    refuse_unknown(name, mount, binary)
    warnings = [f"mounts.{name}.options.{flag} {why}" for flag, why in advise(mount)]
    flags: dict[str, Flag] = {}
    for layer in (_defaults(mount, environment), _profile(mount, remote, binary), mount.options):
        flags |= layer
    flags |= _own(
        mount, conf=conf, devname=devname, allow_other=allow_other, rc=rc, cache=cache, binary=binary, warnings=warnings
    )
    argv = [str(binary.path), "mount", source(mount.remote), str(mount.path)]
    for flag, value in flags.items():
        if flag in binary.flags:
            argv += _spelled(flag, value)
        else:
            warnings.append(f"mounts.{name}: {binary} does not know --{flag}; mountd goes on without it")
    child = _environment(environment, (remote, *beneath), secret_variables)
    child |= {"RCLONE_RC_USER": rc.user, "RCLONE_RC_PASS": rc.password}  # never in argv, which everybody can read
    if notify_socket is not None:
        child["NOTIFY_SOCKET"] = notify_socket
    return MountCommand(tuple(argv), child, tuple(warnings))


def source(remote: str) -> str:
    """`remote:bucket/prefix` → the same with a trailing slash.

    Without it rclone asks whether the prefix is a file, and 1.75 takes the silence of a store that is down for a yes:
    "is a file not a directory" [T].
    """
    prefix, separator, path = remote.partition(":")
    if "/" in path.strip("/") or path.startswith("/"):
        path = path.rstrip("/") + "/"
    return f"{prefix}{separator}{path}"


def _defaults(mount: MountSettings, environment: Mapping[str, str]) -> dict[str, Flag]:
    """What an admin's option replaces."""
    flags: dict[str, Flag] = {}
    if not mount.options.keys() & {"verbose", "quiet"}:  # rclone refuses both together [T]
        flags["log-level"] = "INFO"
    if bundle := environment.get(_CA_BUNDLE):
        # The variable itself stops 1.60 ("unsupported transport") and some newer ones with env_auth [T].
        flags["ca-cert"] = bundle
    return flags


def _profile(mount: MountSettings, remote: RemoteSettings, binary: Binary) -> dict[str, Flag]:
    flags = profiles.flags(mount.profile, remote.type).values()
    return {flag.name: flag.value for flag in flags if not flag.may_lack or flag.name in binary.flags}


def _own(
    mount: MountSettings,
    *,
    conf: Path,
    devname: str,
    allow_other: bool,
    rc: RcAddress,
    cache: CacheSize | None,
    binary: Binary,
    warnings: list[str],
) -> dict[str, Flag]:
    flags: dict[str, Flag] = {
        "config": str(conf),
        "devname": devname,
        "use-json-log": True,
        "rc": True,
        "rc-addr": rc.flag,
        "rc-serve": True,  # a byte of one object can be asked for, past the mount
        "exclude": keys.merged(mount.options.get("exclude")),
        "allow-other": allow_other,
    }
    if mount.uid is not None:
        flags["uid"] = str(mount.uid)
    if mount.gid is not None:
        flags["gid"] = str(mount.gid)
    if mount.umask is not None:
        flags["umask"] = f"{mount.umask:04o}"  # 1.60 takes a number without a leading 0 for a decimal one [T]
    return flags | ({"vfs-cache-mode": "off"} if cache is None else _cache(mount, cache, binary, warnings))


def _cache(mount: MountSettings, cache: CacheSize, binary: Binary, warnings: list[str]) -> dict[str, Flag]:
    flags: dict[str, Flag] = {"cache-dir": str(mount.cache.dir)}
    largest = cache.max_bytes
    if cache.min_free_bytes and binary.has_min_free_space:
        flags["vfs-cache-min-free-space"] = f"{cache.min_free_bytes}B"
    elif cache.min_free_bytes:
        largest = _leaving_free(cache)
        warnings.append(
            f"{binary} cannot keep a part of the disk free (1.64 can): "
            + (
                "cache.min_free is ignored"
                if largest == cache.max_bytes
                else f"the cache is limited to {largest} bytes instead"
            )
        )
    if largest is not None:
        flags["vfs-cache-max-size"] = f"{largest}B"  # a number without a unit would mean KiB
    return flags


def _leaving_free(cache: CacheSize) -> int | None:
    """The limit that keeps `min_free_bytes` free as long as nobody else fills the disk."""
    if cache.room_bytes is None:
        return cache.max_bytes
    room = max(cache.room_bytes - cache.min_free_bytes, 1)
    return room if cache.max_bytes is None else min(room, cache.max_bytes)


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
    """AWS_* are for a remote that asks for them (env_auth) alone: rclone shall not find keys of others."""
    asking = [each for each in remotes if credentials.takes_environment(each.options)]
    env_auth = bool(asking)
    # Else both SDKs read ~/.aws/credentials as well, and 1.60.1 stops at one that is broken [T].
    alone = any(each.type == "s3" for each in remotes) and not env_auth
    child = {"AWS_SHARED_CREDENTIALS_FILE": os.devnull} if alone else {}
    return child | {
        variable: value
        for variable, value in inherited.of_rclone(given, [each.type for each in asking]).items()
        if (variable not in secret_variables or (env_auth and variable in credentials.VARIABLES))
        and variable != _CA_BUNDLE
    }
