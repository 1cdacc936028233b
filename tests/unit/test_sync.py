"""Pause and resume: durable, shown with who and why, and never at the cost of what an operation writes meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mountd.errors import MountdError, NotFound, UsageError
from mountd.journal import database
from mountd.journal.journal import Journal
from mountd.model import committed
from mountd.model.model import Model
from mountd.operation import desired
from mountd.operation.sync import WHY_CHARACTERS, Paused, Syncing
from mountd.rclone.keys import BucketEntry
from mountd.settings.schema import ModelSettings
from mountd.status import readiness
from mountd.status.board import Board
from mountd.status.snapshot import Health, ModelStage, MountStage, MountStatus, Operation, Snapshot, State, Sync
from mountd.status.source import Unmet
from tests.support.memory_disk import MemoryDisk
from tests.support.shelf import TINA

MOUNT = MountStatus("/mnt", "store:bucket", State.RUNNING, MountStage.READY, Health.HEALTHY)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a journal that a test holds for a moment, in which it may get no time."""
    monkeypatch.setattr(database, "LOCKED_S", 60.0)
    monkeypatch.setattr(committed, "DISK_LIMIT_S", 60.0)


class EmptyDisk(MemoryDisk):
    """A bucket with nothing in it: a pause needs none."""

    async def list_bucket(self, directory: str, *, recursive: bool = False) -> list[BucketEntry]:
        return []


class Stage:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.board = Board(Snapshot(mounts={"storage": MOUNT}))
        self.journal = Journal(directory / "mountd.db")
        self.models: dict[str, Model] = {}
        self.syncing = Syncing(self.models, self.journal)

    async def add(self, name: str, **keys: Any) -> Model:
        settings = ModelSettings.model_validate(
            {
                "mount": "storage",
                "directory": "hub_{version}",
                "link": str(self.directory / name),
                "version": "v1",
                **keys,
            }
        )
        model = self.models[name] = Model(name, settings, EmptyDisk(), self.board, self.journal)
        await model.load()
        await model.state.update(lambda now: desired.declare(now, "v1"))
        return model

    async def events(self) -> list[tuple[str, str, str]]:
        return [(each.code, each.object, each.text) for each in await self.journal.events(limit=100)]


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    found = Stage(tmp_path)
    await found.journal.open()
    yield found
    await found.journal.close()


async def test_a_pause_is_durable_and_says_who_and_why(stage: Stage) -> None:
    model, other = await stage.add("hub"), await stage.add("voices")
    why = "alice: night shift"
    assert await stage.syncing.pause("hub", operator="alice", reason=" night\n shift ") == [Paused("hub", why, True)]
    assert (await stage.journal.committed("hub")).suspended == why
    assert (model.committed.suspended, other.committed.suspended) == (why, None)
    assert stage.board.snapshot.models["hub"].suspended == why
    again = await stage.add("hub")  # as at the next start
    assert again.committed.suspended == why
    assert await stage.syncing.pause("hub", operator="alice", reason="night shift") == [Paused("hub", why, False)]

    assert await stage.syncing.pause(None, operator="bob") == [
        Paused("hub", "bob", True),
        Paused("voices", "bob", True),
    ]
    resumed = await stage.syncing.resume(None, operator="carol", reason="done")
    assert resumed == [Paused("hub", None, True), Paused("voices", None, True)]
    assert await stage.syncing.resume("hub", operator="carol") == [Paused("hub", None, False)]
    assert (await stage.journal.committed("hub")).suspended is None
    assert [(code, object_, text.partition(" by ")[2]) for code, object_, text in await stage.events()] == [
        ("suspended", "hub", why),
        ("suspended", "hub", "bob"),
        ("suspended", "voices", "bob"),
        ("resumed", "hub", "carol: done"),
        ("resumed", "voices", "carol: done"),
    ]


async def test_what_cannot_be_paused_is_reported(stage: Stage) -> None:
    with pytest.raises(NotFound) as nothing:
        await stage.syncing.pause(None, operator="alice")
    assert "`models:`" in nothing.value.hint
    await stage.add("hub")
    with pytest.raises(NotFound, match="nowhere") as unknown:
        await stage.syncing.resume("nowhere", operator="alice")
    assert unknown.value.hint == "models: hub"
    with pytest.raises(UsageError, match="501"):
        await stage.syncing.pause("hub", operator="alice", reason="x" * (WHY_CHARACTERS + 1))
    with contextlib.closing(sqlite3.connect(stage.journal.path)) as db:
        db.execute("DROP TABLE models")
    with pytest.raises(MountdError) as broken:
        await stage.syncing.pause("hub", operator="alice")
    assert broken.value.code == "journal-unusable"
    assert stage.models["hub"].committed.suspended is None, "what is not on disk is not so"


@pytest.mark.parametrize("turns", range(6))
async def test_a_pause_during_a_write_of_an_operation_loses_neither(tmp_path: Path, turns: int) -> None:
    """At whichever moment of the write it comes."""
    stage = Stage(tmp_path)
    await stage.journal.open()
    try:
        model = await stage.add("hub")
        asking = asyncio.create_task(desired.ask(model, "v2", TINA))
        for _ in range(turns):
            await asyncio.sleep(0)
        await asyncio.gather(asking, stage.syncing.pause("hub", operator="alice"), desired.ask(model, "v3", TINA))
        known = await stage.journal.committed("hub")
        assert (known.desired, known.suspended) == ("v3", "alice")
        assert (model.committed.desired, model.committed.suspended) == ("v3", "alice")
    finally:
        await stage.journal.close()


async def test_who_goes_away_in_the_middle_leaves_memory_and_journal_in_agreement(stage: Stage) -> None:
    model = await stage.add("hub")
    with contextlib.closing(sqlite3.connect(stage.journal.path, isolation_level=None, timeout=60.0)) as other:
        other.execute("BEGIN IMMEDIATE")
        pausing = asyncio.create_task(stage.syncing.pause("hub", operator="alice"))
        await asyncio.sleep(0.05)
        pausing.cancel()
        await asyncio.sleep(0.05)
        before = model.committed.suspended
        other.execute("ROLLBACK")
    await asyncio.wait([pausing])
    assert (before, pausing.cancelled()) == (None, True)
    assert (await stage.journal.committed("hub")).suspended == model.committed.suspended == "alice"
    assert stage.board.snapshot.models["hub"].suspended == "alice"


@pytest.mark.parametrize(
    ("unmet", "suspended", "shown"),
    [("v2", None, True), ("v3", None, False), ("v1", None, False), (None, None, False), ("v2", "alice", False)],
)
async def test_a_declared_version_that_cannot_be_reached_is_reported(
    stage: Stage, unmet: str | None, suspended: str | None, shown: bool
) -> None:
    model = await stage.add("hub")
    await model.suspend(suspended)
    failed = Unmet(unmet, "cannot use version v2: it is in quarantine", "--force tries it") if unmet else None
    status = replace(linked(stage, unmet=failed).models["hub"], desired="v2")
    now = Snapshot(mounts={"storage": MOUNT}, models={"hub": status})
    found = [reason for reason in readiness.reasons(now) if reason.code == "switch-failed"]
    assert bool(found) is shown
    assert (readiness.health(now) is Health.DEGRADED) is shown
    assert readiness.is_ready(now)
    for reason in found:
        assert failed is not None
        assert (reason.object, reason.hint) == ("hub", failed.hint)
        assert reason.text.endswith(f": {failed.cause}")


def linked(stage: Stage, **changes: Any) -> Snapshot:
    status = replace(
        stage.board.snapshot.models["hub"],
        stage=ModelStage.LINKED,
        health=Health.HEALTHY,
        current="v1",
        desired="v1",
        sync=Sync.SYNCED,
        **changes,
    )
    return Snapshot(mounts={"storage": MOUNT}, models={"hub": status})


async def test_paused_shows_as_suspended_and_takes_nothing_from_readiness(stage: Stage) -> None:
    model = await stage.add("hub")
    assert readiness.health(linked(stage)) is Health.HEALTHY
    await model.suspend("alice: night shift")
    now = linked(stage)
    assert readiness.health(now) is Health.SUSPENDED
    assert readiness.is_ready(now)
    (reason,) = readiness.reasons(now)
    assert (reason.code, reason.object) == ("suspended", "hub")
    assert reason.text.endswith(" alice: night shift")
    assert "mountd resume" in reason.hint
    # What is worse is not hidden by it.
    assert readiness.health(linked(stage, suspended="alice")) is Health.SUSPENDED
    worse = replace(now.models["hub"], health=Health.DEGRADED)
    assert readiness.health(replace(now, models={"hub": worse})) is Health.DEGRADED


@pytest.mark.parametrize(
    ("automatic", "suspended", "codes"),
    [
        (True, None, []),
        (True, "alice", ["switch-waits", "suspended"]),
        (False, None, ["switch-waits"]),
        (False, "alice", ["switch-waits", "suspended"]),
    ],
)
async def test_a_version_that_waits_is_reported(
    stage: Stage, automatic: bool, suspended: str | None, codes: list[str]
) -> None:
    model = await stage.add("hub", sync={"automatic": automatic})
    await model.suspend(suspended)
    status = replace(linked(stage).models["hub"], desired="v2")
    assert status.follows is (automatic and suspended is None)
    now = Snapshot(mounts={"storage": MOUNT}, models={"hub": status})
    found = readiness.reasons(now)
    assert [reason.code for reason in found] == codes
    if codes:
        assert [word in found[0].text for word in ("hub", "v1", "v2")] == [True] * 3
        assert found[0].hint == "mountd switch v2 --model hub"
    switching = Operation(1, "switch", "hub", "v1", "v2", "alice", "cli", "warm", "2026-01-01T00:00:00Z")
    by_hand = replace(now, operation=switching, operations=(switching,))
    assert "switch-waits" not in [reason.code for reason in readiness.reasons(by_hand)]
