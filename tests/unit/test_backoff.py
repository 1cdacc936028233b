"""How long to wait before the next try."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountd.process.lifecycle import Backoff


@pytest.mark.parametrize(
    ("backoff", "delays"),
    [
        (Backoff(), [0, 1, 2, 4, 8, 16, 32, 60, 60]),
        (Backoff(0.5, 1.0, 60.0), [0, 0.5, 0.5, 0.5]),
        (Backoff(10.0, 3.0, 60.0), [0, 10, 30, 60, 60]),
        (Backoff(90.0, 2.0, 60.0), [0, 60, 60]),
    ],
)
def test_delays(backoff: Backoff, delays: list[float]) -> None:
    assert [backoff.delay_s(failures) for failures in range(len(delays))] == delays


@given(
    st.builds(Backoff, st.floats(0.001, 1e4), st.floats(1, 1e4), st.floats(0.001, 1e6)),
    st.integers(-10, 10**9),
)
def test_never_above_the_maximum_and_never_shorter_than_before(backoff: Backoff, failures: int) -> None:
    delay_s = backoff.delay_s(failures)
    assert 0 <= delay_s <= backoff.max_s
    assert delay_s <= backoff.delay_s(failures + 1)
    assert (delay_s == 0) == (failures <= 0)
