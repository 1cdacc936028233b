"""rclone for one mount: its configuration and command line, its process, its remote control and what it says."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import structlog

from mountd.cache.guard import WALK_LIMIT_S, silent
from mountd.errors import CannotStart, Unavailable, cause_of
from mountd.fuse import rights, table
from mountd.process.child import Child, Exit, Ring, spawn
from mountd.process.instance import Instance
from mountd.process.notify import ReadySocket
from mountd.process.resources import lack
from mountd.process.slow_disk import SlowDisk
from mountd.rclone.binary import Binary
from mountd.rclone.command import CacheSize, Launch, RcAddress, mount_command
from mountd.rclone.conf_file import ConfFile, RemoteSecrets, SecretChange
from mountd.rclone.dedupe import Deduplicator
from mountd.rclone.exits import OUTPUT_CHARACTERS, ExitCause, LastOutput, explain, explain_crash, refusal
from mountd.rclone.failures import is_of_keys
from mountd.rclone.log import DumpCapture, LogEvent, mask, parse
from mountd.rclone.rc import RcClient
from mountd.settings import profiles
from mountd.settings.schema import CacheSettings, MountSettings, Settings

log = structlog.get_logger()

FLOOD_LINES = 2000
"""More than a child may say at once: only its goroutines are as many, and cost little; lines of its log are long."""
LEAST_WRITE_BACK_S = 15.0
"""Of an rclone that finds files waiting for their upload: it must answer before it begins with them (`reopen.py`)."""
RESIGNED_S = 3.0
RC_USER = "mountd"
ANSWERS = ('rc: "', "error listing: ")
"""So begin errors that answer a request of mountd, which has them already: an outage would log two each 2 s."""


class Engine:
    """One rclone after the other; `rc` is that of the present one."""

    def __init__(self, name: str, settings: Settings, instance: Instance, binary: Binary, conf: ConfFile) -> None:
        self.ring = Ring()
        self.child: Child | None = None
        self.name = name
        self._settings = settings
        self._instance = instance
        self._binary = binary
        self._conf = conf
        self._log = log.bind(mount=name)
        self._rc: RcClient | None = None
        self._notify: ReadySocket | None = None
        self._given = RemoteSecrets()
        self._resigned_at: float | None = None
        self._is_refused = False
        """rclone has logged that its signature is refused, since a key id got another secret"""
        self._unreadable = ""
        """why the secrets behind this mount cannot be read now; it goes on with those it has"""
        self._said = LastOutput()
        self._dump = DumpCapture()
        self._dedupe = Deduplicator()
        self._flush_timer: asyncio.TimerHandle | None = None
        self._followers: list[Callable[[str], None]] = []
        self._disk = SlowDisk()
        self._launched: tuple[Launch, tuple[str, ...]] | None = None
        """what the present one was started with, and its command line by the configuration of that time"""
        self.detour: Mapping[str, str] = {}
        """variables that the next rclone gets besides, such as a proxy"""
        self.without_cache = False
        """whether the next rclone reads all from the bucket, again each time, and writes nothing to local disk"""
        self.reopens = False
        """whether the next rclone finds files that wait for their upload: it must not begin with them at once"""
        self.trouble = asyncio.Event()
        """set by each error that rclone logs"""

    def reconfigure(self, settings: Settings) -> None:
        """For the next start."""
        self._settings = settings

    @property
    def mount(self) -> MountSettings:
        """The settings as they are now, for the next start."""
        return self._settings.mounts[self.name]

    @property
    def keeps_what_is_read(self) -> bool:
        """On local disk, file by file."""
        return profiles.cache_mode(self.mount) == "full" and not self.without_cache

    @property
    def scratch(self) -> Path:
        """For files that are soon removed: nobody else may read what is there, nor is any of it left at the end."""
        return self._instance.private

    @property
    def rc(self) -> RcClient:
        """Raises Unavailable while no rclone runs."""
        if self._rc is None:
            raise Unavailable(f"cannot ask rclone of mount {self.name}: it is not running")
        return self._rc

    async def spawn(self) -> Child:
        """Write rclone.conf and start `rclone mount`. Raises CannotStart, ConfigError (flags that it does not have)."""
        await self.close()
        await asyncio.to_thread(self._instance.add_mount_point, str(self.mount.path))
        self._given = (await self._conf.write(self._settings))[self.mount.remote_name]
        self._resigned_at, self._is_refused = None, False
        address = self._address()
        size = None if self.without_cache else await self._cache_size()
        self._notify = ReadySocket(self._instance.private / f"notify-{self.name}.sock")
        launch = Launch(
            binary=self._binary,
            conf=self._conf.path,
            devname=table.devname(self._instance.id, self.name),
            allow_other=self._settings.allows_other(self.mount, root=os.geteuid() == 0),
            rc=address,
            cache=size,
            notify_socket=self._notify.path,
        )
        command = mount_command(self._settings, self.name, launch, os.environ)
        self._launched = launch, command.argv
        for warning in command.warnings:
            self._log.warning("flag has no use", cause=warning)
        self._said = LastOutput()
        self._dump = DumpCapture()
        self.ring.begin()
        environment = {**command.environment, **self.detour, **self._instance.marks(self.name)}
        argv = command.argv
        if self.reopens and profiles.write_back_s(self.mount) < LEAST_WRITE_BACK_S:
            argv = (*argv, f"--vfs-write-back={LEAST_WRITE_BACK_S:g}s")
        try:
            self.child = spawn(argv, environment, self._on_line, flood_lines=FLOOD_LINES)
        except OSError as error:
            if (found := lack(error)) is not None:
                raise found from None
            raise CannotStart(f"cannot start rclone: {cause_of(error)}") from None
        self._rc = RcClient(address)
        return self.child

    async def _cache_size(self) -> CacheSize:
        cache = self.mount.cache
        try:
            return await self._disk.run(lambda: cache_size(cache), WALK_LIMIT_S)
        except TimeoutError:
            raise silent(cache.dir, WALK_LIMIT_S) from None

    async def command_lines(self) -> tuple[Sequence[str], Sequence[str]]:
        """Of rclone: as the configuration has it now, and as the present one was started. Raises Unavailable, also
        without an answer from the disk of its cache, CannotStart, ConfigError."""
        if self._launched is None or self.child is None:
            raise Unavailable(f"cannot compare the flags of mount {self.name}: rclone is not running")
        launch, argv = self._launched
        allow_other = self._settings.allows_other(self.mount, root=os.geteuid() == 0)
        now = replace(launch, allow_other=allow_other, cache=await self._cache_size())
        return mount_command(self._settings, self.name, now, os.environ).argv, argv

    def _address(self) -> RcAddress:
        path = self._instance.private / f"rc-{self.name}.sock"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        return RcAddress(RC_USER, secrets.token_urlsafe(24), path)

    def marks(self, kind: str) -> dict[str, str]:
        """What a process that works for this mount carries in its environment."""
        return self._instance.marks(f"{self.name}-{kind}")

    def capture_dump(self) -> None:
        """From now on the goroutines that rclone prints at SIGQUIT are kept, for `dump`, and not logged."""
        self._dump = DumpCapture(expected=True)

    def dump(self) -> str:
        """Also when rclone crashed by itself; until the next one starts."""
        return self.masked(self._dump.text)

    def masked(self, text: str) -> str:
        """Without the secrets that it was given."""
        return mask(text, self._conf.secrets)

    def follow(self, follower: Callable[[str], None]) -> None:
        """Calls `follower` with the text of each line, before repeated lines are dropped for the ring and the log."""
        self._followers.append(follower)

    def _on_line(self, line: str) -> None:
        if self._dump.feed(line):
            return
        event = parse(line, self._conf.secrets)
        if event.level == "error" and event.text.startswith(ANSWERS):
            event = replace(event, level="info")
        if event.level == "error":
            self.trouble.set()
            self._is_refused |= self._is_resigned and is_of_keys(event.text)
        now = asyncio.get_running_loop().time()
        self._said.add(event, now, logged=line.startswith("{"))
        for follower in self._followers:
            follower(event.text)
        self._log_events(self._dedupe.feed(event, now))

    def _log_events(self, events: Sequence[LogEvent]) -> None:
        """What is left of its lines without repeats; those are counted when their window ends, or rclone exits."""
        for event in events:
            self.ring.append(event.text)
            # Its notes about single objects are for `mountd logs`; its errors are logged as warnings: whether something
            # is really wrong is decided by the probes.
            write = self._log.warning if event.level == "error" else self._log.debug
            write("rclone says", text=event.text, rclone=dict(event.keys))
        if self._flush_timer is None and self._dedupe.due is not None:
            self._flush_timer = asyncio.get_running_loop().call_at(self._dedupe.due, self._flush)

    def _flush(self) -> None:
        self._flush_timer = None
        self._log_events(self._dedupe.flush(asyncio.get_running_loop().time()))

    async def wait_mounted(self) -> None:
        """Until rclone says that it has mounted."""
        assert self._notify is not None
        await self._notify.wait()

    async def refresh_secrets(self) -> SecretChange:
        """Look at the secrets behind this mount again: rclone is given new S3 keys while it runs.

        REMOUNT: another secret has changed, which only a new rclone reads. Lasts a second or more when something has
        changed. With a secret that cannot be read, or a disk that cannot be written, rclone keeps what it has.
        """
        child = self.child
        if child is None:
            return SecretChange.NOTHING
        remote = self.mount.remote_name
        try:
            refreshed = await self._conf.refresh(self._settings, remote, self._given)
        except CannotStart as error:
            if error.text != self._unreadable:
                self._log.warning("going on with the former secrets", cause=error.text, hint=error.hint)
            self._unreadable = error.text
            return SecretChange.NOTHING
        self._unreadable = ""
        if self.child is not child:
            return SecretChange.NOTHING  # another rclone was started meanwhile, with what there is now
        self._given = refreshed.has
        self._resigned_at = (self._resigned_at or time.monotonic()) if refreshed.resigned else None
        if refreshed.change is SecretChange.LIVE:
            self._log.info("rclone is given new keys", remote=remote)
        return refreshed.change

    async def has_stale_secrets(self) -> bool:
        """As `refresh_secrets`, when the store refuses the keys: whether a new rclone is needed."""
        if await self.refresh_secrets() is SecretChange.REMOUNT:
            return True
        # The id that belongs to the new secret may be on its way: rclone takes both together while it runs.
        return self._is_resigned

    @property
    def _is_resigned(self) -> bool:
        return self._resigned_at is not None and time.monotonic() - self._resigned_at >= RESIGNED_S

    def signs_with_old_secret(self, *, usable: bool) -> bool:
        """Whether a new rclone is needed because the mount is refused after a key id got another secret: requests to
        the bucket, which rclone sends over a connection of their own, may succeed all the while.

        `usable`: the bucket has just answered one. While it does not, a new rclone could not serve what is cached.
        """
        return usable and self._is_resigned and self._is_refused

    def explain_exit(self, exit_: Exit) -> ExitCause:
        """What an exit means."""
        if self._dump.text:  # a panic ends it with the code of a usage error, and so does SIGQUIT
            cause = self.masked(self._dump.cause)[:OUTPUT_CHARACTERS]
            return explain_crash(cause, str(exit_), self.name)
        said = self._said.text(asyncio.get_running_loop().time())
        if helper := refusal(said):
            return rights.explain_refusal(helper, rights.look())
        return explain(exit_.code, str(exit_), said, self.name, obstacle=exit_.obstacle)

    async def close(self) -> None:
        """After its exit: no socket, no pipe left."""
        if self.child is not None:
            self.child.release()
            self._log_events(self._dedupe.finish(asyncio.get_running_loop().time()))
            if self._flush_timer is not None:
                self._flush_timer.cancel()
                self._flush_timer = None
            self.child = None
            await self._conf.remember()
        if self._notify is not None:
            self._notify.close()
            self._notify = None
        if self._rc is not None:
            await self._rc.close()
            self._rc = None


def cache_size(cache: CacheSettings) -> CacheSize:
    """The cache's limits on this machine, in bytes. Raises CannotStart."""
    directory = cache.dir
    try:
        while not os.path.exists(directory) and directory != directory.parent:
            directory = directory.parent
        usage = os.statvfs(directory)
    except OSError as error:
        cause = cause_of(error)
        raise CannotStart(f"cannot use the cache directory {cache.dir}: {cause}", hint="look at its disk") from None
    total = usage.f_blocks * usage.f_frsize
    return CacheSize(cache.max_size.of(total) if cache.max_size else None, cache.min_free.of(total))
