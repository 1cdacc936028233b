"""Makes the sources of wanted versions: what they read on disk lies on no mount of mountd's own, with a deadline."""

from __future__ import annotations

import asyncio
import errno
from collections import defaultdict
from collections.abc import Callable, Collection
from pathlib import Path

from mountd.daemon.secret_files import SecretFiles
from mountd.daemon.watch_files import FileWatch, trail
from mountd.gitops.file import FileSource, ReadFile
from mountd.gitops.git import GitPlaces, GitSource
from mountd.gitops.source import Source
from mountd.process.instance import Instance
from mountd.process.slow_disk import SlowDisk
from mountd.settings.plain_file import read_plain
from mountd.settings.sync import DesiredSettings

READ_S = 5.0
SCRATCH = "git"
"""In the state directory."""


class Sources:
    def __init__(self, instance: Instance, own_mounts: Callable[[], Collection[str]]) -> None:
        """`own_mounts`: our present mount points; none of them is touched."""
        self._instance = instance
        self._own_mounts = own_mounts
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        """by model"""
        self.secrets = SecretFiles(own_mounts)

    def make(self, model: str, desired: DesiredSettings) -> Source:
        if desired.git is not None:
            places = GitPlaces(self._instance.state / SCRATCH, self._instance.private, self._turns[model])
            marks = self._instance.marks(f"git {model}")
            return GitSource(model, desired.git, read_secrets=self.secrets.read, places=places, marks=marks)
        assert desired.file is not None
        return FileSource(
            desired.file, desired.key, read=self._reader(), watch=OneFile(desired.file, FileWatch(self._own_mounts))
        )

    def _reader(self) -> ReadFile:
        disk = SlowDisk()  # of each source its own: one that does not answer delays no other

        async def read(path: Path, most: int) -> bytes:
            mounts = self._own_mounts()
            return await disk.run(lambda: _read(path, most, mounts), READ_S)

        return read


class OneFile:
    """Watches one file."""

    def __init__(self, path: Path, watch: FileWatch) -> None:
        self._path = path
        self._watch = watch

    async def begin(self) -> None:
        """Raises TimeoutError."""
        await self._watch.follow([self._path])

    async def changed(self) -> None:
        await self._watch.changed()

    def close(self) -> None:
        self._watch.close()


def _read(path: Path, most: int, mounts: Collection[str]) -> bytes:
    """Blocks. Raises OSError."""
    if mount := trail(path, mounts).mount:
        raise OSError(errno.EINVAL, f"it lies on the mount {mount}: put it on a local disk")
    return read_plain(path, most)
