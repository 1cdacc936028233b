"""`mountd publish` killed at any point, raced or taken over: never complete too early, and the next run finishes it."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from mountd.model import manifest
from tests.support import dies_with_us
from tests.support.daemon import Daemon
from tests.support.publishing import (
    at,
    check_published,
    leftovers,
    look,
    new_version,
    publish,
    removal_of_marks,
    scripted,
    start,
    tree,
)
from tests.support.s3 import RcloneS3
from tests.support.wait import until


@pytest.fixture
def source(tmp_path: Path, hub_directory: Path) -> Path:
    return new_version(tmp_path / "v24", hub_directory)


@pytest.fixture
def machine(make_daemon: Callable[..., Daemon]) -> Daemon:
    """A configuration, state and rclone of their own; no daemon runs."""
    daemon = make_daemon()
    daemon.write_config()
    return daemon


@contextmanager
def watched(store: RcloneS3, version: str, source: Path) -> Iterator[list[str]]:
    """All the time the version is either not complete for the daemon, or byte by byte the whole of `source`."""
    wanted = tree(source)
    wrong: list[str] = []
    end = threading.Event()

    def watch() -> None:
        while True:
            last = end.is_set()
            content = look(store, version)
            if content is not None and content.complete and tree(at(store, version)) != wanted:
                wrong.append(f"complete too early: {sorted(content.files.unpack())}")
                return
            if last:
                return
            end.wait(0.02)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield wrong
    finally:
        end.set()
        watching.join()
    assert wrong == []


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("when", [pytest.param("before", marks=pytest.mark.long), "after"])
def test_killed_at_every_call(machine: Daemon, store: RcloneS3, source: Path, when: str) -> None:
    """The group is killed around the first call of rclone, then the second …, until a run gets to its end."""
    rclone = scripted(machine)
    with watched(store, "v24", source) as wrong:
        calls: Sequence[str] = ()
        for point in range(1, 30):
            rclone.behave(**{when: f"[ $n -lt {point} ] || kill -9 0"})
            running = start(machine, source, "v24")
            _, said = running.communicate(timeout=60)
            calls = rclone.calls
            assert wrong == []
            if running.returncode == 0:
                break
            assert running.returncode == -9, said
        else:
            pytest.fail(f"never ended: {calls}")
        assert point > 5
    check_published(store, "v24", source)
    assert leftovers(machine) == []


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_killed_at_random_moments(make_daemon: Callable[..., Daemon], store: RcloneS3, source: Path) -> None:
    """Slow enough that many of the moments lie within the sending."""
    chance = random.Random(4)
    machine = make_daemon()
    rclone = scripted(machine)
    rclone.behave(before='case "$*" in *" copy "*) export RCLONE_BWLIMIT=1M ;; esac')
    killed = 0
    for version in ("v24", "v25"):
        with watched(store, version, source) as wrong:
            for _ in range(6):
                running = start(machine, source, version)
                try:
                    running.communicate(timeout=chance.uniform(0.5, 3.5))
                except subprocess.TimeoutExpired:
                    os.killpg(running.pid, signal.SIGKILL)
                    running.communicate()
                    killed += 1
                assert wrong == []
            done = publish(machine, source, version)
            assert done.code == 0, done
        check_published(store, version, source)
    assert killed > 2


@pytest.mark.slow
@pytest.mark.thorough
def test_two_at_once(make_daemon: Callable[..., Daemon], store: RcloneS3, source: Path, tmp_path: Path) -> None:
    """On two machines, with other content: at most one wins, and then all of it is his."""
    other = tmp_path / "other"
    shutil.copytree(source, other, symlinks=True)
    (other / "config.yaml").write_bytes((source / "config.yaml").read_bytes()[::-1])  # the same size
    (other / "only-here").write_text("x")
    machines = [(make_daemon(), source), (make_daemon(), other)]
    for machine, _ in machines:
        machine.write_config()
    for version in ("v30", "v31"):
        with ThreadPoolExecutor(2) as pool:
            results = list(pool.map(lambda each, version=version: publish(*each, version), machines))
        codes = [result.code for result in results]
        assert codes.count(0) <= 1, results
        assert set(codes) <= {0, 6, 7}, results
        if 0 in codes:
            check_published(store, version, machines[codes.index(0)][1])
        else:
            assert look(store, version) is None
            assert publish(*machines[0], version).code == 0
            check_published(store, version, source)


SMALL = """
remotes: {{s: {{type: s3, endpoint: "http://x"}}}}
mounts: {{m: {{remote: "s:b", path: /mnt/m}}}}
models: {{hub: {{mount: m, directory: "hub_{{version}}", link: {root}/hub, version: v1}}}}
rclone: {{binary: {root}/rclone}}
state: {root}/state
runtime: {short}
"""


@pytest.fixture
def short() -> Iterator[str]:
    """A directory for sockets, into whose addresses tmp_path may not fit."""
    with TemporaryDirectory(prefix="mountd-t-") as directory:
        yield directory


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_one_that_is_interrupted_tidies_up_and_says_how_it_goes_on(
    tmp_path: Path, short: str, number: signal.Signals, code: int
) -> None:
    (tmp_path / "v1").mkdir()
    (tmp_path / "v1" / "a").write_text("1")
    config, rclone = tmp_path / "mountd.yaml", tmp_path / "rclone"
    config.write_text(SMALL.format(root=tmp_path, short=short))
    rclone.write_text(f"#!/bin/sh\ntouch {tmp_path}/asked\nwhile [ ! -e {tmp_path}/stop ]; do sleep 0.05; done\n")
    rclone.chmod(0o755)
    words = [sys.executable, "-m", "mountd", "publish", str(tmp_path / "v1"), "v1", "-c", str(config)]
    running = subprocess.Popen(dies_with_us(words), stderr=subprocess.PIPE, text=True)
    try:
        until((tmp_path / "asked").exists, 60.0, "rclone to be asked what it is")
        assert [*tmp_path.glob("state/publish/*/private")]
        running.send_signal(number)
        until(lambda: not [*tmp_path.glob("state/publish/*/private")], 60.0, "its secrets to be removed")
        (tmp_path / "stop").touch()
        _, said = running.communicate(timeout=60)
    finally:
        (tmp_path / "stop").touch()
        running.kill()
        running.communicate()
    assert (running.returncode, "Traceback" in said) == (code, False), said
    assert "run the same command again" in said


def test_an_interrupted_one_is_taken_over(
    make_daemon: Callable[..., Daemon], store: RcloneS3, source: Path, tmp_path: Path
) -> None:
    first, second = make_daemon(), make_daemon()
    second.write_config()
    rclone = scripted(first)
    rclone.behave(after='case "$*" in *" copy "*) kill -9 0 ;; esac')
    start(first, source, "v24").communicate(timeout=60)
    # What it left holds secrets, until the next run; no command line ever did.
    place = first.root / "state" / "publish"
    (conf,) = place.glob("*/private/rclone.conf")
    assert [path.stat().st_mode & 0o777 for path in (place, conf.parent, conf)] == [0o700, 0o700, 0o600]
    assert not any(first.secret_access_key in call for call in rclone.calls)
    other = tmp_path / "other"
    shutil.copytree(source, other, symlinks=True)
    (other / "empty").unlink()
    busy = publish(second, other, "v24", "-o", "json")
    error = json.loads(busy.out)["error"]
    assert (busy.code, error["exit"], "on" in error["holder"], "--take-over" in error["hint"]) == (6, 6, True, True)
    assert [name for name in os.listdir(at(store, "v24")) if manifest.is_marker(name)]
    content = look(store, "v24")
    assert content is not None
    assert manifest.MARKER in content.problems[0]

    taken = publish(second, other, "v24", "--take-over", "-o", "json")
    assert (taken.code, taken.json["deleted"]) == (0, ["empty"]), taken
    check_published(store, "v24", other)
    rclone.behave()
    late = publish(first, source, "v24")
    assert (late.code, "empty" in late.err) == (7, True), late
    check_published(store, "v24", other)
    assert leftovers(second) == leftovers(first) == []


@pytest.mark.thorough
def test_the_one_that_lost_its_mark_ends(machine: Daemon, store: RcloneS3, source: Path) -> None:
    """Taken over while it still sent: it must not write a manifest."""
    rclone = scripted(machine)
    rclone.behave(after=f"case \"$*\" in *' copy '*) {removal_of_marks(store, 'v24')} ;; esac")
    done = publish(machine, source, "v24")
    assert done.code == 6, done
    assert any(" copy " in call for call in rclone.calls), "it had begun to send"
    assert not (at(store, "v24") / manifest.NAME).exists()


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)], ids=str
)
def test_an_rclone_does_not_outlive_its_publisher(
    machine: Daemon, store: RcloneS3, source: Path, number: signal.Signals, code: int
) -> None:
    """It must not go on to send beside the next run."""
    rclone = scripted(machine)
    rclone.behave(before="case \"$*\" in *' copy '*) echo $$ >pid; exec sleep 60 ;; esac")
    running = start(machine, source, "v24")
    try:
        pid = machine.root / "scripted" / "pid"
        until(lambda: pid.exists() and pid.read_text().strip(), 60.0, "rclone to send")
        if number == signal.SIGTERM:
            busy = publish(machine, source, "v24", "-o", "json")
            assert (busy.code, busy.json["error"]["holder"]) == (6, "mountd publish"), busy
        if number == signal.SIGINT:
            os.killpg(running.pid, number)  # as a terminal does
        else:
            running.send_signal(number)
        _, said = running.communicate(timeout=60)
        assert (running.returncode, "Traceback" in said) == (code, False), said
        assert ("interrupted" in said) is (number != signal.SIGKILL)
        until(lambda: not os.path.exists(f"/proc/{pid.read_text().strip()}"), 60.0, "its rclone to end")
    finally:
        running.kill()
        running.communicate()
    content = look(store, "v24")
    assert content is not None
    assert not content.complete
    if number == signal.SIGKILL:
        rclone.behave()
        assert publish(machine, source, "v24").code == 0
        check_published(store, "v24", source)
