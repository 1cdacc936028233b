"""What stands in the journal, a dataclass for each table. Its fields are the table's columns, in this order."""

from __future__ import annotations

from dataclasses import dataclass

SCHEDULE = "schedule"
"""The kind of an operation that only waits: at its time it becomes a switch, with an id of its own."""
STARTED, STOPPED, CRASHED = "mountd-started", "mountd-stopped", "mountd-restarted-after-crash"
"""The first and the last event of each run, and what is written when the last one is missing."""
REPORTED_KINDS = ("switch", "rollback")
"""Operations of which each result is an event, `switch-committed` for one."""


@dataclass(frozen=True, slots=True)
class Committed:
    """What is durable of a model: the versions that are, were and should be live."""

    current: str | None = None
    previous: str | None = None
    desired: str | None = None
    config_version: str | None = None
    suspended: str | None = None
    """who and why automatic changes are paused; None: they are not"""
    overridden: str | None = None
    """who has switched by hand, and to what, against the source of the wanted version; None: nobody has"""


@dataclass(frozen=True, slots=True)
class OperationRecord:
    """One operation, as it stands in the journal; `finished` is None while it runs."""

    id: int
    kind: str
    model: str
    from_version: str | None
    to_version: str
    operator: str
    source: str
    reason: str
    step: str
    started: str
    finished: str | None = None
    result: str | None = None
    cause: str = ""
    hint: str = ""
    exit_code: int | None = None
    duration_s: float | None = None
    due: str | None = None
    """of a schedule: when, UTC, ISO 8601"""
    schedule: int | None = None
    """of a switch: the id of the schedule that asked for it"""
    options: str = ""
    """of a schedule, words: force, digests"""
    revision: str | None = None
    """the commit that asked for it"""

    @property
    def action(self) -> str:
        return action(self.kind, self.to_version)

    @property
    def outcome(self) -> str:
        """What came of it, in a sentence for people."""
        if self.result == "committed":
            former = f" instead of {self.from_version}" if self.from_version else ""
            return f"{self.model} is at {self.to_version}{former}, by {self.operator}"
        return self.cause or f"cannot {self.action}: {self.result}"


def action(kind: str, version: str) -> str:
    """What an operation is for, as it stands after "cannot": `switch to v23`, `roll back to v22`."""
    if kind in ("warm", SCHEDULE):
        return f"{kind} {version}"
    return f"{'roll back' if kind == 'rollback' else kind} to {version}"


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One step of an operation; `ended` is None while it runs, and for ever when mountd ended in it."""

    operation: int
    step: str
    began: str
    ended: str | None = None
    outcome: str | None = None
    duration_s: float | None = None
    """seconds, of a clock that nobody sets; None also when mountd was restarted in between"""


@dataclass(frozen=True, slots=True)
class Quarantined:
    """Content that failed by its own fault, known by its digest; `version` is what it was called then."""

    model: str
    digest: str
    version: str
    operation: int | None
    cause: str
    since: str


@dataclass(frozen=True, slots=True)
class KnownContent:
    """What a version held when it was committed; `listing` is the digest of its sorted lines of paths and sizes."""

    model: str
    version: str
    digest: str
    listing: str
    recorded: str


@dataclass(frozen=True, slots=True)
class Declared:
    """What a source said last: the version that it wants, and of Git the commit, its author and message.

    Of an edited `version:` the source is `config`. `seen`: since when it has named this version, over all its commits.
    """

    model: str
    version: str
    source: str
    revision: str | None
    author: str
    message: str
    seen: str


@dataclass(frozen=True, slots=True)
class EventRecord:
    """Something that happened; ids grow with time and are never used again."""

    id: int
    time: str
    code: str
    object: str
    text: str
    data: str = ""
    """for programs: a JSON object, empty where `text` says all there is"""


@dataclass(frozen=True, slots=True)
class OutboxFile:
    """A file of an outbox, as it was when it was last found finished."""

    id: int
    """another one each time that the file was written again"""
    outbox: str
    name: bytes
    """path below the directory of the outbox"""
    state: str
    """queued, uploading, uploaded, removed (uploaded, and no longer here), failed, refused or lost"""
    size: int
    stamp: str
    root: str
    sha256: str
    md5: str
    bucket: str
    key: str
    cause: str
    tries: int
    queued: str
    uploaded: str | None
    event: int | None
    """of its upload; also while that is checked for a file whose content has stayed the same"""


@dataclass(frozen=True, slots=True)
class Drilled:
    """What the drill of one operation measured, in seconds; None: did not happen. `details` is a JSON object."""

    operation: int
    kind: str
    mount: str
    detected_s: float | None
    serving_again_s: float | None
    ready_again_s: float | None
    app_restarted: bool
    passed: bool
    details: str = "{}"


@dataclass(frozen=True, slots=True)
class NotifyCursor:
    """How far a target of notifications is in the events: all up to the id `cursor` are decided."""

    target: str
    cursor: int
    messages: int = 0
    """delivered"""
    failed: int = 0
    """messages that were given up"""
    dropped: int = 0
    """events that left the journal before they were delivered"""
    last: str | None = None
    """when a message was delivered last, UTC, ISO 8601"""
    state: str = "{}"
    """a JSON object: what the rules remember of this target"""
