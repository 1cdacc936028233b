"""A model that starts up on a slow bucket while an operation moves its link: that never waits, nor is it undone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from mountd.journal.journal import Committed, Journal
from mountd.model import link
from mountd.model.content import Content
from mountd.model.model import Model
from mountd.operation.desired import declare
from mountd.settings.schema import ModelSettings
from mountd.status.board import Board
from mountd.status.snapshot import Health, MountStage, MountStatus, Snapshot, State
from tests.support.memory_disk import MemoryDisk

MOUNT = MountStatus("/mnt", "store:bucket", State.RUNNING, MountStage.READY, Health.HEALTHY)
SOON_S = 60.0


class Bench:
    def __init__(self, directory: Path, journal: Journal) -> None:
        self.disk = MemoryDisk()
        self.board = Board(Snapshot(mounts={"storage": MOUNT}))
        self.link = directory / "hub"
        settings = ModelSettings.model_validate(
            {"mount": "storage", "directory": "hub_{version}", "link": str(self.link), "version": "v22"}
        )
        self.model = Model("hub", settings, self.disk, self.board, journal)

    def remount(self) -> None:
        mount = self.board.snapshot.mounts["storage"]
        self.board.set_mount("storage", replace(mount, restarts=mount.restarts + 1))

    async def until_linked(self, version: str) -> None:
        def there(now: Snapshot) -> bool:
            model = now.models["hub"]
            return (
                model.linked
                and model.current == version
                and model.mount_restarts == now.mounts["storage"].restarts
                and link.read(self.link) == f"/mnt/hub_{version}"
            )

        await self.board.wait_until(there, SOON_S)

    async def flip(self, content: Content | None) -> None:
        async with asyncio.timeout(SOON_S):
            await self.model.flip(content)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    journal = Journal(tmp_path / "mountd.db")
    await journal.open()
    made = Bench(tmp_path, journal)
    await made.model.load()
    await made.model.state.update(lambda _: declare(Committed(), "v22"))
    task = asyncio.create_task(made.model.run())
    await made.until_linked("v22")
    try:
        yield made
    finally:
        made.disk.gate.set()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await journal.close()


async def test_a_link_goes_back_while_the_bucket_does_not_answer(bench: Bench) -> None:
    model = bench.model
    before = model.live_content()
    new = await model.versions.inspect("v23")
    with model.held("v23"), model.link.moving():
        await bench.flip(new)
        bench.disk.gate.clear()
        bench.remount()
        await asyncio.wait_for(bench.disk.waits.wait(), SOON_S)  # it starts up again, on the mount that came back
        await bench.flip(before)
        assert link.read(bench.link) == "/mnt/hub_v22"
        bench.disk.gate.set()
        await bench.until_linked("v22")
    await bench.until_linked("v22")
    assert model.committed.current == "v22"


async def test_a_startup_that_began_before_never_points_the_link_back(bench: Bench) -> None:
    model = bench.model
    new = await model.versions.inspect("v23")
    bench.disk.gate.clear()
    bench.remount()
    await asyncio.wait_for(bench.disk.waits.wait(), SOON_S)  # for v22
    with model.held("v23"), model.link.moving():
        await bench.flip(new)
        bench.disk.gate.set()
        await bench.until_linked("v23")
        await model.commit(new)
    await bench.until_linked("v23")
    assert model.committed.current == "v23"


async def test_the_guard_heals_until_an_operation_moves_the_link(bench: Bench) -> None:
    model = bench.model

    async def until_healed() -> None:
        async with asyncio.timeout(SOON_S):
            while link.read(bench.link) is None:
                await asyncio.sleep(0.01)

    with model.held("v23"):
        bench.link.unlink()
        await until_healed()
        with model.link.moving():
            bench.link.unlink()
            for _ in range(3):
                model.link.guard.look()  # the first would report, the next heal
            before = model.live_content()
            assert link.read(bench.link) is None
            await bench.flip(before)
        assert link.read(bench.link) == "/mnt/hub_v22"
    bench.link.unlink()
    await until_healed()
