"""What outboxes mean for health, reasons and events, and how `mountd status` shows them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from mountd.api.documents.outbox import age_s, outbox_document
from mountd.cli import view_status
from mountd.status import events, readiness
from mountd.status.board import Board, Section
from mountd.status.results import OutboxStatus
from mountd.status.snapshot import AppStatus, Health, Reason, Snapshot
from tests.unit.test_board import MODEL, MOUNT

WELL = OutboxStatus("/srv/outputs", "store:results", Health.HEALTHY, uploaded=3)
CAUSE = Reason("outbox-waiting", "results wait: the store does not answer", "outbox", "results", "see the network")
WAITS = replace(WELL, health=Health.DEGRADED, pending=2, pending_bytes=4096, reason=CAUSE)


@pytest.mark.parametrize(
    ("outbox", "health", "codes"),
    [
        (WELL, Health.HEALTHY, []),
        (replace(WELL, health=Health.UNKNOWN), Health.HEALTHY, []),
        (WAITS, Health.DEGRADED, ["outbox-waiting"]),
    ],
)
def test_results_that_wait_are_degraded_and_ready(outbox: OutboxStatus, health: Health, codes: list[str]) -> None:
    snapshot = Snapshot(outbox={"results": outbox})
    assert readiness.health(snapshot) is health
    assert [reason.code for reason in readiness.reasons(snapshot)] == codes
    assert readiness.is_ready(snapshot)


def test_a_cause_is_an_event_when_it_begins_changes_and_ends() -> None:
    late = replace(WAITS, reason=replace(CAUSE, code="outbox-late"))
    steps = [
        (WELL, WAITS, ["outbox-waiting"]),
        (WAITS, replace(WAITS, pending=9), []),
        (WAITS, late, ["outbox-late"]),
        (late, WELL, ["outbox-recovered"]),
        (WELL, replace(WELL, uploaded=4), []),
    ]
    for before, after, codes in steps:
        found = events.between(Snapshot(outbox={"results": before}), Snapshot(outbox={"results": after}))
        assert [(each.code, each.object) for each in found] == [(code, "results") for code in codes]
    first = events.between(Snapshot(), Snapshot(outbox={"results": WAITS}))
    assert [each.code for each in first] == ["outbox-waiting"]
    assert events.between(Snapshot(outbox={"results": WAITS}), Snapshot()) == []


def test_it_is_put_on_the_board_and_taken_off() -> None:
    board = Board()
    board.set_outbox("results", WELL)
    board.set_outbox("other", WAITS)
    board.remove("outbox", "other")
    assert board.snapshot == Snapshot(outbox={"results": WELL})


def test_of_two_sections_with_one_name_only_the_one_that_is_meant_goes() -> None:
    lack = Reason("no-memory", "x waits: no memory", "mountd", "x", "")
    whole = Snapshot(
        mounts={"x": MOUNT}, models={"x": MODEL}, apps={"x": AppStatus()}, outbox={"x": WELL}, lacks={"x": lack}
    )
    sections: tuple[Section, ...] = ("mounts", "models", "apps", "outbox")
    for section in sections:
        board = Board(whole)
        board.remove(section, "x")
        assert board.snapshot == replace(whole, **{section: {}})  # type: ignore[arg-type]
    board = Board(whole)
    for section in sections:
        board.remove(section, "x")
    assert board.snapshot == Snapshot()


def test_status_has_a_line_for_each() -> None:
    document = {**outbox_document(replace(WAITS, writing=1, failed=2)), "oldest_s": 75.0}
    document["last"] = {"key": "outputs/a.wav", "time": "2026-01-02T03:04:05Z"}
    ((layer, name, health, state),) = view_status.lines({"outbox": {"results": document}})
    assert (layer, name, health) == ("outbox", "results", "Degraded")
    for words in ("2 files", "4.0 KiB", "1 being written", "3 uploaded", "2 failed", "outputs/a.wav"):
        assert words in state
    ((*_, state),) = view_status.lines({"outbox": {"results": {**outbox_document(WELL)}}})
    assert state == "nothing waits, 3 uploaded"


def test_an_age_is_never_negative() -> None:
    assert age_s("") is None
    assert age_s("2999-01-01T00:00:00.000Z") == 0.0
    age = age_s("2020-01-01T00:00:00.000Z")
    assert age is not None
    assert age > 1e8


def test_without_an_outbox_nothing_of_it_is_loaded() -> None:
    code = "import sys, mountd.daemon.run; print([name for name in sys.modules if name.startswith('mountd.outbox')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
