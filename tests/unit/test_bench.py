"""The benchmarks' judgement: figures, marks that are missed, and what counts as a leak."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bench.catalogue import catalogue
from bench.census import POOL_THREADS, Census
from bench.faults_start import most_that_count, short_starts
from bench.figures import AppAfter, Mark, Row, Sample, judged, table
from bench.reader import wrong_bytes
from bench.refetch import Fetch
from bench.refetch import table as table_of_fetches
from bench.steady import SMALL_BYTES, Idle
from bench.switching import LIMIT_S, Figures, Turn, down_s, quantile, rows
from bench.switching import missed as missed_by
from bench.switching import table as table_of_turns

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


def test_a_row_shows_every_promise_that_was_not_kept() -> None:
    samples = (FAST, replace(SLOW, bytes_lost=3), replace(FAST, broken="rclone was restarted"))
    row = Row("kill", samples, (Mark("serving_s", 1.0),), 0.5)
    limit, lost, broken = row.missed
    assert (limit, lost.split()[0], broken) == (str(row.marks[0]), "3", samples[2].broken)
    assert Row("kill", (FAST,), (ALWAYS,), 0.5).missed == ()
    assert Row.from_json(row.as_json()) == row


@pytest.mark.parametrize(
    ("sample", "app", "broken"),
    [
        (FAST, None, False),
        (FAST, AppAfter.RESTARTED, False),
        (FAST, AppAfter.STAYS, True),
        (SLOW, AppAfter.STAYS, False),
        (SLOW, AppAfter.RESTARTED, True),
    ],
)
def test_what_must_become_of_the_app(sample: Sample, app: AppAfter | None, broken: bool) -> None:
    found = judged(sample, app)
    assert (bool(found.broken), replace(found, broken="")) == (broken, sample)
    known = replace(sample, broken="rclone was restarted")
    assert judged(known, app) == known, "the first broken promise stays"


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


@pytest.mark.parametrize("quick", [False, True])
def test_the_catalogue(quick: bool) -> None:
    """Rows find their fault again by its title; figures of a few runs are no measurement."""
    faults = catalogue(quick=quick)
    assert len({fault.title for fault in faults.values()}) == len(faults)
    assert all(fault.runs >= 20 for fault in faults.values())
    assert faults["kill"].runs + faults["kill-series"].runs >= 200


@pytest.mark.parametrize(
    ("short", "steady", "most"),
    [
        ([], [], 0),
        ([5.0], [], 1),
        ([], [5.0], 1),
        ([0.0, 1.0, 61.5], [], 2),
        ([0.0, 60.5, 121.0], [], 1),
        ([0.0, 50.0, 55.0, 70.0, 130.5], [], 3),
        ([10.0, 20.0], [0.0, 5.0, 30.0], 3),
        ([70.0, 80.0], [0.0, 5.0], 2),
    ],
)
def test_the_most_starts_within_a_minute(short: list[float], steady: list[float], most: int) -> None:
    lives = [(at, [(at, "starting"), (at + 0.1, "backoff")]) for at in short]
    lives += [(at, [(at, "starting"), (at + 0.1, "running"), (at + 3.1, "cleaning")]) for at in steady]
    assert most_that_count([change for _, changed in sorted(lives) for change in changed], 60.0) == most


def test_only_a_start_that_did_not_last_counts() -> None:
    steady = [(0.0, "starting"), (1.0, "running"), (3.0, "cleaning")]
    short = [(4.0, "starting"), (5.0, "running"), (6.9, "cleaning")]
    failed = [(7.0, "starting"), (7.1, "stopping"), (7.2, "cleaning"), (7.3, "backoff")]
    assert short_starts([*steady, *short, *failed, (9.0, "starting"), (9.5, "running")]) == [4.0, 7.0]
    assert short_starts([*steady, (9.0, "starting")]) == [9.0]


IDLE = Idle(seconds=60.0, interval_s=15.0, requests=5, kinds={"LIST": 5}, object_bytes=0, largest_bytes=900)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({}, ""),
        ({"requests": 8}, "8 requests"),
        ({"requests": 0}, "never asked"),
        ({"object_bytes": 1}, "1 bytes"),
        ({"largest_bytes": SMALL_BYTES + 1}, f" {SMALL_BYTES + 1} bytes"),
    ],
)
def test_what_an_idle_mount_may_ask(change: dict[str, Any], word: str) -> None:
    missed = replace(IDLE, **change).missed
    assert len(missed) == bool(word)
    assert word in "".join(missed)


HELD = Census(1, 28, 8, 1000, {"rclone": 1, "worker": 3})


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({}, ""),
        ({"memory_bytes": 1100, "threads": 8 + POOL_THREADS}, ""),
        ({"memory_bytes": 1101}, "memory"),
        ({"descriptors": 29}, "29 descriptors"),
        ({"mounts": 2}, "2 mounts"),
        ({"threads": 9 + POOL_THREADS}, "threads"),
        ({"below": {"rclone": 2, "worker": 3}}, "rclone"),
        ({"below": {"rclone": 1}}, ""),
    ],
)
def test_what_counts_as_a_leak(change: dict[str, Any], word: str) -> None:
    found = replace(HELD, **change).more_than(HELD, 0.10)
    assert len(found) == bool(word)
    assert word in "".join(found)


TURN = Turn(alone_s=2.0, switch_s=2.5, rollback_s=2.75, switch_command_s=3.5, rollback_command_s=4.0)
STEPS = [
    {"step": "verify", "began": "2026-01-01T00:00:00.000Z", "ended": "2026-01-01T00:00:09.000Z"},
    {"step": "stop", "began": "2026-01-01T00:00:09.100Z", "ended": "2026-01-01T00:00:10.000Z"},
    {"step": "flip", "began": "2026-01-01T00:00:10.010Z", "ended": "2026-01-01T00:00:10.020Z"},
    {"step": "ready", "began": "2026-01-01T00:00:10.030Z", "ended": "2026-01-01T00:00:11.350Z"},
    {"step": "commit", "began": "2026-01-01T00:00:11.400Z", "ended": "2026-01-01T00:00:20.000Z"},
]


def test_how_long_an_operation_took_its_app_away() -> None:
    assert down_s(STEPS) == pytest.approx(2.25)


@pytest.mark.parametrize(
    "steps", [[], STEPS[:1], STEPS[:2], STEPS[2:], [*STEPS[:3], {**STEPS[3], "ended": None}]], ids=len
)
def test_an_operation_that_did_not_get_there_has_no_such_time(steps: list[dict[str, str]]) -> None:
    with pytest.raises(ValueError, match="stop and ready"):
        down_s(steps)


@pytest.mark.parametrize(
    ("overheads", "word"),
    [
        ([LIMIT_S], ""),
        ([LIMIT_S + 0.01], " 1.01 s "),
        ([0.1, 0.1, 9.0], ""),
        ([0.1, 1.5, 1.5], " 1.50 s "),
    ],
)
@pytest.mark.parametrize("kind", ["switch", "rollback"])
def test_what_a_switch_may_cost(kind: str, overheads: list[float], word: str) -> None:
    turns = [replace(TURN, **{f"{kind}_s": TURN.alone_s + over}) for over in overheads]
    found = missed_by(turns)
    assert len(found) == bool(word)
    assert all(kind in text and word in text for text in found)


def test_overheads_are_differences_within_a_turn() -> None:
    """Of a machine that is slow for a while both grow, and their difference does not."""
    slow = Turn(*(value + 10.0 for value in (2.0, 2.5, 2.75, 3.5, 4.0)))
    assert missed_by([TURN, slow, slow]) == []
    assert rows([TURN, slow, slow])[1].over == Figures(0.5, 0.5, 0.5)


def test_the_table_of_turns() -> None:
    shown = table_of_turns(rows([TURN, replace(TURN, switch_s=3.25)]), 2).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in shown]
    assert cells[2][1:] == ["2", "2.00 s", "2.00 s", "2.00 s", "", "", ""]
    assert cells[3][1:] == ["2", "2.88 s", "3.25 s", "3.25 s", "0.88 s", "1.25 s", "1.25 s"]


@pytest.mark.parametrize(
    ("share", "value"), [(0.0, 1.0), (0.1, 1.0), (0.5, 5.0), (0.9, 9.0), (0.91, 10.0), (1.0, 10.0)]
)
def test_a_quantile_is_one_of_the_values(share: float, value: float) -> None:
    assert quantile([10.0, *(float(each) for each in range(1, 10))], share) == value


def test_what_is_fetched_twice_is_a_mark_missed_but_for_what_was_planted() -> None:
    assert not Fetch("rclone SIGKILL", 1000, 9).missed
    assert Fetch("rclone SIGKILL", 1000, 10).missed.startswith("1.0% ")
    planted = "wrong bytes after SIGKILL"
    assert not Fetch(planted, 1000, 1000).missed
    assert Fetch(planted, 1000, broken="AssertionError: other digests").missed == "AssertionError: other digests"
    runs = [Fetch(planted, 1000, 900, 1.0), Fetch(planted, 1000, 950, 0.5)]
    assert table_of_fetches(runs).splitlines()[-1] == f"| {planted} | 2 | 950 of 1,000 | 95.00% | 1.0 s | yes |"
