"""The first health question: does the mount answer? One `statfs`, which rclone answers without the bucket on S3."""

from __future__ import annotations

import errno
from collections.abc import Sequence

import structlog

from mountd.errors import DiskError, DiskTimeout, ProbeNotSent
from mountd.files.client import Files
from mountd.fuse import table
from mountd.fuse.watch import read_table
from mountd.mount.health import Beats

_NOBODY_SERVES = (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO, errno.ENOENT)
_NOBODY_ASKED = (errno.ENFILE, errno.ENOMEM)
"""The machine is short of something, so the question was never put: that says nothing of the mount."""

log = structlog.get_logger()


class Beat:
    """Has a worker of its own: a read that waits for the bucket must not make the mount look hung."""

    def __init__(self, path: str, source: str, files: Files, timeout_s: float) -> None:
        self.path = path
        self._source = source
        self._files = files
        self.timeout_s = timeout_s
        self._unasked = False

    def entry(self, entries: Sequence[table.Entry] | None = None) -> table.Entry | None:
        """Our own mount, when it is what is seen at the mount point (in `entries`, else in the table as it is now)."""
        entry = table.at(read_table() if entries is None else entries, self.path)
        ours = entry is not None and entry.source == self._source and entry.root == "/"  # else a part, bound over it
        return entry if ours else None

    async def ask(self, beats: Beats) -> Beats:
        """`beats` with one more answer."""
        try:
            await self._files.statfs(self.path, timeout_s=self.timeout_s)
        except DiskTimeout:
            return beats.unanswered()
        except ProbeNotSent as error:
            return self._not_asked(error.text, beats)
        except DiskError as error:
            if error.errno in _NOBODY_ASKED:
                return self._not_asked(error.text, beats)
            return beats.broken(error.text) if error.errno in _NOBODY_SERVES else beats.unanswered()
        # After an unmount the directory beneath answers, at full speed.
        try:
            mounted = self.entry() is not None
        except OSError as error:
            return self._not_asked(f"cannot read the mount table: {error.strerror}", beats)
        self._unasked = False
        return beats.answered() if mounted else beats.broken(f"{self.path} is no longer mounted")

    def _not_asked(self, cause: str, beats: Beats) -> Beats:
        """As they were; told once, until it can be asked again."""
        if not self._unasked:
            log.warning("cannot ask whether the mount answers", path=self.path, cause=cause)
        self._unasked = True
        return beats

    async def close(self) -> None:
        await self._files.close()
