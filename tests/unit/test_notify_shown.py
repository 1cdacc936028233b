"""What is shown of targets: in the status, as a reason, as metrics; and what the journal keeps for them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mountd.api.metrics.exposition import Metrics
from mountd.journal.journal import Journal
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


async def test_the_metrics_are_those_of_each_target(tmp_path: Path) -> None:
    board = Board(Snapshot(mounts={"a": MOUNT}))
    board.set_notify("ops", FAILING)
    board.set_notify("people", WELL)
    async with contextlib.AsyncExitStack() as stack:
        journal = Journal(tmp_path / "mountd.db")
        await journal.open()
        stack.push_async_callback(journal.close)
        await look(board, Metrics(board, journal))


async def look(board: Board, metrics: Metrics) -> None:
    families = list(text_string_to_metric_families((await metrics.render()).decode()))
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
    assert b"notify" not in await metrics.render()
