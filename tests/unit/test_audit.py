"""What may be concluded from a listing that lacks files: only a second look in a bucket that gives valid answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from mountd.errors import RemoteError
from mountd.model import audit
from mountd.model.audit import Audit
from mountd.rclone.keys import BucketEntry
from mountd.status.snapshot import Health, RemoteStatus
from tests.support.memory_disk import MemoryDisk
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


@pytest.fixture
async def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Shelf, DoubtfulDisk]]:
    monkeypatch.setattr(audit, "INTERVAL_S", 0.01)
    monkeypatch.setattr(audit, "SPREAD_S", 0.01)
    async with shelf(tmp_path) as found:
        disk = DoubtfulDisk()
        found.model.reconfigure(found.model.settings, disk)
        found.board.set_mount("storage", replace(MOUNT, backend=RemoteStatus(Health.HEALTHY)))
        async with found.running():
            await until(lambda: found.status.linked, "the link")
            looking = asyncio.create_task(Audit(found.models, found.board, found.journal).run())
            try:
                yield found, disk
            finally:
                looking.cancel()
                await asyncio.gather(looking, return_exceptions=True)


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
