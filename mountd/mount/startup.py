"""The start-up of a mount: preflight, spawned, mounted, answering, ready; "mounted" alone means nothing yet."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, Protocol

import structlog

from mountd.errors import CannotStart, MountdError, RemoteError
from mountd.fuse.table import Entry
from mountd.mount.bucket import AWAY_INTERVAL_S, PATIENT_S, TIMEOUT_S
from mountd.mount.health import Liveness, Replace
from mountd.process.child import Child
from mountd.rclone.failures import OF_THE_OBJECT
from mountd.rclone.rc import RcClient
from mountd.rclone.stats import VfsStats
from mountd.settings.schema import MountSettings
from mountd.status.board import PublishMount
from mountd.status.snapshot import MountStage, Reason, RemoteStatus

MOUNTED_TIMEOUT_S = 30.0
"""rclone says READY 0.14 s after its start, also with a dead bucket; 30 s is for a machine that swaps."""
ANSWERING_TIMEOUT_S = 15.0
PROOF_INTERVAL_S = 2.0
PROOF_TRIES = 3

log = structlog.get_logger()


class StartingRclone(Protocol):
    """What `engine.Engine` does for a start."""

    name: str

    @property
    def mount(self) -> MountSettings: ...
    @property
    def rc(self) -> RcClient: ...
    async def spawn(self) -> Child: ...
    async def wait_mounted(self) -> None: ...
    async def has_stale_secrets(self) -> bool: ...


class AskedMount(Protocol):
    """What `liveness.LivenessProbe` does for a start."""

    def entry(self) -> Entry | None: ...
    async def ask(self, before: Liveness) -> Liveness: ...


class AskedBucket(Protocol):
    """What `bucket.BucketProbe` does for a start."""

    status: RemoteStatus

    @property
    def is_refusing(self) -> bool: ...
    @property
    def is_asked_for_room(self) -> bool: ...
    async def probe(self, timeout_s: float) -> bool: ...


@dataclass(slots=True)
class StartUp:
    """Each stage has its deadline but the wait for the bucket, which lasts as long as the bucket is away.

    `prepare`: all that comes before rclone. `accept` gets the first VfsStats. `prove`: the mount shows what the
    bucket holds, and gives bytes of it. Each raises CannotStart or another MountdError when it cannot be so.
    `guard`: see `monitor.MountMonitor`.
    """

    engine: StartingRclone
    liveness: AskedMount
    bucket: AskedBucket
    prepare: Callable[[], Awaitable[None]]
    accept: Callable[[VfsStats], Awaitable[None]]
    prove: Callable[[], Awaitable[None]]
    guard: Callable[[Coroutine[Any, Any, None]], Awaitable[Replace | None]]
    publish: PublishMount

    async def run(self, spawned: Callable[[Child], None]) -> Replace | None:
        """Until the mount is ready; not None: it hangs, and must be replaced. `spawned` hears of rclone's process.

        Raises CannotStart and other MountdErrors.
        """
        self._reached(MountStage.PREFLIGHT)
        await self.prepare()
        child = await self.engine.spawn()
        spawned(child)
        self.publish(lambda status: replace(status, stage=MountStage.SPAWNED, pid=child.pid))
        await self._until_mounted()
        self._reached(MountStage.MOUNTED)
        await self._until_answering()
        self._reached(MountStage.ANSWERING)
        hangs = await self.guard(self._until_ready())
        if hangs is None:
            self._reached(MountStage.READY)
        return hangs

    def _reached(self, stage: MountStage) -> None:
        self.publish(lambda status: replace(status, stage=stage))

    @property
    def _see_logs(self) -> str:
        return f"see `mountd logs {self.engine.name}`"

    async def _until_mounted(self) -> None:
        mount = self.engine.mount
        try:
            async with asyncio.timeout(MOUNTED_TIMEOUT_S):
                await self.engine.wait_mounted()
                while self.liveness.entry() is None:
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise CannotStart(
                f"cannot mount {mount.remote} at {mount.path}: not mounted after {MOUNTED_TIMEOUT_S:g} s",
                hint=self._see_logs,
            ) from None

    async def _until_answering(self) -> None:
        mount = self.engine.mount
        deadline = time.monotonic() + ANSWERING_TIMEOUT_S
        while True:
            liveness = await self.liveness.ask(Liveness())
            try:
                stats = await self.engine.rc.vfs_stats(timeout_s=mount.health.timeout)
                if liveness == Liveness():
                    break
                cause = liveness.gone or "no answer to statfs"
                if not liveness.gone:
                    # rclone, which is responsive, may ask the bucket how much room there is.
                    await self.bucket.probe(TIMEOUT_S)
                    if self.bucket.is_asked_for_room and self.bucket.status.reason is not None:
                        deadline = time.monotonic() + ANSWERING_TIMEOUT_S
            except MountdError as error:
                cause = error.text
            if time.monotonic() > deadline:
                raise CannotStart(f"cannot use {mount.path}: {cause}", hint=self._see_logs)
            await asyncio.sleep(0.1)
        await self.accept(stats)

    async def _until_ready(self) -> None:
        """Waits for the bucket, then proves the mount."""
        tries = 0
        while True:
            if await self.bucket.probe(PATIENT_S):
                try:
                    await self.prove()
                except CannotStart:
                    raise
                except MountdError as error:
                    # What the bucket refuses to everybody, another rclone would not get either.
                    tries += not (isinstance(error, RemoteError) and error.code in OF_THE_OBJECT)
                    await self._not_proven(error, tries)
                else:
                    return
                await asyncio.sleep(PROOF_INTERVAL_S)
            elif self.bucket.is_refusing and await self.engine.has_stale_secrets():
                raise CannotStart("the credentials have changed: starting again with the new ones", retry_s=0.0)
            else:
                await asyncio.sleep(AWAY_INTERVAL_S)

    async def _not_proven(self, error: MountdError, tries: int) -> None:
        """Raises CannotStart after PROOF_TRIES."""
        log.info("mount is not proven yet", mount=self.engine.name, cause=error.text, attempt=tries)
        reason = Reason("mount-not-proven", error.text, "mount", self.engine.name, error.hint)
        self.publish(lambda status: replace(status, reason=reason))
        if tries >= PROOF_TRIES and await self.bucket.probe(PATIENT_S):
            raise CannotStart(error.text, hint=error.hint, code="mount-not-proven") from None
