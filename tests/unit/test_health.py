"""The two health questions: beats over time → a verdict on the mount; one answer → a status of the bucket."""

from __future__ import annotations

from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountd.mount.health import SLOW_S, Beats, Verdict, backend_status, is_refusal
from mountd.status.snapshot import Health


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
    ("beats", "failures", "verdict"),
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
def test_verdict(beats: str, failures: int, verdict: Verdict) -> None:
    assert after(beats).verdict(failures) is verdict


@given(st.text(".-"), st.integers(1, 10))
def test_hung_means_so_many_in_a_row_at_the_end(beats: str, failures: int) -> None:
    silent = len(beats) - len(beats.rstrip("-"))
    assert (after(beats).verdict(failures) is Verdict.HUNG) == (silent >= failures)
    assert (after(beats).verdict(failures) is Verdict.HEALTHY) == (silent == 0)


def test_dead_says_why() -> None:
    assert after(".-x").gone == "no longer connected"


BACKEND = [
    # code,               took,          health,          reason
    ("", 0.02, Health.HEALTHY, None),
    ("", SLOW_S - 0.01, Health.HEALTHY, None),
    ("", SLOW_S, Health.DEGRADED, "bucket-slow"),
    ("bucket-missing", 0.02, Health.MISSING, "bucket-missing"),
    ("bucket-unreachable", 0.02, Health.DEGRADED, "bucket-unreachable"),
    ("bucket-unreachable", 30.0, Health.DEGRADED, "bucket-unreachable"),
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
