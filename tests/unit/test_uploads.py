"""The uploads of a mount from one rclone to the next: what a previous run left is made readable, what fails is
reported, what a stop leaves is named. The cache is real, rclone's queue a stand-in."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
from structlog.testing import capture_logs

from mountd.cache import reopen, uploads
from mountd.cache.reopen import HOLD_S
from mountd.cache.upload_state import Pending
from mountd.cache.uploads import Uploads
from mountd.errors import CannotStart, DiskError, MountdError, RemoteError, Unavailable
from mountd.files.client import Files
from mountd.rclone.rc import RcClient, Upload
from mountd.rclone.stats import DiskCacheStats, VfsStats
from mountd.settings.schema import MountSettings
from mountd.status.snapshot import MountStatus
from tests.support.vfs_cache import put
from tests.support.wait import until_async

SOON_S = 30.0
FAILED = "a.wav: vfs cache: failed to upload try #{}, will retry in 1m0s: connection refused"


class Rclone:
    """Its queue, by name; what was asked of it; and the files that can be read through its mount."""

    reopens = False

    def __init__(self, cache: Path, **mount: object) -> None:
        self.cache = cache
        self.queue: dict[str, Upload] = {}
        self.looks = 0
        self.asked: list[tuple[str, object]] = []
        self.contents: dict[str, bytes | DiskError] = {}
        self.refresh_error: RemoteError | None = None
        self.shown: list[MountStatus] = []
        self.hear: Callable[[str], None]
        self.uploads = Uploads("m", self.settings(**mount), self, self._publish)

    def settings(self, **mount: object) -> MountSettings:
        given = {"remote": "s:b", "path": "/m", "profile": "outputs", "cache": {"dir": self.cache}}
        return MountSettings.model_validate({**given, **mount})

    def _publish(self, change: Callable[[MountStatus], MountStatus]) -> None:
        self.shown.append(change(MountStatus("/m", "s:b")))

    @property
    def rc(self) -> RcClient:
        return cast(RcClient, self)

    def follow(self, follower: Callable[[str], None]) -> None:
        self.hear = follower

    def waits(self, name: str, due_s: float, *, uploading: bool = False) -> None:
        self.queue[name] = Upload(len(self.queue), name, due_s, uploading)

    async def vfs_queue(self) -> list[Upload]:
        self.looks += 1
        return [*self.queue.values()]

    async def vfs_upload_in(self, upload: int, delay_s: float) -> None:
        name = self._name(upload)
        self.asked.append((f"in {delay_s:g}", name))
        self.queue[name] = Upload(upload, name, delay_s, False)

    async def vfs_upload_now(self, upload: int) -> None:
        name = self._name(upload)
        self.asked.append(("now", name))
        del self.queue[name]

    def _name(self, upload: int) -> str:
        return next(each.name for each in self.queue.values() if each.id == upload)

    async def vfs_refresh(self, directory: str) -> None:
        self.asked.append(("refresh", directory))
        if self.refresh_error is not None:
            raise self.refresh_error

    async def read(self, path: str, *, offset: int, length: int, timeout_s: float) -> bytes:
        name = path.removeprefix("/m/")
        self.asked.append(("read", name))
        content = self.contents[name]
        if isinstance(content, DiskError):
            raise content
        if name in self.queue:  # rclone counts from its close again
            self.queue[name] = Upload(self.queue[name].id, name, 5.0, False)
        return content[offset : offset + length]

    def stats(self, uploads: int) -> VfsStats:
        return VfsStats(DiskCacheStats(0, 0, uploads, str(self.cache / "vfsMeta" / "s" / "b")))

    async def vfs_stats(self, timeout_s: float) -> VfsStats:
        return self.stats(len(self.queue))

    def starts(self, *, uploads: int = 0) -> None:
        self.uploads.noticed(self.stats(uploads))

    async def reopen(self) -> None:
        async with asyncio.timeout(SOON_S):
            await self.uploads.reopen("/m", cast(Files, self))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reopen, "POLL_S", 0.001)
    # The disk may be busy.
    monkeypatch.setattr(reopen, "LOOK_LIMIT_S", 60.0)
    for name in ("LOOK_LIMIT_S", "SCAN_LIMIT_S"):
        monkeypatch.setattr(uploads, name, 60.0)


@pytest.fixture
def rclone(tmp_path: Path) -> Rclone:
    return Rclone(tmp_path)


async def left_behind(rclone: Rclone, *names: str, data: bytes = b"12345") -> None:
    """By a previous run; then an rclone starts."""
    for name in names:
        put(rclone.cache, f"s/b/{name}", dirty=True, data=data)
    await rclone.uploads.repair()
    rclone.starts()


# -- a start ----------------------------------------------------------------------------------------------------------


async def test_what_a_previous_run_left_is_put_off_read_and_uploaded(rclone: Rclone) -> None:
    put(rclone.cache, "s/former/c.wav", dirty=True)  # of another bucket: this rclone does not upload it
    await left_behind(rclone, "a.wav", "d/b.wav")
    assert rclone.reopens
    rclone.waits("a.wav", 15.0)
    rclone.waits("d/b.wav", 15.0)
    rclone.waits("other", 15.0)
    rclone.contents = {"a.wav": b"12345", "d/b.wav": b"12345"}
    await rclone.uploads.hold()
    put_off = f"in {HOLD_S:g}"
    assert rclone.asked == [(put_off, "a.wav"), (put_off, "d/b.wav")]
    rclone.asked.clear()
    await rclone.reopen()
    assert rclone.asked == [("read", "a.wav"), ("read", "d/b.wav"), ("now", "a.wav"), ("now", "d/b.wav")]
    codes = [status.reason.code for status in rclone.shown if status.reason]
    assert codes == ["reopening"], "once"
    rclone.asked.clear()
    await rclone.reopen()
    assert rclone.asked == []


async def test_an_upload_that_began_too_early_is_waited_for(rclone: Rclone) -> None:
    await left_behind(rclone, "d/a.wav")
    rclone.waits("d/a.wav", -1.0, uploading=True)
    await rclone.uploads.hold()
    reopening = asyncio.create_task(rclone.reopen())
    await until_async(lambda: rclone.looks >= 4, SOON_S, "a few looks at the queue")
    assert (rclone.asked, len(rclone.shown), reopening.done()) == ([], 1, False)
    rclone.queue.clear()
    await reopening
    assert rclone.asked == [("refresh", "d")]


async def test_one_that_was_uploaded_meanwhile_is_listed_again(rclone: Rclone) -> None:
    await left_behind(rclone, "d/a.wav", "d/b.wav")
    await rclone.uploads.hold()
    await rclone.reopen()
    assert rclone.asked == [("refresh", "d")]


async def test_one_whose_content_rclone_has_lost_needs_another_start(rclone: Rclone) -> None:
    await left_behind(rclone, "d/a.wav")
    await rclone.uploads.hold()
    put(rclone.cache, "s/b/d/a.wav", dirty=False, data=b"")
    with pytest.raises(CannotStart) as refused:
        await rclone.reopen()
    assert (refused.value.code, refused.value.retry_s) == ("content-lost", 0.0)


async def test_one_that_is_read_as_empty_needs_another_start(rclone: Rclone) -> None:
    await left_behind(rclone, "a.wav")
    rclone.waits("a.wav", 15.0)
    rclone.contents = {"a.wav": b""}
    await rclone.uploads.hold()
    with pytest.raises(CannotStart) as refused:
        await rclone.reopen()
    assert refused.value.code == "content-lost"


async def test_one_without_an_entry_in_the_mount_is_uploaded_and_listed(rclone: Rclone) -> None:
    await left_behind(rclone, "d/a.wav")
    rclone.waits("d/a.wav", 15.0)
    rclone.contents = {"d/a.wav": DiskError("not there", errno=errno.ENOENT)}
    await rclone.uploads.hold()
    rclone.asked.clear()
    await rclone.reopen()
    assert rclone.asked == [("read", "d/a.wav"), ("now", "d/a.wav"), ("refresh", "d")]


async def test_one_that_cannot_be_read_is_tried_again(rclone: Rclone) -> None:
    await left_behind(rclone, "a.wav")
    rclone.waits("a.wav", 15.0)
    rclone.contents = {"a.wav": DiskError("input/output error", errno=errno.EIO)}
    await rclone.uploads.hold()
    with pytest.raises(DiskError):
        await rclone.reopen()
    rclone.contents = {"a.wav": b"12345"}
    await rclone.reopen()
    assert rclone.queue == {}


async def test_an_empty_file_is_uploaded_at_once(rclone: Rclone) -> None:
    await left_behind(rclone, "d/a.wav", data=b"")
    rclone.waits("d/a.wav", 15.0)
    await rclone.uploads.hold()
    assert rclone.asked == [], "no read would help"
    put(rclone.cache, "s/b/d/a.wav", dirty=False, data=b"")  # as it is once it was uploaded: nothing is lost
    await rclone.reopen()
    assert rclone.asked == [("now", "d/a.wav"), ("refresh", "d")]


@pytest.mark.parametrize(("code", "is_done"), [("directory-missing", True), ("bucket-unreachable", False)])
async def test_a_listing_that_fails(rclone: Rclone, code: str, is_done: bool) -> None:
    await left_behind(rclone, "d/a.wav")
    await rclone.uploads.hold()
    rclone.refresh_error = RemoteError("no", code=code)
    if not is_done:
        with pytest.raises(RemoteError):
            await rclone.reopen()
        rclone.refresh_error = None
    await rclone.reopen()
    assert len(rclone.asked) == (1 if is_done else 2)


async def test_uploads_that_never_finish_need_another_start(rclone: Rclone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reopen, "LIMIT_S", 0.0)
    await left_behind(rclone, "a.wav")
    rclone.waits("a.wav", -1.0, uploading=True)
    await rclone.uploads.hold()
    with pytest.raises(CannotStart) as refused:
        await rclone.reopen()
    assert (refused.value.code, refused.value.retry_s) == ("uploads-stuck", 0.0)


async def test_an_rclone_that_does_not_answer_yet_holds_up_no_start(
    rclone: Rclone, monkeypatch: pytest.MonkeyPatch
) -> None:
    await left_behind(rclone, "a.wav")

    async def silent() -> list[Upload]:
        raise Unavailable("rclone does not answer")

    with monkeypatch.context() as patched:
        patched.setattr(rclone, "vfs_queue", silent)
        await rclone.uploads.hold()
        with pytest.raises(Unavailable):
            await rclone.reopen()
    await rclone.reopen()
    assert rclone.asked == [("refresh", "")]


async def test_what_a_repair_did_is_logged_and_what_it_set_aside_is_an_error(rclone: Rclone) -> None:
    put(rclone.cache, "s/b/torn", dirty=True, text='{"Dir')
    put(rclone.cache, "s/b/hole", dirty=True, text="{")
    await asyncio.to_thread(os.truncate, rclone.cache / "vfs/s/b/hole", 10 << 20)
    put(rclone.cache, "s/b/lost", dirty=False, data=b"", text='{"Dirty": false, "Size": 0, "Fingerprint": "9,x"}')
    with capture_logs() as logs:
        await rclone.uploads.repair()
    assert [(each["log_level"], each.get("names", each.get("files"))) for each in logs] == [
        ("info", 1),
        ("warning", ["s/b/torn"]),
        ("warning", ["s/b/lost"]),
        ("error", ["s/b/hole"]),
    ]
    with capture_logs() as logs:
        await Rclone(rclone.cache / "unused").uploads.repair()
    assert logs == []


@pytest.mark.parametrize("error", [OSError(errno.EIO, "input/output error"), TimeoutError()])
async def test_a_disk_that_fails_starts_no_rclone(
    rclone: Rclone, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    def fail(_: Path) -> None:
        raise error

    monkeypatch.setattr(uploads, "repair", fail)
    with pytest.raises(MountdError) as refused:
        await rclone.uploads.repair()
    assert refused.value.code == ("cache-silent" if isinstance(error, TimeoutError) else "cache-broken")
    await Rclone(rclone.cache, profile="model-hub").uploads.repair()


# -- while it runs ----------------------------------------------------------------------------------------------------


def trouble(rclone: Rclone) -> str:
    return rclone.uploads.trouble.code if rclone.uploads.trouble else ""


async def test_uploads_that_fail_are_trouble_until_one_succeeds_or_none_waits(rclone: Rclone) -> None:
    rclone.starts(uploads=1)
    rclone.hear(FAILED.format(2))
    assert trouble(rclone) == ""
    rclone.hear(FAILED.format(3))
    assert trouble(rclone) == "uploads-failing"
    rclone.hear("a.wav: vfs cache: upload succeeded try #4")
    assert trouble(rclone) == ""
    rclone.hear(FAILED.format(3))
    rclone.uploads.noticed(VfsStats(None))
    assert trouble(rclone) == "uploads-failing", "that says nothing of uploads"
    rclone.starts(uploads=0)
    rclone.starts(uploads=1)
    assert trouble(rclone) == "", "others wait now"
    rclone.hear(FAILED.format(3))
    rclone.uploads.begin(rclone.settings())
    rclone.starts(uploads=1)
    assert trouble(rclone) == "", "another rclone"


async def test_files_of_a_former_configuration_are_reported_once_for_each_rclone(rclone: Rclone) -> None:
    put(rclone.cache, "former/b/a.wav", dirty=True)
    put(rclone.cache, "s/b/a.wav", dirty=True)
    with capture_logs() as logs:
        await rclone.uploads.report_stranded()
        assert logs == [], "where rclone keeps its own is not known yet"
        rclone.starts()
        await rclone.uploads.report_stranded()
        await rclone.uploads.report_stranded()
    assert [(each["files"], each["names"]) for each in logs] == [(1, ["former/b/a.wav"])]
    rclone.uploads.begin(rclone.settings(profile="model-hub"))
    rclone.starts()
    with capture_logs() as logs:
        await rclone.uploads.report_stranded()
    assert logs == [], "it writes nothing"


# -- a stop -----------------------------------------------------------------------------------------------------------


async def test_what_a_stop_left_is_named_once(rclone: Rclone) -> None:
    put(rclone.cache, "s/b/a.wav", dirty=True)
    rclone.starts()
    await rclone.uploads.after_stop()
    assert not rclone.uploads.left, "it was no graceful stop"
    assert await rclone.uploads.drain(0.0)
    with capture_logs() as logs:
        await rclone.uploads.after_stop()
        await rclone.uploads.look_last()
    assert rclone.uploads.left == Pending(1, 5, ("a.wav",))
    assert rclone.uploads.reason is not None
    assert rclone.uploads.reason.code == "uploads-pending"
    assert [(each["files"], each["bytes"]) for each in logs] == [(1, 5)]
    rclone.uploads.begin(rclone.settings())
    assert not rclone.uploads.left


async def test_a_disk_that_does_not_answer_leaves_what_was_seen_before(
    rclone: Rclone, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(rclone.cache, "s/b/a.wav", dirty=True)
    rclone.starts()
    await rclone.uploads.drain(0.0)
    monkeypatch.setattr(uploads, "SCAN_LIMIT_S", 0.0)
    await rclone.uploads.after_stop()
    assert rclone.uploads.left == Pending(1, 5, ("a.wav",))


@pytest.mark.parametrize(("error", "busy"), [(RemoteError("no mount yet"), 0), (Unavailable("no answer"), None)])
async def test_an_rclone_without_a_mount_answers_and_has_no_upload(
    rclone: Rclone, monkeypatch: pytest.MonkeyPatch, error: MountdError, busy: int | None
) -> None:
    async def fail(timeout_s: float) -> VfsStats:
        raise error

    monkeypatch.setattr(rclone, "vfs_stats", fail)
    assert await rclone.uploads._busy(1.0) == busy


async def test_a_mount_that_is_not_written_to_has_nothing_to_upload(tmp_path: Path) -> None:
    rclone = Rclone(tmp_path, profile="model-hub")
    put(tmp_path, "s/b/a.wav", dirty=True)
    rclone.starts()
    assert await rclone.uploads.drain(60.0)
    await rclone.uploads.look_last()
    assert (rclone.uploads.reason, rclone.shown) == (None, [])
