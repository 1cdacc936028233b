"""What waits to be uploaded → is a drain over, what is shown of it, what is asked of rclone. Decisions only."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from mountd.rclone.failures import classify
from mountd.status.snapshot import DrainStatus, Reason, size

if TYPE_CHECKING:
    from mountd.rclone.rc import Upload

NAMES = 10
"""As many files are shown by name."""
HURRY_AGAIN_S = 3.0
"""An upload that failed is not asked for again before: a bucket that is unreachable does not get many requests."""
FAILING_TRIES = 3
"""One or two failures are usual on a network; rclone tries again by itself."""
SILENT_S = 10.0
"""An rclone whose remote control is silent for so long hangs: there is no upload to wait for."""


@dataclass(frozen=True, slots=True)
class Pending:
    """Files that are in the cache and not in the bucket; `names` are the first of them."""

    files: int = 0
    bytes: int = 0
    names: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.files > 0

    def __str__(self) -> str:
        more = f" and {self.files - len(self.names)} more" if self.files > len(self.names) else ""
        return f"{count(self.files)} ({', '.join(self.names)}{more}; {size(self.bytes)})"


def count(files: int) -> str:
    return f"{files} file{'s' if files != 1 else ''}"


class DrainVerdict(StrEnum):
    DRAINED = "drained"
    WAITING = "waiting"
    EXPIRED = "expired"
    SILENT = "silent"


def judge(busy: int | None, pending: Pending, *, now: float, heard: float, deadline: float) -> DrainVerdict:
    """`busy`: uploads queued and under way, as rclone counts; None when it did not answer. `pending` is newer.

    `heard`: when rclone answered last. Times are seconds on the monotonic clock.
    """
    if not pending and not busy:
        # Also when rclone is silent: what is not on disk cannot be uploaded.
        return DrainVerdict.DRAINED
    if now >= deadline:
        return DrainVerdict.EXPIRED
    return DrainVerdict.SILENT if now - heard >= SILENT_S else DrainVerdict.WAITING


def progress(before: DrainStatus | None, busy: int | None, pending: Pending) -> DrainStatus:
    """What is shown; `files` is what there was to do, which grows when more is written meanwhile."""
    left = max(pending.files, busy or 0)
    # What rclone does not queue is still being written.
    unfinished = max(0, pending.files - busy) if busy is not None else 0
    total = left if before is None else before.files + max(0, left - before.files_left)
    return DrainStatus(total, left, pending.bytes, unfinished)


def to_hurry(queue: Sequence[Upload], asked: Mapping[int, float], now: float) -> list[int]:
    """The uploads that wait only for their time: a pause after the last write, or after a failure.

    `asked`: when each was last asked to begin. Times are seconds on the monotonic clock.
    """
    return [
        each.id
        for each in queue
        if not each.uploading and each.due_s > 0 and now - asked.get(each.id, -HURRY_AGAIN_S) >= HURRY_AGAIN_S
    ]


_FAILED = re.compile(r"failed to upload try #(\d+), will retry in \S+: (.*)", re.DOTALL)
_SUCCEEDED = re.compile(r"upload succeeded try #([2-9]|\d\d+)\b")
_PREFIX = "vfs cache: failed to transfer file from cache to remote: "


@dataclass(frozen=True, slots=True)
class UploadTries:
    """How uploads go, according to rclone's log: only the log says it in every version, and with the cause."""

    failed: int = 0
    """how often the upload that failed last was tried; 0: none fails"""
    cause: str = ""

    def heard(self, line: str) -> UploadTries:
        if match := _FAILED.search(line):
            return UploadTries(int(match[1]), match[2].removeprefix(_PREFIX))
        return UploadTries() if _SUCCEEDED.search(line) else self

    def reason(self, mount: str, queued: int) -> Reason | None:
        """`uploads-failing`, when it is more than one or two failures and something does wait."""
        if self.failed < FAILING_TRIES or not queued:
            return None
        failure = classify(self.cause)
        text = f"cannot upload {count(queued)} of mount {mount}, tried {self.failed} times: {failure.text}"
        hint = failure.hint or f"see `mountd logs {mount}`"
        return Reason("uploads-failing", text, "mount", mount, f"{hint}; nothing is lost, the files stay in the cache")


def not_uploaded(mount: str, pending: Pending, cache: str) -> Reason:
    """`uploads-pending`: a stop could not wait any longer."""
    text = f"{pending} of mount {mount} {'is' if pending.files == 1 else 'are'} not uploaded yet"
    hint = f"they are in the cache {cache} and will be uploaded at the next start: keep it"
    return Reason("uploads-pending", text, "mount", mount, hint)


def hint_of_removed(mount: str, cache: str) -> str:
    """For what waits of a mount that was removed from the configuration: there is no next start."""
    return (
        f"they are in the cache {cache} and no mount uploads them now: keep it, and configure {mount} as it was"
        " (remote, options, cache.dir) until they are uploaded"
    )
