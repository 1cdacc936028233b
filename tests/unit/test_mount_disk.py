"""What a mount leaves out because it cannot be a path, and when it is shown again."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mountd.errors import RemoteError
from mountd.mount.disk import MountDisk
from mountd.rclone.keys import EXCLUDED, LONG, SHADOWS
from tests.unit.test_rclone_rc import Fake, FakeRclone, fake

__all__ = ["fake"]

OBJECT, DIRECTORY = {"Path": "v1/m", "Name": "m", "Size": 7}, {"Path": "v1/m", "Name": "m", "IsDir": True}
LONG_NAME = "n" * 256
BOTH, HIDDEN = [OBJECT, DIRECTORY], [*EXCLUDED, "*.tmp", "/v1/m"]


class ValidStore:
    """It gives valid answers."""

    def __init__(self) -> None:
        self.confirmed = 0

    async def confirm(self) -> None:
        self.confirmed += 1


def mount_of(remote: str) -> SimpleNamespace:
    return SimpleNamespace(remote=remote, options={"exclude": ["*.tmp"]})


def disk_of(fake: Fake) -> MountDisk:
    rclone, client = fake
    rclone.answers["options/set"] = {}
    engine = cast(Any, SimpleNamespace(rc=client, mount=mount_of("store:bkt")))
    unused: dict[str, Any] = dict.fromkeys(("files", "cache", "index"))
    return MountDisk("/mnt", engine=engine, bucket=cast(Any, ValidStore()), **unused)


async def listed(disk: MountDisk, rclone: FakeRclone, entries: list[dict[str, Any]], directory: str = "v1") -> None:
    rclone.answers["operations/list"] = {"list": entries}
    await disk.list_bucket(directory)


def move(disk: MountDisk, remote: str) -> None:
    cast(Any, disk).engine.mount = mount_of(remote)


def hidden(rclone: FakeRclone) -> list[list[str]]:
    """What rclone was asked to leave out, each time."""
    return [asked["filter"]["ExcludeRule"] for method, asked in rclone.asked if method == "options/set"]


async def test_what_was_renamed_or_removed_is_hidden_no_longer(fake: Fake) -> None:
    rclone, disk = fake[0], disk_of(fake)
    await listed(disk, rclone, [*BOTH, {"Path": f"v1/{LONG_NAME}", "Name": LONG_NAME, "Size": 1}])
    assert disk.ignored == {"v1/m": SHADOWS, f"v1/{LONG_NAME}": LONG}
    assert hidden(rclone) == [HIDDEN]

    await listed(disk, rclone, [], directory="v2")
    await listed(disk, rclone, [{"Path": "v1", "Name": "v1", "IsDir": True}], directory="")
    assert disk.ignored == {"v1/m": SHADOWS, f"v1/{LONG_NAME}": LONG}, "others were listed"
    assert hidden(rclone) == [HIDDEN]

    await listed(disk, rclone, [OBJECT])
    assert disk.ignored == {}
    assert hidden(rclone) == [HIDDEN, [*EXCLUDED, "*.tmp"]]
    await listed(disk, rclone, [OBJECT])
    assert len(hidden(rclone)) == 2, "once is enough"


async def test_an_empty_answer_that_nobody_has_confirmed_shows_nothing_again(fake: Fake) -> None:
    rclone, disk = fake[0], disk_of(fake)
    await listed(disk, rclone, BOTH)
    rclone.answers["operations/list"] = {"list": []}
    assert await disk.small_listing("v1") == []
    assert disk.ignored
    assert await disk.list_bucket("v1") == []
    assert not disk.ignored


async def test_what_rclone_did_not_hear_goes_with_the_next_listing(fake: Fake) -> None:
    rclone, disk = fake[0], disk_of(fake)
    await listed(disk, rclone, BOTH)
    rclone.answers["options/set"] = (500, {"error": "not now", "status": 500})
    with pytest.raises(RemoteError):
        await listed(disk, rclone, [OBJECT])
    rclone.answers["options/set"] = {}
    await listed(disk, rclone, [OBJECT])
    assert hidden(rclone)[-1] == [*EXCLUDED, "*.tmp"]


async def test_another_remote_begins_with_nothing_hidden(fake: Fake) -> None:
    rclone, disk = fake[0], disk_of(fake)
    await listed(disk, rclone, BOTH)
    move(disk, "store:bkt")
    assert disk.ignored, "a reload that changes something else"
    move(disk, "store:other")
    assert disk.ignored == {}
    await listed(disk, rclone, [{"Path": "a", "Name": "a", "Size": 7}, {"Path": "a", "Name": "a", "IsDir": True}], "")
    assert hidden(rclone)[-1] == [*EXCLUDED, "*.tmp", "/a"]


async def test_a_file_is_asked_for_where_the_mount_is(fake: Fake) -> None:
    rclone, disk = fake[0], disk_of(fake)
    rclone.answers["operations/stat"] = {"item": {"Size": 1, "ModTime": "2026-01-01T00:00:00Z", "Hashes": {}}}
    first = await disk.fingerprint("v1/m")
    rclone.answers["operations/stat"] = {"item": {"Size": 2, "ModTime": "2026-01-01T00:00:00Z", "Hashes": {}}}
    assert await disk.fingerprint("v1/m") != first
    assert [asked["fs"] for method, asked in rclone.asked if method == "operations/stat"] == ["store:bkt"] * 2


async def test_a_whole_listing_is_saved_and_what_is_no_path_in_it_is_hidden(fake: Fake, tmp_path: Path) -> None:
    rclone, disk = fake[0], disk_of(fake)
    answer = rclone.answers["operations/list"] = {"list": [*BOTH, {"Path": "v1/d/x", "Name": "x", "Size": 1}]}
    origin = await disk.save_listing("v1", tmp_path / "listing")
    assert json.loads((tmp_path / "listing").read_text()) == answer
    assert disk.bucket.confirmed == 0  # type: ignore[attr-defined]
    await disk.leave_out(origin, "v1", {"v1/m": SHADOWS})
    assert (disk.ignored, hidden(rclone)) == ({"v1/m": SHADOWS}, [HIDDEN])
    move(disk, "store:other")
    await disk.leave_out(origin, "v1", {"v1/n": SHADOWS})
    assert disk.ignored == {}, "it says nothing of what is mounted now"


@pytest.mark.parametrize("answer", [{"list": []}, (404, {"error": "file does not exist"})])
async def test_that_nothing_is_there_is_believed_of_a_store_that_gives_valid_answers(
    fake: Fake, tmp_path: Path, answer: Any
) -> None:
    rclone, disk = fake[0], disk_of(fake)
    rclone.answers["operations/list"] = answer
    if isinstance(answer, dict):
        await disk.save_listing("v1", tmp_path / "listing")
    else:
        with pytest.raises(RemoteError) as caught:
            await disk.save_listing("v1", tmp_path / "listing")
        assert caught.value.code == "directory-missing"
    assert disk.bucket.confirmed == 1  # type: ignore[attr-defined]
    assert [method for method, _ in rclone.asked].count("operations/list") == 2
