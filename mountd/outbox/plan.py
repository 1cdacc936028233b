"""What becomes of a file that was found, what a key is, and what a failed upload means: decisions of an outbox."""

from __future__ import annotations

import errno
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mountd.journal.records import OutboxFile
from mountd.journal.results import OutboxTotals, ResultFile
from mountd.outbox.settling import FileLook
from mountd.process.lifecycle import Backoff
from mountd.publish.plan import key_prefix, name_problem
from mountd.status.results import OutboxStatus
from mountd.status.snapshot import Health, Reason, size
from mountd.text import printable, storable

AGAIN = Backoff(1.0, 2.0, 60.0)
"""Between two tries while nothing can be uploaded."""
OWN_TRIES = 5
"""A file that failed so often while others were uploaded fails for a reason of its own."""
UPLOAD_S = 24 * 3600.0
"""Seconds that every upload may take; one that does not move is ended long before."""
LASTS_S = 300.0
"""Seconds after which a try counts as one that goes on: what fails does so before."""
SLOWEST = 16 * 1024
"""Bytes a second with which a large file is still given the time that it needs."""
WAITING = "outbox-waiting"
OF_THE_DIRECTORY = (
    "outbox-no-directory",
    "outbox-directory",
    "outbox-disk-silent",
    "outbox-missing",
    "outbox-unreadable",
    "outbox-disk-full",
    "outbox-too-many",
)
"""Codes of what only a look at the directory finds out."""
HINTS = {
    "outbox-no-directory": "let the app make it, or mount its disk; a link at its place is not followed",
    "outbox-directory": "let mountd's user read and enter it",
}
MOST_SHOWN = 100
"""Characters of a name within a sentence about it."""
HERE = ("uploaded", "removed")
NO_DIRECTORY = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_OF_THE_MACHINE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
OF_ALL = (*NO_DIRECTORY, *_OF_THE_MACHINE, errno.ESTALE, errno.ENOTCONN, errno.ENODEV, errno.ENXIO)
"""Errors of the directory, its whole disk or this machine; any other is the file's own, and stops no other file."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an outbox's files go."""

    bucket: str
    prefix: str
    """of the keys, without the last slash"""

    @classmethod
    def of(cls, remote: str) -> Place:
        """Of `name:bucket/prefix`."""
        return cls(remote.partition(":")[2].strip("/").partition("/")[0], key_prefix(remote, ""))

    def key(self, path: str) -> str:
        return f"{self.prefix}/{path}" if self.prefix else path


@dataclass(frozen=True, slots=True)
class StoredObject:
    """What the store says of an object; digests in hex, "" where it has none."""

    size: int
    md5: str
    sha256: str


@dataclass(slots=True)
class Verdicts:
    """What is to be changed in the journal for files that were found finished."""

    put: list[ResultFile] = field(default_factory=list)
    restamp: dict[int, str] = field(default_factory=dict)
    returned: list[int] = field(default_factory=list)


def new(
    found: Sequence[tuple[bytes, str, FileLook]], known: Mapping[bytes, OutboxFile], place: Place, root: str
) -> list[int]:
    """Which of them `judge` would have changed something for."""
    return [at for at, each in enumerate(found) if judge([each], known, place, root) != Verdicts()]


def judge(
    found: Sequence[tuple[bytes, str, FileLook]], known: Mapping[bytes, OutboxFile], place: Place, root: str
) -> Verdicts:
    """`found`: name, path and look of each; `known`: what the journal has of them; `root`: the directory."""
    verdicts = Verdicts()
    for name, path, look in found:
        row = known.get(name)
        before = None if row is None else FileLook.of(row.size, row.stamp)
        problem = _short(name_problem(path, place.prefix), repr(path))
        if row is None or before is None or before.content != look.content or _is_outdated(row, root, problem):
            state = "refused" if problem else "queued"
            verdicts.put.append(ResultFile(name, look.size, look.stamp, state, problem))
        elif row.state in HERE and before != look:
            # Only its ctime differs: it was moved, restored, or its rights changed. Its content decides on an upload.
            verdicts.put.append(
                ResultFile(
                    *(name, look.size, look.stamp),
                    sha256=row.sha256,
                    key=row.key,
                    uploaded=row.uploaded,
                    event=row.event,
                )
            )
        elif row.state == "removed":
            verdicts.returned.append(row.id)
        elif before != look:
            verdicts.restamp[row.id] = look.stamp
    return verdicts


def _short(problem: str, name: str) -> str:
    """What is wrong stands after the name, and may not be cut off."""
    return storable(name, MOST_SHOWN) + problem.removeprefix(name) if problem.startswith(name) else problem


def mismatch(row: OutboxFile, stored: StoredObject | None) -> str:
    """How what the bucket holds differs from the file, in words; "" when it does not, as far as the store says."""
    if stored is None:
        return "it is not in the bucket after its upload"
    if stored.size != row.size:
        return f"the bucket holds {stored.size} bytes of it instead of {row.size}"
    if stored.md5 and stored.md5 != row.md5:
        return f"the bucket holds something with the MD5 {stored.md5} instead of {row.md5}"
    if stored.sha256 and stored.sha256 != row.sha256:
        return f"the bucket holds what was uploaded with the sha256 {stored.sha256} instead of {row.sha256}"
    return ""


def differs_by_md5_alone(row: OutboxFile, stored: StoredObject | None) -> bool:
    """Whether it is this upload by size and sha256, and its MD5 is another one.

    Then its content has been changed on the way, or the MD5 is none: an ETag may look like one, and be of encrypted
    content (with keys of KMS, or of the client).
    """
    return (
        stored is not None
        and bool(stored.sha256)
        and bool(mismatch(row, stored))
        and not mismatch(row, replace(stored, md5=""))
    )


def compared(stored: StoredObject) -> list[str]:
    """What an upload was compared by, of what the store says of it: size, md5, sha256."""
    return ["size", *(["md5"] if stored.md5 else []), *(["sha256"] if stored.sha256 else [])]


def is_there(row: OutboxFile, stored: StoredObject | None) -> bool:
    """Whether the bucket holds this content for certain, no matter who sent it: an older object may be as large."""
    return stored is not None and bool(stored.md5 or stored.sha256) and not mismatch(row, stored)


def longest_upload_s(size: int, limit: int | None, parallel: int) -> float:
    """Seconds after which an upload of so many bytes is given up; `limit`: bytes a second of all together."""
    return UPLOAD_S + size / min(SLOWEST, (limit or math.inf) / parallel)


def _is_outdated(row: OutboxFile, root: str, problem: str) -> bool:
    """Whether it counts as lost, waits in another directory of the same name, or was judged by another prefix."""
    if row.state == "refused":
        return not problem
    return row.state == "lost" or (
        row.state in ("queued", "uploading", "failed") and (row.root != root or bool(problem))
    )


@dataclass(frozen=True, slots=True)
class Sending:
    """How uploads go. Times in seconds, monotonic."""

    failures: int = 0
    """in a row, without an upload between them"""
    cause: Reason | None = None
    last_upload: float = -math.inf

    failed_at: float = -math.inf

    def uploaded(self, now: float) -> Sending:
        return Sending(last_upload=now)

    def failed(self, cause: Reason, now: float) -> Sending:
        return replace(self, failures=self.failures + 1, cause=cause, failed_at=now)

    @property
    def has_tried(self) -> bool:
        return self.failures > 0 or self.last_upload > -math.inf

    def wait_s(self, now: float) -> float:
        """Until the next try."""
        return max(0.0, self.failed_at + AGAIN.delay_s(self.failures) - now) if self.failures else 0.0

    def at_once(self, parallel: int, begun: Collection[float], now: float) -> int:
        """How many uploads may be under way, when those that are began then: one that tries, while none succeeds.

        A large file may go on for hours. Others do not wait for one that began before the last failure, or long ago.
        """
        if not self.failures:
            return parallel
        return min(parallel, 1 + sum(at < self.failed_at or at < now - LASTS_S for at in begun))

    def is_of_the_file(self, tries: int, first_failed: float) -> bool:
        """Whether a file that has failed so often, first at that time, fails for its own reason."""
        return tries >= OWN_TRIES and self.last_upload > first_failed


@dataclass(frozen=True, slots=True)
class DirectoryFacts:
    """What is known of the directory. `was_there`: it has been, so that something is wrong when it is not; `missing`:
    files that were not uploaded, and lay in another directory of the same name."""

    reason: Reason | None = None
    was_there: bool = False
    free_bytes: int | None = None
    least_free_bytes: int = 0
    missing: int = 0
    writing: int = 0
    too_many: int = 0
    unread: Sequence[str] = ()
    skipped: int = 0
    first_skipped: str = ""

    @property
    def was_looked_at(self) -> bool:
        """In this run of the outbox."""
        return self.free_bytes is not None


def status(
    name: str, before: OutboxStatus, totals: OutboxTotals, sending: Sending, facts: DirectoryFacts, *, late: str
) -> OutboxStatus:
    """`late`: for how long the oldest one has waited, in words, once that is too long; else "".

    A reason of `before`, which other settings may have interrupted, stays until this run has found out itself.
    """
    reason = _reason(name, before, totals, sending, facts, late=late)
    harmless = reason is None or (reason is facts.reason and not facts.was_there)
    health = Health.HEALTHY if harmless else Health.DEGRADED
    is_held = reason is not None and reason is before.reason and reason is not facts.reason
    return replace(
        before,
        health=before.health if is_held else health,
        pending=totals.pending,
        pending_bytes=totals.pending_bytes,
        writing=facts.writing,
        uploaded=totals.uploaded,
        failed=totals.failed,
        oldest=totals.oldest,
        last_key=totals.last_key,
        last_time=totals.last_time,
        last_compared=totals.last_compared,
        reason=reason,
    )


def _reason(
    name: str, before: OutboxStatus, totals: OutboxTotals, sending: Sending, facts: DirectoryFacts, *, late: str
) -> Reason | None:
    """The one that is nearest to the cause."""

    def reason(code: str, text: str, hint: str) -> Reason:
        return Reason(code, text, "outbox", name, hint)

    known = before.reason
    if facts.reason is not None:
        return facts.reason
    if known is not None and known.code in OF_THE_DIRECTORY and not facts.was_looked_at:
        return known
    if facts.missing:
        return reason(
            "outbox-missing",
            f"results of {name} that are not uploaded lay in another {before.directory} than the one that is there now",
            "mount its disk again; files that are gone for good count as lost after an hour",
        )
    if sending.cause is not None and totals.pending:
        return reason(
            WAITING,
            f"results of {name} wait for their upload: {sending.cause.text}",
            sending.cause.hint or "mountd tries again by itself, and loses none of them",
        )
    if known is not None and known.code == WAITING and totals.pending and not sending.has_tried:
        return known
    if late:
        return reason(
            "outbox-late",
            f"the oldest result of {name} has waited for its upload for more than {late}",
            "see how fast the network to the store is, `limit` and `parallel` of the outbox",
        )
    if facts.free_bytes is not None and facts.free_bytes < facts.least_free_bytes:
        return reason(
            "outbox-disk-full",
            f"the disk of {before.directory} has {size(facts.free_bytes)} left",
            "shorten `keep` of the outbox, or remove files there: what is uploaded can go",
        )
    if totals.failed:
        return reason(
            "outbox-failed",
            f"a result of {name} cannot be uploaded: {totals.failed_cause}",
            "rename or remove the file; `mountd events` names the first of each minute",
        )
    if facts.unread:
        return reason(
            "outbox-unreadable",
            f"cannot read {before.directory}/{facts.unread[0]}: results that lie there are not uploaded",
            "let mountd's user read it",
        )
    if facts.skipped:
        return reason(
            "outbox-unreadable",
            f"{facts.skipped} paths in {before.directory} are too long or too deep, and are left out: the first is"
            f" {storable(printable(facts.first_skipped), MOST_SHOWN)}",
            "use shorter names, or fewer directories in each other: 1,024 bytes and 64 directories at most",
        )
    if facts.too_many:
        return reason(
            "outbox-too-many",
            f"{before.directory} holds more than {facts.too_many} new files: the others are taken up after these",
            "nothing, if the app has written them at once; else see what writes there, and `exclude` what is no result",
        )
    return None
