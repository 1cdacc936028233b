"""A mount leaves a running daemon: it is drained by its own settings, and nothing of it lives on unsupervised."""

from __future__ import annotations

import asyncio
import dataclasses
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mountd.cache import guard
from mountd.daemon import members as members_module
from mountd.daemon import shutdown
from mountd.daemon.apply import Applier
from mountd.daemon.members import DOWN, Members
from mountd.journal.journal import Journal
from mountd.operation.desired import DesiredVersions
from mountd.operation.switch import Operations
from mountd.process.instance import Instance
from mountd.rclone import binary
from mountd.rclone.conf_file import ConfFile
from mountd.settings.change import compare
from mountd.settings.schema import Settings
from mountd.status.board import Board
from tests.support.daemon import BUNDLED_RCLONE
from tests.support.proxy import Proxy
from tests.support.s3 import ACCESS_KEY_ID, RcloneS3
from tests.support.tasks import notify_nobody, tasks_of
from tests.support.wait import until

pytestmark = pytest.mark.fuse

READY_S = 60.0
COPY = "import sys; open(sys.argv[1], 'wb').write(sys.stdin.buffer.read())"


@dataclasses.dataclass
class Room:
    """The mounts `outputs` and `models` of a daemon, in a short place of their own."""

    root: Path
    proxy: Proxy
    members: Members
    board: Board
    applier: Applier

    def settings(self, *mounts: str, **changes: Any) -> Settings:
        return settings_of(self.root, self.proxy.endpoint, mounts, changes)

    async def write(self, name: str) -> bytes:
        data = os.urandom(200_000)
        argv = [sys.executable, "-c", COPY, str(self.root / "outputs" / name)]
        await asyncio.to_thread(subprocess.run, argv, input=data, timeout=60, check=True)
        return data

    async def apply(self, new: Settings) -> None:
        change = compare(self.members.settings, new, {}, {}, root=True)
        await self.applier.apply(change, new)

    def pid(self, name: str) -> int:
        child = self.members.supervisors[name].child
        assert child is not None
        return child.pid

    def mounted(self) -> list[str]:
        with open("/proc/self/mountinfo") as table:
            points = [line.split()[4] for line in table]
        return [point for point in points if point.startswith(f"{self.root}/")]

    def is_cache_locked(self) -> bool:
        with (self.root / "cache-outputs" / guard.LOCK_NAME).open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False


def settings_of(root: Path, endpoint: str, mounts: tuple[str, ...], changes: dict[str, Any]) -> Settings:
    remote = {"type": "s3", "provider": "Other", "endpoint": endpoint}
    keys = {"access_key_id": ACCESS_KEY_ID, "secret_access_key": {"file": str(root / "secret")}}
    own = {"control": {"socket": str(root / "s")}, "state": str(root / "state"), "runtime": str(root / "run")}
    of = {"outputs": {"profile": "outputs", **changes}, "models": {}}
    bucket = {"outputs": "outputs", "models": "bucket"}
    given = {
        name: {
            "remote": f"store:{bucket[name]}",
            "path": str(root / name),
            "cache": {"dir": str(root / f"cache-{name}"), "min_free": "1%"},
            **of[name],
        }
        for name in mounts
    }
    return Settings.model_validate({**own, "remotes": {"store": remote | keys}, "mounts": given})


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[RcloneS3]:
    root = tmp_path / "data"
    for name in ("outputs", "bucket"):
        (root / name).mkdir(parents=True)
    with RcloneS3(root) as server:
        yield server


@asynccontextmanager
async def running(bucket: RcloneS3, **changes: Any) -> AsyncIterator[Room]:
    """Both mounts are served; at the end nothing of them is left, whatever the test did."""
    with tempfile.TemporaryDirectory(prefix="mountd-t-") as directory, Proxy(bucket.endpoint) as proxy:
        root = Path(directory)
        (root / "secret").write_text(bucket.secret_access_key)
        settings = settings_of(root, proxy.endpoint, ("outputs", "models"), changes)
        instance = Instance.create(settings.state, settings.runtime)
        board, found, journal = Board(), binary.find(BUNDLED_RCLONE), Journal(root / "state" / "mountd.db")
        conf = ConfFile(instance.private / "rclone.conf", found)
        tasks = tasks_of(board)
        members = Members(
            settings, instance=instance, board=board, journal=journal, binary=found, conf=conf, tasks=tasks
        )
        operations = Operations({}, {}, board, journal)
        applier = Applier(members, DesiredVersions({}, operations.switch_and_wait, board), board, notify_nobody)
        room = Room(root, proxy, members, board, applier)
        try:
            async with tasks:
                members.run()
                await board.wait_until(lambda now: all(each.usable for each in now.mounts.values()), READY_S)
                yield room
                proxy.latency_s = 0
                await members.stop_mounts(60)
                members.cancel()
        finally:
            for supervisor in members.supervisors.values():
                if supervisor.child is not None:
                    supervisor.child.signal(signal.SIGKILL)
            await members.close()
            for point in room.mounted():
                await asyncio.to_thread(subprocess.run, ["fusermount3", "-uz", point], timeout=60, check=False)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mount that needs no drain has next to no time to stop, so that a test need not wait for the end of it."""
    monkeypatch.setattr(shutdown, "STOP_GRACE_S", 0.1)
    monkeypatch.setattr(shutdown, "CLEAR_TIMEOUT_S", 0.1)
    monkeypatch.setattr(shutdown, "KILL_WAIT_S", 0.1)


@pytest.mark.thorough
@pytest.mark.usefixtures("short")
async def test_a_removed_mount_is_drained_as_long_as_it_may_be(bucket: RcloneS3) -> None:
    async with running(bucket) as room:
        pid = room.pid("outputs")
        room.proxy.latency_s = 2.0
        data = await room.write("a.wav")
        await room.apply(room.settings("models"))
        assert not os.path.exists(f"/proc/{pid}")
        assert (bucket.directory / "outputs" / "a.wav").read_bytes() == data
        assert room.mounted() == [str(room.root / "models")]
        assert not room.is_cache_locked()
        assert list(room.board.snapshot.mounts) == ["models"]
        assert room.members.left == {}
        # … and so is one that may take less time from now on, and moves.
        room.proxy.latency_s = 0.1
        await room.apply(room.settings("models", "outputs"))
        await room.board.wait_until(lambda now: now.mounts["outputs"].usable, READY_S)
        pid = room.pid("outputs")
        room.proxy.latency_s = 2.0
        data = await room.write("b.wav")
        await room.apply(room.settings("models", "outputs", drain="0s", path=str(room.root / "elsewhere")))
        assert not os.path.exists(f"/proc/{pid}")
        assert (bucket.directory / "outputs" / "b.wav").read_bytes() == data
        room.proxy.latency_s = 0
        await room.board.wait_until(lambda now: now.mounts["outputs"].usable, READY_S)


@pytest.mark.parametrize("wait_s", [20.0, 0.0], ids=["ends", "stuck"])
async def test_an_rclone_that_does_not_end_is_killed_and_its_cache_kept_locked_until_then(
    bucket: RcloneS3, monkeypatch: pytest.MonkeyPatch, wait_s: float
) -> None:
    """The limit is over at once, and for one that is stuck in the kernel so is the time after SIGKILL."""
    async with running(bucket, drain="1h", options={"vfs-write-back": "1h"}) as room:
        await room.write("a.wav")
        room.proxy.down()
        pid, was = room.pid("outputs"), room.members.settings
        monkeypatch.setattr(members_module, "mount_stop_s", lambda _: 0.2)
        monkeypatch.setattr(members_module, "KILL_WAIT_S", wait_s)
        monkeypatch.setattr(members_module, "CLEAR_TIMEOUT_S", 0.0)
        await room.apply(room.settings("models"))
        assert wait_s == 0.0 or not os.path.exists(f"/proc/{pid}")
        assert list(room.board.snapshot.mounts) == ["models"]
        await asyncio.to_thread(until, lambda: not room.is_cache_locked(), 60, "the cache to be given back")
        assert not os.path.exists(f"/proc/{pid}")
        assert list(room.board.snapshot.mounts) == ["models"]
        assert room.mounted() == [str(room.root / "models")]
        ((cache, left),) = room.members.left.items()
        assert (cache, left.code) == (was.mounts["outputs"].cache.dir, "uploads-pending")
        assert "a.wav" in left.text
        assert str(cache) in left.hint
        monkeypatch.undo()
        room.proxy.up()
        await room.apply(room.settings("models", "outputs"))
        assert room.members.left == {}
        await asyncio.to_thread(
            until, (bucket.directory / "outputs" / "a.wav").exists, 30, "the upload by its successor"
        )


async def test_a_stop_in_the_middle_of_a_removal_waits_as_long_as_the_removed_needs(bucket: RcloneS3) -> None:
    async with running(bucket) as room:
        room.proxy.latency_s = 3.0
        data = await room.write("a.wav")
        only = room.settings("models")
        total_s = shutdown.stop_times(room.members.settings).total_s
        removal = asyncio.create_task(room.apply(only))
        await room.board.wait_until(lambda now: now.mounts["outputs"].drain is not None, 10)
        removal.cancel()
        await asyncio.wait([removal])
        assert room.members.settings == only
        times = shutdown.stop_times(only, room.members.leaving.values())
        assert times.total_s == total_s > shutdown.stop_times(only).total_s
        await room.members.stop_mounts(times.mounts_s)
        assert room.board.snapshot.mounts["outputs"].state in DOWN
        assert (bucket.directory / "outputs" / "a.wav").read_bytes() == data
