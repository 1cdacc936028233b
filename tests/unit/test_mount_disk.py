"""A mount as a disk: what it leaves out because it cannot be a path, when that is shown again, and what it asks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from mountd.errors import Refused, RemoteError, Unavailable
from mountd.mount import disk as disk_module
from mountd.mount.disk import SMALL_LISTING_BYTES, SMALL_LISTING_S, MountDisk
from mountd.rclone.keys import EXCLUDED, LONG, SHADOWS
from mountd.rclone.rc import AnswerTooLarge
from mountd.warm.plan import WantedFile
from mountd.warm.results import FetchResult, FileFault
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


# -- small listings, single files, and the cache ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "took_s", "raises"),
    [
        (AnswerTooLarge("too large"), 0.0, False),
        (RemoteError("no answer", code="bucket-slow"), SMALL_LISTING_S, False),
        (RemoteError("no", code="access-denied"), SMALL_LISTING_S - 0.1, True),
        (Unavailable("rclone does not answer"), SMALL_LISTING_S, True),
    ],
)
async def test_a_listing_that_is_not_worth_waiting_for(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, error: Exception, took_s: float, raises: bool
) -> None:
    disk, now = disk_of(fake), 0.0

    async def answer(*_: object, **named: Any) -> list[object]:
        nonlocal now
        assert (named["timeout_s"], named["most_bytes"]) == (SMALL_LISTING_S, SMALL_LISTING_BYTES)
        now += took_s
        raise error

    monkeypatch.setattr(disk_module, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(fake[1], "list", answer)
    if raises:
        with pytest.raises(type(error)):
            await disk.small_listing("v1")
    else:
        assert await disk.small_listing("v1") is None


async def test_what_is_remembered_of_keys_that_cannot_be_paths_is_bounded(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_module, "MOST_IGNORED", 2)
    rclone, disk = fake[0], disk_of(fake)
    names = ["n" * 256, "o" * 256, "p" * 256]
    with capture_logs() as logs:
        for _ in range(2):
            await listed(disk, rclone, [{"Path": f"v1/{name}", "Name": name, "Size": 1} for name in names])
    assert list(disk.ignored) == [f"v1/{name}" for name in names[:2]]
    assert [each["log_level"] for each in logs] == ["warning"], "what is known is not logged again"


async def test_a_directory_is_looked_at_before_its_listing_is_loaded(fake: Fake) -> None:
    """An object of the same name would take its place."""
    rclone, disk = fake[0], disk_of(fake)
    rclone.answers |= {"vfs/refresh": {"result": {"v1": "OK"}}, "operations/list": {"list": BOTH}}
    seen = await disk.refresh("v1")
    assert [method for method, _ in rclone.asked] == ["operations/list", "options/set", "vfs/refresh"]
    rclone.asked.clear()
    await disk.refresh("v1", recursive=True)
    assert rclone.asked == [("vfs/refresh", {"dir": "v1", "recursive": "true"})]
    assert seen == await disk.small_listing("v1")


@pytest.mark.parametrize(("code", "own"), [("object-archived", True), ("bucket-unreachable", False)])
async def test_why_a_file_cannot_be_read(fake: Fake, monkeypatch: pytest.MonkeyPatch, code: str, own: bool) -> None:
    disk, error = disk_of(fake), RemoteError("no", code=code)

    async def read_byte(fs: str, path: str, timeout_s: float) -> None:
        assert fs == "store:bkt"
        if path == "v1/a":
            raise error

    monkeypatch.setattr(fake[1], "read_byte", read_byte)
    if own:
        assert await disk.why_unreadable("v1/a") is error
    else:
        with pytest.raises(RemoteError):
            await disk.why_unreadable("v1/a")
    assert await disk.why_unreadable("v1/b") is None


@pytest.mark.parametrize("keeps", [True, False])
async def test_a_cache_that_keeps_nothing_can_hold_any_version(fake: Fake, keeps: bool) -> None:
    disk = disk_of(fake)

    async def could_hold() -> int:
        return 7

    cast(Any, disk).engine.keeps_what_is_read = keeps
    cast(Any, disk).cache = SimpleNamespace(could_hold=could_hold)
    assert await disk.cache_could_hold() == (7 if keeps else None)


class Fetch:
    """In place of one past the mount: what it brings of each file."""

    def __init__(self, into: Path, files: Sequence[WantedFile], faults: tuple[FileFault, ...]) -> None:
        self._into, self._files, self._faults = into, files, faults

    async def run(self) -> FetchResult:
        for file in () if self._faults else self._files:
            await asyncio.to_thread((self._into / str(file.sha256)).write_bytes, RIGHT)
        return FetchResult(0, self._faults)


RIGHT, FILE = b"right", WantedFile("a.pth", 5, "a" * 64)


@pytest.mark.parametrize("faults", [(), (FileFault("a.pth", "digest-differs", "its sha256 is another"),)])
async def test_wrong_bytes_in_the_cache_are_put_right_from_the_bucket(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faults: tuple[FileFault, ...]
) -> None:
    rclone, disk = fake[0], disk_of(fake)
    cached, metadata = tmp_path / "vfs/r/v1/a.pth", str(tmp_path / "vfsMeta/r")
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"wrong")
    stats = {"files": 1, "bytesUsed": 5, "uploadsQueued": 0, "uploadsInProgress": 0, "pathMeta": metadata}
    rclone.answers["vfs/stats"] = {"metadataCache": {"files": 1}, "diskCache": stats}
    cast(Any, disk).engine.mount.cache = SimpleNamespace(dir=tmp_path)

    def fetch(_: MountDisk, directory: str, files: Sequence[WantedFile], into: Path, **__: object) -> Fetch:
        assert (directory, into.parent, into.stat().st_mode & 0o777) == ("v1", tmp_path, 0o700)
        return Fetch(into, files, faults)

    monkeypatch.setattr(MountDisk, "fetch_into", fetch)
    with capture_logs() as logs:
        if faults:
            with pytest.raises(Refused) as refused:
                await disk.restore("v1", [FILE], lambda _: None)
            assert refused.value.code == "digest-differs"
        else:
            await disk.restore("v1", [FILE], lambda _: None)
    assert cached.read_bytes() == (b"wrong" if faults else RIGHT)
    assert [(each["path"], each["bytes"]) for each in logs] == ([] if faults else [("a.pth", 5)])
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("restore-")] == []
    rclone.answers["vfs/stats"] = {"metadataCache": {"files": 1}}
    await disk.restore("v1", [FILE], lambda _: None)


async def test_a_disk_that_does_not_take_what_is_put_right(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = disk_of(fake)

    def fail() -> None:
        raise OSError(5, "input/output error")

    with pytest.raises(Unavailable, match="input/output error"):
        await disk._on_disk(fail)
    monkeypatch.setattr(disk_module, "RESTORE_TIMEOUT_S", 0.0)
    with pytest.raises(Unavailable):
        await disk._on_disk(lambda: None)


async def test_what_is_touched_lies_below_the_mount_point(fake: Fake, tmp_path: Path) -> None:
    disk, touched = disk_of(fake), list[object]()

    async def note(path: object, *_: object, **__: object) -> None:
        touched.append(path)

    cast(Any, disk).files = SimpleNamespace(walk=note, stat=note, read=note, hash=note)
    await disk.walk("v1", tmp_path)
    await disk.stat(["v1/a", "v1/b"])
    await disk.read("v1/a", 5)
    await disk.hash("v1/a", lambda _: None)
    assert touched == ["/mnt/v1", ["/mnt/v1/a", "/mnt/v1/b"], "/mnt/v1/a", "/mnt/v1/a"]
