"""Switches, rollbacks and other operations as they are asked for: what is meant, refused, restarted and reported."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mountd.errors import BadVersionName, Busy, MountdError, NotFound, Refused, Unavailable, UsageError
from mountd.journal.journal import OperationRecord
from mountd.model import manifest
from mountd.model.changes import holding
from mountd.operation.desired import Request
from mountd.operation.plan import SwitchPlan
from mountd.operation.runner import OperationOutcome
from mountd.operation.running import Running
from mountd.operation.steps import preflight
from mountd.settings.schema import AppSettings
from mountd.status.snapshot import AppStatus, State
from tests.support.bucket_disk import BucketDisk
from tests.support.shelf import TINA, Shelf, shelf, until

DRY = replace(TINA, dry_run=True)


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[Shelf]:
    """v22 is live, and two apps need it."""
    async with shelf(tmp_path, apps=["webui", "batch"], watch={"for": "0s"}) as hub, hub.running():
        await until(lambda: hub.status.linked, "v22 to be linked")
        yield hub


async def exclusive(hub: Shelf, work: Sequence[object]) -> OperationRecord:
    """An operation that waits for the first of `work`, then returns or raises the second."""

    async def carried_out(_: OperationRecord) -> OperationOutcome:
        event, result = work
        assert isinstance(event, asyncio.Event)
        await event.wait()
        if isinstance(result, Exception):
            raise result
        assert isinstance(result, OperationOutcome)
        return result

    return await hub.operations.begin_exclusive(
        kind="drill", target="storage", wanted="kill", request=Request("tina", "cli", "why"), step="fault",
        work=carried_out,
    )  # fmt: skip


# -- what is meant ----------------------------------------------------------------------------------------------------


async def test_which_model_is_meant(live: Shelf) -> None:
    assert live.operations.model(None) is live.operations.model("hub") is live.model
    with pytest.raises(NotFound):
        live.operations.model("voices")
    live.models["voices"] = live.model
    with pytest.raises(UsageError):
        live.operations.model(None)
    live.models.clear()
    with pytest.raises(NotFound):
        live.operations.model(None)


async def test_a_rollback_leads_to_what_was_live_before_and_needs_that(live: Shelf) -> None:
    with pytest.raises(NotFound):
        await live.operations.rollback(None, TINA)
    await live.switch("v23")
    asked = await live.operations.rollback(None, TINA)
    assert asked.record is not None
    await live.operations.outcome(asked.record)
    ended = await live.journal.operation(asked.record.id)
    assert ended is not None
    assert (ended.kind, ended.from_version, ended.to_version, ended.result) == ("rollback", "v23", "v22", "committed")
    assert (live.target, live.model.committed.previous) == ("hub_v22", "v23")


@pytest.mark.parametrize("version", ["latest", "../v23", "", "v" * 65])
async def test_what_can_be_no_version_is_asked_for_in_vain(live: Shelf, version: str) -> None:
    with pytest.raises(BadVersionName):
        await live.operations.switch(None, version, DRY)


async def test_a_plan_names_what_is_restarted_and_for_how_long(live: Shelf) -> None:
    after_crashes = {"command": ["x"], "needs": ["hub"], "restart": {"after": ["crash", "remount"]}}
    live.apps["batch"].settings = AppSettings.model_validate(after_crashes)
    live.apps["webui"].stop_limit_s, live.apps["webui"].ready_limit_s = 2.0, 3.0
    plan = (await live.operations.switch(None, "v23", replace(DRY, force=True))).plan
    assert [(app.name, app.stop_s, app.ready_s) for app in plan.apps] == [("webui", 2.0, 3.0)]
    assert [app.check_s for app in plan.apps] == [0.0]
    assert (plan.kind, plan.model, plan.from_version, plan.to_version) == ("switch", "hub", "v22", "v23")
    assert (plan.link, plan.target) == (str(live.link), "/mnt/hub_v23")
    assert (plan.force, plan.digests, plan.is_live, plan.watch_s, plan.crashes) == (
        *(True, False, False),
        *(0.0, live.model.settings.watch.crashes),
    )
    live.apps["webui"].settings = AppSettings.model_validate({"command": ["x"], "needs": ["storage"]})
    assert (await live.operations.switch(None, "v23", DRY)).plan.apps == ()
    checked = {"command": ["x"], "needs": ["hub"], "preflight": {"gpu_memory": "8G", "timeout": "100s"}}
    live.apps["webui"].settings = AppSettings.model_validate(checked)
    (app,) = (await live.operations.switch(None, "v23", DRY)).plan.apps
    assert app.check_s > 100


async def test_a_dry_run_sees_what_would_refuse_it_and_begins_nothing(live: Shelf) -> None:
    live.disk.missing.add("hub_v24")
    with pytest.raises(NotFound):
        await live.operations.switch(None, "v24", DRY)
    assert (await live.operations.switch(None, "v23", DRY)).record is None
    with pytest.raises(Refused):  # there is no manifest to compare with
        await live.operations.switch(None, "v23", replace(DRY, digests=True))
    live.disk.missing.add("hub_v22")
    assert (await live.operations.switch(None, "v22", DRY)).plan.is_live
    assert (await live.journal.history(limit=5), live.target) == ([], "hub_v22")


# -- cancelling -------------------------------------------------------------------------------------------------------


async def test_what_cannot_be_cancelled(live: Shelf) -> None:
    with pytest.raises(NotFound):
        live.operations.cancel(None, "tina")
    may_end = asyncio.Event()
    begun = await exclusive(live, (may_end, OperationOutcome("passed")))
    for name in (None, "hub"):
        with pytest.raises(Refused):
            live.operations.cancel(name, "tina")
    may_end.set()
    assert await live.operations.outcome(begun) == OperationOutcome("passed")
    with pytest.raises(NotFound):
        live.operations.cancel("hub", "tina")


async def test_of_several_operations_the_one_that_is_meant_must_be_named(live: Shelf) -> None:
    running = [Running("switch", name, "v23", "tina", model=name) for name in ("hub", "voices")]
    live.operations._running += running
    with pytest.raises(UsageError) as unclear:
        live.operations.cancel(None, "tina")
    assert [name in unclear.value.text for name in ("hub", "voices", "--model")] == [True] * 3
    with pytest.raises(Busy):  # it is meant, and just being begun
        live.operations.cancel("hub", "tina")
    live.operations._running.clear()


async def test_a_level_that_there_is_not_is_refused(live: Shelf) -> None:
    with pytest.raises(UsageError) as refused:
        await live.operations.warm(None, "v23", "fast", TINA)
    assert refused.value.hint == "levels: metadata, data, pin"
    assert live.operations._running == []


async def test_cancelled_before_it_has_changed_anything_it_is_just_that(live: Shelf) -> None:
    live.disk.gate.clear()
    begun = await live.operations.switch(None, "v23", TINA)
    live.operations.cancel("hub", "alice")
    live.operations.cancel("hub", "bob")
    assert begun.record is not None
    outcome = await live.operations.outcome(begun.record)
    assert outcome is not None
    assert (outcome.result, outcome.retryable) == ("cancelled", False)
    assert outcome.failure is not None
    assert "alice" in outcome.failure.text
    assert [app.calls for app in live.apps.values()] == [[], []]


async def test_stopped_before_it_has_changed_anything_it_is_interrupted(tmp_path: Path) -> None:
    async with shelf(tmp_path) as hub:
        async with hub.running():
            await until(lambda: hub.status.linked, "v22 to be linked")
            hub.disk.gate.clear()
            begun = await hub.operations.switch(None, "v23", TINA)
            await until(hub.disk.waits.is_set, "its preflight")
        assert begun.record is not None
        ended = await hub.journal.operation(begun.record.id)
        assert ended is not None
        assert (ended.result, ended.exit_code, hub.target) == ("interrupted", 1, "hub_v22")
        assert [each.outcome for each in await hub.journal.steps(ended.id)] == ["interrupted"]


# -- how it ends ------------------------------------------------------------------------------------------------------


async def test_what_the_journal_says_of_an_operation_that_failed(live: Shelf) -> None:
    may_end = asyncio.Event()
    may_end.set()
    failed = OperationOutcome("failed", MountdError("the drill has not passed", hint="see the logs"))
    begun = await exclusive(live, (may_end, failed))
    assert await live.operations.outcome(begun) == failed
    ended = await live.journal.operation(begun.id)
    assert ended is not None
    assert (ended.kind, ended.model, ended.to_version, ended.from_version) == ("drill", "storage", "kill", None)
    assert (ended.operator, ended.source, ended.reason) == ("tina", "cli", "why")
    assert (ended.result, ended.cause, ended.hint, ended.exit_code) == (
        *("failed", "the drill has not passed", "see the logs", 1),
    )
    assert ended.duration_s is not None
    assert await live.operations.outcome(begun) is None, "it is over"
    assert live.board.snapshot.operations == ()


async def test_what_the_machine_lacks_is_a_failure_and_no_bug(live: Shelf) -> None:
    may_end = asyncio.Event()
    begun = await exclusive(live, (may_end, OSError(errno.EMFILE, "Too many open files")))
    may_end.set()
    outcome = await asyncio.wait_for(live.operations.outcome(begun), 60)
    assert outcome is not None
    assert outcome.result == "failed"
    assert (await live.switch("v23")).result == "committed"


async def test_who_waits_gets_the_operation_once_it_has_moved_on(live: Shelf) -> None:
    with pytest.raises(NotFound):
        await live.operations.wait(99, seen_step="", timeout_s=0)
    may_end = asyncio.Event()
    begun = await exclusive(live, (may_end, OperationOutcome("passed")))
    assert (await live.operations.wait(begun.id, seen_step="fault", timeout_s=0.01)).step == "fault"
    waiting = asyncio.create_task(live.operations.wait(begun.id, seen_step="fault", timeout_s=60))
    await live.operations.show_step(begun, "recover")
    moved = await asyncio.wait_for(waiting, 60)
    assert (moved.step, moved.finished) == ("recover", None)
    may_end.set()
    ended = await live.operations.wait(begun.id, seen_step="recover", timeout_s=60)
    assert (ended.step, ended.result) == ("recover", "passed")


async def test_a_reload_waits_until_nothing_runs(live: Shelf) -> None:
    may_end, entered = asyncio.Event(), asyncio.Event()

    async def reload() -> None:
        async with live.operations.quiet():
            entered.set()

    begun = await exclusive(live, (may_end, OperationOutcome("passed")))
    reloading = asyncio.create_task(reload())
    await asyncio.sleep(0.01)
    assert not entered.is_set()
    may_end.set()
    await live.operations.outcome(begun)
    await asyncio.wait_for(reloading, 60)
    live.operations.check_may_begin()


# -- preflight --------------------------------------------------------------------------------------------------------


def version_of(version: str, *, manifested: bool) -> dict[str, bytes]:
    """In the bucket; 5 bytes, and the manifest."""
    below, files = f"hub_{version}/", [("gpt.pth", 5, "0" * 64)]
    data = manifest.render(version, files, created="", tool="")
    return {f"{below}gpt.pth": b"12345"} | ({f"{below}{manifest.NAME}": data} if manifested else {})


class RoomyDisk(BucketDisk):
    """`room`: how many bytes its cache could hold."""

    room: int | Unavailable | None = None

    async def cache_could_hold(self) -> int | None:
        if isinstance(self.room, Unavailable):
            raise self.room
        return self.room


async def checked(hub: Shelf, *, force: bool = False) -> bool:
    """Whether v23 passes the preflight of a switch."""
    plan = SwitchPlan("switch", "hub", "v22", "v23", str(hub.link), "/mnt/hub_v23", force=force)
    try:
        await preflight(hub.model, hub.journal, plan, hub.board.snapshot)
    except Refused:
        return False
    return True


@pytest.mark.parametrize(
    ("room", "fits"), [(None, True), (5, True), (4, False), (Unavailable("the disk does not answer"), True)]
)
async def test_a_version_must_find_room(tmp_path: Path, room: int | Unavailable | None, fits: bool) -> None:
    async with shelf(tmp_path) as hub:
        disk = RoomyDisk(version_of("v23", manifested=False))
        disk.room = room
        hub.model.versions.disk = disk
        assert await checked(hub) is fits
        assert await checked(hub, force=True) is fits


async def test_a_version_that_is_pinned_needs_no_room_in_the_cache(tmp_path: Path) -> None:
    async with shelf(tmp_path) as hub:
        disk = RoomyDisk(version_of("v23", manifested=True))
        disk.room = 0
        hub.model.versions.disk = disk
        for level, fits in (("pin", True), ("data", False)):
            plan = SwitchPlan("switch", "hub", "v22", "v23", str(hub.link), "/mnt/hub_v23", level=level)
            with contextlib.nullcontext() if fits else pytest.raises(Refused):
                await preflight(hub.model, hub.journal, plan, hub.board.snapshot)


async def test_what_was_live_must_not_have_changed_unless_it_is_forced(tmp_path: Path) -> None:
    async with shelf(tmp_path) as hub:
        disk = hub.model.versions.disk = BucketDisk(version_of("v23", manifested=False))
        await hub.model.state.commit(await hub.model.versions.inspect("v23"))
        assert await checked(hub)
        disk.bucket["hub_v23/gpt.pth"] = b"123456"
        assert not await checked(hub)
        assert await checked(hub, force=True)


@pytest.mark.parametrize(
    ("live", "new", "was_live", "fits"),
    [
        (True, True, False, True),
        (True, False, False, False),  # its upload may never have finished
        (True, False, True, True),
        (False, False, False, True),
    ],
)
async def test_after_a_version_with_a_manifest_comes_one_with_a_manifest(
    tmp_path: Path, live: bool, new: bool, was_live: bool, fits: bool
) -> None:
    async with shelf(tmp_path) as hub:
        hub.model.versions.disk = BucketDisk(version_of("v22", manifested=live) | version_of("v23", manifested=new))
        async with hub.running():
            await until(lambda: hub.status.linked, "v22 to be linked")
            if was_live:
                content = await hub.model.versions.inspect("v23")
                await hub.journal.record_content(holding("hub", content))
            assert await checked(hub) is fits
            assert await checked(hub, force=True)


async def test_a_forced_switch_asks_the_store_for_no_file(tmp_path: Path) -> None:
    async with shelf(tmp_path) as hub:
        disk = hub.model.versions.disk = BucketDisk(version_of("v23", manifested=True))
        await checked(hub, force=True)
        assert disk.asked == []
        await checked(hub)
        assert disk.asked == ["hub_v23/gpt.pth"]


# -- apps that a person has stopped -----------------------------------------------------------------------------------


async def test_an_app_that_a_person_has_stopped_stays_stopped_and_no_gate_is_asked(tmp_path: Path) -> None:
    keys: dict[str, Any] = {"apps": ["webui", "batch"], "watch": {"for": "0s"}, "gates": [{"command": ["false"]}]}
    async with shelf(tmp_path, **keys) as hub, hub.running():
        await until(lambda: hub.status.linked, "v22 to be linked")
        hub.board.set_app("webui", AppStatus(needs=("hub",), state=State.STOPPED, stopped="alice: training"))
        plan = (await hub.operations.switch(None, "v23", DRY)).plan
        assert ([app.name for app in plan.apps], plan.gates, plan.stopped) == (["batch"], (), ("webui",))
        assert (await hub.switch("v23")).result == "committed"
        assert (hub.apps["webui"].calls, hub.target) == ([], "hub_v23")
        assert "begin hub_v23" in hub.apps["batch"].calls
        assert hub.board.snapshot.apps["webui"].stopped == "alice: training"
