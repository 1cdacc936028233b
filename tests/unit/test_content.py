"""What a version holds and what the mount shows of it: when it is complete, when verified, and what its bytes are."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import Mapping
from dataclasses import replace

import pytest

from mountd.errors import DiskError, NotFound, Refused, RemoteError
from mountd.model import content as contents
from mountd.model import manifest
from mountd.model.content import Content, check_digests, check_files, check_has_digests, inspect, load_metadata
from mountd.model.layout import Layout
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


# -- inspect ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "required", "verified", "problems"),
    [
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
        ({**WHOLE, f"{manifest.MARKER}1": b""}, (), False, 1),
        ({**WHOLE, f"d/{manifest.MARKER}1": b""}, (), True, 0),
    ],
    ids=itertools.count(),
)
async def test_when_it_is_complete_and_when_by_its_manifest(
    files: dict[str, bytes], required: tuple[str, ...], verified: bool, problems: int
) -> None:
    found = await inspected(files, *required)
    assert (found.verified, len(found.problems), found.complete) == (verified, problems, problems == 0)
    assert (found.version, found.directory) == ("v1", "hubs/hub_v1")
    assert found.files == {path: len(data) for path, data in files.items()}
    assert found.bytes == sum(map(len, files.values()))


@pytest.mark.parametrize("small", [manifest.MAX_BYTES, 0])
async def test_its_digest_is_that_of_its_manifest(small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "SMALL_MANIFEST_BYTES", small)
    found = await inspected(WHOLE)
    assert found.manifest is not None
    assert found.digest == manifest.digest(found.manifest) != found.listing
    assert found.former == manifest.former_digest(WHOLE[manifest.NAME])
    broken = await inspected({**FILES, manifest.NAME: b"<html>"})
    assert (broken.manifest, broken.digest, broken.former) == (
        *(None, broken.listing, manifest.former_digest(b"<html>")),
    )


async def test_without_a_manifest_its_digest_is_that_of_its_listing() -> None:
    found = await inspected(FILES)
    assert (found.digest, found.listing, found.former, found.manifest) == (LISTED, LISTED, "", None)


async def test_a_version_that_is_not_there_is_not_found_and_a_bucket_that_is_away_is_that() -> None:
    with pytest.raises(NotFound):
        await inspected({})
    disk = disk_of(WHOLE)
    disk.failures["hubs/hub_v1"] = RemoteError("the bucket is away", code="bucket-unreachable")
    with pytest.raises(RemoteError) as failed:
        await inspect(disk, LAYOUT, "v1", ())
    assert failed.value.code == "bucket-unreachable"


@pytest.mark.parametrize(("most", "data", "asked"), [(10, manifested(), 0), (2**20, b"", 0), (2**20, b"x", 1)])
async def test_a_manifest_that_cannot_be_read(
    most: int, data: bytes, asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "MAX_BYTES", most)
    disk = disk_of({**FILES, manifest.NAME: data})
    disk.shown[f"{BELOW}{manifest.NAME}"] = None
    with pytest.raises(Refused if most == 10 else DiskError):
        await inspect(disk, LAYOUT, "v1", ())
    assert len(disk.asked) == asked


# -- through the mount ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shown", "required", "fits"),
    [
        ({}, (), True),
        ({}, ("a",), True),
        ({"a": None}, (), False),
        ({"a": b"1"}, (), False),
        ({"d/b": b"2" * 21}, (), False),
        ({"empty": b""}, (), True),
        ({"empty": b""}, ("empty",), False),
        ({"unnamed": None}, ("unnamed",), False),
    ],
    ids=itertools.count(),
)
async def test_the_mount_shows_what_the_manifest_names_and_what_is_required(
    shown: dict[str, bytes | None], required: tuple[str, ...], fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "STATS_AT_ONCE", 2)
    named = {**FILES, "empty": b""}
    disk = disk_of({**named, manifest.NAME: manifested(named), "unnamed": b"1"})
    found = await inspect(disk, LAYOUT, "v1", ())
    disk.shown = {f"{BELOW}{path}": data for path, data in shown.items()}
    if fits:
        await check_files(disk, found, required)
    else:
        with pytest.raises(Refused):
            await check_files(disk, found, required)


async def test_a_directory_is_no_file_though_its_size_fits() -> None:
    disk = disk_of(WHOLE)
    found = await inspect(disk, LAYOUT, "v1", ())
    disk.directories = {f"{BELOW}a"}
    with pytest.raises(Refused):
        await check_files(disk, found, ())


async def test_its_names_are_loaded_with_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "PROGRESS_INTERVAL_S", 0.001)
    disk = disk_of(WHOLE)
    percents: list[int] = []
    found = await inspect(disk, LAYOUT, "v1", ())
    cached = iter([100, 99, 101, 102, 110, 110])
    all_seen = asyncio.Event()

    async def cached_files() -> int:
        number = next(cached, None)
        if number is None:
            all_seen.set()
            return 110
        return number

    async def refresh(directory: str, *, recursive: bool = False) -> None:
        assert (directory, recursive) == ("hubs/hub_v1", True)
        await asyncio.wait_for(all_seen.wait(), 20)

    monkeypatch.setattr(disk, "cached_files", cached_files)
    monkeypatch.setattr(disk, "refresh", refresh)
    assert await load_metadata(disk, found, percents.append) > 0
    assert percents[:4] == [0, 33, 66, 99]
    assert (set(percents[4:-1]), percents[-1]) == ({99}, 100)


# -- every byte -------------------------------------------------------------------------------------------------------


async def test_which_versions_have_all_digests() -> None:
    whole = await inspected(WHOLE)
    check_has_digests(whole)
    assert whole.manifest is not None
    some = replace(whole.manifest, sha256={"a": "0" * 64})
    for lacking in (replace(whole, manifest=None), replace(whole, manifest=some)):
        with pytest.raises(Refused):
            check_has_digests(lacking)


async def test_every_byte_is_compared_with_its_digest() -> None:
    disk = disk_of(WHOLE)
    done: list[tuple[int, int]] = []
    found = await inspect(disk, LAYOUT, "v1", ())
    await check_digests(disk, found, lambda read, total: done.append((read, total)))
    assert done == [(1, 30), (10, 30), (11, 30), (30, 30)]
    disk.shown = {f"{BELOW}a": b"0" * 10}
    with pytest.raises(Refused):
        await check_digests(disk, found, lambda *_: None)
