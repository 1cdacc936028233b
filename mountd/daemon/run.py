"""The composition root: reads like a table of contents. Made of settings: mounts, models, apps, operations, the API."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence

import structlog

from mountd import __version__
from mountd.api.routes import Rooms, Routes
from mountd.api.server import Server
from mountd.app.app import App
from mountd.daemon import logs
from mountd.daemon.recorder import Recorder
from mountd.daemon.shutdown import stop_times
from mountd.errors import Busy, MountdError
from mountd.journal.journal import Journal
from mountd.model.model import Model
from mountd.mount import cleanup, table
from mountd.mount.mount import STOP_GRACE_S, RcloneMount
from mountd.mount.watch import read_table
from mountd.operation.switch import Operations
from mountd.process import tool
from mountd.process.instance import Instance
from mountd.process.lifecycle import Policy, Unwanted, Wanted
from mountd.process.notify import Notifier
from mountd.process.supervisor import Supervisor
from mountd.rclone import binary
from mountd.rclone.conf_file import ConfFile
from mountd.settings.load import Loaded, config_path, load
from mountd.settings.schema import Settings
from mountd.status import readiness
from mountd.status.board import Board
from mountd.status.snapshot import Snapshot, State

log = structlog.get_logger()

LEFTOVER_CLEAR_S = 10.0


def main(config: str | None) -> int:
    """The whole life of the daemon; its exit code."""
    writer: logs.Writer | None = None
    try:
        loaded = load(config_path(config, os.environ))
        writer = logs.configure(loaded.settings.log)
        for warning in loaded.warnings:
            log.warning("configuration warning", cause=str(warning))
        _raise_descriptor_limit()
        return asyncio.run(_live(loaded))
    except MountdError as error:
        told = f"mountd: {error.text}\n" + (f"  hint: {error.hint}\n" if error.hint else "")
        (writer or sys.stderr).write(told)
        return error.exit_code
    finally:
        if writer is not None:
            writer.close()


def _raise_descriptor_limit() -> None:
    """Connections to our sockets must not leave us without descriptors; children get the former limit back."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _live(loaded: Loaded) -> int:
    settings = loaded.settings
    stop = asyncio.Event()
    _handle_signals(stop)
    instance = Instance.create(settings.state, settings.runtime)
    lock = instance.lock(settings.control.socket)
    try:
        log.info("mountd starts", version=__version__, pid=os.getpid(), config=str(loaded.source), instance=instance.id)
        await clear_former_life(instance)
        journal = Journal(settings.state / "mountd.db")
        await journal.open()
        try:
            await Daemon(settings, instance, journal, stop).live()
        finally:
            await journal.close()
        left = table.of_instance(read_table(), instance.id)
        for entry in left:
            log.error("still mounted", path=entry.mount_point)
        return 1 if left else 0
    finally:
        os.close(lock)


def _handle_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, lambda: log.warning("reload is not supported: restart mountd"))


async def clear_former_life(instance: Instance) -> None:
    """Children and mounts that a killed daemon left, wherever they are; what cannot be ended is told."""
    try:
        for orphan in await tool.end_orphans(instance.id):
            log.warning("ended a process of a former life", process=orphan)
    except MountdError as error:
        # Something hangs, perhaps on the very mount that is cleared next.
        log.warning("cannot look for processes of a former life", cause=error.text)
    for entry in reversed(table.of_instance(read_table(), instance.id)):
        try:
            await cleanup.clear(entry.mount_point, entry.source, timeout_s=LEFTOVER_CLEAR_S)
            log.warning("cleared a mount of a former life", path=entry.mount_point)
        except MountdError as error:
            log.warning("cannot clear a mount of a former life", path=entry.mount_point, cause=error.text)


class Daemon:
    def __init__(self, settings: Settings, instance: Instance, journal: Journal, stop: asyncio.Event) -> None:
        self._settings = settings
        self._journal = journal
        self._notifier = Notifier(os.environ)
        self._stop = stop
        self.board = Board(Snapshot())
        self._recorder = Recorder(self.board, journal)
        found = binary.find(settings.rclone.binary)
        log.info("rclone found", path=str(found.path), version=".".join(map(str, found.version)))
        conf = ConfFile(instance.private / "rclone.conf", found)
        self.mounts = {
            name: RcloneMount(
                name,
                settings,
                instance=instance,
                board=self.board,
                binary=found,
                conf=conf,
                candidates=lambda name=name: self._probe_paths(name),  # type: ignore[misc]
            )
            for name in settings.mounts
        }
        self.models = {
            name: Model(name, model, self.mounts[model.mount].disk, self.board, journal)
            for name, model in settings.models.items()
        }
        self.apps = {name: App(name, settings, instance=instance, board=self.board) for name in settings.apps}
        mount_policy = Policy(grace_s=STOP_GRACE_S)
        self.supervisors = {name: Supervisor(mount, mount_policy) for name, mount in self.mounts.items()}
        self.operations = Operations(self.models, self.apps, self.board, journal)
        self._server = Server(
            Routes(
                Rooms(
                    board=self.board,
                    operations=self.operations,
                    supervisors={**self.supervisors, **{name: app.supervisor for name, app in self.apps.items()}},
                    rings={
                        **{name: mount.ring for name, mount in self.mounts.items()},
                        **{name: app.ring for name, app in self.apps.items()},
                    },
                    started=time.monotonic(),
                )
            )
        )

    def _probe_paths(self, mount: str) -> Sequence[str]:
        return [path for model in self.models.values() if model.settings.mount == mount for path in model.probe_paths()]

    async def live(self) -> None:
        """From start to stop; an unexpected failure of any task ends all of it."""
        await self.operations.close_interrupted()
        edited = {name: await model.load() for name, model in self.models.items()}
        try:
            await self._server.listen_unix(self._settings.control)
            await self._server.listen_tcp(self._settings.http)
            async with asyncio.TaskGroup() as group:
                running = [group.create_task(supervisor.run()) for supervisor in self.supervisors.values()]
                running += [group.create_task(app.run()) for app in self.apps.values()]
                modelling = [group.create_task(model.run()) for model in self.models.values()]
                modelling += [
                    group.create_task(self._switch_to(name, wanted)) for name, wanted in edited.items() if wanted
                ]
                operating = group.create_task(self.operations.run())
                telling = group.create_task(self._tell_systemd())
                recording = group.create_task(self._recorder.run())
                self._start()
                await self._stop.wait()
                await self._shut_down([operating, *modelling])
                for task in (telling, recording, *running):
                    task.cancel()
                await self._recorder.flush()
        finally:
            for mount in self.mounts.values():
                await mount.close()
            await self._server.close()
            log.info("mountd has stopped")

    def _start(self) -> None:
        for supervisor in self.supervisors.values():
            supervisor.post(Wanted())
        for app in self.apps.values():
            app.want()

    async def _switch_to(self, model: str, version: str) -> None:
        """An edited `version:` asks for a switch, once the former version is up: so that there is a way back."""
        while True:
            await self.board.wait_until(lambda snapshot: snapshot.models[model].linked and snapshot.operation is None)
            try:
                await self.operations.switch(
                    model, version, operator="config", source="config", reason="version: in the configuration"
                )
            except Busy:
                await self.board.changed()
            except MountdError as error:
                log.error("cannot switch to the version in the file", model=model, version=version, cause=error.text)
                return
            else:
                return

    async def _tell_systemd(self) -> None:
        """READY once the disk is served, STATUS at each change, WATCHDOG while the loop turns."""
        told_ready, told = False, ""
        interval_s = (self._notifier.watchdog_s or 60.0) / 3  # half is the limit; the rest is for a busy machine
        while True:
            snapshot = self.board.snapshot
            if not told_ready and readiness.is_serving_disk(snapshot):
                told_ready = True
                self._notifier.send(READY=1)
                log.info("disk is served", ready=readiness.is_ready(snapshot))
            headline = readiness.headline(snapshot)
            if headline != told:
                told = headline
                self._notifier.send(STATUS=headline)
            self._notifier.send(WATCHDOG=1)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(interval_s):
                    await self.board.changed()

    async def _shut_down(self, first: Sequence[asyncio.Task[None]]) -> None:
        """Not ready → operation and models → apps → mounts; each with its limit, see `stop_times`."""
        times = stop_times(self._settings)
        log.info("mountd stops", at_most_s=times.total_s)
        self.board.set_stopping()
        self._notifier.send(STOPPING=1, STATUS="stopping")
        for task in first:
            task.cancel()
        await asyncio.wait(first, timeout=times.operation_s)
        for app in self.apps.values():
            app.supervisor.post(Unwanted())
        await self._wait_stopped(lambda now: all(app.state in _DOWN for app in now.apps.values()), times.apps_s)
        for supervisor in self.supervisors.values():
            supervisor.post(Unwanted())
        await self._wait_stopped(lambda now: all(mount.state in _DOWN for mount in now.mounts.values()), times.mounts_s)

    async def _wait_stopped(self, stopped: Callable[[Snapshot], bool], limit_s: float) -> None:
        try:
            await self.board.wait_until(stopped, limit_s)
        except TimeoutError:
            log.error("something does not stop: going on without it", limit_s=limit_s)


_DOWN = (State.STOPPED, State.FAILED)
