"""How far an operation is, as the board shows it."""

from __future__ import annotations

import pytest

from mountd.journal.journal import OperationRecord
from mountd.operation import show
from mountd.operation.show import Display
from mountd.status.board import Board
from mountd.status.snapshot import Operation


class Clock:
    """In place of the module `time`."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(show, "time", found)
    return found


class Shown:
    """Of the operation 1."""

    def __init__(self) -> None:
        self.board = Board()
        self.display = Display(self.board)
        self.record = OperationRecord(
            1, "switch", "hub", "v22", "v23", "tina", "cli", "", "warm", "2026-01-01T00:00:00Z"
        )
        self.display.step(self.record, "warm", 600.0)

    @property
    def operation(self) -> Operation:
        return self.board.snapshot.operations[0]

    def progress(self, done: float, total: float) -> tuple[int | None, float | None]:
        """What is shown of it: percent and eta."""
        self.display.progress(1, done, total)
        return self.operation.percent, self.operation.eta_s


@pytest.fixture
def shown(clock: Clock) -> Shown:
    return Shown()


def test_what_is_shown_of_an_operation(shown: Shown, clock: Clock) -> None:
    operation = shown.operation
    assert (operation.id, operation.kind, operation.model) == (1, "switch", "hub")
    assert (operation.from_version, operation.to_version) == ("v22", "v23")
    assert (operation.operator, operation.source, operation.started) == ("tina", "cli", shown.record.started)
    assert (operation.step, operation.began, operation.limit_s, operation.percent) == ("warm", 100.0, 600.0, None)
    clock.now = 105.0
    shown.display.step(shown.record, "warm", 1.0)
    assert shown.operation == operation, "it has begun only once"
    shown.progress(1, 2)
    shown.display.step(shown.record, "verify")
    operation = shown.operation
    assert (operation.step, operation.began, operation.limit_s, operation.percent) == ("verify", 105.0, None, None)


@pytest.mark.parametrize(
    ("after_s", "done", "total", "percent", "eta_s"),
    [
        (0.9, 1, 4, 25, None),  # the speed is not known yet
        (1.0, 1, 4, 25, 3.0),
        (10.0, 2, 3, 66, 5.0),
        (10.0, 0, 3, 0, None),
        (10.0, 3, 3, 100, 0.0),
        (10.0, 5, 3, 100, 0.0),  # more was found than was expected
        (10.0, 0, 0, 100, None),  # there was nothing to do
        (10.0, -1, 3, 0, None),
    ],
)
def test_progress(
    shown: Shown, clock: Clock, after_s: float, done: float, total: float, percent: int, eta_s: float | None
) -> None:
    clock.now += after_s
    assert shown.progress(done, total) == (percent, eta_s)


def test_progress_that_says_nothing_of_the_rest_has_no_eta(shown: Shown, clock: Clock) -> None:
    clock.now += 10.0
    shown.display.progress(1, 25, 100, 2e6, has_eta=False)
    assert (shown.operation.percent, shown.operation.bytes_per_s, shown.operation.eta_s) == (25, 2e6, None)


def test_only_another_percent_changes_what_is_shown(shown: Shown, clock: Clock) -> None:
    clock.now += 10.0
    assert shown.progress(100, 1000) == (10, 90.0)
    clock.now += 10.0
    assert shown.progress(101, 1000) == (10, 90.0)
    shown.display.progress(2, 1, 2)
    assert len(shown.board.snapshot.operations) == 1


def test_what_has_ended_is_not_shown_any_more(shown: Shown) -> None:
    other = OperationRecord(2, "drill", "disk", None, "kill", "tina", "cli", "", "fault", "")
    shown.display.step(other, "fault")
    shown.display.end(1)
    assert [each.id for each in shown.board.snapshot.operations] == [2]
    shown.display.end(1)
    shown.display.end(2)
    assert shown.board.snapshot.operation is None
