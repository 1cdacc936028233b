"""A mount that is written to: read back at once, uploaded before a graceful stop, and reported when it cannot be."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.support.daemon import Daemon
from tests.support.outputs import BUCKET, SOON_S, TOUCH_S, Outputs, making
from tests.support.proxy import Exchange, Faults, Proxy, Reply
from tests.support.s3 import RcloneS3
from tests.support.wait import until

pytestmark = pytest.mark.fuse


@dataclass(slots=True)
class NoUploads(Faults):
    """Refuses to take anything, as long as it says so."""

    refuses: bool = False

    async def request(self, exchange: Exchange) -> Reply | None:
        if self.refuses and exchange.method in ("PUT", "POST"):
            return Reply(403, b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>", "Forbidden")
        return await Faults.request(self, exchange)


@pytest.fixture
def proxy(store: RcloneS3) -> Iterator[Proxy]:
    with Proxy(store.endpoint, NoUploads()) as between:
        yield between


@pytest.fixture
def make(store: RcloneS3, proxy: Proxy, make_daemon: Callable[..., Daemon]) -> Callable[..., Outputs]:
    # In this order: a daemon that ends may still have something to upload.
    return making(store, proxy, make_daemon)


def test_what_is_written_is_read_back_and_uploaded_before_the_end(make: Callable[..., Outputs]) -> None:
    outputs = make()
    outputs.daemon.start_ready()
    files = {name: outputs.write(name) for name in ("a.wav", "名 前 #1%.wav", "empty")}
    files["empty2"] = outputs.write("empty2", 0)
    assert {name: outputs.read_back(name) for name in files} == files
    assert outputs.daemon.stop() == 0
    assert {name: outputs.uploaded(name) for name in files} == files
    assert outputs.daemon.mounts() == []


@pytest.mark.thorough
@pytest.mark.slow
def test_a_slow_bucket_is_waited_for_with_progress(make: Callable[..., Outputs]) -> None:
    outputs = make(options={"vfs-write-back": "1h"})
    outputs.daemon.start_ready()
    outputs.proxy.latency_s = 1.0
    files = {f"{number}.wav": outputs.write(f"{number}.wav") for number in range(9)}
    outputs.ask_to_stop()
    seen = until(lambda: (drain := outputs.mount["drain"]) and drain["files_left"] < 9 and drain, SOON_S, "progress")
    outputs.proxy.faults.black_hole = True  # so that the rest is still there to be shown
    assert seen["files"] == 9
    assert 0 < seen["bytes_left"] <= 9 * 200_000
    table = outputs.daemon.cli("status").out
    outputs.proxy.faults.black_hole = False
    assert "draining" in table
    assert outputs.daemon.wait_exit(2 * SOON_S) == 0
    assert {name: outputs.uploaded(name) for name in files} == files
    (begun, *_) = outputs.daemon.events("uploading before the stop")
    assert begun["files"] == 9
    assert outputs.daemon.events("all uploaded")


@pytest.mark.slow
def test_what_cannot_be_uploaded_in_time_is_named_kept_and_uploaded_at_the_next_start(
    make: Callable[..., Outputs],
) -> None:
    outputs = make(drain="3s")
    daemon = outputs.daemon
    daemon.start_ready()
    outputs.proxy.down()
    files = {name: outputs.write(name) for name in ("a.wav", "b.wav")}
    assert daemon.stop() == 1
    (logged,) = daemon.until_events("uploads are pending")
    assert (logged["files"], logged["names"], logged["bytes"]) == (2, ["a.wav", "b.wav"], 400_000)
    assert daemon.mounts() == []
    assert daemon.processes() == []
    # The bucket is still away: that something waits is shown.
    daemon.start()
    until(lambda: outputs.mount["cache"]["uploads_queued"] == 2, SOON_S, "what waits to be shown")
    outputs.proxy.up()
    outputs.until_uploaded(files)
    daemon.until_ready()
    assert daemon.stop() == 0


@pytest.mark.thorough
def test_a_planned_restart_drains_first_and_waits_for_a_file_that_is_open(make: Callable[..., Outputs]) -> None:
    outputs = make(options={"vfs-write-back": "1h"})
    outputs.daemon.start_ready()
    before = outputs.pid
    with outputs.open_for_writing("open.wav") as holder:
        files = {"a.wav": outputs.write("a.wav")}
        asking = subprocess.Popen(
            [sys.executable, "-m", "mountd", "--socket", str(outputs.daemon.socket), "restart", "outputs"],
            stdout=subprocess.DEVNULL,
        )
        drain = until(lambda: (seen := outputs.mount["drain"]) and seen["files_left"] == 1 and seen, SOON_S, "the rest")
        assert drain == {"files": 2, "files_left": 1, "bytes_left": 1000, "open": 1}
        assert outputs.uploaded("a.wav") == files["a.wav"]
        assert outputs.pid == before
        holder.communicate(timeout=TOUCH_S)
    files["open.wav"] = hashlib.sha256(bytes(1000)).hexdigest()
    until(lambda: outputs.mount["state"] == "running" and outputs.pid != before, SOON_S, "the next rclone")
    assert {name: outputs.uploaded(name) for name in files} == files
    assert {name: outputs.read_back(name) for name in files} == files
    assert outputs.mount["drain"] is None
    assert asking.wait(SOON_S) == 0


@pytest.mark.thorough
def test_a_file_that_stays_open_is_uploaded_at_the_next_start(make: Callable[..., Outputs]) -> None:
    outputs = make(drain="1s")
    outputs.daemon.start_ready()
    with outputs.open_for_writing("open.wav"):
        assert outputs.daemon.stop() == 1
    assert "open.wav; 1000 bytes" in outputs.daemon.log_text()
    outputs.daemon.start_ready()
    outputs.until_uploaded({"open.wav": hashlib.sha256(bytes(1000)).hexdigest()})


@pytest.mark.thorough
def test_an_upload_that_waits_for_the_time_only_is_begun_at_once(make: Callable[..., Outputs]) -> None:
    outputs = make(options={"vfs-write-back": "1h"})
    outputs.daemon.start_ready()
    files = {name: outputs.write(name) for name in ("a.wav", "b.wav")}
    assert outputs.daemon.stop() == 0
    assert {name: outputs.uploaded(name) for name in files} == files


@pytest.mark.thorough
@pytest.mark.slow
def test_uploads_that_are_refused_are_reported_until_they_are_not(make: Callable[..., Outputs]) -> None:
    outputs = make()
    outputs.daemon.start_ready()
    assert isinstance(outputs.proxy.faults, NoUploads)
    outputs.proxy.faults.refuses = True
    files = {"a.wav": outputs.write("a.wav")}
    reason = outputs.daemon.until_reason("uploads-failing", 60.0)
    assert (reason["layer"], reason["object"]) == ("mount", "outputs")
    assert outputs.mount["health"] == "Degraded"
    assert outputs.mount["restarts"] == 0
    outputs.proxy.faults.refuses = False
    outputs.until_uploaded(files, 60.0)
    until(lambda: outputs.mount["health"] == "Healthy", SOON_S, "health to come back")


@pytest.mark.thorough
def test_what_an_app_writes_at_its_end_is_uploaded(make: Callable[..., Outputs]) -> None:
    outputs = make()
    last = f"trap 'echo last >{outputs.daemon.mount}/last.txt; exit 0' TERM; while :; do sleep 0.05; done"
    outputs.daemon.config["apps"] = {"writer": {"command": ["/bin/sh", "-c", last], "needs": ["outputs"]}}
    outputs.daemon.start_ready()
    assert outputs.daemon.stop() == 0
    assert (outputs.bucket / "last.txt").read_text() == "last\n"


@pytest.mark.thorough
def test_files_of_a_former_bucket_are_reported(make: Callable[..., Outputs]) -> None:
    outputs = make(drain="0s", options={"vfs-write-back": "1h"})
    outputs.daemon.start_ready()
    outputs.write("a.wav")
    assert outputs.daemon.stop() == 1
    (outputs.bucket.parent / "others").mkdir()
    outputs.daemon.config["mounts"]["outputs"]["remote"] = "store:others"
    outputs.daemon.start_ready()
    logged = until(
        lambda: outputs.daemon.events("files of a former configuration are not uploaded"), SOON_S, "the former files"
    )
    assert logged[0]["files"] == 1
    assert logged[0]["names"][0].endswith(f"/{BUCKET}/a.wav")


@pytest.mark.thorough
def test_what_a_removed_mount_has_left_is_a_problem_until_somebody_uploads_it(make: Callable[..., Outputs]) -> None:
    outputs = make(drain="0s", options={"vfs-write-back": "1h"})
    daemon, mounts = outputs.daemon, outputs.daemon.config["mounts"]
    daemon.start_ready()
    file = {"a.wav": outputs.write("a.wav")}
    before = mounts.pop("outputs")
    mounts["other"] = {**before, "path": str(daemon.root / "other"), "cache": {"dir": str(daemon.root / "cache-other")}}
    daemon.write_config()
    asked = daemon.cli("reload", "-o", "json")
    # mountd may have noticed it before the command had started.
    assert asked.code == 1 or (asked.code, asked.json["changed"]) == (0, []), asked
    reason = daemon.until_reason("config-warning")
    assert str(daemon.root / "cache") in reason["text"]
    daemon.until_events("uploads of a removed mount are pending")
    del mounts["other"]
    mounts["outputs"] = {**before, "options": {}}
    daemon.write_config()
    outputs.until_uploaded(file)
    until(lambda: not daemon.reasons(), SOON_S, "no reason to be left")
    assert daemon.stop() == 0
