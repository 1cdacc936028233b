"""Durations, sizes, limits and names: what is read, what is refused, and that writing undoes reading."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountd.errors import BadVersionName
from mountd.settings.names import check_version
from mountd.settings.units import Limit, Size, format_duration, parse_duration, parse_rate

milliseconds = st.integers(0, 3650 * 86_400_000)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("0s", 0.0),
        ("500ms", 0.5),
        ("1ms", 0.001),
        ("2s", 2.0),
        ("1.5s", 1.5),
        ("1m30s", 90.0),
        ("5m", 300.0),
        ("1h", 3600.0),
        ("1000h", 3_600_000.0),
        ("2d", 172_800.0),
        (" 2s ", 2.0),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "2", "-1s", "2 s", "1y", "s", "1e3s", "inf", "nan", "99999d", "9" * 400 + "s", "٣s"]
)
def test_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|years"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0s"),
        (0.001, "1ms"),
        (90.5, "1m30s500ms"),
        (3600.0, "1h"),
        (82_800.0, "23h"),
        (86_399.999, "23h59m59s999ms"),
        (86_400.0, "1d"),
        (86_400.001, "24h1ms"),
        (129_600.0, "36h"),
        (604_800.0, "7d"),
        (315_360_000.0, "3650d"),
    ],
)
def test_how_a_duration_is_written(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(milliseconds)
def test_a_duration_is_written_as_it_is_read(ms: int) -> None:
    assert parse_duration(format_duration(ms / 1000)) == ms / 1000


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", Size(0)),
        ("1024B", Size(1024)),
        ("1B", Size(1)),
        ("16M", Size(16 * 1024**2)),
        ("16m", Size(16 * 1024**2)),
        ("16MiB", Size(16 * 1024**2)),
        ("1.5G", Size(3 * 512 * 1024**2)),
        ("30G", Size(30 * 1024**3)),
        ("5%", Size(percent=5)),
        ("0.5%", Size(percent=0.5)),
    ],
)
def test_sizes(text: str, size: Size) -> None:
    assert Size.parse(text) == size


@pytest.mark.parametrize(
    "text",
    ["", "G", "-1G", "1X", "5 %", "101%", "1 in 2", "5iB", "5BB", "9" * 400 + "G", "9" * 400 + "%", "5000P", "inf"],
)
def test_no_sizes(text: str) -> None:
    with pytest.raises(ValueError, match=r"size|more"):
        Size.parse(text)


@pytest.mark.parametrize("text", ["5", "1024", "1.5", "9" * 400])
def test_a_size_needs_a_unit(text: str) -> None:
    with pytest.raises(ValueError, match="unit"):
        Size.parse(text)


@given(
    st.integers(0, 2**60).map(lambda count: Size(bytes=count))
    | st.integers(0, 10**8).map(lambda p: Size(percent=p / 10**6))
)
def test_a_size_is_written_as_it_is_read(size: Size) -> None:
    assert Size.parse(str(size)) == size


def test_a_percentage_is_of_the_file_system() -> None:
    assert Size(percent=5).of(1000) == 50
    assert Size(bytes=7).of(1000) == 7


@pytest.mark.parametrize(
    ("text", "rate"), [("20M", 20 * 1024**2), ("512KiB", 512 * 1024), ("1B", 1), (" 1.5g ", 3 << 29)]
)
def test_rates(text: str, rate: int) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "0", "0M", "0.4B", "20", "-1M", "5%", "20M/s", "20Mbit", "1s"])
def test_no_rates(text: str) -> None:
    with pytest.raises(ValueError, match=r"rate|more than 0"):
        parse_rate(text)


@given(st.integers(0, 999_999), milliseconds.filter(bool))
def test_a_limit_is_written_as_it_is_read(count: int, ms: int) -> None:
    limit = Limit(count, ms / 1000)
    assert Limit.parse(str(limit)) == limit


@pytest.mark.parametrize("text", ["", "5", "5 per 10m", "5 in", "5 in 10", "-5 in 10m", "5 in 0s", "9999999 in 1s"])
def test_no_limits(text: str) -> None:
    with pytest.raises(ValueError, match=r"limit|duration"):
        Limit.parse(text)


@pytest.mark.parametrize("name", ["v23", "1.10", "2026-01-01", "V2_b", "a" * 64])
def test_version_names(name: str) -> None:
    assert check_version(name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", ".v1", "-v1", "v1..2", "v 1", "v1\n", "a" * 65, "latest", "MAIN", "版本"]
)
def test_no_version_names(name: str) -> None:
    with pytest.raises(BadVersionName) as caught:
        check_version(name)
    assert caught.value.exit_code == 2
    assert "mountd versions" in caught.value.hint
