"""A mount as a disk: what models may ask of it, each answer in time and never from the daemon's own threads."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog

from mountd.cache.guard import CacheGuard
from mountd.cache.index import CacheIndex
from mountd.cache.restore import restore
from mountd.errors import RemoteError, Unavailable, cause_of
from mountd.files.client import Digest, Files, NoStat, Stat
from mountd.mount.bucket import BucketProbe
from mountd.mount.engine import Engine
from mountd.process.slow_disk import SlowDisk
from mountd.rclone import keys
from mountd.rclone.failures import OF_THE_OBJECT
from mountd.rclone.keys import BucketEntry
from mountd.rclone.rc import AnswerTooLarge
from mountd.warm.fetch import Warming, fetch_into, read_through
from mountd.warm.plan import WantedFile
from mountd.warm.results import WarmProgress, raise_faults

log = structlog.get_logger()
T = TypeVar("T")

STAT_TIMEOUT_S = 60.0
READ_TIMEOUT_S = 120.0
LIST_TIMEOUT_S = 120.0
TOUCH_TIMEOUT_S = 30.0
SMALL_LISTING_S = 30.0
SMALL_LISTING_BYTES = 1536 * 1024
"""Some 10,000 objects, which the event loop takes apart in 30 ms."""
MOST_IGNORED = 1000
"""Keys that cannot be paths: so many are remembered."""
EMPTY_BYTES = 64
"""rclone's answer about a single entry is longer, and that about none is shorter (1.75.2: 14 bytes)."""
STATS_TIMEOUT_S = 5.0
RESTORE_TIMEOUT_S = 600.0
WALK_TIMEOUT_S = 60.0
"""For each piece of a walk."""
PATIENCE_S = 1800.0
"""While nothing comes, of data that is loaded ahead: an outage of half an hour costs nothing but time."""
REFRESH_TIMEOUT_S = 600.0
"""A listing costs one request for each 1,000 objects; at 5 s a request this covers 100,000."""


@dataclass(slots=True, eq=False)
class MountDisk:
    """`root` is the mount point; all other paths are relative to it, with `/`."""

    root: str
    files: Files
    engine: Engine
    cache: CacheGuard
    index: CacheIndex
    bucket: BucketProbe
    _ignored: dict[str, str] = field(default_factory=dict)
    _ignored_of: str = ""
    """the remote"""
    _hidden: list[str] = field(default_factory=list)
    """which of them rclone leaves out"""
    _disk: SlowDisk = field(default_factory=SlowDisk)
    """that of the cache"""

    @property
    def scratch(self) -> Path:
        """In the runtime directory, which lies in memory."""
        return self.engine.scratch

    @property
    def fs(self) -> str:
        """What is mounted: `remote:path`."""
        return self.engine.mount.remote

    @property
    def exclude(self) -> list[str]:
        """What the mount leaves out by configuration."""
        return keys.patterns(self.engine.mount.options.get("exclude"))

    @property
    def ignored(self) -> dict[str, str]:
        """By path: why it cannot be one, as of the last listing."""
        if self._ignored_of != self.fs:
            self._ignored, self._ignored_of = {}, self.fs
        return self._ignored

    def in_turn(self) -> AbstractAsyncContextManager[None]:
        """Around one request to the bucket that has time: it takes the slot of a probe. Raises Unavailable without
        one."""
        return self.bucket.slot.take()

    async def confirm(self) -> None:
        """That the store gives valid answers. Raises RemoteError, Unavailable."""
        await self.bucket.confirm()

    async def list_bucket(self, directory: str, *, recursive: bool = False) -> list[BucketEntry]:
        """What the bucket holds now, past the mount and its directory cache. Raises RemoteError, Unavailable.

        What cannot be a path is left out, here and, from its next listing on, in the mount. "Nothing is there" is
        believed only of a store that gives valid answers: rclone takes a login page for an empty listing.
        """
        fs = self.fs
        try:
            items = await self._list(fs, directory, recursive=recursive)
        except RemoteError as error:
            if error.code != "directory-missing":
                raise
            items = []
        if not items:
            await self.confirm()
            items = await self._list(fs, directory, recursive=recursive)
        return await self._possible(fs, items, directory, recursive=recursive)

    async def _list(self, fs: str, directory: str, *, recursive: bool) -> list[BucketEntry]:
        return await self.engine.rc.list(
            fs, directory, recursive=recursive, exclude=self.exclude, timeout_s=LIST_TIMEOUT_S
        )

    async def save_listing(self, directory: str, to: Path) -> str:
        """As `list_bucket`, of all below `directory`, but rclone's answer goes into the local file `to`; what was
        listed. Raises RemoteError, Unavailable."""
        fs = self.fs
        try:
            size = await self._save_listing(fs, directory, to)
        except RemoteError as error:
            if error.code != "directory-missing":
                raise
            size = 0
        if size < EMPTY_BYTES:
            await self.confirm()
            await self._save_listing(fs, directory, to)
        return fs

    async def _save_listing(self, fs: str, directory: str, to: Path) -> int:
        return await self.engine.rc.save_listing(fs, directory, to, exclude=self.exclude, timeout_s=LIST_TIMEOUT_S)

    async def leave_out(self, origin: str, directory: str, unusable: Mapping[str, str]) -> None:
        """What cannot be a path in a listing that was saved of `origin`. Raises RemoteError, Unavailable."""
        await self._leave_out(origin, directory, unusable, recursive=True)

    async def _possible(
        self, fs: str, items: list[BucketEntry], directory: str, *, recursive: bool = False
    ) -> list[BucketEntry]:
        """`items` are all of `directory` in `fs`."""
        unusable = keys.unusable(items)
        await self._leave_out(fs, directory, unusable, recursive=recursive)
        return keys.usable(items, unusable)

    async def _leave_out(self, fs: str, directory: str, unusable: Mapping[str, str], *, recursive: bool) -> None:
        if fs != self.fs:  # a reload came in between: it says nothing of what is mounted next
            return
        for path in keys.gone(self.ignored, unusable, directory, recursive=recursive):
            del self.ignored[path]
        found = {path: why for path, why in unusable.items() if path not in self.ignored}
        if found and len(self.ignored) < MOST_IGNORED:
            self._ignored |= dict(sorted(found.items())[: MOST_IGNORED - len(self.ignored)])
            log.warning("objects are left out: they cannot be paths", remote=self.fs, objects=keys.describe(found))
        known, seen = keys.rules(self.ignored), keys.rules(unusable)
        if seen or known != self._hidden:
            await self.engine.rc.exclude([*keys.EXCLUDED, *self.exclude, *dict.fromkeys([*known, *seen])])
            self._hidden = known

    async def small_listing(self, directory: str) -> list[BucketEntry] | None:
        """As `list_bucket`; None when that is more than is worth waiting for. Raises RemoteError, Unavailable."""
        began, fs = time.monotonic(), self.fs
        try:
            items = await self.engine.rc.list(
                fs,
                directory,
                exclude=self.exclude,
                timeout_s=SMALL_LISTING_S,
                most_bytes=SMALL_LISTING_BYTES,
            )
            # An empty answer that is not confirmed changes nothing.
            return await self._possible(fs, items, directory) if items else []
        except AnswerTooLarge:
            return None
        except RemoteError:
            if time.monotonic() - began >= SMALL_LISTING_S:
                return None
            raise

    async def fingerprint(self, path: str) -> str:
        """What the bucket says of one file, past the mount. Raises RemoteError, Unavailable."""
        return await self.engine.rc.fingerprint(self.fs, path, timeout_s=LIST_TIMEOUT_S)

    async def size(self, path: str) -> int | None:
        """Bytes of one file as the bucket holds it, past the mount; None: it is not there. Raises RemoteError,
        Unavailable."""
        return await self.engine.rc.size(self.fs, path, timeout_s=LIST_TIMEOUT_S)

    async def save(self, path: str, to: Path) -> None:
        """A small file into the local file `to`, which is not there yet. Raises RemoteError, Unavailable.

        As the bucket holds it: through the mount rclone may miss a change that keeps the file's size.
        """
        await self.engine.rc.copy_file(self.fs, path, to, READ_TIMEOUT_S)

    def read_ahead(
        self, directory: str, files: Sequence[WantedFile], *, limit: int | None, report: Callable[[WarmProgress], None]
    ) -> Warming:
        """Reads files below `directory` through the mount, `limit` bytes a second at most, once that is run."""
        return read_through(
            f"{self.root}/{directory}",
            files,
            environment=self.engine.marks("warm"),
            patience_s=PATIENCE_S,
            report=report,
            limit=limit,
            why=lambda path: self.why_unreadable(f"{directory}/{path}"),
        )

    def fetch_into(
        self,
        directory: str,
        files: Sequence[WantedFile],
        into: Path,
        *,
        limit: int | None,
        report: Callable[[WarmProgress], None],
    ) -> Warming:
        """Fetches files below `directory` past the mount into the local directory `into`, each named by its sha256."""
        return fetch_into(
            lambda: self.engine.rc.address,
            self.fs,
            directory,
            files,
            into,
            environment=self.engine.marks("warm"),
            patience_s=PATIENCE_S,
            report=report,
            limit=limit,
        )

    async def restore(
        self, directory: str, files: Sequence[WantedFile], report: Callable[[WarmProgress], None]
    ) -> None:
        """Files whose bytes were not those of their sha256 get them again from the bucket, in the cache.

        Raises Refused when the bucket has other bytes as well, Unavailable.
        """
        cached = (await self.engine.rc.vfs_stats(timeout_s=STATS_TIMEOUT_S)).disk_cache
        if cached is None:
            return
        cache = self.engine.mount.cache.dir
        into = Path(await self._on_disk(lambda: tempfile.mkdtemp(prefix="restore-", dir=cache)))
        try:
            raise_faults(await self.fetch_into(directory, files, into, limit=None, report=report).run())
            for file in files:
                meta = f"{cached.metadata}/{directory}/{file.path}"
                restored = await self._on_disk(partial(restore, cache, meta, into / str(file.sha256)))
                log.warning("cached file had wrong bytes, and was put right", path=file.path, bytes=restored)
        finally:
            await self._on_disk(lambda: shutil.rmtree(into, ignore_errors=True))

    async def _on_disk(self, work: Callable[[], T]) -> T:
        """In a thread. Raises Unavailable."""
        try:
            return await self._disk.run(work, RESTORE_TIMEOUT_S)
        except TimeoutError:
            raise Unavailable("cannot put the cache right: its disk does not answer") from None
        except OSError as error:
            raise Unavailable(f"cannot put the cache right: {cause_of(error)}") from None

    async def refresh(self, directory: str, *, recursive: bool = False) -> list[BucketEntry] | None:
        """Loads the listing of `directory` into the mount's directory cache. Raises RemoteError, Unavailable.

        Before that it is looked at, as by `small_listing`: an object with the name of a directory would take its place.
        What was seen then, None also when `recursive`.
        """
        found = None if recursive else await self.small_listing(directory)
        await self.engine.rc.vfs_refresh(directory, recursive=recursive, timeout_s=REFRESH_TIMEOUT_S)
        return found

    async def why_unreadable(self, path: str) -> RemoteError | None:
        """Why no byte of this file, which is not empty, can be read past the mount; None: one can be.

        Raises RemoteError when the bucket gives nothing at all, Unavailable.
        """
        try:
            await self.engine.rc.read_byte(self.fs, path, timeout_s=TOUCH_TIMEOUT_S)
        except RemoteError as error:
            if error.code not in OF_THE_OBJECT:
                raise
            return error
        return None

    async def why_refused(self, path: str) -> RemoteError | None:
        """The same by asking about the file alone, as far as its answer says that it can be read. Raises as before."""
        try:
            if await self.engine.rc.is_at_hand(self.fs, path, timeout_s=TOUCH_TIMEOUT_S):
                return None
        except RemoteError:
            pass  # reading it says why
        return await self.why_unreadable(path)

    async def listed(self) -> int:
        """How many entries rclone has listed since its start."""
        return (await self.engine.rc.core_stats(timeout_s=STATS_TIMEOUT_S)).listed

    async def cache_could_hold(self) -> int | None:
        """Bytes that local disk could hold, all else in it gone; None: reads are not kept. Raises CannotStart."""
        return await self.cache.could_hold() if self.engine.keeps_what_is_read else None

    async def know(self, directory: str, digests: Path, mark: str) -> None:
        """The size and sha256 of the files below `directory`: what is cached of them can be proven by that."""
        await self.index.know(directory, digests, mark)

    async def walk(self, directory: str, to: Path) -> None:
        """Through the mount. Raises DiskError."""
        await self.files.walk(f"{self.root}/{directory}", to, timeout_s=WALK_TIMEOUT_S)

    async def stat(self, paths: Sequence[str]) -> tuple[Stat | NoStat, ...]:
        """Through the mount. Raises DiskError when there is no answer at all."""
        return await self.files.stat([f"{self.root}/{path}" for path in paths], timeout_s=STAT_TIMEOUT_S)

    async def read(self, path: str, length: int, *, offset: int = 0) -> bytes:
        """Through the mount. Raises DiskError."""
        return await self.files.read(f"{self.root}/{path}", offset=offset, length=length, timeout_s=READ_TIMEOUT_S)

    async def hash(self, path: str, progress: Callable[[int], None]) -> Digest:
        """Through the mount, each piece of the file within READ_TIMEOUT_S. Raises DiskError."""
        return await self.files.hash(f"{self.root}/{path}", timeout_s=READ_TIMEOUT_S, progress=progress)
