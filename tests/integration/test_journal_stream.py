"""With its stderr connected to systemd's journal, mountd writes what the journal can sort, and no more."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.support.daemon import Daemon
from tests.support.wait import until

ENTRY = re.compile(r"<([0-7])>(.*)")
TIME = re.compile(r"\d\d:\d\d:\d\d")


class Journal:
    """The other end of such a stream."""

    def __init__(self) -> None:
        self._ours, self.theirs = socket.socketpair()
        found = os.fstat(self.theirs.fileno())
        self.environment = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        self.text = ""
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()

    def _receive(self) -> None:
        while data := self._ours.recv(65536):
            self.text += data.decode()

    @property
    def entries(self) -> list[tuple[int, str]]:
        """Priority and text; a line without a priority would be one of information."""
        matches = [ENTRY.fullmatch(line) or line for line in self.text.splitlines()]
        return [(-1, each) if isinstance(each, str) else (int(each[1]), each[2]) for each in matches]

    def close(self) -> None:
        self.theirs.close()
        self._thread.join(5)
        self._ours.close()


@pytest.fixture
def journal() -> Iterator[Journal]:
    made = Journal()
    try:
        yield made
    finally:
        made.close()


@pytest.mark.fuse
def test_the_daemon_writes_text_with_priorities(make_daemon: Callable[..., Daemon], journal: Journal) -> None:
    daemon = make_daemon(environment=journal.environment, stderr=journal.theirs.fileno())
    daemon.start()
    until(lambda: "mountd starts" in journal.text, 60, "the first line")
    pid = daemon.until_ready()["mounts"]["storage"]["pid"]
    os.kill(pid, signal.SIGKILL)
    until(lambda: any(priority == 4 for priority, _ in journal.entries), 60, "a warning")
    assert daemon.stop() == 0
    until(lambda: "mountd has stopped" in journal.text, 60, "the last line")
    entries = journal.entries
    assert {priority for priority, _ in entries} <= {3, 4, 6}
    assert any(text.startswith("mountd starts version=") for priority, text in entries if priority == 6)
    own = [text for _, text in entries if not text.startswith(("rclone says", "app says"))]
    assert not [text for text in own if TIME.search(text) or text.startswith("{")], "the journal has the time"


@pytest.mark.parametrize(
    "words",
    [
        ("run", "-c", "/nonexistent/mountd.yaml"),
        ("--socket", "/nonexistent/socket", "reload"),
        ("reload", "--nonsense"),
    ],
)
def test_a_failure_is_an_error_in_the_journal(words: tuple[str, ...], journal: Journal) -> None:
    """Of the daemon that cannot start, and of the command by which a unit reloads."""
    done = subprocess.run(
        [sys.executable, "-m", "mountd", *words],
        env={**os.environ, **journal.environment},
        stdout=subprocess.DEVNULL,
        stderr=journal.theirs.fileno(),
        timeout=60,
        check=False,
    )
    assert done.returncode in (2, 8)
    until(lambda: journal.text.endswith("\n"), 60, "what it said")
    assert {priority for priority, _ in journal.entries} == {3}


def test_a_stderr_that_was_redirected_is_no_journal(journal: Journal) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mountd", "--socket", "/nonexistent/socket", "reload"],
        env={**os.environ, **journal.environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr.startswith("mountd: ")
