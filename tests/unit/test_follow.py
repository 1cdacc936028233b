"""A source outside says which version is wanted: it is followed, failures wait, and a person may hold another one."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mountd import clock
from mountd.errors import Refused, Unavailable
from mountd.gitops.wanted import NO_VERSION, UNREACHABLE
from mountd.journal.journal import Committed
from mountd.operation import desired, follow, plan
from mountd.operation.desired import Request
from mountd.operation.window import SyncWindows, check_by_hand
from mountd.settings.sync import DesiredSettings, zone
from mountd.status import readiness
from mountd.status.snapshot import Health, Sync
from tests.support.shelf import TINA, Shelf, shelf, until
from tests.support.tasks import tasks_of

zone("UTC")  # read from disk as when a configuration is loaded, in no event loop
AWAY = Unavailable("cannot read it: the server cannot be reached", hint="wait", code=UNREACHABLE)
GIT = {"git": {"url": "https://git.example.com/deploy.git", "path": "version"}}
SYNC = {"retry": {"limit": 2, "initial": "20ms", "factor": 1, "max": "20ms"}}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "LEAST_PAUSE_S", 0.0)
    for name in ("FLIP_S", "COMMIT_S"):  # whatever the machine does meanwhile
        monkeypatch.setattr(plan, name, 60.0)


@contextlib.asynccontextmanager
async def followed(directory: Path, version: str = "v22", **keys: Any) -> AsyncIterator[Shelf]:
    """v22 is live, and the source says `version`."""
    async with shelf(directory, desired=GIT, **{"sync": SYNC, **keys}) as hub:
        hub.source.prepares(version)
        async with following(hub):
            await until(lambda: hub.source.readings, "it to be read")
            await until(lambda: hub.status.linked, "v22 to be linked")
            yield hub


@contextlib.asynccontextmanager
async def following(hub: Shelf) -> AsyncIterator[None]:
    """A run of mountd."""
    async with hub.running(), tasks_of(hub.board) as group:
        hub.desired.begin(group)
        try:
            yield
        finally:
            hub.desired.drop("hub")


async def until_live(hub: Shelf, version: str) -> None:
    await until(
        lambda: hub.model.committed.current == version and not hub.board.snapshot.operation, f"{version} to be live"
    )


def codes(hub: Shelf) -> set[str]:
    return {reason.code for reason in readiness.reasons(hub.board.snapshot)}


async def test_a_commit_goes_live_and_stands_in_the_history(tmp_path: Path) -> None:
    async with followed(tmp_path) as hub:
        assert hub.status.sync is Sync.SYNCED
        hub.source.says("v23", "abc", "Better voices")
        await until_live(hub, "v23")
        (ended,) = await hub.journal.history(limit=5)
        assert (ended.operator, ended.source, ended.reason) == ("Ada <ada@example.com>", "git", "Better voices")
        assert (ended.revision, ended.result) == ("abc".ljust(40, "0"), "committed")
        assert hub.status.sync is Sync.SYNCED
        hub.source.says("v23", "def", "Unrelated")
        await until(lambda: hub.status.source and (hub.status.source.revision or "").startswith("def"), "it to be seen")
        assert len(await hub.journal.history(limit=5)) == 1
    assert hub.source.is_closed


@pytest.mark.parametrize("later", ["v22", "v21"])
async def test_what_is_said_during_a_switch_comes_after_it(tmp_path: Path, later: str) -> None:
    async with followed(tmp_path) as hub:
        hub.disk.gate.clear()
        hub.source.says("v23")
        await until(lambda: hub.board.snapshot.operation, "the switch to v23 to begin")
        hub.source.says(later, message="Revert")
        await until(lambda: hub.model.committed.config_version == later, "it to be seen")
        hub.disk.gate.set()
        await until_live(hub, later)
        assert (hub.status.sync, hub.model.committed.desired) == (Sync.SYNCED, later)
        ended = await hub.journal.history(limit=5)
        assert [(each.to_version, each.result) for each in ended] == [(later, "committed"), ("v23", "committed")]


async def test_what_is_declared_again_has_not_failed_yet(tmp_path: Path) -> None:
    """Who waits for it must not take the failure of the time before for its result."""
    async with followed(tmp_path) as hub:
        hub.disk.missing.add("hub_v23")
        hub.source.says("v23")
        await until(lambda: hub.status.fails and hub.status.pending is None, "the refusal")
        await hub.syncing.pause(None, operator="tina")
        hub.source.says("v22")
        await until(lambda: hub.model.committed.config_version == "v22", "it to be seen")
        hub.source.says("v23")
        await until(lambda: hub.model.committed.config_version == "v23", "it to be seen")
        assert hub.status.unmet is None


async def test_what_it_says_is_known_over_a_restart_although_it_is_away(tmp_path: Path) -> None:
    async with followed(tmp_path) as hub:
        await hub.syncing.pause(None, operator="tina")
        hub.source.says("v23", "abc")
        await until(lambda: hub.status.desired == "v23", "it to be seen")
    again = Shelf(tmp_path, desired=GIT, sync=SYNC)
    await again.journal.open()
    again.source.prepares(AWAY)
    try:
        async with following(again):
            await until(lambda: again.status.source and again.status.source.code, "the failure to be seen")
            assert again.status.source is not None
            assert (again.status.source.version, again.status.sync) == ("v23", Sync.UNKNOWN)
            await again.syncing.resume(None, operator="tina")
            await until_live(again, "v23")
            (ended,) = await again.journal.history(limit=5)
            assert ended.revision == "abc".ljust(40, "0")
    finally:
        await again.journal.close()


@pytest.mark.parametrize("error", [AWAY, Refused("it is empty", hint="write it", code=NO_VERSION)])
async def test_what_cannot_be_read_changes_nothing_and_is_shown(tmp_path: Path, error: Any) -> None:
    async with followed(tmp_path) as hub:
        hub.source.says(error)
        await until(lambda: error.code in codes(hub), "the reason")
        assert (hub.status.sync, hub.status.current, hub.target) == (Sync.UNKNOWN, "v22", "hub_v22")
        assert readiness.model_health(hub.status) is Health.HEALTHY
        assert hub.status.source is not None
        assert hub.status.source.version == "v22"
        hub.source.says("v22")
        await until(lambda: hub.status.sync is Sync.SYNCED, "it to be known again")
        assert error.code not in codes(hub)


async def test_it_is_read_again_a_few_times_after_a_failure_and_then_at_its_time(tmp_path: Path) -> None:
    async with followed(tmp_path) as hub:
        before = hub.source.readings
        hub.source.says(AWAY)
        await until(lambda: hub.source.readings == before + 3, "the first reading and two more")
        assert hub.desired.poke("hub")
        await until(lambda: hub.source.readings == before + 4, "the one that was asked for")
        assert not hub.desired.poke("voices")


async def test_without_a_version_nothing_is_started(tmp_path: Path) -> None:
    async with shelf(tmp_path, live="", desired=GIT, sync=SYNC) as hub:
        hub.source.prepares(AWAY)
        async with following(hub):
            await until(lambda: UNREACHABLE in codes(hub), "the reason")
            assert (hub.status.current, hub.status.desired, hub.link.exists()) == (None, None, False)
            hub.source.says("v22")
            await until_live(hub, "v22")
            assert await hub.journal.history(limit=5) == [], "a first version needs no switch"


# -- a person ---------------------------------------------------------------------------------------------------------


async def test_a_switch_by_hand_suspends_the_sync_until_it_is_resumed(tmp_path: Path) -> None:
    async with followed(tmp_path, "v22") as hub:
        ended = await hub.switch("v23", Request("tina", "cli", "it lisps"))
        assert "mountd resume" in ended.hint
        assert hub.model.committed == Committed(
            "v23", "v22", "v23", "v22", overridden="tina switched to v23 by hand: it lisps"
        )
        assert (hub.status.sync, readiness.model_health(hub.status)) == (Sync.OUT_OF_SYNC, Health.SUSPENDED)
        assert "sync-suspended" in codes(hub)
        assert hub.model.committed.suspended is None, "the link is healed all the same"
        hub.source.says("v24")
        await until(lambda: hub.model.committed.config_version == "v24", "it to be seen")
        assert hub.status.current == "v23"
    async with followed_again(tmp_path, "v24") as again:
        assert (again.status.current, readiness.model_health(again.status)) == ("v23", Health.SUSPENDED)
        resumed = await again.syncing.resume(None, operator="tina")
        assert [each.changed for each in resumed] == [True]
        await until_live(again, "v24")
        assert (again.status.sync, again.status.overridden) == (Sync.SYNCED, None)


@contextlib.asynccontextmanager
async def followed_again(directory: Path, version: str) -> AsyncIterator[Shelf]:
    hub = Shelf(directory, desired=GIT, sync=SYNC)
    await hub.journal.open()
    hub.source.prepares(version)
    try:
        async with following(hub):
            await until(lambda: hub.status.linked and hub.status.source and hub.status.source.is_known, "it to be read")
            yield hub
    finally:
        await hub.journal.close()


@pytest.mark.parametrize(
    ("version", "keys", "suspends"),
    [
        ("v23", {}, True),
        ("v22", {}, False),  # what the source says
        ("v23", {"sync": {"automatic": False}}, False),
    ],
)
async def test_when_a_switch_by_hand_suspends(
    tmp_path: Path, version: str, keys: dict[str, Any], suspends: bool
) -> None:
    async with followed(tmp_path, "v22", **keys) as hub:
        await until(lambda: hub.model.committed.config_version == "v22", "it to be seen")
        found = desired.override(hub.model, version, TINA)
        assert (found is not None) is suspends
        assert desired.override(hub.model, version, Request("Ada", "git")) is None


async def test_a_switch_by_hand_that_fails_suspends_nothing(tmp_path: Path) -> None:
    async with followed(tmp_path) as hub:
        hub.disk.missing.add("hub_v99")
        ended = await hub.switch("v99")
        assert ended.result != "committed"
        assert (hub.model.committed.overridden, hub.status.sync) == (None, Sync.SYNCED)


async def test_to_stay_with_what_is_live_is_a_choice_as_well(tmp_path: Path) -> None:
    async with followed(tmp_path) as hub:
        await hub.syncing.pause(None, operator="tina")
        hub.source.says("v23")
        await until(lambda: hub.status.desired == "v23", "it to be seen")
        asked = await hub.operations.switch(None, "v22", TINA)
        assert asked.record is None, "it is live already"
        assert hub.model.committed.overridden is not None
        await hub.syncing.resume(None, operator="tina")
        await until_live(hub, "v23")


OFF: dict[str, Any] = {"sync": {**SYNC, "automatic": False}}


async def test_what_a_person_asks_for_while_nothing_follows_the_source_is_not_held(tmp_path: Path) -> None:
    async with followed(tmp_path, **OFF) as hub:
        await hub.switch("v23")
        assert (hub.status.sync, hub.model.committed.overridden) == (Sync.OUT_OF_SYNC, None)
    off = Shelf(tmp_path, desired=GIT, **OFF)
    off.source.prepares("v22")
    await off.journal.open()
    try:
        async with following(off):
            await until(lambda: "switch-waits" in codes(off), "the reason why it is OutOfSync")
            assert off.status.current == "v23"
    finally:
        await off.journal.close()
    async with followed_again(tmp_path, "v22") as again:
        await until_live(again, "v22")
        assert again.status.sync is Sync.SYNCED


async def test_what_a_person_asked_for_is_not_held_against_a_source_that_comes_later(tmp_path: Path) -> None:
    async with shelf(tmp_path, sync=SYNC) as hub, following(hub):
        await until(lambda: hub.status.linked, "v22 to be linked")
        await hub.switch("v23")
        hub.source.prepares("v22")
        desired_ = DesiredSettings.model_validate(GIT)
        hub.model.reconfigure(hub.model.settings.model_copy(update={"desired": desired_, "version": None}), hub.disk)
        await hub.desired.declare("hub")
        await until_live(hub, "v22")
        assert hub.status.sync is Sync.SYNCED


# -- windows ----------------------------------------------------------------------------------------------------------


def deny_now(**keys: Any) -> dict[str, Any]:
    """A window that is open around now, whatever the minute."""
    began = datetime.now(UTC) - timedelta(minutes=5)
    schedule = f"{began.minute} {began.hour} * * *"
    return {"windows": [{"kind": "deny", "schedule": schedule, "duration": "2h", **keys}], **SYNC}


async def test_while_a_window_is_closed_a_commit_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with shelf(tmp_path, desired=GIT, sync=deny_now()) as hub:
        windows = SyncWindows(hub.models)
        hub.source.prepares("v23")
        windows.look()
        async with following(hub):
            await until(lambda: hub.status.linked and "switch-waits" in codes(hub), "it to wait")
            assert (hub.status.current, hub.status.sync) == ("v22", Sync.OUT_OF_SYNC)
            check_by_hand(hub.model, "switch to v23")
            later = datetime.now(UTC) + timedelta(hours=3)
            monkeypatch.setattr(clock, "now", lambda: later)
            windows.look()
            await until_live(hub, "v23")


async def test_a_window_that_comes_with_a_version_holds_it_back(tmp_path: Path) -> None:
    """Nobody has looked at the windows since."""
    async with shelf(tmp_path, desired=GIT, sync=deny_now()) as hub:
        hub.source.prepares("v23")
        async with following(hub):
            await until(lambda: hub.status.window, "it to be noticed")
            assert (hub.status.current, await hub.journal.history(limit=5)) == ("v22", [])


async def test_a_version_in_the_file_counts_again_once_there_is_no_source(tmp_path: Path) -> None:
    async with followed(tmp_path) as hub:
        await hub.switch("v23")
        assert hub.model.committed.overridden is not None
        settings = hub.model.settings.model_copy(update={"desired": None, "version": "v21"})
        hub.model.reconfigure(settings, hub.disk)
        await hub.desired.declare("hub")
        await until_live(hub, "v21")


async def test_a_window_may_hold_a_person_as_well(tmp_path: Path) -> None:
    async with followed(tmp_path, sync=deny_now(manual=False)) as hub:
        with pytest.raises(Refused):
            await hub.operations.switch(None, "v23", TINA)
        with pytest.raises(Refused):
            await hub.operations.switch(None, "v23", Request("tina", "api", dry_run=True))
        assert await hub.journal.history(limit=5) == []
