"""What only grows, and the last minutes of traffic: over lives that count from 0, and reports at any time."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountd.status.board import Board
from mountd.status.meters import (
    TRAFFIC_INTERVAL_S,
    TRAFFIC_KEPT,
    DurationCounts,
    Meters,
    MountMeters,
    OperationMeters,
    Tally,
    Traffic,
)
from mountd.status.snapshot import AppStatus, CacheStatus, DriftStatus
from tests.support.shelf import MOUNT

COUNT = st.integers(0, 1000)


@given(st.lists(COUNT))
def test_a_total_never_falls_and_has_all_of_each_life(counts: list[int]) -> None:
    tally, seen = Tally(), []
    for count in counts:
        tally.seen(count)
        seen.append(tally.total)
    assert seen == sorted(seen)
    lives = [before for before, after in zip(counts, [*counts[1:], -1], strict=False) if after < before]
    assert tally.total == sum(lives)


@given(st.lists(st.tuples(COUNT, st.booleans())))
def test_a_count_that_falls_within_a_life_adds_nothing(looks: list[tuple[int, bool]]) -> None:
    tally, expected, last = Tally(), 0, 0
    for count, is_new in looks:
        grown = max(0, count - (0 if is_new else last))
        assert tally.seen(count, is_new=is_new) == grown
        expected, last = expected + grown, count
        assert tally.total == expected


@given(st.lists(st.floats(0, 20)))
def test_each_duration_counts_once_below_its_bound(durations: list[float]) -> None:
    counted = DurationCounts((0.1, 1.0, 10.0))
    for each in durations:
        counted.add(each)
    assert sum(counted.counts) == len(durations)
    for index, bound in enumerate(counted.bounds):
        assert sum(counted.counts[: index + 1]) == sum(each <= bound for each in durations)
    assert counted.total_s == pytest.approx(sum(durations))


# -- traffic ----------------------------------------------------------------------------------------------------------


def rates(traffic: Traffic, now: float) -> list[float]:
    return [each.fetched_bytes_per_s for each in traffic.last(now)]


def test_nothing_is_known_before_the_first_report() -> None:
    assert list(Traffic().last(100.0)) == []


def test_a_report_each_interval_is_a_sample_each() -> None:
    traffic = Traffic()
    for number, fetched in enumerate((0, 50, 100)):
        traffic.add(100.0 + 5 * number, fetched=fetched, uploaded=2 * fetched, cache_bytes=7 * number)
    found = traffic.last(110.0)
    assert [each.fetched_bytes_per_s for each in found] == [0, 10, 20]
    assert [each.uploaded_bytes_per_s for each in found] == [0, 20, 40]
    assert [each.cache_bytes for each in found] == [0, 7, 14]


@pytest.mark.parametrize(
    ("looks", "expected"),
    [
        (((2.0, 100), (4.0, 100)), [0, 50]),  # too soon: with the next one
        (((2.0, 100),), [0]),
        (((15.0, 300),), [0, 20, 20, 20]),  # a report that was late: evenly over that time
        (((4.9, 49), (10.0, 51)), [0, 10, 10]),
    ],
)
def test_reports_at_other_times(looks: tuple[tuple[float, int], ...], expected: list[float]) -> None:
    traffic = Traffic()
    traffic.add(0.0, fetched=0, uploaded=0, cache_bytes=0)
    for at, fetched in looks:
        traffic.add(at, fetched=fetched, uploaded=0, cache_bytes=0)
    assert rates(traffic, looks[-1][0]) == pytest.approx(expected)


def test_without_reports_nothing_moves() -> None:
    traffic = Traffic()
    traffic.add(0.0, fetched=500, uploaded=0, cache_bytes=9)
    assert rates(traffic, 9.9) == [100], "the next report may be on its way"
    assert rates(traffic, 20.0) == [100, 0, 0, 0]
    assert {each.cache_bytes for each in traffic.last(20.0)} == {9}
    assert rates(traffic, 1e6) == [0] * TRAFFIC_KEPT


@given(st.lists(st.tuples(st.floats(0.5, 900), COUNT), min_size=1))
def test_no_byte_is_lost_and_none_is_doubled_within_the_ten_minutes(looks: list[tuple[float, int]]) -> None:
    traffic, now, given_bytes, elapsed_s = Traffic(), 0.0, 0, 0.0
    traffic.add(now, fetched=0, uploaded=0, cache_bytes=0)
    for pause_s, fetched in looks:
        now, given_bytes, elapsed_s = now + pause_s, given_bytes + fetched, elapsed_s + pause_s
        traffic.add(now, fetched=fetched, uploaded=0, cache_bytes=0)
        found = rates(traffic, now)
        assert len(found) <= TRAFFIC_KEPT
        if elapsed_s > TRAFFIC_INTERVAL_S * TRAFFIC_KEPT:
            return
    # A report that comes between two samples is one or the other: each may be half as long again.
    assert sum(found) * TRAFFIC_INTERVAL_S <= 2 * given_bytes + 1e-6


# -- of the daemon ----------------------------------------------------------------------------------------------------


def test_the_board_counts_what_is_put_on_it() -> None:
    board = Board()
    for unasked in (0, 1, 1, 3):
        board.set_mount("storage", replace(MOUNT, unasked=unasked, cache=CacheStatus(bytes_used=unasked)))
        board.set_app("webui", AppStatus(unasked=2 * unasked))
    assert board.meters.mounts["storage"].restarts.total == 3
    assert board.meters.mounts["storage"].cache_bytes == 3
    assert board.meters.apps["webui"].restarts.total == 6
    board.remove("mounts", "storage")
    board.set_mount("storage", replace(MOUNT, unasked=0))
    board.set_mount("storage", replace(MOUNT, unasked=1))
    assert board.meters.mounts["storage"].restarts.total == 4, "it counts on under its name"


def test_a_link_that_drifts_and_is_healed() -> None:
    from tests.unit.test_documents import MODEL

    meters = Meters()
    for times, heals in ((0, 0), (2, 1), (3, 3)):
        meters.saw_model("hub", replace(MODEL, drift=DriftStatus(times=times, heals=heals)))
    assert (meters.models["hub"].drifts.total, meters.models["hub"].heals.total) == (3, 3)


def test_moved_bytes_are_in_the_total_and_in_the_traffic() -> None:
    meters = MountMeters(cache_bytes=11)
    meters.moved(100.0, fetched=10, uploaded=0)
    meters.moved(105.0, fetched=5, uploaded=20)
    assert (meters.fetched, meters.uploaded) == (15, 20)
    last = meters.traffic.last(105.0)[-1]
    assert (last.fetched_bytes_per_s, last.uploaded_bytes_per_s, last.cache_bytes) == (1, 4, 11)


def test_operations_by_kind_and_result() -> None:
    meters = OperationMeters()
    meters.finished("switch", "committed", 3.0)
    meters.finished("switch", "committed", 700.0)
    meters.finished("switch", "interrupted", None)
    assert meters.results == {("switch", "committed"): 2, ("switch", "interrupted"): 1}
    assert (sum(meters.durations["switch"].counts), meters.durations["switch"].total_s) == (2, 703.0)
