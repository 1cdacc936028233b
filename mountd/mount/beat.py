"""The first health question: does the mount answer? One `statfs`, which rclone answers without the bucket."""

from __future__ import annotations

import errno
from collections.abc import Sequence

from mountd.errors import DiskError, DiskTimeout
from mountd.files.client import Files
from mountd.mount import table
from mountd.mount.health import Beats
from mountd.mount.watch import read_table

_NOBODY_SERVES = (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO, errno.ENOENT)
_NOBODY_ASKED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)
"""The machine is short of something, so the question was never put: that says nothing of the mount."""


class Beat:
    """Has a worker of its own: a read that waits for the bucket must not make the mount look hung."""

    def __init__(self, path: str, source: str, files: Files, timeout_s: float) -> None:
        self.path = path
        self._source = source
        self._files = files
        self.timeout_s = timeout_s

    def entry(self, entries: Sequence[table.Entry] | None = None) -> table.Entry | None:
        """Our own mount, when it is what is seen at the mount point (in `entries`, else in the table as it is now)."""
        entry = table.at(read_table() if entries is None else entries, self.path)
        return entry if entry is not None and entry.source == self._source else None

    async def ask(self, beats: Beats) -> Beats:
        """`beats` with one more answer."""
        try:
            await self._files.statfs(self.path, timeout_s=self.timeout_s)
        except DiskTimeout:
            return beats.unanswered()
        except DiskError as error:
            if error.errno in _NOBODY_ASKED:
                return beats
            return beats.broken(error.text) if error.errno in _NOBODY_SERVES else beats.unanswered()
        # After an unmount the directory beneath answers, at full speed.
        try:
            mounted = self.entry() is not None
        except OSError:
            return beats
        return beats.answered() if mounted else beats.broken(f"{self.path} is no longer mounted")

    async def close(self) -> None:
        await self._files.close()
