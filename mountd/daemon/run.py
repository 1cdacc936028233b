"""The composition root: reads like a table of contents. Made of settings: mounts, models, apps, operations, the API."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import sys
import time
from collections.abc import Collection, Sequence
from functools import partial

import structlog

from mountd import __version__
from mountd.api.documents.operations import ReloadDocument
from mountd.api.routes import ApiDeps, Routes
from mountd.api.server import Server
from mountd.api.webhook import Webhooks
from mountd.daemon import logs, threads
from mountd.daemon.members import Members
from mountd.daemon.notifying import Notifying
from mountd.daemon.recorder import Recorder
from mountd.daemon.reload import Reloader
from mountd.daemon.shutdown import OPERATION_S, stop_times
from mountd.daemon.sources import Sources
from mountd.daemon.tasks import Tasks
from mountd.daemon.threads import Reserve
from mountd.errors import Bug, JournalHeld, MountdError
from mountd.fuse import table, unmount
from mountd.fuse.watch import read_table
from mountd.journal.journal import Journal
from mountd.journald import for_stderr
from mountd.model.audit import Audit
from mountd.operation import drill_runner
from mountd.operation.apps import AppControl
from mountd.operation.desired import DesiredVersions
from mountd.operation.diff import FlagDifference, flag_differences
from mountd.operation.drill import Drills
from mountd.operation.schedule import Schedules
from mountd.operation.switch import Operations
from mountd.operation.sync import Syncing
from mountd.operation.window import SyncWindows
from mountd.process import cgroup, tool
from mountd.process.instance import Instance
from mountd.process.notify import Notifier
from mountd.process.resources import SYSTEM_ERROR, of_the_machine
from mountd.rclone import binary
from mountd.rclone.conf_file import ConfFile, record_path
from mountd.settings.load import Loaded, config_path, load
from mountd.status import readiness
from mountd.status.board import Board
from mountd.status.snapshot import Snapshot
from mountd.text import printable

log = structlog.get_logger()

LEFTOVER_CLEAR_S = 10.0
JOURNAL_AGAIN_S = 0.5
JOURNAL_WAIT_USEC = 30_000_000
"""What systemd is asked for with each try, which takes less than 10 s."""
UMASK = 0o022
"""Whatever the shell has that starts mountd: directories that an app goes through, and what rclone shows of a mount
without a `umask` of its own, follow from the configuration alone."""


def main(config: str | None, *, journal: type[Journal] = Journal) -> int:
    """Runs the daemon → its exit code."""
    writer: logs.Writer | None = None
    try:
        loaded = load(config_path(config, os.environ))
        writer = logs.configure(loaded.settings.log)
        for warning in loaded.warnings:
            log.warning("configuration warning", cause=str(warning))
        _raise_descriptor_limit()
        os.umask(UMASK)
        reserve = Reserve()  # first: where numbers of descriptors are limited, its are low ones
        return threads.run(_run(loaded, journal, reserve))
    except MountdError as error:
        text = f"mountd: {error.text}\n" + (f"  hint: {error.hint}\n" if error.hint else "")
        (writer or sys.stderr).write(printable(for_stderr(text), keep="\n"))
        return error.exit_code
    except Exception as error:
        if (lack := of_the_machine(error)) is None:
            log.error("bug in mountd: exiting", exc_info=error)
            return Bug.exit_code
        if lack.code == SYSTEM_ERROR:
            log.error("the system refuses something", cause=lack.text, exc_info=error)
        (writer or sys.stderr).write(for_stderr(f"mountd: cannot continue: {lack.text}\n  hint: {lack.hint}\n"))
        return lack.exit_code
    finally:
        if writer is not None:
            writer.close()


def _raise_descriptor_limit() -> None:
    """Connections to our sockets must not use up all descriptors; children get the previous limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _run(loaded: Loaded, journal_type: type[Journal], reserve: Reserve) -> int:
    settings = loaded.settings
    signals = Signals()
    instance = Instance.create(settings.state, settings.runtime)
    locks = instance.lock(settings.control.socket)
    configured = {str(mount.path) for mount in settings.mounts.values()}
    try:
        log.info("mountd starts", version=__version__, pid=os.getpid(), config=str(loaded.source), instance=instance.id)
        await clear_previous_run(instance, configured)
        journal = journal_type(settings.state / "mountd.db")
        try:
            if not await open_journal(journal, signals):
                return 0
            daemon = Daemon(loaded, instance, journal, signals, reserve)
            await daemon.run()
        finally:
            await journal.close()
        left = await clear_mounts(instance.id, {*configured, *instance.mount_points()}, "mount")
        for entry in left:
            log.error("still mounted", path=entry.mount_point)
        if daemon.tasks.is_broken:
            return Bug.exit_code
        daemon.members.check_uploaded()
        return 1 if left else 0
    finally:
        instance.clear_private()
        for lock in locks:
            os.close(lock)


async def open_journal(journal: Journal, signals: Signals) -> bool:
    """Waits for as long as another program holds it: what is live stands there. False: mountd is to stop."""
    notifier, logged = Notifier(os.environ), ""
    while True:
        try:
            await journal.open()
        except JournalHeld as error:
            if error.text != logged:
                logged = error.text
                log.warning("waiting for the journal", cause=error.text, hint=error.hint)
            notifier.send(STATUS=f"Waiting: {error.text}.", WATCHDOG=1, EXTEND_TIMEOUT_USEC=JOURNAL_WAIT_USEC)
        else:
            return True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(JOURNAL_AGAIN_S):
                await signals.stop.wait()
        if signals.stop.is_set():
            return False


class Signals:
    """The signals that the daemon has received."""

    def __init__(self) -> None:
        self.stop, self.hangup = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            loop.add_signal_handler(number, self.stop.set)
        loop.add_signal_handler(signal.SIGHUP, self.hangup.set)


async def clear_previous_run(instance: Instance, mount_points: Collection[str]) -> None:
    """Ends children and unmounts mounts that a killed daemon left; logs what it cannot end.

    `mount_points`: those of the configuration, for what an older mountd has mounted.
    """
    places = {*instance.mount_points(), *mount_points}
    unfinished = [each for each in instance.former() if not await _clear(each, places)]
    await _clear(instance.id, places)
    instance.remember(unfinished)
    instance.keep_mount_points(
        entry.mount_point for each in (instance.id, *unfinished) for entry in table.made_by(read_table(), each, places)
    )


async def _clear(instance: str, places: Collection[str]) -> bool:
    """Whether nothing of this instance is left."""
    try:
        for orphan in [*await cgroup.end_all(instance), *await tool.end_orphans(instance)]:
            log.warning("killed an orphan of a previous run", process=orphan)
    except MountdError as error:
        # Something may hang on the mount that is cleared next.
        log.warning("cannot look for orphans of a previous run", cause=error.text)
    return not await clear_mounts(instance, places, "mount of a previous run")


async def clear_mounts(instance: str, places: Collection[str], what: str) -> list[table.Entry]:
    """Unmounts all that this instance has mounted → those that are left."""
    for entry in reversed(table.made_by(read_table(), instance, places)):
        try:
            await unmount.clear(entry.mount_point, entry.source, timeout_s=LEFTOVER_CLEAR_S)
            log.warning(f"cleared a {what}", path=entry.mount_point)
        except MountdError as error:
            log.warning(f"cannot clear a {what}", path=entry.mount_point, cause=error.text)
    return table.made_by(read_table(), instance, places)


class Daemon:
    def __init__(
        self, loaded: Loaded, instance: Instance, journal: Journal, signals: Signals, reserve: Reserve
    ) -> None:
        settings = loaded.settings
        self._settings = settings
        self._signals = signals
        self._notifier = Notifier(os.environ)
        self.board = Board(Snapshot())
        self.tasks = Tasks(self.board, reserve, signals.stop.set)
        self._recorder = Recorder(self.board, journal)
        found = binary.find(settings.rclone.binary)
        for cause in found.passed_over:
            log.warning("rclone passed over", cause=cause)
        self.board.meters.rclone = found.version_text
        log.info("rclone found", path=str(found.path), version=found.version_text)
        conf = ConfFile(instance.private / "rclone.conf", found, record=record_path(instance.state))
        self.members = Members(
            settings,
            instance=instance,
            board=self.board,
            journal=journal,
            binary=found,
            conf=conf,
            tasks=self.tasks,
        )
        self.operations = Operations(self.members.models, self.members.apps, self.board, journal)
        self.drills = Drills(
            drill_runner.DrillDeps(
                settings=lambda: self.members.settings,
                mounts=self.members.mounts,
                supervisors=self.members.supervisors,
                probe_paths=self.members.probe_paths,
                board=self.board,
                operations=self.operations,
                journal=journal,
                instance=instance,
                binary=found,
            )
        )
        self._audit = Audit(self.members.models, self.board, journal)
        self._schedules = Schedules(self.operations, journal, self.board)
        sources = Sources(instance, self.members.mount_points)
        self._desired = DesiredVersions(
            self.members.models,
            self.operations.switch_and_wait,
            self.board,
            journal=journal,
            make_source=sources.make,
        )
        self._windows = SyncWindows(self.members.models)
        self._notifying = Notifying(
            journal=journal,
            board=self.board,
            tasks=self.tasks,
            instance=instance,
            own_mounts=self.members.mount_points,
        )
        self._server = Server(
            Routes(
                ApiDeps(
                    board=self.board,
                    operations=self.operations,
                    supervisors=self.members.supervisors,
                    rings=self.members.rings,
                    reload=self._reload,
                    drills=self.drills,
                    journal=journal,
                    syncing=Syncing(self.members.models, journal, self._desired.resumed),
                    schedules=self._schedules,
                    apps=AppControl(self.members.apps, self.operations, self.board, journal),
                    profiles=self.members.access.profiles,
                    webhooks=Webhooks(self.members.models, self._desired.poke, sources.secrets.read),
                    flags=self._differing_flags,
                    notify=self._notifying.test,
                    started=time.monotonic(),
                )
            )
        )
        self._reloader = Reloader(
            loaded,
            members=self.members,
            operations=self.operations,
            desired=self._desired,
            server=self._server,
            board=self.board,
            journal=journal,
            notify=self._notifying.apply,
        )

    async def run(self) -> None:
        """From start to stop; a bug in any task is a reason to stop, in the same order."""
        asyncio.get_running_loop().set_exception_handler(self.tasks.unhandled)
        try:
            await self.members.pins.load()
        except MountdError as error:  # versions that are pinned are read through the mount then
            log.error("cannot read what is pinned", cause=error.text, hint=error.hint)
        await self.operations.close_interrupted()
        await self._schedules.load()
        for name in self.members.models:
            await self._desired.load(name)
        await self.members.outboxes.recall(self._settings)
        self._recorder.know_outboxes()
        try:
            await self._server.listen_unix(self._settings.control)
            await self._reloader.port.open(self._settings.http)
            async with self.tasks as group:
                await self._reloader.begin()
                self.members.run()
                self._windows.look()
                self._desired.begin(group)
                operating = group.keep(self.operations.run, "operations")
                auditing = group.keep(self._audit.run, "audit")
                scheduling = group.keep(self._schedules.run, "scheduled switches")
                ticking = group.keep(self._windows.run, "sync windows")
                reloading = [
                    group.keep(self._reloader.follow_files, "reload"),
                    group.keep(self._follow_signal, "reload by signal"),
                ]
                notifying = group.keep(self._notify_systemd, "status for systemd")
                recording = group.keep(self._recorder.run, "events")
                await self._notifying.begin(self._settings.notify)
                await self._signals.stop.wait()
                await self._shut_down([scheduling, operating, *reloading, auditing, ticking])
                for task in (notifying, recording):
                    task.cancel()
                self._notifying.cancel()
                self.members.cancel()
                why = "mountd has stopped" + (" because of a bug in it" if group.is_broken else "")
                await group.run_last(partial(self._recorder.stopped, why))
        finally:
            self._reloader.close()
            for close in (self.members.close, self.drills.close, self._server.close):
                await self.tasks.run_last(close)
            log.info("mountd has stopped")

    async def _follow_signal(self) -> None:
        await self._reloader.follow_signal(self._signals.hangup, self._notifier)

    async def _differing_flags(self, mount: str) -> Sequence[FlagDifference]:
        try:
            return flag_differences(*await self.members.mounts[mount].command_lines())
        except MountdError:  # it does not run: what its process is, is compared as well
            return ()

    async def _reload(self, operator: str) -> ReloadDocument:
        return await self._reloader.ask(operator)

    async def _notify_systemd(self) -> None:
        """READY at once: mountd answers requests, and the watchdog, which systemd starts with READY, also watches it
        while it waits for its bucket. STATUS at each change, WATCHDOG while the loop turns."""
        sent, is_served = "", False
        self._notifier.send(READY=1)
        interval_s = (self._notifier.watchdog_s or 60.0) / 3  # half is the limit; the rest is for a busy machine
        while True:
            snapshot = self.board.snapshot
            if not is_served and readiness.is_serving_disk(snapshot):
                is_served = True
                log.info("disk is served", ready=readiness.is_ready(snapshot))
            headline = readiness.headline(snapshot)
            if headline != sent:
                sent = headline
                self._notifier.send(STATUS=headline)
            self._notifier.send(WATCHDOG=1)
            await self.board.changed(interval_s)

    async def _shut_down(self, first: Sequence[asyncio.Task[None]]) -> None:
        """Not ready → reload, operation and models → apps → mounts; each with its limit, see `stop_times`."""
        times = stop_times(self.members.settings, self.members.leaving.values())
        log.info("mountd stops", at_most_s=times.total_s)
        self.tasks.reserve.end_within(times.total_s, exit_code=Bug.exit_code if self.tasks.is_broken else 1)
        self.board.set_stopping()
        # More than the unit may have, and not less than the configuration asks for.
        self._notifier.send(STOPPING=1, STATUS="Stopping.", EXTEND_TIMEOUT_USEC=int(times.total_s * 1e6))
        stopping = [*first, *self._reloader.tasks(), *self.members.model_tasks(), *self.members.outboxes.tasks()]
        for task in stopping:
            task.cancel()
        await asyncio.wait(stopping, timeout=OPERATION_S)
        await self.tasks.run_last(partial(self.members.stop_apps, times.apps_s))
        await self.tasks.run_last(partial(self.members.stop_mounts, times.mounts_s))
