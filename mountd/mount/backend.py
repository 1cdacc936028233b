"""The second health question: does the bucket answer? One small request outside the mount."""

from __future__ import annotations

import time

import structlog

from mountd.errors import MountdError, RemoteError
from mountd.mount.engine import Engine
from mountd.mount.health import SLOW_HINT, SLOW_S, backend_status, is_refusal
from mountd.status.snapshot import RemoteStatus

log = structlog.get_logger()

PATIENT_S = 30.0
"""While a mount starts: a store that needs 5 s a request is slow, not away."""
NOOP_S = 1.0
TIMEOUT_S = 10.0
"""While it runs: two requests of 5 s. A question that was lost with its connection must not hold up the next for
long: the bucket may be back by then."""


class Backend:
    """`status` is the last answer."""

    def __init__(self, remote: str, engine: Engine) -> None:
        self.status = RemoteStatus()
        self.remote = remote
        self._engine = engine

    @property
    def is_refusing(self) -> bool:
        """The bucket says no: other credentials could change that."""
        return self.status.reason is not None and is_refusal(self.status.reason.code)

    async def ask(self, timeout_s: float = TIMEOUT_S) -> bool:
        """Whether the bucket gives what it is asked; a slow one does."""
        name = self.remote.partition(":")[0]
        began = time.monotonic()
        try:
            await self._engine.rc.list(self.remote, quick=True, timeout_s=timeout_s)
            status = backend_status(name, took_s=time.monotonic() - began)
            usable = True
        except RemoteError as error:
            took_s = time.monotonic() - began
            text = f"cannot read {self.remote}: {error.text}"
            code = "bucket-silent" if took_s >= timeout_s else error.code
            status = backend_status(name, took_s=took_s, code=code, text=text, hint=error.hint)
            usable = False
        except MountdError:
            return False  # rclone itself did not answer: that is the beat's question, not the bucket's
        self._report(status)
        self.status = status
        return usable

    async def miss(self) -> None:
        """The question is not answered after SLOW_S: that much is known before it ends, if rclone itself answers."""
        if self.status.reason is None and await self._rclone_answers():
            name = self.remote.partition(":")[0]
            text = f"cannot read {self.remote}: the store has not answered for {SLOW_S:g} s"
            status = backend_status(name, took_s=SLOW_S, code="bucket-slow", text=text, hint=SLOW_HINT)
            self._report(status)
            self.status = status

    async def _rclone_answers(self) -> bool:
        try:
            await self._engine.rc.call("rc/noop", timeout_s=NOOP_S)
        except MountdError:
            return False
        return True

    def _report(self, status: RemoteStatus) -> None:
        before, now = self.status.reason, status.reason
        if (before and before.code) == (now and now.code):
            return
        if now is None:
            log.info("bucket answers again", remote=self.remote)
        else:
            log.warning("bucket has a problem", remote=self.remote, cause=now.text, hint=now.hint)
