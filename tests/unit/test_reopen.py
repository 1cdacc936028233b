"""What is done for a file that waits for its upload when rclone starts, by what rclone's queue says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from mountd.cache.reopen import HOLD_S, ReopenedFile, Reopening, ReopenStep, next_step
from mountd.errors import RemoteError
from mountd.process.slow_disk import SlowDisk
from mountd.rclone.rc import Upload
from tests.unit.test_rclone_rc import Fake, fake

__all__ = ["fake"]

NEW, EMPTY = ReopenedFile(5), ReopenedFile(0)
HELD, READ = ReopenedFile(5, held=True), ReopenedFile(5, held=True, read=True)


def queued(due_s: float, *, uploading: bool = False) -> Upload:
    return Upload(1, "a", due_s, uploading)


@pytest.mark.parametrize(
    ("file", "upload", "step"),
    [
        (NEW, queued(1.0), ReopenStep.HOLD),
        (NEW, queued(-1.0), ReopenStep.HOLD),
        (NEW, queued(-1.0, uploading=True), ReopenStep.WAIT),
        (NEW, None, ReopenStep.LIST),
        (HELD, queued(HOLD_S - 1), ReopenStep.READ),
        (HELD, queued(1.0), ReopenStep.HOLD),  # a program has closed it meanwhile, at an unknown time
        (HELD, queued(-1.0, uploading=True), ReopenStep.WAIT),  # it was put off too late
        (HELD, None, ReopenStep.LIST),
        (READ, queued(HOLD_S - 1), ReopenStep.WAIT),  # rclone does not know of the close yet
        (READ, queued(15.0), ReopenStep.DONE),
        (READ, queued(-1.0, uploading=True), ReopenStep.DONE),
        (READ, None, ReopenStep.DONE),
        (EMPTY, queued(1.0), ReopenStep.UPLOAD),
        (EMPTY, queued(-1e9), ReopenStep.WAIT),
        (EMPTY, queued(-1.0, uploading=True), ReopenStep.WAIT),
        (EMPTY, None, ReopenStep.LIST),
    ],
)
def test_next_step(file: ReopenedFile, upload: Upload | None, step: ReopenStep) -> None:
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
    reopening = Reopening({"store/bucket/gone/a": 5}, tmp_path, meta)

    async def finish() -> None:
        await reopening.finish(client, "/mnt", cast(Any, None), SlowDisk(), lambda _: None)

    if is_done:
        await finish()
    else:
        with pytest.raises(RemoteError):
            await finish()
