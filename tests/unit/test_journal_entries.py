"""Entries for systemd's journal: fields that can be searched for, which no text forges; large ones by a file."""

from __future__ import annotations

import array
import io
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountd.daemon.journal_stream import JournalStream, encode, fields
from mountd.journald import native_socket

LARGE = 8 << 20


def decode(data: bytes) -> dict[str, str]:
    """As the journal does."""
    found = {}
    while data:
        line, _, data = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (length,) = struct.unpack("<Q", data[:8])
            value, ending, data = data[8 : 8 + length], data[8 + length : 9 + length], data[9 + length :]
            assert ending == b"\n"
        found[name.decode()] = value.decode()
    return found


def test_each_key_is_a_field() -> None:
    event = {
        "event": "mount is ready",
        "level": "warning",
        "mount": "storage",
        "after_s": 1.5,
        "names": ["a"],
        "no": None,
    }
    assert fields(event, "warning", "mount is ready mount=storage") == {
        "MESSAGE": "mount is ready mount=storage",
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "mountd",
        "MOUNTD_EVENT": "mount is ready",
        "MOUNTD_MOUNT": "storage",
        "MOUNTD_AFTER_S": "1.5",
        "MOUNTD_NAMES": '["a"]',
    }


@given(st.text(), st.text(), st.text())
def test_no_text_forges_a_field(message: str, key: str, value: str) -> None:
    entry = fields({"event": value, key: value}, "info", message)
    found = decode(encode(entry))
    assert found.keys() == entry.keys()
    assert {name for name in found if not name.startswith("MOUNTD_")} == {"MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER"}
    assert found["PRIORITY"] == "6"
    assert all(name.replace("_", "").isalnum() and name.isascii() and len(name) <= 64 for name in found)


class Journal:
    """The two sockets of one."""

    def __init__(self, directory: Path) -> None:
        self.address = str(directory / "socket")
        self.entries = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.entries.bind(self.address)
        self.entries.settimeout(30)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(directory / "stdout"))
        self._listener.listen()
        self.stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.stream.connect(str(directory / "stdout"))

    def receive(self) -> dict[str, str]:
        data, ancillary, _, _ = self.entries.recvmsg(1 << 20, socket.CMSG_SPACE(4))
        if not ancillary:
            return decode(data)
        ((_, _, raw),) = ancillary
        (fd,) = array.array("i", raw)
        with open(fd, "rb") as file:
            file.seek(0)
            assert data == b""
            with pytest.raises(OSError, match="not permitted"):
                os.ftruncate(fd, 0)
            return decode(file.read())

    def lines(self) -> str:
        """What came by the stream."""
        connection, _ = self._listener.accept()
        with connection:
            return connection.recv(4096).decode()

    def close(self) -> None:
        for each in (self.entries, self._listener, self.stream):
            each.close()


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path)
    try:
        yield made
    finally:
        made.close()


def test_the_socket_is_beside_that_of_the_stream(journal: Journal) -> None:
    assert native_socket(journal.stream.fileno()) == journal.address
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert native_socket(ours.fileno()) == ""
    reader, writer = os.pipe()
    os.close(reader)
    assert native_socket(writer) == ""
    os.close(writer)


@pytest.mark.parametrize("length", [1, LARGE], ids=["small", "large"])
def test_an_entry_arrives_whatever_its_size(journal: Journal, length: int) -> None:
    entry = {"MESSAGE": "a\nb" * length, "PRIORITY": "3"}
    JournalStream(journal.address, io.StringIO()).write(entry)
    assert journal.receive() == entry


def test_what_the_socket_does_not_take_goes_to_stderr(tmp_path: Path) -> None:
    stderr = io.StringIO()
    stream = JournalStream(str(tmp_path / "none"), stderr)
    stream.write({"MESSAGE": "a\nb", "PRIORITY": "4"})
    stream.write("<3>a line\n")
    stream.flush()
    assert stderr.getvalue() == "<4>a\n<4>b\n<3>a line\n"


PROGRAM = """
import structlog
from mountd.daemon import logs
from mountd.settings.schema import LogSettings
logs.FLUSH_S = 60.0
writer = logs.configure(LogSettings())
structlog.get_logger().bind(mount="storage").warning("it is full", bytes=5, why="two\\nlines")
try:
    1 / 0
except ZeroDivisionError as error:
    structlog.get_logger().error("bug", exc_info=error)
writer.write("<3>mountd: a line\\n")
writer.close()
"""


def test_the_log_of_a_process_whose_stderr_leads_there(journal: Journal) -> None:
    found = os.fstat(journal.stream.fileno())
    environment = {**os.environ, "JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
    words = [sys.executable, "-c", PROGRAM]
    subprocess.run(words, stderr=journal.stream.fileno(), env=environment, check=True, timeout=60)
    full, bug = journal.receive(), journal.receive()
    assert full == {
        "MESSAGE": 'it is full mount=storage bytes=5 why="two\\nlines"',
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "mountd",
        "MOUNTD_EVENT": "it is full",
        "MOUNTD_MOUNT": "storage",
        "MOUNTD_BYTES": "5",
        "MOUNTD_WHY": "two\nlines",
    }
    assert (bug["PRIORITY"], bug["MOUNTD_EVENT"]) == ("3", "bug")
    assert bug["MESSAGE"].startswith("bug\nTraceback")
    assert journal.lines() == "<3>mountd: a line\n"
