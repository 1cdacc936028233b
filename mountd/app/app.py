"""One app: started when everything it needs is there, ready when it answers itself, stopped by its own signal."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import structlog

from mountd.app import environment, exits, preflight, ready
from mountd.app.belonging import Belonging
from mountd.app.user import resolve_user
from mountd.errors import CannotStart, MountdError, cause_of
from mountd.process import resources
from mountd.process.child import Child, Exit, Ring, User, spawn
from mountd.process.instance import Instance
from mountd.process.lifecycle import Backoff, Exited, Life, Notice, Policy, RestartAsked
from mountd.process.pace import pause
from mountd.process.supervisor import Supervisor
from mountd.rclone import credentials
from mountd.settings.schema import Settings
from mountd.settings.secret import ReadSecrets
from mountd.status import readiness
from mountd.status.board import Board
from mountd.status.load import AppLoad
from mountd.status.snapshot import AppStatus, Health, Reason, Snapshot, State

log = structlog.get_logger()

SETTLE_S = 1.0
"""An app without a readiness check counts as running when it has not ended by then."""
GATE_LIMIT_S = 60.0
"""How long an operation waits for the mount to come back before it may start the app; a remount takes seconds."""
SPAWN_LIMIT_S = 40.0
"""For a process to be there: a directory service may be asked for its user first."""
LOOK_S = 10.0
"""How often it is seen who belongs to it: what comes loose between two looks is known by its mark alone."""
HELPERS_S = 0.2
"""Until helpers of an app that has ended have ended as well; what goes on was meant to."""
QUIET = (State.STOPPED, State.FAILED, State.CLEANING)
"""Nothing of an app runs, nor is it about to start."""
KILL_WAIT_S = 5.0
"""After SIGKILL: only a process that is stuck in the kernel takes longer."""
BeforeStart = Callable[[str, Mapping[str, str], Callable[[AppLoad], None]], Awaitable[None]]
"""is called before each spawn with the app's name, the version of each model that it will find, and what shows how far
its load is while it starts"""


class App:
    """A `Service`, and its supervisor."""

    kind = "app"

    def __init__(
        self,
        name: str,
        settings: Settings,
        *,
        instance: Instance,
        board: Board,
        read_secrets: ReadSecrets,
        hidden: set[str] | None = None,
        before_start: BeforeStart | None = None,
    ) -> None:
        """`hidden`, which all apps share: variables of mountd's own environment that none of them inherits."""
        self.name = name
        self.ring = Ring()
        self.user: User | None = None
        """the user that it runs as since its last start; None: mountd's own"""
        self.environment: dict[str, str] = {}
        """what it was started with last"""
        self._instance = instance
        self._board = board
        self._read_secrets = read_secrets
        self._hidden = set() if hidden is None else hidden
        self._before_start = before_start
        self._child: Child | None = None
        self._belonging = Belonging(instance, name)
        self._ended_well = False
        self._failure: Reason | None = None
        self._last_line = ""
        self._runs = self._faults = self._held = 0
        self._status = AppStatus()
        self.reconfigure(settings)
        self.supervisor = Supervisor(self, Life(allowed=False))

    def reconfigure(self, settings: Settings) -> None:
        """At a reload what needs no restart holds from now on, the rest from the next start."""
        self.settings = settings.apps[self.name]
        self.stop_signal = self.settings.stop.signal
        self._belonging.limit(self.settings.limits)
        self._users = {name: app.user for name, app in settings.apps.items() if name != self.name}
        # Hidden for good: they are in the environment still when a later configuration no longer names them.
        self._hidden.update(settings.secret_variables())
        if any(credentials.takes_environment(remote.options) for remote in settings.remotes.values()):
            self._hidden.update(credentials.VARIABLES)
        self._publish(needs=tuple(self.settings.needs), follows_remounts="remount" in self.settings.restart.after)

    @property
    def policy(self) -> Policy:
        """Without `retry` during an operation, which decides itself what comes after a failure."""
        restart = self.settings.restart
        return Policy(
            grace_s=self.settings.stop.grace,
            backoff=Backoff(restart.backoff.initial, restart.backoff.factor, restart.backoff.max),
            crash_limit=(restart.limit.count, restart.limit.window_s),
            restart_after_crash="crash" in restart.after,
            retry=not self._held,
        )

    # -- status ---------------------------------------------------------------------------------------------------

    def _publish(self, **changes: Any) -> None:
        self._status = replace(self._status, **changes)
        self._board.set_app(self.name, self._status)

    def changed(self, life: Life, since: str, pid: int | None) -> None:
        state = life.state
        if state is State.RUNNING and self._status.state is not State.RUNNING:
            self._runs += 1
        health, reason = exits.standing(self.name, life, self._failure)
        killed = self._status.killed
        if state in (State.STOPPING, State.RUNNING):
            killed = exits.ignored(self.name, self.stop_signal.name, self.settings.stop.grace) if life.overdue else ""
        self._publish(
            state=state,
            health=health,
            reason=reason,
            fault=exits.last_crash(life, self._failure, self._status.fault),
            pid=pid,
            since=since,
            killed=killed,
            load=self._status.load if state is State.STARTING else None,
            restarts=max(0, self._runs - 1),
            unasked=life.restarts,
        )

    def explain_exit(self, exit_: Exit) -> Exited:
        self._failure = exits.explain(self.name, exit_, self._last_line, self._belonging.ran_out_of_memory())
        self._ended_well = exit_.code == 0
        return Exited(self._failure.text, outside=exits.is_from_outside(exit_))

    # -- the gate -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled: the supervisor, and the gate that follows the board."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.supervisor.run())
            group.create_task(self._follow_needs())

    async def _follow_needs(self) -> None:
        allowed = False
        asked: dict[str, int] = {}
        asked_at: Mapping[str, str] | None = None
        while True:
            snapshot = self._board.snapshot
            may_start = not readiness.blockers(snapshot, self.name)
            if may_start != allowed:
                self.supervisor.post(Notice.ALLOWED if may_start else Notice.FORBIDDEN)
                allowed = may_start
            why = readiness.must_stop(snapshot, self.name)
            if why and self._status.state in (State.STARTING, State.RUNNING):
                self.supervisor.post(RestartAsked(why[0].text, by_itself=True))  # it starts when the gate opens
            if may_start and readiness.is_behind_a_remount(snapshot, self._status):
                if not self._status.follows_remounts:
                    self._publish(health=Health.DEGRADED, reason=exits.behind_a_remount(self.name))
                elif (lives := self._mount_lives(snapshot, self._status.mounts)) != asked:
                    text = "its mount was replaced: open files of the old one are dead"
                    by_itself = self._mount_faults(snapshot) != self._faults
                    self.supervisor.post(RestartAsked(text, by_itself))
                    asked = lives
            if may_start and self._is_behind_the_link(snapshot) and self._status.versions != asked_at:
                self.supervisor.post(RestartAsked("it was started while its link was pointed to another version"))
                asked_at = self._status.versions
            await self._board.changed()

    def _is_behind_the_link(self, snapshot: Snapshot) -> bool:
        """An operation restarts it itself, and one that resolves the link at each read needs none."""
        follows = "switch" in self.settings.restart.after and not self._held and not snapshot.stopping
        return follows and readiness.is_behind_the_link(snapshot, self._status)

    def _mount_lives(self, snapshot: Snapshot, names: Iterable[str]) -> dict[str, int]:
        return {name: snapshot.mounts[name].restarts for name in names if name in snapshot.mounts}

    def _mount_faults(self, snapshot: Snapshot) -> int:
        """Of the mounts that it was started on."""
        return sum(snapshot.mounts[name].unasked for name in self._status.mounts if name in snapshot.mounts)

    # -- one start ------------------------------------------------------------------------------------------------

    async def start(self, spawned: Callable[[Child], None]) -> None:
        snapshot = self._board.snapshot
        mounts = readiness.mounts_of(snapshot, self._status)
        self._publish(mounts=self._mount_lives(snapshot, mounts), versions=self._versions(snapshot))
        self._faults = self._mount_faults(snapshot)
        try:
            with resources.as_exhausted():
                await self._prepare()
                if self._before_start is not None:
                    await self._before_start(self.name, self._status.versions, lambda load: self._publish(load=load))
                await self._spawn(spawned)
                await self._reach_ready()
            self._failure = None
        except MountdError as error:
            self._failure = Reason(error.code or "app-down", error.text, "app", self.name, error.hint)
            raise

    def _versions(self, snapshot: Snapshot) -> dict[str, str]:
        models = {need: snapshot.models[need].seen_by_apps for need in self.settings.needs if need in snapshot.models}
        return {name: version for name, version in models.items() if version}

    async def _prepare(self) -> None:
        await ready.check_port_free(self.name, ready.port_of(self.settings.ready))
        self.user = user = await resolve_user(self.name, self.settings.user)
        self.environment = given = await self._build_environment()
        show, shown = lambda why: self._publish(reason=why), self._status.reason
        await preflight.check(self.name, self.settings, environment=given, user=user, shown=shown, show=show)

    async def _spawn(self, spawned: Callable[[Child], None]) -> None:
        self._last_line, self._ended_well = "", False
        self.ring.begin()
        try:
            self._child = spawn(
                self.settings.command,
                self.environment,
                self._on_line,
                directory=str(self.settings.directory),
                user=self.user,
                on_state=self.ring.show,
                cgroup=self._belonging.begin(self.settings.limits),
                umask=self.settings.umask,
            )
        except OSError as error:
            if (found := resources.lack(error)) is not None:
                raise found from None
            cause = cause_of(error)
            raise CannotStart(f"cannot start {self.name}: {cause}", hint="see the app's user and command") from None
        self._belonging.began(self._child.pid)
        spawned(self._child)

    async def _build_environment(self) -> dict[str, str]:
        built = await environment.build(self.settings.environment, self.user, self._hidden, self._read_secrets)
        return built | self._instance.marks(self.name)

    def _on_line(self, line: str) -> None:
        self.ring.append(line)
        self._last_line = line[:300]
        log.info("app says", app=self.name, text=line)

    async def _reach_ready(self) -> None:
        settings = self.settings.ready
        if settings is None:
            await asyncio.sleep(SETTLE_S)
            return
        interval_s = ready.INTERVAL_S if settings.http else ready.COMMAND_INTERVAL_S
        why = ""
        try:
            async with asyncio.timeout(settings.timeout):
                while why := await ready.answers(
                    self.settings,
                    self._belonging,
                    environment=self.environment,
                    user=self.user,
                    uid=self._uid_of_its_own(),
                ):
                    self._publish(reason=ready.waiting(self.name, why, self._status.reason))
                    await asyncio.sleep(interval_s)
        except TimeoutError:
            raise CannotStart(
                f"{self.name} is not ready after {settings.timeout:g} s: {why}",
                hint=f"see `mountd logs {self.name}`; a large model may need a longer ready.timeout",
                code="app-not-ready",
            ) from None

    async def watch(self) -> None:
        """Collects the processes that belong to it while their ancestry can be seen; the supervisor sees its exit."""
        while True:
            await self._belonging.look()
            await pause(LOOK_S)

    async def prepare_end(self) -> None:
        """Its signal comes at once: no thread is waited for."""
        self._belonging.look_now()

    async def clean(self) -> None:
        """Whatever it left, in its group or elsewhere."""
        if self._ended_well:
            await asyncio.sleep(HELPERS_S)
        elif self._child is not None:
            self._child.signal(signal.SIGKILL)
        try:
            left = await self._belonging.end(self._uid_of_its_own(), alone=self._are_quiet(self._users))
        except MountdError as error:  # the look hangs with a process that hangs: no reason not to go on
            log.warning("cannot look for what the app has left", app=self.name, cause=error.text)
            left = []
        if self._child is not None:
            self._child.signal(signal.SIGKILL)
            self._child.release()
            self._child = None
        for process in left:
            log.info("ended what the app had left running", app=self.name, process=process)
        if left and self._ended_well:
            self._failure = exits.detached(self.name, left)

    def _uid_of_its_own(self) -> int | None:
        """The uid that identifies its leftover processes: None while another app of the same user is up."""
        if self.user is None:
            return None
        others = [name for name, user in self._users.items() if user == self.user.name]
        return self.user.uid if self._are_quiet(others) else None

    def _are_quiet(self, names: Iterable[str]) -> bool:
        apps = self._board.snapshot.apps
        return all(apps[name].state in QUIET for name in names if name in apps)

    # -- for operations -------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """For the time of an operation: what fails stays down until the operation, or its end, starts it again."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
            if not self._held and self.state is State.FAILED and not self._board.snapshot.stopping:
                self.want()

    @property
    def state(self) -> State:
        return self._status.state

    @property
    def stop_limit_s(self) -> float:
        return self.settings.stop.grace + KILL_WAIT_S

    @property
    def ready_limit_s(self) -> float:
        """From its start, with its preflight, until it is ready, or has failed and is gone."""
        ready_s = self.settings.ready.timeout if self.settings.ready else SETTLE_S
        return preflight.limit_s(self.settings) + ready_s + self.stop_limit_s

    async def stop(self) -> None:
        """Returns once nothing of it runs. Raises CannotStart when that takes longer than `stop_limit_s`."""
        self.supervisor.post(Notice.UNWANTED)
        try:
            await self._board.wait_until(lambda _: self.state is State.STOPPED, self.stop_limit_s)
        except TimeoutError:
            raise CannotStart(exits.cannot_stop(self.name, self._status.pid), code="app-stuck") from None

    def set_stopped(self, who: str | None) -> None:
        """`who` has stopped it, and nothing else starts it meanwhile; None: it may start again."""
        self._publish(stopped=who)

    def want(self) -> None:
        if self._status.stopped is None:
            self.supervisor.post(Notice.WANTED)

    async def begin(self) -> None:
        """Returns when a process of it runs; while it is `held`. Raises CannotStart, also when it has ended again."""
        self.want()
        try:
            await self._board.wait_until(lambda now: not readiness.blockers(now, self.name), GATE_LIMIT_S)
        except TimeoutError:
            waits = readiness.blockers(self._board.snapshot, self.name)
            if waits:
                raise CannotStart(
                    f"cannot start {self.name}: {waits[0].text}", hint=waits[0].hint, code=waits[0].code
                ) from None
        with contextlib.suppress(TimeoutError):
            await self._board.wait_until(
                lambda now: now.apps[self.name].pid is not None or self.state is State.FAILED,
                SPAWN_LIMIT_S + preflight.limit_s(self.settings),
            )
        if self._status.pid is None:
            raise self._down()

    async def become_ready(self) -> None:
        """Returns when it is ready; while it is `held`. Raises CannotStart with what it failed for."""
        with contextlib.suppress(TimeoutError):
            over = (State.RUNNING, State.FAILED)
            await self._board.wait_until(lambda _: self.state in over, GATE_LIMIT_S + self.ready_limit_s)
        if self.state is not State.RUNNING:
            raise self._down()

    def _down(self) -> CannotStart:
        known = self._failure or self._status.reason
        if known is None:
            waits = readiness.blockers(self._board.snapshot, self.name)
            known = waits[0] if waits else Reason("app-down", f"{self.name} is {self.state}")
        return CannotStart(known.text, hint=known.hint, code=known.code)

    def check_running(self) -> None:
        """Raises CannotStart when it has failed; one that is being restarted, or was not started yet, has not."""
        if self.state is State.FAILED:
            raise self._down()
