"""How much of a version is here, with a bucket in memory: what an app waits for, what follows, what is checked."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from mountd.errors import Busy, RemoteError
from mountd.model import ahead
from mountd.model.content import Content
from mountd.operation.desired import Request
from mountd.warm.results import FileFault
from tests.support.shelf import MOUNT, TINA, Shelf, shelf, until

WRONG = FileFault("gpt.pth", "digest-differs", "its sha256 is another one")
AWAY = RemoteError("the store does not answer", code="bucket-unreachable")


async def linked(hub: Shelf) -> None:
    await until(lambda: hub.status.linked, "the model to be linked")


async def warmed(hub: Shelf, version: str, level: str | None = None, request: Request = TINA) -> tuple[str, int]:
    record = await hub.operations.warm(None, version, level, request)
    await hub.operations.outcome(record)
    ended = await hub.operations.results.operation(record.id)
    assert ended is not None
    return str(ended.result), ended.exit_code or 0


async def test_names_alone_read_no_data(tmp_path: Path) -> None:
    async with shelf(tmp_path) as hub, hub.running():
        await linked(hub)
        assert (hub.status.level, hub.disk.read, await warmed(hub, "v23")) == ("metadata", [], ("done", 0))
        assert hub.disk.read == []


async def test_the_link_waits_for_the_data_that_an_app_waits_for(tmp_path: Path) -> None:
    async with shelf(tmp_path, warm={"level": "data"}) as hub:
        hub.disk.reading_gate.clear()
        async with hub.running():
            await until(lambda: hub.status.loading is not None or hub.status.warmed_percent == 100, "its names")
            assert not hub.status.linked
            hub.disk.reading_gate.set()
            await linked(hub)
            assert (hub.status.level, hub.disk.read, hub.status.loading) == ("data", ["gpt.pth"], None)


async def test_data_come_behind_an_app_that_waits_for_the_names_alone(tmp_path: Path) -> None:
    async with shelf(tmp_path, warm={"level": "data"}) as hub:
        hub.model.levels.first = lambda: "metadata"
        hub.disk.reading_gate.clear()
        async with hub.running():
            await linked(hub)
            assert hub.status.level == "metadata"
            hub.disk.reading_gate.set()
            await until(lambda: hub.status.level == "data", "the data")
            assert hub.disk.read == ["gpt.pth"]


async def test_what_cannot_be_loaded_ahead_is_shown_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "AGAIN_S", 0.01)
    async with shelf(tmp_path, warm={"level": "data"}) as hub:
        hub.model.levels.first = lambda: "metadata"
        hub.disk.reading_failure = AWAY
        async with hub.running():
            await linked(hub)
            await until(lambda: bool(hub.status.loading and hub.status.loading.waits_for), "the cause to be shown")
            await until(lambda: len(hub.disk.read) > 3, "several tries")
            assert (hub.status.loads.begun, hub.status.loads.waits, hub.status.loads.done) == (1, 1, 0)
            hub.disk.reading_failure = None
            await until(lambda: hub.status.level == "data", "the data")
            assert hub.status.loading is None
            assert (hub.status.loads.begun, hub.status.loads.waits, hub.status.loads.done) == (1, 1, 1)


async def test_what_is_wrong_in_the_bucket_is_not_fetched_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "AGAIN_S", 0.0)
    async with shelf(tmp_path, warm={"level": "data"}) as hub:
        hub.model.levels.first = lambda: "metadata"
        hub.disk.faults = [(WRONG,)] * 50
        async with hub.running():
            await linked(hub)
            await until(lambda: bool(hub.status.loading and hub.status.loading.waits_for), "the cause to be shown")
            tries = len(hub.disk.read)
            for _ in range(100):
                await asyncio.sleep(0.001)
            assert len(hub.disk.read) == tries


async def test_what_could_not_be_tidied_up_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "AGAIN_S", 0.01)
    tried = 0

    async def tidy() -> None:
        nonlocal tried
        tried += 1
        if tried < 3:
            raise AWAY

    async def loaded(_: Content) -> None: ...

    async with shelf(tmp_path) as hub:
        tidier = ahead.LoadAhead("hub", hub.board, hub.model.levels, wanted=lambda: None, tidy=tidy, loaded=loaded)
        tidier.may_be_untidy()
        running = asyncio.create_task(tidier.run())
        try:
            await until(lambda: tried == 3, "three tries")
        finally:
            running.cancel()
            await asyncio.wait([running])


async def test_what_failed_is_no_longer_shown_once_it_is_not_wanted(tmp_path: Path) -> None:
    async with shelf(tmp_path, warm={"level": "data"}) as hub:
        hub.model.levels.first = lambda: "metadata"
        hub.disk.reading_failure = AWAY
        async with hub.running():
            await linked(hub)
            await until(lambda: bool(hub.status.loading and hub.status.loading.waits_for), "the cause to be shown")
            warm = hub.model.settings.warm.model_copy(update={"level": "metadata"})
            hub.model.reconfigure(hub.model.settings.model_copy(update={"warm": warm}), hub.disk)
            hub.board.set_mount("storage", replace(MOUNT, pid=7))  # as a reload, it wakes what waits
            await until(lambda: hub.status.loading is None, "it to be forgotten")


async def test_what_an_operation_loads_is_its_own_news(tmp_path: Path) -> None:
    async with shelf(tmp_path, warm={"level": "data"}) as hub, hub.running():
        await linked(hub)
        assert hub.status.loads.done == 1, "of the start-up"
        before = hub.status.loads
        assert await warmed(hub, "v23") == ("done", 0)
        assert (await hub.switch("v24")).result == "committed"
        assert hub.status.loads == before


async def test_what_an_operation_loads_of_the_live_version_is_its_level(tmp_path: Path) -> None:
    async with shelf(tmp_path) as hub, hub.running():
        await linked(hub)
        assert (hub.status.level, await warmed(hub, "v22", "data"), hub.status.level) == (
            "metadata",
            ("done", 0),
            "data",
        )
        assert await warmed(hub, "v23", "data") == ("done", 0)
        assert (hub.status.current, hub.status.level) == ("v22", "data")


async def test_a_switch_loads_all_before_it_stops_anything(tmp_path: Path) -> None:
    async with shelf(tmp_path, apps=["webui"], warm={"level": "data"}, watch={"for": "0s"}) as hub, hub.running():
        await linked(hub)
        hub.disk.read.clear()
        hub.disk.reading_gate.clear()
        asked = await hub.operations.switch(None, "v23", TINA)
        await until(lambda: hub.step == "warm", "the data to be loaded")
        assert hub.apps["webui"].calls == []
        hub.disk.reading_gate.set()
        assert asked.record is not None
        outcome = await hub.operations.outcome(asked.record)
        assert outcome is not None
        assert (outcome.result, hub.disk.read, hub.status.level) == ("committed", ["gpt.pth"], "data")


async def test_wrong_bytes_are_fetched_again_and_refused_when_the_bucket_has_them(tmp_path: Path) -> None:
    async with shelf(tmp_path) as hub, hub.running():
        await linked(hub)
        hub.disk.faults = [(WRONG,)]
        assert await warmed(hub, "v23", "data") == ("done", 0)
        assert hub.disk.restored == ["gpt.pth"]
        hub.disk.faults = [(WRONG,), (WRONG,)]
        assert await warmed(hub, "v24", "data") == ("refused", 7)


async def test_a_version_without_digests_cannot_be_pinned(tmp_path: Path) -> None:
    async with shelf(tmp_path) as hub, hub.running():
        await linked(hub)
        assert await warmed(hub, "v23", "pin") == ("refused", 7)


async def test_a_switch_takes_over_from_a_warm_and_nothing_else_waits_for_one(tmp_path: Path) -> None:
    async with shelf(tmp_path) as hub, hub.running():
        await linked(hub)
        hub.disk.reading_gate.clear()
        record = await hub.operations.warm(None, "v23", "data", TINA)
        await until(lambda: hub.step == "warm", "the warm to begin")
        busy = hub.board.snapshot.operations
        assert [each.only_loads for each in busy] == [True]
        assert (await hub.switch("v23")).result == "committed"
        ended = await hub.operations.results.operation(record.id)
        assert ended is not None
        assert ended.result == "cancelled"


async def test_the_same_warm_is_not_begun_twice(tmp_path: Path) -> None:
    async with shelf(tmp_path) as hub, hub.running():
        await linked(hub)
        hub.disk.reading_gate.clear()
        record = await hub.operations.warm(None, "v23", "data", TINA)
        await until(lambda: hub.step == "warm", "the warm to begin")
        assert (await hub.operations.warm(None, "v23", "data", TINA)).id == record.id
        for other in (("v24", "data"), ("v23", "pin")):
            with pytest.raises(Busy):
                await hub.operations.warm(None, *other, TINA)


async def test_a_warm_that_is_cancelled(tmp_path: Path) -> None:
    async with shelf(tmp_path) as hub, hub.running():
        await linked(hub)
        hub.disk.reading_gate.clear()
        record = await hub.operations.warm(None, "v23", "data", TINA)
        await until(lambda: hub.step == "warm", "the warm to begin")
        assert hub.operations.cancel(None, "tina").id == record.id
        await hub.operations.outcome(record)
        ended = await hub.operations.results.operation(record.id)
        assert ended is not None
        assert (ended.result, hub.status.current) == ("cancelled", "v22")


async def test_a_warm_that_a_stop_of_mountd_cuts_off_is_interrupted(tmp_path: Path) -> None:
    async with shelf(tmp_path) as hub:
        async with hub.running():
            await linked(hub)
            hub.disk.reading_gate.clear()
            record = await hub.operations.warm(None, "v23", "data", TINA)
            await until(lambda: hub.step == "warm", "the warm to begin")
        ended = await hub.journal.operation(record.id)
        assert ended is not None
        assert (ended.result, ended.exit_code) == ("interrupted", 1)
        steps = [(each.step, each.outcome) for each in await hub.journal.steps(record.id)]
        assert steps == [("preflight", "done"), ("warm", "interrupted")]


async def test_a_warm_that_fails_says_in_which_step_and_why(tmp_path: Path) -> None:
    async with shelf(tmp_path) as hub, hub.running():
        await linked(hub)
        hub.disk.reading_failure = AWAY
        assert await warmed(hub, "v23", "data") == ("failed", 1)
        hub.disk.missing.add("hub_v24")
        assert await warmed(hub, "v24", "data") == ("refused", 3)
        refused, failed = await hub.journal.history(limit=2)
        assert AWAY.text in failed.cause
        steps = [[(each.step, each.outcome) for each in await hub.journal.steps(of.id)] for of in (failed, refused)]
        assert steps == [[("preflight", "done"), ("warm", "failed")], [("preflight", "failed")]]
