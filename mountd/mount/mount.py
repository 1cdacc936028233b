"""One mount as a supervised service: it climbs, is watched, is given up with evidence, and ends clean."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import structlog

from mountd.cache.bypass import Bypass
from mountd.cache.guard import CacheGuard
from mountd.cache.index import CacheIndex
from mountd.cache.retention import CacheClaim
from mountd.cache.uploads import Uploads
from mountd.errors import MountdError, UsageError
from mountd.files.client import Files
from mountd.fuse import table
from mountd.mount import evidence
from mountd.mount.bucket import Backend
from mountd.mount.disk import MountDisk
from mountd.mount.engine import Engine
from mountd.mount.evidence import Incident
from mountd.mount.health import Verdict
from mountd.mount.liveness import Beat
from mountd.mount.monitor import Watching
from mountd.mount.parts import CLEAR_TIMEOUT_S, Parts
from mountd.mount.startup import climb
from mountd.mount.turns import Turns
from mountd.process import resources
from mountd.process.child import Child, Exit
from mountd.process.instance import Instance
from mountd.process.lifecycle import START_WINDOW_S, STARTS_PER_WINDOW, Life
from mountd.process.supervisor import Ending, MustReplace, ShouldRestart
from mountd.rclone import keys
from mountd.rclone.binary import Binary
from mountd.rclone.conf_file import ConfFile, SecretChange
from mountd.settings.schema import Settings
from mountd.status.board import Board
from mountd.status.snapshot import Health, MountStage, MountStatus, Reason, RemoteStatus, State

__all__ = ["CLEAR_TIMEOUT_S", "STOP_GRACE_S", "RcloneMount"]

STOP_GRACE_S = 10.0
_LIMITED = f"it has begun {STARTS_PER_WINDOW} times within {START_WINDOW_S:g} s, so the next start waits"
_SOONER = "`mountd restart {}` starts it at once"
INCIDENTS = "incidents"
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
        models keep in the cache."""
        self.name = name
        self._board = board
        mount = settings.mounts[name]
        path, source = str(mount.path), table.devname(instance.id, name)
        self._status = MountStatus(path=path, remote=mount.remote, cache_stops_apps=mount.cache.on_failure == "stop")
        engine = Engine(name, settings, instance, binary, conf)

        def worker(kind: str) -> Files:
            return Files(f"{name}-{kind}", instance.marks(f"{name}-{kind}"))

        files, index = worker("disk"), CacheIndex(name)
        cache = CacheGuard(mount.cache, name, index.settle)
        turns, backend = Turns(mount.health.backend), Backend(mount.remote, engine)
        self._parts = Parts(
            name=name,
            settings=settings,
            path=path,
            source=source,
            incidents=instance.state / INCIDENTS,
            board=board,
            files=files,
            looker=worker("look"),
            beat=Beat(path, source, worker("beat"), mount.health.timeout),
            engine=engine,
            backend=backend,
            cache=cache,
            index=index,
            bypass=Bypass(name),
            turns=turns,
            disk=MountDisk(
                path,
                mount.remote,
                exclude=keys.patterns(mount.options.get("exclude")),
                files=files,
                engine=engine,
                cache=cache,
                index=index,
                turns=turns,
                confirm=backend.confirm,
            ),
            uploads=Uploads(name, mount, engine, self._publish),
            candidates=candidates,
            cache_claims=cache_claims,
            publish=self._publish,
            log=structlog.get_logger().bind(mount=name),
        )
        engine.follow(self._parts.bypass.hear)
        self._watching = Watching(self._parts, self._condemn)
        self._failure: Reason | None = None
        self._condemned = ""
        self._by_itself = False
        """the polite end under way is by its own watch"""
        self._incident: asyncio.Task[object] | None = None
        self._runs = 0
        self._gone_timer: asyncio.TimerHandle | None = None
        self._wanted = True
        self.ring = engine.ring
        self.disk = self._parts.disk
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
            reason = self._parts.bypass.reason
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
                # Without rclone nobody asks: what was last heard is no knowledge of now.
                backend=status.backend if up else RemoteStatus(),
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

    def explain_exit(self, exit_: Exit) -> Ending:
        if self._condemned:  # SIGQUIT, for its goroutines, ends it with the code of a usage error
            return Ending(self._condemned, outside=True)
        found = self._parts.engine.explain_exit(exit_)
        self._failure = Reason(found.code, found.text, "rclone", self.name, found.hint)
        if self._status.state is State.RUNNING:
            self._keep("exited", found.text, dump=False)
        unmounted = exit_.code == 0 and self._parts.beat.entry() is None
        return Ending(found.text, permanent=found.permanent, outside=exit_.code < 0 or unmounted)

    # -- its life -------------------------------------------------------------------------------------------------

    async def start(self, spawned: Callable[[Child], None]) -> None:
        self._condemned, self._by_itself = "", False
        try:
            with resources.told():
                await climb(self._parts, self._watching, spawned)
            self._failure = None
        except MountdError as error:
            code = error.code or ("rclone-usage" if isinstance(error, UsageError) else "mount-down")
            self._failure = Reason(code, " ".join(error.text.split()), "mount", self.name, error.hint)
            bypass = self._parts.bypass
            if bypass.lacks_room and not bypass.active and bypass.is_open_to(self._parts.mount):
                bypass.leave(for_room=True)
            raise

    async def watch(self) -> None:
        """Raises MustReplace, ShouldRestart."""
        self._by_itself = False
        try:
            await self._watching.run()
        except ShouldRestart:
            self._by_itself = True
            raise

    async def _condemn(self, verdict: Verdict, text: str) -> None:
        """Keeps the evidence, which the repair destroys, also when rclone ends meanwhile and this is cancelled."""
        if not self._condemned:
            self._condemned = text
            self._failure = Reason(f"mount-{verdict}", text, "mount", self.name, f"see `mountd logs {self.name}`")
            self._keep(str(verdict), text, dump=verdict is not Verdict.DEAD)
        if self._incident is not None:
            await asyncio.shield(self._incident)

    def _keep(self, verdict: str, text: str, *, dump: bool) -> None:
        entry = None
        with contextlib.suppress(OSError):  # the machine is short of something: less of it is kept
            entry = self._parts.beat.entry()
        incident = Incident(self.name, verdict, text, entry.minor if entry else None)
        work = evidence.keep(self._parts.incidents, incident, self._parts.engine, dump=dump)
        self._incident = asyncio.create_task(work, name=f"evidence {self.name}")

    async def prepare_end(self) -> None:
        """Waits for uploads, as long as the mount's `drain`. Raises MustReplace when rclone hangs."""
        parts = self._parts
        if not self._by_itself:
            parts.bypass.ask()
        if not await parts.uploads.drain(parts.mount.drain):
            raise MustReplace(f"rclone of mount {self.name} does not answer")

    @property
    def not_uploaded(self) -> Reason | None:
        """What its last polite end had to leave in the cache."""
        return self._parts.uploads.reason

    async def clean(self) -> None:
        """After rclone has ended: nothing of ours mounted there, no socket left. Raises Unavailable."""
        incident, self._incident = self._incident, None
        if incident is not None:
            await incident
        parts = self._parts
        if parts.engine.child is not None:
            parts.engine.child.signal(signal.SIGKILL)  # what it may have left in its group
        await parts.engine.close()
        await parts.index.ended(for_good=not self._wanted)
        await parts.uploads.after_stop()
        try:
            with resources.told():
                await parts.clear()
        except MountdError as error:
            self._failure = Reason("cannot-unmount", error.text, "mount", self.name, error.hint)
            self._publish(lambda status: replace(status, health=Health.DEGRADED, reason=self._failure))
            raise

    async def refresh_credentials(self) -> bool:
        """Gives rclone the secrets as they are now; whether it must be a new rclone, and that could begin now.

        When it could not, the mount begins anew by itself as soon as it can.
        """
        return await self._parts.engine.refresh_secrets() is SecretChange.REMOUNT and await self._parts.could_begin()

    def reconfigure(self, settings: Settings) -> None:
        """For the next question and the next start; what runs is left as it is."""
        parts = self._parts
        parts.settings = settings
        parts.beat.timeout_s, parts.turns.pause_s = parts.mount.health.timeout, parts.mount.health.backend
        parts.backend.remote = parts.disk.fs = parts.mount.remote
        parts.disk.exclude = keys.patterns(parts.mount.options.get("exclude"))
        parts.engine.reconfigure(settings)
        remote, stops_apps = parts.mount.remote, parts.mount.cache.on_failure == "stop"
        self._publish(lambda status: replace(status, remote=remote, cache_stops_apps=stops_apps))

    def detour(self, environment: Mapping[str, str]) -> None:
        """For the next start: variables that lead rclone another way to its bucket; none lead it as usual."""
        self._parts.engine.detour = environment

    async def close(self) -> None:
        """The workers, and the lock on the cache."""
        self._end_timer()
        await self._parts.uploads.look_last()
        await self._parts.close()
