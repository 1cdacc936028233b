"""A webhook after a reload that changes nothing of it or adds it, with the journal of a backup, behind many uploads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mountd.journal import journal as journal_module
from mountd.journal.journal import Journal
from mountd.notify import target as target_module
from mountd.process.lifecycle import Backoff
from tests.support.notified import SOON_S, Notified, notified
from tests.support.receiver import Receiver, Says


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Notified]:
    async with notified(tmp_path, monkeypatch) as found:
        yield found


async def test_a_reload_that_changes_nothing_of_it_tries_now_and_forgets_no_refusal(
    world: Notified, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target_module, "AGAIN", Backoff(SOON_S * 10, 2.0, SOON_S * 10))
    with Receiver(otherwise=Says(404)) as receiver:
        target = await world.begin_loaded(webhook=receiver.url)
        await world.happens("switch-failed")
        for count in (1, 2):
            await world.posted(receiver, count)
            target.reconfigure(world.settings(webhook=receiver.url))
        await world.until_status(failed=1)
        assert len(receiver.got) == 3


async def test_a_journal_restored_from_a_backup_repeats_no_id(world: Notified, tmp_path: Path) -> None:
    with Receiver() as receiver:
        await world.begin_loaded(webhook=receiver.url)
        await world.end()
        await world.journal.rows("PRAGMA wal_checkpoint(TRUNCATE)")
        backup = (tmp_path / "mountd.db").read_bytes()
        for count in (1, 2):
            await world.journal.close()
            (tmp_path / "mountd.db").write_bytes(backup)
            world.journal = Journal(tmp_path / "mountd.db")
            await world.journal.open()
            world.begin(webhook=receiver.url)
            await world.happens("switch-committed")
            await world.posted(receiver, count)
            await world.end()
    first, second = receiver.ids
    assert first != second
    assert first.rpartition("-")[2] == second.rpartition("-")[2], "the same number"


async def test_a_target_that_a_reload_adds_to_a_new_journal_begins_with_what_comes_next(world: Notified) -> None:
    world.journal.is_new, world.at_start = True, False
    with Receiver() as receiver:
        await world.begin_loaded(webhook=receiver.url)
        await world.happens("switch-committed")
        await world.posted(receiver, 1)
    assert receiver.types == ["mountd.switch-committed"]


async def test_uploads_that_left_the_journal_are_no_loss_to_who_does_not_want_them(
    world: Notified, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "EVENTS_KEPT", 20)
    with Receiver() as receiver:
        given = {"webhook": receiver.url, "events": ["app-failed", "switch-*"]}
        await world.happens("switch-failed")
        await world.begin_loaded(**given)
        await world.end()
        await world.happens(*["result-uploaded"] * 30, "app-failed", *["result-uploaded"] * 30)
        world.begin(**given)
        await world.posted(receiver, 1)
        await world.until_status(dropped=0, messages=1, pending=0)
        await world.happens(*["switch-failed"] * 5)
        await world.until_status(messages=6, pending=0)
        async with asyncio.timeout(SOON_S):
            while (await world.cursor()).messages < 6:
                await asyncio.sleep(0.01)
        await world.end()
        await world.happens(*["result-uploaded"] * 3, *["switch-failed"] * 25)
        world.begin(**given)
        await world.until_status(dropped=5, messages=6 + 20, pending=0)


async def test_the_end_of_an_alarm_is_found_behind_any_number_of_uploads(
    world: Notified, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target_module, "PAGE", 5)
    with Receiver() as receiver:
        given = {"webhook": receiver.url, "after": "1s", "events": ["not-ready", "switch-*"]}
        await world.begin_loaded(**given)
        await world.end()
        await world.happens("not-ready", *["result-uploaded"] * 20, "ready", "switch-failed")
        world.begin(**given)
        await world.posted(receiver, 1)
    assert receiver.types == ["mountd.switch-failed"]


async def test_a_target_that_failed_in_the_previous_run_is_reported_to_work(world: Notified) -> None:
    await world.happens("notify-failing", object_="ops")
    with Receiver() as receiver:
        await world.begin_loaded(webhook=receiver.url)
        await world.happens("switch-committed")
        await world.until_event("notify-working")
        await world.end()
        await world.begin_loaded(webhook=receiver.url)
        await world.happens("switch-committed", "switch-failed")
        await world.until_status(messages=3)
    found = [each.code for each in await world.events() if each.code.startswith("notify-")]
    assert found == ["notify-failing", "notify-working"]
