"""What waits to be uploaded → is a drain over, what is told of it, what is asked of rclone. Decisions only."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from mountd.rclone.failures import classify
from mountd.status.snapshot import DrainStatus, Reason, size

if TYPE_CHECKING:
    from mountd.rclone.rc import Upload

NAMES = 10
"""As many files are told by name."""
HURRY_AGAIN_S = 3.0
"""An upload that failed is not asked for again before: a bucket that is away gets no storm of requests."""
FAILING_TRIES = 3
"""One or two failures are a hiccup of the network; rclone tries again by itself."""
SILENT_S = 10.0
"""An rclone whose remote control is silent for so long hangs, and uploads nothing that could be waited for."""


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


class Verdict(StrEnum):
    DRAINED = "drained"
    WAITING = "waiting"
    EXPIRED = "expired"
    SILENT = "silent"


@dataclass(frozen=True, slots=True)
class Look:
    """`busy`: uploads queued and under way, as rclone counts; None when it did not answer. `pending` is younger."""

    busy: int | None
    pending: Pending


def judge(look: Look, *, now: float, heard: float, deadline: float) -> Verdict:
    """`heard`: when rclone answered last. Times are seconds on the monotonic clock."""
    if not look.pending and not look.busy:
        # Also when rclone is silent: what is not on disk cannot be uploaded.
        return Verdict.DRAINED
    if now >= deadline:
        return Verdict.EXPIRED
    return Verdict.SILENT if now - heard >= SILENT_S else Verdict.WAITING


def progress(before: DrainStatus | None, look: Look) -> DrainStatus:
    """What is told; `files` is what there was to do, which grows when more is written meanwhile."""
    left = max(look.pending.files, look.busy or 0)
    # What rclone does not queue is still being written.
    unfinished = max(0, look.pending.files - look.busy) if look.busy is not None else 0
    if before is None:
        return DrainStatus(left, left, look.pending.bytes, unfinished)
    total = before.files + max(0, left - before.files_left)
    return replace(before, files=total, files_left=left, bytes_left=look.pending.bytes, open=unfinished)


def to_hurry(queue: Sequence[Upload], asked: Mapping[int, float], now: float) -> list[int]:
    """The uploads that wait for nothing but the time: for a pause after the last write, or after a failure."""
    return [
        each.id
        for each in queue
        if not each.uploading and each.due_s > 0 and now - asked.get(each.id, -HURRY_AGAIN_S) >= HURRY_AGAIN_S
    ]


_FAILED = re.compile(r"failed to upload try #(\d+), will retry in \S+: (.*)", re.DOTALL)
_SUCCEEDED = re.compile(r"upload succeeded try #([2-9]|\d\d+)\b")
_WRAPPING = "vfs cache: failed to transfer file from cache to remote: "


@dataclass(frozen=True, slots=True)
class Tries:
    """How uploads go, by what rclone logs: only the log tells it in every version, and with the cause."""

    failed: int = 0
    """how often the upload that failed last was tried; 0: none fails"""
    cause: str = ""

    def heard(self, line: str) -> Tries:
        if match := _FAILED.search(line):
            return Tries(int(match[1]), match[2].removeprefix(_WRAPPING))
        return Tries() if _SUCCEEDED.search(line) else self

    def reason(self, mount: str, queued: int) -> Reason | None:
        """`uploads-failing`, when it is more than a hiccup and something does wait."""
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
    """For what waits of a mount that is configured no more: there is no next start."""
    return (
        f"they are in the cache {cache} and no mount uploads them now: keep it, and configure {mount} as it was"
        " (remote, options, cache.dir) until they are uploaded"
    )
