"""A bucket in memory behind a real model, link, journal and operations: what needs neither a mount nor an app."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

from mountd.api.documents import SCHEMA
from mountd.api.documents.operations import ReloadDocument
from mountd.api.routes import ApiDeps, Routes
from mountd.api.server import Server
from mountd.api.webhook import Webhooks
from mountd.journal import database
from mountd.journal.database import LOCKED_S
from mountd.journal.journal import Journal, OperationRecord
from mountd.model.model import Model
from mountd.operation.apps import AppControl, ControlledApp
from mountd.operation.desired import DesiredVersions, Request
from mountd.operation.drill import Drills
from mountd.operation.schedule import Schedules
from mountd.operation.switch import Operations
from mountd.operation.sync import Syncing
from mountd.process.child import Ring
from mountd.process.supervisor import Supervisor
from mountd.rclone.conf_file import read_in_threads
from mountd.settings.schema import ControlSettings, ModelSettings
from mountd.status.board import Board
from mountd.status.snapshot import Health, ModelStatus, MountStage, MountStatus, Snapshot, State
from mountd.warm.profiles import Profiles
from tests.support.fake_app import FakeApp
from tests.support.memory_disk import MemoryDisk
from tests.support.scripted_source import ScriptedSource

SOON_S = 60.0
MOUNT = MountStatus("/mnt", "store:bucket", State.RUNNING, MountStage.READY, Health.HEALTHY)
TINA = Request("tina", "cli")


class NoDrills(Drills):
    """For an API that nobody asks for one."""

    def __init__(self) -> None: ...


class Shelf:
    """One model `hub`; `version` is what its configuration names. Each name of `apps` is a FakeApp that needs it."""

    def __init__(self, directory: Path, version: str = "v22", *, apps: Sequence[str] = (), **keys: Any) -> None:
        self.directory = directory
        self.link = directory / "hub"
        self.board = Board(Snapshot(mounts={"storage": MOUNT}))
        self.journal = Journal(directory / "mountd.db")
        self.disk = MemoryDisk()
        settings = {
            "mount": "storage",
            "directory": "hub_{version}",
            "link": str(self.link),
            **({} if "desired" in keys else {"version": version}),
            **keys,
        }
        self.model = Model("hub", ModelSettings.model_validate(settings), self.disk, self.board, self.journal)
        self.models = {"hub": self.model}
        self.apps = {name: FakeApp(name, self.board, self.link) for name in apps}
        self.operations = Operations(self.models, self.apps, self.board, self.journal)
        self.schedules = Schedules(self.operations, self.journal, self.board)
        self.controlled: dict[str, ControlledApp] = {}
        """apps that a person may stop and start"""
        self.profiles = Profiles(directory)
        self.source = ScriptedSource()
        """of a model with `desired`"""
        self.desired = DesiredVersions(
            self.models,
            self.operations.switch_and_wait,
            self.board,
            journal=self.journal,
            make_source=lambda *_: self.source,
        )
        self.syncing = Syncing(self.models, self.journal, self.desired.resumed)
        self.supervisors: dict[str, Supervisor] = {}
        self.rings: dict[str, Ring] = {}
        self.drills: Drills = NoDrills()

    @property
    def status(self) -> ModelStatus:
        return self.board.snapshot.models["hub"]

    @property
    def step(self) -> str:
        """That the running operation is at; empty when none runs."""
        operation = self.board.snapshot.operation
        return operation.step if operation else ""

    async def switch(self, version: str, request: Request = TINA) -> OperationRecord:
        """As it ended."""
        asked = await self.operations.switch(None, version, request)
        assert asked.record is not None
        await self.operations.outcome(asked.record)
        ended = await self.operations.results.operation(asked.record.id)
        assert ended is not None
        return ended

    async def begin(self, version: str, *, model: str = "hub", step: str = "preflight") -> OperationRecord:
        """An operation in the journal that nobody carries out."""
        return await self.journal.begin(
            kind="switch",
            model=model,
            from_version="v22",
            to_version=version,
            operator="tina",
            source="cli",
            reason="",
            step=step,
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """As a daemon does it."""
        await self.operations.close_interrupted()
        await self.schedules.load()
        await self.desired.load("hub")
        works = (self.model.run, self.operations.run, self.schedules.run)
        tasks = [asyncio.create_task(work()) for work in works]
        try:
            yield
        finally:
            self.disk.gate.set()
            for task in tasks:
                task.cancel()
            for ended in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(ended, Exception):
                    raise ended

    def server(self) -> Server:
        """The API of it, which listens nowhere yet; nothing to restart or reload."""

        async def reload(_: str) -> ReloadDocument:
            return {"schema": SCHEMA, "changed": [], "restarted": [], "in_place": []}

        return Server(
            Routes(
                ApiDeps(
                    board=self.board,
                    operations=self.operations,
                    supervisors=self.supervisors,
                    rings=self.rings,
                    reload=reload,
                    drills=self.drills,
                    journal=self.journal,
                    syncing=self.syncing,
                    schedules=self.schedules,
                    apps=AppControl(self.controlled, self.operations, self.board, self.journal),
                    profiles=self.profiles,
                    webhooks=Webhooks(self.models, self.desired.poke, read_in_threads),
                    started=time.monotonic(),
                )
            )
        )

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Path]:
        """The API of it, on the socket whose path this is."""
        server, path = self.server(), self.directory / "s"
        await server.listen_unix(ControlSettings(socket=path))
        try:
            yield path
        finally:
            await server.close()

    def _other(self) -> sqlite3.Connection:
        return sqlite3.connect(self.journal.path, isolation_level=None, timeout=SOON_S)

    # -- faults ---------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Another program holds the journal: it can be read, and not written."""
        with contextlib.closing(self._other()) as other:
            other.execute("BEGIN IMMEDIATE")
            yield
            other.execute("ROLLBACK")

    @contextlib.contextmanager
    def without_ends(self) -> Iterator[None]:
        """The journal takes everything but the ends of operations."""
        with contextlib.closing(self._other()) as other:
            refuse = "BEGIN SELECT RAISE(ABORT, 'the disk is full'); END"
            other.execute(f"CREATE TRIGGER full BEFORE UPDATE OF finished ON operations {refuse}")
            yield
            other.execute("DROP TRIGGER full")

    def point(self, somewhere: str) -> None:
        other = self.link.with_name("other")
        other.symlink_to(somewhere)
        other.rename(self.link)

    @property
    def target(self) -> str:
        return os.path.basename(os.readlink(self.link))


@contextlib.asynccontextmanager
async def shelf(directory: Path, *, live: str = "v22", **keys: Any) -> AsyncIterator[Shelf]:
    """With a journal in which `live` is committed."""
    found = Shelf(directory, **keys)
    # A test that holds the journal for a moment may get no time in that moment; one that sets a limit means it.
    limit_s = SOON_S if database.LOCKED_S == LOCKED_S else database.LOCKED_S
    with patch.object(database, "LOCKED_S", limit_s):
        await found.journal.open()
    try:
        committed = await found.journal.committed("hub")
        if live:
            changed = {"current": live, "desired": live, "config_version": live}
            await found.journal.commit("hub", type(committed)(**changed))
        yield found
    finally:
        await found.journal.close()


async def until(condition: Callable[[], Any], what: str, limit_s: float = SOON_S) -> None:
    """Tasks of this loop go on meanwhile."""
    try:
        async with asyncio.timeout(limit_s):
            while not condition():
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"waited {limit_s:g} s in vain for {what}") from None
