"""Pinned versions, with a bucket in memory: the link leads to a copy on local disk, whatever becomes of the mount."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from mountd.cache.retention import CacheClaim, CachedVersion, plan
from mountd.errors import RemoteError
from mountd.model import audit, manifest
from mountd.model.audit import Audit
from mountd.model.changes import holding
from mountd.model.layout import Layout
from mountd.status.readiness import blockers, is_behind_a_remount, is_serving_disk
from mountd.status.snapshot import (
    AppStatus,
    Health,
    ModelStage,
    ModelStatus,
    RemoteStatus,
    Snapshot,
    State,
)
from mountd.warm.pinned import Pins
from mountd.warm.pins import PinRecord, ahead, kept
from mountd.warm.results import WarmProgress
from tests.support.bucket_disk import BucketDisk
from tests.support.machine import Tmpfs
from tests.support.shelf import MOUNT, TINA, Shelf, shelf, until

WELL = RemoteStatus(Health.HEALTHY)
SHARED, OLD, NEW = b"shared" * 1000, b"old" * 1000, b"new" * 1000


def version(name: str, **files: bytes) -> dict[str, bytes]:
    named = [(path, len(data), hashlib.sha256(data).hexdigest()) for path, data in files.items()]
    content = {f"hub_{name}/{path}": data for path, data in files.items()}
    return content | {f"hub_{name}/{manifest.NAME}": manifest.render(name, named, created="", tool="")}


BUCKET = version("v22", a=SHARED, b=OLD) | version("v23", a=SHARED, b=NEW)


@contextlib.asynccontextmanager
async def in_short_directory() -> AsyncIterator[Path]:
    """Where the path of a socket is short enough."""
    with tempfile.TemporaryDirectory(prefix="mountd-t-") as root:
        yield Path(root)


@contextlib.asynccontextmanager
async def pinning(
    directory: Path, bucket: dict[str, bytes] = BUCKET, **keys: Any
) -> AsyncIterator[tuple[Shelf, BucketDisk]]:
    async with shelf(directory, warm={"level": "pin"}, **keys) as hub:
        disk = BucketDisk(bucket)
        hub.model.versions.reconfigure(hub.model.settings, disk)
        hub.model.versions.pins = Pins(directory / "state", {})
        (directory / "state").mkdir(exist_ok=True)
        await hub.model.versions.pins.load()
        yield hub, disk


def tree(directory: Path, name: str) -> Path:
    return directory / "state" / "pins" / "trees" / "hub" / name


async def live(hub: Shelf) -> None:
    await until(lambda: hub.status.linked and hub.status.pinned, "a pinned version to be live")


async def test_the_link_leads_to_the_copy_and_what_is_shared_is_fetched_once(tmp_path: Path) -> None:
    async with pinning(tmp_path) as (hub, disk), hub.running():
        await live(hub)
        assert os.readlink(hub.link) == str(tree(tmp_path, "v22"))
        assert (hub.link / "b").read_bytes() == OLD
        assert sorted(disk.read) == [manifest.NAME, "a", "b"]
        disk.read.clear()
        assert (await hub.switch("v23")).result == "committed"
        assert ((hub.link / "b").read_bytes(), sorted(disk.read)) == (NEW, [manifest.NAME, "b"])


async def test_without_the_mount_it_goes_live_and_can_be_rolled_back(tmp_path: Path) -> None:
    async with pinning(tmp_path) as (hub, _), hub.running():
        await live(hub)
        assert (await hub.switch("v23")).result == "committed"
    async with pinning(tmp_path, {}, live="") as (hub, _):
        hub.board.set_mount("storage", replace(MOUNT, state=State.BACKOFF))
        async with hub.running():
            await live(hub)
            assert (hub.status.current, hub.status.level) == ("v23", "pin")
            asked = await hub.operations.rollback(None, TINA)
            assert asked.record is not None
            outcome = await hub.operations.outcome(asked.record)
            assert outcome is not None
            assert (outcome.result, os.readlink(hub.link)) == ("committed", str(tree(tmp_path, "v22")))


@pytest.mark.parametrize("lost", ["hub_v22/", "hub_v22/b"])
async def test_a_pinned_version_that_was_removed_from_the_bucket_can_be_rolled_back_to(
    tmp_path: Path, lost: str
) -> None:
    async with pinning(tmp_path) as (hub, disk), hub.running():
        await live(hub)
        assert (await hub.switch("v23")).result == "committed"
        for path in [each for each in disk.bucket if each.startswith(lost)]:
            del disk.bucket[path]
        assert (await hub.switch("v22")).result == "committed"
        assert (os.readlink(hub.link), hub.status.level) == (str(tree(tmp_path, "v22")), "pin")


async def listed(socket: Path) -> dict[str, Any]:
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket))) as session,
        session.get("http://localhost/api/v1/versions") as answer,
    ):
        return {"status": answer.status, **await answer.json()}


async def test_versions_say_how_much_of_each_is_here_and_name_what_the_bucket_lacks() -> None:
    async with in_short_directory() as directory, pinning(directory) as (hub, disk), hub.running():
        await live(hub)
        async with hub.serving() as socket:
            rows = (await listed(socket))["versions"]
            assert [(row["version"], row["level"], row["in_bucket"]) for row in rows] == [
                ("v22", "pin", True), ("v23", None, True),
            ]  # fmt: skip
            for level in ("metadata", "data"):
                record = await hub.operations.warm(None, "v23", level, TINA)
                await hub.operations.outcome(record)
                assert [row["level"] for row in (await listed(socket))["versions"]] == ["pin", level]
            assert (await hub.switch("v23")).result == "committed"
            for path in [each for each in disk.bucket if each.startswith("hub_v22/")]:
                del disk.bucket[path]
            rows = (await listed(socket))["versions"]
            assert [(row["version"], row["level"], row["in_bucket"]) for row in rows] == [
                ("v23", "pin", True), ("v22", "pin", False),
            ]  # fmt: skip
            assert (rows[1]["role"], rows[1]["files"], rows[1]["problems"]) == ("previous", 3, [])


async def test_without_the_bucket_the_pinned_versions_are_listed() -> None:
    async with in_short_directory() as directory, pinning(directory) as (hub, disk), hub.running():
        await live(hub)
        disk.failures[""] = RemoteError("the store does not answer", code="bucket-unreachable")
        async with hub.serving() as socket:
            found = await listed(socket)
            assert (found["status"], found["unlisted"]) == (200, "the store does not answer")
            assert [(row["version"], row["role"], row["in_bucket"]) for row in found["versions"]] == [
                ("v22", "current", None)
            ]
            hub.model.versions.pins = None
            assert (await listed(socket))["status"] == 503


async def test_wrong_bytes_are_never_pinned(tmp_path: Path) -> None:
    bucket = BUCKET | {"hub_v23/b": NEW[:-1] + b"?"}
    async with pinning(tmp_path, bucket) as (hub, disk), hub.running():
        await live(hub)
        disk.read.clear()
        ended = await hub.switch("v23")
        assert (ended.result, ended.exit_code, disk.read.count("b")) == ("refused", 7, 2)
        assert not tree(tmp_path, "v23").exists()


async def test_a_damaged_copy_is_made_again_before_a_switch(tmp_path: Path) -> None:
    async with pinning(tmp_path) as (hub, _), hub.running():
        await live(hub)
        record = await hub.operations.warm(None, "v23", None, TINA)
        await hub.operations.outcome(record)
        damaged = tree(tmp_path, "v23") / "b"
        damaged.chmod(0o644)
        damaged.write_bytes(OLD)
        assert (await hub.switch("v23")).result == "committed"
        assert (hub.link / "b").read_bytes() == NEW


async def test_a_check_of_a_copy_shows_how_far_it_is(tmp_path: Path) -> None:
    async with pinning(tmp_path) as (hub, disk), hub.running():
        await live(hub)
        content, seen = hub.model.content, list[WarmProgress]()
        assert content is not None
        disk.read.clear()
        await hub.model.levels.reach(content, "pin", seen.append, check=True)
        total = sum(len(data) for path, data in BUCKET.items() if path.startswith("hub_v22/"))
        assert (seen[-1].bytes_done, seen[-1].bytes_total, disk.read) == (total, total, [])
        assert hub.status.loading is None


async def test_a_damaged_copy_that_cannot_be_made_again_stays_where_it_is_and_does_not_go_live(tmp_path: Path) -> None:
    async with pinning(tmp_path) as (hub, disk), hub.running():
        await live(hub)
        record = await hub.operations.warm(None, "v23", None, TINA)
        await hub.operations.outcome(record)
        damaged = tree(tmp_path, "v23") / "b"
        damaged.chmod(0o644)
        damaged.write_bytes(OLD)
        disk.reading_failure = RemoteError("the store does not answer", code="bucket-unreachable")
        for _ in range(2):
            assert (await hub.switch("v23")).result == "failed"
            assert (os.readlink(hub.link), damaged.exists()) == (str(tree(tmp_path, "v22")), True)
        disk.reading_failure = None
        assert (await hub.switch("v23")).result == "committed"
        assert (hub.link / "b").read_bytes() == NEW


async def test_versions_beyond_keep_go_and_all_of_them_with_the_level(tmp_path: Path) -> None:
    bucket = BUCKET | version("v24", c=b"c") | version("v25", d=b"d")
    async with pinning(tmp_path, bucket) as (hub, disk), hub.running():
        await live(hub)
        for name in ("v23", "v24"):
            assert (await hub.switch(name)).result == "committed"
        await until(lambda: not tree(tmp_path, "v22").exists(), "the oldest to go")
        assert tree(tmp_path, "v23").exists()
        settings = hub.model.settings.model_copy(
            update={"warm": hub.model.settings.warm.model_copy(update={"level": "metadata"})}
        )
        hub.model.reconfigure(settings, disk)
        await until(lambda: os.readlink(hub.link) == "/mnt/hub_v24", "the link to lead to the mount")
        await until(lambda: not tree(tmp_path, "v24").exists(), "the copies to go")


async def test_copies_up_to_keep_stay_and_the_one_that_a_switch_is_about_to_use(tmp_path: Path) -> None:
    bucket = BUCKET | version("v24", c=b"c") | version("v25", d=b"d")
    async with pinning(tmp_path, bucket, keep=3) as (hub, _), hub.running():
        await live(hub)
        for name in ("v23", "v24", "v25"):
            await hub.operations.outcome(await hub.operations.warm(None, name, None, TINA))
        with hub.model.held("v23"):
            assert {"v22", "v23"} <= (hub.model._to_keep() or set()), "the live one, and that of the switch"
        assert (await hub.switch("v25")).result == "committed"

        def left() -> list[str]:
            return [name for name in ("v22", "v23", "v24", "v25") if tree(tmp_path, name).exists()]

        await until(lambda: len(left()) == 3, "one of them to go")
        assert {"v22", "v25"} <= {*left()}, "the former one and the live one"


@pytest.mark.root
async def test_copies_that_need_not_stay_go_when_there_is_no_room(tmp_path: Path) -> None:
    bucket: dict[str, bytes] = {}
    for number in range(22, 26):
        bucket |= version(f"v{number}", a=bytes([number]) * 1_200_000)

    def there() -> list[str]:
        return [name for name in ("v22", "v23", "v24", "v25") if tree(tmp_path, name).exists()]

    with Tmpfs(tmp_path / "state", 3):
        async with pinning(tmp_path, bucket) as (hub, _), hub.running():
            await live(hub)
            for name, left in (("v23", ["v22", "v23"]), ("v24", ["v22", "v24"])):
                record = await hub.operations.warm(None, name, None, TINA)
                outcome = await hub.operations.outcome(record)
                assert outcome is not None
                assert (outcome.result, there(), [*hub.model.versions.all_pinned()]) == ("done", left, left)
            await hub.model.suspend("tina: a demonstration")
            record = await hub.operations.warm(None, "v25", None, TINA)
            outcome = await hub.operations.outcome(record)
            assert outcome is not None
            assert (outcome.result, there()) == ("refused", ["v22", "v24"])


async def test_what_was_loaded_ahead_stays_over_a_remount(tmp_path: Path) -> None:
    async with pinning(tmp_path, BUCKET | version("v24", c=b"c")) as (hub, _), hub.running():
        await live(hub)
        assert (await hub.switch("v23")).result == "committed"
        await until(lambda: not hub.model._ahead._is_untidy, "nothing to be removed")
        await hub.operations.outcome(await hub.operations.warm(None, "v24", None, TINA))
        hub.board.set_mount("storage", replace(MOUNT, restarts=MOUNT.restarts + 1))
        await until(lambda: hub.status.mount_restarts == MOUNT.restarts + 1, "the new mount to be used")
        assert not hub.model._ahead._is_untidy
        assert [each for each in ("v22", "v23", "v24") if tree(tmp_path, each).exists()] == ["v22", "v23", "v24"]


@pytest.mark.parametrize("now", ["gone", "without a file", "without its manifest", "another"])
async def test_one_that_the_bucket_no_longer_holds_stays_live_and_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, now: str
) -> None:
    for name in ("INTERVAL_S", "SPREAD_S"):
        monkeypatch.setattr(audit, name, 0.01)
    async with pinning(tmp_path) as (hub, disk), hub.running():
        await live(hub)
        await hub.journal.record_content(holding("hub", await hub.model.versions.inspect("v22")))
        former = dict(disk.bucket)
        for path in [each for each in disk.bucket if each.startswith("hub_v22/")]:
            ends = {"without a file": "/a", "without its manifest": manifest.NAME, "another": "none"}.get(now, "")
            if path.endswith(ends):
                del disk.bucket[path]
        if now == "another":
            disk.bucket |= version("v22", a=SHARED, b=NEW)
        hub.board.set_mount("storage", replace(MOUNT, restarts=MOUNT.restarts + 1))
        await until(lambda: hub.status.mount_restarts == MOUNT.restarts + 1, "the new mount to be used")
        assert (hub.status.linked, hub.status.pinned, hub.status.current) == (True, True, "v22")
        assert hub.status.changed is not None
        assert hub.status.changed.code == "content-changed"
        record = await hub.operations.warm(None, "v22", "pin", TINA)
        outcome = await hub.operations.outcome(record)
        assert outcome is not None
        assert outcome.result != "done"
        assert (hub.link / "b").read_bytes() == OLD
        disk.bucket.clear()
        disk.bucket.update(former)
        hub.board.set_mount("storage", replace(hub.board.snapshot.mounts["storage"], backend=WELL))
        looking = asyncio.create_task(Audit(hub.models, hub.board, hub.journal).run())
        try:
            await until(lambda: hub.status.changed is None, "the alarm to end")
        finally:
            looking.cancel()
            await asyncio.wait([looking])


async def test_what_a_pause_has_kept_goes_when_it_ends(tmp_path: Path) -> None:
    async with pinning(tmp_path, BUCKET | version("v24", c=b"c")) as (hub, _), hub.running():
        await live(hub)
        await hub.model.suspend("alice")
        for name in ("v23", "v24"):
            assert (await hub.switch(name)).result == "committed"
        await until(lambda: not hub.model._ahead._is_untidy, "nothing to be removed")
        assert tree(tmp_path, "v22").exists()
        await hub.model.suspend(None)
        await until(lambda: not tree(tmp_path, "v22").exists(), "the oldest to go")
        assert tree(tmp_path, "v23").exists()


def test_what_was_pinned_after_the_live_one_was_loaded_ahead_of_a_switch() -> None:
    records = {f"v{number}": PinRecord("d", "l", 1, 1, f"2026-01-0{number}") for number in (1, 2, 3)}
    assert ahead(records, "v2") == {"v3"}
    assert ahead(records, "v3") == set()
    assert ahead(records, "v9") == {*records}


@pytest.mark.parametrize(
    ("needed", "keep", "stays"),
    [(["v3"], 1, {"v3"}), (["v1"], 2, {"v1", "v3"}), ([], 0, set()), (["v1", "v2"], 3, {"v1", "v2", "v3"})],
)
def test_which_trees_stay(needed: list[str], keep: int, stays: set[str]) -> None:
    records = {("hub", f"v{number}"): PinRecord("d", "l", 1, 1, f"2026-01-0{number}") for number in (1, 2, 3)}
    other = {("voice", "v9"): PinRecord("d", "l", 1, 1, "2026-01-01")}
    found = kept(records | other, "hub", needed, keep)
    assert found == {("hub", name) for name in stays} | {("voice", "v9")}


def test_the_cache_need_not_hold_what_is_pinned() -> None:
    cached = [CachedVersion(name, f"hub_{name}", 5, 1000.0) for name in ("v22", "v23")]
    claim = CacheClaim("hub", Layout("hub_{version}"), 2, frozenset({"v22", "v23"}), pinned=frozenset({"v23"}))
    assert [each.version for each in plan({"hub": cached}, [claim], 1000.0)] == ["v23"]


LINKED = ModelStatus("storage", "/srv/hub", ModelStage.LINKED, mount_restarts=1)
DOWN = replace(MOUNT, state=State.BACKOFF, restarts=2, gone=True)


@pytest.mark.parametrize("pinned", [True, False])
def test_an_app_on_a_pinned_version_needs_no_mount(pinned: bool) -> None:
    now = Snapshot(
        mounts={"storage": DOWN},
        models={"hub": replace(LINKED, pinned=pinned)},
        apps={"webui": AppStatus(needs=("hub",), state=State.RUNNING, mounts={} if pinned else {"storage": 1})},
    )
    assert (not blockers(now, "webui"), is_serving_disk(now)) == (pinned, pinned)
    assert is_behind_a_remount(now, now.apps["webui"]) is not pinned
    assert is_serving_disk(replace(now, apps={})) is pinned
