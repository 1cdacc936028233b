"""Threads that wait for a mount are seen without touching it, and told from those that go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mountd.mount.readers import waiting
from tests.support.daemon import Daemon
from tests.support.wait import until

pytestmark = pytest.mark.fuse

READ = """if True:
    import signal, sys
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    held = open(sys.argv[1], "rb")
    print("held", flush=True)
    signal.sigwait([signal.SIGUSR1])
    held.read()
"""
IDLE = "import sys, time; held = open(sys.argv[1], 'rb'); print('held', flush=True); time.sleep(600)"


def start(program: str, *paths: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", program, *map(str, paths)], stdout=subprocess.PIPE)


def test_a_reader_of_a_stopped_rclone_is_seen_and_keeps_its_key(daemon: Daemon) -> None:
    daemon.config["mounts"]["storage"]["health"] = {"failures": 1000}  # the repair would free the readers
    pid = daemon.start_ready()["mounts"]["storage"]["pid"]
    version = daemon.mount / "cache_hub_v23"
    idle = start(IDLE, version / "config.yaml")
    assert idle.stdout is not None
    readers: list[subprocess.Popen[bytes]] = []
    try:
        assert idle.stdout.readline() == b"held\n"
        assert waiting([idle.pid], str(daemon.mount)) == frozenset()
        reader = start(READ, version / "models" / "gpt.pth")
        readers.append(reader)
        assert reader.stdout is not None
        assert reader.stdout.readline() == b"held\n"
        os.kill(pid, signal.SIGSTOP)
        reader.send_signal(signal.SIGUSR1)
        roots = [idle.pid, reader.pid]
        first = until(lambda: waiting(roots, str(daemon.mount)), 10, "the reader to be seen")
        assert {key.split("/")[0] for key in first} == {str(reader.pid)}
        assert waiting(roots, str(daemon.mount)) == first
        assert waiting([os.getpid()], str(daemon.mount)) == first, "descendants count"
        assert waiting(roots, "/somewhere/else") == frozenset()
    finally:
        os.kill(pid, signal.SIGCONT)
        for process in (idle, *readers):
            process.kill()
            process.wait()


def test_processes_that_are_gone_are_no_readers() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert waiting([gone.pid, 2**22 + 1], "/mnt") == frozenset()
