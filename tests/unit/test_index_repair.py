"""The index of a cache on disk that no rclone uses: what is compared, kept, extended or dropped, and what is noted."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from mountd.cache import digests, extents, index_repair, stamps
from mountd.cache import index as index_module
from mountd.cache.index import CacheIndex
from mountd.cache.index_repair import RepairedIndex, Stopped, repair, stamp
from mountd.cache.reindex import BUFFERED, Ranges
from mountd.cache.stamps import Stamp
from mountd.errors import CannotStart, Exhausted, MountdError
from mountd.settings.schema import MountSettings
from tests.support.vfs_cache import keep_digests, put
from tests.support.wait import until

SOON_S = 60.0


@pytest.fixture(autouse=True)
def _patient() -> Iterator[None]:
    """A busy disk needs longer than what the product waits for it."""
    with pytest.MonkeyPatch.context() as patched:  # of its own: a test may undo what it has patched
        for name in ("STAMP_LIMIT_S", "DURABLE_LIMIT_S", "LAST_STAMP_LIMIT_S", "KEEP_LIMIT_S", "SETTLE_LIMIT_S"):
            patched.setattr(index_module, name, SOON_S)
        yield


GOOD, BAD = b"a" * 64, b"b" * 64
SHA = hashlib.sha256(GOOD).hexdigest()
NAME = "s/b/v1/m.bin"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path


def cached(cache: Path, name: str = NAME, data: bytes = GOOD, *, index: object = "whole", dirty: bool = False) -> None:
    parts = [{"Pos": 0, "Size": len(data)}] if index == "whole" else index
    record = {"Size": len(data), "Rs": parts, "Fingerprint": f"{len(data)},x", "Dirty": dirty}
    put(cache, name, dirty=dirty, data=data, text=json.dumps(record))


def know(cache: Path, size: int = len(GOOD), sha256: str = SHA) -> None:
    keep_digests(cache, "v1", {"m.bin": (size, sha256)})


def fix(cache: Path, **ways: Any) -> RepairedIndex:
    return repair(cache, ways.pop("writes_back", False), ways.pop("may_guess", True), **ways)


def left(cache: Path) -> list[str]:
    found = [sorted(str(p.relative_to(cache / d)) for p in (cache / d).rglob("*.bin")) for d in ("vfs", "vfsMeta")]
    assert found[0] == found[1], "data and metadata go together"
    return found[0]


def change(cache: Path, data: bytes, name: str = NAME) -> None:
    (cache / "vfs" / name).write_bytes(data)


def stamp_of(cache: Path, name: str = NAME) -> Stamp:
    found = stamps.read(cache)
    assert found is not None
    return found.files[name]


# -- what is compared -------------------------------------------------------------------------------------------------


def test_a_cache_of_before_mountd_is_compared_where_there_are_digests(cache: Path) -> None:
    cached(cache)
    cached(cache, "s/b/v1/other.bin")
    know(cache)
    done = fix(cache)
    assert (done.verified, done.hashed_bytes, done.wrong, done.unproven) == (1, len(GOOD), [], [])
    assert left(cache) == [NAME, "s/b/v1/other.bin"]
    assert stamp_of(cache).is_proven
    assert not stamp_of(cache, "s/b/v1/other.bin").is_proven
    again = fix(cache)
    assert (again.verified, again.hashed_bytes) == (0, 0), "once is enough"


def test_wrong_bytes_are_dropped(cache: Path) -> None:
    cached(cache, data=BAD)
    cached(cache, "s/b/v1/other.bin")
    know(cache)
    assert fix(cache).wrong == [NAME]
    assert left(cache) == ["s/b/v1/other.bin"]
    found = stamps.read(cache)
    assert found is not None
    assert list(found.files) == ["s/b/v1/other.bin"]


def test_a_manifest_in_the_cache_has_digests_as_well(cache: Path) -> None:
    cached(cache, data=BAD)
    manifest = json.dumps({"files": [{"path": "m.bin", "size": len(BAD), "sha256": SHA}]}).encode()
    cached(cache, "s/b/v1/MANIFEST.json", manifest)
    assert fix(cache).wrong == [NAME]


@pytest.mark.parametrize(
    ("data", "known", "result"),
    [(GOOD, True, (1, 0, 0)), (BAD, True, (0, 1, 0)), (GOOD, False, (0, 0, 1))],
    ids=["good", "bad", "unknown"],
)
def test_what_somebody_has_changed_needs_a_digest(
    cache: Path, data: bytes, known: bool, result: tuple[int, int, int]
) -> None:
    cached(cache)
    stamp(cache, None)
    change(cache, data)
    if known:
        know(cache)
    done = fix(cache)
    assert (done.verified, len(done.wrong), len(done.unproven)) == result
    assert left(cache) == ([NAME] if done.verified else [])


def test_what_waits_for_its_upload_is_never_touched(cache: Path) -> None:
    cached(cache, data=BAD, dirty=True)
    know(cache)
    assert fix(cache, writes_back=True) == RepairedIndex()
    assert left(cache) == [NAME]


@pytest.mark.parametrize("is_changed", [False, True])
def test_what_there_is_no_time_to_compare(cache: Path, monkeypatch: pytest.MonkeyPatch, is_changed: bool) -> None:
    monkeypatch.setattr(index_repair, "HASH_S", -1.0)
    cached(cache)
    know(cache)
    if is_changed:
        stamp(cache, None)
        change(cache, GOOD)
    done = fix(cache)
    assert (done.verified, done.wrong) == (0, [])
    assert done.unproven == ([NAME] if is_changed else []), "else it is as trusted as it was"
    assert left(cache) == ([] if is_changed else [NAME])
    monkeypatch.undo()
    assert fix(cache).verified == (0 if is_changed else 1), "there is time now"


def test_a_file_that_is_written_meanwhile_is_not_proven(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached(cache)
    know(cache)

    def sha256() -> Any:
        os.utime(cache / "vfs" / NAME, ns=(5, 5))
        return hashlib.new("sha256")

    monkeypatch.setattr(hashlib, "sha256", sha256)
    assert fix(cache).unproven == [NAME]


# -- what is extended -------------------------------------------------------------------------------------------------

LARGE = BUFFERED * 2


@pytest.fixture
def holes(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of which a killed rclone has noted nothing, on a file system that says it is all there."""

    def whole(_: int, size: int) -> Ranges:
        return ((0, size),)

    def filled(_: int, given: Ranges, deadline: float, check: Callable[[], None]) -> Ranges:
        return given

    monkeypatch.setattr(extents, "finest", lambda _: 4096)
    monkeypatch.setattr(extents, "extents", whole)
    monkeypatch.setattr(extents, "filled", filled)
    cached(cache)
    fix(cache)  # from here on an rclone runs
    cached(cache, "s/b/v1/new.bin", b"c" * LARGE, index=None)
    return cache


def index_of(cache: Path, name: str) -> int:
    parts = json.loads((cache / "vfsMeta" / name).read_text())["Rs"] or []
    return sum(each["Size"] for each in parts)


def test_what_lies_there_need_not_be_fetched_again_and_is_noted_as_a_guess(holes: Path) -> None:
    assert fix(holes).extended == 1
    assert 0 < index_of(holes, "s/b/v1/new.bin") < LARGE
    assert stamp_of(holes, "s/b/v1/new.bin").is_guessed
    assert not stamp_of(holes).is_guessed


@pytest.mark.parametrize("ways", [{"may_guess": False}, {"writes_back": True}])
def test_where_parts_of_pages_are_written_nothing_is_guessed(holes: Path, ways: dict[str, bool]) -> None:
    assert fix(holes, **ways).extended == 0


def test_where_a_guess_cannot_be_noted_there_is_none(holes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(number: int) -> Callable[..., None]:
        def write(*_: object, **__: object) -> None:
            raise OSError(number, os.strerror(number))

        return write

    monkeypatch.setattr(stamps, "write", fail(errno.ENOSPC))
    assert fix(holes).extended == 0
    assert index_of(holes, "s/b/v1/new.bin") == 0
    monkeypatch.setattr(stamps, "write", fail(errno.EIO))
    with pytest.raises(OSError, match="put"):
        fix(holes)


def test_with_a_digest_it_is_proven_and_whole(holes: Path) -> None:
    keep_digests(holes, "v1", {"new.bin": (LARGE, hashlib.sha256(b"c" * LARGE).hexdigest())})
    done = fix(holes)
    assert (done.verified, done.extended) == (1, 1)
    assert index_of(holes, "s/b/v1/new.bin") == LARGE


# -- what is noted ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("durable_s", "kept"), [(5.0, True), (0.0, False), (None, False)])
def test_after_a_loss_of_power_only_what_was_on_disk_is_trusted(
    cache: Path, monkeypatch: pytest.MonkeyPatch, durable_s: float | None, kept: bool
) -> None:
    cached(cache)
    stamp(cache, durable_s)
    assert stamp_of(cache).is_durable is kept
    monkeypatch.setattr(stamps, "boot_id", lambda: "another")
    assert fix(cache).unproven == ([] if kept else [NAME])


def test_a_stamp_says_whether_an_rclone_runs(cache: Path) -> None:
    cached(cache)
    for look, running in ((lambda: fix(cache), True), (lambda: stamp(cache, None), False)):
        look()
        found = stamps.read(cache)
        assert found is not None
        assert found.running is running


def test_a_pass_that_is_stopped_changes_nothing(cache: Path) -> None:
    cached(cache, data=BAD)
    know(cache)
    for work in (lambda: fix(cache, is_stopped=lambda: True), lambda: stamp(cache, 5.0, lambda: True)):
        with pytest.raises(Stopped):
            work()
    assert (left(cache), stamps.read(cache)) == ([NAME], None)


# -- of a mount -------------------------------------------------------------------------------------------------------


def mount(cache: Path) -> MountSettings:
    return MountSettings.model_validate({"remote": "s:b", "path": "/m", "cache": {"dir": cache}})


def known(cache: Path) -> list[Path]:
    return [*(cache / "digests").glob("*.json")]


async def test_only_where_an_rclone_has_used_the_cache_something_is_noted(cache: Path) -> None:
    cached(cache)
    index, document = CacheIndex("m"), cache / "document"
    document.write_text("{}")
    await index.know("v1", document, "a")
    await index.after_stop(is_last=True)
    assert (known(cache), stamps.read(cache)) == ([], None)
    await index.repair(mount(cache))
    await index.know("v1", document, "a")
    assert len(known(cache)) == 1
    await index.after_stop(is_last=False)
    assert not (await asyncio.to_thread(stamp_of, cache)).is_durable
    await index.know("v2", document, "a")
    assert len(known(cache)) == 1, "no rclone uses it now"
    await index.repair(mount(cache))
    await index.after_stop(is_last=True)
    assert (await asyncio.to_thread(stamp_of, cache)).is_durable


async def test_what_a_manifest_says_is_written_once_for_each_rclone(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[str] = []
    monkeypatch.setattr(digests, "keep", lambda _, directory, document: kept.append(directory))
    index, document = CacheIndex("m"), cache / "document"
    await index.repair(mount(cache))
    for directory, mark in (("v1", "a"), ("v1", "a"), ("v2", "a"), ("v1", "b")):
        await index.know(directory, document, mark)
    assert kept == ["v1", "v2", "v1"]
    await index.repair(mount(cache))
    await index.know("v1", document, "b")
    assert kept == ["v1", "v2", "v1", "v1"]


async def test_what_cannot_be_read_is_given_up_only_when_that_lasts(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached(cache)
    (cache / "digests" / "x.json").mkdir(parents=True)
    index = CacheIndex("m")
    with pytest.raises(CannotStart) as refused:
        await index.repair(mount(cache))
    assert refused.value.code == "cache-broken"
    monkeypatch.setattr(index_module, "UNREADABLE_S", 0.0)
    await index.repair(mount(cache))
    assert left(cache) == [NAME]
    monkeypatch.undo()
    with pytest.raises(CannotStart):
        await CacheIndex("m").repair(mount(cache))


@pytest.mark.parametrize(
    ("error", "kind", "code", "tries"),
    [
        (OSError(errno.ENOMEM, "no memory"), Exhausted, "no-memory", [{}]),
        (OSError(errno.EIO, "input/output error"), CannotStart, "cache-broken", [{}, {"lenient": True}]),
    ],
)
async def test_what_the_machine_lacks_makes_nothing_unreadable(
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: OSError,
    kind: type[MountdError],
    code: str,
    tries: list[dict[str, bool]],
) -> None:
    monkeypatch.setattr(index_module, "UNREADABLE_S", 0.0)
    tried: list[dict[str, bool]] = []

    def fail(*_: object, **ways: bool) -> None:
        tried.append(ways)
        raise error

    monkeypatch.setattr(index_module, "repair", fail)
    with pytest.raises(kind) as refused:
        await CacheIndex("m").repair(mount(cache))
    assert (refused.value.code, tried) == (code, tries)


async def test_a_disk_that_does_not_answer_starts_no_rclone(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "REPAIR_LIMIT_S", 0.0)
    with pytest.raises(CannotStart) as refused:
        await CacheIndex("m").repair(mount(cache))
    assert refused.value.code == "cache-silent"


async def test_a_cache_that_is_left_to_others_is_worked_in_no_more(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, given_back = threading.Event(), list[str]()

    def work(_: Path, writes_back: bool, may_guess: bool, is_stopped: Callable[[], bool]) -> RepairedIndex:
        begun.set()
        until(is_stopped, SOON_S, "the work to be stopped")
        return RepairedIndex()

    with monkeypatch.context() as patched:
        patched.setattr(index_module, "repair", work)
        index = CacheIndex("m")
        repairing = asyncio.create_task(index.repair(mount(cache)))
        await asyncio.to_thread(begun.wait)
        await index.settle(lambda: given_back.append("lock"))
        assert given_back == ["lock"]
        await repairing
    index.forget()
    await index.after_stop(is_last=True)
    assert stamps.read(cache) is None
    await index.repair(mount(cache))
    assert (await asyncio.to_thread(stamps.read, cache)) is not None, "it can be used again"


async def test_what_was_done_is_logged(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = RepairedIndex(1, 2, 3, ["w"], ["u"])
    monkeypatch.setattr(index_module, "repair", lambda *_: found)
    with capture_logs() as logs:
        await CacheIndex("m").repair(mount(cache))
    assert [(each["log_level"], each.get("names"), each.get("files")) for each in logs] == [
        ("info", None, 1),
        ("warning", ["w"], None),
        ("warning", ["u"], None),
    ]
