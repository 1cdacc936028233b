"""An end that is asked for in the middle of whatever is going on: soon, and nothing is left."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.daemon import BUNDLED_RCLONE, Daemon
from tests.support.machine import Stopped, Tmpfs, name, state
from tests.support.not_ready import assert_silent
from tests.support.proxy import Proxy
from tests.support.s3 import RcloneS3
from tests.support.scripted_rclone import ScriptedRclone
from tests.support.stages import (
    START_STAGES,
    VERSION,
    WAITING,
    Rig,
    app_starting,
    assert_ends,
    bucket_away,
    failed,
    inspecting,
)
from tests.support.wait import until

pytestmark = pytest.mark.fuse


@pytest.fixture
def rig(make_daemon: Callable[..., Daemon], store: RcloneS3, proxy: Proxy, tmp_path: Path) -> Iterator[Rig]:
    scripted = ScriptedRclone(tmp_path, BUNDLED_RCLONE)
    daemon = make_daemon(endpoint=proxy.endpoint, rclone=scripted.path)
    rig = Rig(daemon, store, proxy, scripted)
    with rig.ends:
        yield rig


def app_failing(rig: Rig) -> None:
    rig.daemon.config["apps"]["webui"]["command"] = ["false"]
    rig.daemon.start()
    rig.until_app("backoff")


def rclone_hangs(rig: Rig) -> None:
    status = rig.daemon.start_ready()
    rig.ends.enter_context(Stopped(status["mounts"]["storage"]["pid"]))


def reader_stuck(rig: Rig) -> None:
    """In D, where no signal reaches it, until rclone answers or is gone."""
    go, file = rig.daemon.root / "go", rig.daemon.mount / VERSION / "models" / "gpt.pth"
    script = f"while [ ! -e '{go}' ]; do sleep 0.05; done; exec cat '{file}'"
    rig.daemon.config["apps"] = {"reader": {"command": ["sh", "-c", script], "needs": ["storage"]}}
    status = rig.daemon.start_ready()
    rig.proxy.faults.black_hole = True
    go.touch()
    reader = status["apps"]["reader"]["pid"]
    until(lambda: name(reader) == "cat" and state(reader) == "D", 60, "the reader to be stuck")


def between_two_rclones(rig: Rig) -> None:
    status = rig.daemon.start_ready()
    rig.rclone.behave("exec sleep 600")
    os.kill(status["mounts"]["storage"]["pid"], signal.SIGKILL)
    rig.until_mount(stage="spawned")


def switch_looks(rig: Rig) -> None:
    rig.daemon.start_ready()
    rig.proxy.faults.black_hole = True
    rig.switch("preflight")


def switch_starts(rig: Rig) -> None:
    rig.daemon.config["apps"]["webui"]["command"] += ["--load-seconds", "3"]
    rig.daemon.start_ready()
    rig.switch("ready")


RARER = (bucket_away, inspecting, app_starting, failed)
BESIDE = (*WAITING, app_failing, between_two_rclones, switch_looks, switch_starts)
STAGES = (
    *(pytest.param(each, marks=pytest.mark.thorough) if each in RARER else each for each in START_STAGES),
    pytest.param(rclone_hangs, marks=pytest.mark.thorough),
    *(pytest.param(each, marks=pytest.mark.thorough) for each in BESIDE),
    pytest.param(reader_stuck, marks=[pytest.mark.thorough, pytest.mark.timeout(300)]),
)


@pytest.mark.shown_by("running", "backoff")
@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.__name__)
def test_an_end_that_is_asked_for(rig: Rig, stage: Callable[[Rig], None]) -> None:
    stage(rig)
    assert_ends(rig.daemon)


@pytest.mark.thorough
def test_an_end_in_a_switch_leaves_what_was_live(rig: Rig) -> None:
    switch_starts(rig)
    assert_ends(rig.daemon)
    rig.daemon.start_ready()
    assert rig.daemon.page()["version"] == "v23"
    model = rig.daemon.status()["models"]["cache_hub"]
    assert (model["current"], model["previous"], model["sync"]) == ("v23", None, "Synced")


@pytest.mark.thorough
@pytest.mark.root
def test_an_end_while_it_cannot_clean(rig: Rig) -> None:
    """What somebody has mounted on top of ours stays theirs; it is said what is left."""
    rig.daemon.start_ready()
    with Tmpfs(rig.daemon.mount, 1):
        rig.daemon.until_reason("cannot-unmount")
        began = time.monotonic()
        assert rig.daemon.stop() == 1
        (reported,) = rig.daemon.until_events("mountd stops")
        assert time.monotonic() - began <= reported["at_most_s"]
        assert [event["path"] for event in rig.daemon.events("still mounted")] == [str(rig.daemon.mount)]
        assert rig.daemon.processes() == []
    assert_silent(rig.daemon)
