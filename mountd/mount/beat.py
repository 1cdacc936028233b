"""The first health question: does the mount answer? One `statfs`, which rclone answers without the bucket."""

from __future__ import annotations

import errno

from mountd.errors import DiskError, DiskTimeout
from mountd.files.client import Files
from mountd.mount import table
from mountd.mount.health import Beats
from mountd.mount.watch import read_table

_NOBODY_SERVES = (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO, errno.ENOENT)


class Beat:
    """Has a worker of its own: a read that waits for the bucket must not make the mount look hung."""

    def __init__(self, path: str, source: str, files: Files, timeout_s: float) -> None:
        self.path = path
        self._source = source
        self._files = files
        self._timeout_s = timeout_s

    def entry(self) -> table.Entry | None:
        """Our own mount, when it is what is seen at the mount point."""
        entry = table.at(read_table(), self.path)
        return entry if entry is not None and entry.source == self._source else None

    async def ask(self, beats: Beats) -> Beats:
        """`beats` with one more answer."""
        try:
            await self._files.statfs(self.path, timeout_s=self._timeout_s)
        except DiskTimeout:
            return beats.unanswered()
        except DiskError as error:
            return beats.broken(error.text) if error.errno in _NOBODY_SERVES else beats.unanswered()
        # After an unmount the directory beneath answers, at full speed.
        return beats.answered() if self.entry() else beats.broken(f"{self.path} is no longer mounted")

    async def close(self) -> None:
        await self._files.close()
