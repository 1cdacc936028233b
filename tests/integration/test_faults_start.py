"""Starts that fail, and content that is not there yet: each with its report, no hot loop, and ready by itself."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from mountd.demo import hub
from mountd.process.lifecycle import START_WINDOW_S, STARTS_PER_WINDOW
from tests.support.daemon import BUNDLED_RCLONE, Daemon
from tests.support.explained import until_explained
from tests.support.not_ready import assert_app_never_started, assert_silent, until_not_ready
from tests.support.s3 import RcloneS3
from tests.support.scripted_rclone import ScriptedRclone
from tests.support.wait import until

pytestmark = pytest.mark.fuse

BY_ITSELF_S = 60.0
VERSION = "cache_hub_v23"


@pytest.fixture
def scripted(tmp_path: Path) -> ScriptedRclone:
    return ScriptedRclone(tmp_path, BUNDLED_RCLONE)


# -- rclone does not stay ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Refusal:
    """What rclone does instead of mounting, how mountd reports it, and its hint."""

    script: str
    code: str
    text: str
    hint: str = "mountd logs storage"


REFUSALS = {
    "exits-0": Refusal("exit 0", "rclone-exited", "exit code 0"),
    "fatal": Refusal(
        "exec {real} mount nowhere:x /nonexistent --config /dev/null",
        "rclone-exited",
        "Failed to create file system",
        "mountd config render",
    ),
    "says-why": Refusal("echo the sky fell down >&2; exit 3", "rclone-exited", "the sky fell down"),
    "says-why-before": Refusal(
        """printf '{{"level":"%s","msg":"%s"}}\\n' notice 'mount helper error: fusermount3: not permitted' \
            critical 'Fatal error: failed to mount FUSE fs: fusermount: exit status 1' >&2; exit 1""",
        "mount-refused",
        "fusermount3: not permitted",
        "mountd doctor",
    ),
    "killed": Refusal("kill -KILL $$", "rclone-killed", "SIGKILL", "memory"),
    "crashes": Refusal("ulimit -c 0; kill -SEGV $$", "rclone-killed", "SIGSEGV"),
    "stopped": Refusal("exit 143", "rclone-exited", "SIGTERM"),
}


@pytest.mark.shown_by("crashes")
@pytest.mark.parametrize("case", REFUSALS)
@pytest.mark.thorough
def test_an_rclone_that_ends_at_once_is_tried_again_less_and_less_often(
    make_daemon: Callable[..., Daemon], scripted: ScriptedRclone, case: str
) -> None:
    refusal = REFUSALS[case]
    daemon = make_daemon(rclone=scripted.path)
    scripted.behave(refusal.script.format(real=scripted.real))
    daemon.start()
    reason = until_not_ready(daemon, refusal.code, refusal.text)
    until_explained(daemon, refusal.code)
    assert (reason["layer"], reason["object"]) == ("rclone", "storage")
    assert refusal.hint in reason["hint"]
    until(lambda: len(scripted.starts) >= 3, 60, "three starts")
    starts = scripted.starts
    gaps = [after - before for before, after in pairwise(starts)]
    assert gaps[0] >= 0.95, gaps
    assert gaps[1] >= 1.95, gaps
    reported = daemon.until_events("state changed", 2, state="backoff")
    assert [round(event["delay_s"]) for event in reported[:2]] == [1, 2]
    assert refusal.text in reported[0]["cause"]
    assert_app_never_started(daemon)
    until(lambda: daemon.status()["mounts"]["storage"]["state"] == "backoff", 60, "a pause between two starts")
    scripted.behave("")
    assert daemon.cli("restart", "storage").code == 0
    daemon.until_ready()
    assert_silent(daemon)


def test_a_flag_that_rclone_refuses_is_no_reason_to_try_again(
    make_daemon: Callable[..., Daemon], scripted: ScriptedRclone
) -> None:
    """The same command line fails again."""
    daemon = make_daemon(rclone=scripted.path)
    scripted.behave(f"exec '{BUNDLED_RCLONE}' \"$@\" --no-such-flag")
    daemon.start()
    reason = until_not_ready(daemon, "rclone-usage", "unknown flag: --no-such-flag")
    assert until_explained(daemon, "rclone-usage")["root"]["command"] == "mountd config render"
    assert reason["hint"]
    until(lambda: daemon.status()["mounts"]["storage"]["state"] == "failed", 60, "the mount to be given up")
    began = time.monotonic()
    until(lambda: time.monotonic() - began > 3, 5, "some time to have passed", every_s=0.5)
    assert len(scripted.starts) == 1
    assert_app_never_started(daemon)
    scripted.behave("")
    assert daemon.cli("restart", "storage").code == 0
    daemon.until_ready()
    assert len(scripted.starts) == 2
    assert_silent(daemon)


def _move_away(path: Path) -> str:
    path.rename(path.with_suffix(".away"))
    return "not found"


def _forbid(path: Path) -> str:
    path.rename(path.with_suffix(".away"))
    path.write_text("#!/bin/sh\n")
    return os.strerror(errno.EACCES).lower()


def _of_another_machine(path: Path) -> str:
    path.rename(path.with_suffix(".away"))
    path.write_text("#!/no/such/interpreter\n")
    path.chmod(0o755)
    return "interpreter"


@pytest.mark.shown_by("_forbid")
@pytest.mark.parametrize("spoil", [_move_away, _forbid, _of_another_machine])
def test_an_rclone_that_cannot_be_started_any_more(
    make_daemon: Callable[..., Daemon], scripted: ScriptedRclone, spoil: Callable[[Path], str]
) -> None:
    """As in the middle of an upgrade of the package."""
    daemon = make_daemon(rclone=scripted.path)
    before = daemon.start_ready()
    cause = spoil(scripted.path)
    os.kill(before["mounts"]["storage"]["pid"], signal.SIGKILL)
    reason = daemon.until_reason("rclone-cannot-start")
    until_explained(daemon, "rclone-cannot-start")
    assert str(scripted.path) in reason["text"]
    assert cause in reason["text"]
    assert reason["hint"]
    assert daemon.status()["apps"]["webui"]["pid"] == before["apps"]["webui"]["pid"], "it was left alone"
    scripted.path.with_suffix(".away").rename(scripted.path)
    status = daemon.until_ready()
    until(lambda: daemon.status()["mounts"]["storage"]["restarts"] == 1, 60, "the mount to be back by itself")
    assert status["mounts"]["storage"]["pid"] != before["mounts"]["storage"]["pid"]
    daemon.until_ready()
    assert_silent(daemon)


def loop(daemon: Daemon, scripted: ScriptedRclone, end: signal.Signals) -> None:
    """The worst case: each start succeeds, which makes the next one come at once; until there were too many."""
    daemon.config["apps"] = daemon.config["models"] = {}

    def is_over() -> bool:
        mount = daemon.status()["mounts"]["storage"]
        if mount["state"] == "running":
            os.kill(mount["pid"], end)
        return mount["state"] == "backoff" and len(scripted.starts) == STARTS_PER_WINDOW

    daemon.start()
    until(is_over, START_WINDOW_S, "a hot loop and its end", every_s=0.02)
    (reason,) = daemon.status()["reasons"]
    assert f"{STARTS_PER_WINDOW} times" in reason["text"]
    assert "`mountd restart storage`" in reason["hint"]


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_hot_loop_is_held_up(make_daemon: Callable[..., Daemon], scripted: ScriptedRclone) -> None:
    daemon = make_daemon(rclone=scripted.path)
    loop(daemon, scripted, signal.SIGTERM)
    until(lambda: len(scripted.starts) > STARTS_PER_WINDOW, START_WINDOW_S + 20, "the next start", every_s=0.2)
    starts = scripted.starts
    assert starts[STARTS_PER_WINDOW] - starts[0] >= START_WINDOW_S - 5, "but for what the first needed to say so"


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_restart_after_a_repair_need_not_wait(make_daemon: Callable[..., Daemon], scripted: ScriptedRclone) -> None:
    daemon = make_daemon(rclone=scripted.path)
    loop(daemon, scripted, signal.SIGKILL)
    assert daemon.cli("restart", "storage").code == 0
    assert daemon.until_ready(START_WINDOW_S)["health"] == "Healthy"
    assert scripted.starts[STARTS_PER_WINDOW] - scripted.starts[0] < START_WINDOW_S - 5


# -- content that comes later -----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.thorough
def test_a_bucket_then_its_content_then_the_version_come_later(
    make_daemon: Callable[..., Daemon], store: RcloneS3
) -> None:
    """Each step is reported as what it is, and nothing is restarted for any of them."""
    bucket, aside = store.directory / hub.BUCKET, store.directory.parent / "aside"
    bucket.rename(aside)
    daemon = make_daemon()
    daemon.start()
    until_not_ready(daemon, "bucket-missing", f"store:{hub.BUCKET}")
    explained = until_explained(daemon, "bucket-missing")
    assert [each["layer"] for each in explained["chain"]] == ["mountd", "app", "mount", "bucket"]
    rclone = daemon.status()["mounts"]["storage"]["pid"]

    bucket.mkdir()
    reason = until_not_ready(daemon, "waiting-for-content", VERSION)
    until_explained(daemon, "waiting-for-content")
    assert reason["hint"]
    assert "bucket-missing" not in daemon.reasons()
    assert not os.path.lexists(daemon.link)

    shutil.copytree(aside / VERSION / "models", bucket / VERSION / "models")
    until_not_ready(daemon, "waiting-for-content", VERSION)
    shutil.rmtree(bucket / VERSION)
    shutil.copytree(aside / VERSION, bucket / VERSION)
    assert_app_never_started(daemon)
    status = daemon.until_ready(BY_ITSELF_S)
    assert (status["health"], status["reasons"]) == ("Healthy", [])
    assert (status["mounts"]["storage"]["pid"], status["mounts"]["storage"]["restarts"]) == (rclone, 0)
    assert daemon.page()["version"] == "v23"
    assert_silent(daemon)


@pytest.mark.thorough
def test_a_bucket_without_anything_is_a_mount_all_the_same(make_daemon: Callable[..., Daemon], store: RcloneS3) -> None:
    (store.directory / "empty").mkdir()
    daemon = make_daemon()
    daemon.config["mounts"]["storage"]["remote"] = "store:empty"
    daemon.config["models"] = daemon.config["apps"] = {}
    status = daemon.start_ready()
    assert (status["health"], status["reasons"]) == ("Healthy", [])
    assert os.listdir(daemon.mount) == []


@pytest.mark.thorough
@pytest.mark.slow
def test_a_bucket_that_is_removed_while_it_is_served(make_daemon: Callable[..., Daemon], store: RcloneS3) -> None:
    """As an outage: what is loaded goes on, nothing is restarted, the link stays."""
    daemon = make_daemon()
    daemon.config["mounts"]["storage"]["health"] = {"backend": "2s"}
    before = daemon.start_ready()
    gpt = (daemon.link / "models" / "gpt.pth").read_bytes()
    bucket, aside = store.directory / hub.BUCKET, store.directory.parent / "aside"
    bucket.rename(aside)
    daemon.until_reason("bucket-missing")
    status = daemon.status()
    assert (status["ready"], status["health"]) == (True, "Missing")
    assert (daemon.link / "models" / "gpt.pth").read_bytes() == gpt
    assert daemon.page()["version"] == "v23"
    aside.rename(bucket)
    until(lambda: daemon.status()["health"] == "Healthy", 60, "all to be well")
    after = daemon.status()
    for kind, each in (("mounts", "storage"), ("apps", "webui")):
        assert after[kind][each]["pid"] == before[kind][each]["pid"]
    assert_silent(daemon)
