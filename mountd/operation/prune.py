"""Versions that no model needs any more leave the local cache: after each commit, and once an hour."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from functools import partial

import structlog

from mountd.cache import evict
from mountd.cache.evict import Place
from mountd.cache.retention import Cached, Claim, plan
from mountd.errors import Busy, MountdError, cause_of
from mountd.journal.journal import Journal
from mountd.model.model import Model
from mountd.mount.mount import RcloneMount
from mountd.status.board import Board
from mountd.status.snapshot import Snapshot, size

log = structlog.get_logger()

INTERVAL_S = 3600.0
AGAIN_S = 60.0
"""After something was busy: the app of a former version may just be on its way out."""
PRUNED = "pruned"


class Prune:
    """`models` and `mounts` are those of now, however a reload changes them."""

    def __init__(
        self, models: Mapping[str, Model], mounts: Mapping[str, RcloneMount], board: Board, journal: Journal
    ) -> None:
        self._models = models
        self._mounts = mounts
        self._board = board
        self._journal = journal

    async def run(self) -> None:
        """Until cancelled. What fails is told and tried again; nothing depends on it."""
        pruned: object = None
        due = 0.0
        while True:
            await self._wait(pruned, due)
            pruned = _state(self._board.snapshot)
            done = await self.prune()
            due = time.monotonic() + (INTERVAL_S if done else AGAIN_S)

    async def _wait(self, pruned: object, due: float) -> None:
        def is_due(snapshot: Snapshot) -> bool:
            return _is_at_rest(snapshot) and (_state(snapshot) != pruned or time.monotonic() >= due)

        while not is_due(self._board.snapshot):
            left_s = due - time.monotonic()
            with contextlib.suppress(TimeoutError):
                await self._board.wait_until(is_due, left_s if left_s > 0 else None)

    async def prune(self) -> bool:
        """Of all mounts, one look; whether nothing was busy."""
        done = True
        for name in list(self._mounts):
            try:
                done = await self._prune_mount(name) and done
            except (MountdError, OSError) as error:
                log.warning("cannot prune the cache", mount=name, cause=_cause(error))
                done = False
        return done

    async def _prune_mount(self, name: str) -> bool:
        mount = self._mounts.get(name)
        place = await mount.place() if mount else None
        if place is None:
            return True
        await asyncio.to_thread(evict.sweep, place.cache)
        models = [model for model in self._models.values() if model.settings.mount == name]
        claims = [await self._claim(model, place) for model in models]
        done = True
        for going in plan(claims, time.time()):
            if not _is_at_rest(self._board.snapshot):
                return False  # an operation may need it
            model = next(claim.model for claim in claims if going in claim.cached)
            done = await self._evict(place, model, going) and done
        return done

    async def _claim(self, model: Model, place: Place) -> Claim:
        layout = model.layout
        found = []
        for name in await asyncio.to_thread(evict.names, place, layout.parent):
            version = layout.version_of(name)
            if version is not None:
                directory = layout.directory(version)
                usage = await asyncio.to_thread(evict.usage, place, directory)
                if usage.bytes:
                    found.append(Cached(version, directory, usage.bytes, usage.used_at))
        committed = await self._journal.committed(model.name)
        known = {each.version for each in found if await self._journal.content(model.name, each.version) is not None}
        status = self._board.snapshot.models.get(model.name)
        needed = {status.current if status else None, committed.current, committed.previous, committed.desired}
        return Claim(
            model=model.name,
            cached=tuple(found),
            keep=model.settings.keep,
            needed=frozenset(each for each in needed if each is not None),
            known=frozenset(known),
            # Before anything was live nobody knows what is needed.
            paused=committed.suspended is not None or committed.current is None,
        )

    async def _evict(self, place: Place, model: str, going: Cached) -> bool:
        """Whether it is gone."""
        try:
            await _to_its_end(partial(evict.evict, place, going.directory))
        except Busy as busy:
            log.info("version stays in the cache", model=model, version=going.version, cause=busy.text)
            return False
        except OSError as error:
            log.warning("cannot prune the cache", model=model, version=going.version, cause=_cause(error))
            return False
        freed = size(going.bytes)
        log.info("version left the cache", model=model, version=going.version, bytes=going.bytes, freed=freed)
        with contextlib.suppress(MountdError):  # whoever writes events tells that the journal fails
            await self._journal.event(
                PRUNED, model, f"{going.version} has left the local cache: {freed} are free again"
            )
        return True


def _state(snapshot: Snapshot) -> object:
    """What decides which versions go; another one is a reason to look."""
    models = {
        name: (model.current, model.previous, model.desired, model.suspended) for name, model in snapshot.models.items()
    }
    return models, {name: (mount.usable, mount.restarts) for name, mount in snapshot.mounts.items()}


def _is_at_rest(snapshot: Snapshot) -> bool:
    return not snapshot.stopping and snapshot.operation is None


async def _to_its_end(work: Callable[[], None]) -> None:
    """In a thread, also when this is cancelled meanwhile: no rclone stays stopped."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def _cause(error: Exception) -> str:
    if isinstance(error, MountdError):
        return error.text
    return cause_of(error) if isinstance(error, OSError) else str(error).lower()
