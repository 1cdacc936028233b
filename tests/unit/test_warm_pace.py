"""How many readers at once: what one look after the other makes of it, and what must hold on every line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountd.warm.pace import FIRST, LEAST, MOST, RECOVERY_LOOKS, RESTING_LOOKS, SPEED_OVER_S, Pace, Speed

M = 1_000_000


def after(*looks: tuple[float, int]) -> list[int]:
    """Readers after each look at so many MB/s with so many errors, while all of them have something to do."""
    pace = Pace()
    return [pace.look(speed * M, errors=errors, is_busy=True) for speed, errors in looks]


@pytest.mark.parametrize(
    ("looks", "readers"),
    [
        # It grows by half as long as that brings more than a tenth, up to the most; a look after that is left out.
        ([(100, 0), (90, 0), (150, 0), (90, 0), (225, 0), (90, 0), (340, 0)], [12, 12, 18, 18, 27, 27, 32]),
        # And goes back when it does not.
        ([(100, 0), (100, 0), (109, 0)], [12, 12, 8]),
        ([(100, 0), (150, 0), (150, 0), (150, 0), (150, 0)], [12, 12, 18, 18, 12]),
        ([(100, 0), (80, 0), (80, 0)], [12, 12, 8]),
        # Each look with errors halves it, down to one.
        ([(100, 0), (150, 3)], [12, 6]),
        ([(100, 1), (50, 1), (20, 1), (0, 1), (0, 1)], [4, 2, 1, 1, 1]),
        # An outage: nothing comes for a while, then more readers at once, as many as three quarters of those before.
        ([(100, 5), (0, 0), (0, 1), (0, 0), (0, 1), (9, 0), (40, 0), (80, 0), (99, 0)], [4, 4, 2, 2, 1, 2, 4, 6, 6]),
        # A store that asks for fewer requests each time: there are fewer each time.
        ([(100, 1), (50, 0), (75, 1), (37, 0), (50, 1), (25, 0), (37, 0)], [4, 6, 3, 5, 2, 4, 4]),
    ],
)
def test_looks(looks: list[tuple[float, int]], readers: list[int]) -> None:
    assert after(*looks) == readers


def test_it_tries_more_readers_again_after_a_rest() -> None:
    found = after(*[(100, 0)] * (RESTING_LOOKS + 6))
    assert found[:4] == [12, 12, 8, 8]
    assert found[RESTING_LOOKS:] == [8, 8, 12, 12, 8, 8]


def test_it_grows_again_after_errors() -> None:
    pace = Pace()
    for _ in range(4):
        pace.look(0, errors=1, is_busy=True)
    looks = 0
    while pace.readers <= FIRST:
        pace.look(10 * M * pace.readers, errors=0, is_busy=True)
        looks += 1
    assert looks <= RECOVERY_LOOKS + 5


def test_a_look_without_work_says_nothing() -> None:
    pace = Pace()
    assert pace.look(100 * M, errors=0, is_busy=True) == 12
    for _ in range(50):
        assert pace.look(0, errors=0, is_busy=False) == 12
    assert [pace.look(150 * M, errors=0, is_busy=True) for _ in range(2)] == [12, 18]


@given(st.lists(st.tuples(st.floats(0, 1e10), st.integers(0, 3), st.booleans())))
def test_bounds_and_errors(looks: list[tuple[float, int, bool]]) -> None:
    pace = Pace()
    for speed, errors, is_busy in looks:
        before = pace.readers
        now = pace.look(speed, errors=errors, is_busy=is_busy)
        assert now == pace.readers
        assert LEAST <= now <= MOST
        if errors:
            assert now == max(LEAST, before // 2)
        assert now <= 2 * before


@given(st.floats(1, 200), st.floats(10, 2000))
def test_it_finds_what_a_line_can_carry(a_connection: float, in_all: float) -> None:
    pace = Pace()
    for _ in range(20):
        pace.look(min(pace.readers * a_connection, in_all), errors=0, is_busy=True)
    assert min(pace.readers * a_connection, in_all) >= min(MOST * a_connection, in_all) / 1.11


def test_speed() -> None:
    speed = Speed()
    assert speed.bytes_per_s == 0
    assert speed.eta_s(100) is None
    for tick in range(100):
        speed.add(tick / 4, 25 * tick)
    assert speed.bytes_per_s == 100
    assert speed.eta_s(300) == 3
    for tick in range(100, 100 + int(SPEED_OVER_S * 4) + 1):
        speed.add(tick / 4, 25 * 99)
    assert speed.bytes_per_s == 0
    assert speed.eta_s(300) is None
