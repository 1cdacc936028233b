"""One mount as a supervised service: it starts, is monitored, is replaced with evidence, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import structlog

from mountd.cache.bypass import Bypass
from mountd.cache.guard import CacheGuard
from mountd.cache.index import CacheIndex
from mountd.cache.retention import CacheClaim
from mountd.cache.uploads import Uploads
from mountd.errors import CannotStart, MountdError, UsageError
from mountd.files.client import Files
from mountd.fuse import table, unmount
from mountd.mount import evidence, preflight
from mountd.mount.bucket import BucketProbe, SecretsProbe, Witness
from mountd.mount.cache_probe import CacheProbe, CacheStatsProbe
from mountd.mount.disk import MountDisk
from mountd.mount.engine import Engine
from mountd.mount.health import MountVerdict, Replace, RestartRclone, fault
from mountd.mount.liveness import LivenessProbe, MountTableProbe
from mountd.mount.monitor import MountMonitor
from mountd.mount.proof import prove
from mountd.mount.read_ahead import ReadAhead
from mountd.mount.stalls import StallProbe
from mountd.mount.startup import StartUp
from mountd.mount.traffic import TrafficCount
from mountd.process import resources
from mountd.process.child import Child, Exit
from mountd.process.instance import Instance
from mountd.process.lifecycle import START_WINDOW_S, STARTS_PER_WINDOW, Exited, Life, Policy
from mountd.process.supervisor import MustReplace, ShouldRestart
from mountd.rclone.binary import Binary
from mountd.rclone.conf_file import ConfFile, SecretChange
from mountd.rclone.stats import VfsStats
from mountd.settings import profiles
from mountd.settings.schema import MountSettings, Settings
from mountd.status.board import Board
from mountd.status.snapshot import Health, MountStage, MountStatus, Reason, RemoteStatus, State

STOP_GRACE_S = 10.0
CLEAR_TIMEOUT_S = 10.0
_LIMITED = f"it has started {STARTS_PER_WINDOW} times within {START_WINDOW_S:g} s, so the next start waits"
_SOONER = "`mountd restart {}` starts it at once"
GONE_S = 60.0
"""A mount that is down for so long: an app that still runs has lost it. A repair takes seconds."""
_SERVES = (State.RUNNING, State.STOPPING)
"""While it drains its uploads it can be read as ever."""


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
        cache_claims: Callable[[], Sequence[CacheClaim]],
    ) -> None:
        """`candidates` are the paths that are worth reading to prove the mount, best first; `cache_claims` say what its
        models keep in the cache.

        Three workers, so that a touch that waits for the bucket delays neither the liveness probe nor the models.
        """
        self.name = name
        self._settings = settings
        self._board = board
        self._candidates = candidates
        self._cache_claims = cache_claims
        self._incidents = evidence.directory(instance.state, os.environ)
        self._log = structlog.get_logger().bind(mount=name)
        mount = settings.mounts[name]
        self._path, self._source = str(mount.path), table.devname(instance.id, name)
        self._status = MountStatus(path=self._path, remote=mount.remote, cache_stops_apps=_stops_apps(mount))

        def worker(kind: str) -> Files:
            return Files(f"{name}-{kind}", instance.marks(f"{name}-{kind}"))

        self._files, self._looker = worker("disk"), worker("look")
        self._engine = engine = Engine(name, settings, instance, binary, conf)
        self._index = CacheIndex(name)
        self._guard = CacheGuard(mount.cache, name, self._index.settle)
        self._bypass = Bypass(name)
        engine.follow(self._bypass.hear)
        self._uploads = Uploads(name, mount, engine, self._publish)
        meters = board.meters.mounts[name]
        self._traffic = TrafficCount(engine, meters, lambda: profiles.writes_back(engine.mount))
        self._bucket = BucketProbe(engine, self._publish, meters)
        self._liveness = LivenessProbe(
            *(self._path, self._source, worker("liveness"), self._bucket),
            health=lambda: engine.mount.health,
            meters=meters,
        )
        self._cache = CacheProbe(
            engine,
            self._guard,
            self._bypass,
            self._bucket,
            self._publish,
            is_busy=lambda: bool(board.snapshot.operations),
        )
        self._stats = CacheStatsProbe(engine, self._cache, self._uploads, self._publish)
        self._monitor = MountMonitor(
            name,
            self._liveness,
            [
                self._bucket,
                MountTableProbe(self._liveness),
                self._stats,
                self._cache,
                StallProbe(
                    *(self._path, engine, self._bucket, self._looker),
                    pids=self._app_pids,
                    minor=self._minor,
                    traffic=self._traffic,
                ),
                SecretsProbe(engine, self._bucket),
                ReadAhead(name, self._liveness.entry, lambda: self._settings.models, board),
            ],
            failures=lambda: engine.mount.health.failures,
            known=lambda: self._bypass.reason or self._uploads.trouble,
            publish=self._publish,
        )
        self.disk = MountDisk(self._path, self._files, engine, self._guard, self._index, self._bucket)
        self._startup = StartUp(
            engine,
            self._liveness,
            self._bucket,
            prepare=self._prepare,
            accept=self._accept,
            prove=self._prove,
            guard=self._monitor.guard,
            publish=self._publish,
        )
        self._failure: Reason | None = None
        self._condemned: Replace | None = None
        self._by_itself = False
        """the graceful stop under way was decided by its monitor"""
        self._incident: asyncio.Task[object] | None = None
        self._runs = 0
        self._gone_timer: asyncio.TimerHandle | None = None
        self._wanted = True
        self.ring = engine.ring
        self.command_lines = engine.command_lines
        self._publish(lambda status: status)

    # -- status ---------------------------------------------------------------------------------------------------

    def _publish(self, change: Callable[[MountStatus], MountStatus]) -> None:
        self._status = change(self._status)
        self._board.set_mount(self.name, self._status)

    def changed(self, life: Life, since: str, pid: int | None) -> None:
        state, self._wanted = life.state, life.wanted
        if state is State.RUNNING and self._status.state is not State.RUNNING:
            self._runs += 1
        up = state in (State.STARTING, State.RUNNING)
        self._time_absence(state)
        if state is State.RUNNING:
            reason = self._bypass.reason
            health = Health.DEGRADED if reason else Health.HEALTHY
        elif life.cause and life.wanted:
            health = Health.DEGRADED
            reason = self._failure or Reason("mount-down", life.cause, "mount", self.name)
            if life.limited:
                reason = replace(
                    reason, text=f"{reason.text}; {_LIMITED}", hint=f"{reason.hint}; {_SOONER.format(self.name)}"
                )
        elif state is State.STOPPED and self.not_uploaded:
            health, reason = Health.DEGRADED, self.not_uploaded
        else:
            health, reason = Health.PROGRESSING, None
        self._publish(
            lambda status: replace(
                status,
                state=state,
                stage=status.stage if up else MountStage.PREFLIGHT,
                health=health,
                reason=reason,
                pid=pid,
                since=since,
                restarts=max(0, self._runs - 1),
                unasked=life.restarts,
                # Without rclone the bucket is not probed: the last answer says nothing of now.
                backend=status.backend if up else RemoteStatus(),
                fault=fault(self.name, self._status, life, reason, by_itself=self._by_itself),
                cache_broken=status.cache_broken and up,
                cache_bypassed=status.cache_bypassed and up,
            )
        )

    def _time_absence(self, state: State) -> None:
        if state in _SERVES:
            self._end_timer()
            self._status = replace(self._status, gone=False)
        elif self._gone_timer is None and self._runs:
            self._gone_timer = asyncio.get_running_loop().call_later(
                GONE_S, self._publish, lambda status: replace(status, gone=True)
            )

    def _end_timer(self) -> None:
        if self._gone_timer is not None:
            self._gone_timer.cancel()
            self._gone_timer = None

    def explain_exit(self, exit_: Exit) -> Exited:
        if self._condemned is not None:  # SIGQUIT, for its goroutines, ends it with the code of a usage error
            return Exited(self._condemned.text, outside=True)
        found = self._engine.explain_exit(exit_)
        self._failure = Reason(found.code, found.text, "rclone", self.name, found.hint)
        if self._status.state is State.RUNNING:
            self._keep("exited", found.text, dump=False)
        unmounted = exit_.code == 0 and self._liveness.entry() is None
        return Exited(found.text, permanent=found.permanent, outside=exit_.code < 0 or unmounted)

    # -- start ----------------------------------------------------------------------------------------------------

    async def start(self, spawned: Callable[[Child], None]) -> None:
        self._condemned, self._by_itself = None, False
        try:
            with resources.as_exhausted():
                hangs = await self._startup.run(spawned)
            if hangs is not None:
                await self._condemn(hangs)
                raise CannotStart(hangs.text, code="mount-hung")
            self._failure = None
        except MountdError as error:
            code = error.code or ("rclone-usage" if isinstance(error, UsageError) else "mount-down")
            self._failure = Reason(code, " ".join(error.text.split()), "mount", self.name, error.hint)
            bypass = self._bypass
            if bypass.lacks_room and not bypass.active and bypass.is_open_to(self._engine.mount):
                bypass.leave(for_room=True)
            raise

    async def _prepare(self) -> None:
        mount, root = self._engine.mount, os.geteuid() == 0
        await preflight.check(
            self._path,
            self._source,
            self._files,
            allow_other=self._settings.allows_other(mount, root=root),
            allow_unsafe=self._settings.allow_unsafe_paths,
            clear=self._clear,
        )
        self._board.set_lack(f"visibility of {self.name}", preflight.apart(self.name, self._path))
        await self._cache.begin()
        self._uploads.begin(mount)
        self._bucket.begin()
        await self._uploads.repair()
        if not self._engine.without_cache:
            await self._index.evict(mount, self._cache_claims())
            await self._index.repair(mount)

    async def _accept(self, stats: VfsStats) -> None:
        self._stats.learn(stats)
        await self._uploads.hold()
        await self._cache.check(stats)

    async def _prove(self) -> None:
        await self._uploads.reopen(self._path, self._files)
        witness = await prove(self.disk, self._files, self._candidates())
        if witness is not None:
            mount = self._engine.mount
            self._bucket.witness = Witness(mount.remote, witness, profiles.is_read_only(mount))

    async def _clear(self) -> None:
        """Nothing of ours stays mounted there. Raises Unavailable."""
        cleared = await unmount.clear(self._path, self._source, timeout_s=CLEAR_TIMEOUT_S)
        if cleared.unmounted:
            killed = {"killed": list(cleared.killed)} if cleared.killed else {}
            self._log.info("cleared what was left mounted", path=self._path, mounts=cleared.unmounted, **killed)

    # -- run ------------------------------------------------------------------------------------------------------

    async def watch(self) -> None:
        """Raises MustReplace, ShouldRestart."""
        self._by_itself = False
        match await self._monitor.run():
            case RestartRclone(cause):
                self._by_itself = True
                raise ShouldRestart(cause)
            case Replace() as found:
                await self._condemn(found)
                raise MustReplace(found.text)

    async def _condemn(self, found: Replace) -> None:
        """Keeps the evidence, which the repair destroys, also when rclone exits meanwhile and this is cancelled."""
        if self._condemned is None:
            self._condemned = found
            code, hint = f"mount-{found.verdict}", f"see `mountd logs {self.name}`"
            self._failure = Reason(code, found.text, "mount", self.name, hint)
            self._keep(found.verdict, found.text, dump=found.verdict is not MountVerdict.DEAD)
        if self._incident is not None:
            await asyncio.shield(self._incident)

    def _keep(self, verdict: str, text: str, *, dump: bool) -> None:
        work = evidence.keep(self._incidents, self._engine, verdict, text, minor=self._minor(), dump=dump)
        self._incident = asyncio.create_task(work, name=f"evidence {self.name}")

    def _minor(self) -> int | None:
        """Of the FUSE device; None also where the machine is too short of something to read the table of mounts."""
        with contextlib.suppress(OSError):
            entry = self._liveness.entry()
            return entry.minor if entry else None
        return None

    def _app_pids(self) -> Sequence[int]:
        """Of the apps that use this mount."""
        settings, apps = self._settings, self._board.snapshot.apps
        users = [name for name, app in settings.apps.items() if self.name in settings.mounts_of(app)]
        return [app.pid for name in users if (app := apps.get(name)) and app.pid]

    async def refresh_credentials(self) -> bool:
        """Gives rclone the secrets as they are now; whether it must be a new rclone, and that could start now.

        When it could not, the mount restarts by itself as soon as it can.
        """
        return await self._engine.refresh_secrets() is SecretChange.REMOUNT and await self._bucket.could_start()

    @property
    def policy(self) -> Policy:
        """A mount without uploads never needs its `drain`."""
        return Policy(grace_s=STOP_GRACE_S, prepare_s=self._settings.mounts[self.name].drain)

    def reconfigure(self, settings: Settings) -> None:
        """For the next probe and the next start; what runs is left as it is."""
        self._engine.reconfigure(settings)
        mount = self._engine.mount
        self._settings = settings
        self._publish(lambda status: replace(status, remote=mount.remote, cache_stops_apps=_stops_apps(mount)))

    def detour(self, environment: Mapping[str, str]) -> None:
        """For the next start: variables that lead rclone another way to its bucket; none lead it as usual."""
        self._engine.detour = environment

    # -- stop -----------------------------------------------------------------------------------------------------

    async def prepare_end(self) -> None:
        """Waits for uploads, as long as the mount's `drain`. Raises MustReplace when rclone hangs."""
        if not self._by_itself:
            self._bypass.ask()
        if not await self._uploads.drain(self._engine.mount.drain):
            raise MustReplace(f"rclone of mount {self.name} does not answer")
        await self._traffic.look()

    @property
    def not_uploaded(self) -> Reason | None:
        """What its last graceful stop had to leave in the cache."""
        return self._uploads.reason

    async def clean(self) -> None:
        """After rclone has exited: nothing of ours mounted there, no socket left. Raises Unavailable."""
        incident, self._incident = self._incident, None
        if incident is not None:
            await incident
        if self._engine.child is not None:
            self._engine.child.signal(signal.SIGKILL)  # what it may have left in its group
        await self._engine.close()
        await self._index.after_stop(is_last=not self._wanted)
        await self._uploads.after_stop()
        try:
            with resources.as_exhausted():
                await self._clear()
        except MountdError as error:
            reason = self._failure = Reason("cannot-unmount", error.text, "mount", self.name, error.hint)
            self._publish(lambda status: replace(status, health=Health.DEGRADED, reason=reason))
            raise

    async def close(self) -> None:
        """The workers, and the lock on the cache."""
        self._end_timer()
        await self._uploads.look_last()
        for worker in (self._files, self._looker, self._liveness.files):
            await worker.close()
        await self._guard.release()


def _stops_apps(mount: MountSettings) -> bool:
    return mount.cache.on_failure == "stop"
