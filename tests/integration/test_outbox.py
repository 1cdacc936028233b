"""Finished files of a local directory become objects by themselves, and each is announced once."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from tests.support.daemon import Daemon
from tests.support.explained import until_explained
from tests.support.faults import Page
from tests.support.machine import Tmpfs
from tests.support.outbox import BUCKET, PREFIX, SOON_S, Results, making, sha256
from tests.support.proxy import Proxy
from tests.support.s3 import RcloneS3
from tests.support.wait import until

pytestmark = pytest.mark.fuse


@pytest.fixture
def make(store: RcloneS3, proxy: Proxy, make_daemon: Callable[..., Daemon]) -> Callable[..., Results]:
    return making(store, proxy, make_daemon)


def test_what_an_app_writes_is_uploaded_verified_and_announced(make: Callable[..., Results]) -> None:
    results = make()
    files = {name: results.write(name) for name in ("a.wav", "声音/一 号#2.wav", "deep/er/b.wav")}
    results.daemon.start_ready()
    files["later.wav"] = results.write("later.wav")
    files["empty"] = results.write("empty", b"")
    same = {name: results.write(name, b"the same content") for name in ("same-1.txt", "same-2.txt")}
    results.write("not.tmp")
    results.write(".hidden/x.wav")
    results.until_stored(files | same)
    assert set(results.announced().values()) == {1}
    event = next(each for each in results.events() if each["key"] == f"{PREFIX}/later.wav")
    assert {key: event[key] for key in ("bucket", "size", "digest")} == {
        "bucket": BUCKET,
        "size": 20_000,
        "digest": f"sha256:{files['later.wav']}",
    }
    status = results.until_status(pending=0, uploaded=len(files) + len(same))
    assert status["health"] == "Healthy"
    assert status["last"]["time"]
    assert (results.directory / "a.wav").exists()


@pytest.mark.thorough
def test_a_file_that_is_written_again_replaces_its_object_and_is_announced_again(make: Callable[..., Results]) -> None:
    results = make()
    results.daemon.start_ready()
    first = results.write("a.wav")
    results.until_stored({"a.wav": first})
    (results.directory / "a.wav").chmod(0o640)  # the same content
    second = results.write("a.wav")
    results.until_stored({"a.wav": second})
    assert results.announced() == {("a.wav", f"sha256:{first}"): 1, ("a.wav", f"sha256:{second}"): 1}
    (results.directory / "a.wav").chmod(0o600)
    third = results.write("b.wav")
    results.until_stored({"a.wav": second, "b.wav": third})
    until(lambda: not results.journal("SELECT 1 FROM outbox WHERE state != 'uploaded'"), SOON_S, "nothing to wait")
    assert len(results.events()) == 3


def test_names_that_cannot_be_keys_are_refused_and_block_nothing(make: Callable[..., Results]) -> None:
    results = make()
    results.daemon.start_ready()
    bad = Path(os.fsdecode(os.fsencode(results.directory) + b"/\xff\xfe.wav"))
    for name in (bad, results.directory / "two\nlines.wav", results.directory / "stand／in.wav"):
        name.write_bytes(b"x")
    good = results.write("好 of course.wav")
    results.until_stored({"好 of course.wav": good})
    results.until_status(failed=3, pending=0, health="Degraded")
    assert results.daemon.until_reason("outbox-failed")["object"] == "results"
    assert results.daemon.status()["ready"]
    for name in (bad, results.directory / "two\nlines.wav"):
        name.unlink()
    (results.directory / "stand／in.wav").rename(results.directory / "renamed.wav")
    results.until_stored({"好 of course.wav": good, "renamed.wav": sha256(b"x")})
    results.until_status(failed=0, pending=0, health="Healthy")
    assert results.daemon.stop() == 0  # writes what would wait for its minute
    refused = results.events("result-refused")
    assert sum(each["count"] for each in refused) == 3
    names = {name for each in refused for name in each["names"]}
    assert names == {"\\xff\\xfe.wav", "two\\x0alines.wav", "stand／in.wav"}


def test_an_outage_is_waited_out_and_what_is_removed_meanwhile_is_lost(make: Callable[..., Results]) -> None:
    results = make()
    results.daemon.start_ready()
    results.proxy.down()
    files = {name: results.write(name) for name in ("a.wav", "b.wav")}
    results.write("removed.wav")
    assert results.daemon.until_reason("outbox-waiting")["layer"] == "outbox"
    until_explained(results.daemon, "outbox-waiting")
    status = results.until_status(pending=3, health="Degraded")
    assert (status["pending_bytes"], status["uploaded"]) == (60_000, 0)
    assert status["oldest_s"] >= 0
    document = results.daemon.status()
    assert (document["ready"], document["health"]) == (True, "Degraded")
    (results.directory / "removed.wav").unlink()
    until(lambda: results.events("result-lost"), SOON_S, "the lost file to be announced")
    results.proxy.up()
    results.until_stored(files)
    results.until_status(pending=0, health="Healthy")
    assert [each["name"] for each in results.events("result-lost")] == ["removed.wav"]
    until(lambda: results.journal("SELECT 1 FROM events WHERE code = 'outbox-recovered'"), SOON_S, "the recovery")


@pytest.mark.thorough
def test_a_stop_leaves_what_waits_for_the_next_start(make: Callable[..., Results]) -> None:
    results = make()
    results.daemon.start_ready()
    results.proxy.down()
    files = {name: results.write(name) for name in ("a.wav", "b.wav")}
    results.until_status(pending=2)
    assert results.daemon.stop() == 0
    files["meanwhile.wav"] = results.write("meanwhile.wav")
    results.proxy.up()
    results.daemon.start()
    results.until_stored(files)
    assert set(results.announced().values()) == {1}


@pytest.mark.thorough
def test_an_alarm_that_was_over_when_mountd_began_again_has_an_end(make: Callable[..., Results]) -> None:
    def said() -> list[str]:
        rows = results.journal("SELECT code FROM events WHERE code LIKE 'outbox-%' ORDER BY id")
        return [code for (code,) in rows]

    results = make()
    results.daemon.start_ready()
    results.proxy.down()
    files = {"a.wav": results.write("a.wav")}
    until(lambda: said() == ["outbox-waiting"], SOON_S, "the alarm")
    for _ in range(2):
        assert results.daemon.stop() == 0
        results.daemon.start()
        results.until_status(pending=1, health="Degraded")
        assert results.daemon.until_reason("outbox-waiting")
    assert said() == ["outbox-waiting"]
    assert results.daemon.stop() == 0
    results.proxy.up()
    results.daemon.start()
    results.until_stored(files)
    until(lambda: said() == ["outbox-waiting", "outbox-recovered"], SOON_S, "its end")


@pytest.mark.thorough
def test_what_the_bucket_holds_is_compared(make: Callable[..., Results]) -> None:
    """Only mountd looks at an object: it finds another size there, and at the next try again."""
    results = make(parallel=1)
    looks = count(1)
    results.proxy.faults.fail = {"HEAD": Page(b"planted", where=lambda _: next(looks) in (1, 2))}
    results.daemon.start_ready()
    files = {"a.wav": results.write("a.wav")}
    results.until_stored(files)
    assert next(looks) > 3
    assert results.announced() == {("a.wav", f"sha256:{files['a.wav']}"): 1}
    assert results.proxy.counts.requests["PUT"] == 2
    logged = results.daemon.until_events("results wait for their upload")
    assert "7 bytes" in logged[0]["cause"]


@pytest.mark.thorough
def test_a_large_file_is_interrupted_and_what_is_planted_in_its_place_is_noticed(make: Callable[..., Results]) -> None:
    results = make()
    results.daemon.start_ready()
    results.proxy.faults.total_bytes_per_s = 20e6
    data = os.urandom(1_000_000) * 100
    files = {"big.bin": results.write("big.bin", data)}
    until(lambda: results.journal("SELECT 1 FROM outbox WHERE state = 'uploading'"), SOON_S, "the upload to begin")
    sent = results.proxy.counts.exchanges
    until(lambda: sum(each.sent_bytes for each in sent) > 10_000_000, SOON_S, "a part of it to be sent")
    results.kill()
    (results.bucket / PREFIX).mkdir(exist_ok=True)
    (results.bucket / PREFIX / "big.bin").write_bytes(b"something else")
    results.proxy.faults.clear()
    results.daemon.start()
    results.until_stored(files)
    assert results.announced() == {("big.bin", f"sha256:{files['big.bin']}"): 1}


def test_when_the_process_of_the_directory_dies_its_rclone_has_ended_before(make: Callable[..., Results]) -> None:
    """It reads /proc/PID/fd/N: the number may be another process's as soon as that one is reaped."""
    results = make()
    results.daemon.start_ready()
    results.proxy.faults.total_bytes_per_s = 20e6
    files = {"big.bin": results.write("big.bin", os.urandom(1_000_000) * 100)}
    until(lambda: results.journal("SELECT 1 FROM outbox WHERE state = 'uploading'"), SOON_S, "the upload to begin")
    sent = results.proxy.counts.exchanges
    until(lambda: sum(each.sent_bytes for each in sent) > 10_000_000, SOON_S, "a part of it to be sent")
    (worker,) = processes(results, b"outbox/worker.py")
    (uploader,) = processes(results, b"out-results.sock")
    os.kill(worker, signal.SIGKILL)
    while os.path.exists(f"/proc/{worker}"):
        time.sleep(0.001)
    assert not lives(uploader)
    results.proxy.faults.clear()
    results.until_stored(files)
    assert results.announced() == {("big.bin", f"sha256:{files['big.bin']}"): 1}
    assert processes(results, b"outbox/worker.py") != [worker]


def processes(results: Results, word: bytes) -> list[int]:
    return [pid for pid, line in results.daemon.command_lines().items() if word in line]


def lives(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    return False


@pytest.mark.thorough
def test_an_upload_that_was_done_when_mountd_was_killed_is_not_sent_again(make: Callable[..., Results]) -> None:
    results = make()
    results.daemon.start_ready()
    files = {"a.wav": results.write("a.wav")}
    results.until_stored(files)
    results.kill()
    # As it is when the store has it, and the journal does not know.
    results.journal_write("UPDATE outbox SET state = 'uploading', uploaded = NULL, event = NULL")
    results.journal_write("DELETE FROM events WHERE code = 'result-uploaded'")
    results.proxy.reset_counts()
    results.daemon.start()
    results.until_stored(files)
    assert results.announced() == {("a.wav", f"sha256:{files['a.wav']}"): 1}
    assert results.proxy.counts.requests["PUT"] == 0


@pytest.mark.thorough
def test_an_older_object_of_the_same_size_is_not_taken_for_the_upload_of_a_killed_run(
    make: Callable[..., Results],
) -> None:
    """Of an object that others wrote this store reports no hash."""
    results = make()
    results.daemon.start_ready()
    results.proxy.down()
    files = {"a.wav": results.write("a.wav")}
    until(lambda: results.journal("SELECT 1 FROM outbox WHERE tries > 0"), SOON_S, "a first try")
    results.kill()
    (results.bucket / PREFIX).mkdir(exist_ok=True)
    (results.bucket / PREFIX / "a.wav").write_bytes(os.urandom(20_000))
    results.journal_write("UPDATE outbox SET state = 'uploading'")
    results.proxy.up()
    results.daemon.start()
    results.until_stored(files)
    assert results.announced() == {("a.wav", f"sha256:{files['a.wav']}"): 1}


@pytest.mark.thorough
def test_without_keep_the_local_file_goes_with_its_upload(make: Callable[..., Results]) -> None:
    results = make(keep="0s")
    results.daemon.start_ready()
    files = {name: results.write(name) for name in ("a.wav", "d/b.wav")}
    results.until_stored(files)
    until(lambda: not [*results.directory.rglob("*.wav")], SOON_S, "the local files to go")
    until(lambda: results.journal("SELECT DISTINCT state FROM outbox") == [("removed",)], SOON_S, "the journal")
    assert results.stored() == files
    files["a.wav"] = results.write("a.wav")
    results.until_stored(files)
    assert len(results.events()) == 3


@pytest.mark.thorough
def test_a_directory_that_goes_away_loses_nothing_here_or_there(make: Callable[..., Results]) -> None:
    results = make(directory=False)
    results.daemon.start_ready()
    assert results.daemon.until_reason("outbox-no-directory")
    assert results.status["health"] == "Healthy"  # the app makes it when it begins
    results.directory.mkdir()
    files = {"a.wav": results.write("a.wav")}
    results.until_stored(files)
    results.proxy.down()
    files["b.wav"] = results.write("b.wav")
    results.until_status(pending=1)
    results.kill()
    elsewhere = results.directory.rename(results.directory.with_name("elsewhere"))
    results.directory.mkdir()  # as when its disk is not mounted
    results.proxy.up()
    results.daemon.start()
    assert results.daemon.until_reason("outbox-missing")
    results.until_status(pending=1, health="Degraded")
    files["c.wav"] = results.write("c.wav")
    until(lambda: results.stored().keys() == {"a.wav", "c.wav"}, SOON_S, "what is written meanwhile")
    assert results.events("result-lost") == []
    shutil.move(results.directory / "c.wav", elsewhere / "c.wav")
    results.directory.rmdir()
    elsewhere.rename(results.directory)
    results.daemon.stop()  # or a minute passes until the next look
    results.daemon.start()
    results.until_stored(files)
    results.until_status(pending=0, health="Healthy")
    assert results.events("result-lost") == []


@pytest.mark.root
@pytest.mark.thorough
def test_a_full_disk_of_the_journal_delays_results_and_loses_none(make: Callable[..., Results]) -> None:
    results = make()
    with Tmpfs(results.daemon.root / "state", 4) as state:
        results.daemon.start_ready()
        state.fill()
        files = {f"{number:03}.wav": results.write(f"{number:03}.wav", size=1000) for number in range(300)}
        results.daemon.until_events("an outbox waits for the journal")
        state.empty()
        results.until_stored(files)
        assert set(results.announced().values()) == {1}
        assert results.daemon.stop() == 0


@pytest.mark.thorough
def test_outboxes_are_added_changed_and_removed_while_mountd_runs(make: Callable[..., Results]) -> None:
    results = make()
    section = results.daemon.config.pop("outbox")
    results.daemon.start_ready()
    assert results.daemon.status()["outbox"] == {}
    before = {name: mount["pid"] for name, mount in results.daemon.status()["mounts"].items()}
    results.daemon.config["outbox"] = section
    results.daemon.write_config()
    files = {"a.wav": results.write("a.wav")}
    until(lambda: results.daemon.status()["outbox"], SOON_S, "the outbox")
    results.until_stored(files)
    results.settings["remote"] = f"results:{BUCKET}/{PREFIX}/more"
    results.settings["min_free"] = "900P"
    results.daemon.write_config()
    assert results.daemon.until_reason("outbox-disk-full")
    files["more/b.wav"] = results.write("b.wav")
    until(lambda: results.stored() == files, SOON_S, "the object below the other prefix")
    del results.daemon.config["outbox"]
    results.daemon.write_config()
    until(lambda: results.daemon.status()["outbox"] == {}, SOON_S, "the outbox to go")
    assert "outbox-disk-full" not in results.daemon.reasons()
    assert {name: mount["pid"] for name, mount in results.daemon.status()["mounts"].items()} == before
    assert (results.directory / "a.wav").exists()
