"""Periodic work of different tasks comes together, and no later than it should."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountd.process import pace


class Clock:
    """Of a loop, at a moment."""

    def __init__(self, now: float) -> None:
        self.now = now

    def time(self) -> float:
        return self.now


def slept(monkeypatch: pytest.MonkeyPatch, now: float, seconds: float) -> float:
    found: list[float] = []

    async def sleep(delay: float) -> None:
        found.append(delay)

    with monkeypatch.context() as patch:
        patch.setattr(asyncio, "sleep", sleep)
        patch.setattr(asyncio, "get_running_loop", lambda: Clock(now))
        with pytest.raises(StopIteration):
            pace.pause(seconds).send(None)
    return found[0]


@given(st.floats(0, 1e6), st.floats(1, 100))
def test_a_pause_ends_at_a_whole_second_and_in_time(now: float, seconds: float) -> None:
    with pytest.MonkeyPatch.context() as patch:
        delay = slept(patch, now, seconds)
    assert abs(now + delay - round(now + delay)) < 1e-6
    assert 0 <= delay <= seconds + pace.SLACK_S + 1e-6
    assert delay > seconds - 1 + pace.SLACK_S - 1e-6


def test_a_period_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 7.3
    for expected in (8.0, 9.0, 10.0):
        now += slept(monkeypatch, now, 1.0)
        assert now == pytest.approx(expected)
        now += 0.004  # of work
    assert slept(monkeypatch, 9.9999999, 1.0) == pytest.approx(1.0, abs=1e-3), "woken a moment too early"


@pytest.mark.parametrize(("seconds", "delay"), [(0.2, 0.2), (0.0, 0.0), (-1.0, 0.0)])
def test_a_short_one_is_slept_as_it_is(monkeypatch: pytest.MonkeyPatch, seconds: float, delay: float) -> None:
    assert slept(monkeypatch, 3.7, seconds) == delay


async def test_it_sleeps() -> None:
    async with asyncio.timeout(60):
        await pace.pause(1.0)
