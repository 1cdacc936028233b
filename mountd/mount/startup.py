"""The climb of a mount: preflight, spawned, mounted, answering, ready; "mounted" alone means nothing yet."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import replace

from mountd.cache.bypass import may_bypass
from mountd.errors import FIX_RETRY_S, CannotStart, MountdError, RemoteError
from mountd.fuse.watch import read_table
from mountd.mount import preflight
from mountd.mount.bucket import PATIENT_S, TIMEOUT_S, Witness
from mountd.mount.disk import OF_THE_OBJECT
from mountd.mount.health import Beats
from mountd.mount.monitor import ASK_INTERVAL_S, Watching, cache_status
from mountd.mount.parts import Parts
from mountd.mount.proof import Proof, prove
from mountd.process.child import Child
from mountd.settings import profiles
from mountd.status.snapshot import MountStage, Reason

MOUNTED_TIMEOUT_S = 30.0
"""rclone says READY 0.14 s after its start, also with a dead bucket; 30 s is for a machine that swaps."""
ANSWERING_TIMEOUT_S = 15.0
PROOF_INTERVAL_S = 2.0
PROOF_TRIES = 3


async def climb(parts: Parts, watching: Watching, spawned: Callable[[Child], None]) -> None:
    """Each rung has its deadline but the wait for the bucket, which lasts as long as the bucket is away.

    Raises CannotStart and other MountdErrors.
    """
    parts.publish(lambda status: replace(status, stage=MountStage.PREFLIGHT))
    await _prepare(parts)
    child = await parts.engine.spawn()
    spawned(child)
    parts.publish(lambda status: replace(status, stage=MountStage.SPAWNED, pid=child.pid))
    await _reach_mounted(parts)
    parts.publish(lambda status: replace(status, stage=MountStage.MOUNTED))
    await _reach_answering(parts)
    parts.publish(lambda status: replace(status, stage=MountStage.ANSWERING))
    await watching.while_it_beats(_reach_ready(parts))
    parts.publish(lambda status: replace(status, stage=MountStage.READY))


async def _prepare(parts: Parts) -> None:
    root = os.geteuid() == 0
    preflight.check_fuse()
    preflight.check_fusermount()
    preflight.check_allow_other(allow_other=parts.settings.allows_other(parts.mount, root=root), root=root)
    if preflight.occupant(read_table(), parts.path, parts.source) is not None:
        await parts.clear()
    await preflight.check_mount_point(parts.path, parts.files, allow_unsafe=parts.settings.allow_unsafe_paths)
    parts.board.set_lack(f"visibility of {parts.name}", preflight.apart(parts.name, parts.path))
    await _begin_cache(parts)
    parts.uploads.begin(parts.mount)
    parts.backend.begin()
    await parts.uploads.repair()
    if not parts.engine.without_cache:
        await parts.index.evict(parts.mount, parts.cache_claims())
        await parts.index.repair(parts.mount)


async def _begin_cache(parts: Parts) -> None:
    """Where it cannot be used and the policy is to go on, this start does without. Raises CannotStart."""
    bypass, cache = parts.bypass, parts.mount.cache
    before, found = bypass.active, None
    if not may_bypass(parts.mount):
        bypass.forbid()
    try:
        await parts.cache.begin(cache, strict=bypass.is_strict)
    except CannotStart as error:
        if not await _may_do_without(parts, error.code):
            raise
        found = parts.cache.reason(error, bypassed=True)
    bypass.begin(time.monotonic(), found)
    parts.engine.without_cache = bypass.active
    parts.publish(lambda status: replace(status, cache_broken=found is not None, cache_bypassed=bypass.active))
    if bypass.active and not before:
        told = bypass.reason
        parts.log.warning("going on without the cache", cause=told and told.text, hint=told and told.hint)


async def _may_do_without(parts: Parts, code: str) -> bool:
    # Where another mountd is at it now, that it was used before says nothing, and a silent disk does not say it.
    was_used = code not in ("cache-taken", "cache-silent") and await parts.cache.was_used()
    return parts.bypass.is_open_to(parts.mount, was_used=was_used)


async def _reach_mounted(parts: Parts) -> None:
    try:
        async with asyncio.timeout(MOUNTED_TIMEOUT_S):
            await parts.engine.wait_mounted()
            while parts.beat.entry() is None:
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise CannotStart(
            f"cannot mount {parts.mount.remote} at {parts.path}: not mounted after {MOUNTED_TIMEOUT_S:g} s",
            hint=f"see `mountd logs {parts.name}`",
        ) from None


async def _reach_answering(parts: Parts) -> None:
    deadline = time.monotonic() + ANSWERING_TIMEOUT_S
    while True:
        beats = await parts.beat.ask(Beats())
        try:
            stats = await parts.engine.rc.vfs_stats(timeout_s=parts.mount.health.timeout)
            if beats == Beats():
                break
            cause = beats.gone or "no answer to statfs"
            if not beats.gone and await _waits_for_bucket(parts):
                deadline = time.monotonic() + ANSWERING_TIMEOUT_S
        except MountdError as error:
            cause = error.text
        if time.monotonic() > deadline:
            raise CannotStart(f"cannot use {parts.path}: {cause}", hint=f"see `mountd logs {parts.name}`")
        await asyncio.sleep(0.1)
    parts.publish(lambda status: replace(status, cache=cache_status(stats)))
    parts.uploads.noticed(stats)
    await parts.uploads.hold()
    if parts.needs_cache and "diskCache" not in stats:
        off = CannotStart(
            f"cannot use {parts.path}: rclone runs without its disk cache ({parts.mount.cache.dir})",
            hint=f"see `mountd logs {parts.name}`; the directory must be writable",
            code="cache-off",
            retry_s=FIX_RETRY_S,
        )
        if await _may_do_without(parts, off.code):
            parts.bypass.refuse(parts.cache.reason(off, bypassed=True))
            off.retry_s = 0.0
        raise off
    if parts.needs_cache and parts.bypass.works():
        parts.log.info("going on with the cache again", path=str(parts.mount.cache.dir))


async def _waits_for_bucket(parts: Parts) -> bool:
    """Whether `statfs` may go unanswered because rclone, which is awake, asks the bucket how much room there is."""
    await parts.ask_backend(TIMEOUT_S)
    return parts.backend.is_asked_for_room and parts.backend.status.reason is not None


async def _reach_ready(parts: Parts) -> None:
    """Waits for the bucket; then the mount has to show what the bucket holds, and give bytes of it."""
    tries = 0
    while True:
        if await parts.ask_backend(PATIENT_S):
            try:
                await parts.uploads.reopen(parts.path, parts.files)
                _learn(parts, await prove(parts.disk, parts.files, parts.candidates()))
                return
            except CannotStart:
                raise
            except MountdError as error:
                # What the bucket refuses to whoever asks, another rclone would not get either.
                tries += not (isinstance(error, RemoteError) and error.code in OF_THE_OBJECT)
                parts.log.info("mount is not proven yet", cause=error.text, attempt=tries)
                _publish_reason(parts, Reason("mount-not-proven", error.text, "mount", parts.name, error.hint))
                if tries >= PROOF_TRIES and await parts.ask_backend(PATIENT_S):
                    raise CannotStart(error.text, hint=error.hint, code="mount-not-proven") from None
            await asyncio.sleep(PROOF_INTERVAL_S)
        elif parts.backend.is_refusing and await parts.engine.has_stale_secrets():
            raise CannotStart("the credentials have changed: starting again with the new ones", retry_s=0.0)
        else:
            await asyncio.sleep(ASK_INTERVAL_S)


def _publish_reason(parts: Parts, reason: Reason) -> None:
    parts.publish(lambda status: replace(status, reason=reason))


def _learn(parts: Parts, proof: Proof) -> None:
    """What the bucket holds, by which a later answer that it is empty can be doubted."""
    if proof.witness is not None:
        parts.backend.witness = Witness(parts.mount.remote, proof.witness, profiles.is_read_only(parts.mount))
