"""A mount that is written to: read back at once, uploaded before any polite end, nothing lost by an impolite one."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import BUNDLED_RCLONE, Daemon
from tests.support.proxy import Exchange, Faults, Proxy, Reply
from tests.support.s3 import RcloneS3
from tests.support.wait import until

pytestmark = [pytest.mark.fuse, pytest.mark.current_first]

BUCKET = "outputs"
TOUCH_S = 20.0
SOON_S = 30.0


@dataclass(slots=True)
class NoUploads(Faults):
    """Refuses to take anything, as long as it says so."""

    refuses: bool = False

    async def request(self, exchange: Exchange) -> Reply | None:
        if self.refuses and exchange.method in ("PUT", "POST"):
            return Reply(403, b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>", "Forbidden")
        return await Faults.request(self, exchange)


@dataclass(frozen=True, slots=True)
class Outputs:
    """A daemon with one outputs mount, its bucket as a directory, and the proxy between them."""

    daemon: Daemon
    bucket: Path
    proxy: Proxy

    @property
    def mount(self) -> dict[str, Any]:
        found: dict[str, Any] = self.daemon.status()["mounts"]["outputs"]
        return found

    @property
    def pid(self) -> int:
        return int(self.mount["pid"])

    def write(self, name: str, size: int = 200_000) -> str:
        """A new file, through the mount, by a process that can be killed; its sha256."""
        data = os.urandom(size)
        copy = "import sys; open(sys.argv[1], 'wb').write(sys.stdin.buffer.read())"
        target = str(self.daemon.mount / name)
        subprocess.run([sys.executable, "-c", copy, target], input=data, timeout=TOUCH_S, check=True)
        return hashlib.sha256(data).hexdigest()

    def read_back(self, name: str) -> str:
        done = subprocess.run(
            ["sha256sum", str(self.daemon.mount / name)], capture_output=True, text=True, timeout=TOUCH_S, check=True
        )
        return done.stdout.split()[0].removeprefix("\\")

    def uploaded(self, name: str) -> str | None:
        """The sha256 of the object."""
        try:
            return hashlib.sha256((self.bucket / name).read_bytes()).hexdigest()
        except FileNotFoundError:
            return None

    def until_uploaded(self, files: dict[str, str], timeout_s: float = SOON_S) -> None:
        until(
            lambda: all(self.uploaded(name) == sha for name, sha in files.items()), timeout_s, f"{len(files)} objects"
        )

    @contextlib.contextmanager
    def open_for_writing(self, name: str, writes: int = 1) -> Iterator[subprocess.Popen[bytes]]:
        """A process that writes 1,000 zeros, that many times, and keeps the file open until its stdin is closed."""
        hold = (
            "import sys; f = open(sys.argv[1], 'wb', 0); [f.write(bytes(1000)) for _ in range(int(sys.argv[2]))]; "
            "print(1, flush=True); sys.stdin.read()"
        )
        argv = [sys.executable, "-c", hold, str(self.daemon.mount / name), str(writes)]
        holder = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"1\n"
            yield holder
        finally:
            holder.kill()
            holder.wait()
            for pipe in (holder.stdin, holder.stdout):
                assert pipe is not None
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def kill_everything(self) -> None:
        """mountd, its parent and all that they have started, as when the machine loses its power."""
        assert self.daemon.process is not None
        daemon_pid = int(self.daemon.status()["pid"])
        for pid in (daemon_pid, self.daemon.process.pid, *self.daemon.processes()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.daemon.wait_exit()

    def waiting(self) -> int:
        """Files that rclone's metadata calls dirty."""
        metas = (self.daemon.root / "cache" / "vfsMeta").rglob("*.wav")
        return sum(json.loads(meta.read_text())["Dirty"] for meta in metas)

    def ask_to_stop(self) -> None:
        assert self.daemon.process is not None
        self.daemon.process.send_signal(signal.SIGTERM)


@pytest.fixture
def proxy(store: RcloneS3) -> Iterator[Proxy]:
    with Proxy(store.endpoint, NoUploads()) as between:
        yield between


@pytest.fixture
def make(store: RcloneS3, proxy: Proxy, make_daemon: Callable[..., Daemon]) -> Callable[..., Outputs]:
    # In this order: a daemon that ends may still have something to upload.
    def made(rclone: Path = BUNDLED_RCLONE, **mount: Any) -> Outputs:
        bucket = store.directory / BUCKET
        bucket.mkdir()
        daemon = make_daemon(rclone=rclone, endpoint=proxy.endpoint)
        del daemon.config["models"], daemon.config["apps"]
        storage = daemon.config["mounts"].pop("storage")
        daemon.config["mounts"]["outputs"] = {**storage, "remote": f"store:{BUCKET}", "profile": "outputs", **mount}
        return Outputs(daemon, bucket, proxy)

    return made


def test_what_is_written_is_read_back_and_uploaded_before_the_end(
    make: Callable[..., Outputs], each_rclone: Path
) -> None:
    outputs = make(each_rclone)
    outputs.daemon.start_ready()
    files = {name: outputs.write(name) for name in ("a.wav", "名 前 #1%.wav", "empty")}
    files["empty2"] = outputs.write("empty2", 0)
    assert {name: outputs.read_back(name) for name in files} == files
    assert outputs.daemon.stop() == 0
    assert {name: outputs.uploaded(name) for name in files} == files
    assert outputs.daemon.mounts() == []


@pytest.mark.slow
def test_a_slow_bucket_is_waited_for_with_progress(make: Callable[..., Outputs], each_rclone: Path) -> None:
    outputs = make(each_rclone, options={"vfs-write-back": "10s"})
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
    assert "draining: " in table
    assert " of 9 files left, " in table
    assert outputs.daemon.wait_exit(2 * SOON_S) == 0
    assert {name: outputs.uploaded(name) for name in files} == files
    (begun, *_) = outputs.daemon.events("uploading before the end")
    assert begun["files"] == 9
    assert outputs.daemon.events("all uploaded")


@pytest.mark.slow
def test_what_cannot_be_uploaded_in_time_is_named_kept_and_uploaded_at_the_next_start(
    make: Callable[..., Outputs], each_rclone: Path
) -> None:
    outputs = make(each_rclone, drain="3s")
    daemon = outputs.daemon
    daemon.start_ready()
    outputs.proxy.down()
    files = {name: outputs.write(name) for name in ("a.wav", "b.wav")}
    assert daemon.stop() == 1
    (told,) = daemon.events("uploads are pending")
    assert (told["files"], told["names"], told["bytes"]) == (2, ["a.wav", "b.wav"], 400_000)
    said = f"they are in the cache {daemon.root / 'cache'} and will be uploaded at the next start"
    assert "mountd: cannot upload everything before the end: 2 files (a.wav, b.wav; 391 KiB) of mount outputs" in (
        daemon.log_text()
    )
    assert said in daemon.log_text()
    assert daemon.mounts() == []
    assert daemon.processes() == []
    # The bucket is still away: that something waits is shown.
    daemon.start()
    until(lambda: outputs.mount["cache"]["uploads_queued"] == 2, SOON_S, "what waits to be shown")
    outputs.proxy.up()
    outputs.until_uploaded(files)
    daemon.until_ready()
    assert daemon.stop() == 0


def test_a_killed_rclone_loses_nothing(make: Callable[..., Outputs], each_rclone: Path) -> None:
    outputs = make(each_rclone, options={"vfs-write-back": "15s"})
    outputs.daemon.start_ready()
    before = outputs.pid
    with outputs.open_for_writing("open.wav"):
        files = {name: outputs.write(name) for name in ("a.wav", "b.wav")}
        assert outputs.uploaded("a.wav") is None
        os.kill(before, signal.SIGKILL)
        until(lambda: outputs.mount["state"] == "running" and outputs.pid != before, SOON_S, "the next rclone")
        assert {name: outputs.read_back(name) for name in files} == files
        outputs.until_uploaded({**files, "open.wav": hashlib.sha256(bytes(1000)).hexdigest()}, 2 * SOON_S)


def test_a_file_that_was_open_when_rclone_was_killed_is_whole(make: Callable[..., Outputs], each_rclone: Path) -> None:
    """Of all that was written to it, its metadata knows the first block at that time."""
    outputs = make(each_rclone, options={"vfs-write-back": "5s"})
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


def test_a_killed_mountd_loses_nothing(make: Callable[..., Outputs], each_rclone: Path) -> None:
    outputs = make(each_rclone, options={"vfs-write-back": "1h"})
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


@pytest.mark.slow
def test_what_a_killed_mountd_left_is_read_back_from_a_slow_bucket_too(
    make: Callable[..., Outputs], each_rclone: Path
) -> None:
    """The uploads end before mountd can look through the mount, so that it may have to mount again."""
    outputs = make(each_rclone, options={"vfs-write-back": "1h"})
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


def test_half_written_metadata_of_a_killed_rclone_loses_nothing(
    make: Callable[..., Outputs], each_rclone: Path
) -> None:
    outputs = make(each_rclone, options={"vfs-write-back": "1h"})
    outputs.daemon.start_ready()
    files = {name: outputs.write(name) for name in ("torn.wav", "empty.wav", "fine.wav")}
    outputs.kill_everything()
    for name, text in (("torn.wav", '{\n\t"ModTi'), ("empty.wav", "")):
        (meta,) = (outputs.daemon.root / "cache" / "vfsMeta").rglob(name)
        meta.write_text(text)
    outputs.daemon.config["mounts"]["outputs"]["options"] = {}
    outputs.daemon.start_ready()
    (told,) = outputs.daemon.events("mended what the cache tells of files that wait for their upload")
    assert len(told["names"]) == 2
    outputs.until_uploaded(files)
    assert {name: outputs.read_back(name) for name in files} == files


def test_a_planned_restart_drains_first_and_waits_for_a_file_that_is_open(
    make: Callable[..., Outputs], each_rclone: Path
) -> None:
    outputs = make(each_rclone, options={"vfs-write-back": "10s"})
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


def test_a_file_that_stays_open_is_uploaded_at_the_next_start(make: Callable[..., Outputs], each_rclone: Path) -> None:
    outputs = make(each_rclone, drain="1s")
    outputs.daemon.start_ready()
    with outputs.open_for_writing("open.wav"):
        assert outputs.daemon.stop() == 1
    assert "1 file (open.wav; 1000 bytes) of mount outputs is not uploaded yet" in outputs.daemon.log_text()
    outputs.daemon.start_ready()
    outputs.until_uploaded({"open.wav": hashlib.sha256(bytes(1000)).hexdigest()})


def test_an_upload_that_waits_for_the_time_only_is_begun_at_once(make: Callable[..., Outputs]) -> None:
    outputs = make(options={"vfs-write-back": "1h"})
    outputs.daemon.start_ready()
    files = {name: outputs.write(name) for name in ("a.wav", "b.wav")}
    assert outputs.daemon.stop() == 0
    assert {name: outputs.uploaded(name) for name in files} == files


@pytest.mark.slow
def test_uploads_that_are_refused_are_told_until_they_are_not(make: Callable[..., Outputs], each_rclone: Path) -> None:
    outputs = make(each_rclone)
    outputs.daemon.start_ready()
    assert isinstance(outputs.proxy.faults, NoUploads)
    outputs.proxy.faults.refuses = True
    files = {"a.wav": outputs.write("a.wav")}
    reason = outputs.daemon.until_reason("uploads-failing", 60.0)
    assert (reason["layer"], reason["object"]) == ("mount", "outputs")
    assert reason["text"].startswith("cannot upload 1 file of mount outputs, tried ")
    assert outputs.mount["health"] == "Degraded"
    assert outputs.mount["restarts"] == 0
    outputs.proxy.faults.refuses = False
    outputs.until_uploaded(files, 60.0)
    until(lambda: outputs.mount["health"] == "Healthy", SOON_S, "health to come back")


def test_what_an_app_writes_at_its_end_is_uploaded(make: Callable[..., Outputs]) -> None:
    outputs = make()
    last = f"trap 'echo last >{outputs.daemon.mount}/last.txt; exit 0' TERM; while :; do sleep 0.05; done"
    outputs.daemon.config["apps"] = {"writer": {"command": ["/bin/sh", "-c", last], "needs": ["outputs"]}}
    outputs.daemon.start_ready()
    assert outputs.daemon.stop() == 0
    assert (outputs.bucket / "last.txt").read_text() == "last\n"


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


def test_files_of_a_former_bucket_are_told(make: Callable[..., Outputs]) -> None:
    outputs = make(drain="0s", options={"vfs-write-back": "1h"})
    outputs.daemon.start_ready()
    outputs.write("a.wav")
    assert outputs.daemon.stop() == 1
    (outputs.bucket.parent / "others").mkdir()
    outputs.daemon.config["mounts"]["outputs"]["remote"] = "store:others"
    outputs.daemon.start_ready()
    told = until(
        lambda: outputs.daemon.events("files of a former configuration are not uploaded"), SOON_S, "the former files"
    )
    assert told[0]["files"] == 1
    assert told[0]["names"][0].endswith(f"/{BUCKET}/a.wav")


def test_what_a_removed_mount_has_left_is_a_problem_until_somebody_uploads_it(make: Callable[..., Outputs]) -> None:
    outputs = make(drain="0s", options={"vfs-write-back": "1h"})
    daemon, mounts = outputs.daemon, outputs.daemon.config["mounts"]
    daemon.start_ready()
    file = {"a.wav": outputs.write("a.wav")}
    before = mounts.pop("outputs")
    mounts["other"] = {**before, "path": str(daemon.root / "other"), "cache": {"dir": str(daemon.root / "cache-other")}}
    daemon.write_config()
    asked = daemon.cli("reload")
    if "nothing has changed" not in asked.out:  # mountd may have noticed it before the command had started
        assert asked.code == 1, asked
        assert "a mount that was removed: 1 file (" in asked.err
    reason = daemon.until_reason("config-warning")
    assert f"in the cache {daemon.root / 'cache'} and no mount uploads them now: keep it" in reason["text"]
    assert daemon.events("uploads of a removed mount are pending")
    del mounts["other"]
    mounts["outputs"] = {**before, "options": {}}
    daemon.write_config()
    outputs.until_uploaded(file)
    until(lambda: not daemon.reasons(), SOON_S, "no reason to be left")
    assert daemon.stop() == 0
