"""What containers beside mountd's do when their mount or version is replaced: deploy/…/follow-model.sh, for real."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.support import dies_with_us
from tests.support.daemon import Daemon
from tests.support.manifests import DEPLOY
from tests.support.wait import until

SCRIPT = DEPLOY / "kubernetes/components/follow-model/follow-model.sh"
SOON_S = 60.0
# In namespaces of its own, as a container with HostToContainer: mounts propagate into it, and the script is process 1.
IN_CONTAINER = ("unshare", "--mount", "--propagation", "slave", "--pid", "--fork", "--kill-child", "--mount-proc")

pytestmark = [pytest.mark.fuse, pytest.mark.root]


@pytest.fixture
def shared(daemon: Daemon) -> Iterator[Daemon]:
    """Its directory is a mount that others share, as the volume of a pod with Bidirectional."""
    daemon.config["apps"] = {}
    root = str(daemon.root)
    subprocess.run(["mount", "--bind", root, root], check=True, timeout=30)
    try:
        subprocess.run(["mount", "--make-shared", root], check=True, timeout=30)
        yield daemon
    finally:
        if daemon.process is not None:
            daemon.stop()
        subprocess.run(["umount", "--lazy", root], check=True, timeout=30)


@contextmanager
def consumer(file: Path) -> Iterator[subprocess.Popen[bytes]]:
    """An app that says when it runs, and sleeps."""
    app = [sys.executable, "-c", "import time; print('runs', flush=True); time.sleep(600)"]
    words = dies_with_us([*IN_CONTAINER, "sh", str(SCRIPT), "run", str(file), *app])
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def process_one(process: subprocess.Popen[bytes]) -> int:
    """Of the container, as the node sees it."""
    (found,) = until(psutil.Process(process.pid).children, SOON_S, "the container's first process")
    return found.pid


def check(process: subprocess.Popen[bytes], file: Path) -> int:
    """As the kubelet runs the probe: in the container's namespaces."""
    words = ["nsenter", "--mount", "--pid", f"--target={process_one(process)}", "sh", str(SCRIPT), "check", str(file)]
    environment = {"PATH": os.environ["PATH"]}
    return subprocess.run(words, env=environment, capture_output=True, timeout=30, check=False).returncode


def until_runs(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == b"runs\n"


def test_a_consumer_starts_with_the_model_and_is_restarted_with_it(shared: Daemon) -> None:
    daemon = shared
    file = daemon.link / "config.yaml"
    with consumer(file) as early:
        daemon.start_ready()
        until_runs(early)
        assert check(early, file) == 0

        # Another version is live: this container has the former one.
        assert daemon.cli("switch", "v22").code == 0
        assert check(early, file) == 1
    with consumer(file) as again:
        until_runs(again)
        assert check(again, file) == 0

        # The mount is replaced: the files that this container has open are dead.
        rclone = daemon.status()["mounts"]["storage"]["pid"]
        os.kill(rclone, signal.SIGKILL)
        until(lambda: check(again, file) == 1, SOON_S, "the probe to fail")
        daemon.until_ready()
        assert check(again, file) == 1, "although the path can be read again"
    with consumer(file) as last:
        until_runs(last)
        assert check(last, file) == 0
        subprocess.run(["sh", "-c", f"cat {file} >/dev/null"], timeout=30, check=True)


def test_the_probe_does_not_wait_for_a_mount_that_hangs(shared: Daemon) -> None:
    daemon = shared
    # Longer than this test: nothing is repaired meanwhile.
    daemon.config["mounts"]["storage"]["health"] = {"interval": "60s", "timeout": "60s"}
    file = daemon.link / "config.yaml"
    daemon.start_ready()
    with consumer(file) as process:
        until_runs(process)
        rclone = daemon.status()["mounts"]["storage"]["pid"]
        os.kill(rclone, signal.SIGSTOP)
        try:
            assert check(process, file) == 0
        finally:
            os.kill(rclone, signal.SIGCONT)


def test_a_consumer_stops_when_the_kubelet_asks_for_it(tmp_path: Path) -> None:
    """Python, as process 1, would ignore SIGTERM for as long as the grace period is."""
    file = tmp_path / "config.yaml"
    with consumer(file) as waiting:
        # When it waits for the model, it has set its traps.
        until(lambda: psutil.Process(process_one(waiting)).children(), SOON_S, "it to wait for the model")
        os.kill(process_one(waiting), signal.SIGTERM)
        waiting.wait(SOON_S)
    file.write_text("it is there")
    with consumer(file) as running:
        until_runs(running)
        os.kill(process_one(running), signal.SIGTERM)
        running.wait(SOON_S)


def test_the_container_ends_as_its_app_does(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("it is there")
    words = [*IN_CONTAINER, "sh", str(SCRIPT), "run", str(file), "sh", "-c", "exit 3"]
    assert subprocess.run(dies_with_us(words), timeout=SOON_S, check=False).returncode == 3


def test_what_the_script_does_not_know() -> None:
    for words in (["walk", "x"], ["check"], []):
        assert subprocess.run(["sh", str(SCRIPT), *words], capture_output=True, timeout=30, check=False).returncode != 0
