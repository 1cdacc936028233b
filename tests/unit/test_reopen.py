"""What is done for a file that waits for its upload when rclone starts, by what rclone's queue says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from mountd.cache.reopen import HOLD_S, Known, Reopening, Step, next_step
from mountd.cache.repair import Left
from mountd.errors import RemoteError
from mountd.process.slow_disk import SlowDisk
from mountd.rclone.rc import Upload
from tests.unit.test_rclone_rc import Fake, fake

__all__ = ["fake"]

NEW, EMPTY = Known(5), Known(0)
HELD, READ = Known(5, held=True), Known(5, held=True, read=True)


def queued(due_s: float, *, uploading: bool = False) -> Upload:
    return Upload(1, "a", 5, 0, due_s, uploading)


@pytest.mark.parametrize(
    ("file", "upload", "step"),
    [
        (NEW, queued(1.0), Step.HOLD),
        (NEW, queued(-1.0), Step.HOLD),
        (NEW, queued(-1.0, uploading=True), Step.WAIT),
        (NEW, None, Step.LIST),
        (HELD, queued(HOLD_S - 1), Step.READ),
        (HELD, queued(1.0), Step.HOLD),  # somebody has closed it meanwhile: when, nobody knows
        (HELD, queued(-1.0, uploading=True), Step.WAIT),  # it was put off too late
        (HELD, None, Step.LIST),
        (READ, queued(HOLD_S - 1), Step.WAIT),  # rclone does not know of the close yet
        (READ, queued(15.0), Step.DONE),
        (READ, queued(-1.0, uploading=True), Step.DONE),
        (READ, None, Step.DONE),
        (EMPTY, queued(1.0), Step.UPLOAD),
        (EMPTY, queued(-1e9), Step.WAIT),
        (EMPTY, queued(-1.0, uploading=True), Step.WAIT),
        (EMPTY, None, Step.LIST),
    ],
)
def test_next_step(file: Known, upload: Upload | None, step: Step) -> None:
    assert next_step(file, upload) is step


@pytest.mark.parametrize(
    ("error", "is_done"), [("file does not exist", True), ("connection refused", False)], ids=["removed", "outage"]
)
async def test_a_directory_that_was_removed_with_its_files_keeps_no_mount_down(
    fake: Fake, tmp_path: Path, error: str, is_done: bool
) -> None:
    rclone, client = fake
    rclone.answers |= {"vfs/queue": {"queue": []}, "vfs/refresh": {"result": {"gone": error}}}
    meta = f"{tmp_path}/vfsMeta/store/bucket"
    reopening = Reopening([Left("store/bucket/gone/a", 5)], tmp_path, meta)

    async def finish() -> None:
        await reopening.finish(client, "/mnt", cast(Any, None), SlowDisk(), lambda _: None)

    if is_done:
        await finish()
    else:
        with pytest.raises(RemoteError):
            await finish()
