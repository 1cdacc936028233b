"""What is read next: order, preference, the end, failures; and for every course of events that nothing is left out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountd.cache.reindex import covers, merged
from mountd.warm.plan import (
    HOPELESS_FAILURES,
    LONGEST_PAUSE_S,
    MIB,
    MOST_OPEN,
    Opening,
    Piece,
    PieceSizes,
    Plan,
    Splitting,
    WantedFile,
    pause_s,
)

SIZES = PieceSizes(8 * MIB, 2 * MIB)


def planned(*sizes_mib: float) -> Plan:
    """Files `f0`, `f1`, … of so many MiB."""
    return Plan([WantedFile(f"f{number}", int(size * MIB)) for number, size in enumerate(sizes_mib)], SIZES)


def next_piece(plan: Plan, readers: int = 1, now: float = 0.0) -> Piece:
    """With the files before it opened, of which nothing is there."""
    while isinstance(found := plan.take(readers, now), Opening):
        plan.opened(found.index, [])
    assert isinstance(found, Piece), found
    return found


def finish(plan: Plan, piece: Piece) -> None:
    plan.read(piece.id, piece.end)
    if plan.done(piece.index) == ((0, piece.end),) and not plan.bytes_left:
        plan.finish(piece.index)


def in_mib(piece: Piece) -> tuple[int, float, float]:
    return piece.index, piece.begin / MIB, piece.end / MIB


def course(plan: Plan, readers: int = 1) -> list[tuple[int, float, float]]:
    """All pieces, each read before the next one is asked for."""
    found = []
    while plan.bytes_left:
        piece = next_piece(plan, readers)
        found.append(in_mib(piece))
        plan.read(piece.id, piece.end)
    return found


def test_files_in_order_and_each_from_its_beginning() -> None:
    assert course(planned(20, 0.5, 0, 3)) == [(0, 0, 8), (0, 8, 20), (1, 0, 0.5), (3, 0, 3)]


def test_a_small_file_is_one_piece_and_so_is_a_remainder() -> None:
    assert course(planned(12)) == [(0, 0, 12)]
    assert course(planned(25)) == [(0, 0, 8), (0, 8, 16), (0, 16, 25)]


def test_each_reader_gets_an_equal_share_of_what_is_left() -> None:
    plan = planned(32)
    assert [in_mib(next_piece(plan, readers=8)) for _ in range(8)] == [(0, 4 * n, 4 * n + 4) for n in range(8)]
    plan = planned(4)
    assert [in_mib(next_piece(plan, readers=8)) for _ in range(2)] == [(0, 0, 2), (0, 2, 4)]


def test_at_the_end_a_free_reader_takes_half_of_the_largest_rest() -> None:
    plan = planned(20)
    first, second = next_piece(plan), next_piece(plan)
    plan.progress(first.id, 7 * MIB)
    plan.progress(second.id, 10 * MIB)
    split = plan.take(3, 0.0)
    assert split == Splitting(second.id, 15 * MIB)
    assert plan.take(3, 0.0) is None, "the other one has too little left, and this one is asked already"
    plan.trimmed(second.id, 16 * MIB)  # the reader was further by then
    assert in_mib(next_piece(plan)) == (0, 16, 20)
    plan.read(second.id, 16 * MIB)
    assert plan.done(0) == ((8 * MIB, 16 * MIB),)


def test_a_reader_that_stopped_earlier_than_was_known_leaves_the_rest() -> None:
    plan = planned(12)
    piece = next_piece(plan)
    plan.read(piece.id, 5 * MIB)
    plan.trimmed(piece.id, 5 * MIB)  # too late to matter
    assert in_mib(next_piece(plan)) == (0, 5, 12)


def test_what_is_preferred_goes_first_from_now_on() -> None:
    plan = planned(20, 9, 9)
    assert in_mib(next_piece(plan)) == (0, 0, 8)
    plan.prefer(["f2", "unknown", "f1", "f2"])
    assert [in_mib(next_piece(plan)) for _ in range(2)] == [(2, 0, 9), (1, 0, 9)]
    plan.prefer(["f0"])
    assert in_mib(next_piece(plan)) == (0, 8, 20)


def test_what_is_there_is_not_read() -> None:
    plan = planned(20)
    assert plan.take(1, 0.0) == Opening(0)
    plan.opened(0, [(0, MIB), (4 * MIB, 16 * MIB)])
    assert (plan.bytes_done, plan.bytes_left, plan.bytes_read) == (13 * MIB, 7 * MIB, 0)
    assert [in_mib(next_piece(plan)) for _ in range(2)] == [(0, 1, 4), (0, 16, 20)]


def test_no_more_files_are_open_than_may_be() -> None:
    plan = planned(*[1] * (MOST_OPEN + 5))
    for index in range(MOST_OPEN):
        assert plan.take(32, 0.0) == Opening(index)
    assert plan.take(32, 0.0) is None
    plan.opened(3, [])
    assert isinstance(plan.take(32, 0.0), Piece)
    plan.finish(3)
    assert plan.take(32, 0.0) == Opening(MOST_OPEN)


def test_a_file_that_fails_waits_and_others_go_on() -> None:
    plan = planned(20, 4)
    piece = next_piece(plan)
    plan.failed(0, 100.0, piece.id, 3 * MIB)
    assert in_mib(next_piece(plan, now=100.1)) == (1, 0, 4)
    assert plan.take(1, 100.1) is None
    assert in_mib(next_piece(plan, now=100.0 + pause_s(1))) == (0, 3, 8)


def test_when_nothing_works_all_wait_and_longer_each_time() -> None:
    plan, now, tries = planned(*[1] * 1000), 0.0, 0
    while now < 60:
        found = plan.take(8, now)
        if isinstance(found, Opening):
            plan.failed(found.index, now)
            tries += 1
        elif found is None:
            now += 0.25
    assert plan.is_failing
    assert tries < 60 / LONGEST_PAUSE_S + 10


def test_failures_at_the_same_time_count_once() -> None:
    plan = planned(40)
    pieces = [next_piece(plan) for _ in range(4)]
    for piece in pieces:
        plan.failed(0, 0.0, piece.id, piece.begin)
    assert plan.failures(0) == 1
    assert isinstance(plan.take(4, pause_s(1)), Piece)


@pytest.mark.parametrize("others_work", [True, False])
def test_a_file_is_given_up_only_when_others_can_be_read(others_work: bool) -> None:
    plan, now = planned(1, 100), 0.0
    for number in range(HOPELESS_FAILURES):
        assert not plan.is_hopeless(0)
        plan.prefer(["f0"])
        piece = next_piece(plan, now=now)
        assert piece.index == 0
        plan.failed(0, now, piece.id, 0)
        if others_work and number == 2:
            plan.prefer(["f1"])
            other = next_piece(plan, now=now + LONGEST_PAUSE_S)
            plan.progress(other.id, other.begin + 1)
        now += LONGEST_PAUSE_S
    assert plan.is_hopeless(0) == others_work


def test_a_byte_of_a_file_ends_its_failures() -> None:
    plan = planned(20)
    piece = next_piece(plan)
    plan.failed(0, 0.0, piece.id, 0)
    piece = next_piece(plan, now=9.0)
    plan.failed(0, 9.0, piece.id, MIB)
    assert plan.failures(0) == 1


def test_pauses() -> None:
    assert [pause_s(number) for number in (0, 1, 2, 3, 100)] == [0, 0.25, 0.5, 1, LONGEST_PAUSE_S]


def test_what_is_discarded_is_read_again_from_nothing() -> None:
    plan = planned(4, 4)
    finish(plan, next_piece(plan))
    plan.discard(0)
    assert plan.bytes_done == 0
    assert in_mib(next_piece(plan)) == (0, 0, 4)


def test_after_the_reader_died_files_are_opened_again_with_what_is_there() -> None:
    plan = planned(20, 4)
    first, second = next_piece(plan), next_piece(plan)
    plan.progress(first.id, 2 * MIB)
    plan.read(second.id, second.end)
    plan.restart()
    assert plan.take(1, 0.0) == Opening(0)
    assert plan.done(0) == ((0, 2 * MIB), (8 * MIB, 20 * MIB))
    plan.opened(0, plan.done(0))
    assert in_mib(next_piece(plan)) == (0, 2, 8)
    assert plan.bytes_done == 14 * MIB


def test_what_was_given_up_is_no_longer_waited_for() -> None:
    plan = planned(20, 4)
    piece = next_piece(plan)
    plan.finish(0)
    plan.finish(0)
    assert plan.files_done == 1
    plan.failed(0, 0.0, piece.id, MIB)
    assert not plan.is_failing
    assert plan.bytes_left == 4 * MIB
    plan.finish(1)
    assert plan.is_finished
    assert plan.take(8, 0.0) is None


@given(st.lists(st.integers(0, 60 * MIB), max_size=8), st.integers(1, 12), st.data())
def test_every_byte_is_read_once_whatever_happens(sizes: list[int], readers: int, data: st.DataObject) -> None:
    plan = Plan([WantedFile(f"f{number}", size) for number, size in enumerate(sizes)], SIZES)
    read: dict[int, list[tuple[int, int]]] = {number: [] for number in range(len(sizes))}
    flight: list[Piece] = []
    openings: list[int] = []
    now = 0.0

    def note(piece: Piece, at: int) -> None:
        if piece.begin < at:
            assert not any(begin < at and piece.begin < end for begin, end in read[piece.index])
            read[piece.index].append((piece.begin, at))

    for _ in range(3000):
        if plan.is_finished:
            break
        now += LONGEST_PAUSE_S
        while len(flight) + len(openings) < readers:
            match plan.take(readers, now):
                case Opening(index):
                    openings.append(index)
                case Piece() as piece:
                    flight.append(piece)
                case Splitting(piece_id, end):
                    piece = next(each for each in flight if each.id == piece_id)
                    assert piece.at < end < piece.end
                    plan.trimmed(piece_id, max(end, piece.at))
                case None:
                    break
        event = data.draw(st.sampled_from(["read", "read", "read", "progress", "fail", "restart", "prefer"]))
        if openings:
            index = openings.pop(0)
            if event == "fail":
                plan.failed(index, now)
            else:
                plan.opened(index, plan.done(index))
        elif flight and event in ("read", "fail", "progress"):
            piece = flight[data.draw(st.integers(0, len(flight) - 1))]
            at = piece.end if event == "read" else data.draw(st.integers(piece.at, piece.end))
            if event == "progress":
                plan.progress(piece.id, at)
                continue
            flight.remove(piece)
            note(piece, at)
            if event == "read":
                plan.read(piece.id, at)
            else:
                plan.failed(piece.index, now, piece.id, at)
        elif event == "restart":
            for piece in flight:
                note(piece, piece.at)
            plan.restart()
            flight.clear()
            openings.clear()
        elif event == "prefer" and sizes:
            plan.prefer([f"f{data.draw(st.integers(0, len(sizes) - 1))}"])
        for index, size in enumerate(sizes):
            whole = ((0, size),)
            if index not in openings and plan.is_wanted(index) and covers(plan.done(index), whole):
                assert covers(merged(read[index]), whole)
                plan.finish(index)
    assert plan.is_finished
    assert plan.bytes_done == plan.bytes_read == plan.bytes_total == sum(sizes)
    assert plan.bytes_left == 0
