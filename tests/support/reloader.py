"""Everything that a reload changes, in one process and with nothing running: no rclone, no app, no mount is started."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml

from mountd.api.documents import SCHEMA
from mountd.api.documents.operations import ReloadDocument
from mountd.api.routes import ApiDeps, Routes
from mountd.api.server import Server
from mountd.daemon import reload, secret_files, watch_files
from mountd.daemon.apply import Applier
from mountd.daemon.members import Members
from mountd.daemon.reload import Reloader
from mountd.daemon.tasks import Tasks
from mountd.errors import JournalError
from mountd.journal.journal import Committed, Journal
from mountd.operation.apps import AppControl
from mountd.operation.desired import DesiredVersions
from mountd.operation.schedule import Schedules
from mountd.operation.switch import Operations
from mountd.operation.sync import Syncing
from mountd.process.instance import Instance
from mountd.process.lifecycle import Event
from mountd.process.supervisor import Supervisor
from mountd.rclone import binary
from mountd.rclone.conf_file import ConfFile
from mountd.settings.change import Change, compare
from mountd.settings.load import load
from mountd.settings.source import Place
from mountd.status.board import Board
from tests.support.daemon import BUNDLED_RCLONE
from tests.support.shelf import NoDrills
from tests.support.tasks import IdleTasks, notify_nobody, tasks_of

DISK_S = 60.0


class FailingJournal(Journal):
    """Fails from its nth call of `committed` on, counted from when `reads_left` was set; None: never."""

    reads_left: int | None = None
    failure: Exception = JournalError("cannot use the journal: it is locked", hint="end what is done there")

    async def committed(self, model: str) -> Committed:
        if self.reads_left is not None:
            self.reads_left -= 1
            if self.reads_left < 0:
                raise self.failure
        return await super().committed(model)


class Bench:
    """A mount `storage` with the model `hub`, and the app `webui` that needs it. `config` is what the file says."""

    def __init__(self, root: Path, tasks: Callable[[Board], Tasks]) -> None:
        self.root = root
        self.file = root / "mountd.yaml"
        (root / "bucket").mkdir()
        self.config: dict[str, Any] = {
            "remotes": {"store": {"type": "local"}},
            "mounts": {"storage": self.mount("storage")},
            "models": {"hub": self.model("hub")},
            "apps": {"webui": {"command": ["sleep", "3600"], "needs": ["hub"]}},
            "rclone": {"binary": str(BUNDLED_RCLONE)},
            "control": {"socket": str(root / "s")},
            "state": str(root / "state"),
            "runtime": str(root / "run"),
        }
        self.write()
        loaded = load(self.file)
        settings = loaded.settings
        instance = Instance.create(settings.state, settings.runtime)
        self.board, self.journal = Board(), FailingJournal(root / "state" / "mountd.db")
        found = binary.find(BUNDLED_RCLONE)
        conf = ConfFile(instance.private / "rclone.conf", found)
        self.members = Members(
            settings,
            instance=instance,
            board=self.board,
            journal=self.journal,
            binary=found,
            conf=conf,
            tasks=tasks(self.board),
        )
        self.operations = Operations(self.members.models, self.members.apps, self.board, self.journal)
        self.desired = DesiredVersions(self.members.models, self.operations.switch_and_wait, self.board)
        self.applier = Applier(self.members, self.desired, self.board, notify_nobody)
        self.reloader = Reloader(
            loaded,
            members=self.members,
            operations=self.operations,
            desired=self.desired,
            server=self._server(),
            board=self.board,
            journal=self.journal,
            notify=notify_nobody,
        )

    def _server(self) -> Server:
        async def reload(_: str) -> ReloadDocument:
            return {"schema": SCHEMA, "changed": [], "restarted": [], "in_place": []}

        return Server(
            Routes(
                ApiDeps(
                    board=self.board,
                    operations=self.operations,
                    supervisors=self.members.supervisors,
                    rings=self.members.rings,
                    reload=reload,
                    drills=NoDrills(),
                    journal=self.journal,
                    syncing=Syncing(self.members.models, self.journal),
                    schedules=Schedules(self.operations, self.journal, self.board),
                    apps=AppControl(self.members.apps, self.operations, self.board, self.journal),
                    profiles=self.members.access.profiles,
                    started=time.monotonic(),
                )
            )
        )

    def mount(self, name: str) -> dict[str, Any]:
        return {
            "remote": f"store:{self.root / 'bucket'}",
            "path": str(self.root / name),
            "cache": {"dir": str(self.root / f"cache-{name}"), "min_free": "1%"},
        }

    def model(self, name: str) -> dict[str, Any]:
        link = str(self.root / f"{name}-link")
        return {"mount": "storage", "directory": f"{name}_{{version}}", "link": link, "version": "v22"}

    def write(self) -> None:
        new = self.file.with_suffix(".new")  # half of it could be noticed
        new.write_text(yaml.safe_dump(self.config))
        new.replace(self.file)


@contextlib.asynccontextmanager
async def bench(tasks: Callable[[Board], Tasks] = tasks_of) -> AsyncIterator[tuple[Bench, Tasks]]:
    """Its journal is open and its models are loaded; tasks that a reload makes end with it.

    Its directory is not pytest's: paths of sockets would be too long there. A disk that other tests keep busy has more
    time to answer than that of a user.
    """
    with (
        patch.multiple(reload, READ_S=DISK_S),
        patch.multiple(secret_files, READ_S=DISK_S),
        patch.multiple(watch_files, LOOK_S=DISK_S),
        patch.multiple(binary, DEADLINE_S=DISK_S),
        patch.dict(Reloader.reload.__kwdefaults__, patience_s=DISK_S),
    ):
        async with _bench(tasks) as made:
            yield made


@contextlib.asynccontextmanager
async def _bench(tasks: Callable[[Board], Tasks]) -> AsyncIterator[tuple[Bench, Tasks]]:
    directory = tempfile.TemporaryDirectory(prefix="mountd-t-")
    made = Bench(Path(directory.name), tasks)
    await made.journal.open()
    try:
        async with made.members.tasks as group:
            for name in made.members.models:
                await made.desired.load(name)
            await made.reloader.begin()
            made.desired.begin(group)
            try:
                yield made, group
            finally:
                for task in made.reloader.tasks():
                    task.cancel()
                made.members.cancel()
    finally:
        made.reloader.close()
        await made.members.close()
        await made.journal.close()
        directory.cleanup()


@contextlib.asynccontextmanager
async def idle_bench() -> AsyncIterator[tuple[Bench, list[str]]]:
    """One where nothing runs that a reload begins, and the names of what it has begun."""
    begun: list[str] = []
    async with bench(lambda board: IdleTasks(board, begun)) as (made, _):
        yield made, begun


async def carry_out(room: Bench, before: Mapping[Place, str] | None = None) -> Change:
    """What the file says now; the digests of secrets were `before`, and are all "new"."""
    room.write()
    new = load(room.file).settings
    after = dict.fromkeys(before or {}, "new")
    change = compare(room.members.settings, new, before or {}, after, root=True)
    return await room.reloader._applier.apply(change, new)


def posted(supervisor: Supervisor) -> list[Event]:
    """What has reached a supervisor that does not run."""
    found: list[Event] = []
    while not supervisor._queue.empty():
        found.append(supervisor._queue.get_nowait())
    return found
