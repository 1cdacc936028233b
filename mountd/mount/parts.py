"""What one mount is made of; shared by its climb, its watch and its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from mountd.cache.bypass import Bypass
from mountd.cache.guard import CacheGuard
from mountd.cache.index import CacheIndex
from mountd.cache.retention import CacheClaim
from mountd.cache.uploads import Uploads
from mountd.files.client import Files
from mountd.fuse import unmount
from mountd.mount.bucket import TIMEOUT_S, Backend
from mountd.mount.disk import MountDisk
from mountd.mount.engine import Engine
from mountd.mount.health import SLOW_S
from mountd.mount.liveness import Beat
from mountd.mount.turns import Turns
from mountd.settings import profiles
from mountd.settings.schema import MountSettings, Settings
from mountd.status.board import Board, PublishMount
from mountd.status.snapshot import MountStatus

CLEAR_TIMEOUT_S = 10.0


@dataclass(slots=True)
class Parts:
    """`settings` may be replaced while it runs; everything else stays. `candidates`: what is worth reading, best first;
    `cache_claims`: what the models on it keep in the cache.

    Three workers, so that a touch that waits for the bucket delays neither the beat nor the models: `beat` has one,
    `looker` looks at paths, `files` is for the climb and for models.
    """

    name: str
    settings: Settings
    path: str
    source: str
    incidents: Path
    board: Board
    files: Files
    looker: Files
    beat: Beat
    engine: Engine
    backend: Backend
    cache: CacheGuard
    index: CacheIndex
    bypass: Bypass
    turns: Turns
    disk: MountDisk
    uploads: Uploads
    candidates: Callable[[], Sequence[str]]
    cache_claims: Callable[[], Sequence[CacheClaim]]
    publish: PublishMount
    log: FilteringBoundLogger

    @property
    def mount(self) -> MountSettings:
        return self.settings.mounts[self.name]

    @property
    def status(self) -> MountStatus:
        return self.board.snapshot.mounts[self.name]

    async def ask_backend(self, timeout_s: float) -> bool:
        """Whether the bucket gives what it is asked; the answer goes onto the board, and so does its silence."""
        asking = asyncio.ensure_future(self.backend.ask(timeout_s))
        try:
            answered, _ = await asyncio.wait({asking}, timeout=SLOW_S)
            if not answered:
                await self.backend.miss()
                self.publish(lambda status: replace(status, backend=self.backend.status))
            usable = await asking
        finally:
            asking.cancel()
        self.publish(lambda status: replace(status, backend=self.backend.status))
        return usable

    async def could_begin(self) -> bool:
        """Whether a new rclone could begin now: the bucket gives what it is asked, or refuses."""
        if self.backend.could_begin:
            await self.ask_backend(TIMEOUT_S)
        return self.backend.could_begin

    @property
    def needs_cache(self) -> bool:
        """Whether rclone was asked to keep on disk what it reads or writes: it goes on without, silently."""
        return profiles.cache_mode(self.mount) != "off" and not self.bypass.active

    async def clear(self) -> None:
        """Nothing of ours stays mounted there. Raises Unavailable."""
        cleared = await unmount.clear(self.path, self.source, timeout_s=CLEAR_TIMEOUT_S)
        if cleared.unmounted:
            ended = {"ended": list(cleared.ended)} if cleared.ended else {}
            self.log.info("cleared what was left mounted", path=self.path, mounts=cleared.unmounted, **ended)

    async def close(self) -> None:
        """The workers, and the lock on the cache."""
        await self.files.close()
        await self.looker.close()
        await self.beat.close()
        await self.cache.release()
