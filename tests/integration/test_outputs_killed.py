"""A mount that is written to, when rclone or mountd is killed or hangs: nothing is lost, the next one uploads it."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Callable

import pytest

from tests.support.daemon import Daemon
from tests.support.outputs import SOON_S, Outputs, making
from tests.support.proxy import Proxy
from tests.support.s3 import RcloneS3
from tests.support.wait import until

pytestmark = pytest.mark.fuse


@pytest.fixture
def make(store: RcloneS3, proxy: Proxy, make_daemon: Callable[..., Daemon]) -> Callable[..., Outputs]:
    # In this order: a daemon that ends may still have something to upload.
    return making(store, proxy, make_daemon)


@pytest.mark.thorough
def test_a_killed_rclone_loses_nothing(make: Callable[..., Outputs]) -> None:
    outputs = make(options={"vfs-write-back": "15s"})
    outputs.daemon.start_ready()
    before = outputs.pid
    with outputs.open_for_writing("open.wav"):
        files = {name: outputs.write(name) for name in ("a.wav", "b.wav")}
        assert outputs.uploaded("a.wav") is None
        os.kill(before, signal.SIGKILL)
        until(lambda: outputs.mount["state"] == "running" and outputs.pid != before, SOON_S, "the next rclone")
        assert {name: outputs.read_back(name) for name in files} == files
        outputs.until_uploaded({**files, "open.wav": hashlib.sha256(bytes(1000)).hexdigest()}, 2 * SOON_S)


@pytest.mark.thorough
def test_a_file_that_was_open_when_rclone_was_killed_is_whole(make: Callable[..., Outputs]) -> None:
    """Of all that was written to it, its metadata knows the first block at that time."""
    outputs = make(options={"vfs-write-back": "5s"})
    (outputs.bucket / "old.wav").write_bytes(os.urandom(3000))
    outputs.daemon.start_ready()
    before = outputs.pid
    files = dict.fromkeys(("new.wav", "old.wav"), hashlib.sha256(bytes(3000)).hexdigest())
    with outputs.open_for_writing("new.wav", 3), outputs.open_for_writing("old.wav", 3):
        os.kill(before, signal.SIGKILL)
        until(lambda: outputs.mount["state"] == "running" and outputs.pid != before, SOON_S, "the next rclone")
        assert {name: outputs.read_back(name) for name in files} == files
        outputs.until_uploaded(files)
        assert {name: outputs.read_back(name) for name in files} == files


@pytest.mark.thorough
def test_a_killed_mountd_loses_nothing(make: Callable[..., Outputs]) -> None:
    outputs = make(options={"vfs-write-back": "1h"})
    (outputs.bucket / "d").mkdir()
    (outputs.bucket / "d" / "before").write_text("it makes the directory")
    outputs.daemon.start_ready()
    files = {name: outputs.write(name) for name in ("a.wav", "b.wav", "d/名 前.wav")}
    outputs.kill_everything()
    assert outputs.uploaded("a.wav") is None
    outputs.daemon.config["mounts"]["outputs"]["options"] = {}
    outputs.daemon.start_ready()
    assert outputs.read_back("a.wav") == files["a.wav"]
    outputs.until_uploaded(files)
    until(lambda: outputs.waiting() == 0, SOON_S, "rclone to be done with them")
    # rclone by itself gives 0 bytes to who reads such a file for the first time now.
    assert {name: outputs.read_back(name) for name in files} == files


@pytest.mark.thorough
@pytest.mark.slow
def test_what_a_killed_mountd_left_is_read_back_from_a_slow_bucket_too(make: Callable[..., Outputs]) -> None:
    """The uploads end before mountd can look through the mount, so that it may have to mount again."""
    outputs = make(options={"vfs-write-back": "1h"})
    outputs.daemon.start_ready()
    files = {name: outputs.write(name, 1000) for name in ("a.wav", "b.wav", "c.wav")}
    outputs.kill_everything()
    outputs.proxy.latency_s = 1.5
    outputs.daemon.config["mounts"]["outputs"]["options"] = {"vfs-write-back": "100ms"}
    outputs.daemon.start()
    outputs.daemon.until_ready(120.0)
    outputs.until_uploaded(files, 60.0)
    until(lambda: outputs.waiting() == 0, SOON_S, "rclone to be done with them")
    assert {name: outputs.read_back(name) for name in files} == files


def test_half_written_metadata_of_a_killed_rclone_loses_nothing(make: Callable[..., Outputs]) -> None:
    outputs = make(options={"vfs-write-back": "1h"})
    outputs.daemon.start_ready()
    files = {name: outputs.write(name) for name in ("torn.wav", "empty.wav", "fine.wav")}
    outputs.kill_everything()
    for name, text in (("torn.wav", '{\n\t"ModTi'), ("empty.wav", "")):
        (meta,) = (outputs.daemon.root / "cache" / "vfsMeta").rglob(name)
        meta.write_text(text)
    outputs.daemon.config["mounts"]["outputs"]["options"] = {}
    outputs.daemon.start_ready()
    (logged,) = outputs.daemon.until_events("repaired cache records of files that wait for upload")
    # The one that was written last may have been torn by the kill itself.
    repaired = {name.rpartition("/")[2] for name in logged["names"]}
    assert {"torn.wav", "empty.wav"} <= repaired <= {*files}
    outputs.until_uploaded(files)
    assert {name: outputs.read_back(name) for name in files} == files


@pytest.mark.thorough
@pytest.mark.slow
def test_a_hung_rclone_is_not_waited_for_as_long_as_for_uploads(make: Callable[..., Outputs]) -> None:
    outputs = make(options={"vfs-write-back": "1h"}, drain="10m", health={"failures": 1000})
    outputs.daemon.start_ready()
    files = {"a.wav": outputs.write("a.wav")}
    os.kill(outputs.pid, signal.SIGSTOP)
    assert outputs.daemon.stop() == 1
    assert outputs.daemon.events("ended by force")
    assert outputs.daemon.mounts() == []
    outputs.daemon.config["mounts"]["outputs"]["options"] = {}
    outputs.daemon.start_ready()
    outputs.until_uploaded(files)
