"""Sessions of browsers: whose they are, how long, how many; and whether a request comes from a page of mountd."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountd.api.same_origin import is_same_origin
from mountd.api.sessions import LIFETIME_S, OF_ONE_TOKEN, Sessions
from mountd.settings import tokens
from mountd.settings.tokens import NO_TOKENS, Tokens
from tests.support.admitted import ADMISSION, OPERATOR, READER

OTHER = "operator-of-another-0123456789"


def sessions(valid: Tokens = ADMISSION.tokens) -> Sessions:
    found = Sessions()
    found.admit(valid)
    return found


def test_a_session_is_that_of_its_token_until_its_time_is_over() -> None:
    found = sessions()
    begun = found.begin(OPERATOR, 100.0)
    assert begun is not None
    assert (begun.holder.name, begun.holder.role) == ("ci", "operator")
    known = found.find(begun.cookie, 100.0 + LIFETIME_S - 1)
    assert known is not None
    assert known[1] == begun.holder
    assert known[0].is_proven(begun.proof)
    for wrong in ("", begun.cookie, begun.proof[:-1], OPERATOR, "é"):
        assert not known[0].is_proven(wrong)
    assert found.find(begun.cookie, 100.0 + LIFETIME_S) is None
    for wrong in ("", begun.proof, OPERATOR, begun.cookie.swapcase(), "\udcff"):
        assert found.find(wrong, 100.0) is None


@pytest.mark.parametrize("wrong", ["", OTHER, READER + "x", "é\udcff"])
def test_a_wrong_token_begins_none(wrong: str) -> None:
    found = sessions()
    assert found.begin(wrong, 0.0) is None
    assert sessions(NO_TOKENS).begin(OPERATOR, 0.0) is None
    assert len(found) == 0


def test_no_secret_is_shown_or_kept() -> None:
    found = sessions()
    begun = found.begin(OPERATOR, 0.0)
    assert begun is not None
    shown = repr(begun) + repr(found.find(begun.cookie, 0.0)) + repr(vars(found))
    for secret in (OPERATOR, begun.cookie, begun.proof):
        assert secret not in shown


def test_sessions_end_with_their_token_and_for_good() -> None:
    found = sessions()
    operator, reader = found.begin(OPERATOR, 0.0), found.begin(READER, 0.0)
    assert operator is not None
    assert reader is not None
    found.admit(tokens.parse(f"reader ann {READER}\n"))
    assert found.find(operator.cookie, 0.0) is None
    assert found.find(reader.cookie, 0.0) is not None
    found.admit(ADMISSION.tokens)
    assert found.find(operator.cookie, 0.0) is None, "a token that comes back brings no session back"


def test_the_role_is_the_one_that_the_token_has_now() -> None:
    found = sessions()
    begun = found.begin(OPERATOR, 0.0)
    assert begun is not None
    found.admit(tokens.parse(f"reader ci {OPERATOR}\n"))
    known = found.find(begun.cookie, 0.0)
    assert known is not None
    assert known[1].role == "reader"


def test_a_session_that_is_ended_is_over() -> None:
    found = sessions()
    begun, other = found.begin(OPERATOR, 0.0), found.begin(OPERATOR, 0.0)
    assert begun is not None
    assert other is not None
    assert (begun.cookie, begun.proof) != (other.cookie, other.proof)
    found.end(begun.cookie)
    found.end("never there")
    assert found.find(begun.cookie, 0.0) is None
    assert found.find(other.cookie, 0.0) is not None


@given(st.lists(st.tuples(st.sampled_from([OPERATOR, READER]), st.floats(0, LIFETIME_S / 4)), max_size=80))
def test_they_are_few_and_the_oldest_of_the_same_token_makes_room(logins: list[tuple[str, float]]) -> None:
    found, now = sessions(), 0.0
    begun = []
    for token, later_s in logins:
        now += later_s
        made = found.begin(token, now)
        assert made is not None
        begun.append((token, now, made))
        assert len(found) <= 2 * OF_ONE_TOKEN
    for each in (OPERATOR, READER):
        young = [made for token, at, made in begun if token == each and at + LIFETIME_S > now]
        valid = [made for made in young if found.find(made.cookie, now) is not None]
        assert valid == young[-OF_ONE_TOKEN:]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, False),
        ({"Host": "mountd:8780"}, False),
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "none"}, False),
        ({"Sec-Fetch-Site": ""}, False),
        ({"Origin": "http://mountd:8780", "Host": "mountd:8780"}, True),
        ({"Origin": "https://mountd.example", "Host": "mountd.example"}, True),
        ({"Origin": "https://mountd.example", "Host": "MOUNTD.example:443"}, True),
        ({"Origin": "http://[::1]:8780", "Host": "[::1]:8780"}, True),
        ({"Origin": "http://mountd:7860", "Host": "mountd:8780"}, False),
        ({"Origin": "http://evil.example", "Host": "mountd:8780"}, False),
        ({"Origin": "null", "Host": "mountd:8780"}, False),
        ({"Origin": "", "Host": ""}, False),
        ({"Origin": "http://", "Host": ""}, False),
        ({"Origin": "file://mountd:8780", "Host": "mountd:8780"}, False),
        ({"Origin": "http://mountd:8780/x", "Host": "mountd:8780"}, False),
        ({"Origin": "http://[", "Host": "["}, False),
        ({"Origin": "http://mountd:8780"}, False),
        ({"Origin": "http://mountd:8780", "Host": "mountd:8780", "Sec-Fetch-Site": "same-origin"}, True),
        ({"Origin": "http://mountd:8780", "Host": "mountd:8780", "Sec-Fetch-Site": "cross-site"}, False),
        ({"Origin": "http://evil.example", "Host": "mountd:8780", "Sec-Fetch-Site": "same-origin"}, False),
        ({"Origin": "https://hub.example", "Host": "10.0.0.1:8780", "X-Forwarded-Host": "hub.example"}, True),
        ({"Origin": "https://hub.example", "Host": "10.0.0.1", "X-Forwarded-Host": "evil.example, hub.example"}, True),
        ({"Origin": "https://evil.example", "Host": "10.0.0.1", "X-Forwarded-Host": "hub.example"}, False),
    ],
)
def test_what_comes_from_a_page_of_mountd(headers: dict[str, str], expected: bool) -> None:
    assert is_same_origin(headers) is expected
