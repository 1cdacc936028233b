"""A switch with apps that need no process: the order of what it does, how it undoes that, and whom it blames."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mountd.errors import CannotStart, JournalError, Refused, RemoteError
from mountd.model import committed, manifest
from mountd.operation import runner
from mountd.operation.plan import Step, Undo
from mountd.status.snapshot import Health, RemoteStatus, State
from tests.support.bucket_disk import BucketDisk
from tests.support.fake_app import FakeApp
from tests.support.shelf import MOUNT, TINA, Shelf, shelf, until

FORWARD = ["stop", "begin hub_v23"]
BACK = ["stop", "begin hub_v22"]
CRASHED = CannotStart("webui exited with code 1", code="app-exited")
NO_PORT = CannotStart("its port is taken", code="port-taken")
MANIFEST = manifest.render("v23", [("a", 1, "0" * 64)], created="", tool="")


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Shelf]:
    """v22 is live, and webui runs with it."""
    async with shelf(tmp_path, apps=["webui"], watch={"for": "0s"}) as found, found.running():
        await until(lambda: found.status.linked, "v22 to be linked")
        yield found


@pytest.fixture
def webui(hub: Shelf) -> FakeApp:
    return hub.apps["webui"]


async def quarantined(hub: Shelf) -> list[str]:
    return [each.version for each in (await hub.journal.quarantined("hub")).values()]


async def steps(hub: Shelf, id_: int) -> list[tuple[str, str | None]]:
    return [(each.step, each.outcome) for each in await hub.journal.steps(id_)]


async def test_an_app_is_stopped_before_the_flip_and_started_after_it(hub: Shelf, webui: FakeApp) -> None:
    ended = await hub.switch("v23")
    assert (ended.result, hub.target, webui.calls, webui.is_held) == ("committed", "hub_v23", FORWARD, False)
    assert (hub.model.committed.current, hub.model.committed.previous) == ("v23", "v22")
    assert await steps(hub, ended.id) == [(str(step), "done") for step in Step if step not in (Step.GATES, Step.WATCH)]


async def test_it_is_held_from_its_stop_on(hub: Shelf, webui: FakeApp) -> None:
    webui.gate.clear()
    begun = await hub.operations.switch(None, "v23", TINA)
    await until(lambda: webui.calls == FORWARD, "the new version to start")
    assert webui.is_held
    assert hub.status.desired == "v23"
    webui.gate.set()
    assert begun.record is not None
    await hub.operations.outcome(begun.record)
    assert not webui.is_held


@pytest.mark.parametrize(("failure", "blamed"), [(CRASHED, ["v23"]), (NO_PORT, [])])
async def test_an_app_that_fails_brings_the_previous_version_back(
    hub: Shelf, webui: FakeApp, failure: CannotStart, blamed: list[str]
) -> None:
    webui.bad["hub_v23"] = failure
    ended = await hub.switch("v23")
    assert (ended.result, ended.exit_code, hub.target) == ("rolled-back", 5, "hub_v22")
    assert webui.calls == [*FORWARD, *BACK]
    assert await steps(hub, ended.id) == [
        *((step, "done") for step in ("preflight", "warm", "verify", "stop", "flip", "start")),
        *(("ready", "failed"), ("stop-new", "done"), ("flip-back", "done"), ("start-old", "done")),
    ]
    assert hub.status.desired == "v22", "nothing of a failed switch is remembered"
    assert await quarantined(hub) == blamed


async def test_a_broken_cache_refuses_a_switch_unless_the_mount_does_without_it(hub: Shelf, webui: FakeApp) -> None:
    hub.board.set_mount("storage", replace(MOUNT, cache_broken=True))
    ended = await hub.switch("v23")
    assert (ended.result, ended.exit_code, webui.calls, hub.target) == ("refused", Refused.exit_code, [], "hub_v22")
    hub.board.set_mount("storage", replace(MOUNT, cache_broken=True, cache_bypassed=True))
    assert (await hub.switch("v23")).result == "committed"


async def test_where_nothing_was_live_nothing_is_after_a_switch_that_fails(tmp_path: Path) -> None:
    async with shelf(tmp_path, live="", version="v99", apps=["webui"], watch={"for": "0s"}) as hub:
        hub.disk.missing.add("hub_v99")
        hub.apps["webui"].bad["hub_v23"] = CRASHED

        def waits() -> bool:
            return hub.status.reason is not None and hub.status.reason.code == "waiting-for-content"

        async with hub.running():
            await until(waits, "the model to wait for v99")
            assert (await hub.switch("v23")).result == "rolled-back"
            await until(waits, "the model to wait for v99 again")
            assert (hub.link.is_symlink(), hub.model.committed.current, hub.status.desired) == (False, None, "v99")


async def test_when_the_previous_version_fails_as_well_the_machine_is_to_blame(hub: Shelf, webui: FakeApp) -> None:
    webui.bad = {"hub_v22": CRASHED, "hub_v23": CRASHED}
    ended = await hub.switch("v23")
    assert (ended.result, ended.exit_code, hub.target) == ("failed", 1, "hub_v22")
    assert webui.calls == [*FORWARD, *BACK, "want"], "its supervisor goes on"
    assert await quarantined(hub) == []


@pytest.mark.parametrize(("hint", "shown"), [("its own", "its own"), ("", "of the first")])
async def test_an_undo_that_fails_says_what_to_do(hub: Shelf, webui: FakeApp, hint: str, shown: str) -> None:
    webui.bad = {"hub_v23": CannotStart("no port", hint="of the first"), "hub_v22": CannotStart("no user", hint=hint)}
    assert (await hub.switch("v23")).hint == shown


async def test_a_journal_that_cannot_be_written_stops_no_undo(
    hub: Shelf, webui: FakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    webui.bad["hub_v23"] = CRASHED
    begin_step = hub.journal.begin_step

    async def full(id_: int, step: str) -> None:
        if step in list(Undo):
            raise JournalError("the disk is full")
        await begin_step(id_, step)

    monkeypatch.setattr(hub.journal, "begin_step", full)
    ended = await hub.switch("v23")
    assert (ended.result, hub.target, webui.calls) == ("rolled-back", "hub_v22", [*FORWARD, *BACK])


async def test_an_app_that_cannot_be_stopped_finds_the_previous_version(hub: Shelf, webui: FakeApp) -> None:
    webui.bad["hub_v23"] = CRASHED
    webui.gate.clear()
    begun = await hub.operations.switch(None, "v23", TINA)
    await until(lambda: webui.calls == FORWARD, "the new version to start")
    webui.stuck = CannotStart("it hangs in the kernel", code="app-stuck")
    webui.gate.set()
    assert begun.record is not None
    outcome = await hub.operations.outcome(begun.record)
    assert outcome is not None
    assert (outcome.result, hub.target) == ("failed", "hub_v22")
    assert [outcome for step, outcome in await steps(hub, begun.record.id) if step == "stop-new"] == ["failed"]


async def test_cancelled_it_is_undone_and_nobody_is_blamed(hub: Shelf, webui: FakeApp) -> None:
    webui.gate.clear()
    begun = await hub.operations.switch(None, "v23", TINA)
    await until(lambda: hub.step == "ready", "the new version to start")
    hub.operations.cancel(None, "alice")
    webui.gate.set()
    assert begun.record is not None
    outcome = await hub.operations.outcome(begun.record)
    assert outcome is not None
    assert (outcome.result, outcome.retryable, hub.target) == ("rolled-back", False, "hub_v22")
    assert webui.calls == [*FORWARD, *BACK]
    assert ("ready", "cancelled") in await steps(hub, begun.record.id)
    assert await quarantined(hub) == []


async def test_a_commit_is_too_late_to_be_cancelled(hub: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    reached, may_commit = asyncio.Event(), asyncio.Event()
    commit = hub.journal.commit

    async def slow(*given: object, **named: object) -> None:
        reached.set()
        await may_commit.wait()
        await commit(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(hub.journal, "commit", slow)
    begun = await hub.operations.switch(None, "v23", TINA)
    await asyncio.wait_for(reached.wait(), 60)
    with pytest.raises(Refused):
        hub.operations.cancel(None, "alice")
    may_commit.set()
    assert begun.record is not None
    outcome = await hub.operations.outcome(begun.record)
    assert outcome is not None
    assert outcome.result == "committed"


async def test_when_mountd_stops_the_link_is_at_what_is_committed(tmp_path: Path) -> None:
    async with shelf(tmp_path, apps=["webui"]) as hub:
        webui = hub.apps["webui"]
        async with hub.running():
            await until(lambda: hub.status.linked, "v22 to be linked")
            webui.gate.clear()
            begun = await hub.operations.switch(None, "v23", TINA)
            await until(lambda: webui.calls == FORWARD, "the new version to start")
            assert hub.target == "hub_v23"
        assert begun.record is not None
        ended = await hub.journal.operation(begun.record.id)
        assert ended is not None
        assert (ended.result, hub.target) == ("rolled-back", "hub_v22")
        assert webui.calls == FORWARD, "apps are stopped by mountd itself"


async def test_a_cancel_while_it_is_undone_changes_nothing(hub: Shelf, webui: FakeApp) -> None:
    webui.bad["hub_v23"] = NO_PORT
    webui.gate.clear()
    begun = await hub.operations.switch(None, "v23", TINA)
    await until(lambda: webui.waits == 1, "the new version to start")
    assert hub.step == "ready"
    webui.gate.set()
    webui.gate.clear()  # for the version that comes back
    await until(lambda: webui.calls[: len(FORWARD) + 1] == [*FORWARD, *BACK[:1]], "the undo")
    hub.operations.cancel(None, "alice")
    webui.gate.set()
    assert begun.record is not None
    outcome = await hub.operations.outcome(begun.record)
    assert outcome is not None
    assert (outcome.result, outcome.retryable, hub.target) == ("rolled-back", True, "hub_v22")
    assert ("ready", "failed") in await steps(hub, begun.record.id)


async def test_why_it_failed_is_in_the_journal_before_it_is_undone(hub: Shelf, webui: FakeApp) -> None:
    webui.bad["hub_v23"] = NO_PORT
    begun = await hub.operations.switch(None, "v23", TINA)
    await until(lambda: webui.calls[2:] == BACK[:1], "the undo")
    assert begun.record is not None
    unfinished = await hub.journal.operation(begun.record.id)
    assert unfinished is not None
    assert NO_PORT.text in unfinished.cause
    await hub.operations.outcome(begun.record)


@pytest.mark.parametrize(
    ("changes", "result", "exit_code", "retryable"),
    [({"state": State.CLEANING}, "failed", 1, True), ({"cache_broken": True}, "refused", 7, False)],
)
async def test_what_fails_before_anything_is_changed(
    hub: Shelf, webui: FakeApp, changes: dict[str, Any], result: str, exit_code: int, retryable: bool
) -> None:
    begun = await hub.operations.switch(None, "v23", TINA)
    hub.board.set_mount("storage", replace(MOUNT, **changes))
    assert begun.record is not None
    outcome = await hub.operations.outcome(begun.record)
    assert outcome is not None
    assert outcome.failure is not None
    assert (outcome.result, outcome.failure.exit_code, outcome.retryable) == (result, exit_code, retryable)
    assert (webui.calls, await steps(hub, begun.record.id)) == ([], [("preflight", "failed")])


async def test_a_version_whose_files_the_mount_does_not_show_is_to_blame(hub: Shelf, webui: FakeApp) -> None:
    disk = BucketDisk({"hub_v23/a": b"1", f"hub_v23/{manifest.NAME}": MANIFEST})
    disk.shown["hub_v23/a"] = None
    hub.model.versions.disk = disk
    ended = await hub.switch("v23")
    assert (ended.result, ended.exit_code, ended.step, webui.calls) == ("refused", 7, "verify", [])
    assert "--force" in ended.hint
    assert await quarantined(hub) == ["v23"]
    assert (await hub.switch("v23")).step == "preflight", "it is refused at once"


async def crashed_when(hub: Shelf, webui: FakeApp, happens: Callable[[], None]) -> tuple[str, bool]:
    """The result of a switch whose app crashes in v23, and whether the same may succeed later; `happens` before."""
    webui.bad["hub_v23"] = CRASHED
    webui.gate.clear()
    begun = await hub.operations.switch(None, "v23", TINA)
    await until(lambda: hub.step == "ready", "the new version to start")
    happens()
    for _ in range(10):
        await asyncio.sleep(0)
    hub.board.set_mount("storage", MOUNT)
    webui.gate.set()
    assert begun.record is not None
    outcome = await hub.operations.outcome(begun.record)
    assert outcome is not None
    return outcome.result, outcome.retryable


@pytest.mark.parametrize(
    "changes",
    [{"restarts": 1}, {"state": State.CLEANING}, {"backend": RemoteStatus(Health.DEGRADED)}],
    ids=["replaced", "down", "bucket away"],
)
async def test_no_version_is_blamed_when_its_mount_or_bucket_was_not_well_for_a_moment(
    hub: Shelf, webui: FakeApp, changes: dict[str, Any]
) -> None:
    ended = await crashed_when(hub, webui, lambda: hub.board.set_mount("storage", replace(MOUNT, **changes)))
    assert ended == ("rolled-back", True)
    assert await quarantined(hub) == []


@pytest.mark.parametrize("is_silent", [True, False])
async def test_no_version_is_blamed_while_the_bucket_does_not_answer(
    hub: Shelf, webui: FakeApp, monkeypatch: pytest.MonkeyPatch, is_silent: bool
) -> None:
    monkeypatch.setattr(runner, "BUCKET_LIMIT_S", 0.05 if is_silent else 60.0)

    def away() -> None:
        if is_silent:
            hub.disk.gate.clear()
        else:
            hub.disk.failure = RemoteError("the store does not answer", code="bucket-unreachable")

    assert await crashed_when(hub, webui, away) == ("rolled-back", True)
    assert await quarantined(hub) == []
    hub.disk.gate.set()
    hub.disk.failure = None
    monkeypatch.setattr(runner, "BUCKET_LIMIT_S", 60.0)
    assert await crashed_when(hub, webui, lambda: None) == ("rolled-back", False)
    assert await quarantined(hub) == ["v23"]


async def test_a_quarantine_that_cannot_be_written_is_none(
    hub: Shelf, webui: FakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise JournalError("cannot write the journal: it is full")

    webui.bad["hub_v23"] = CRASHED
    with monkeypatch.context() as full:
        full.setattr(hub.journal, "quarantine", fail)
        ended = await hub.switch("v23")
    assert (ended.result, await quarantined(hub)) == ("rolled-back", [])
    assert "--force" not in ended.hint
    assert "--force" in (await hub.switch("v23")).hint, "as it says of a version that is refused"


async def test_only_a_version_that_was_not_forced_is_acquitted_and_only_by_the_previous_one(
    hub: Shelf, webui: FakeApp
) -> None:
    webui.bad = {"hub_v22": CRASHED, "hub_v23": CRASHED}
    await hub.switch("v23", replace(TINA, force=True))
    assert await quarantined(hub) == ["v23"], "it may have stood there before"
    webui.bad = {"hub_v22": NO_PORT, "hub_v24": CRASHED}
    hub.disk.sizes["hub_v24"] = 24
    await hub.switch("v24")
    assert sorted(await quarantined(hub)) == ["v23", "v24"], "a port says nothing about a version"


@pytest.mark.parametrize("reached", [True, False])
async def test_a_commit_that_fails_is_taken_back_though_it_may_have_reached_the_disk(
    hub: Shelf, webui: FakeApp, reached: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = hub.journal.commit
    fails = [True]

    async def failing(*given: Any, **named: Any) -> None:
        if not fails or reached:
            await commit(*given, **named)
        if fails:
            fails.clear()
            raise JournalError("the disk is full")

    monkeypatch.setattr(hub.journal, "commit", failing)
    ended = await hub.switch("v23")
    assert (ended.result, ended.exit_code, hub.target) == ("rolled-back", 5, "hub_v22")
    assert webui.calls == [*FORWARD, *BACK]
    assert (await hub.journal.committed("hub")).current == "v22"
    assert ("commit", "failed") in await steps(hub, ended.id)


@pytest.mark.parametrize(
    ("reached", "result", "target"), [(True, "committed", "hub_v23"), (False, "rolled-back", "hub_v22")]
)
async def test_stopped_in_its_commit_it_is_what_the_journal_says(
    tmp_path: Path, reached: bool, result: str, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committed, "DISK_LIMIT_S", 0.02)
    async with shelf(tmp_path) as hub:
        commit = hub.journal.commit
        begun = asyncio.Event()

        async def slow(*given: Any, **named: Any) -> None:
            if reached:
                await commit(*given, **named)
            begun.set()
            await asyncio.sleep(3600)

        async with hub.running():
            await until(lambda: hub.status.linked, "v22 to be linked")
            monkeypatch.setattr(hub.journal, "commit", slow)
            asked = await hub.operations.switch(None, "v23", TINA)
            await asyncio.wait_for(begun.wait(), 60)
        assert asked.record is not None
        ended = await hub.journal.operation(asked.record.id)
        assert ended is not None
        assert (ended.result, hub.target) == (result, target)
