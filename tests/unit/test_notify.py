"""What mountd sends to systemd arrives, in order, also when its socket could not take it at first."""

from __future__ import annotations

import contextlib
import itertools
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mountd.process.notify import MAX_UNSENT, Notifier


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mountd-t-") as made:  # short enough for a socket's address
        yield Path(made)


@contextlib.contextmanager
def systemd(address: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as listening:
        listening.bind(str(address))
        yield listening


def heard(listening: socket.socket) -> list[str]:
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            found.append(listening.recv(65536).decode())
    return found


def fill(address: Path) -> int:
    """Until it takes no more, as when systemd is busy; how many it took."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as other:
        for count in itertools.count():
            try:
                other.sendto(b"other", str(address))
            except BlockingIOError:
                return count
    raise AssertionError


def test_a_full_socket_loses_nothing_but_what_is_out_of_date(directory: Path) -> None:
    address = directory / "notify"
    notifier = Notifier({"NOTIFY_SOCKET": str(address)})
    with systemd(address) as listening:
        filled = fill(address)
        notifier.send(READY=1)
        notifier.send(STATUS="a")
        notifier.send(WATCHDOG=1)
        for number in range(3 * MAX_UNSENT):
            notifier.send(STATUS=f"b{number}")
        notifier.send(WATCHDOG=1)
        assert heard(listening) == ["other"] * filled
        notifier.send(WATCHDOG=1)
        assert heard(listening) == ["READY=1", f"STATUS=b{3 * MAX_UNSENT - 1}", "WATCHDOG=1"]
        notifier.send(STOPPING=1, STATUS="stop\nping")
        assert heard(listening) == ["STOPPING=1\nSTATUS=stop ping"]


def test_nobody_there_yet_and_nobody_at_all(directory: Path) -> None:
    Notifier({}).send(READY=1)
    address = directory / "notify"
    notifier = Notifier({"NOTIFY_SOCKET": str(address)})
    for _ in range(3 * MAX_UNSENT):
        notifier.send(READY=1)
    with systemd(address) as listening:
        notifier.send(WATCHDOG=1)
        reported = heard(listening)
        notifier.send(WATCHDOG=1)
        reported += heard(listening)
    assert set(reported) == {"READY=1", "WATCHDOG=1"}
    assert reported[-1] == "WATCHDOG=1"
    assert len(reported) <= MAX_UNSENT + 1
