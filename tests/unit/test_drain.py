"""A drain: what it waits for and asks of rclone, and how long a stop may take for it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from mountd.cache import upload_state, uploads
from mountd.cache.uploads import Uploads
from mountd.daemon.shutdown import stop_times
from mountd.errors import Unavailable
from mountd.files.client import Files
from mountd.mount.engine import Engine
from mountd.process.instance import Instance
from mountd.process.lifecycle import Action, Life, Notice, Policy, step
from mountd.rclone import binary
from mountd.rclone.command import RcAddress
from mountd.rclone.conf_file import ConfFile
from mountd.rclone.rc import RcClient, Upload
from mountd.rclone.stats import DiskCacheStats, VfsStats
from mountd.settings.load import Loaded, Places, load, parse
from mountd.settings.profiles import writes_back
from mountd.settings.schema import MountSettings, Settings
from mountd.status.snapshot import DrainStatus, MountStatus, State
from tests.support.daemon import BUNDLED_RCLONE
from tests.support.vfs_cache import put
from tests.support.wait import until_async

ROOT = Path(__file__).parents[2]
PLACES = Places(Path("/state"), Path("/cache"), Path("/run"))
WAIT_S = 60.0


class Rclone:
    """Uploads begin only when they are asked to, and take no time. A file that is open waits for its close."""

    reopens = False

    def __init__(self, cache: Path, *due_s: float, open_files: int = 0) -> None:
        self.queue = {number: Upload(number, f"{number}.wav", due, False) for number, due in enumerate(due_s)}
        self.answers = True
        self.hurried: list[int] = []
        self.shown: list[DrainStatus | None] = []
        self._data = cache / "vfs" / "store"
        for name in [*(each.name for each in self.queue.values()), *(f"open-{number}" for number in range(open_files))]:
            put(cache, f"store/{name}", dirty=True)
        mount = {"remote": "s:b", "path": "/m", "profile": "outputs", "cache": {"dir": cache}}
        self._uploads = Uploads("m", MountSettings.model_validate(mount), self, self._publish)

    def _publish(self, change: Callable[[MountStatus], MountStatus]) -> None:
        self.shown.append(change(MountStatus("/m", "s:b")).drain)

    @property
    def rc(self) -> RcClient:
        return cast(RcClient, self)

    def follow(self, follower: Callable[[str], None]) -> None:
        """It logs nothing."""

    async def vfs_stats(self, timeout_s: float) -> VfsStats:
        assert 0 < timeout_s <= 2
        if not self.answers:
            raise Unavailable("rclone does not answer")
        return VfsStats(DiskCacheStats(0, 0, len(self.queue), ""))

    async def vfs_queue(self) -> list[Upload]:
        return [*self.queue.values()]

    async def vfs_upload_now(self, upload: int) -> None:
        self.hurried.append(upload)
        await self.remove(self.queue.pop(upload).name)

    async def remove(self, name: str) -> None:
        await asyncio.to_thread((self._data / name).unlink)

    async def drain(self, limit_s: float = WAIT_S) -> bool:
        async with asyncio.timeout(WAIT_S):
            return await self._uploads.drain(limit_s)


async def test_a_drain_of_nothing_is_over_at_once_also_when_rclone_is_silent(tmp_path: Path) -> None:
    rclone = Rclone(tmp_path)
    assert await rclone.drain()
    rclone.answers = False
    assert await rclone.drain()
    assert (rclone.shown, rclone.hurried) == ([None, None], [])


async def test_uploads_that_wait_for_their_time_are_asked_to_begin(tmp_path: Path) -> None:
    """One that has failed for long would wait for minutes."""
    rclone = Rclone(tmp_path, 300.0, 2.0)
    assert await rclone.drain()
    assert rclone.hurried == [0, 1]
    assert (rclone.shown[0], rclone.shown[-1]) == (DrainStatus(2, 2, 10), None)


async def test_an_upload_that_is_under_way_is_waited_for_until_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rclone = Rclone(tmp_path, 300.0)
    clock = SimpleNamespace(monotonic=lambda: 10.0 if rclone.shown else 0.0)  # the time is over once it is shown
    monkeypatch.setattr(uploads, "time", clock)
    rclone.queue = {0: replace(rclone.queue[0], uploading=True)}
    assert await rclone.drain(10.0), "rclone answers: it can be asked to stop"
    assert (rclone.hurried, rclone.shown) == ([], [DrainStatus(1, 1, 5), None])


async def test_a_file_that_a_program_still_writes_is_waited_for(tmp_path: Path) -> None:
    rclone = Rclone(tmp_path, open_files=1)
    draining = asyncio.create_task(rclone.drain())
    await until_async(lambda: rclone.shown, WAIT_S, "the open file to be seen")
    assert (rclone.shown, draining.done()) == ([DrainStatus(1, 1, 5, open=1)], False)
    await rclone.remove("open-0")
    assert await draining


async def test_an_rclone_that_hangs_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload_state, "SILENT_S", 0.3)
    rclone = Rclone(tmp_path, 300.0)
    rclone.answers = False
    assert not await rclone.drain()
    assert rclone.shown[-1] is None


async def test_a_drain_that_is_cancelled_is_shown_no_longer(tmp_path: Path) -> None:
    rclone = Rclone(tmp_path, open_files=1)
    draining = asyncio.create_task(rclone.drain())
    await until_async(lambda: rclone.shown, WAIT_S, "the drain to be seen")
    draining.cancel()
    await asyncio.wait([draining])
    assert rclone.shown[-1] is None


# -- how long a stop may take ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("profile", "options", "waits"),
    [
        ("model-hub", {}, False),
        ("model-hub", {"read-only": False}, True),
        ("small", {}, False),
        ("outputs", {}, True),
        ("outputs", {"vfs-cache-mode": "off"}, False),
        ("outputs", {"read-only": True}, False),
        ("plain", {}, True),
        ("plain", {"vfs-cache-mode": "minimal"}, True),
    ],
)
def test_which_mounts_are_drained(profile: str, options: dict[str, object], waits: bool) -> None:
    mount = MountSettings.model_validate(
        {"remote": "s:b", "path": "/m", "profile": profile, "cache": {"dir": "/c"}, "options": options}
    )
    assert writes_back(mount) is waits


def settings_of(mount: str) -> Loaded:
    text = f"remotes: {{s: {{type: s3, endpoint: 'http://x'}}}}\nmounts: {{m: {{remote: 's:b', path: /m, {mount}}}}}\n"
    return parse(text, "x.yaml", PLACES)


def test_a_stop_may_take_as_long_as_the_drain_needs() -> None:
    reads = stop_times(settings_of("profile: model-hub").settings).total_s
    assert stop_times(settings_of("profile: outputs, drain: 0s").settings).total_s >= reads
    short, long = (stop_times(settings_of(f"profile: outputs, drain: {each}").settings) for each in ("10s", "100s"))
    assert long.total_s - short.total_s == 90


def test_a_drain_of_what_is_never_written_is_of_no_use() -> None:
    assert [str(each) for each in settings_of("profile: model-hub, drain: 5s").warnings if "drain" in str(each)]
    assert not [str(each) for each in settings_of("profile: outputs, drain: 5s").warnings if "drain" in str(each)]


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.yaml")), ids=lambda path: path.name)
def test_systemd_waits_longer_than_any_stop_takes(path: Path) -> None:
    unit = (ROOT / "systemd" / "mountd.service").read_text()
    limit = re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    assert limit is not None
    settings = load(path, places=PLACES).settings
    name, mount = next(iter(settings.mounts.items()))
    outputs = mount.model_copy(update={"profile": "outputs"})  # as the example there, with the default drain
    assert stop_times(settings.model_copy(update={"mounts": {name: mount, "outputs": outputs}})).total_s < int(limit[1])


POLICY = Policy(grace_s=10.0, prepare_s=60.0)
RUNNING = Life(State.RUNNING, wanted=True, child=True)


def test_the_grace_begins_again_with_the_signal() -> None:
    life, actions = step(RUNNING, Notice.UNWANTED, 100.0, POLICY)
    assert (life.due, actions) == (170.0, (Action.TERMINATE,))
    signalled, actions = step(life, Notice.SIGNALLED, 105.0, POLICY)
    assert (signalled.due, actions) == (115.0, ())
    assert step(signalled, Notice.TICKED, 115.0, POLICY)[1] == (Action.KILL,)
    assert step(life, Notice.SIGNALLED, 165.0, POLICY)[0].due == 170.0  # never longer than promised
    killed, _ = step(life, Notice.TICKED, 170.0, POLICY)
    assert step(killed, Notice.SIGNALLED, 170.0, POLICY)[0].due is None
    assert step(RUNNING, Notice.SIGNALLED, 100.0, POLICY) == (RUNNING, ())


async def test_a_mount_that_becomes_read_only_forgets_what_its_former_profile_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reload keeps the object: the next rclone writes nothing, so there is no upload to wait for."""
    settings = Settings.model_validate(
        {
            "remotes": {"r": {"type": "local"}},
            "mounts": {
                name: {
                    "remote": f"r:/{name}",
                    "path": str(tmp_path / name),
                    "profile": profile,
                    "cache": {"dir": str(tmp_path / "cache")},
                }
                for name, profile in (("before", "outputs"), ("after", "model-hub"))
            },
            "control": {"socket": str(tmp_path / "s")},
            "state": str(tmp_path / "state"),
            "runtime": str(tmp_path / "run"),
        }
    )
    monkeypatch.setattr(binary, "DEADLINE_S", WAIT_S)
    found = binary.find(BUNDLED_RCLONE)
    conf, instance = ConfFile(tmp_path / "rclone.conf", found), Instance.of(settings.state, settings.runtime)
    engine = Engine("before", settings, instance, found, conf)
    made = Uploads("before", settings.mounts["before"], engine, lambda change: None)
    put(tmp_path / "cache", "store/bkt/gone/a.wav", dirty=True)
    await made.repair()
    before = engine.reopens
    made.begin(settings.mounts["after"])
    await made.repair()
    assert (before, engine.reopens) == (True, False)
    metadata = str(tmp_path / "cache" / "vfsMeta" / "store" / "bkt")
    made.noticed(VfsStats(DiskCacheStats(0, 0, 0, metadata)))
    engine._rc = RcClient(RcAddress("nobody", "answers", socket=tmp_path / "none"))
    await made.hold()
    await made.reopen(str(tmp_path), Files("test", {}))
