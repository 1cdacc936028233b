"""One mount: preflight, the ladder up to proven reads, the watch while it runs, and a clean end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import structlog

from mountd.errors import CannotStart, DiskError, DiskTimeout, MountdError, RemoteError
from mountd.files.client import Files
from mountd.mount import cleanup, preflight, table
from mountd.mount.disk import MountDisk
from mountd.mount.health import Beats, Verdict, backend_status, is_refusal
from mountd.mount.proof import prove
from mountd.mount.watch import TableWatch, read_table
from mountd.process.child import Child, Exit, Ring, spawn
from mountd.process.instance import Instance
from mountd.process.lifecycle import Life
from mountd.process.notify import ReadySocket
from mountd.process.supervisor import Ending, MustReplace
from mountd.rclone.address import RcAddress
from mountd.rclone.binary import Binary
from mountd.rclone.command import CacheSize, mount_command
from mountd.rclone.conf_file import ConfFile, fingerprint
from mountd.rclone.log import parse
from mountd.rclone.rc import RcClient
from mountd.settings.schema import Settings
from mountd.status.board import Board
from mountd.status.snapshot import CacheStatus, Health, MountStage, MountStatus, Reason, RemoteStatus, State

log = structlog.get_logger()

MOUNTED_TIMEOUT_S = 30.0
"""rclone says READY 0.14 s after its start, also with a dead bucket; 30 s is for a machine that swaps."""
ANSWERING_TIMEOUT_S = 15.0
BACKEND_TIMEOUT_S = 30.0
SUSPECTED_INTERVAL_S = 2.0
"""How often the bucket is asked while it does not answer, or while the mount is suspected."""
SECRETS_INTERVAL_S = 10.0
STATS_INTERVAL_S = 10.0
PROOF_TRIES = 3
CLEAR_TIMEOUT_S = 10.0
STOP_GRACE_S = 10.0


class RcloneMount:
    """A `Service` for the supervisor, and a `Disk` for the models."""

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
        self.name = name
        self.ring = Ring()
        self._settings = settings
        self._mount = settings.mounts[name]
        self._instance = instance
        self._board = board
        self._binary = binary
        self._conf = conf
        self._candidates = candidates
        self._log = log.bind(mount=name)
        self._path = str(self._mount.path)
        self._source = table.devname(instance.id, name)
        self._files = Files(f"{name}-disk", instance.marks(f"{name}-disk"))
        self._beat_files = Files(f"{name}-beat", instance.marks(f"{name}-beat"))
        self._rc: RcClient | None = None
        self._child: Child | None = None
        self._cache_lock: int | None = None
        self._last_error = ""
        self._fingerprint = ""
        self._failure: Reason | None = None
        self._runs = 0
        self._status = MountStatus(path=self._path, remote=self._mount.remote)
        self.disk = MountDisk(self._path, self._mount.remote, self._files, lambda: self._rc)

    # -- status ---------------------------------------------------------------------------------------------------

    def _publish(self, **changes: object) -> None:
        self._status = replace(self._status, **changes)  # type: ignore[arg-type]
        self._board.set_mount(self.name, self._status)

    def changed(self, life: Life, since: str, pid: int | None) -> None:
        state = life.state
        if state is State.RUNNING and self._status.state is not State.RUNNING:
            self._runs += 1
        if state is State.RUNNING:
            health, reason = Health.HEALTHY, None
        elif state in (State.BACKOFF, State.FAILED) or life.failures:
            text = life.cause or f"mount {self.name} is down"
            reason = self._failure or Reason("mount-down", text, "mount", self.name)
            health = Health.DEGRADED
        else:
            health, reason = Health.PROGRESSING, None
        stage = self._status.stage if state in (State.STARTING, State.RUNNING) else MountStage.PREFLIGHT
        self._publish(
            state=state,
            stage=stage,
            health=health,
            reason=reason,
            pid=pid,
            since=since,
            restarts=max(0, self._runs - 1),
        )

    def explain_exit(self, exit_: Exit) -> Ending:
        usage = exit_.code == 2 or (exit_.code == 1 and "unknown flag" in self._last_error)
        said = f": {self._last_error}" if self._last_error else ""
        text = f"rclone ended with {exit_}{said}"
        self._failure = Reason("rclone-usage" if usage else "rclone-exited", text, "rclone", self.name, _EXIT_HINT)
        return Ending(text, permanent=usage)

    # -- the climb ------------------------------------------------------------------------------------------------

    async def start(self, spawned: Callable[[Child], None]) -> None:
        """One climb: preflight, spawned, mounted, answering, ready; each rung with its deadline but the wait for the
        bucket, which lasts as long as the bucket is away."""
        try:
            self._publish(stage=MountStage.PREFLIGHT)
            await self._preflight()
            child = await self._spawn(spawned)
            self._publish(stage=MountStage.SPAWNED, pid=child.pid)
            await self._reach_mounted()
            self._publish(stage=MountStage.MOUNTED)
            await self._reach_answering()
            self._publish(stage=MountStage.ANSWERING)
            await self._reach_ready()
            self._failure = None
            self._publish(stage=MountStage.READY)
        except MountdError as error:
            code = getattr(error, "code", "mount-down")
            self._failure = Reason(code, error.text, "mount", self.name, error.hint)
            raise

    async def _preflight(self) -> None:
        if self._rc is not None:
            await self._rc.close()
            self._rc = None
        root = os.geteuid() == 0
        preflight.check_fuse()
        preflight.check_fusermount()
        preflight.check_allow_other(allow_other=self._settings.allows_other(self._mount, root=root), root=root)
        if preflight.occupant(read_table(), self._path, self._source) is not None:
            await self._clear()
        await preflight.check_mount_point(self._path, self._files)
        if self._cache_lock is None:
            self._cache_lock = preflight.lock_cache(self._mount.cache.dir)
        preflight.check_space(self._mount.cache.dir)

    async def _spawn(self, spawned: Callable[[Child], None]) -> Child:
        await self._conf.write(self._settings)
        self._fingerprint = await fingerprint(self._settings)
        address = self._rc_address()
        self._notify = ReadySocket(self._instance.private / f"notify-{self.name}.sock")
        command = mount_command(
            self.name,
            self._mount,
            self._settings.remotes[self._mount.remote_name],
            binary=self._binary,
            conf=self._conf.path,
            devname=self._source,
            allow_other=self._settings.allows_other(self._mount, root=os.geteuid() == 0),
            rc=address,
            cache=self._cache_size(),
            environment=os.environ,
            secret_variables=self._settings.secret_variables(),
            notify_socket=str(self._notify.path),
        )
        environment = {**command.environment, **self._instance.marks(self.name)}
        for warning in command.warnings:
            self._log.warning("flag has no use", cause=warning)
        self._last_error = ""
        try:
            self._child = spawn(command.argv, environment, self._on_line)
        except OSError as error:
            raise CannotStart(f"cannot start rclone: {(error.strerror or str(error)).lower()}") from None
        spawned(self._child)
        self._rc = RcClient(address)
        return self._child

    def _rc_address(self) -> RcAddress:
        user, password = "mountd", secrets.token_urlsafe(24)
        if not self._binary.has_rc_socket:
            return RcAddress(user, password, port=_free_port())
        path = self._instance.private / f"rc-{self.name}.sock"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        return RcAddress(user, password, socket=path)

    def _cache_size(self) -> CacheSize:
        cache = self._mount.cache
        usage = os.statvfs(cache.dir)
        total = usage.f_blocks * usage.f_frsize
        return CacheSize(
            max_bytes=cache.max_size.of(total) if cache.max_size else None,
            min_free_bytes=cache.min_free.of(total),
            room_bytes=usage.f_bavail * usage.f_frsize,
        )

    def _on_line(self, line: str) -> None:
        event = parse(line, self._conf.secrets)
        self.ring.append(event.text)
        if event.level == "error":
            self._last_error = event.text[:500]
        method = {"error": self._log.warning, "warning": self._log.info}.get(event.level, self._log.debug)
        method("rclone says", text=event.text, **event.keys)

    async def _reach_mounted(self) -> None:
        try:
            async with asyncio.timeout(MOUNTED_TIMEOUT_S):
                await self._notify.wait()
                while self._entry() is None:
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise CannotStart(
                f"cannot mount {self._mount.remote} at {self._path}: not mounted after {MOUNTED_TIMEOUT_S:g} s",
                hint=f"see `mountd logs {self.name}`",
            ) from None

    async def _reach_answering(self) -> None:
        assert self._rc is not None
        deadline = time.monotonic() + ANSWERING_TIMEOUT_S
        while True:
            try:
                await self._beat_files.statfs(self._path, timeout_s=self._mount.health.timeout)
                stats = await self._rc.vfs_stats(timeout_s=self._mount.health.timeout)
                break
            except MountdError as error:
                if time.monotonic() > deadline:
                    raise CannotStart(f"cannot use {self._path}: {error.text}", hint=error.hint) from None
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
        beats, tries = Beats(), 0
        secrets_seen = time.monotonic()
        while True:
            beats = await self._beat(beats)
            self._condemn_if(beats)
            if await self._ask_backend():
                try:
                    await prove(self.disk, self._files, self._candidates())
                    return
                except MountdError as error:
                    tries += 1
                    self._log.info("mount is not proven yet", cause=error.text, attempt=tries)
                    reason = Reason("mount-not-proven", error.text, "mount", self.name, error.hint)
                    self._publish(reason=reason)
                    if tries >= PROOF_TRIES and await self._ask_backend():
                        raise CannotStart(error.text, hint=error.hint, code="mount-not-proven") from None
            elif time.monotonic() - secrets_seen > SECRETS_INTERVAL_S:
                secrets_seen = time.monotonic()
                if await fingerprint(self._settings) != self._fingerprint:
                    raise CannotStart("the credentials have changed: starting again with the new ones", retry_s=0.0)
            await asyncio.sleep(SUSPECTED_INTERVAL_S)

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
            was = beats.missed
            beats = await self._beat(beats)
            if beats.missed and not was:
                reason = Reason("mount-silent", f"mount {self.name} did not answer", "mount", self.name)
                self._publish(health=Health.DEGRADED, reason=reason)
            elif was and not beats.missed:
                self._publish(health=Health.HEALTHY, reason=None)
            self._condemn_if(beats)

    async def _beat(self, beats: Beats) -> Beats:
        try:
            await self._beat_files.statfs(self._path, timeout_s=self._mount.health.timeout)
        except DiskTimeout:
            return beats.unanswered()
        except DiskError as error:
            dead = error.errno in (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO, errno.ENOENT)
            return beats.broken(error.text) if dead else beats.unanswered()
        # After an unmount the directory beneath answers, at full speed.
        return beats.answered() if self._entry() else beats.broken(f"{self._path} is no longer mounted")

    def _condemn_if(self, beats: Beats) -> None:
        verdict = beats.verdict(self._mount.health.failures)
        if verdict is Verdict.HUNG:
            text = f"mount {self.name} is hung: {beats.missed} beats unanswered"
        elif verdict is Verdict.DEAD:
            text = f"mount {self.name} is dead: {beats.gone}"
        else:
            return
        self._failure = Reason(f"mount-{verdict}", text, "mount", self.name)
        if self._status.state is State.RUNNING:
            raise MustReplace(text)
        raise CannotStart(text, code=f"mount-{verdict}")

    async def _watch_backend(self) -> None:
        while True:
            healthy = await self._ask_backend()
            await asyncio.sleep(self._mount.health.backend if healthy else SUSPECTED_INTERVAL_S)

    async def _ask_backend(self) -> bool:
        """One small request outside the mount; publishes the answer."""
        assert self._rc is not None
        remote = self._mount.remote_name
        began = time.monotonic()
        try:
            await self._rc.list(self._mount.remote, quick=True, timeout_s=BACKEND_TIMEOUT_S)
            status = backend_status(remote, took_s=time.monotonic() - began)
        except RemoteError as error:
            took_s = time.monotonic() - began
            status = backend_status(remote, took_s=took_s, code=error.code, text=error.text, hint=error.hint)
        except MountdError:
            # rclone itself did not answer: that is the beat's question, not the bucket's.
            return False
        self._report_backend(status)
        self._publish(backend=status)
        return status.health is Health.HEALTHY or (status.reason is not None and status.reason.code == "bucket-slow")

    def _report_backend(self, status: RemoteStatus) -> None:
        before, now = self._status.backend.reason, status.reason
        if (before and before.code) == (now and now.code):
            return
        if now is None:
            self._log.info("bucket answers again", remote=self._mount.remote)
        else:
            self._log.warning("bucket has a problem", remote=self._mount.remote, cause=now.text, hint=now.hint)

    async def _watch_table(self) -> None:
        gone = asyncio.Event()
        watch = TableWatch(lambda _: None if self._entry() else gone.set())
        watch.start()
        try:
            if self._entry():
                await gone.wait()
        finally:
            watch.close()
        self._condemn_if(Beats(gone=f"{self._path} was unmounted by somebody else"))

    async def _watch_stats(self) -> None:
        assert self._rc is not None
        while True:
            with contextlib.suppress(MountdError):
                self._publish_cache(await self._rc.vfs_stats(timeout_s=self._mount.health.timeout))
            await asyncio.sleep(STATS_INTERVAL_S)

    def _publish_cache(self, stats: dict[str, object]) -> None:
        disk = stats.get("diskCache")
        if isinstance(disk, dict):
            queued = int(disk.get("uploadsQueued", 0)) + int(disk.get("uploadsInProgress", 0))
            self._publish(cache=CacheStatus(int(disk.get("bytesUsed", 0)), int(disk.get("files", 0)), queued))

    def _entry(self) -> table.Entry | None:
        entry = table.at(read_table(), self._path)
        return entry if entry is not None and entry.source == self._source else None

    # -- the end --------------------------------------------------------------------------------------------------

    async def clean(self) -> None:
        """After rclone has ended: nothing of ours mounted there, no socket left. Raises Unavailable."""
        if self._child is not None:
            self._child.signal(signal.SIGKILL)
            self._child.release()
            self._child = None
            self._notify.close()
        if self._rc is not None:
            await self._rc.close()
            self._rc = None
        await self._clear()

    async def _clear(self) -> None:
        cleared = await cleanup.clear(self._path, self._source, timeout_s=CLEAR_TIMEOUT_S)
        if cleared.unmounted:
            self._log.info("cleared what was left mounted", path=self._path, mounts=cleared.unmounted)

    async def close(self) -> None:
        """The workers, and the lock on the cache."""
        await self._files.close()
        await self._beat_files.close()
        if self._cache_lock is not None:
            os.close(self._cache_lock)
            self._cache_lock = None

    def refusal(self) -> bool:
        """The bucket says no: other credentials could change that."""
        reason = self._status.backend.reason
        return reason is not None and is_refusal(reason.code)


_EXIT_HINT = "see `mountd logs`; `mountd config render` shows the command line"


def _free_port() -> int:
    import socket

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
