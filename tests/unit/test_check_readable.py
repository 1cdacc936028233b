"""Which files of a version the store is asked for before it goes live, and what is said of those that it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from mountd.errors import Refused, RemoteError
from mountd.model.content import Content, Touch, check_readable
from mountd.model.layout import Layout
from mountd.model.look import inspect
from mountd.model.manifest import NAME, Manifest
from mountd.model.survey import MOST_SAMPLES, survey
from mountd.rclone.keys import BucketEntry
from tests.support.memory_disk import MemoryDisk


class Store(MemoryDisk):
    """`archived` are paths that it does not give."""

    def __init__(self, *archived: str) -> None:
        super().__init__()
        self.archived = archived
        self.asked: list[str] = []
        self.bytes_read: list[str] = []

    async def why_unreadable(self, path: str) -> RemoteError | None:
        self.bytes_read.append(path.removeprefix("hub_v1/"))
        return await self.why_refused(path)

    async def why_refused(self, path: str) -> RemoteError | None:
        self.asked.append(path.removeprefix("hub_v1/"))
        archived = RemoteError("it is archived", hint="restore it", code="object-archived")
        return archived if self.asked[-1] in self.archived else None


def content(paths: list[str], required: tuple[str, ...] = (), *, manifested: bool = True) -> Content:
    files = {path: 0 if path.endswith("empty") else 1 for path in paths}
    listed = {**files, NAME: 1} if manifested else files
    found = survey("v1", listed, required, Manifest("v1", files) if manifested else None)
    return Content("v1", "hub_v1", found.files, "", manifested, (), sample=found.sample)


MANY = [f"d{number % 3}/{number:03d}" for number in range(MOST_SAMPLES + 50)]


@pytest.mark.parametrize(
    ("version", "asked"),
    [
        (content(["a", "b"]), ["a", "b"]),
        (content(["a", "b"], ("b",)), ["b", "a"]),
        (content(["a", "b"], ("b",), manifested=False), ["b"]),
        (content(["a", "b"], manifested=False), []),
        (content(["a", "empty"], ("empty",)), ["a"]),  # there is nothing to give of it
        (content(["a"], ("missing",)), ["a"]),
        (content(["a/1", "a/2", "b/1", "c"]), ["a/1", "b/1", "c", "a/2"]),
        (content(MANY, (MANY[-2],)), [MANY[-2], "d0/000", "d1/001", "d2/002", *MANY[3 : MOST_SAMPLES - 1]]),
    ],
    ids=["all", "required-first", "no-manifest", "nothing", "empty", "missing", "a-directory-each", "many"],
)
async def test_which_files_are_asked_for(version: Content, asked: list[str]) -> None:
    store = Store()
    await check_readable(store, "v1", "hub_v1", version.sample, version.sample)
    assert store.asked == store.bytes_read == asked
    assert len(asked) <= MOST_SAMPLES


@pytest.mark.parametrize(
    ("touch", "read"),
    [(Touch.ASKED, []), (Touch.REQUIRED, ["b"]), (Touch.READ, ["b", "a", "c/1"])],
)
async def test_of_which_files_a_byte_is_read(touch: Touch, read: list[str]) -> None:
    """Of a file that the app may never open the bucket gives nothing before somebody asks for it."""
    store, required = Store(), ("b", "not/there")
    sample = content(["a", "b", "c/1"], required).sample
    await check_readable(store, "v1", "hub_v1", sample, touch.reads(sample, required))
    assert (store.asked, store.bytes_read) == (["b", "a", "c/1"], read)


async def test_those_that_cannot_be_read_are_named() -> None:
    store = Store("a", "c/1")
    with pytest.raises(Refused, match=r" v1: a: .*; c/1: [^;]*$") as refused:
        await check_readable(store, "v1", "hub_v1", content(["a", "b", "c/1"]).sample, ())
    assert (refused.value.code, refused.value.hint) == ("object-archived", "restore it")


async def test_a_manifest_that_is_archived_says_so_by_its_code() -> None:
    class Archived(Store):
        async def list_bucket(self, directory: str, *, recursive: bool = False) -> list[BucketEntry]:
            return [BucketEntry(f"{directory}/{NAME}", NAME, 1, False)]

        async def size(self, path: str) -> int | None:
            return 1

        async def save(self, path: str, to: Path) -> None:
            raise RemoteError("it is archived", hint="restore it", code="object-archived")

    with pytest.raises(Refused) as refused:
        await inspect(Archived(NAME), Layout("hub_{version}"), "v1", ())
    assert (refused.value.code, refused.value.hint) == ("object-archived", "restore it")
