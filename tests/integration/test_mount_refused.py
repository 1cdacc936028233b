"""A process that may not mount says so in fusermount's words, with what to add; `doctor` finds out by a real mount."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.support.daemon import Daemon
from tests.support.explained import until_explained
from tests.support.not_ready import assert_app_never_started, until_not_ready

pytestmark = [
    pytest.mark.fuse,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can take rights away as a container does"),
]

WITHOUT_SYS_ADMIN = ("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin")
# In a mount namespace of its own: /dev/fuse as udev makes it, for everybody. It may read what the tests' Python is.
AS_NOBODY_KNOWN = """
set -eu
mount -t tmpfs fuse /mnt
mknod -m 666 /mnt/fuse c 10 229
mount --bind /mnt/fuse /dev/fuse
may=+dac_read_search
exec setpriv --reuid 54321 --regid 54321 --clear-groups --inh-caps $may --ambient-caps $may "$@"
"""


def examine(daemon: Daemon, *wrap: str) -> dict[str, dict[str, str]]:
    """What `doctor` says, by the name of the check."""
    words = [*wrap, sys.executable, "-m", "mountd", "doctor", "-c", str(daemon.write_config()), "-o", "json"]
    room = daemon.root / "tmp"
    room.mkdir(mode=0o777, exist_ok=True)
    room.chmod(0o777)
    environment = {**os.environ, "TMPDIR": str(room)}
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, cwd="/", env=environment)
    assert list(room.iterdir()) == [], "nothing is left"
    document = json.loads(done.stdout or "{}")
    assert "checks" in document, done.stderr
    return {check["name"]: check for check in document["checks"]}


def test_without_the_right_to_mount_the_flag_is_named(daemon: Daemon) -> None:
    daemon.wrap = WITHOUT_SYS_ADMIN
    daemon.start()
    reason = until_not_ready(daemon, "mount-refused", "fusermount3: mount failed: Operation not permitted")
    until_explained(daemon, "mount-refused")
    assert "--cap-add SYS_ADMIN" in reason["hint"]
    assert "--device" not in reason["hint"], "which is there"
    assert_app_never_started(daemon)
    found = examine(daemon, *WITHOUT_SYS_ADMIN)["mounting"]
    assert (found["result"], found["hint"]) == ("fail", reason["hint"])


def test_doctor_mounts_and_leaves_nothing(daemon: Daemon) -> None:
    assert examine(daemon)["mounting"]["result"] == "ok"
    assert daemon.mounts() == []


@pytest.mark.thorough
def test_a_user_without_an_entry(daemon: Daemon) -> None:
    """Such as `docker run --user 54321`."""
    config = daemon.config
    config["mounts"]["storage"]["allow_other"] = False
    config["remotes"]["store"]["secret_access_key"] = {"env": "HOME"}  # anything that can be read
    daemon.root.chmod(0o755)
    found = examine(daemon, "unshare", "-m", "sh", "-c", AS_NOBODY_KNOWN, "sh")["mounting"]
    assert found["result"] == "fail"
    assert "could not determine username" in found["text"], "what fusermount3 says"
    assert "uid 54321" in found["hint"]
