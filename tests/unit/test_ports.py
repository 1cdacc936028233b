"""Who listens on a port: by the kernel's table, and by the descriptors of the processes that are asked about."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator

import psutil
import pytest

from mountd.process import ports
from mountd.process.ports import Listener, belongs, parse
from mountd.settings.http import is_loopback

TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 12345 1 0000000000000000
   1: 0100007F:1F91 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1000        0 12346 1 0000000000000000
   2: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12347
   3: 00000000:0051 00000000:0000 0A
"""


@pytest.fixture
def listening() -> Iterator[int]:
    """Its port; this process listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_what_listens_in_a_table_of_the_kernel() -> None:
    assert parse(TABLE) == [Listener(8080, 1000, 12345), Listener(80, 0, 12347)]
    assert parse("") == []


def test_whose_a_listening_socket_is(listening: int) -> None:
    (found,) = ports.listeners(listening)
    assert (found.port, found.uid) == (listening, os.geteuid())
    with subprocess.Popen(["sleep", "60"]) as other:
        try:
            for pids, is_theirs in (([os.getpid()], True), ([other.pid, os.getpid()], True), ([other.pid], False)):
                assert belongs([found], pids, os.geteuid()) is is_theirs
        finally:
            other.kill()
    assert not belongs([found], [], os.geteuid())
    assert not belongs([found], [2**22 + 1], os.geteuid()), "it has ended"
    assert not belongs([], [os.getpid()], os.geteuid())


def test_an_ipv6_socket_is_found_as_well() -> None:
    try:
        server = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 here")
    with server:
        assert len(ports.listeners(server.getsockname()[1])) == 1


def test_where_descriptors_cannot_be_seen_the_user_of_the_socket_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: str) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "scandir", refuse)
    found = [Listener(80, 0, 1), Listener(80, 7, 2)]
    assert [belongs(found, [1], uid) for uid in (0, 7, 8)] == [True, True, False]
    assert not belongs(found, [], 7)


def test_who_holds_it_is_named_for_people(listening: int) -> None:
    assert ports.holder(listening) == f"{psutil.Process().name()} (pid {os.getpid()})"


def test_nobody_that_can_be_seen_is_another_process() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert ports.holder(port) == "another process"


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.8.9.10", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("10.0.0.1", False),
        ("localhost.example.com", False),
        ("", False),
    ],
)
def test_what_is_this_machine_by_its_name_alone(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
