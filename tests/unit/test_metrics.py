"""The metrics say of each mount, and of all together, what the board says at that moment."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mountd import clock
from mountd.api import metrics
from mountd.status.board import Board
from mountd.status.results import OutboxStatus
from mountd.status.snapshot import Health, MountStage, Snapshot, State
from tests.support.shelf import MOUNT


def test_an_outbox_says_what_waits() -> None:
    status = OutboxStatus("/srv/outputs", "s:b", pending=3, pending_bytes=70, uploaded=9, failed=1, failures=4)
    status = replace(status, oldest=clock.as_text(clock.now() - timedelta(minutes=5)))
    board = Board(Snapshot(outbox={"results": status}))
    families = text_string_to_metric_families(metrics.render(board).decode())
    found = {s.name: s.value for f in families for s in f.samples if s.labels.get("outbox") == "results"}
    assert found.pop("mountd_outbox_oldest_seconds") == pytest.approx(300, abs=60)
    assert found == {
        "mountd_outbox_pending_files": 3,
        "mountd_outbox_pending_bytes": 70,
        "mountd_outbox_uploaded_total": 9,
        "mountd_outbox_failed_total": 4,
        "mountd_outbox_failed_files": 1,
    }
    assert "outbox" not in metrics.render(Board()).decode()


def scraped(board: Board) -> dict[tuple[str, str], float]:
    """(name, mount) → value."""
    families = list(text_string_to_metric_families(metrics.render(board).decode()))
    assert all(family.documentation for family in families)
    return {(s.name, s.labels.get("mount", "")): s.value for family in families for s in family.samples}


@pytest.mark.parametrize(
    ("state", "stage", "health", "up"),
    [
        (State.RUNNING, MountStage.READY, Health.HEALTHY, 1),
        (State.RUNNING, MountStage.READY, Health.DEGRADED, 1),  # an outage: what is cached can be read
        (State.RUNNING, MountStage.ANSWERING, Health.HEALTHY, 0),  # rclone mounts happily with wrong keys
        (State.STARTING, MountStage.READY, Health.HEALTHY, 0),
        (State.BACKOFF, MountStage.PREFLIGHT, Health.DEGRADED, 0),
    ],
)
def test_a_mount_is_up_once_reads_are_proven(state: State, stage: MountStage, health: Health, up: int) -> None:
    board = Board(Snapshot(mounts={"a": MOUNT, "b": replace(MOUNT, state=state, stage=stage, health=health)}))
    assert scraped(board) == {
        ("mountd_ready", ""): up,
        ("mountd_mount_up", "a"): 1,
        ("mountd_mount_up", "b"): up,
    }


def test_a_scrape_shows_the_board_as_it_is_then() -> None:
    board = Board(Snapshot(mounts={"a": MOUNT}))
    assert scraped(board)["mountd_ready", ""] == 1
    board.set_mount("a", replace(MOUNT, state=State.STOPPING))
    assert (scraped(board)["mountd_ready", ""], scraped(board)["mountd_mount_up", "a"]) == (0, 0)
    board.set_mount("a", MOUNT)
    board.set_stopping()
    assert (scraped(board)["mountd_ready", ""], scraped(board)["mountd_mount_up", "a"]) == (0, 1)


def test_without_mounts_the_families_are_there() -> None:
    names = {family.name for family in text_string_to_metric_families(metrics.render(Board(Snapshot())).decode())}
    assert names == {"mountd_ready", "mountd_mount_up"}
