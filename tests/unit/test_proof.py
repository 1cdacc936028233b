"""The proof of a mount, on a bucket and a mount that a test lays out: what is compared, what is read, what it says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import pytest

from mountd.errors import DiskError, DiskTimeout, ProbeNotSent, RemoteError, Unavailable
from mountd.files.client import Files, FileType, Item, Listing, NoStat, Stat
from mountd.mount import proof
from mountd.mount.disk import MountDisk
from mountd.mount.proof import PROOF_BYTES, SOME_FILES, TRIES, prove
from mountd.rclone.keys import BucketEntry

ARCHIVED, FORBIDDEN = RemoteError("frozen", code="object-archived"), RemoteError("no", code="access-denied")


class Bucket:
    """Sizes by path; a mount that shows it as it is, but for what a test says. Paths that were read are in `read`."""

    root, fs = "/mnt/m", "s:bkt"

    def __init__(self, files: Mapping[str, int]) -> None:
        self.files = files
        self.unseen: set[str] = set()
        self.no_stat: set[str] = set()
        self.errors: dict[str, DiskError] = {}
        self.faults: dict[str, RemoteError] = {}
        self.gives: dict[str, int] = {}
        self.large: set[str] = set()
        self.truncated = False
        self.refreshed: list[str] = []
        self.listed: list[str] = []
        self.reads: list[tuple[str, int]] = []

    def entries(self, directory: str) -> list[BucketEntry]:
        above = f"{directory}/" if directory else ""
        found: dict[str, BucketEntry] = {}
        for path, size in self.files.items():
            if path.startswith(above):
                name, slash, _ = path.removeprefix(above).partition("/")
                found[name] = BucketEntry(above + name, name, -1 if slash else size, bool(slash))
        return list(found.values())

    async def refresh(self, directory: str) -> list[BucketEntry] | None:
        self.refreshed.append(directory)
        return None if directory in self.large else self.entries(directory)

    async def list_bucket(self, directory: str) -> list[BucketEntry]:
        self.listed.append(directory)
        return self.entries(directory)

    async def small_listing(self, directory: str) -> list[BucketEntry] | None:
        self.listed.append(directory)
        return None if directory in self.large else self.entries(directory)

    async def list(self, path: str, *, limit: int, timeout_s: float) -> Listing:
        assert self.refreshed == [""], "as the bucket is now"
        kinds: dict[bool, FileType] = {True: "directory", False: "file"}
        directory = path.removeprefix(self.root).lstrip("/")
        found = [each for each in self.entries(directory) if each.name not in self.unseen]
        names = tuple(Item(each.name, kinds[each.is_dir]) for each in found[:limit])
        return Listing(names, len(found) > limit if directory else self.truncated)

    async def stat(self, paths: Sequence[str]) -> tuple[Stat | NoStat, ...]:
        return tuple(self._stat(path) for path in paths)

    def _stat(self, path: str) -> Stat | NoStat:
        if path in self.files and path not in self.no_stat:
            return Stat(self.files[path], "file")
        is_directory = any(each.startswith(f"{path}/") for each in self.files)
        return Stat(0, "directory") if is_directory else NoStat(2, "no such file")

    async def read(self, path: str, length: int) -> bytes:
        self.reads.append((path, length))
        if path in self.errors:
            raise self.errors[path]
        return b"x" * self.gives.get(path, length)

    async def why_unreadable(self, path: str) -> RemoteError | None:
        return self.faults.get(path)

    def damage(self, fault: RemoteError, *paths: str) -> None:
        for path in paths:
            self.errors[path], self.faults[path] = DiskError("input/output error"), fault

    async def prove(self, *candidates: str) -> str | None:
        return await prove(cast(MountDisk, self), cast(Files, self), candidates)

    @property
    def read_paths(self) -> Sequence[str]:
        return [path for path, _ in self.reads]


async def test_a_candidate_is_read_once_and_its_directory_is_the_witness() -> None:
    bucket = Bucket({"v1/MANIFEST.json": 9, "v1/a.bin": PROOF_BYTES + 1, "small": 1})
    assert await bucket.prove("v1/missing", "v1/a.bin", "v1/MANIFEST.json") == "v1"
    assert bucket.reads == [("v1/a.bin", PROOF_BYTES)], "no byte more: that can fetch a whole model"


async def test_a_small_file_is_read_whole() -> None:
    bucket = Bucket({"v1/a": 7})
    await bucket.prove("v1/a")
    assert bucket.reads == [("v1/a", 7)]


async def test_what_the_bucket_has_and_the_mount_does_not_show() -> None:
    bucket = Bucket({"v1/a": 7, "v2/a": 7})
    bucket.unseen = {"v2"}
    with pytest.raises(DiskError):
        await bucket.prove("v1/a")
    assert bucket.reads == []


async def test_a_root_of_too_many_names_is_not_compared() -> None:
    bucket = Bucket({"v1/a": 7, "b": 9, "c": 3, "d": 0})
    bucket.unseen, bucket.truncated = {"v1"}, True
    assert await bucket.prove() is None, "no witness: it would be listed repeatedly"
    assert bucket.read_paths == ["c"], "the smallest that is not empty"
    assert bucket.listed == []


async def test_a_root_that_is_large_or_seems_empty_is_listed_once_more() -> None:
    for files, large in (({"v1/a": 7}, {""}), (dict[str, int](), set[str]())):
        bucket = Bucket(files)
        bucket.large = large
        await bucket.prove("v1/a")
        assert bucket.listed[:1] == [""]


@pytest.mark.parametrize("given", [0, 3])
async def test_fewer_bytes_than_the_file_has(given: int) -> None:
    bucket = Bucket({"v1/a": 7})
    bucket.gives["v1/a"] = given
    with pytest.raises(DiskError):
        await bucket.prove("v1/a")


async def test_a_file_of_the_bucket_without_a_stat() -> None:
    bucket = Bucket({"a": 7})
    bucket.no_stat.add("a")
    with pytest.raises(DiskError):
        await bucket.prove()


@pytest.mark.parametrize("error", [DiskTimeout("late"), ProbeNotSent("no worker"), DiskError("input/output error")])
async def test_a_read_that_fails_although_the_bucket_gives_the_file(error: DiskError) -> None:
    bucket = Bucket({"v1/a": 7, "b": 1})
    bucket.errors["v1/a"] = error
    if type(error) is not DiskError:
        bucket.faults["v1/a"] = FORBIDDEN  # that is not asked for: there was no answer at all
    with pytest.raises(type(error)):
        await bucket.prove("v1/a")


@pytest.mark.parametrize("fault", [ARCHIVED, FORBIDDEN])
async def test_a_file_that_nobody_can_read_is_its_own_fault(fault: RemoteError) -> None:
    bucket = Bucket({"v1/a": 7, "v1/b": 7})
    bucket.damage(fault, "v1/a")
    assert await bucket.prove("v1/a", "v1/b") == "v1"
    assert bucket.read_paths == ["v1/a", "v1/b"]


async def test_where_all_are_archived_no_byte_is_expected_and_where_one_is_refused_it_is() -> None:
    bucket = Bucket({"a": 7, "b": 7})
    bucket.damage(ARCHIVED, "a", "b")
    assert await bucket.prove() is None
    bucket = Bucket({"a": 7, "b": 7})
    bucket.damage(ARCHIVED, "a")
    bucket.damage(FORBIDDEN, "b")
    with pytest.raises(RemoteError) as refused:
        await bucket.prove()
    assert refused.value.code == "access-denied"


async def test_so_many_files_are_tried_each_once() -> None:
    bucket = Bucket({f"v1/{number}": 7 for number in range(TRIES + 1)})
    names = [*bucket.files]
    bucket.damage(ARCHIVED, *names)
    await bucket.prove(names[0], *names)
    assert bucket.read_paths == names[:TRIES]


async def test_without_a_candidate_the_smallest_file_is_looked_for() -> None:
    bucket = Bucket({"c": 30, "a": 10, "b": 20, "empty": 0})
    bucket.damage(ARCHIVED, "a", "b")
    await bucket.prove()
    assert bucket.read_paths == ["a", "b"], "two of the root; nothing was read of a directory"

    bucket = Bucket({"x/deep/b": 9, "x/deep/a": 4, "x/deep/empty": 0})
    assert await bucket.prove() == "x/deep"
    assert bucket.read_paths == ["x/deep/a"]


async def test_directories_without_a_candidate_are_looked_at_first() -> None:
    bucket = Bucket({"a/1": 5, "a/2": 1, "b/1": 5, "c/1": 5})
    bucket.damage(ARCHIVED, *bucket.files)
    await bucket.prove("a/1")
    assert bucket.read_paths == ["a/1", "b/1", "c/1", "a/2"]


async def test_so_many_directories_are_looked_into() -> None:
    bucket = Bucket({f"{name}/1": 5 for name in "abcdef"})
    bucket.damage(ARCHIVED, *bucket.files)
    assert await bucket.prove() is None
    assert bucket.read_paths == ["a/1", "b/1", "c/1"]
    assert bucket.listed == ["a", "b", "c"], "each costs a request, and the root was seen when it was refreshed"


async def test_an_empty_bucket_is_proven_by_its_listing() -> None:
    assert await Bucket({}).prove("v1/a") is None
    assert await Bucket({"v1/empty": 0}).prove("v1/empty") is None


async def test_how_deep_the_smallest_file_is_looked_for() -> None:
    for depth, reads in ((proof.DEPTH, 1), (proof.DEPTH + 1, 0)):
        bucket = Bucket({"/".join("d" * depth) + "/a": 5})
        await bucket.prove()
        assert len(bucket.reads) == reads
    bucket = Bucket({"d/a": 5})
    bucket.large.add("d")
    assert await bucket.prove() is None


async def test_a_large_directory_is_no_witness() -> None:
    many = {f"v1/{number}": 7 for number in range(SOME_FILES + 1)}
    assert await Bucket(many).prove("v1/0") == "", "the root, which is small"
    del many["v1/0"]
    assert await Bucket(many).prove("v1/1") == "v1"
    assert await Bucket({f"{number}": 7 for number in range(SOME_FILES + 1)}).prove() is None


async def test_a_bucket_that_does_not_answer_proves_nothing() -> None:
    class Away(Bucket):
        async def refresh(self, directory: str) -> None:
            raise Unavailable("away")

    with pytest.raises(Unavailable):
        await Away({"a": 1}).prove()
