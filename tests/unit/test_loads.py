"""How far data are is shown of what nobody else shows; what is worth an event is counted, each once."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from mountd.errors import Unavailable
from mountd.model import loads
from mountd.model.loads import MOST_CAUSES, Loads
from mountd.status.load import LoadHistory, LoadStatus
from mountd.warm.results import WarmProgress


class Screen:
    def __init__(self) -> None:
        self.load: LoadStatus | None = None
        self.history = LoadHistory()
        self.loads = Loads(self.show)

    def show(self, load: LoadStatus | None, history: LoadHistory) -> None:
        self.load, self.history = load, history

    @property
    def counts(self) -> tuple[int, int, int]:
        return self.history.begun, self.history.waits, self.history.done


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """Nothing counts as stuck because the test itself was."""
    monkeypatch.setattr(loads, "STUCK_S", 3600.0)
    return Screen()


def far(done: int, waits_for: str = "") -> WarmProgress:
    return WarmProgress(done, 1000, 50.4, 9.96, 0, 3, 8, waits_for)


def ends(screen: Screen, done: int, error: BaseException, *, version: str = "v23", by_operation: bool = False) -> None:
    """A load to level pin, after so many bytes."""
    with (
        contextlib.suppress(type(error)),
        screen.loads.follow(version, "pin", by_operation=by_operation) as show,
    ):
        show(far(done))
        raise error


def test_a_load_begins_and_is_done_once(screen: Screen) -> None:
    with screen.loads.follow("v23", "pin", by_operation=False) as show:
        assert screen.counts == (0, 0, 0), "nothing may have to come"
        for done in (100, 400, 1000):
            show(far(done))
            assert screen.load == LoadStatus("v23", "pin", done, 1000, 50, 10.0)
            assert (screen.counts, screen.history.what) == ((1, 0, 0), "v23 (pin)")
    assert (screen.load, screen.counts) == (None, (1, 0, 1))
    assert screen.history.result.startswith("v23 (pin): 1000 bytes")


def test_what_is_tried_again_begins_once_and_each_cause_is_reported_once(screen: Screen) -> None:
    for number, cause in enumerate(("away", "away", "refused", "refused")):
        ends(screen, 100 * number, Unavailable(cause))
        assert screen.load == LoadStatus("v23", "pin", 100 * number, 1000, waits_for=cause)
    assert (screen.counts, screen.history.cause) == ((1, 2, 0), "v23 (pin) waits: refused")
    with screen.loads.follow("v23", "pin", by_operation=False) as show:
        show(far(500))
    assert (screen.load, screen.counts) == (None, (1, 2, 1))
    ends(screen, 0, Unavailable("refused"), version="v24")
    assert screen.counts == (2, 3, 1), "another version is another load"
    screen.loads.forget()
    assert screen.load is None


def test_of_many_causes_only_the_first_are_reported(screen: Screen) -> None:
    for number in range(3 * MOST_CAUSES):
        ends(screen, 0, Unavailable(f"f{number}: away"))
    assert screen.counts == (1, MOST_CAUSES, 0)


def test_where_nothing_was_lacking_nothing_has_come(screen: Screen) -> None:
    with screen.loads.follow("v23", "pin", by_operation=False):
        pass
    assert screen.counts == (0, 0, 0)


@pytest.mark.parametrize(("stuck_s", "waits"), [(0.0, 2), (3600.0, 0)])
def test_a_moment_without_a_byte_is_no_event(
    screen: Screen, monkeypatch: pytest.MonkeyPatch, stuck_s: float, waits: int
) -> None:
    monkeypatch.setattr(loads, "STUCK_S", stuck_s)
    with screen.loads.follow("v23", "data", by_operation=False) as show:
        for waits_for in ("", "away", "away", "", "refused"):
            show(far(100, waits_for))
            assert screen.load is not None
            assert screen.load.waits_for == waits_for
    assert screen.counts == (1, waits, 1)


def test_what_is_not_wanted_any_more_begins_again_later(screen: Screen) -> None:
    for _ in range(2):
        ends(screen, 100, asyncio.CancelledError())
        assert screen.load is None
    assert screen.counts == (2, 0, 0)


def test_an_operation_reports_its_own_load_and_hides_no_other(screen: Screen) -> None:
    with screen.loads.follow("v23", "pin", by_operation=True) as operation:
        operation(far(100, "away"))
        assert screen.load is not None
        assert screen.load.version == "v23"
        with screen.loads.follow("v22", "data", by_operation=False) as show:
            show(far(200))
            operation(far(300))
            assert screen.load == LoadStatus("v22", "data", 200, 1000, 50, 10.0)
        operation(far(400))
        assert screen.load == LoadStatus("v23", "pin", 400, 1000, 50, 10.0)
    ends(screen, 100, Unavailable("away"), by_operation=True)
    assert [screen.load, screen.counts] == [None, (1, 0, 1)]
