"""The image of mountd as containers run it: process 1, without root, with the rights of Docker; and what it lacks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from mountd.demo import hub
from tests.support import image as images
from tests.support.daemon import Daemon
from tests.support.image import Image
from tests.support.not_ready import assert_silent
from tests.support.process_one import ORPHANING, ProcessOne, zombies
from tests.support.s3 import RcloneS3
from tests.support.wait import until

WHY_NOT = images.why_not()
pytestmark = [
    pytest.mark.fuse,
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT),
]

SITE = f"/opt/mountd/lib/python{images.PYTHON}/site-packages"


@pytest.fixture(scope="module")
def image() -> Image:
    try:
        return images.built()
    except images.CannotBuild as error:
        pytest.skip(f"no image can be built here: {error}")


class Contained(ProcessOne):
    """A daemon in a container of the image; its directory is a volume at the same place."""

    image: Image
    flags: dict[str, Any]
    room: Path

    def enter(self, image: Image, room: Path, **flags: Any) -> None:
        """Before it starts. `flags` as of `images.entering`."""
        self.image, self.flags, self.room = image, flags, room
        self.program = tuple(image.argv[:1])
        app = self.config["apps"]["webui"]
        app["command"] = ["/opt/mountd/bin/python", f"{SITE}/mountd/demo/webui.py", *app["command"][2:]]
        del self.config["rclone"]

    def start(self) -> None:
        user = self.flags.get("user")
        uid = self.image.user if user is None else user
        self.write_config()
        for path in (self.root, *self.root.rglob("*")):
            os.chown(path, uid, uid, follow_symlinks=False)
        self.wrap = images.entering(self.image, self.room, volumes=[(self.root, self.root)], **self.flags)
        super().start()

    @property
    def seen_root(self) -> str:
        return f"{self.room}/root{self.root}"

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """In the container, as its user, as `docker exec` does."""
        pid, user = str(self.init.pid), str(self.image.user)
        entering = ["nsenter", "-t", pid, "-m", "-p", "-r", "-w", "-S", user, "-G", user, "env", "-i"]
        environment = [f"{name}={value}" for name, value in self.image.environment.items()]
        return subprocess.run(
            [*entering, *environment, *words], capture_output=True, text=True, timeout=60, check=False
        )


Make = Callable[..., Contained]


@pytest.fixture
def contained(store: RcloneS3, image: Image) -> Iterator[Make]:
    with ExitStack() as stack:

        def make(**flags: Any) -> Contained:
            daemon = Contained(store.endpoint, store.access_key_id, store.secret_access_key)
            stack.enter_context(daemon)
            stack.callback(daemon.show_log)  # which is seen of a test that fails
            room = Path(tempfile.mkdtemp(prefix="mountd-c-"))
            stack.callback(shutil.rmtree, room, ignore_errors=True)
            daemon.enter(image, room, **flags)
            return daemon

        yield make


def test_what_a_runtime_reads_of_it(image: Image) -> None:
    config = image.config["config"]
    assert image.argv == ["mountd", "run"]
    assert image.user != 0
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in config["Labels"].items()}
    assert (labels["version"], labels["revision"], labels["licenses"]) == ("1.2.3", "abc", "MIT")
    assert labels["base.name"] == images.BASE
    assert config["Healthcheck"]["Test"][:2] == ["CMD", "mountd"]
    assert [*config["ExposedPorts"]] == ["8780/tcp"]
    passwd = (image.root / "etc/passwd").read_text()
    assert f":{image.user}:{image.user}:" in passwd, "fusermount3 asks for it"
    assert os.readlink(image.root / "etc/mtab") == "/proc/self/mounts", "and for this one"
    for path in ("var/lib/mountd", "var/cache/mountd", "run/mountd", "mnt/mountd", "srv/app", "srv/app/outputs"):
        assert (image.root / path).stat().st_uid == image.user
    for program in ("tini", "pip", "gcc"):
        assert not [*image.root.glob(f"*/bin/{program}")], program
    assert not (image.root / "src").exists()


def test_it_serves_reaps_drains_and_ends_in_order(contained: Make, store: RcloneS3) -> None:
    """Without root, with Docker's rights and SYS_ADMIN."""
    daemon = contained()
    outputs = daemon.root / "outputs"
    daemon.config["mounts"]["outputs"] = {
        "remote": f"store:{hub.BUCKET}/outputs",
        "path": str(outputs),
        "profile": "outputs",
        "options": {"vfs-write-back": "10m"},
        "cache": {"dir": str(daemon.root / "cache-outputs"), "min_free": "1%"},
    }
    app = daemon.config["apps"]["webui"]
    (daemon.root / "app.py").write_text(ORPHANING)
    app["command"] = ["/opt/mountd/bin/python", str(daemon.root / "app.py"), *app["command"]]
    app["needs"].append("outputs")
    status = daemon.start_ready()
    assert status["ready"]
    assert daemon.page()["version"] == "v23"
    daemon.hold_mounts()
    assert len(daemon.mounts()) == 2
    init = daemon.init
    assert init.uids().effective == daemon.image.user

    daemon.until_events("app says", text="orphans left")
    until(lambda: not zombies(init), 60, "all of them to be reaped")
    assert len(init.children(recursive=True)) < 50
    check = daemon.image.config["config"]["Healthcheck"]["Test"][1:]
    healthy = daemon.run("env", f"MOUNTD_SOCKET={daemon.socket}", *check)  # which is on the volume here
    assert healthy.returncode == 0, healthy.stderr

    made = daemon.run("sh", "-c", f"echo sound >{outputs}/result.wav")
    assert made.returncode == 0, made.stderr
    kept = store.directory / hub.BUCKET / "outputs" / "result.wav"
    assert not kept.exists()
    began = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - began < daemon.events("mountd stops")[0]["at_most_s"]
    assert kept.read_text() == "sound\n", "uploaded on the way out"
    assert daemon.mounts() == []


# -- what a container lacks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "code", "flag", "not_lacking"),
    [
        ({"sys_admin": False}, "mount-refused", "--cap-add SYS_ADMIN", "--device"),
        ({"fuse": False}, "no-fuse", "--device /dev/fuse", "--cap-add"),
        pytest.param(
            {"fuse": False, "sys_admin": False, "user": 0},
            "no-fuse",
            "--device /dev/fuse --cap-add SYS_ADMIN",
            "--user",
            marks=pytest.mark.thorough,
        ),
        ({"user": 54321}, "mount-refused", "--user 0", "--cap-add"),
    ],
    ids=["no SYS_ADMIN", "no /dev/fuse", "neither", "a uid without an entry"],
)
def test_the_flag_that_is_missing_is_named(
    contained: Make, flags: dict[str, Any], code: str, flag: str, not_lacking: str
) -> None:
    """It goes on, and would mount as soon as it could."""
    daemon = contained(**flags)
    daemon.start()
    reason = daemon.until_reason(code)
    assert flag in reason["hint"], reason
    assert not_lacking not in reason["hint"]
    assert not daemon.status()["ready"]
    assert_silent(daemon, json.dumps(daemon.status()))
    assert daemon.stop() == 0


@pytest.mark.parametrize(
    ("flags", "changes", "exit_code", "flag"),
    [
        ({"read_only": True}, ["runtime", "state"], 1, "--tmpfs /run/mountd"),
        pytest.param({"user": 54321}, ["runtime", "state"], 1, "--user 0", marks=pytest.mark.thorough),
        ({}, ["config"], 2, ":/etc/mountd:ro"),
    ],
    ids=["a read-only root", "a user to whom nothing belongs", "no configuration"],
)
def test_it_ends_and_names_the_flag(
    contained: Make, flags: dict[str, Any], changes: list[str], exit_code: int, flag: str
) -> None:
    daemon = contained(**flags)
    for key in changes:
        daemon.config.pop(key, None)
    del daemon.config["control"]
    if changes == ["config"]:
        daemon.program = ("sh", "-c", "exec mountd run")
    daemon.start()
    assert daemon.wait_exit() == exit_code
    said = daemon.log_text()
    assert flag in said, said
    assert "Traceback" not in said
    assert said.count("mountd: cannot") == 1


@pytest.mark.thorough
def test_a_read_only_root_with_the_flags_that_it_names(contained: Make) -> None:
    """State, runtime, cache, mount point and link lie on a volume."""
    daemon: Daemon = contained(read_only=True)
    assert daemon.start_ready()["ready"]
    assert daemon.page()["version"] == "v23"
    assert daemon.stop() == 0
