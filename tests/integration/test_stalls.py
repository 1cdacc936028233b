"""Threads that wait for a mount are seen without touching it, and distinguished from those that go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mountd.mount.stalls import StalledReads, stalled_reads
from tests.support.daemon import Daemon
from tests.support.machine import state
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
MAP = """if True:
    import mmap, signal, sys
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    held = open(sys.argv[1], "rb")
    seen = mmap.mmap(held.fileno(), 0, prot=mmap.PROT_READ)
    print("held", flush=True)
    signal.sigwait([signal.SIGUSR1])
    sum(seen[::4096])
"""
LIST = """if True:
    import os, signal, sys
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    held = open(sys.argv[1], "rb")
    print("held", flush=True)
    signal.sigwait([signal.SIGUSR1])
    os.listdir(os.path.dirname(sys.argv[1]))
"""
VFORK = """if True:
    import ctypes, os, signal, sys
    held = open(sys.argv[1], "rb")
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    print("held", flush=True)
    signal.sigwait([signal.SIGUSR1])
    os.posix_spawn(sys.argv[2], ["fifo"], {}, file_actions=[(os.POSIX_SPAWN_OPEN, 9, sys.argv[3], os.O_RDONLY, 0)])
"""
IDLE = "import sys, time; held = open(sys.argv[1], 'rb'); print('held', flush=True); time.sleep(600)"


def where(pid: int) -> str:
    return Path(f"/proc/{pid}/wchan").read_text()


def threads(pid: int) -> list[int]:
    return [int(name) for name in os.listdir(f"/proc/{pid}/task")]


def pids(keys: frozenset[str]) -> set[int]:
    return {int(key.split("/")[0]) for key in keys}


def start(program: str, *paths: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", program, *map(str, paths)], stdout=subprocess.PIPE)


def test_a_reader_of_a_stopped_rclone_is_seen_and_keeps_its_key(daemon: Daemon) -> None:
    """A wait for content, a wait for a listing and what has nothing to do with the mount are distinguished."""
    daemon.config["mounts"]["storage"]["health"] = {"failures": 1000}  # the repair would free the readers
    pid = daemon.start_ready()["mounts"]["storage"]["pid"]
    version = daemon.mount / "cache_hub_v23"
    other, fifo = daemon.mount / "cache_hub_v22", daemon.root / "fifo"
    os.mkfifo(fifo)
    held = version / "config.yaml"
    idle = start(IDLE, held)
    kinds = [
        start(READ, other / "models" / "gpt.pth"),
        start(MAP, other / "models" / "s2mel.pth"),
        start(LIST, held),
        start(VFORK, held, Path("/bin/true"), fifo),
    ]
    reader, mapper, lister, spawner = kinds
    try:
        for process in (idle, *kinds):
            assert process.stdout is not None
            assert process.stdout.readline() == b"held\n"
        spawner.send_signal(signal.SIGUSR1)
        until(
            lambda: (state(spawner.pid), where(spawner.pid)) == ("D", "kernel_clone"), 10, "one to wait for its child"
        )
        assert not stalled_reads([idle.pid, spawner.pid], str(daemon.mount))
        os.kill(pid, signal.SIGSTOP)
        until(lambda: all(state(tid) == "T" for tid in threads(pid)), 60, "each thread of rclone to have stopped")
        for process in (reader, mapper, lister):
            process.send_signal(signal.SIGUSR1)
        roots = [process.pid for process in (idle, *kinds)]

        def all_wait() -> StalledReads | None:
            found = stalled_reads(roots, str(daemon.mount))
            return found if found.content and found.answer and found.page else None

        first = until(all_wait, 60, "the readers to be seen")
        assert first is not None
        assert (pids(first.content), pids(first.page), pids(first.answer)) == ({reader.pid}, {mapper.pid}, {lister.pid})
        assert not first.unknown
        assert stalled_reads(roots, str(daemon.mount)) == first
        assert stalled_reads([os.getpid()], str(daemon.mount)) == first, "descendants count"
        assert not stalled_reads(roots, "/somewhere/else")
    finally:
        os.kill(pid, signal.SIGCONT)
        for process in (idle, *kinds):
            process.kill()
        with open(fifo, "wb", buffering=0, opener=lambda path, _: os.open(path, os.O_RDWR)):
            for process in (idle, *kinds):
                process.wait()


def test_processes_that_have_exited_are_no_readers() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert stalled_reads([gone.pid, 2**22 + 1], "/mnt") == StalledReads()
