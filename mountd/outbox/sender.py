"""An rclone that uploads single files when it is asked to: started for what waits, stopped when nothing does."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import structlog

from mountd.errors import CannotStart, RemoteError, Unavailable, cause_of
from mountd.outbox.local import HashedFile
from mountd.outbox.plan import StoredObject, longest_upload_s
from mountd.process.child import Child, spawn
from mountd.process.instance import Instance
from mountd.process.resources import lack
from mountd.rclone.binary import Binary
from mountd.rclone.command import RcAddress, UploadLaunch, source, upload_command
from mountd.rclone.conf_file import ConfFile
from mountd.rclone.log import parse
from mountd.rclone.rc import RcClient
from mountd.settings.remotes import RemoteSettings
from mountd.settings.schema import Settings

log = structlog.get_logger()

START_S = 20.0
START_STEP_S = 0.05
STOP_S = 2.0
STALL_S = 300.0
"""Seconds in which rclone moves and reads nothing, after which it is killed."""
LEAST_READ = 1024 * 1024
"""Bytes that rclone has read when it reads a file: it also reads what it is asked, and what servers answer."""
LOOK_S = 5.0
STAT_S = 3600.0
"""Seconds for a look at an object. Of some remotes, such as a local directory, rclone hashes all of it."""
RC_USER = "mountd"
METADATA = "X-Amz-Meta-Sha256"


class Uploader:
    """Of one outbox; at most one rclone at a time."""

    def __init__(self, name: str, settings: Settings, instance: Instance, binary: Binary, conf: ConfFile) -> None:
        self._name, self._settings = name, settings
        self._instance, self._binary, self._conf = instance, binary, conf
        self._log = log.bind(outbox=name)
        self._child: Child | None = None
        self._rc: RcClient | None = None
        self._turn = asyncio.Lock()
        self._under_way = 0
        self._watching: asyncio.Task[None] | None = None
        self._moved_at = 0.0
        self._is_stale = False
        self.has_looked = False
        """an object was looked at with the keys that are used now, so that they may"""

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child is not None else None

    def reconfigure(self, settings: Settings) -> None:
        """Once what is under way is done, the next upload is by another rclone, which reads all secrets again."""
        self._settings = settings
        self.renew()

    def goes_to_the_same(self, settings: Settings) -> bool:
        """Whether the remote is the same one there. An rclone that has work is never replaced: it would go on sending
        to the former endpoint, as long as there is always something under way."""
        return _remotes(self._name, settings) == _remotes(self._name, self._settings)

    def renew(self) -> None:
        self._is_stale = True

    async def upload(self, hashed: HashedFile, path: str, size: int) -> None:
        """The file of `size` bytes at `path` below the outbox's place in the bucket, whatever is there.

        Raises RemoteError, Unavailable (rclone), CannotStart.
        """
        outbox = self._settings.outbox[self._name]
        remote = outbox.remote
        # The comparison is mountd's own: rclone's takes each ETag for an MD5, and deletes the object when it is none.
        # Nor does it look for the object, which keys may not be allowed to: so what is refused has not been stored.
        options: dict[str, object] = {
            "NoCheckDest": True,
            "IgnoreTimes": True,
            "IgnoreChecksum": True,
            "MultiThreadStreams": 0,
        }
        if self._keeps_digests(remote):
            options["UploadHeaders"] = [{"Key": METADATA, "Value": hashed.sha256}]
        async with self._asking() as rc:
            await rc.call(
                "operations/copyfile",
                {
                    "srcFs": f":local,copy_links:{hashed.directory}",
                    "srcRemote": hashed.name,
                    "dstFs": source(remote),
                    "dstRemote": path,
                    "_config": options,
                },
                longest_upload_s(size, outbox.limit, outbox.parallel),
            )

    async def stat(self, path: str) -> StoredObject | None:
        """What lies there in the bucket, by one HEAD; None: nothing. Raises as `upload`."""
        remote = self._settings.outbox[self._name].remote
        options = {"filesOnly": True, "showHash": True, "hashTypes": ["md5"], "metadata": True, "noModTime": True}
        async with self._asking() as rc:
            answer = await rc.call("operations/stat", {"fs": source(remote), "remote": path, "opt": options}, STAT_S)
        item = answer.get("item")
        if not isinstance(item, dict):
            return None
        self.has_looked = True
        hashes, metadata = item.get("Hashes") or {}, item.get("Metadata") or {}
        return StoredObject(int(item.get("Size", -1)), str(hashes.get("md5", "")), str(metadata.get("sha256", "")))

    def _keeps_digests(self, remote: str) -> bool:
        """Whether the store gets the sha256 as metadata: not of what is encrypted on its way there."""
        beneath = self._settings.beneath(remote.partition(":")[0])
        kinds = {self._settings.remotes[each].type for each in beneath}
        return "s3" in kinds and kinds <= {"s3", "alias"}

    async def close(self) -> None:
        """Gracefully, so that it withdraws the parts of what it has not sent whole; about STOP_S at most."""
        async with self._turn:
            await self._end()

    # -- its rclone -----------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _asking(self) -> AsyncIterator[RcClient]:
        async with self._turn:
            if self._is_stale and not self._under_way:
                await self._end()
            rc = await self._started()
            self._under_way += 1
            self._moved_at = time.monotonic()
            if self._watching is None:
                self._watching = asyncio.create_task(self._watch(), name=f"uploads of {self._name}")
        try:
            yield rc
        finally:
            self._moved_at = time.monotonic()
            self._under_way -= 1
            if not self._under_way and self._watching is not None:
                self._watching.cancel()
                self._watching = None

    async def _started(self) -> RcClient:
        if self._child is not None and self._child.exit is None and self._rc is not None:
            return self._rc
        await self._end()
        self._is_stale = self.has_looked = False
        await self._conf.write(self._settings)
        place = self._instance.private / f"out-{self._name}.sock"
        with contextlib.suppress(FileNotFoundError):
            await asyncio.to_thread(os.unlink, place)
        outbox = self._settings.outbox[self._name]
        address = RcAddress(RC_USER, secrets.token_urlsafe(24), place)
        launch = UploadLaunch(self._binary, self._conf.path, address, outbox.limit)
        command = upload_command(self._settings, outbox.remote, launch, os.environ)
        environment = {**command.environment, **self._instance.marks(f"{self._name}-outbox")}
        try:
            self._child = spawn(command.argv, environment, self._on_line)
        except OSError as error:
            if (found := lack(error)) is not None:
                raise found from None
            raise CannotStart(f"cannot start rclone: {cause_of(error)}") from None
        self._rc = RcClient(address)
        await self._until_it_answers(self._child, self._rc)
        return self._rc

    async def _until_it_answers(self, child: Child, rc: RcClient) -> None:
        deadline = time.monotonic() + START_S
        while True:
            try:
                await rc.call("rc/noop")
            except Unavailable as error:
                if child.exit is not None:
                    raise CannotStart(f"cannot start rclone for uploads: it ended with {child.exit}") from None
                if time.monotonic() > deadline:
                    raise CannotStart(f"cannot start rclone for uploads: {error.text}") from None
                await asyncio.sleep(START_STEP_S)
            else:
                return

    def _on_line(self, line: str) -> None:
        event = parse(line, self._conf.secrets)
        self._log.debug("rclone says", text=event.text, rclone=dict(event.keys))

    async def _watch(self) -> None:
        """While something is under way: an rclone that does nothing for long is killed, which ends its calls."""
        moved, read = -1, 0
        while self._rc is not None:
            await asyncio.sleep(LOOK_S)
            with contextlib.suppress(Unavailable, RemoteError):
                stats = await self._rc.core_stats()
                if stats.moved_bytes != moved:
                    moved, self._moved_at = stats.moved_bytes, time.monotonic()
            # It hashes a large file before it sends anything of it, and counts no byte of that as moved.
            if (so_far := _read_bytes(self.pid)) > read + LEAST_READ:
                read, self._moved_at = so_far, time.monotonic()
            if time.monotonic() - self._moved_at > STALL_S and self._child is not None:
                self._log.warning("uploads stall: starting another rclone", silent_s=STALL_S)
                self._child.signal(signal.SIGKILL)
                return

    async def _end(self) -> None:
        child, self._child = self._child, None
        rc, self._rc = self._rc, None
        try:
            if rc is not None:
                await rc.close()
            if child is None:
                return
            child.signal(signal.SIGTERM)
            await _ended(child)
        finally:  # also of a second cancel: it may not live on
            if child is not None:
                child.signal(signal.SIGKILL)
                child.release()
        await _ended(child)
        with contextlib.suppress(CannotStart):
            await self._conf.remember()


async def _ended(child: Child) -> None:
    """Or STOP_S are over."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(STOP_S):
            await child.wait()


def _read_bytes(pid: int | None) -> int:
    """What the process has read so far, from files and connections; 0 where the kernel does not say."""
    try:
        _, _, rest = Path(f"/proc/{pid}/io").read_text(encoding="ascii").partition("rchar: ")
        return int(rest.split("\n", 1)[0])
    except (OSError, ValueError):
        return 0


def _remotes(outbox: str, settings: Settings) -> dict[str, RemoteSettings]:
    """Its own, and those beneath it."""
    return {name: settings.remotes[name] for name in settings.beneath(settings.outbox[outbox].remote_name)}
