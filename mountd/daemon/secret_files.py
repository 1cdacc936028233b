"""The secrets of an app, read when it starts: from a disk that may not answer, never from a mount of mountd's own."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from mountd.daemon.watch_files import trail
from mountd.errors import CannotStart
from mountd.process.slow_disk import SlowDisk
from mountd.settings.secret import CODE, RETRY_S, SecretRef

READ_S = 5.0
"""For all secrets of one app."""


class SecretFiles:
    def __init__(self, own_mounts: Callable[[], Collection[str]]) -> None:
        """`own_mounts`: the mount points of ours at this moment, none of which is touched."""
        self._own_mounts = own_mounts
        self._disk = SlowDisk()

    async def read(self, secrets: Mapping[str, SecretRef]) -> dict[str, str]:
        """Each secret by the same name. Raises CannotStart, also when they cannot be read in READ_S seconds."""
        mounts = self._own_mounts()
        try:
            return await self._disk.run(lambda: {name: _read(each, mounts) for name, each in secrets.items()}, READ_S)
        except TimeoutError:
            places = ", ".join(sorted({str(each.path) for each in secrets.values() if each.path is not None}))
            raise CannotStart(
                f"cannot read a secret: no answer in {READ_S:g} s from a disk with one of {places}",
                hint="mountd tries again by itself; put the files of secrets on a local disk",
                code=CODE,
                retry_s=RETRY_S,
            ) from None


def _read(reference: SecretRef, mounts: Collection[str]) -> str:
    """Blocks. Raises CannotStart."""
    if reference.path is not None and (mount := trail(reference.path, mounts).mount):
        raise CannotStart(
            f"cannot read a secret: {reference.path} lies on the mount {mount}",
            hint="put it on a local disk",
            code=CODE,
            retry_s=RETRY_S,
        )
    return reference.read()
