"""What becomes of a file that was found, what a failed upload means, and what an outbox shows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mountd.journal.records import OutboxFile
from mountd.journal.results import OutboxTotals
from mountd.outbox.plan import (
    LASTS_S,
    DirectoryFacts,
    Place,
    Sending,
    StoredObject,
    compared,
    differs_by_md5_alone,
    is_there,
    judge,
    longest_upload_s,
    mismatch,
    new,
    status,
)
from mountd.outbox.settling import FileLook
from mountd.status.results import OutboxStatus
from mountd.status.snapshot import Health, Reason

LOOK = FileLook(10, 1, 2, 3)
ROW = OutboxFile(
    *(7, "results", b"a.wav", "uploaded", 10, LOOK.stamp, "5", "ab", "cd", "b", "p/a.wav", "", 0),
    queued="2026-01-01T00:00:00Z",
    uploaded="2026-01-01T00:00:01Z",
    event=12,
)
PLACE = Place("b", "p")
TOTALS = OutboxTotals(0, 0, "", 0, "", 5, "p/a.wav", "2026-01-01T00:00:01Z")
BEFORE = OutboxStatus("/srv/outputs", "store:b/p")
CAUSE = Reason("bucket-down", "the store does not answer", "outbox", "results", "look at the network")


@pytest.mark.parametrize(
    ("remote", "place"),
    [
        ("store:bucket", Place("bucket", "")),
        ("store:bucket/a/b", Place("bucket", "a/b")),
        ("hidden:", Place("", "")),
        ("store:/bucket/a", Place("bucket", "a")),
    ],
)
def test_a_place_has_a_bucket_and_a_prefix(remote: str, place: Place) -> None:
    assert Place.of(remote) == place
    assert place.key("x/y") == (f"{place.prefix}/x/y" if place.prefix else "x/y")


def test_a_new_file_is_queued() -> None:
    found = judge([(b"a.wav", "a.wav", LOOK)], {}, PLACE, "5")
    ((put,), restamp, returned) = found.put, found.restamp, found.returned
    assert (put.state, put.size, put.stamp, put.event) == ("queued", 10, LOOK.stamp, None)
    assert (restamp, returned) == ({}, [])


@pytest.mark.parametrize("state", ["queued", "uploading", "uploaded", "removed", "failed", "refused"])
@pytest.mark.parametrize("field", [0, 1, 2])
def test_a_file_that_was_written_again_is_queued_again(state: str, field: int) -> None:
    changed = FileLook(*(value + (at == field) for at, value in enumerate(LOOK)))
    (put,) = judge([(b"a.wav", "a.wav", changed)], {b"a.wav": replace(ROW, state=state)}, PLACE, "5").put
    assert (put.state, put.stamp, put.sha256, put.event) == ("queued", changed.stamp, "", None)


@pytest.mark.parametrize(
    ("state", "put", "restamped", "returned"),
    [
        ("queued", 0, 1, 0),
        ("uploading", 0, 1, 0),
        ("failed", 0, 1, 0),
        ("uploaded", 1, 0, 0),  # its content is compared
        ("removed", 1, 0, 0),
        ("lost", 1, 0, 0),
    ],
)
def test_another_ctime_alone_is_no_other_content(state: str, put: int, restamped: int, returned: int) -> None:
    found = judge([(b"a.wav", "a.wav", LOOK._replace(ctime_ns=9))], {b"a.wav": replace(ROW, state=state)}, PLACE, "5")
    assert (len(found.put), len(found.restamp), len(found.returned)) == (put, restamped, returned)
    if state in ("uploaded", "removed"):
        assert (found.put[0].sha256, found.put[0].event) == (ROW.sha256, ROW.event)


@pytest.mark.parametrize(
    ("state", "put", "returned"), [("queued", 0, 0), ("uploaded", 0, 0), ("removed", 0, 1), ("lost", 1, 0)]
)
def test_a_file_that_is_as_it_was(state: str, put: int, returned: int) -> None:
    found = judge([(b"a.wav", "a.wav", LOOK)], {b"a.wav": replace(ROW, state=state)}, PLACE, "5")
    assert (len(found.put), len(found.restamp), len(found.returned)) == (put, 0, returned)


@pytest.mark.parametrize(
    ("state", "root", "look", "is_new"),
    [
        *((state, "5", LOOK, False) for state in ("queued", "uploading", "uploaded", "failed")),
        *((state, "5", LOOK, True) for state in ("removed", "lost", "refused")),
        ("queued", "6", LOOK, True),  # in another directory
        ("uploaded", "6", LOOK, False),
        ("uploaded", "5", LOOK._replace(size=11), True),
        ("uploaded", "5", LOOK._replace(ctime_ns=9), True),
    ],
)
def test_a_file_that_the_journal_has_as_it_is_is_not_new(state: str, root: str, look: FileLook, is_new: bool) -> None:
    known = {b"a.wav": replace(ROW, state=state)}
    files = [(b"b.wav", "b.wav", LOOK), (b"a.wav", "a.wav", look)]
    assert new(files, known, PLACE, root) == ([0, 1] if is_new else [0])


@pytest.mark.parametrize("name", [b"\xff.wav", b"a\nb", b"x" * 256, b"d/" * 600 + b"x", "／".encode()])
def test_a_name_that_cannot_be_a_key_is_refused(name: bytes) -> None:
    path = name.decode("utf-8", "surrogateescape")
    (put,) = judge([(name, path, LOOK)], {}, PLACE, "5").put
    assert put.state == "refused"
    assert put.cause


@pytest.mark.parametrize(
    ("state", "prefix", "now"),
    [
        ("refused", "p", "queued"),  # it was refused because of a longer prefix
        ("refused", "p" * 1020, None),
        ("queued", "p" * 1020, "refused"),
        ("failed", "p" * 1020, "refused"),
        ("uploaded", "p" * 1020, None),
        ("queued", "p", None),
    ],
)
def test_a_file_is_judged_again_by_another_prefix(state: str, prefix: str, now: str | None) -> None:
    found = judge([(b"a.wav", "a.wav", LOOK)], {b"a.wav": replace(ROW, state=state)}, Place("b", prefix), "5")
    assert [each.state for each in found.put] == ([now] if now else [])


@pytest.mark.parametrize(
    ("stored", "is_well", "is_certain", "by_md5_alone"),
    [
        (None, False, False, False),
        (StoredObject(10, "", ""), True, False, False),  # the store says no more: an earlier object may be as large
        (StoredObject(9, "cd", "ab"), False, False, False),
        (StoredObject(9, "ce", "ab"), False, False, False),
        (StoredObject(10, "cd", ""), True, True, False),
        (StoredObject(10, "ce", ""), False, False, False),
        (StoredObject(10, "", "ab"), True, True, False),
        (StoredObject(10, "", "ac"), False, False, False),
        (StoredObject(10, "cd", "ab"), True, True, False),
        (StoredObject(10, "ce", "ac"), False, False, False),
        (StoredObject(10, "ce", "ab"), False, False, True),  # an ETag of KMS, or other content
    ],
)
def test_an_upload_is_verified_by_what_the_store_says(
    stored: StoredObject | None, is_well: bool, is_certain: bool, by_md5_alone: bool
) -> None:
    assert (mismatch(ROW, stored) == "") is is_well
    assert is_there(ROW, stored) is is_certain
    assert differs_by_md5_alone(ROW, stored) is by_md5_alone


@pytest.mark.parametrize(
    ("stored", "by"),
    [
        (StoredObject(10, "", ""), ["size"]),
        (StoredObject(10, "cd", ""), ["size", "md5"]),
        (StoredObject(10, "", "ab"), ["size", "sha256"]),
        (StoredObject(10, "cd", "ab"), ["size", "md5", "sha256"]),
    ],
)
def test_what_was_compared_is_known(stored: StoredObject, by: list[str]) -> None:
    assert compared(stored) == by


@pytest.mark.parametrize(
    ("size", "limit", "parallel", "least_s"),
    [
        (0, None, 1, 3600.0),
        (200 * 10**9, None, 4, 200 * 10**9 / 1e6),  # over a line of 1 MB/s: more than two days
        (200 * 10**9, 10**6, 4, 200 * 10**9 / (10**6 / 4)),  # four share what the admin allows
        (10**9, 10**4, 4, 10**9 / (10**4 / 4)),
    ],
)
def test_a_large_file_has_the_time_that_it_needs(size: int, limit: int | None, parallel: int, least_s: float) -> None:
    assert longest_upload_s(size, limit, parallel) >= least_s


def test_failures_in_a_row_make_the_pauses_longer_and_try_one_at_a_time() -> None:
    it, now = Sending(), 100.0
    assert (it.wait_s(now), it.at_once(4, [], now)) == (0.0, 4)
    pauses = []
    for _ in range(9):
        it = it.failed(CAUSE, now)
        pauses.append(it.wait_s(now))
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert (it.wait_s(now + 59), it.wait_s(now + 61)) == (1, 0)
    assert it.at_once(4, [], now) == 1
    it = it.uploaded(now + 5)
    assert (it.wait_s(now + 5), it.at_once(4, [], now), it.cause) == (0.0, 4, None)


@pytest.mark.parametrize(
    ("begun", "now", "at_once"),
    [
        ([], 110.0, 1),
        ([105.0], 110.0, 1),  # it tries
        ([90.0], 110.0, 2),  # it was under way when another one failed
        ([90.0, 105.0], 110.0, 2),
        ([105.0], 105.0 + LASTS_S + 1, 2),  # a large file: it would have failed by now
        ([90.0, 91.0, 92.0, 93.0], 110.0, 4),
    ],
)
def test_what_fails_is_tried_again_beside_what_goes_on(begun: list[float], now: float, at_once: int) -> None:
    assert Sending().failed(CAUSE, 100.0).at_once(4, begun, now) == at_once


@pytest.mark.parametrize(
    ("tries", "last_upload", "own"), [(4, 100.0, False), (5, 100.0, True), (5, 9.0, False), (50, 9.0, False)]
)
def test_a_file_fails_for_its_own_reason_when_others_do_not(tries: int, last_upload: float, own: bool) -> None:
    assert Sending(3, CAUSE, last_upload).is_of_the_file(tries, first_failed=10.0) is own


@pytest.mark.parametrize(
    ("totals", "sending", "facts", "late", "code", "health"),
    [
        (TOTALS, Sending(), DirectoryFacts(), "", None, Health.HEALTHY),
        (replace(TOTALS, pending=1), Sending(), DirectoryFacts(), "", None, Health.HEALTHY),
        (replace(TOTALS, pending=1), Sending(2, CAUSE), DirectoryFacts(), "", "outbox-waiting", Health.DEGRADED),
        (TOTALS, Sending(2, CAUSE), DirectoryFacts(), "", None, Health.HEALTHY),
        (replace(TOTALS, pending=1), Sending(), DirectoryFacts(), "10m", "outbox-late", Health.DEGRADED),
        (TOTALS, Sending(), DirectoryFacts(free_bytes=9, least_free_bytes=10), "", "outbox-disk-full", Health.DEGRADED),
        (TOTALS, Sending(), DirectoryFacts(free_bytes=10, least_free_bytes=10), "", None, Health.HEALTHY),
        (
            replace(TOTALS, failed=1, failed_cause="x"),
            Sending(),
            DirectoryFacts(),
            "",
            "outbox-failed",
            Health.DEGRADED,
        ),
        (TOTALS, Sending(), DirectoryFacts(missing=1), "", "outbox-missing", Health.DEGRADED),
        (TOTALS, Sending(), DirectoryFacts(unread=("d",)), "", "outbox-unreadable", Health.DEGRADED),
        (TOTALS, Sending(), DirectoryFacts(skipped=2, first_skipped="x"), "", "outbox-unreadable", Health.DEGRADED),
        (TOTALS, Sending(), DirectoryFacts(too_many=5), "", "outbox-too-many", Health.DEGRADED),
        # A directory that was never there is waited for; one that has gone is not well.
        (TOTALS, Sending(), DirectoryFacts(CAUSE), "", CAUSE.code, Health.HEALTHY),
        (TOTALS, Sending(), DirectoryFacts(CAUSE, was_there=True), "", CAUSE.code, Health.DEGRADED),
    ],
)
def test_the_cause_that_is_nearest_is_shown(
    totals: OutboxTotals, sending: Sending, facts: DirectoryFacts, late: str, code: str | None, health: Health
) -> None:
    found = status("results", BEFORE, totals, sending, facts, late=late)
    assert (found.reason and found.reason.code, found.health) == (code, health)
    assert (found.pending, found.uploaded, found.last_key) == (totals.pending, 5, "p/a.wav")


@pytest.mark.parametrize(("state", "put"), [("queued", 1), ("uploading", 1), ("failed", 1), ("uploaded", 0)])
def test_what_waits_and_is_found_in_another_directory_is_queued_there(state: str, put: int) -> None:
    assert len(judge([(b"a.wav", "a.wav", LOOK)], {b"a.wav": replace(ROW, state=state)}, PLACE, "6").put) == put


@pytest.mark.parametrize(
    ("code", "sending", "facts", "after"),
    [
        ("outbox-waiting", Sending(), DirectoryFacts(), "outbox-waiting"),
        ("outbox-waiting", Sending(), DirectoryFacts(free_bytes=9), "outbox-waiting"),
        ("outbox-waiting", Sending().uploaded(1.0), DirectoryFacts(free_bytes=9), None),
        ("outbox-missing", Sending(), DirectoryFacts(), "outbox-missing"),
        ("outbox-missing", Sending(), DirectoryFacts(free_bytes=9), None),
        ("outbox-late", Sending(), DirectoryFacts(), None),
    ],
)
def test_a_run_with_other_settings_keeps_a_reason_until_it_knows_better(
    code: str, sending: Sending, facts: DirectoryFacts, after: str | None
) -> None:
    known = replace(BEFORE, health=Health.DEGRADED, reason=replace(CAUSE, code=code))
    found = status("results", known, replace(TOTALS, pending=2), sending, facts, late="")
    assert (found.reason.code if found.reason else None) == after
    assert found.health is (Health.DEGRADED if after else Health.HEALTHY)


def test_a_bucket_without_anything_that_waits_for_it_is_no_reason() -> None:
    known = replace(BEFORE, health=Health.DEGRADED, reason=replace(CAUSE, code="outbox-waiting"))
    assert status("results", known, TOTALS, Sending(), DirectoryFacts(), late="").reason is None


def test_why_a_long_name_is_refused_is_not_cut_off() -> None:
    path = "x" * 900 + "\n"
    (refused,) = judge([(path.encode(), path, FileLook(1, 2, 3, 4))], {}, Place("b", "p"), "7").put
    assert refused.state == "refused"
    assert len(refused.cause) < 300
    assert refused.cause.endswith("holds a line end or another control character")
