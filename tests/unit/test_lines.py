"""Output → lines: however it arrives, bounded, and of what is written over the last state."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountd.process import child
from mountd.process.child import PREVIOUS_LINES, Ring
from mountd.process.lines import LINE_BYTES, Lines
from tests.support.wait import until

BAR = b"".join(b"\r%3d%% of the model" % percent for percent in range(101))


def texts(*pieces: bytes) -> list[bytes]:
    lines = Lines()
    return [*(line for piece in pieces for line in lines.feed(piece)), *lines.end()]


@pytest.mark.parametrize(
    ("pieces", "reported"),
    [
        ((b"one\ntwo\r\n",), [b"one", b"two", b""]),
        ((b"two\r", b"\nthree"), [b"two", b"three"]),
        ((BAR,), [b"100% of the model"]),
        ((BAR, b"\n"), [b"100% of the model", b""]),
        ((BAR * 20,), [b"100% of the model"]),
        ((BAR * 20, b"\r101%\r"), [b"101%"]),
        ((b"x" * 9000, b"y\n", b"z"), [b"x" * LINE_BYTES, b"z"]),
        ((b"x" * 9000, b"\r50%", b"\r60%\n"), [b"x" * LINE_BYTES, b"60%", b""]),
        ((b"x" * 9000 + b"\n",), [b"x" * LINE_BYTES, b""]),
    ],
)
def test_lines(pieces: tuple[bytes, ...], reported: list[bytes]) -> None:
    assert texts(*pieces) == reported


@pytest.mark.parametrize(
    ("pieces", "state"),
    [
        ((b"Loading",), b"Loading"),
        ((b"whole\n",), b""),
        ((BAR,), b"100% of the model"),
        ((BAR, b"\r"), b"100% of the model"),
        ((BAR * 20, b"\n7%\r8%"), b"8%"),
        ((b"x" * 9000,), b""),
        ((b"\r10%",), b"10%"),
        ((b"\r\r10%\r",), b"10%"),
        ((b"\r",), b""),
    ],
)
def test_what_is_not_ended(pieces: tuple[bytes, ...], state: bytes) -> None:
    lines = Lines()
    for piece in pieces:
        lines.feed(piece)
    assert lines.state == state


@given(
    st.lists(st.binary(max_size=30).map(lambda data: data.translate(bytes(b"ab\r\n"[each % 4] for each in range(256)))))
)
def test_it_does_not_matter_how_it_arrives(pieces: list[bytes]) -> None:
    assert texts(*pieces) == texts(b"".join(pieces))


@given(st.lists(st.sampled_from([b"a" * 5000, b"\r", b"\n", b"b", BAR])))
def test_nothing_grows(pieces: list[bytes]) -> None:
    lines = Lines()
    for piece in pieces:
        assert all(len(line) <= LINE_BYTES for line in lines.feed(piece))
        assert len(lines.state) <= LINE_BYTES


# -- the ring ---------------------------------------------------------------------------------------------------------


def shown(ring: Ring) -> list[str]:
    return [line.text for line in ring.last(100)]


def test_the_next_line_takes_the_place_of_a_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "STATE_S", 3600.0)
    ring, heard = Ring(), list[str]()
    ring.follow(lambda line: heard.append(line.text))
    ring.begin()
    for percent in range(100):
        ring.show(f"{percent}%")
    assert shown(ring) == ["99%"]
    assert heard == []  # none that is younger
    ring.append("loaded")
    assert shown(ring) == heard == ["loaded"]
    ring.show("more")
    ring.show("")
    assert shown(ring) == ["loaded"]


def test_followers_hear_of_a_state_that_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "STATE_S", 0.05)
    ring, heard = Ring(), list[str]()
    ring.follow(lambda line: heard.append(line.text))

    def is_heard() -> bool:
        ring.show("50%")
        return bool(heard)

    until(is_heard, 60, "the state", every_s=0.005)
    assert heard == ["50%"]


def test_the_process_before() -> None:
    ring = Ring()
    ring.begin()
    assert ring.previous(10) == []
    ring.append("one")
    ring.show("dying wor")
    ring.begin()
    ring.append("two")
    assert [line.text for line in ring.previous(10)] == ["one", "dying wor"]
    assert shown(ring) == ["one", "dying wor", "two"]
    for number in range(3 * PREVIOUS_LINES):
        ring.append(str(number))
    ring.begin()
    assert [line.text for line in ring.previous(10_000)][-1] == str(3 * PREVIOUS_LINES - 1)
    assert len(ring.previous(10_000)) == PREVIOUS_LINES


def test_what_is_older_is_left_out() -> None:
    ring = Ring()
    ring.append("old")
    assert [line.text for line in ring.last(10, since_s=60.0)] == ["old"]
    assert ring.last(10, since_s=0.0) == []
