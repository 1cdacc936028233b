"""A flood of lines becomes a few: the first of a kind, counts, and never more than a bound, whatever rclone logs."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountd.rclone.dedupe import KINDS, WINDOW_S, Deduplicator, kind_of
from mountd.rclone.log import LogEvent

LINE = (
    "IO error: operation error S3: ListObjects, exceeded maximum number of attempts, 3, https response error "
    'StatusCode: 0, RequestID: {id}, HostID: {host}, request send failed, Get "http://127.0.0.1:9/b?prefix={name}": '
    "dial tcp 127.0.0.1:{port}->127.0.0.1:9: connect: connection refused"
)
ONE = {"id": "A1", "host": "b2", "name": "models/gpt", "port": 4711}
OTHER = {"id": "TX0007-65A", "host": "q+Zf/ab=", "name": "声音/a b", "port": 5}


def error(text: str) -> LogEvent:
    return LogEvent("error", text)


def texts(events: list[LogEvent]) -> list[str]:
    return [event.text for event in events]


def counted(event: LogEvent) -> tuple[int | str, ...]:
    """Of a line that stands for others: its figures (none for one repetition), and the line that it quotes."""
    figures, _, quoted = event.text.partition(": ")
    assert figures.startswith("… ")
    return *map(int, re.findall(r"\d+", figures)), quoted


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (LINE.format(**ONE), LINE.format(**OTHER)),
        ("low level retry 1/3 (error timeout)", "low level retry 2/3 (error timeout)"),
        ("vfs cache: failed to download: read 12 of 345 bytes", "vfs cache: failed to download: read 7 of 8 bytes"),
        ("can't open 'a.txt': gone", "can't open 'b c.txt': gone"),
        ("RequestID: 16F0A7C9D2, HostID: a1b2c3", "RequestID: 77AB7C9D21, HostID: ffe0"),
        ("open models/gpt.pth: no such file", "open audio/voice.wav: no such file"),
        ("waiting 1.5s until 2026-11-21T04:40:33Z", "waiting 300ms until 2025-01-01T00:00:00Z"),
        ("token abcdefghijklmnopqrstuvwx", "token zyxwvutsrqponmlkjihgfedc"),
    ],
)
def test_lines_of_one_kind(one: str, other: str) -> None:
    assert kind_of(one) == kind_of(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Dir.Stat error: connection refused", "IO error: connection refused"),
        ("StatusCode: 403, api error", "StatusCode: 503, api error"),
        ("HTTP error 404 (404 Not Found)", "HTTP error 500 (404 Not Found)"),
        ("api error AccessDenied", "api error SlowDown"),
        ("a: connection refused", "a: connection reset by peer"),
    ],
)
def test_lines_of_two_kinds(one: str, other: str) -> None:
    assert kind_of(one) != kind_of(other)


def test_the_first_at_once_the_rest_as_a_count_each_window() -> None:
    lines = Deduplicator()
    first = lines.feed(error("try 0 failed"), 100.0)
    assert (texts(first), lines.due) == (["try 0 failed"], None), "nothing to log later"
    for number in range(1, 119):
        assert lines.feed(error(f"try {number} failed"), 100.0 + number / 10) == []
    due = [lines.due]
    assert lines.flush(129.9) == []
    (count,) = lines.flush(130.0)
    assert (count.level, counted(count)) == ("error", (118, 30, "try 0 failed"))
    due.append(lines.due)
    assert lines.feed(error("try 200 failed"), 140.0) == [], "it goes on: only counted"
    due.append(lines.due)
    assert due == [130.0, None, 160.0]
    assert [counted(each) for each in lines.flush(160.0)] == [(30, "try 0 failed")]
    assert texts(lines.feed(error("try 201 failed"), 190.0)) == ["try 201 failed"], "a first line again, after silence"


def test_a_long_line_is_quoted_in_part() -> None:
    lines = Deduplicator()
    for _ in range(2):
        lines.feed(error("x" * 4000), 0.0)
    (count,) = lines.finish(1.0)
    assert 100 < len(count.text) < 1000


def test_each_kind_has_its_own_count() -> None:
    lines = Deduplicator()
    lines.feed(error("a 1"), 0.0)
    lines.feed(error("a 2"), 1.0)
    assert texts(lines.feed(error("b"), 4.0)) == ["b"]
    assert lines.feed(error("a 3"), 5.0) == []
    assert lines.feed(error("b"), 6.0) == []
    assert [counted(each) for each in lines.flush(30.0)] == [(2, 30, "a 1")]
    assert [counted(each) for each in lines.flush(34.0)] == [(30, "b")]


def test_an_exit_logs_the_counts_that_are_left() -> None:
    lines = Deduplicator()
    lines.feed(error("a"), 0.0)
    lines.feed(error("a"), 0.1)
    assert [counted(each) for each in lines.finish(0.2)] == [(1, "a")]
    assert lines.finish(0.3) == []
    assert lines.due is None
    assert texts(lines.feed(error("a"), 0.4)) == ["a"], "the next process has a first of its own"


def test_a_late_line_comes_after_what_was_due_before_it() -> None:
    lines = Deduplicator()
    lines.feed(error("a"), 0.0)
    lines.feed(error("a"), 1.0)
    count, line = lines.feed(error("b"), 50.0)
    assert (counted(count), line.text) == ((50, "a"), "b")


def test_levels_are_not_mixed_and_debug_lines_are_left_alone() -> None:
    lines = Deduplicator()
    assert len(lines.feed(LogEvent("info", "a"), 0.0) + lines.feed(error("a"), 0.0)) == 2
    (count,) = lines.feed(LogEvent("info", "a"), 1.0) + lines.finish(2.0)
    assert count.level == "info"
    assert len([lines.feed(LogEvent("debug", "a"), 3.0) for _ in range(100)]) == 100
    assert lines.due is None


def test_kinds_without_end_are_counted_together() -> None:
    lines = Deduplicator()
    logged = [line for number in range(1000) for line in lines.feed(error(f"kind {word(number)}"), 1.0)]
    assert len(logged) == KINDS
    assert lines.due == 31.0
    (rest,) = lines.flush(31.0)
    *figures, quoted = counted(rest)
    assert figures == [1000 - KINDS, 30]
    assert str(quoted).startswith("kind ")
    assert len(lines.feed(error("kind of the next window"), 32.0)) == 1


def word(number: int) -> str:
    """A word without a digit for each number."""
    return "".join(chr(ord("a") + int(digit)) for digit in str(number))


def test_the_worst_of_the_rest_is_shown() -> None:
    lines = Deduplicator(kinds=0)
    for event in (LogEvent("info", "a"), error("b"), LogEvent("info", "c")):
        assert lines.feed(event, 0.0) == []
    (rest,) = lines.finish(1.0)
    assert (rest.level, counted(rest)) == ("error", (3, 1, "b"))


def test_a_known_kind_is_counted_as_itself_also_when_there_is_room_for_no_other() -> None:
    lines = Deduplicator(kinds=1)
    for text in ("a", "b", "a", "a"):
        lines.feed(error(text), 0.0)
    assert sorted(counted(each)[::2] for each in lines.finish(1.0)) == [(1, "b"), (2, "a")]


def test_a_kind_that_is_silent_makes_room_for_another() -> None:
    lines = Deduplicator(kinds=1)
    assert texts(lines.feed(error("a"), 0.0)) == ["a"]
    assert lines.feed(error("b"), 1.0) == []
    count, line = lines.feed(error("b"), 31.0)
    assert (counted(count), line.text) == ((1, 30, "b"), "b")


_lines = st.tuples(
    st.sampled_from(["info", "warning", "error"]),
    st.one_of(st.text(max_size=30), st.sampled_from(["a 1", "a 2", "b", "c 'x'", "c 'y'"])),
)


@given(st.lists(st.tuples(_lines, st.floats(0, 20)), max_size=200), st.integers(0, 5))
def test_no_line_is_lost_and_due_is_kept(steps: list[tuple[tuple[str, str], float]], kinds: int) -> None:
    """Each line is logged or counted exactly once, whatever comes when."""
    lines, now, logged = Deduplicator(kinds=kinds), 0.0, []
    for (level, text), wait_s in steps:
        now += wait_s
        while lines.due is not None and lines.due <= now:
            due = lines.due
            flushed = lines.flush(due)
            assert flushed
            logged += flushed
            assert lines.due is None or lines.due > due
        logged += lines.feed(LogEvent(level, "x" + text), now)
        assert lines.due is None or lines.due <= now + WINDOW_S
    logged += lines.finish(now)
    assert sum(map(lines_in, logged)) == len(steps)


def lines_in(event: LogEvent) -> int:
    if not event.text.startswith("… "):
        return 1
    *figures, _ = counted(event)
    return int(figures[0]) if len(figures) > 1 else 1


@given(st.lists(st.text(min_size=1, max_size=8), min_size=50, max_size=400))
def test_the_output_of_a_window_is_bounded(flood: list[str]) -> None:
    lines = Deduplicator()
    logged = [
        line
        for number, text in enumerate(flood)
        for line in lines.feed(error(text), WINDOW_S * number / (len(flood) + 1))
    ]
    logged += lines.finish(WINDOW_S)
    assert len(logged) <= 2 * KINDS + 1


@given(st.text(max_size=4096))
def test_a_kind_is_short_and_of_itself(text: str) -> None:
    assert len(kind_of(text)) <= 300
    assert kind_of(text) == kind_of(text)


@pytest.mark.parametrize("character", ['"', "'", "`", "a", "=", "1", " ", "status ", "status 1", "'a"])
def test_a_hostile_line_costs_little(character: str) -> None:
    text = (character * 4096)[:4096]
    began = time.process_time()
    for _ in range(10):
        kind_of(text)
    assert (time.process_time() - began) / 10 < 0.02
