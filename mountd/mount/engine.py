"""rclone for one mount: its configuration and command line, its process, its remote control and what it says."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path

import structlog

from mountd.errors import CannotStart, Unavailable
from mountd.mount import table
from mountd.process.child import Child, Exit, Ring, spawn
from mountd.process.instance import Instance
from mountd.process.notify import ReadySocket
from mountd.rclone.address import RcAddress
from mountd.rclone.binary import Binary
from mountd.rclone.command import CacheSize, MountCommand, mount_command
from mountd.rclone.conf_file import ConfFile, fingerprint
from mountd.rclone.log import parse
from mountd.rclone.rc import RcClient
from mountd.settings.schema import Cache, Settings

log = structlog.get_logger()

SAID_CHARACTERS = 500
RC_USER = "mountd"
ANSWERS = ('rc: "', "error listing: ")
"""So begin errors that answer a question of ours, which knows them already: an outage would log two each 2 s."""


class Engine:
    """One rclone after the other; `rc` is that of the present one."""

    def __init__(self, name: str, settings: Settings, instance: Instance, binary: Binary, conf: ConfFile) -> None:
        self.ring = Ring()
        self.child: Child | None = None
        self._name = name
        self._settings = settings
        self._instance = instance
        self._binary = binary
        self._conf = conf
        self._log = log.bind(mount=name)
        self._rc: RcClient | None = None
        self._notify: ReadySocket | None = None
        self._secrets_seen = ""
        self._last_error = ""

    @property
    def rc(self) -> RcClient:
        """Raises Unavailable while no rclone runs."""
        if self._rc is None:
            raise Unavailable(f"cannot ask rclone of mount {self._name}: it is not running")
        return self._rc

    async def spawn(self) -> Child:
        """Write rclone.conf and start `rclone mount`. Raises CannotStart, ConfigError (flags that it does not have)."""
        await self.close()
        await self._conf.write(self._settings)
        self._secrets_seen = await fingerprint(self._settings)
        address, cache = self._address(), self._settings.mounts[self._name].cache
        self._notify = ReadySocket(self._instance.private / f"notify-{self._name}.sock")
        command = command_of(
            self._settings,
            self._name,
            instance=self._instance,
            binary=self._binary,
            conf=self._conf.path,
            rc=address,
            cache=await asyncio.to_thread(cache_size, cache, emulated=not self._binary.has_min_free_space),
            environment=os.environ,
            notify_socket=str(self._notify.path),
        )
        for warning in command.warnings:
            self._log.warning("flag has no use", cause=warning)
        self._last_error = ""
        environment = {**command.environment, **self._instance.marks(self._name)}
        try:
            self.child = spawn(command.argv, environment, self._on_line)
        except OSError as error:
            raise CannotStart(f"cannot start rclone: {(error.strerror or str(error)).lower()}") from None
        self._rc = RcClient(address)
        return self.child

    def _address(self) -> RcAddress:
        password = secrets.token_urlsafe(24)
        if not self._binary.has_rc_socket:
            return RcAddress(RC_USER, password, port=_free_port())
        path = self._instance.private / f"rc-{self._name}.sock"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        return RcAddress(RC_USER, password, socket=path)

    def _on_line(self, line: str) -> None:
        event = parse(line, self._conf.secrets)
        self.ring.append(event.text)
        error = event.level == "error" and not event.text.startswith(ANSWERS)
        if error:
            self._last_error = event.text[:SAID_CHARACTERS]
        # Its notes about single objects are for `mountd logs`; its errors are ours to tell, as warnings: whether
        # something is really wrong is decided by the health questions.
        tell = self._log.warning if error else self._log.debug
        tell("rclone says", text=event.text, rclone=dict(event.keys))

    async def wait_mounted(self) -> None:
        """Until rclone says that it has mounted."""
        assert self._notify is not None
        await self._notify.wait()

    async def has_stale_secrets(self) -> bool:
        """Whether a secret has changed since this rclone was started. Raises CannotStart when one cannot be read."""
        return await fingerprint(self._settings) != self._secrets_seen

    def explain_exit(self, exit_: Exit) -> tuple[str, bool]:
        """What an exit means in words, and whether it is a usage error, which no retry mends."""
        # Before 1.69 a wrong flag ended it with 1 as well.
        usage = exit_.code == 2 or (exit_.code == 1 and "unknown flag" in self._last_error)
        said = f": {self._last_error}" if self._last_error else ""
        return f"rclone ended with {exit_}{said}", usage

    async def close(self) -> None:
        """After its end: no socket, no pipe left."""
        if self.child is not None:
            self.child.release()
            self.child = None
        if self._notify is not None:
            self._notify.close()
            self._notify = None
        if self._rc is not None:
            await self._rc.close()
            self._rc = None


def command_of(
    settings: Settings,
    name: str,
    *,
    instance: Instance,
    binary: Binary,
    conf: Path,
    rc: RcAddress,
    cache: CacheSize,
    environment: Mapping[str, str],
    notify_socket: str | None = None,
) -> MountCommand:
    """The command of mount `name` on this machine. Raises ConfigError for flags that the binary does not have."""
    mount = settings.mounts[name]
    return mount_command(
        name,
        mount,
        settings.remotes[mount.remote_name],
        binary=binary,
        conf=conf,
        devname=table.devname(instance.id, name),
        allow_other=settings.allows_other(mount, root=os.geteuid() == 0),
        rc=rc,
        cache=cache,
        environment=environment,
        secret_variables=settings.secret_variables(),
        notify_socket=notify_socket,
    )


def cache_size(cache: Cache, *, emulated: bool) -> CacheSize:
    """The cache's limits on this machine, in bytes. Walks the cache when `emulated`. Raises CannotStart.

    `emulated`: this rclone cannot keep a part of the disk free, so the room for the cache is counted here.
    """
    try:
        return _cache_size(cache, emulated=emulated)
    except OSError as error:
        cause = (error.strerror or str(error)).lower()
        raise CannotStart(f"cannot use the cache directory {cache.dir}: {cause}", hint="look at its disk") from None


def _cache_size(cache: Cache, *, emulated: bool) -> CacheSize:
    directory = cache.dir
    while not os.path.exists(directory) and directory != directory.parent:
        directory = directory.parent
    usage = os.statvfs(directory)
    total = usage.f_blocks * usage.f_frsize
    return CacheSize(
        max_bytes=cache.max_size.of(total) if cache.max_size else None,
        min_free_bytes=cache.min_free.of(total),
        room_bytes=usage.f_bavail * usage.f_frsize + _bytes_below(cache.dir) if emulated else None,
    )


def _bytes_below(directory: Path) -> int:
    """What the files below a directory on local disk take; what goes meanwhile takes nothing."""
    total = 0
    for parent, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(parent, name)).st_blocks * 512
    return total


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
