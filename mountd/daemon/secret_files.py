"""The secrets of apps and remotes: read from disks that may not answer, never from a mount of mountd's own."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from mountd.daemon.watch_files import trail
from mountd.process.slow_disk import SlowDisk
from mountd.settings.secret import SecretRef, cannot_read

READ_S = 5.0
"""For the secrets of an app or a remote, which are read at the same time."""


class SecretFiles:
    def __init__(self, own_mounts: Callable[[], Collection[str]]) -> None:
        """`own_mounts`: our present mount points; none of them is touched."""
        self._own_mounts = own_mounts
        self._disks: defaultdict[Path | None, SlowDisk] = defaultdict(SlowDisk)
        """by file: one that does not answer delays no other"""
        self._looks: defaultdict[tuple[Path, ...], SlowDisk] = defaultdict(SlowDisk)

    async def read(self, secrets: Mapping[str, SecretRef]) -> dict[str, str]:
        """Each secret by the same name. Raises CannotStart, also when one cannot be read in READ_S seconds."""
        mounts = self._own_mounts()
        values = await asyncio.gather(*(self._read(each, mounts) for each in secrets.values()), return_exceptions=True)
        for value in values:  # the first of the file, whichever failed first: the same at each try
            if isinstance(value, BaseException):
                raise value
        return {name: str(value) for name, value in zip(secrets, values, strict=True)}

    async def look(self, secrets: Collection[SecretRef]) -> object:
        """See `LookAtSecrets`: one thread for all of them, where reading takes one for each."""
        paths = tuple(path for each in secrets if (path := each.path) is not None)
        mounts = self._own_mounts()
        try:
            return await self._looks[paths].run(lambda: tuple(trail(path, mounts).seen for path in paths), READ_S)
        except TimeoutError:
            return None

    async def _read(self, reference: SecretRef, mounts: Collection[str]) -> str:
        try:
            return await self._disks[reference.path].run(lambda: _read(reference, mounts), READ_S)
        except TimeoutError:
            raise cannot_read(
                f"no answer in {READ_S:g} s from the disk of {reference.path}",
                "mountd tries again by itself; put the files of secrets on a local disk",
            ) from None


def _read(reference: SecretRef, mounts: Collection[str]) -> str:
    """Blocks. Raises CannotStart."""
    if reference.path is not None and (mount := trail(reference.path, mounts).mount):
        raise cannot_read(f"{reference.path} lies on the mount {mount}", "put it on a local disk")
    return reference.read()
