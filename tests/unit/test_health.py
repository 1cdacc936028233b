"""Facts about a mount → what is decided and reported; one answer of the bucket → its status."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountd.errors import Exhausted
from mountd.mount.health import (
    FORGET_S,
    LISTING_REPORTED_S,
    LISTING_S,
    REFUSALS,
    SLOW_S,
    STALL_REPORTED_S,
    STALL_S,
    BucketAnswers,
    Facts,
    FailedReads,
    Liveness,
    MountVerdict,
    Replace,
    RestartRclone,
    Stall,
    backend_status,
    decide,
    explain,
    fault,
)
from mountd.process.lifecycle import Life
from mountd.status.snapshot import Health, MountStatus, Reason, State


def after(probes: str) -> Liveness:
    """`.` answered, `-` missed, `x` an error."""

    def then(history: Liveness, probe: str) -> Liveness:
        match probe:
            case ".":
                return Liveness()
            case "-":
                return replace(history, missed=history.missed + 1)
        return replace(history, gone="no longer connected")

    return reduce(then, probes, Liveness())


def verdict(facts: Facts, *, failures: int = 2, now: float = 0.0) -> MountVerdict | None:
    """Why the mount is replaced; None: it is not."""
    found = decide("m", facts, failures=failures, now=now)
    if not isinstance(found, Replace):
        return None
    assert "mount m" in found.text
    return found.verdict


def code(facts: Facts, *, known: Reason | None = None, lack: Exhausted | None = None) -> str | None:
    """Of the reason why the mount is not well."""
    reason = explain("m", facts, known=known, lack=lack)
    if reason is None:
        return None
    if reason is known:
        return reason.code
    assert (reason.layer, reason.object) == ("mount", "m")
    assert "mount m" in reason.text
    return reason.code


@pytest.mark.parametrize("responsive", [True, False])
def test_an_rclone_that_answers_itself_gets_a_hint(responsive: bool) -> None:
    reason = explain("m", Facts(liveness=Liveness(missed=1, responsive=responsive)), known=None, lack=None)
    assert reason is not None
    assert bool(reason.hint) is responsive


def test_a_lack_keeps_its_hint() -> None:
    reason = explain("m", Facts(), known=None, lack=Exhausted("no memory", code="no-memory", hint="add some"))
    assert reason is not None
    assert (reason.code, reason.hint) == ("no-memory", "add some")


@pytest.mark.parametrize(
    ("probes", "failures", "expected", "reported"),
    [
        ("", 2, None, None),
        ("....", 2, None, None),
        (".-", 2, None, "mount-silent"),
        ("-.-.-.", 2, None, None),
        ("-.-", 2, None, "mount-silent"),
        ("--", 2, MountVerdict.HUNG, None),
        ("-----", 2, MountVerdict.HUNG, None),
        ("-", 1, MountVerdict.HUNG, None),
        ("----", 5, None, "mount-silent"),
        ("--.", 2, None, None),
        ("x", 2, MountVerdict.DEAD, None),
        ("--x", 2, MountVerdict.DEAD, None),
        ("x-", 2, MountVerdict.DEAD, None),
        (".x", 99, MountVerdict.DEAD, None),
    ],
)
def test_liveness_probes(probes: str, failures: int, expected: MountVerdict | None, reported: str | None) -> None:
    facts = Facts(after(probes))
    assert verdict(facts, failures=failures) is expected
    if expected is None:
        assert code(facts) == reported


@given(st.text(".-"), st.integers(1, 10))
def test_hung_means_so_many_missed_in_a_row(probes: str, failures: int) -> None:
    missed = len(probes) - len(probes.rstrip("-"))
    assert (verdict(Facts(after(probes)), failures=failures) is MountVerdict.HUNG) == (missed >= failures)
    assert (code(Facts(after(probes))) is None) == (missed == 0)


def test_dead_says_why() -> None:
    assert after(".-x").gone == "no longer connected"


def stalled(lasts_s: float) -> Stall:
    return Stall(seen=lasts_s, reads=frozenset({"1/1/7"}), moved_bytes=5)


OLD_STALL = stalled(STALL_S)
FACTS = [
    (Facts(), None),
    (Facts(Liveness(missed=2)), MountVerdict.HUNG),
    (Facts(Liveness(missed=2, gone="unmounted")), MountVerdict.DEAD),
    (Facts(misconfigured="its disk cache is off"), MountVerdict.MISCONFIGURED),
    (Facts(Liveness(missed=1), misconfigured="its disk cache is off"), MountVerdict.MISCONFIGURED),
    (Facts(Liveness(missed=2), misconfigured="its disk cache is off"), MountVerdict.HUNG),
    (Facts(stall=OLD_STALL), MountVerdict.HUNG),
    (Facts(stall=Stall(seen=STALL_S, moved_bytes=5)), None),
    (Facts(stall=stalled(STALL_S - 1)), None),
    (Facts(listing=OLD_STALL), None),
    (Facts(possible_stall=OLD_STALL), None),
    (Facts(listing=stalled(LISTING_S)), MountVerdict.HUNG),
    (Facts(possible_stall=stalled(1e9)), None),
    (Facts(failed_reads=FailedReads(5, 0, 9, 0.0, "x")), None),
    (Facts(restart="new keys"), None),
    (Facts(Liveness(gone="unmounted"), restart="new keys"), MountVerdict.DEAD),
    (Facts(stall=OLD_STALL, restart="new keys"), MountVerdict.HUNG),
]


@pytest.mark.parametrize(("facts", "expected"), FACTS)
def test_what_replaces_a_mount(facts: Facts, expected: MountVerdict | None) -> None:
    assert verdict(facts) is expected


@pytest.mark.parametrize("facts", [Facts(restart="new keys"), Facts(Liveness(missed=1), restart="new keys")])
def test_what_restarts_rclone(facts: Facts) -> None:
    assert decide("m", facts, failures=2, now=0.0) == RestartRclone("new keys")


CACHE, LACK = Reason("cache-full", "its cache is full"), Exhausted("there is no memory left", code="no-memory")
FAILING = FailedReads(5, 0, 2, 0.0, "vfs reader: failed")
REPORTED = [
    (Facts(), None, None, None),
    (Facts(), CACHE, None, "cache-full"),
    (Facts(Liveness(missed=1)), CACHE, None, "mount-silent"),
    (Facts(stall=stalled(STALL_REPORTED_S - 1)), None, None, None),
    (Facts(stall=stalled(STALL_REPORTED_S)), None, None, "read-stuck"),
    (Facts(stall=stalled(STALL_REPORTED_S)), CACHE, None, "cache-full"),
    (Facts(possible_stall=stalled(STALL_REPORTED_S)), None, None, "read-stuck"),
    (Facts(listing=stalled(STALL_REPORTED_S)), None, None, None),
    (Facts(listing=stalled(LISTING_REPORTED_S)), None, None, "read-stuck"),
    (Facts(), None, LACK, "no-memory"),
    (Facts(), CACHE, LACK, "cache-full"),
    (Facts(failed_reads=FAILING), None, None, "reads-failing"),
    (Facts(failed_reads=FAILING), None, LACK, "no-memory"),
]


@pytest.mark.parametrize(("facts", "known", "lack", "expected"), REPORTED)
def test_what_is_reported_of_a_mount_that_stays(
    facts: Facts, known: Reason | None, lack: Exhausted | None, expected: str | None
) -> None:
    assert code(facts, known=known, lack=lack) == expected


def test_a_stall_does_not_grow_while_nobody_looks() -> None:
    """The probe may have no descriptor or process left; then nobody knows whether the read still waits."""
    stall = Stall()
    for now in (0.0, 5.0):
        stall = stall.look(now, {"1/1/7"}, moved_bytes=5, bucket_quick=True)
    facts = Facts(stall=stall, listing=stall, possible_stall=stall)
    assert verdict(facts, now=5.0 + LISTING_S) is None
    assert code(facts) is None
    stall = stall.look(STALL_S, {"1/1/7"}, moved_bytes=5, bucket_quick=True)  # it has waited all the time
    assert verdict(Facts(stall=stall), now=STALL_S) is MountVerdict.HUNG


MISSED_SINCE = 1000.0
MISSED = [
    # rclone responsive, bucket quick at, not quick at, seconds since the first missed probe → hung
    ("rclone does not answer either", False, -1e9, 1003.0, 4.0, True),
    ("rclone does not answer, the bucket is quick", False, 1001.0, -1e9, 4.0, True),
    ("the bucket is quick", True, 1001.0, -1e9, 4.0, True),
    ("the bucket has not been asked since", True, 999.0, -1e9, 4.0, False),
    ("the bucket is away", True, 999.0, 1003.0, 4.0, False),
    ("the bucket stays away", True, 999.0, 4000.0, 3001.0, False),
    ("the bucket is back, and rclone waits for its own deadline", True, 1100.0, 1099.0, 101.0, False),
    ("the bucket is back for longer than that", True, 1170.0, 1099.0, 99.0 + STALL_S, True),
]


@pytest.mark.parametrize("row", MISSED, ids=[row[0] for row in MISSED])
def test_missed_probes_that_may_be_the_buckets_are_no_hang(row: tuple[str, bool, float, float, float, bool]) -> None:
    _, responsive, quick_at, bad_at, seconds, hung = row
    facts = Facts(Liveness(2, "", MISSED_SINCE, responsive), BucketAnswers(quick_at, bad_at))
    assert verdict(facts, now=MISSED_SINCE + seconds) is (MountVerdict.HUNG if hung else None)


LOOKS = [
    # (seconds, reads, bytes, bucket quick) … → seconds that a read has stalled, at the last look
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
    assert stall.lasts_s == waited_s


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
        assert stall.lasts_s <= longest + 1e-9


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
    assert (code in REFUSALS) is refusal


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
    reads = FailedReads()
    for number, (moved_bytes, errors, cause) in enumerate(looks):
        reads = reads.look(number * 5.0, moved_bytes=moved_bytes, errors=errors, cause=cause, bucket_quick=True)
    assert reads.are_repeated is failing
    if failing:
        assert reads.cause == "x"


def test_reads_that_failed_are_forgotten_or_are_the_buckets() -> None:
    reads = FailedReads().look(0.0, moved_bytes=5, errors=0, cause="x", bucket_quick=True)
    reads = reads.look(5.0, moved_bytes=5, errors=2, cause="x", bucket_quick=True)
    assert reads.look(4.0 + FORGET_S, moved_bytes=5, errors=2, cause="x", bucket_quick=True).are_repeated
    assert not reads.look(5.0 + FORGET_S, moved_bytes=5, errors=2, cause="x", bucket_quick=True).are_repeated
    assert not reads.look(10.0, moved_bytes=5, errors=4, cause="x", bucket_quick=False).are_repeated


def test_an_rclone_that_counts_errors_is_responsive() -> None:
    stall = Stall()
    for number in range(20):
        stall = stall.look(number * 5.0, {"1/1/7"}, moved_bytes=5, errors=number // 2, bucket_quick=True)
        assert stall.lasts_s <= 5.0


# -- what it went down for --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "life", "by_itself", "found"),
    [
        (State.RUNNING, Life(State.STOPPING, wanted=True, unasked=True), False, "mount-hung"),
        (State.RUNNING, Life(State.STOPPING, wanted=True, unasked=True), True, "rclone-restarted"),
        (State.RUNNING, Life(State.STOPPING, wanted=True), False, None),  # a person restarts it: the crash is over
        (State.STOPPING, Life(State.CLEANING, wanted=True, unasked=True), False, "rclone-killed"),
        (State.STARTING, Life(State.RUNNING, wanted=True), False, "rclone-killed"),
        (State.RUNNING, Life(State.RUNNING, wanted=True), False, "rclone-killed"),
    ],
)
def test_a_mount_went_down_for_what_it_went_down_for_last(
    state: State, life: Life, by_itself: bool, found: str | None
) -> None:
    known = MountStatus("/m", "store:b", state, fault=Reason("rclone-killed", "of last week"))
    kept = fault("m", known, life, Reason("mount-hung", "now"), by_itself=by_itself)
    assert (kept.code if kept else None) == found
