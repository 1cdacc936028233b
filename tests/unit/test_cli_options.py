"""What the words of the command line are understood as."""

from __future__ import annotations

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountd.cli.options import duration
from mountd.settings.units import format_duration, parse_duration


@given(st.integers(0, 10 * 365 * 86_400_000).map(lambda ms: format_duration(ms / 1000)))
def test_a_duration_is_read_as_in_the_configuration(text: str) -> None:
    assert round(duration(text), 3) == parse_duration(text)


@pytest.mark.parametrize("text", ["", "5", "٣s", "-1s", "1s 2", "3651d", "99999999999999d", "9" * 400 + "d"])
def test_what_is_none_is_refused_by_both(text: str) -> None:
    with pytest.raises(click.BadParameter):
        duration(text)
    with pytest.raises(ValueError, match=r"duration|years|unit"):
        parse_duration(text)
