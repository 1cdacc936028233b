"""What mountd sends to systemd arrives, in order, also when its socket could not take it at first."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mountd.process.notify import MAX_UNSENT, Notifier, ReadySocket


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


def test_an_address_that_is_no_file() -> None:
    """systemd writes its first byte, a zero, as @."""
    name = f"mountd-t-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as listening:
        listening.bind(f"\0{name}")
        Notifier({"NOTIFY_SOCKET": f"@{name}"}).send(READY=1)
        assert heard(listening) == ["READY=1"]


@pytest.mark.parametrize(("given", "seconds"), [("30000000", 30.0), ("500000", 0.5), ("", None), ("soon", None)])
def test_how_often_systemd_wants_to_hear_from_us(given: str, seconds: float | None) -> None:
    assert Notifier({"WATCHDOG_USEC": given}).watchdog_s == seconds
    assert Notifier({}).watchdog_s is None


async def test_a_child_is_ready_when_it_says_so_in_a_line_of_its_own(directory: Path) -> None:
    path = directory / "child"
    path.touch()  # a former run was killed
    ready = ReadySocket(path)
    waiting = asyncio.create_task(ready.wait())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as child:
        for said in (b"STATUS=READY=1", b"READY=10", b"READY=0", b""):
            child.sendto(said, str(path))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not waiting.done()
        child.sendto(b"STATUS=mounted\nREADY=1", str(path))
    await asyncio.wait_for(waiting, 30)
    ready.close()
    assert not path.exists()
