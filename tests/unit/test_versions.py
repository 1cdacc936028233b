"""The versions of a model on a bucket in memory: which there are, what refuses one, which mount has loaded one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mountd.errors import NotFound, Refused, RemoteError, Unavailable
from mountd.model import manifest
from mountd.model.content import Touch
from mountd.model.versions import Versions
from mountd.settings.schema import ModelSettings
from mountd.status.board import Board
from mountd.status.snapshot import Health, MountStatus, Reason, RemoteStatus, Snapshot, State
from tests.support.bucket_disk import BucketDisk
from tests.support.shelf import MOUNT

SHA256 = "0" * 64
WHOLE = manifest.render("v1", [("a", 1, SHA256)], created="", tool="")
BUCKET = {"hubs/hub_v1/a": b"1", f"hubs/hub_v1/{manifest.NAME}": WHOLE, "hubs/hub_v2/a": b"1"}
AWAY = RemoteStatus(Health.DEGRADED, Reason("bucket-unreachable", "the bucket is away"))


class Shown:
    """`versions` of a model whose link is in `directory`, on a mount that has restarted 3 times."""

    def __init__(self, directory: Path, bucket: dict[str, bytes], **keys: Any) -> None:
        self.disk = BucketDisk(bucket)
        self.link = directory / "app" / "hub"
        self.link.parent.mkdir()
        self.board = Board(Snapshot(mounts={"storage": replace(MOUNT, restarts=3)}))
        settings = {"mount": "storage", "directory": "hubs/hub_{version}", "link": str(self.link), "version": "v1"}
        self.versions = Versions("hub", ModelSettings.model_validate({**settings, **keys}), self.disk, self.board)

    def show(self, **changes: Any) -> None:
        mount: MountStatus = self.board.snapshot.mounts["storage"]
        self.board.set_mount("storage", replace(mount, **changes))


@pytest.fixture
def shown(tmp_path: Path) -> Shown:
    return Shown(tmp_path, BUCKET)


async def test_all_of_them_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    paths = ("hub_v10/a", "hub_v9/a", "hub_v9b/a", "hub_alpha/a", "other/a", "hub_v1", "hub_v2/b")
    shown = Shown(tmp_path, {f"hubs/{path}": b"1" for path in paths}, required=["a"])
    found = await shown.versions.all()
    assert [each.version for each in found] == ["alpha", "v2", "v9", "v9b", "v10"]
    assert [each.version for each in found if not each.complete] == ["v2"]


async def test_one_that_vanishes_is_left_out_and_one_that_cannot_be_listed_is_shown_as_that(shown: Shown) -> None:
    shown.disk.failures["hubs/hub_v1"] = RemoteError("directory not found", code="directory-missing")
    shown.disk.failures["hubs/hub_v2"] = RemoteError("access denied", code="bucket-denied")
    (found,) = await shown.versions.all()
    assert (found.version, len(found.files), found.verified, found.problems) == ("v2", 0, False, ("access denied",))


async def test_one_that_is_not_there_may_be_hidden_by_a_bucket_that_is_away(shown: Shown) -> None:
    with pytest.raises(NotFound):
        await shown.versions.inspect("v3")
    shown.show(backend=AWAY)
    with pytest.raises(Unavailable):
        await shown.versions.inspect("v3")


async def test_one_that_is_incomplete_is_refused(tmp_path: Path) -> None:
    shown = Shown(tmp_path, {"hubs/hub_v1/a": b"1"}, required=["b"])
    with pytest.raises(Refused):
        await shown.versions.inspect("v1")


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize(
    ("touch", "asked", "read"),
    [(Touch.NONE, False, False), (Touch.ASKED, True, False), (Touch.REQUIRED, True, True), (Touch.READ, True, True)],
)
async def test_the_store_is_asked_for_its_files_only_when_it_must_give_them(
    tmp_path: Path, version: str, touch: Touch, asked: bool, read: bool
) -> None:
    shown = Shown(tmp_path, BUCKET, required=["a"])
    path = f"hubs/hub_{version}/a"
    await shown.versions.inspect(version, touch=touch)
    assert (shown.disk.asked, shown.disk.bytes_read) == ([path] if asked else [], [path] if read else [])
    shown.disk.archived = RemoteError("it is archived", code="object-archived")
    if asked:
        with pytest.raises(Refused) as refused:
            await shown.versions.inspect(version, touch=touch)
        assert refused.value.code == "object-archived"
    else:
        await shown.versions.inspect(version, touch=touch)


async def test_that_it_is_incomplete_says_more_than_that_a_file_is_not_given(tmp_path: Path) -> None:
    shown = Shown(tmp_path, BUCKET, required=["b"])
    shown.disk.archived = RemoteError("it is not there", code="object-missing")
    with pytest.raises(Refused) as refused:
        await shown.versions.inspect("v1", touch=Touch.READ)
    assert refused.value.code != "object-missing"


@pytest.mark.parametrize(("level", "read"), [("metadata", True), ("data", True), ("pin", False)])
async def test_before_a_switch_the_store_gives_a_byte_of_what_is_not_fetched_anyway(
    tmp_path: Path, level: str, read: bool
) -> None:
    shown = Shown(tmp_path, BUCKET, warm={"level": level})
    await shown.versions.preflight("v1")
    assert shown.disk.asked == ["hubs/hub_v1/a"]
    assert bool(shown.disk.bytes_read) is read


async def test_a_version_is_warm_on_the_mount_that_loaded_it(shown: Shown) -> None:
    versions = shown.versions
    for version, listings in (("v1", 0), ("v2", 1)):
        assert versions.warmed_on(version) == -1
        content = await versions.inspect(version)
        assert versions.warmed_on(version) == 3
        refreshed, shown.disk.refreshed = shown.disk.refreshed, []
        assert refreshed == [("hubs", False), (f"hubs/hub_{version}", True)], "its name is new to the mount"
        assert len(shown.disk.listings) == listings, "nothing is listed twice where a manifest says what must be there"
        await versions.warm(content, lambda _: None)
        assert shown.disk.refreshed == []
    assert shown.disk.known == {"hubs/hub_v1": {"a": [1, SHA256]}}
    versions.is_warm("v1", 4)
    assert versions.warmed_on("v1") == 4


async def test_on_another_mount_it_is_loaded_again_and_must_be_the_same(shown: Shown) -> None:
    content = await shown.versions.inspect("v2")
    shown.show(restarts=4)
    await shown.versions.warm(content, lambda _: None)
    assert shown.versions.warmed_on("v2") == 4
    assert shown.disk.refreshed.count(("hubs/hub_v2", True)) == 2
    shown.show(restarts=5)
    shown.disk.bucket["hubs/hub_v2/b"] = b"new"
    with pytest.raises(Refused):
        await shown.versions.warm(content, lambda _: None)


async def test_an_answer_that_is_not_valid_takes_nothing_out_of_the_mount(shown: Shown) -> None:
    class Doubtful(BucketDisk):
        async def confirm(self) -> None:
            raise RemoteError("a login page answers", code="bucket-invalid")

    await shown.versions.inspect("v1")
    shown.versions.disk = Doubtful({})
    with pytest.raises(RemoteError):
        await shown.versions.inspect("v1")
    assert shown.versions.disk.refreshed == []


async def test_it_is_verified_by_its_files_and_with_digests_by_its_bytes(shown: Shown) -> None:
    content = await shown.versions.inspect("v1")
    await shown.versions.verify(content)
    with pytest.raises(Refused):
        await shown.versions.verify(content, lambda *_: None)  # its sha256 is another
    assert await shown.versions.wanted_files(content) == [("a", 1, SHA256)]
    shown.disk.shown["hubs/hub_v1/a"] = None
    with pytest.raises(Refused):
        await shown.versions.verify(await shown.versions.inspect("v1"))


def test_where_its_link_points_and_what_proves_a_mount(tmp_path: Path) -> None:
    versions = Shown(tmp_path, {}, required=["b", "d/c"]).versions
    assert versions.target("v1") == "/mnt/hubs/hub_v1"
    assert versions.paths("v1") == [f"hubs/hub_v1/{path}" for path in (manifest.NAME, "b", "d/c")]


# -- before a switch --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({}, None),
        ({"state": State.STARTING}, Unavailable),
        ({"cache_broken": True}, Refused),
        ({"cache_broken": True, "cache_bypassed": True}, None),
    ],
)
async def test_what_the_mount_must_be_for_a_switch(
    shown: Shown, changes: dict[str, Any], refusal: type[Exception] | None
) -> None:
    shown.show(**changes)
    if refusal is None:
        assert (await shown.versions.preflight("v1")).version == "v1"
    else:
        with pytest.raises(refusal):
            await shown.versions.preflight("v1")


async def test_a_switch_needs_a_place_for_its_link(shown: Shown) -> None:
    shown.link.parent.parent.chmod(0o777)
    with pytest.raises(Refused):
        await shown.versions.preflight("v1")
    shown.versions.allow_unsafe = True
    await shown.versions.preflight("v1")
    assert list(shown.link.parent.iterdir()) == []
    shown.link.mkdir()
    with pytest.raises(Refused):
        await shown.versions.preflight("v1")


@pytest.mark.parametrize(
    ("version", "digests", "refused"), [("v1", True, False), ("v2", True, True), ("v2", False, False)]
)
async def test_every_byte_can_be_compared_only_with_a_manifest(
    shown: Shown, version: str, digests: bool, refused: bool
) -> None:
    if refused:
        with pytest.raises(Refused):
            await shown.versions.preflight(version, digests=digests)
    else:
        await shown.versions.preflight(version, digests=digests)
    assert bool(shown.disk.asked) is (version == "v1")


async def test_a_forced_switch_asks_the_store_for_no_file(shown: Shown) -> None:
    await shown.versions.preflight("v1", touch=False)
    assert shown.disk.asked == []
