"""The two health questions: beats over time → a verdict on the mount; one answer → a status of the bucket."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountd.mount.health import (
    FORGET_S,
    LISTING_S,
    SLOW_S,
    STALL_S,
    Answers,
    Beats,
    Facts,
    Reads,
    Silence,
    Stall,
    Verdict,
    backend_status,
    is_refusal,
    verdict,
)
from mountd.status.snapshot import Health, Reason, RemoteStatus


def after(beats: str) -> Beats:
    """`.` answered, `-` silence, `x` an error."""

    def then(history: Beats, beat: str) -> Beats:
        match beat:
            case ".":
                return history.answered()
            case "-":
                return history.unanswered()
        return history.broken("no longer connected")

    return reduce(then, beats, Beats())


@pytest.mark.parametrize(
    ("beats", "failures", "expected"),
    [
        ("", 2, Verdict.HEALTHY),
        ("....", 2, Verdict.HEALTHY),
        (".-", 2, Verdict.SUSPECTED),
        ("-.-.-.", 2, Verdict.HEALTHY),
        ("-.-", 2, Verdict.SUSPECTED),
        ("--", 2, Verdict.HUNG),
        ("-----", 2, Verdict.HUNG),
        ("-", 1, Verdict.HUNG),
        ("----", 5, Verdict.SUSPECTED),
        ("--.", 2, Verdict.HEALTHY),
        ("x", 2, Verdict.DEAD),
        ("--x", 2, Verdict.DEAD),
        ("x-", 2, Verdict.DEAD),
        (".x", 99, Verdict.DEAD),
    ],
)
def test_verdict_of_beats(beats: str, failures: int, expected: Verdict) -> None:
    assert verdict(Facts(after(beats)), failures=failures, now=0.0) is expected


@given(st.text(".-"), st.integers(1, 10))
def test_hung_means_so_many_in_a_row_at_the_end(beats: str, failures: int) -> None:
    silent = len(beats) - len(beats.rstrip("-"))
    found = verdict(Facts(after(beats)), failures=failures, now=0.0)
    assert (found is Verdict.HUNG) == (silent >= failures)
    assert (found is Verdict.HEALTHY) == (silent == 0)


def test_dead_says_why() -> None:
    assert after(".-x").gone == "no longer connected"


def bucket(code: str) -> RemoteStatus:
    return RemoteStatus(Health.DEGRADED, Reason(code, "what it said"))


OLD_STALL = Stall(since=0.0, readers=frozenset({"1/1/7"}), moved_bytes=5)
FACTS = [
    (Facts(), Verdict.HEALTHY, False),
    (Facts(bucket=bucket("bucket-unreachable")), Verdict.OUTAGE, False),
    (Facts(bucket=bucket("bucket-silent")), Verdict.OUTAGE, False),
    (Facts(bucket=bucket("something-new")), Verdict.OUTAGE, False),
    (Facts(bucket=bucket("bucket-slow")), Verdict.SLOW, False),
    (Facts(bucket=bucket("access-denied")), Verdict.REFUSED, False),
    (Facts(bucket=bucket("credentials-expired")), Verdict.REFUSED, False),
    (Facts(bucket=bucket("bucket-missing")), Verdict.MISSING, False),
    (Facts(Beats(missed=1), bucket=bucket("bucket-missing")), Verdict.SUSPECTED, False),
    (Facts(Beats(missed=2), bucket=bucket("bucket-unreachable")), Verdict.HUNG, True),
    (Facts(Beats(missed=2, gone="unmounted")), Verdict.DEAD, True),
    (Facts(lie="its disk cache is off"), Verdict.LYING, True),
    (Facts(Beats(missed=1), lie="its disk cache is off"), Verdict.LYING, True),
    (Facts(stall=OLD_STALL), Verdict.HUNG, True),
    (Facts(stall=Stall(since=0.0, moved_bytes=5)), Verdict.HEALTHY, False),
    (Facts(listing=OLD_STALL), Verdict.HEALTHY, False),
    (Facts(perhaps=OLD_STALL), Verdict.HEALTHY, False),
    (Facts(listing=replace(OLD_STALL, since=STALL_S - LISTING_S)), Verdict.HUNG, True),
    (Facts(perhaps=replace(OLD_STALL, since=-1e9)), Verdict.HEALTHY, False),
]


@pytest.mark.parametrize(("facts", "expected", "replaces"), FACTS)
def test_verdict_of_all_facts(facts: Facts, expected: Verdict, replaces: bool) -> None:
    found = verdict(facts, failures=2, now=STALL_S)
    assert (found, found.replaces) == (expected, replaces)


SILENT_SINCE = 1000.0
SILENCES = [
    # rclone awake, bucket quick at, not quick at, seconds of silence → hung
    ("rclone is silent as well", False, -1e9, 1003.0, 4.0, True),
    ("rclone is silent, the bucket quick", False, 1001.0, -1e9, 4.0, True),
    ("the bucket is quick", True, 1001.0, -1e9, 4.0, True),
    ("the bucket has not been asked since", True, 999.0, -1e9, 4.0, False),
    ("the bucket is away", True, 999.0, 1003.0, 4.0, False),
    ("the bucket stays away", True, 999.0, 4000.0, 3001.0, False),
    ("the bucket is back, and rclone waits for its own deadline", True, 1100.0, 1099.0, 101.0, False),
    ("the bucket is back for longer than that", True, 1170.0, 1099.0, 99.0 + STALL_S, True),
]


@pytest.mark.parametrize("row", SILENCES, ids=[row[0] for row in SILENCES])
def test_a_silence_that_may_be_the_buckets_is_no_hang(row: tuple[str, bool, float, float, float, bool]) -> None:
    _, awake, quick_at, bad_at, seconds, hung = row
    facts = Facts(Beats(missed=2), Silence(SILENT_SINCE, awake), answers=Answers(quick_at, bad_at))
    expected = Verdict.HUNG if hung else Verdict.SUSPECTED
    assert verdict(facts, failures=2, now=SILENT_SINCE + seconds) is expected


@pytest.mark.parametrize("code", ["bucket-unreachable", "bucket-slow", "access-denied", "bucket-missing", "new"])
def test_no_answer_of_the_bucket_replaces_the_mount(code: str) -> None:
    assert not verdict(Facts(bucket=bucket(code)), failures=1, now=1e9).replaces


LOOKS = [
    # (seconds, readers, bytes, bucket quick) … → seconds that a read has waited in vain, at the last look
    ("one reader all the time", [(0, "a", 5, True), (30, "a", 5, True), (60, "a", 5, True)], 60),
    ("others come and go", [(0, "a", 5, True), (30, "ab", 5, True), (60, "ac", 5, True)], 60),
    ("never the same one", [(0, "a", 5, True), (30, "b", 5, True), (60, "c", 5, True)], 0),
    ("it went on once", [(0, "a", 5, True), (30, "", 5, True), (60, "a", 5, True)], 0),
    ("bytes move", [(0, "a", 5, True), (30, "a", 6, True), (60, "a", 6, True)], 30),
    ("the bucket was away", [(0, "a", 5, True), (30, "a", 5, False), (60, "a", 5, True)], 30),
    ("the bucket is away", [(0, "a", 5, False), (30, "a", 5, False), (60, "a", 5, False)], 0),
    ("nobody reads", [(0, "", 5, True), (30, "", 5, True), (60, "", 5, True)], 0),
    ("a newcomer does not inherit", [(0, "a", 5, True), (50, "ab", 5, True), (60, "b", 5, True)], 0),
]


@pytest.mark.parametrize(("looks", "waited_s"), [row[1:] for row in LOOKS], ids=[row[0] for row in LOOKS])
def test_stall(looks: list[tuple[float, str, int, bool]], waited_s: float) -> None:
    stall = Stall()
    for now, readers, moved_bytes, quick in looks:
        stall = stall.look(now, set(readers), moved_bytes=moved_bytes, bucket_quick=quick)
    assert stall.lasts_s(looks[-1][0]) == waited_s


@given(
    st.lists(
        st.tuples(st.floats(0.1, 20), st.sets(st.sampled_from("abc")), st.integers(0, 2), st.booleans()), min_size=1
    )
)
def test_a_stall_is_never_longer_than_one_reader_was_seen_with_a_quick_bucket_and_no_bytes(
    looks: list[tuple[float, set[str], int, bool]],
) -> None:
    stall, now, last = Stall(), 0.0, dict[str, float]()
    moved = -1
    for pause_s, readers, moved_bytes, quick in looks:
        now += pause_s
        stall = stall.look(now, readers, moved_bytes=moved_bytes, bucket_quick=quick)
        if not quick or moved_bytes != moved:
            last = {}
        moved = moved_bytes
        last = {reader: last.get(reader, now) for reader in readers}
        longest = max((now - since for since in last.values()), default=0.0)
        assert stall.lasts_s(now) <= longest + 1e-9


BACKEND = [
    # code,               took,          health,          reason
    ("", 0.02, Health.HEALTHY, None),
    ("", SLOW_S - 0.01, Health.HEALTHY, None),
    ("", SLOW_S, Health.DEGRADED, "bucket-slow"),
    ("bucket-missing", 0.02, Health.MISSING, "bucket-missing"),
    ("bucket-unreachable", 0.02, Health.DEGRADED, "bucket-unreachable"),
    ("bucket-silent", 30.0, Health.DEGRADED, "bucket-silent"),
    ("access-denied", 0.02, Health.DEGRADED, "access-denied"),
    ("something-new", 0.02, Health.DEGRADED, "something-new"),
]


@pytest.mark.parametrize(("code", "took_s", "health", "reason"), BACKEND)
def test_backend_status(code: str, took_s: float, health: Health, reason: str | None) -> None:
    status = backend_status("store", took_s=took_s, code=code, text="what it said", hint="what to do")
    assert status.health is health
    if reason is None:
        assert status.reason is None
        return
    assert status.reason is not None
    assert (status.reason.code, status.reason.layer, status.reason.object) == (reason, "bucket", "store")
    if code:
        assert (status.reason.text, status.reason.hint) == ("what it said", "what to do")
    else:
        assert f"{took_s:.0f} s" in status.reason.text
        assert status.reason.hint


@pytest.mark.parametrize(
    ("code", "refusal"),
    [
        ("access-denied", True),
        ("credentials-expired", True),
        ("clock-skew", True),
        ("tls-failure", True),
        ("bucket-missing", False),
        ("bucket-unreachable", False),
        ("bucket-slow", False),
        ("", False),
    ],
)
def test_refusals(code: str, refusal: bool) -> None:
    assert is_refusal(code) is refusal


@pytest.mark.parametrize(
    ("looks", "failing"),
    [
        ([(5, 0, ""), (5, 1, "x")], False),  # it tries once more
        ([(5, 0, ""), (5, 2, "x")], True),
        ([(5, 7, "x"), (5, 8, "x"), (5, 9, "x")], True),
        ([(5, 7, "x"), (5, 7, "x"), (5, 7, "x")], False),  # old errors
        ([(5, 0, ""), (5, 2, "x"), (6, 2, "x")], False),  # a byte has come
        ([(5, 0, ""), (6, 2, "x"), (7, 4, "x")], False),  # some fail, some do not
        ([(5, 0, ""), (5, 2, "")], False),  # of something else
        ([(5, 0, ""), (5, 3, "x"), (5, 0, "x")], False),  # another rclone
    ],
)
def test_reads(looks: list[tuple[int, int, str]], failing: bool) -> None:
    reads = Reads()
    for number, (moved_bytes, errors, cause) in enumerate(looks):
        reads = reads.look(number * 5.0, moved_bytes=moved_bytes, errors=errors, cause=cause, bucket_quick=True)
    assert reads.failing is failing
    if failing:
        assert reads.cause == "x"


def test_reads_that_failed_are_forgotten_or_are_the_buckets() -> None:
    reads = Reads().look(0.0, moved_bytes=5, errors=0, cause="x", bucket_quick=True)
    reads = reads.look(5.0, moved_bytes=5, errors=2, cause="x", bucket_quick=True)
    assert reads.look(4.0 + FORGET_S, moved_bytes=5, errors=2, cause="x", bucket_quick=True).failing
    assert not reads.look(5.0 + FORGET_S, moved_bytes=5, errors=2, cause="x", bucket_quick=True).failing
    assert not reads.look(10.0, moved_bytes=5, errors=4, cause="x", bucket_quick=False).failing


def test_an_rclone_that_counts_errors_is_awake() -> None:
    stall = Stall()
    for number in range(20):
        stall = stall.look(number * 5.0, {"1/1/7"}, moved_bytes=5, errors=number // 2, bucket_quick=True)
        assert stall.lasts_s(number * 5.0) <= 5.0
