"""One mount: preflight, the ladder up to proven reads, the watch while it runs, and a clean end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace

import structlog

from mountd.errors import CannotStart, MountdError, UsageError
from mountd.files.client import Files
from mountd.mount import cleanup, preflight, table
from mountd.mount.backend import Backend
from mountd.mount.beat import Beat
from mountd.mount.disk import MountDisk
from mountd.mount.engine import Engine
from mountd.mount.health import Beats, Verdict
from mountd.mount.proof import prove
from mountd.mount.watch import TableWatch, read_table
from mountd.process.child import Child, Exit
from mountd.process.instance import Instance
from mountd.process.lifecycle import Life
from mountd.process.supervisor import Ending, MustReplace
from mountd.rclone.binary import Binary
from mountd.rclone.conf_file import ConfFile
from mountd.settings.schema import Settings
from mountd.status.board import Board
from mountd.status.snapshot import CacheStatus, Health, MountStage, MountStatus, Reason, RemoteStatus, State

log = structlog.get_logger()

MOUNTED_TIMEOUT_S = 30.0
"""rclone says READY 0.14 s after its start, also with a dead bucket; 30 s is for a machine that swaps."""
ANSWERING_TIMEOUT_S = 15.0
SUSPECTED_INTERVAL_S = 2.0
"""How often the bucket is asked while it does not answer."""
SECRETS_INTERVAL_S = 10.0
STATS_INTERVAL_S = 10.0
PROOF_TRIES = 3
CLEAR_TIMEOUT_S = 10.0
STOP_GRACE_S = 10.0


class RcloneMount:
    """A `Service` for the supervisor; its `disk` is what the models use."""

    kind = "mount"
    stop_signal = signal.SIGTERM

    def __init__(
        self,
        name: str,
        settings: Settings,
        *,
        instance: Instance,
        board: Board,
        binary: Binary,
        conf: ConfFile,
        candidates: Callable[[], Sequence[str]],
    ) -> None:
        """`candidates` are the paths that are worth reading to prove the mount, best first."""
        self.name = name
        self._settings = settings
        self._mount = settings.mounts[name]
        self._board = board
        self._candidates = candidates
        self._log = log.bind(mount=name)
        self._path = str(self._mount.path)
        self._source = table.devname(instance.id, name)
        self._files = Files(f"{name}-disk", instance.marks(f"{name}-disk"))
        beat_files = Files(f"{name}-beat", instance.marks(f"{name}-beat"))
        self._beat = Beat(self._path, self._source, beat_files, self._mount.health.timeout)
        self._engine = Engine(name, settings, instance, binary, conf)
        self._backend = Backend(self._mount.remote, self._engine)
        self._cache_lock: int | None = None
        self._failure: Reason | None = None
        self._runs = 0
        self._status = MountStatus(path=self._path, remote=self._mount.remote)
        self.ring = self._engine.ring
        self.disk = MountDisk(self._path, self._mount.remote, self._files, self._engine)
        self._publish()

    # -- status ---------------------------------------------------------------------------------------------------

    def _publish(self, **changes: object) -> None:
        self._status = replace(self._status, **changes)  # type: ignore[arg-type]
        self._board.set_mount(self.name, self._status)

    def changed(self, life: Life, since: str, pid: int | None) -> None:
        state = life.state
        if state is State.RUNNING and self._status.state is not State.RUNNING:
            self._runs += 1
        up = state in (State.STARTING, State.RUNNING)
        if state is State.RUNNING:
            health, reason = Health.HEALTHY, None
        elif life.cause and life.wanted:
            health = Health.DEGRADED
            reason = self._failure or Reason("mount-down", life.cause, "mount", self.name)
        else:
            health, reason = Health.PROGRESSING, None
        self._publish(
            state=state,
            stage=self._status.stage if up else MountStage.PREFLIGHT,
            health=health,
            reason=reason,
            pid=pid,
            since=since,
            restarts=max(0, self._runs - 1),
            # Without rclone nobody asks: what was last heard is no knowledge of now.
            backend=self._status.backend if up else RemoteStatus(),
        )

    def explain_exit(self, exit_: Exit) -> Ending:
        text, usage = self._engine.explain_exit(exit_)
        hint = f"see `mountd logs {self.name}`; `mountd config render` shows the command line"
        self._failure = Reason("rclone-usage" if usage else "rclone-exited", text, "rclone", self.name, hint)
        return Ending(text, permanent=usage)

    # -- the climb ------------------------------------------------------------------------------------------------

    async def start(self, spawned: Callable[[Child], None]) -> None:
        """One climb: preflight, spawned, mounted, answering, ready.

        Each rung has its deadline but the wait for the bucket, which lasts as long as the bucket is away.
        """
        try:
            self._publish(stage=MountStage.PREFLIGHT)
            await self._preflight()
            child = await self._engine.spawn()
            spawned(child)
            self._publish(stage=MountStage.SPAWNED, pid=child.pid)
            await self._reach_mounted()
            self._publish(stage=MountStage.MOUNTED)
            await self._reach_answering()
            self._publish(stage=MountStage.ANSWERING)
            await self._while_it_beats(self._reach_ready())
            self._failure = None
            self._publish(stage=MountStage.READY)
        except MountdError as error:
            code = getattr(error, "code", "rclone-usage" if isinstance(error, UsageError) else "mount-down")
            self._failure = Reason(code, " ".join(error.text.split()), "mount", self.name, error.hint)
            raise

    async def _preflight(self) -> None:
        root = os.geteuid() == 0
        preflight.check_fuse()
        preflight.check_fusermount()
        preflight.check_allow_other(allow_other=self._settings.allows_other(self._mount, root=root), root=root)
        if preflight.occupant(read_table(), self._path, self._source) is not None:
            await self._clear()
        await preflight.check_mount_point(self._path, self._files)
        self._cache_lock = preflight.lock_cache(self._mount.cache.dir, self._cache_lock)
        preflight.check_space(self._mount.cache.dir)

    async def _reach_mounted(self) -> None:
        try:
            async with asyncio.timeout(MOUNTED_TIMEOUT_S):
                await self._engine.wait_mounted()
                while self._beat.entry() is None:
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise CannotStart(
                f"cannot mount {self._mount.remote} at {self._path}: not mounted after {MOUNTED_TIMEOUT_S:g} s",
                hint=f"see `mountd logs {self.name}`",
            ) from None

    async def _reach_answering(self) -> None:
        deadline = time.monotonic() + ANSWERING_TIMEOUT_S
        while True:
            beats = await self._beat.ask(Beats())
            try:
                stats = await self._engine.rc.vfs_stats(timeout_s=self._mount.health.timeout)
                if beats == Beats():
                    break
                cause = beats.gone or "no answer to statfs"
            except MountdError as error:
                cause = error.text
            if time.monotonic() > deadline:
                raise CannotStart(f"cannot use {self._path}: {cause}", hint=f"see `mountd logs {self.name}`")
            await asyncio.sleep(0.1)
        self._publish_cache(stats)
        if self._mount.profile == "model-hub" and "diskCache" not in stats:
            raise CannotStart(
                f"cannot use {self._path}: rclone runs without its disk cache ({self._mount.cache.dir})",
                hint=f"see `mountd logs {self.name}`; the directory must be writable",
                code="cache-off",
                retry_s=preflight.RETRY_S,
            )

    async def _reach_ready(self) -> None:
        """Waits for the bucket; then the mount has to show what the bucket holds, and give bytes of it."""
        tries, secrets_checked = 0, time.monotonic()
        while True:
            if await self._ask_backend():
                try:
                    await prove(self.disk, self._files, self._candidates())
                    return
                except MountdError as error:
                    tries += 1
                    self._log.info("mount is not proven yet", cause=error.text, attempt=tries)
                    self._publish(reason=Reason("mount-not-proven", error.text, "mount", self.name, error.hint))
                    if tries >= PROOF_TRIES and await self._ask_backend():
                        raise CannotStart(error.text, hint=error.hint, code="mount-not-proven") from None
            elif time.monotonic() - secrets_checked > SECRETS_INTERVAL_S:
                secrets_checked = time.monotonic()
                if await self._engine.has_stale_secrets():
                    raise CannotStart("the credentials have changed: starting again with the new ones", retry_s=0.0)
            await asyncio.sleep(SUSPECTED_INTERVAL_S)

    async def _while_it_beats(self, work: Coroutine[None, None, None]) -> None:
        """Ends `work` when rclone hangs meanwhile: by itself it would wait for its own, much longer deadlines."""
        try:
            async with asyncio.TaskGroup() as group:
                beating = group.create_task(self._watch_beats())
                await work
                beating.cancel()
        except BaseExceptionGroup as failures:
            failure = failures.exceptions[0]
            if isinstance(failure, MustReplace):
                raise CannotStart(failure.text, code=self._failure.code if self._failure else "mount-down") from None
            raise failure from None

    def _judge(self, beats: Beats) -> None:
        """Raises MustReplace when nothing serves there any more."""
        verdict = beats.verdict(self._mount.health.failures)
        if verdict is Verdict.HUNG:
            text = f"mount {self.name} is hung: {beats.missed} beats unanswered"
        elif verdict is Verdict.DEAD:
            text = f"mount {self.name} is dead: {beats.gone}"
        else:
            return
        self._failure = Reason(f"mount-{verdict}", text, "mount", self.name, f"see `mountd logs {self.name}`")
        raise MustReplace(text)

    # -- the watch ------------------------------------------------------------------------------------------------

    async def watch(self) -> None:
        """Beats, the bucket, the mount table and the cache's figures, each at its own pace. Raises MustReplace."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._watch_beats())
                group.create_task(self._watch_backend())
                group.create_task(self._watch_table())
                group.create_task(self._watch_stats())
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _watch_beats(self) -> None:
        beats = Beats()
        while True:
            await asyncio.sleep(self._mount.health.interval)
            before, beats = beats, await self._beat.ask(beats)
            if beats.missed and not before.missed:
                reason = Reason("mount-silent", f"mount {self.name} did not answer", "mount", self.name)
                self._publish(health=Health.DEGRADED, reason=reason)
            elif before.missed and not beats.missed:
                running = self._status.state is State.RUNNING
                self._publish(health=Health.HEALTHY if running else Health.PROGRESSING, reason=None)
            self._judge(beats)

    async def _watch_backend(self) -> None:
        while True:
            usable = await self._ask_backend()
            if not usable and self._backend.is_refusing and await self._engine.has_stale_secrets():
                self._failure = None
                raise MustReplace("the store refuses the old credentials: starting again with the new ones")
            await asyncio.sleep(self._mount.health.backend if usable else SUSPECTED_INTERVAL_S)

    async def _ask_backend(self) -> bool:
        usable = await self._backend.ask()
        self._publish(backend=self._backend.status)
        return usable

    async def _watch_table(self) -> None:
        gone = asyncio.Event()
        watch = TableWatch(lambda entries: None if self._beat.entry(entries) else gone.set())
        watch.start()
        try:
            if self._beat.entry():
                await gone.wait()
        finally:
            watch.close()
        self._judge(Beats(gone=f"{self._path} was unmounted by somebody else"))

    async def _watch_stats(self) -> None:
        while True:
            with contextlib.suppress(MountdError):
                self._publish_cache(await self._engine.rc.vfs_stats(timeout_s=self._mount.health.timeout))
            await asyncio.sleep(STATS_INTERVAL_S)

    def _publish_cache(self, stats: Mapping[str, object]) -> None:
        disk = stats.get("diskCache")
        if isinstance(disk, dict):
            queued = int(disk.get("uploadsQueued", 0)) + int(disk.get("uploadsInProgress", 0))
            self._publish(cache=CacheStatus(int(disk.get("bytesUsed", 0)), int(disk.get("files", 0)), queued))

    # -- the end --------------------------------------------------------------------------------------------------

    async def clean(self) -> None:
        """After rclone has ended: nothing of ours mounted there, no socket left. Raises Unavailable."""
        if self._engine.child is not None:
            self._engine.child.signal(signal.SIGKILL)  # what it may have left in its group
        await self._engine.close()
        try:
            await self._clear()
        except MountdError as error:
            self._failure = Reason("cannot-unmount", error.text, "mount", self.name, error.hint)
            self._publish(health=Health.DEGRADED, reason=self._failure)
            raise

    async def _clear(self) -> None:
        cleared = await cleanup.clear(self._path, self._source, timeout_s=CLEAR_TIMEOUT_S)
        if cleared.unmounted:
            self._log.info("cleared what was left mounted", path=self._path, mounts=cleared.unmounted)

    async def close(self) -> None:
        """The workers, and the lock on the cache."""
        await self._files.close()
        await self._beat.close()
        if self._cache_lock is not None:
            os.close(self._cache_lock)
            self._cache_lock = None
