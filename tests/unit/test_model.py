"""A model on a bucket in memory: its start-up, what that commits and reports, and how it is without its link."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from mountd.errors import MountdError, Refused, RemoteError, Unavailable
from mountd.model import link_guard, manifest, model
from mountd.model.survey import NO_FILES
from mountd.status.snapshot import Health, ModelStage, State
from tests.support.bucket_disk import BucketDisk
from tests.support.shelf import MOUNT, Shelf, shelf, until

BUCKET = {"hub_v22/a": b"22", "hub_v23/a": b"23"}


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "TROUBLE_INTERVAL_S", 0.01)
    monkeypatch.setattr(model, "CONTENT_INTERVAL_S", 0.01)
    monkeypatch.setattr(link_guard, "DRIFT_SETTLE_S", 0.01)


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[tuple[Shelf, BucketDisk]]:
    async with shelf(tmp_path) as hub:
        disk = on_bucket(hub)
        async with hub.running():
            await until(lambda: hub.status.linked, "v22 to be linked")
            yield hub, disk


def on_bucket(hub: Shelf, bucket: dict[str, bytes] = BUCKET) -> BucketDisk:
    disk = BucketDisk(bucket)
    hub.model.versions.reconfigure(hub.model.settings, disk)
    return disk


async def test_what_a_live_version_shows(live: tuple[Shelf, BucketDisk]) -> None:
    hub, disk = live
    status = hub.status
    assert (status.stage, status.health, status.reason, status.current) == (
        *(ModelStage.LINKED, Health.HEALTHY, None, "v22"),
    )
    assert (status.target, status.verified, status.warmed_percent) == ("/mnt/hub_v22", False, 100)
    assert (status.digest, status.mount_restarts) == (manifest.listing_digest({"a": 2}), MOUNT.restarts)
    assert disk.asked == [], "the files of a version that was live may be cached"


async def test_it_starts_up_again_on_each_new_mount_and_waits_without_one(live: tuple[Shelf, BucketDisk]) -> None:
    hub, disk = live
    hub.board.set_mount("storage", replace(MOUNT, state=State.CLEANING))
    await until(lambda: hub.status.stage is ModelStage.WAITING, "it to wait")
    assert (hub.status.linked, hub.target) == (False, "hub_v22")
    disk.refreshed.clear()
    hub.board.set_mount("storage", replace(MOUNT, restarts=MOUNT.restarts + 1))
    await until(lambda: hub.status.linked, "v22 to be linked again")
    assert hub.status.mount_restarts == MOUNT.restarts + 1
    assert ("hub_v22", True) in disk.refreshed, "its names are loaded on the new mount"


@pytest.mark.parametrize(
    ("code", "expected", "health"),
    [
        ("bucket-unreachable", "model-unavailable", Health.DEGRADED),
        ("directory-missing", "waiting-for-content", Health.MISSING),
    ],
)
async def test_it_tries_again_until_its_bucket_gives_it(
    tmp_path: Path, code: str, expected: str, health: Health
) -> None:
    async with shelf(tmp_path) as hub:
        disk = on_bucket(hub)
        disk.failures["hub_v22"] = RemoteError("the bucket says no", code=code)
        async with hub.running():
            await until(lambda: hub.status.reason, "the failure")
            assert hub.status.reason is not None
            assert (hub.status.reason.code, hub.status.health, hub.status.linked) == (expected, health, False)
            disk.failures.clear()
            await until(lambda: hub.status.linked, "v22 to be linked")
            assert hub.status.reason is None


@pytest.mark.parametrize(
    ("error", "retry_s"),
    [
        (Refused("the bytes are wrong", code="digest-differs"), "REFUSED_AGAIN_S"),
        (Refused("it is incomplete"), "CONTENT_INTERVAL_S"),
        (Unavailable("the bucket is away"), "TROUBLE_INTERVAL_S"),
    ],
)
def test_what_was_fetched_to_be_seen_is_not_fetched_again_at_once(error: MountdError, retry_s: str) -> None:
    assert model._failure(error)[3] == getattr(model, retry_s)


async def test_a_first_version_must_be_readable_and_is_recorded(tmp_path: Path) -> None:
    async with shelf(tmp_path, live="", required=["a"]) as hub:
        disk = on_bucket(hub)
        disk.archived = RemoteError("it is archived", code="object-archived")
        async with hub.running():
            await until(lambda: hub.status.reason, "the failure")
            assert await hub.journal.content("hub", "v22") is None
            disk.archived = None
            await until(lambda: hub.model.committed.current == "v22", "v22 to be committed")
            known = await hub.journal.content("hub", "v22")
            assert known is not None
            assert known.digest == hub.status.digest
            assert (await hub.journal.committed("hub")).current == "v22"


async def test_a_change_while_mountd_was_down_is_reported_with_the_link(tmp_path: Path) -> None:
    async with shelf(tmp_path) as hub:
        disk = on_bucket(hub)
        await hub.model.load()
        await hub.model.state.commit(await hub.model.versions.inspect("v22"))
        disk.bucket["hub_v22/a"] = b"changed"
        async with hub.running():
            await until(lambda: hub.status.linked, "v22 to be linked")
            assert hub.status.changed is not None
            assert hub.status.changed.code == "content-changed"
            disk.bucket["hub_v22/a"] = b"22"
            hub.board.set_mount("storage", replace(MOUNT, restarts=MOUNT.restarts + 1))
            await until(lambda: hub.status.linked and hub.status.changed is None, "its end")


async def test_without_its_link_it_is_not_linked_and_with_it_it_is_without_a_start_up(
    live: tuple[Shelf, BucketDisk],
) -> None:
    hub, disk = live
    disk.refreshed.clear()
    theirs = hub.directory / "theirs"
    theirs.write_text("precious")
    theirs.rename(hub.link)
    await until(lambda: not hub.status.linked, "it to be seen")
    assert (hub.status.stage, hub.model.content, hub.status.current) == (ModelStage.WARMED, None, "v22")
    hub.link.unlink()
    await until(lambda: hub.status.linked and hub.link.is_symlink(), "the link to be back")
    assert hub.model.content is not None
    assert disk.refreshed == []


async def test_the_version_that_a_changed_link_leads_to_is_shown(live: tuple[Shelf, BucketDisk]) -> None:
    hub, _ = live
    await hub.model.suspend("alice")
    for target, version in (("/mnt/hub_v23", "v23"), ("/mnt/other", None), ("/elsewhere/hub_v23", None)):
        hub.point(target)
        await until(lambda: hub.status.drift.target == target, "it to be seen")  # noqa: B023
        assert (hub.status.drifted_to, hub.status.linked, hub.status.current) == (version, True, "v22")
    await hub.model.suspend(None)
    await until(lambda: hub.status.drift.reason is None, "the link to be right")
    assert (hub.target, hub.status.drifted_to) == ("hub_v22", None)


async def test_a_version_without_files_is_not_looked_at(live: tuple[Shelf, BucketDisk]) -> None:
    """A way back that was not listed by this run of mountd."""
    hub, _ = live
    before = hub.model.live_content()
    assert before is not None
    with hub.model.held("v22"), hub.model.link.moving():
        await hub.model.flip(replace(before, files=NO_FILES))
    assert (hub.model.content, hub.status.linked) == (None, True)
