"""Files that a previous rclone left waiting for their upload, made safe to read before the mount is ready.

Measured with rclone 1.75.2 and read in its source (also rclone issue 9876): a new rclone queues such a file, with
only a name behind it in the mount. When its upload has finished, that entry still has no object. The next program that
opens it makes rclone take the clean cached file for one whose object was deleted: it removes the file, and the program
reads 0 bytes without an error. The entry gets its object in two ways only: the file was opened and closed through the
mount before its upload began, or its directory was listed after the upload.

So each upload is put off first (HOLD_S) and the file is read, which makes rclone queue it again, now with its entry. An
upload that was faster is waited for, and then its directory is listed again.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import errno
import os
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from mountd.cache.layout import META, is_empty
from mountd.errors import CannotStart, DiskError, RemoteError
from mountd.files.client import Files
from mountd.process.slow_disk import SlowDisk
from mountd.rclone.rc import RcClient, Upload

HOLD_S = 3600.0
"""So long an upload is put off. A program that closes the file meanwhile ends that: rclone counts from there again."""
POLL_S = 0.1
READ_TIMEOUT_S = 10.0
LOOK_LIMIT_S = 10.0
LIMIT_S = 600.0
"""For uploads that began too early; one that fails is put back into the queue by rclone."""


class ReopenStep(enum.Enum):
    WAIT = "wait"
    HOLD = "hold"
    READ = "read"
    UPLOAD = "upload"
    LIST = "list"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class ReopenedFile:
    """A file of `size` bytes: `held` once its upload was put off, `read` once it was opened and closed after that."""

    size: int
    held: bool = False
    read: bool = False


def next_step(file: ReopenedFile, upload: Upload | None) -> ReopenStep:
    """What to do for one file; `upload` is its entry in rclone's queue, None without one."""
    if upload is None:
        return ReopenStep.DONE if file.read else ReopenStep.LIST
    if upload.uploading:
        return ReopenStep.DONE if file.read else ReopenStep.WAIT
    if not file.size:  # rclone opens no empty file to read it: only a listing helps
        return ReopenStep.UPLOAD if upload.due_s > 0 else ReopenStep.WAIT
    is_held = file.held and upload.due_s > HOLD_S / 2
    if file.read:
        return ReopenStep.WAIT if is_held else ReopenStep.DONE
    return ReopenStep.READ if is_held else ReopenStep.HOLD


class Reopening:
    """The files of one mount, whose metadata lies in `meta` below `cache`; `left` are sizes in bytes by name, which is
    relative to all metadata."""

    def __init__(self, left: Mapping[str, int], cache: Path, meta: str) -> None:
        above = meta.removeprefix(f"{cache / META}/") + "/"
        self._files = {
            name.removeprefix(above): ReopenedFile(size) for name, size in left.items() if name.startswith(above)
        }
        self._cache, self._meta = cache, meta

    async def hold(self, rc: RcClient) -> None:
        """Puts off the uploads that have not begun: to be called as soon as rclone answers. Raises MountdError."""
        for upload in await rc.vfs_queue() if self._files else ():
            file = self._files.get(upload.name)
            if file is not None and next_step(file, upload) is ReopenStep.HOLD:
                await self._hold(rc, upload)

    async def finish(
        self, rc: RcClient, root: str, files: Files, disk: SlowDisk, waiting: Callable[[int], None]
    ) -> None:
        """Returns when each file can be read through the mount at `root`, before its upload and after.

        `waiting` is called with the number of files whose uploads began too early and are waited for.

        Raises CannotStart when that came too late for one (the next start repairs it), and DiskError, RemoteError or
        Unavailable when it cannot be done now: call it again.
        """
        deadline = time.monotonic() + LIMIT_S
        while self._files:
            queue = {each.name: each for each in await rc.vfs_queue()}
            await self._round(rc, queue, root, files, disk)
            if self._files and time.monotonic() > deadline:
                text = f"cannot use {root}: uploads of a previous run have not finished after {LIMIT_S:g} s"
                raise CannotStart(text, code="uploads-stuck", retry_s=0.0)
            if self._files:
                waiting(len(self._files))
                await asyncio.sleep(POLL_S)

    async def _round(self, rc: RcClient, queue: Mapping[str, Upload], root: str, files: Files, disk: SlowDisk) -> None:
        uploaded: list[str] = []
        for name, file in [*self._files.items()]:
            step, upload = next_step(file, queue.get(name)), queue.get(name)
            if step is ReopenStep.HOLD and upload is not None:
                await self._hold(rc, upload)
            elif step is ReopenStep.UPLOAD and upload is not None:
                await _upload_now(rc, upload)
            elif step is ReopenStep.READ:
                await self._read(name, root, files)
            elif step is ReopenStep.LIST:
                uploaded.append(name)
            elif step is ReopenStep.DONE:
                del self._files[name]
                if upload is not None and not upload.uploading:
                    await _upload_now(rc, upload)  # it has waited long enough
        await self._list(rc, uploaded, disk)

    async def _hold(self, rc: RcClient, upload: Upload) -> None:
        try:
            await rc.vfs_upload_in(upload.id, HOLD_S)
        except RemoteError:
            return  # it has left the queue meanwhile: the next look says what to do
        self._files[upload.name] = replace(self._files[upload.name], held=True)

    async def _read(self, name: str, root: str, files: Files) -> None:
        file = self._files[name]
        try:
            data = await files.read(f"{root}/{name}", offset=0, length=1, timeout_s=READ_TIMEOUT_S)
        except DiskError as error:
            if error.errno != errno.ENOENT:
                raise
            # No entry, hence none without an object: the listing after its upload makes one.
            self._files[name] = ReopenedFile(0)
            return
        if file.size and not data:
            raise _lost(name)
        self._files[name] = replace(file, read=True)

    async def _list(self, rc: RcClient, names: Collection[str], disk: SlowDisk) -> None:
        """For what was uploaded before it could be read: then their entries have their objects."""
        for directory in {os.path.dirname(name) for name in names}:
            try:
                await rc.vfs_refresh(directory)
            except RemoteError as error:
                if error.code != "directory-missing":  # removed with its files meanwhile: nothing is left to be read
                    raise
        for name in names:
            file = self._files.pop(name)
            meta, cache = f"{self._meta}/{name}", self._cache
            if file.size and await disk.run(lambda: is_empty(cache, meta), LOOK_LIMIT_S):  # noqa: B023
                raise _lost(name)


async def _upload_now(rc: RcClient, upload: Upload) -> None:
    with contextlib.suppress(RemoteError):  # it has left the queue meanwhile
        await rc.vfs_upload_now(upload.id)


def _lost(name: str) -> CannotStart:
    """A program has read it in between: its empty content would be remembered."""
    return CannotStart(f"rclone shows {name} without its content", code="content-lost", retry_s=0.0)
