"""What is shown of targets: in the status, as a reason, as metrics; and what the journal keeps for them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mountd.api import metrics
from mountd.clock import now_text
from mountd.journal.journal import Journal, NotifyCursor, OperationRecord
from mountd.status import readiness
from mountd.status.board import Board
from mountd.status.notify import NotifyStatus
from mountd.status.snapshot import Health, Snapshot
from tests.support.shelf import MOUNT

FAILING = NotifyStatus(
    failing=True, pending=7, last_error="it answers 500", hint="look", messages=3, failed=2, dropped=1
)
WELL = NotifyStatus(messages=4)


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    made = Journal(tmp_path / "mountd.db")
    await made.open()
    yield made
    await made.close()


def test_a_target_that_fails_is_a_reason_and_makes_nothing_less_healthy() -> None:
    snapshot = Snapshot(mounts={"a": MOUNT}, notify={"ops": FAILING, "people": WELL})
    found = readiness.reasons(snapshot)
    assert [(each.code, each.object, each.hint) for each in found] == [("notify-failing", "ops", "look")]
    assert "it answers 500" in found[0].text
    assert readiness.health(snapshot) is Health.HEALTHY
    assert readiness.is_ready(snapshot)


def test_the_metrics_are_those_of_each_target() -> None:
    board = Board(Snapshot(mounts={"a": MOUNT}))
    board.set_notify("ops", FAILING)
    board.set_notify("people", WELL)
    families = list(text_string_to_metric_families(metrics.render(board).decode()))
    assert all(family.documentation for family in families)
    found = {(s.name, s.labels.get("target")): s.value for f in families for s in f.samples if "notify" in s.name}
    assert {name: value for (name, target), value in found.items() if target == "ops"} == {
        "mountd_notify_messages_total": 3,
        "mountd_notify_failed_total": 2,
        "mountd_notify_dropped_total": 1,
        "mountd_notify_pending": 7,
        "mountd_notify_failing": 1,
    }
    assert found["mountd_notify_messages_total", "people"] == 4
    board.set_notify("ops", None)
    board.set_notify("people", None)
    assert b"notify" not in metrics.render(board)


def test_the_page_names_every_metric() -> None:
    board = Board(Snapshot(notify={"ops": FAILING}))
    families = text_string_to_metric_families(metrics.render(board).decode())
    names = {sample.name for family in families for sample in family.samples if "notify" in sample.name}
    page = (Path(__file__).parents[2] / "docs" / "notifications.md").read_text()
    assert {name for name in names if f"`{name}`" not in page} == set()


async def test_each_journal_has_an_identity_of_its_own(tmp_path: Path, journal: Journal) -> None:
    other = Journal(tmp_path / "other.db")
    await other.open()
    assert await journal.identity() != await other.identity()
    assert len(await journal.identity()) == 16
    before = await other.identity()
    await other.close()
    again = Journal(tmp_path / "other.db")
    await again.open()
    assert await again.identity() == before
    await again.close()


async def test_the_cursors_of_targets_are_kept_and_forgotten(journal: Journal) -> None:
    ops = NotifyCursor("ops", 7, 3, 2, 1, "2026-01-02T03:04:05Z", '{"open": []}')
    await journal.keep_notify_cursor(ops)
    await journal.keep_notify_cursor(NotifyCursor("people", 1))
    assert await journal.notify_cursor("ops") == ops
    await journal.keep_notify_cursor(replace(ops, cursor=8))
    await journal.forget_notify_cursors(["ops", "new"])
    assert await journal.notify_cursor("ops") == replace(ops, cursor=8)
    assert await journal.notify_cursor("people") is None
    await journal.forget_notify_cursors([])
    assert await journal.notify_cursor("ops") is None


async def begun(journal: Journal, kind: str = "switch") -> OperationRecord:
    return await journal.begin(
        kind=kind,
        model="hub",
        from_version="v22",
        to_version="v23",
        operator="tina",
        source="cli",
        reason="nightly",
        step="preflight",
    )


@pytest.mark.parametrize("kind", ["switch", "rollback"])
async def test_each_result_of_a_switch_is_one_event(journal: Journal, kind: str) -> None:
    written = journal.event_written()
    record = replace(await begun(journal, kind), finished=now_text(), result="committed", exit_code=0, duration_s=1.5)
    await journal.finish(record)
    assert written.done()
    await journal.finish(record)  # once more: written later than it was thought
    (event,) = await journal.events(0, limit=10)
    assert (event.code, event.object) == (f"{kind}-committed", "hub")
    assert event.text == "hub is at v23 instead of v22, by tina"
    said = json.loads(event.data)
    assert (said["operation"], said["from"], said["to"], said["reason"]) == (record.id, "v22", "v23", "nightly")
    assert (said["result"], said["duration_s"], said["revision"]) == ("committed", 1.5, None)


async def test_a_failed_one_says_why_and_other_operations_are_no_event(journal: Journal) -> None:
    failed = replace(await begun(journal), finished=now_text(), result="rolled-back", cause="the app crashed")
    await journal.finish(failed)
    for kind in ("warm", "drill", "schedule"):
        await journal.finish(replace(await begun(journal, kind), finished=now_text(), result="done"))
    (event,) = await journal.events(0, limit=10)
    assert (event.code, event.text) == ("switch-rolled-back", "the app crashed")
