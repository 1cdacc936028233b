"""A run of publishing: what others see of it while it lasts, what it reports, and what it refuses to begin with."""

from __future__ import annotations

import asyncio
import getpass
import json
import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from mountd import __version__
from mountd.errors import Busy, MountdError, Refused
from mountd.model import manifest
from mountd.publish import hashing, run
from mountd.publish.record import open_record
from mountd.publish.run import Asked, Progress, look_at
from tests.unit.test_publishing import ASKED, FILES, OTHERS, Publisher

READ_BACK = replace(ASKED, download_check=True)


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    return Publisher(tmp_path)


# -- what others see --------------------------------------------------------------------------------------------------


async def test_another_publisher_is_told_who_is_at_it(publisher: Publisher, tmp_path: Path) -> None:
    await publisher.interrupted()
    mark = json.loads(publisher.store.objects[publisher.marker])
    assert (mark["schema"], mark["user"], mark["host"]) == (1, getpass.getuser(), socket.gethostname())
    other = Publisher(tmp_path / "other")
    other.store = publisher.store
    with pytest.raises(Busy) as refused:
        await other.run()
    assert refused.value.holder == f"{mark['user']} on {mark['host']} (since {mark['since']})"


@pytest.mark.parametrize("mark", [b"?", b"[]", b"{}", b'{"user": "tina"}', b"\xff"])
async def test_a_mark_that_says_nothing_holds_all_the_same(publisher: Publisher, mark: bytes) -> None:
    publisher.store.objects = {OTHERS: mark}
    with pytest.raises(Busy) as refused:
        await publisher.run()
    assert OTHERS in refused.value.holder


def test_a_user_without_a_name_is_known_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> str:
        raise KeyError

    monkeypatch.setattr(getpass, "getuser", unknown)
    assert json.loads(run._who())["user"] == f"uid {os.getuid()}"


async def test_the_manifest_says_what_made_it(publisher: Publisher) -> None:
    await publisher.run()
    document = json.loads(publisher.store.objects[manifest.NAME])
    assert (document["tool"], document["created"].endswith("Z")) == (f"mountd {__version__}", True)
    assert {each["path"]: each["size"] for each in document["files"]} == {path: len(FILES[path]) for path in FILES}


# -- what it reports --------------------------------------------------------------------------------------------------


async def test_what_is_left_out_is_named(publisher: Publisher) -> None:
    publisher.write({manifest.NAME: b"of another"})
    published = await publisher.run()
    assert (published.left_out, published.files) == ((manifest.NAME,), 2)
    assert publisher.store.objects[manifest.NAME] != b"of another"


async def test_the_progress_of_what_is_read_and_read_back(publisher: Publisher) -> None:
    await publisher.run(READ_BACK)
    assert publisher.progress[-1] == Progress("reading back", 0, 30)
    assert [each for each in publisher.progress if each.what == "reading"][-1] == Progress("reading", 30, 30)
    publisher.progress.clear()
    assert (await publisher.run(READ_BACK)).result == "already-published"
    assert "sha256" in publisher.store.calls
    assert Progress("reading back", 0, 30) in publisher.progress
    assert not any(each.what == "sending" for each in publisher.progress)


async def test_a_dry_run_names_what_would_be_deleted_and_compares_with_what_is_published(publisher: Publisher) -> None:
    dry_run = replace(ASKED, dry_run=True)
    await publisher.interrupted()
    (publisher.root / "a").unlink()
    found = await publisher.run(dry_run)
    assert (found.result, found.deleted, found.sent, publisher.store.writes) == ("would-publish", ("a",), 0, [])
    assert publisher.is_recorded
    await publisher.run()
    assert (await publisher.run(dry_run)).result == "already-published"
    publisher.write({"b/c": b"3" * 20})
    with pytest.raises(Refused):
        await publisher.run(dry_run)


# -- what is refused beforehand ---------------------------------------------------------------------------------------


def test_a_name_that_cannot_be_an_object_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a\nb").write_text("1")
    with pytest.raises(Refused, match="control character"):
        look_at(str(tmp_path), Asked("v23", (), 2), "p")
    (tmp_path / "a\nb").rename(tmp_path / "ab")
    assert [*look_at(str(tmp_path), Asked("v23", ("ab",), 2), "p").files] == ["ab"]
    with pytest.raises(Refused, match="too long"):
        look_at(str(tmp_path), Asked("v23", (), 2), "p" * manifest.MAX_PATH_BYTES)


def test_links_that_lead_out_have_a_hint_of_their_own(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "out").symlink_to(tmp_path)
    with pytest.raises(Refused) as refused:
        look_at(str(root), Asked("v23", (), 2), "p")
    assert "cp -rL" in refused.value.hint
    (root / "out").unlink()
    (root / "gone").symlink_to("nothing")
    with pytest.raises(Refused) as refused:
        look_at(str(root), Asked("v23", (), 2), "p")
    assert "cp -rL" not in refused.value.hint


def test_more_files_than_a_manifest_can_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "MAX_FILES", 3)
    for name in ("1", "2", "3", manifest.NAME):
        (tmp_path / name).write_text("1")
    assert hashing.scan(str(tmp_path)).problems == []
    (tmp_path / manifest.NAME).unlink()
    for name in ("4", "5", "in/6", "in/7"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1")
        with pytest.raises(Refused, match=r": there are more than 3 files$"):
            look_at(str(tmp_path), Asked("v23", (), 2), "p")


async def test_a_file_is_what_was_read_only_while_nothing_of_it_changes(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    for name in ("a", "b"):
        (root / name).write_text("1")
    (root / "link").symlink_to("a")
    tree = hashing.scan(str(root))
    assert all(hashing.unchanged(tree, path) for path in tree.files)
    (root / "link").unlink()
    (root / "link").symlink_to("b")
    assert [path for path in tree.files if not hashing.unchanged(tree, path)] == ["link"]
    (root / "link").unlink()
    (root / "a").unlink()
    assert [path for path in tree.files if not hashing.unchanged(tree, path)] == ["a", "link"]


async def test_a_file_that_cannot_be_read_ends_it_at_once_however_large_the_others_are(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    with (root / "large").open("wb") as file:
        file.truncate(100 << 30)  # to read it would take minutes
    (root / "small").write_text("1")
    tree = hashing.scan(str(root))
    (root / "small").unlink()
    record = await open_record(tmp_path / "state", "d")
    try:
        async with asyncio.timeout(60):
            with pytest.raises(MountdError, match="/small: no such file"):
                await hashing.digests(tree, record, 2, lambda *_: None)
    finally:
        record.close()


@pytest.mark.parametrize("mask", [0, 0o077])
def test_what_is_kept_is_for_its_owner_whatever_the_umask_is(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        record = asyncio.run(open_record(tmp_path / "state", "d"))
    finally:
        os.umask(before)
    places = (record.place, record.place.parent, record.place / "record.jsonl", record.private)
    assert [place.stat().st_mode & 0o777 for place in places] == [0o700, 0o700, 0o600, 0o700]
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o755, "it is the daemon's, too"
    record.close()
