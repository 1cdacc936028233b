"""What a version holds and what the mount shows of it: when it is complete, when verified, and what its bytes are."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import Mapping
from dataclasses import replace

import pytest

from mountd.errors import NotFound, Refused, RemoteError
from mountd.model import look, manifest, surveyor, wanted
from mountd.model.content import Content, check_has_digests, check_seen
from mountd.model.layout import Layout
from mountd.model.look import inspect, load, load_names
from mountd.model.survey import FileList
from mountd.model.wanted import check_digests, wanted_files
from mountd.rclone.keys import SHADOWS, BucketEntry
from tests.support.bucket_disk import BucketDisk

FILES = {"a": b"1" * 10, "d/b": b"2" * 20}
LISTED = manifest.listing_digest({path: len(data) for path, data in FILES.items()})
LAYOUT = Layout("hubs/hub_{version}")
BELOW = "hubs/hub_v1/"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def manifested(files: Mapping[str, bytes] = FILES, version: str = "v1") -> bytes:
    return manifest.render(
        version, [(path, len(data), sha256(data)) for path, data in files.items()], created="", tool=""
    )


WHOLE = {**FILES, manifest.NAME: manifested()}


def disk_of(files: Mapping[str, bytes]) -> BucketDisk:
    return BucketDisk({f"{BELOW}{path}": data for path, data in files.items()} | {"hubs/hub_v2/x": b"x"})


async def inspected(files: Mapping[str, bytes], *required: str) -> Content:
    return await inspect(disk_of(files), LAYOUT, "v1", required)


async def loaded(disk: BucketDisk, *required: str) -> Content:
    return await load(disk, LAYOUT, "v1", required, lambda _: None)


# -- past the cache ---------------------------------------------------------------------------------------------------

VERSIONS = [
    (FILES, (), False, 0),
    (FILES, ("a", "d/b"), False, 0),
    (FILES, ("a", "c"), False, 1),
    ({**FILES, "a": b""}, ("a",), False, 1),
    (WHOLE, ("a",), True, 0),
    ({**WHOLE, "more": b""}, ("a",), True, 0),
    (WHOLE, ("c",), False, 1),
    ({**WHOLE, "a": b"1"}, (), False, 1),
    ({"a": FILES["a"], manifest.NAME: manifested()}, ("d/b",), False, 1),  # reported once
    ({**FILES, manifest.NAME: manifested(version="v2")}, (), False, 1),
    ({**FILES, manifest.NAME: b"<html>"}, ("c",), False, 2),
    ({**FILES, manifest.NAME: b""}, (), False, 1),
    ({**WHOLE, f"{manifest.MARKER}1": b""}, (), False, 1),
    ({**WHOLE, f"d/{manifest.MARKER}1": b""}, (), True, 0),
]


@pytest.mark.parametrize("small", [surveyor.SMALL_BYTES, 0], ids=["thread", "process"])
@pytest.mark.parametrize(("files", "required", "verified", "problems"), VERSIONS, ids=itertools.count())
async def test_when_it_is_complete_and_when_by_its_manifest(
    files: dict[str, bytes],
    required: tuple[str, ...],
    verified: bool,
    problems: int,
    small: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(surveyor, "SMALL_BYTES", small)
    found = await inspected(files, *required)
    assert (found.verified, len(found.problems), found.complete) == (verified, problems, problems == 0)
    assert (found.version, found.directory) == ("v1", "hubs/hub_v1")
    assert found.files == FileList.of({path: len(data) for path, data in files.items()})
    assert found.files.unpack() == {path: len(data) for path, data in files.items()}
    assert found.bytes == sum(map(len, files.values()))
    assert found.required == {path: len(files[path]) for path in required if path in files}


@pytest.mark.parametrize(("files", "required", "verified", "problems"), VERSIONS, ids=itertools.count())
async def test_through_the_mount_it_is_found_to_be_the_same(
    files: dict[str, bytes], required: tuple[str, ...], verified: bool, problems: int
) -> None:
    disk = disk_of(files)
    found = await loaded(disk, *required)
    assert found == await inspected(files, *required)
    assert len(disk.listings) == (0 if verified else 1)
    assert (("hubs/hub_v1", True) in disk.refreshed) or not found.complete
    assert disk.known == (
        {"hubs/hub_v1": {path: [len(FILES[path]), sha256(FILES[path])] for path in FILES}} if verified else {}
    )


async def test_its_digest_is_that_of_its_manifest() -> None:
    found = await inspected(WHOLE)
    assert found.manifest is not None
    assert (
        found.digest == manifest.digest(manifest.parse(WHOLE[manifest.NAME])) == found.manifest.digest != found.listing
    )
    assert found.former == manifest.former_digest(WHOLE[manifest.NAME])
    broken = await inspected({**FILES, manifest.NAME: b"<html>"})
    assert (broken.manifest, broken.digest, broken.former) == (
        *(None, broken.listing, manifest.former_digest(b"<html>")),
    )


async def test_without_a_manifest_its_digest_is_that_of_its_listing() -> None:
    found = await inspected(FILES)
    assert (found.digest, found.listing, found.former, found.manifest) == (LISTED, LISTED, "", None)


async def test_a_version_that_is_not_there_is_not_found_and_a_bucket_that_is_away_is_that() -> None:
    for look_at in (inspected({}), loaded(disk_of({}))):
        with pytest.raises(NotFound):
            await look_at
    disk = disk_of(WHOLE)
    disk.failures["hubs/hub_v1"] = RemoteError("the bucket is away", code="bucket-unreachable")
    with pytest.raises(RemoteError) as failed:
        await inspect(disk, LAYOUT, "v1", ())
    assert failed.value.code == "bucket-unreachable"


async def test_a_manifest_that_is_too_large_is_not_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "MAX_BYTES", 10)
    with pytest.raises(Refused):
        await inspect(disk_of(WHOLE), LAYOUT, "v1", ())


@pytest.mark.parametrize("code", ["object-archived", "access-denied", "object-missing"])
async def test_a_manifest_that_the_store_does_not_give_is_named(code: str) -> None:
    class Keeping(BucketDisk):
        async def size(self, path: str) -> int | None:
            raise RemoteError("no", hint="ask for it", code=code)

    disk = Keeping({f"{BELOW}{path}": data for path, data in WHOLE.items()})
    for look_at in (inspect(disk, LAYOUT, "v1", ()), load(disk, LAYOUT, "v1", (), lambda _: None)):
        with pytest.raises(Refused) as refused:
            await look_at
        assert (refused.value.code, refused.value.hint) == (code, "ask for it")
    del disk.bucket[f"{BELOW}{manifest.NAME}"]  # a store that does not say whether there is one
    assert (await inspect(disk, LAYOUT, "v1", ())).complete


async def test_what_cannot_be_a_path_is_left_out() -> None:
    disk = disk_of({**FILES, "n" * 300: b"", "d": b"in the way of d/b"})
    found = await inspect(disk, LAYOUT, "v1", ())
    assert found.files.unpack() == {path: len(data) for path, data in FILES.items()}
    assert disk.hidden.keys() == {f"{BELOW}{'n' * 300}", f"{BELOW}d"}
    assert disk.hidden[f"{BELOW}d"] == SHADOWS


# -- through the mount ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shown", "required", "fits"),
    [
        ({}, (), True),
        ({}, ("a",), True),
        ({"a": None}, (), False),
        ({"a": b"1"}, (), False),
        ({"d/b": b"2" * 21}, (), False),
        ({manifest.NAME: None}, (), False),
        ({"empty": b""}, (), True),
        ({"unnamed": None}, ("unnamed",), False),
    ],
    ids=itertools.count(),
)
async def test_the_mount_shows_what_the_manifest_names_and_what_is_required(
    shown: dict[str, bytes | None], required: tuple[str, ...], fits: bool
) -> None:
    named = {**FILES, "empty": b""}
    disk = disk_of({**named, manifest.NAME: manifested(named), "unnamed": b"1"})
    disk.shown = {f"{BELOW}{path}": data for path, data in shown.items()}
    found = await loaded(disk, *required)
    assert (found.complete, found.verified, len(disk.listings)) == (True, True, 0 if fits else 1)
    if fits:
        await check_seen(disk, found, required)
    else:
        with pytest.raises(Refused):
            await check_seen(disk, found, required)


@pytest.mark.parametrize("later", [None, b"", b"1"])
async def test_a_required_file_is_looked_at_once_more(later: bytes | None) -> None:
    disk = disk_of(FILES)
    found = await loaded(disk, "a")
    await check_seen(disk, found, ["a"])
    disk.shown = {f"{BELOW}a": later}
    with pytest.raises(Refused):
        await check_seen(disk, found, ["a"])


async def test_a_directory_is_no_file_though_its_size_fits() -> None:
    disk = disk_of(WHOLE)
    disk.directories = {f"{BELOW}a"}
    with pytest.raises(Refused):
        await check_seen(disk, await loaded(disk), ())


async def test_an_object_in_the_place_of_a_directory_is_hidden_and_the_mount_looks_again() -> None:
    class Shadowed(BucketDisk):
        """The mount shows `d`, and nothing below it, until it hides that."""

        async def refresh(self, directory: str, *, recursive: bool = False) -> None:
            await super().refresh(directory, recursive=recursive)
            self.shown = {f"{BELOW}d": None} if self.hidden else {f"{BELOW}d/b": None}

    disk = Shadowed({f"{BELOW}{path}": data for path, data in {**WHOLE, "d": b"x"}.items()})
    found = await loaded(disk)
    assert (found.complete, found.unseen, len(disk.listings)) == (True, "", 1)
    assert disk.refreshed.count(("hubs/hub_v1", True)) == 2


async def test_its_names_are_loaded_with_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look, "PROGRESS_INTERVAL_S", 0.001)
    disk = disk_of(WHOLE)
    percents: list[int] = []
    seen = iter([100, 99, 101, 102, 110, 110])
    all_seen = asyncio.Event()

    async def listed() -> int:
        number = next(seen, None)
        if number is None:
            all_seen.set()
            return 110
        return number

    async def refresh(directory: str, *, recursive: bool = False) -> None:
        assert (directory, recursive) == ("hubs/hub_v1", True)
        await asyncio.wait_for(all_seen.wait(), 60)

    monkeypatch.setattr(disk, "listed", listed)
    monkeypatch.setattr(disk, "refresh", refresh)
    await load_names(disk, LAYOUT, "hubs/hub_v1", 3, percents.append)
    assert percents[:5] == [0, 0, 33, 66, 99]
    assert (set(percents[5:-1]), percents[-1]) == ({99}, 100)


async def test_a_list_that_is_none_is_no_empty_version() -> None:
    class Odd(BucketDisk):
        async def list_bucket(self, directory: str, *, recursive: bool = False) -> list[BucketEntry]:
            return [BucketEntry(f"{directory}/a", "a", "many", False)]  # type: ignore[arg-type]

    with pytest.raises(Exception, match="no valid list"):
        await inspect(Odd({}), LAYOUT, "v1", ())


# -- every byte -------------------------------------------------------------------------------------------------------


async def test_which_versions_have_all_digests() -> None:
    whole = await inspected(WHOLE)
    check_has_digests(whole)
    assert whole.manifest is not None
    some = replace(whole.manifest, undigested="d/b")
    for lacking in (replace(whole, manifest=None), replace(whole, manifest=some)):
        with pytest.raises(Refused):
            check_has_digests(lacking)


@pytest.mark.parametrize("at_once", [1, 1000])
async def test_its_files_are_read_again_when_they_are_wanted(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wanted, "AT_ONCE", at_once)
    disk, bare = disk_of({**WHOLE, "more": b"1"}), disk_of(FILES)
    found = await wanted_files(disk, await loaded(disk))
    assert found == [(path, len(data), sha256(data)) for path, data in FILES.items()]
    assert await wanted_files(bare, await loaded(bare)) == [("a", 10, None), ("d/b", 20, None)]


@pytest.mark.parametrize("now", [manifested({"a": b"other"}), b"<html>", None])
async def test_the_files_of_another_manifest_are_not_those_of_the_version(now: bytes | None) -> None:
    disk = disk_of(WHOLE)
    content = await loaded(disk)
    if now is None:
        del disk.bucket[f"{BELOW}{manifest.NAME}"]
    else:
        disk.bucket[f"{BELOW}{manifest.NAME}"] = now
    with pytest.raises(Refused):
        await wanted_files(disk, content)


async def test_every_byte_is_compared_with_its_digest() -> None:
    disk = disk_of(WHOLE)
    done: list[tuple[int, int]] = []
    found = await loaded(disk)
    await check_digests(disk, found, lambda read, total: done.append((read, total)))
    assert done == [(1, 30), (10, 30), (11, 30), (30, 30)]
    disk.shown = {f"{BELOW}a": b"0" * 10}
    with pytest.raises(Refused):
        await check_digests(disk, found, lambda *_: None)
