"""What waits for upload → when a drain is over, what is shown of it, and what rclone is asked."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountd.cache.upload_state import (
    FAILING_TRIES,
    HURRY_AGAIN_S,
    SILENT_S,
    DrainVerdict,
    Pending,
    UploadTries,
    hint_of_removed,
    judge,
    not_uploaded,
    progress,
    to_hurry,
)
from mountd.rclone.rc import Upload
from mountd.status.snapshot import DrainStatus

NOTHING, ONE = Pending(), Pending(1, 5, ("a.wav",))


@pytest.mark.parametrize(
    ("busy", "pending", "now", "heard", "verdict"),
    [
        (0, NOTHING, 0, 0, DrainVerdict.DRAINED),
        (0, NOTHING, 99, 99, DrainVerdict.DRAINED),
        (1, ONE, 59.9, 59, DrainVerdict.WAITING),
        (1, NOTHING, 1, 1, DrainVerdict.WAITING),
        (0, ONE, 1, 1, DrainVerdict.WAITING),  # a program still writes it
        (1, ONE, 60, 60, DrainVerdict.EXPIRED),
        (None, ONE, 9.9, 0, DrainVerdict.WAITING),
        (None, ONE, 10, 0, DrainVerdict.SILENT),
        (None, NOTHING, 0, 0, DrainVerdict.DRAINED),  # what is not on disk cannot be uploaded
        (None, ONE, 60, 0, DrainVerdict.EXPIRED),
    ],
)
def test_when_a_drain_is_over(
    busy: int | None, pending: Pending, now: float, heard: float, verdict: DrainVerdict
) -> None:
    assert SILENT_S == 10
    assert judge(busy, pending, now=now, heard=heard, deadline=60) is verdict


all_facts = st.tuples(
    st.none() | st.integers(0, 9),
    st.builds(lambda files, size: Pending(files, files * size), st.integers(0, 9), st.integers(0, 99)),
)


@given(all_facts, st.floats(0, 100), st.floats(0, 100))
def test_nothing_that_waits_is_ever_called_drained(facts: tuple[int | None, Pending], now: float, heard: float) -> None:
    busy, pending = facts
    drained = judge(busy, pending, now=now, heard=heard, deadline=60) is DrainVerdict.DRAINED
    assert drained == (not pending.files and not busy)


@given(st.lists(all_facts, min_size=1))
def test_progress_never_shows_more_left_than_there_is(steps: list[tuple[int | None, Pending]]) -> None:
    shown: DrainStatus | None = None
    for busy, pending in steps:
        before, shown = shown, progress(shown, busy, pending)
        assert 0 <= shown.open <= shown.files_left <= shown.files
        assert shown.bytes_left == pending.bytes
        assert before is None or shown.files >= before.files


def test_progress() -> None:
    begun = progress(None, 7, Pending(7, 28 << 20))
    assert begun == DrainStatus(7, 7, 28 << 20)
    later = progress(begun, 2, Pending(3, 12 << 20))
    assert later == DrainStatus(7, 3, 12 << 20, open=1)
    one_more = progress(later, 0, Pending(4, 13 << 20))
    assert (one_more.files, one_more.files_left, one_more.bytes_left) == (8, 4, 13 << 20)


def test_only_what_waits_for_the_time_is_hurried_and_not_all_the_time() -> None:
    waiting = Upload(1, "a", 1.5, False)
    queue = [waiting, replace(waiting, id=2, uploading=True), replace(waiting, id=3, due_s=-0.1)]
    assert to_hurry(queue, {}, 100.0) == [1]
    assert to_hurry(queue, {1: 100.0}, 100.0 + HURRY_AGAIN_S - 0.1) == []
    assert to_hurry(queue, {1: 100.0}, 100.0 + HURRY_AGAIN_S) == [1]


FAILED = (
    "vfs cache: failed to upload try #{}, will retry in 2s: vfs cache: failed to transfer file from cache to remote: "
    "AccessDenied: no"
)


def test_uploads_that_fail_repeatedly_are_reported() -> None:
    tries = UploadTries().heard("vfs cache: queuing for upload in 1s")
    for number in range(1, FAILING_TRIES):
        tries = tries.heard(FAILED.format(number))
        assert tries.reason("outputs", 2) is None
    tries = tries.heard(FAILED.format(FAILING_TRIES)).heard("something else")
    assert tries.cause == "AccessDenied: no"
    reason = tries.reason("outputs", 2)
    assert reason is not None
    assert reason.code == "uploads-failing"
    assert reason.object == "outputs"
    assert re.findall(r"\d+", reason.text) == ["2", str(FAILING_TRIES)], "files, tries"
    assert reason.text.endswith(tries.cause)
    assert reason.hint
    assert tries.reason("outputs", 0) is None
    assert tries.heard("vfs cache: upload succeeded try #1").failed  # of a file that never failed
    assert not tries.heard("vfs cache: upload succeeded try #4").failed


def test_what_is_left_is_reported() -> None:
    reason = not_uploaded("outputs", ONE, "/cache")
    assert (reason.code, reason.object) == ("uploads-pending", "outputs")
    assert "a.wav" in reason.text
    assert "/cache" in reason.hint


@pytest.mark.parametrize(
    ("pending", "shown"),
    [
        (ONE, "1 file (a.wav; "),
        (Pending(2, 5, ("a", "b")), "2 files (a, b; "),
        (Pending(3, 5, ("a", "b")), "3 files (a, b and 1 more; "),
    ],
)
def test_what_waits_is_named_and_what_is_not_is_counted(pending: Pending, shown: str) -> None:
    assert str(pending).startswith(shown)
    assert shown in not_uploaded("outputs", pending, "/cache").text


def test_what_a_removed_mount_has_left_has_no_next_start() -> None:
    hint = hint_of_removed("outputs", "/cache")
    assert ("/cache" in hint, "configure outputs" in hint) == (True, True)
