"""A bucket that refuses, and many readers: rclone complains of each read, and mountd logs a few lines."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from mountd.demo import hub
from mountd.process.child import RING_LINES
from mountd.rclone.dedupe import KINDS
from tests.support.daemon import Daemon
from tests.support.s3 import RcloneS3
from tests.support.wait import until

pytestmark = pytest.mark.fuse

FILES = 300
READERS = 60
READ_S = 100.0
# Lists the directory at once, reads a byte of each file after a line on stdin, and prints how many reads failed.
READS = f"""
import os, sys
from concurrent.futures import ThreadPoolExecutor
def fails(name):
    try:
        with open(os.path.join(sys.argv[1], name), "rb", buffering=0) as file:
            return not file.read(1)
    except OSError:
        return True
names = os.listdir(sys.argv[1])
print(len(names), flush=True)
sys.stdin.readline()
with ThreadPoolExecutor({READERS}) as pool:
    print(sum(pool.map(fails, names)), flush=True)
"""


@pytest.mark.thorough
@pytest.mark.slow
def test_a_flood_of_failing_reads_is_a_few_lines(make_daemon: Callable[..., Daemon], store: RcloneS3) -> None:
    flood = store.directory / hub.BUCKET / "flood"
    flood.mkdir()
    for number in range(FILES):
        (flood / f"file-{number}.bin").write_bytes(b"x" * 1000)
    daemon = make_daemon()
    daemon.config["apps"] = {}
    daemon.start_ready()
    rclone = daemon.status()["mounts"]["storage"]["pid"]
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", READS, str(daemon.mount / "flood")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as readers:  # fmt: skip
        try:
            assert readers.stdout is not None
            assert int(readers.stdout.readline()) == FILES
            store.set_keys(store.access_key_id, "mountd-test-secret-9999")
            out, _ = readers.communicate("go on\n", timeout=READ_S)
            assert int(out) == FILES, "each read fails"
        finally:
            readers.kill()

    def counted() -> int:
        lines = (event["text"] for event in daemon.events("rclone says"))
        return sum(int(found[1]) for text in lines if (found := re.match(r"… repeated (\d+) times in \d+ s: ", text)))

    until(lambda: counted() >= FILES, 60, "the repeats to be counted, though silence follows", every_s=0.5)
    said = daemon.events("rclone says")
    assert len(said) <= KINDS
    assert all(event["level"] == "warning" for event in said)
    logged = daemon.cli("logs", "storage", "-n", str(RING_LINES)).out.splitlines()
    assert len(logged) <= 2 * KINDS + 1
    assert any("poll-interval" in line or "vfs cache: cleaned" in line for line in logged), (
        "older lines are still there"
    )
    assert daemon.status()["mounts"]["storage"]["pid"] == rclone


@pytest.mark.thorough
def test_the_goroutines_of_an_rclone_that_ends_are_no_lines_of_the_log(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    daemon.config["log"] = {"level": "debug"}
    before = daemon.start_ready()
    os.kill(before["mounts"]["storage"]["pid"], signal.SIGQUIT)
    until(lambda: daemon.status()["mounts"]["storage"]["restarts"] == 1, 60, "the mount to be back")
    daemon.until_ready()
    ends = daemon.until_events("state changed", state="cleaning")
    assert "SIGQUIT: quit" in ends[0]["cause"], "what rclone said"
    logged = daemon.log_text() + daemon.cli("logs", "storage", "-n", str(RING_LINES)).out
    assert "goroutine" not in logged
    assert re.search(r"\.go:\d+ \+0x", logged) is None
