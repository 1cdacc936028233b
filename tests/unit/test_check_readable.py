"""Which files of a version the store is asked for before it goes live, and what is said of those that it refuses."""

from __future__ import annotations

import pytest

from mountd.errors import DiskError, Refused, RemoteError
from mountd.model.content import MOST_TOUCHES, Content, check_readable, inspect
from mountd.model.layout import Layout
from mountd.model.manifest import NAME, Manifest
from mountd.rclone.keys import BucketEntry
from tests.support.memory_disk import MemoryDisk


class Store(MemoryDisk):
    """`archived` are paths that it does not give."""

    def __init__(self, *archived: str) -> None:
        super().__init__()
        self.archived = archived
        self.asked: list[str] = []

    async def why_unreadable(self, path: str) -> RemoteError | None:
        self.asked.append(path.removeprefix("hub_v1/"))
        archived = RemoteError("it is archived", hint="restore it", code="object-archived")
        return archived if self.asked[-1] in self.archived else None


def content(*paths: str, manifested: bool = True) -> Content:
    files = {path: 0 if path.endswith("empty") else 1 for path in paths}
    return Content("v1", "hub_v1", files, "", manifested, (), Manifest("v1", files) if manifested else None)


MANY = [f"d{number % 3}/{number:03d}" for number in range(MOST_TOUCHES + 50)]


@pytest.mark.parametrize(
    ("version", "required", "asked"),
    [
        (content("a", "b"), (), ["a", "b"]),
        (content("a", "b"), ("b",), ["b", "a"]),
        (content("a", "b", manifested=False), ("b",), ["b"]),
        (content("a", "b", manifested=False), (), []),
        (content("a", "empty"), ("empty",), ["a"]),  # there is nothing to give of it
        (content("a"), ("missing",), ["a"]),
        (content("a/1", "a/2", "b/1", "c"), (), ["a/1", "b/1", "c", "a/2"]),
        (content(*MANY), ("d2/248",), ["d2/248", "d0/000", "d1/001", "d2/002", *MANY[3 : MOST_TOUCHES - 1]]),
    ],
    ids=["all", "required-first", "no-manifest", "nothing", "empty", "missing", "a-directory-each", "many"],
)
async def test_which_files_are_asked_for(version: Content, required: tuple[str, ...], asked: list[str]) -> None:
    store = Store()
    await check_readable(store, version, required)
    assert store.asked == asked
    assert len(asked) <= MOST_TOUCHES


async def test_those_that_cannot_be_read_are_named() -> None:
    store = Store("a", "c/1")
    with pytest.raises(Refused, match=r" v1: a: .*; c/1: [^;]*$") as refused:
        await check_readable(store, content("a", "b", "c/1"), ())
    assert (refused.value.code, refused.value.hint) == ("object-archived", "restore it")


async def test_a_manifest_that_is_archived_says_so_by_its_code() -> None:
    class Archived(Store):
        async def list_bucket(self, directory: str, *, recursive: bool = False) -> list[BucketEntry]:
            return [BucketEntry(f"{directory}/{NAME}", NAME, 1, False)]

        async def read(self, path: str, length: int, *, offset: int = 0) -> bytes:
            raise DiskError("cannot read it: input/output error")

    with pytest.raises(Refused) as refused:
        await inspect(Archived(NAME), Layout("hub_{version}"), "v1", ())
    assert (refused.value.code, refused.value.hint) == ("object-archived", "restore it")
