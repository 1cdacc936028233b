"""The benchmarks' judgement: figures, marks that are missed, and what counts as a leak."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.census import POOL_THREADS, Census
from bench.figures import Mark, Row, Sample, table
from bench.reader import wrong_bytes
from bench.steady import SMALL_BYTES, Idle

FAST, SLOW = Sample(0.1, 0.2, app_restarted=True), Sample(0.1, 2.0)
SHARE, ALWAYS = Mark("serving_s", 1.5, share=0.99), Mark("serving_s", 3.0)


@pytest.mark.parametrize(
    ("samples", "mark", "missed"),
    [
        ([FAST] * 100, SHARE, False),
        ([FAST] * 99 + [SLOW], SHARE, False),
        ([FAST] * 98 + [SLOW] * 2, SHARE, True),
        ([FAST] * 99 + [SLOW], ALWAYS, False),
        ([FAST] * 99 + [replace(SLOW, serving_s=3.1)], ALWAYS, True),
        ([Sample(broken="mountd did not come up")], ALWAYS, True),
        ([], ALWAYS, True),
    ],
)
def test_a_mark(samples: list[Sample], mark: Mark, missed: bool) -> None:
    assert mark.missed(samples) is missed


def test_a_row_tells_every_promise_that_was_not_kept() -> None:
    samples = (FAST, replace(SLOW, bytes_lost=3), replace(FAST, broken="rclone was restarted"))
    row = Row("kill", samples, (Mark("serving_s", 1.0),), 0.5)
    assert row.missed == ("serving ≤ 1 s", "3 bytes lost", "rclone was restarted")
    assert Row("kill", (FAST,), (ALWAYS,), 0.5).missed == ()
    assert Row.from_json(row.as_json()) == row


def test_the_table() -> None:
    shown = table([Row("kill", (FAST, SLOW), (), 0.0), Row("slow", (Sample(),), (), 0.0)]).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in shown]
    assert cells[2] == ["kill", "2", "0.10 s", "0.10 s", "1.10 s", "2.00 s", "in 1 of 2", "0"]
    assert cells[3] == ["slow", "1", "", "", "", "", "no", "0"]


@pytest.mark.parametrize(
    ("found", "wrong"), [(b"abc", 0), (b"abd", 1), (b"ab", 1), (b"abcd", 1), (b"", 3), (b"bca", 3)]
)
def test_bytes_that_are_wrong(found: bytes, wrong: int) -> None:
    assert wrong_bytes(found, b"abc") == wrong


IDLE = Idle(seconds=60.0, interval_s=15.0, requests=5, kinds={"LIST": 5}, object_bytes=0, largest_bytes=900)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({}, ""),
        ({"requests": 6}, "6 requests in 60 s, 5 are allowed"),
        ({"requests": 0}, "never asked"),
        ({"object_bytes": 1}, "1 bytes of objects"),
        ({"largest_bytes": SMALL_BYTES + 1}, "an answer of"),
    ],
)
def test_what_an_idle_mount_may_ask(change: dict[str, int], word: str) -> None:
    missed = replace(IDLE, **change).missed  # type: ignore[arg-type]
    assert len(missed) == bool(word)
    assert word in "".join(missed)


HELD = Census(1, 28, 8, 1000, {"rclone": 1, "worker": 3})


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({}, ""),
        ({"memory_bytes": 1100, "threads": 8 + POOL_THREADS}, ""),
        ({"memory_bytes": 1101}, "memory"),
        ({"descriptors": 29}, "29 descriptors, 28 before"),
        ({"mounts": 2}, "2 mounts, 1 before"),
        ({"threads": 9 + POOL_THREADS}, "threads"),
        ({"below": {"rclone": 2, "worker": 3}}, "1 more rclone processes"),
        ({"below": {"rclone": 1}}, ""),
    ],
)
def test_what_counts_as_a_leak(change: dict[str, object], word: str) -> None:
    found = replace(HELD, **change).more_than(HELD, 0.10)  # type: ignore[arg-type]
    assert len(found) == bool(word)
    assert word in "".join(found)
