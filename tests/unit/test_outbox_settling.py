"""Which files belong to an outbox, and when one is finished."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountd.outbox.settling import OWN_PREFIX, FileLook, Settling, belongs, enters

EXCLUDE = (".*", "*.tmp", "drafts/*")
LOOK = FileLook(10, 1, 2, 3)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("a.wav", True),
        ("d/e/a.wav", True),
        ("a.tmp", False),
        ("a.tmp/b.wav", False),  # a directory too
        (".a.wav", False),
        (".cache/a.wav", False),
        ("d/.cache/a.wav", False),
        ("drafts/a.wav", False),
        ("d/drafts/a.wav", True),  # a pattern with / means the whole path
        ("a.mp3", False),
        (f"{OWN_PREFIX}1", False),
    ],
)
def test_patterns_choose_files(path: str, found: bool) -> None:
    assert belongs(path, ("*.wav",), EXCLUDE) is found


def test_what_is_being_removed_never_belongs() -> None:
    assert not belongs(f"d/{OWN_PREFIX}7", ("*",), ())
    assert belongs(".a", ("*",), ())


@pytest.mark.parametrize(
    ("path", "found"), [("", True), ("d", True), (".d", False), ("d/.e/f", False), ("x.tmp", False)]
)
def test_directories_are_entered_that_may_hold_something(path: str, found: bool) -> None:
    assert enters(path, EXCLUDE) is found


def test_a_file_is_finished_once_it_has_been_still() -> None:
    it = Settling(5.0, 100)
    it.look("a", LOOK, 100.0)
    it.look("a", LOOK, 104.0)  # the same look does not begin the time again
    assert it.due(104.9, 9) == []
    assert it.next_due() == 105.0
    assert it.due(105.0, 9) == [("a", LOOK)]
    it.finish("a")
    assert (it.due(200.0, 9), it.next_due(), it.unfinished, len(it)) == ([], None, 0, 1)
    it.look("a", LOOK, 200.0)
    assert it.unfinished == 0


@pytest.mark.parametrize("field", range(4))
def test_each_change_begins_the_time_again(field: int) -> None:
    it = Settling(5.0, 100)
    it.look("a", LOOK, 0.0)
    changed = FileLook(*(value + (at == field) for at, value in enumerate(LOOK)))
    it.look("a", changed, 4.0)
    assert it.due(5.0, 9) == []
    assert it.due(9.0, 9) == [("a", changed)]
    it.finish("a")
    it.look("a", LOOK, 10.0)
    assert it.due(15.0, 9) == [("a", LOOK)]


def test_one_that_is_written_to_waits_once_more() -> None:
    it = Settling(5.0, 100)
    it.look("a", LOOK, 0.0)
    it.look("b", LOOK, 1.0)
    it.busy("a", 5.0)
    it.busy("unknown", 5.0)
    assert it.due(6.0, 9) == [("b", LOOK)]
    assert it.due(10.0, 9) == [("b", LOOK), ("a", LOOK)]
    assert it.due(10.0, 1) == [("b", LOOK)]


def test_only_what_was_reported_is_reported_as_gone() -> None:
    it = Settling(1.0, 100)
    it.look("a", LOOK, 0.0)
    assert not it.forget("a")
    it.look("a", LOOK, 0.0)
    it.finish("a")
    assert it.forget("a")
    assert not it.forget("a")
    assert it.paths() == set()


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2), st.floats(0, 3)), max_size=40))
def test_no_file_is_due_before_it_has_been_still(steps: list[tuple[str, int, float]]) -> None:
    it, now, since = Settling(5.0, 100), 0.0, {}
    last: dict[str, FileLook] = {}
    for name, size, pause in steps:
        now += pause
        look = FileLook(size, 0, 0, 0)
        if last.get(name) != look:
            last[name], since[name] = look, now
        it.look(name, look, now)
        due = it.due(now, 99)
        assert dict(due) == {each: last[each] for each in last if now - since[each] >= 5.0}
        assert it.next_due() == pytest.approx(min(since.values()) + 5.0)


@given(st.builds(FileLook, *(st.integers(0, 2**64) for _ in range(4))))
def test_a_look_comes_back_from_the_journal(look: FileLook) -> None:
    assert FileLook.of(look.size, look.stamp) == look


def test_of_more_files_than_are_remembered_none_is_lost_sight_of() -> None:
    it = Settling(5.0, 2)
    for name in "abc":
        it.look(name, LOOK, 0.0)
    assert it.is_full  # the next scan finds the third
    assert [path for path, _ in it.due(9.0, 9)] == ["a", "b"]
    it.finish("a")
    it.finish("b")
    assert not it.forget("elsewhere")
    it.remember("c", LOOK)  # in the journal alone
    assert "c" not in it
    assert it.forget("c")  # it may have been reported
    it.look("a", LOOK._replace(size=11), 9.0)
    it.remember("a", LOOK)  # what was known of it is older
    assert it.due(20.0, 9) == [("a", LOOK._replace(size=11))]
    it.look("d", LOOK, 20.0)
    it.look("b", LOOK._replace(size=12), 20.0)  # no room now: it is still known to have been reported
    assert "b" in it
    assert it.unfinished == 2
