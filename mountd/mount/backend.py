"""The second health question: does the bucket answer? One small request outside the mount."""

from __future__ import annotations

import time

import structlog

from mountd.errors import MountdError, RemoteError
from mountd.mount.engine import Engine
from mountd.mount.health import backend_status, is_refusal
from mountd.status.snapshot import RemoteStatus

log = structlog.get_logger()

TIMEOUT_S = 30.0
"""A store that needs 5 s a request is slow, not away."""


class Backend:
    """`status` is the last answer."""

    def __init__(self, remote: str, engine: Engine) -> None:
        self.status = RemoteStatus()
        self._remote = remote
        self._engine = engine

    @property
    def is_refusing(self) -> bool:
        """The bucket says no: other credentials could change that."""
        return self.status.reason is not None and is_refusal(self.status.reason.code)

    async def ask(self) -> bool:
        """Whether the bucket gives what it is asked; a slow one does."""
        name = self._remote.partition(":")[0]
        began = time.monotonic()
        try:
            await self._engine.rc.list(self._remote, quick=True, timeout_s=TIMEOUT_S)
            status = backend_status(name, took_s=time.monotonic() - began)
            usable = True
        except RemoteError as error:
            took_s = time.monotonic() - began
            text = f"cannot read {self._remote}: {error.text}"
            status = backend_status(name, took_s=took_s, code=error.code, text=text, hint=error.hint)
            usable = False
        except MountdError:
            return False  # rclone itself did not answer: that is the beat's question, not the bucket's
        self._report(status)
        self.status = status
        return usable

    def _report(self, status: RemoteStatus) -> None:
        before, now = self.status.reason, status.reason
        if (before and before.code) == (now and now.code):
            return
        if now is None:
            log.info("bucket answers again", remote=self._remote)
        else:
            log.warning("bucket has a problem", remote=self._remote, cause=now.text, hint=now.hint)
