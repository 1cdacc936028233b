"""Every mount, model and app of the settings, with the task that keeps it alive: made, changed and removed by name."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import structlog

from mountd.app.app import KILL_WAIT_S, App
from mountd.cache.retention import CacheClaim
from mountd.cache.upload_state import hint_of_removed
from mountd.daemon.access_recorder import AccessRecorder
from mountd.daemon.outboxes import Outboxes
from mountd.daemon.secret_files import SecretFiles
from mountd.daemon.shutdown import mount_stop_s
from mountd.daemon.tasks import Tasks
from mountd.errors import MountdError, NotUploaded
from mountd.fuse import table
from mountd.fuse.watch import known_table
from mountd.journal.journal import Journal
from mountd.model.model import Model
from mountd.mount.mount import CLEAR_TIMEOUT_S, RcloneMount
from mountd.process.child import Child, Ring
from mountd.process.instance import Instance
from mountd.process.lifecycle import Notice
from mountd.process.supervisor import Supervisor
from mountd.rclone.binary import Binary
from mountd.rclone.command import refuse_unknown
from mountd.rclone.conf_file import ConfFile
from mountd.settings.profiles import writes_back
from mountd.settings.schema import LEVELS, Level, MountSettings, Settings
from mountd.status.board import Board
from mountd.status.snapshot import Reason, Snapshot, State
from mountd.warm.pinned import Pins

log = structlog.get_logger()

DOWN = (State.STOPPED, State.FAILED)


class Members:
    """Names are unique over mounts, models and apps. `settings` is replaced by a reload."""

    def __init__(
        self,
        settings: Settings,
        *,
        instance: Instance,
        board: Board,
        journal: Journal,
        binary: Binary,
        conf: ConfFile,
        tasks: Tasks,
    ) -> None:
        """In `tasks` each of them has one, from `run` or `begin` on."""
        self.settings = settings
        self.mounts: dict[str, RcloneMount] = {}
        self.models: dict[str, Model] = {}
        self.apps: dict[str, App] = {}
        self.supervisors: dict[str, Supervisor] = {}
        """of the mounts and of the apps"""
        self.rings: dict[str, Ring] = {}
        self.leaving: dict[str, MountSettings] = {}
        """mounts that are being removed, with the settings that they run with"""
        self.left: dict[Path, Reason] = {}
        """by cache directory: files of a removed mount that no mount uploads"""
        self._instance = instance
        self._board = board
        self._journal = journal
        self._binary = binary
        self._conf = conf
        self.tasks = tasks
        self.access = AccessRecorder(self.models, board, instance, tasks)
        self.pins = Pins(instance.state, instance.marks("pins"))
        self.outboxes = Outboxes(instance=instance, board=board, journal=journal, binary=binary, conf=conf, tasks=tasks)
        self._hidden = set(settings.secret_variables())
        self._secrets = SecretFiles(self.mount_points)
        conf.read_secrets, conf.look_at_files = self._secrets.read, self._secrets.look
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._stuck: set[asyncio.Task[None]] = set()
        for name in settings.mounts:
            self.add_mount(name)
        for name in settings.models:
            self.add_model(name)
        for name in settings.apps:
            self.add_app(name)

    # -- add ------------------------------------------------------------------------------------------------------

    def add_mount(self, name: str) -> None:
        mount = self.mounts[name] = RcloneMount(
            name,
            self.settings,
            instance=self._instance,
            board=self._board,
            binary=self._binary,
            conf=self._conf,
            candidates=lambda: self.probe_paths(name),
            cache_claims=lambda: self.cache_claims(name),
        )
        self.supervisors[name] = Supervisor(mount)
        self.rings[name] = mount.ring
        self.left = {cache: left for cache, left in self.left.items() if not self._uploads_from(cache)}

    def check_mount(self, settings: Settings, name: str) -> None:
        """Raises ConfigError for flags that this rclone does not have."""
        refuse_unknown(name, settings.mounts[name], self._binary)

    def add_model(self, name: str) -> None:
        model = self.settings.models[name]
        disk = self.mounts[model.mount].disk
        made = Model(name, model, disk, self._board, self._journal, pins=self.pins, profiles=self.access.profiles)
        made.versions.allow_unsafe = self.settings.allow_unsafe_paths
        made.levels.loader.opens = self.access
        made.levels.first = lambda: self._first_level(name)
        self.models[name] = made

    def _first_level(self, model: str) -> Level:
        """The lowest one at which an app starts that needs the model."""
        settings = self.settings
        found = [settings.level_needed(app, model) for app in settings.apps.values() if model in app.needs]
        return min(found, key=LEVELS.index, default=settings.models[model].warm.level)

    def add_app(self, name: str) -> None:
        app = self.apps[name] = App(
            name,
            self.settings,
            instance=self._instance,
            board=self._board,
            read_secrets=self._secrets.read,
            hidden=self._hidden,
            before_start=self.access.before_start,
        )
        self.supervisors[name] = app.supervisor
        self.rings[name] = app.ring

    def mount_points(self) -> set[str]:
        """Ours, mounted or not: no file there is read or watched."""
        mounted = {entry.mount_point for entry in table.of_instance(known_table(), self._instance.id)}
        return mounted | {str(mount.path) for mount in self.settings.mounts.values()}

    def probe_paths(self, mount: str) -> Sequence[str]:
        """Files to read as a proof of the mount: of each model's live version, else of the desired one."""
        found: list[str] = []
        for model in self.models.values():
            version = model.committed.current or model.committed.desired
            if model.settings.mount == mount and version:
                found += model.versions.paths(version)
        return found

    def cache_claims(self, mount: str) -> Sequence[CacheClaim]:
        """What each of its models keeps in the cache: all, while it is not known what is live or wanted."""
        operating = {each.model for each in self._board.snapshot.operations}
        shown = self._board.snapshot.models
        claims = []
        for name, model in self.models.items():
            if model.settings.mount != mount:
                continue
            known, status = model.committed, shown.get(name)
            needed = {known.current, known.previous, known.desired, status.current if status else None}
            claims.append(
                CacheClaim(
                    model=name,
                    layout=model.versions.layout,
                    keep=model.settings.keep,
                    needed=frozenset(filter(None, needed)),
                    paused=known.suspended is not None or known.current is None or name in operating,
                    pinned=frozenset(model.versions.all_pinned()),
                )
            )
        return claims

    # -- run ------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """All of them; models have been loaded."""
        for name in (*self.mounts, *self.models, *self.apps):
            self.begin(name)
        self.outboxes.begin(self.settings)

    def begin(self, name: str) -> None:
        """Starts the task of a mount, model or app."""
        if name in self.supervisors:
            self.supervisors[name].on_bug = self.tasks.report_bug
            self.supervisors[name].post(Notice.WANTED)
        member = self.apps.get(name) or self.models.get(name) or self.supervisors[name]
        self._tasks[name] = self.tasks.keep(member.run, name)

    async def pause(self, name: str) -> None:
        """Stops the task of a mount, model or app; `begin` starts another one."""
        task = self._tasks.pop(name, None)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    def model_tasks(self) -> list[asyncio.Task[None]]:
        return [self._tasks[name] for name in self.models if name in self._tasks]

    def check_uploaded(self) -> None:
        """After everything has stopped. Raises NotUploaded."""
        left = [mount.not_uploaded for mount in self.mounts.values() if mount.not_uploaded]
        if left:
            texts = "; ".join(reason.text for reason in left)
            raise NotUploaded(f"cannot upload everything before the stop: {texts}", hint=left[0].hint)

    # -- remove ---------------------------------------------------------------------------------------------------

    async def remove_app(self, name: str) -> None:
        await self.stop_app(name)
        await self.pause(name)
        del self.apps[name], self.supervisors[name], self.rings[name]
        self._board.remove("apps", name)
        log.info("app removed", app=name)

    async def stop_app(self, name: str) -> None:
        """Returns when it has stopped, or cannot be stopped."""
        try:
            await self.apps[name].stop()
        except MountdError as error:
            log.error("cannot stop an app: continuing without it", app=name, cause=error.text)

    async def remove_model(self, name: str) -> None:
        """The link stays as it is: something may still use it."""
        await self.pause(name)
        link = self.models.pop(name).settings.link
        self._board.remove("models", name)
        log.info("model removed, its link stays", model=name, link=str(link))

    async def remove_mount(self, name: str, was: MountSettings) -> None:
        """Drains and stops it, as when the daemon stops; `was` are the settings that it runs with."""
        supervisor = self.supervisors[name]
        self.leaving[name] = was
        supervisor.post(Notice.UNWANTED)
        if not await self._is_down(name, mount_stop_s(was)) and supervisor.child is not None:
            # Never left running: it would serve and write in the same place as its successor.
            log.error("rclone does not exit: killing it", mount=name, pid=supervisor.child.pid)
            supervisor.child.signal(signal.SIGKILL)
            await self._is_down(name, KILL_WAIT_S + CLEAR_TIMEOUT_S)
        is_down, child = self._board.snapshot.mounts[name].state in DOWN, supervisor.child
        await self.pause(name)
        mount = self.mounts.pop(name)
        del self.supervisors[name], self.rings[name], self.leaving[name]
        if is_down:
            await self._close(mount, was)
        else:
            self._close_later(mount, was, child)
        self._board.remove("mounts", name)
        log.info("mount removed", mount=name)

    async def _close(self, mount: RcloneMount, was: MountSettings) -> None:
        await mount.close()
        left, cache = mount.not_uploaded, was.cache.dir
        if left is not None and not self._uploads_from(cache):
            self.left[cache] = left = replace(left, hint=hint_of_removed(mount.name, str(cache)))
            log.error("uploads of a removed mount are pending", mount=mount.name, cause=left.text, hint=left.hint)

    def _uploads_from(self, cache: Path) -> bool:
        """Whether a mount uploads what waits there; it reports itself what its remote is not meant for."""
        return any(each.cache.dir == cache and writes_back(each) for each in self.settings.mounts.values())

    def _close_later(self, mount: RcloneMount, was: MountSettings, child: Child | None) -> None:
        """For a killed rclone that does not exit: its cache stays locked until it does."""
        name = mount.name

        async def close() -> None:
            if child is not None:
                await child.wait()
                child.release()
            if name not in self.mounts and all(each.path != was.path for each in self.settings.mounts.values()):
                with contextlib.suppress(MountdError):  # else its successor clears the place
                    await mount.clean()
                self._board.remove("mounts", name)
            await self._close(mount, was)
            log.info("removed mount has stopped", mount=name)

        log.error("removed mount does not stop: its cache stays locked until then", mount=name)
        task = self.tasks.keep(close, f"close {name}")
        self._stuck.add(task)
        task.add_done_callback(self._stuck.discard)

    async def _is_down(self, name: str, limit_s: float) -> bool:
        await self.wait_until(lambda now: now.mounts[name].state in DOWN, limit_s)
        return self._board.snapshot.mounts[name].state in DOWN

    async def wait_until(self, condition: Callable[[Snapshot], bool], limit_s: float) -> None:
        """Returns after `limit_s` also without it."""
        try:
            await self._board.wait_until(condition, limit_s)
        except TimeoutError:
            log.error("something does not stop: continuing without it", limit_s=limit_s)

    # -- stop -----------------------------------------------------------------------------------------------------

    async def stop_apps(self, limit_s: float) -> None:
        for app in self.apps.values():
            app.supervisor.post(Notice.UNWANTED)
        await self.wait_until(lambda now: all(app.state in DOWN for app in now.apps.values()), limit_s)

    async def stop_mounts(self, limit_s: float) -> None:
        for name in self.mounts:
            self.supervisors[name].post(Notice.UNWANTED)
        await self.wait_until(lambda now: all(mount.state in DOWN for mount in now.mounts.values()), limit_s)

    def cancel(self) -> None:
        self.access.cancel()
        # An outbox that ends since the stop began ends its rclone: once more would interrupt that.
        ending = (task for task in self.outboxes.tasks() if not task.cancelling())
        for task in (*self._tasks.values(), *self._stuck, *ending):
            task.cancel()

    async def close(self) -> None:
        for mount in self.mounts.values():
            await mount.close()
