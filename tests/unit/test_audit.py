"""What may be concluded from a listing that lacks files: only a second look in a bucket that gives valid answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mountd.errors import RemoteError
from mountd.model import audit, manifest
from mountd.model.audit import Audit
from mountd.rclone.keys import BucketEntry
from mountd.status.board import Board
from mountd.status.snapshot import (
    Health,
    ModelStage,
    ModelStatus,
    MountStatus,
    Operation,
    RemoteStatus,
    Snapshot,
    State,
)
from tests.support.memory_disk import SIZE, MemoryDisk
from tests.support.shelf import MOUNT, Shelf, shelf, until


class DoubtfulDisk(MemoryDisk):
    """`gone`: the version lacks its file. `valid`: the store itself answers. `heals`: it is there at a second look."""

    def __init__(self) -> None:
        super().__init__()
        self.gone = self.valid = self.heals = False
        self.confirmed = 0

    async def list_bucket(self, directory: str, *, recursive: bool = False) -> list[BucketEntry]:
        items = await super().list_bucket(directory, recursive=recursive)
        return [BucketEntry(f"{directory}/other", "other", 1, False)] if self.gone else items

    def is_confirmed(self, times: int) -> bool:
        return self.confirmed >= times

    async def confirm(self) -> None:
        self.confirmed += 1
        if self.heals:
            self.gone = False
        elif not self.valid:
            raise RemoteError("a login page answers", code="bucket-invalid")


class PublishedDisk(DoubtfulDisk):
    """Each version has a manifest, in which its file has the digest `sha256`; `looks` counts looks at the manifest."""

    sha256 = "a" * 64

    def __init__(self) -> None:
        super().__init__()
        self.valid = True
        self.looks = 0

    @property
    def manifest(self) -> bytes:
        return manifest.render("v22", [("gpt.pth", SIZE, self.sha256)], created="2026-01-01T00:00:00Z", tool="test")

    async def list_bucket(self, directory: str, *, recursive: bool = False) -> list[BucketEntry]:
        items = await super().list_bucket(directory, recursive=recursive)
        return [*items, BucketEntry(f"{directory}/{manifest.NAME}", manifest.NAME, len(self.manifest), False)]

    async def fingerprint(self, path: str) -> str:
        self.looks += 1
        return self.sha256

    def object(self, path: str) -> bytes | None:
        return self.manifest if path.endswith(manifest.NAME) else None


@contextlib.asynccontextmanager
async def audited(root: Path, disk: DoubtfulDisk) -> AsyncIterator[Shelf]:
    async with shelf(root) as found:
        found.model.reconfigure(found.model.settings, disk)
        found.board.set_mount("storage", replace(MOUNT, backend=RemoteStatus(Health.HEALTHY)))
        async with found.running():
            await until(lambda: found.status.linked, "the link")
            looking = asyncio.create_task(Audit(found.models, found.board, found.journal).run())
            try:
                yield found
            finally:
                looking.cancel()
                await asyncio.gather(looking, return_exceptions=True)


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "INTERVAL_S", 0.01)
    monkeypatch.setattr(audit, "SPREAD_S", 0.01)


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[tuple[Shelf, DoubtfulDisk]]:
    disk = DoubtfulDisk()
    async with audited(tmp_path, disk) as found:
        yield found, disk


async def test_what_answers_in_the_stores_place_changes_no_version(live: tuple[Shelf, DoubtfulDisk]) -> None:
    found, disk = live
    disk.gone = True
    await until(lambda: disk.confirmed >= 2, "two looks")
    assert found.status.changed is None


async def test_a_look_that_the_next_one_does_not_bear_out_changes_none(live: tuple[Shelf, DoubtfulDisk]) -> None:
    found, disk = live
    disk.heals = True
    for looks in (1, 2, 3):
        disk.gone = True
        await until(partial(disk.is_confirmed, looks), "a look")
        assert found.status.changed is None


async def test_a_change_that_the_store_bears_out_is_one(live: tuple[Shelf, DoubtfulDisk]) -> None:
    found, disk = live
    disk.gone = disk.valid = True
    await until(lambda: found.status.changed is not None, "the alarm")
    assert found.status.changed is not None
    assert found.status.changed.code == "content-changed"
    disk.gone = False
    await until(lambda: found.status.changed is None, "its end")


async def test_a_live_version_that_was_never_recorded_counts_as_it_is_now(
    live: tuple[Shelf, DoubtfulDisk],
) -> None:
    found, _ = live
    async with asyncio.timeout(60):
        while (known := await found.journal.content("hub", "v22")) is None:
            await asyncio.sleep(0.005)
    assert found.model.content is not None
    assert (known.digest, known.listing) == (found.model.content.digest, found.model.content.listing)


WELL = replace(MOUNT, backend=RemoteStatus(Health.HEALTHY))
LINKED = ModelStatus("storage", "/srv/hub", ModelStage.LINKED)
RUNNING = Operation(1, "switch", "hub", "v22", "v23", "tina", "cli", "warm", "")


@pytest.mark.parametrize(
    ("mount", "changes", "may"),
    [
        (WELL, {}, True),
        (None, {}, False),
        (replace(WELL, state=State.STARTING), {}, False),
        (MOUNT, {}, False),
        (replace(WELL, backend=RemoteStatus(Health.DEGRADED)), {}, False),
        (WELL, {"models": {"hub": replace(LINKED, stage=ModelStage.WARMED)}}, False),
        (WELL, {"operations": (RUNNING,)}, False),
        (WELL, {"operations": (replace(RUNNING, kind="warm"),)}, True),
        (WELL, {"stopping": True}, False),
    ],
)
def test_it_looks_only_while_all_is_well_and_quiet(
    tmp_path: Path, mount: MountStatus | None, changes: dict[str, Any], may: bool
) -> None:
    now = Snapshot(mounts={"storage": mount} if mount else {}, models={"hub": LINKED})
    assert audit._may_ask(Shelf(tmp_path).model, replace(now, **changes)) is may


async def test_a_manifest_with_other_digests_is_a_change_though_names_and_sizes_stay(tmp_path: Path) -> None:
    disk = PublishedDisk()
    async with audited(tmp_path, disk) as found:
        await until(lambda: disk.looks >= 2, "two looks")
        assert not is_changed(found)
        disk.sha256 = "b" * 64
        await until(partial(is_changed, found), "the alarm")


async def test_a_model_that_a_reload_has_just_added_is_not_looked_at_yet(tmp_path: Path) -> None:
    async with shelf(tmp_path) as found:
        empty = Board(Snapshot())
        await Audit(found.models, empty, found.journal)._attend(found.model)


def is_changed(found: Shelf) -> bool:
    reason = found.status.changed
    return reason is not None and reason.code == "content-changed"
